// Epilogues of products (kernels/finish.h) against the portable one, in every storage type and at odd sizes.
#include "kernels/finish.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "libds/base/cpu.h"
#include "libds/base/half.h"
#include "libds/base/random.h"

namespace ds::kernels {
namespace {

using A = Activation;

using S = StoredType;

uint16_t narrowed(float x, S type) { return type == S::kBf16 ? bf16(x).bits : saturated_f16(x).bits; }
float widened(uint16_t bits, S type) {
  f16 half;
  half.bits = bits;
  return type == S::kBf16 ? float_from_bits(static_cast<uint32_t>(bits) << 16) : static_cast<float>(half);
}

void check(FinishFn* finish, const Epilogue& epilogue, bool scale, bool bias, bool add, S y_type, S addend_type) {
  constexpr int64_t kRows = 5, kChannels = 61, kRow = 2, kColumn = 7, kStride = 32;
  Random random(3, static_cast<uint64_t>(epilogue.activation));
  for (int64_t columns : {1, 7, 8, 15, 16, 17, 31, 32}) {
    std::vector<float> sums(kRows * kStride), b(kChannels), addend(kRows * 2 * kChannels);
    for (auto* list : {&sums, &b, &addend})
      for (float& x : *list) x = static_cast<float>(3 * random.normal());
    sums[0] = NAN;
    sums[kStride + 1] = 1e6f;  // beyond f16
    std::vector<float> scales(kChannels);
    for (float& x : scales) x = std::exp2(static_cast<float>(random.below(5)) - 2);
    std::vector<uint16_t> addend16(addend.size()), y16(addend.size(), 0x1234);
    for (size_t i = 0; i < addend.size(); ++i) addend16[i] = narrowed(addend[i], addend_type);
    std::vector<float> y(addend.size(), 17.0f);
    Finish f;
    f.epilogue = epilogue;
    f.column_scale = scale ? scales.data() : nullptr;
    f.bias = bias ? b.data() : nullptr;
    f.addend = !add ? nullptr : addend_type != S::kF32 ? static_cast<const void*>(addend16.data()) : addend.data();
    f.addend_type = addend_type;
    f.y = y_type != S::kF32 ? static_cast<void*>(y16.data()) : y.data();
    f.y_type = y_type;
    f.channels = kChannels;
    bool beyond = false;
    f.beyond = &beyond;
    finish(f, kRow, kRows, kColumn, columns, sums.data(), kStride);
    const bool unbounded = epilogue.activation == A::kNone || epilogue.activation == A::kRelu;
    if (finish == finish_avx512 && unbounded) {
      EXPECT_EQ(beyond, y_type == S::kF16 && columns > 1);  // the large sum is in the second column
    }
    for (int64_t r = 0; r < kRows * 2; ++r)
      for (int64_t c = 0; c < kChannels; ++c) {
        const auto at = static_cast<size_t>(r * kChannels + c);
        const bool inside = r >= kRow && r < kRow + kRows && c >= kColumn && c < kColumn + columns;
        if (!inside) {
          ASSERT_TRUE(y_type != S::kF32 ? y16[at] == 0x1234 : y[at] == 17.0f) << "written outside at " << r << ", " << c;
          continue;
        }
        float expected = sums[static_cast<size_t>((r - kRow) * kStride + c - kColumn)] * (scale ? scales[static_cast<size_t>(c)] : 1);
        if (bias) expected += b[static_cast<size_t>(c)];
        if (add) expected += addend_type == S::kF32 ? addend[at] : widened(addend16[at], addend_type);
        apply_epilogue<float>({epilogue.activation, epilogue.low, epilogue.high, false}, 1, nullptr, &expected);
        const float got = y_type == S::kF32 ? y[at] : widened(y16[at], y_type);
        if (y_type == S::kF16) expected = std::isnan(expected) ? expected : std::clamp(expected, -kLargestF16, kLargestF16);
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(got));
        } else {
          ASSERT_NEAR(got, expected, (y_type == S::kBf16 ? 0.005f : y_type == S::kF16 ? 6e-4f : 2e-6f) * std::max(1.0f, std::abs(expected)));
        }
      }
  }
}

void check_all(FinishFn* finish) {
  for (A a : {A::kNone, A::kRelu, A::kClip, A::kSigmoid, A::kHardSwish, A::kSilu, A::kGelu, A::kGeluTanh, A::kTanh})
    for (int bits = 0; bits < 8; ++bits)
      for (const auto& [y, addend] : {std::pair{S::kF32, S::kF32}, {S::kBf16, S::kF32}, {S::kF32, S::kBf16}, {S::kBf16, S::kBf16},
                                      {S::kF16, S::kF32}, {S::kF32, S::kF16}, {S::kF16, S::kF16}}) {
        SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(a) << ", options " << bits << ", result " << static_cast<int>(y)
                                        << ", addend " << static_cast<int>(addend));
        check(finish, {a, -0.5f, 1.5f, false}, bits & 1, bits & 2, bits & 4, y, addend);
        if (testing::Test::HasFatalFailure()) return;
      }
}

TEST(Finish, Avx2) {
  if (cpu_isa() < Isa::kAvx2) GTEST_SKIP() << "the CPU has no AVX2";
  check_all(finish_avx2);
}

TEST(Finish, Avx512) {
  if (cpu_isa() < Isa::kAvx512) GTEST_SKIP() << "the CPU has no AVX-512";
  check_all(finish_avx512);
}

}  // namespace
}  // namespace ds::kernels
