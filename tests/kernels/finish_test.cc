// Epilogues of products (kernels/finish.h) against the portable one, in every storage type and at odd sizes.
#include "kernels/finish.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "libds/base/cpu.h"
#include "libds/base/half.h"
#include "libds/base/random.h"

namespace ds::kernels {
namespace {

using A = Activation;

float stored(float x, bool narrow) { return narrow ? static_cast<float>(bf16(x)) : x; }

void check(FinishFn* finish, const Epilogue& epilogue, bool bias, bool add, bool y_bf16, bool addend_bf16) {
  constexpr int64_t kRows = 5, kChannels = 61, kRow = 2, kColumn = 7, kStride = 32;
  Random random(3, static_cast<uint64_t>(epilogue.activation));
  for (int64_t columns : {1, 7, 8, 15, 16, 17, 31, 32}) {
    std::vector<float> sums(kRows * kStride), b(kChannels), addend(kRows * 2 * kChannels);
    for (auto* list : {&sums, &b, &addend})
      for (float& x : *list) x = static_cast<float>(3 * random.normal());
    sums[0] = NAN;
    std::vector<uint16_t> addend16(addend.size()), y16(addend.size(), 0x1234);
    for (size_t i = 0; i < addend.size(); ++i) addend16[i] = bf16(addend[i]).bits;
    std::vector<float> y(addend.size(), 17.0f);
    Finish f;
    f.epilogue = epilogue;
    f.bias = bias ? b.data() : nullptr;
    f.addend = !add ? nullptr : addend_bf16 ? static_cast<const void*>(addend16.data()) : addend.data();
    f.addend_bf16 = addend_bf16;
    f.y = y_bf16 ? static_cast<void*>(y16.data()) : y.data();
    f.y_bf16 = y_bf16;
    f.channels = kChannels;
    finish(f, kRow, kRows, kColumn, columns, sums.data(), kStride);
    for (int64_t r = 0; r < kRows * 2; ++r)
      for (int64_t c = 0; c < kChannels; ++c) {
        const auto at = static_cast<size_t>(r * kChannels + c);
        const bool inside = r >= kRow && r < kRow + kRows && c >= kColumn && c < kColumn + columns;
        if (!inside) {
          ASSERT_TRUE(y_bf16 ? y16[at] == 0x1234 : y[at] == 17.0f) << "written outside at " << r << ", " << c;
          continue;
        }
        float expected = sums[static_cast<size_t>((r - kRow) * kStride + c - kColumn)] + (bias ? b[static_cast<size_t>(c)] : 0);
        if (add) expected += stored(addend[at], addend_bf16);
        apply_epilogue<float>({epilogue.activation, epilogue.low, epilogue.high, false}, 1, nullptr, &expected);
        const float got = y_bf16 ? float_from_bits(static_cast<uint32_t>(y16[at]) << 16) : y[at];
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(got));
        } else {
          ASSERT_NEAR(got, expected, (y_bf16 ? 0.005f : 2e-6f) * std::max(1.0f, std::abs(expected)));
        }
      }
  }
}

void check_all(FinishFn* finish) {
  for (A a : {A::kNone, A::kRelu, A::kClip, A::kSigmoid, A::kHardSwish, A::kSilu, A::kGelu, A::kGeluTanh, A::kTanh})
    for (int bits = 0; bits < 16; ++bits) {
      SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(a) << ", options " << bits);
      check(finish, {a, -0.5f, 1.5f, false}, bits & 1, bits & 2, bits & 4, bits & 8);
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
