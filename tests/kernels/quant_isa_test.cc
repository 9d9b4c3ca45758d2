// 8-bit pooling by AVX2 and rescaling by AVX2 and AVX-512 instructions: the portable kernels' bits, but for activations in
// float, which agree up to rounding.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/qgemm.h"
#include "kernels/quant.h"
#include "libds/base/cpu.h"

namespace ds::kernels {
namespace {

std::vector<uint8_t> random_bytes(int64_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int> draw(0, 255);
  std::vector<uint8_t> v(static_cast<size_t>(n));
  for (uint8_t& b : v) b = static_cast<uint8_t>(draw(engine));
  return v;
}

TEST(QuantPool, MaximaAreTheSameBits) {
  if (cpu_isa() < Isa::kAvx2) GTEST_SKIP() << "needs AVX2";
  for (const int64_t channels : {1, 7, 8, 31, 32, 64, 75})
    for (QPoolShape s : {QPoolShape{2, 7, 9, 0, 4, 5, 3, 3, 2, 2, 1, 1, 1, 1}, QPoolShape{1, 6, 5, 0, 5, 3, 2, 3, 1, 1, 1, 1, 0, 0},
                         QPoolShape{1, 8, 11, 0, 8, 11, 3, 3, 1, 1, 2, 2, 2, 2}, QPoolShape{1, 2, 2, 0, 5, 5, 2, 2, 1, 1, 1, 1, 2, 2}}) {
      s.channels = channels;
      const std::vector<uint8_t> x = random_bytes(s.batch * s.height * s.width * channels, 1);
      const auto out = static_cast<size_t>(s.batch * s.out_height * s.out_width * channels);
      std::vector<uint8_t> expected(out), y(out + 1, 77);
      quant_max_pool<uint8_t>(s, x.data(), expected.data());
      quant_max_pool_avx2(s, false, x.data(), y.data());
      EXPECT_EQ(std::vector<uint8_t>(y.begin(), y.end() - 1), expected) << channels;
      quant_max_pool<int8_t>(s, reinterpret_cast<const int8_t*>(x.data()), reinterpret_cast<int8_t*>(expected.data()));
      quant_max_pool_avx2(s, true, x.data(), y.data());
      EXPECT_EQ(std::vector<uint8_t>(y.begin(), y.end() - 1), expected) << channels;
      EXPECT_EQ(y.back(), 77);
    }
}

TEST(QuantPool, MeansAreTheSameBits) {
  if (cpu_isa() < Isa::kAvx2) GTEST_SKIP() << "needs AVX2";
  for (const int64_t channels : {1, 7, 8, 20, 64})
    for (const int64_t pixels : {1, 6, 49, 1000})
      for (const float narrow : {0.01f, 0.002f}) {  // the second saturates
        const std::vector<uint8_t> x = random_bytes(3 * pixels * channels, 2);
        std::vector<uint8_t> expected(static_cast<size_t>(3 * channels)), y(expected.size());
        quant_global_average<uint8_t>(3, pixels, channels, x.data(), {0.02f, 31}, {narrow, 9}, expected.data());
        quant_global_average_avx2(3, pixels, channels, false, x.data(), {0.02f, 31}, {narrow, 9}, y.data());
        EXPECT_EQ(y, expected);
        quant_global_average<int8_t>(3, pixels, channels, reinterpret_cast<const int8_t*>(x.data()), {0.02f, -5}, {narrow, 3},
                                     reinterpret_cast<int8_t*>(expected.data()));
        quant_global_average_avx2(3, pixels, channels, true, x.data(), {0.02f, -5}, {narrow, 3}, y.data());
        EXPECT_EQ(y, expected);
      }
}

TEST(Rescale, Avx512GivesTheSameBits) {
  if (cpu_isa() < Isa::kAvx512) GTEST_SKIP() << "needs AVX-512";
  constexpr int64_t kRows = 3, kStride = 40;
  std::mt19937 engine(3);
  std::uniform_int_distribution<int32_t> sum(-40000, 40000);
  std::uniform_real_distribution<float> factor(0.0005f, 0.01f);
  std::vector<int32_t> sums(kRows * kStride), bias(kStride);
  std::vector<float> multiplier(kStride), float_bias(kStride);
  for (int32_t& s : sums) s = sum(engine);
  for (int32_t& b : bias) b = sum(engine);
  for (float& m : multiplier) m = factor(engine);
  multiplier[3] = 0.5f;  // ties
  for (float& b : float_bias) b = factor(engine) * 1000;
  for (const QOutput output : {QOutput::kU8, QOutput::kI8, QOutput::kF32, QOutput::kI32})
    for (const int64_t n : {1, 8, 15, 16, 17, 32, 39})
      for (const int with : {0, 1, 2, 3}) {
        QRescale q;
        q.output = output;
        q.multiplier = multiplier.data();
        if ((with & 1) != 0) q.bias = bias.data();
        if ((with & 2) != 0) q.float_bias = float_bias.data();
        q.zero = output == QOutput::kI8 ? -7 : 13;
        q.lo = output == QOutput::kI8 ? -128 : 13;
        q.hi = output == QOutput::kI8 ? 127 : 255;
        const auto row_bytes = static_cast<int64_t>(output_size(output)) * (n + 1);
        std::vector<uint8_t> expected(static_cast<size_t>(kRows * row_bytes), 77), y = expected;
        portable_qgemm().rescale(kRows, n, sums.data(), kStride, q, expected.data(), row_bytes);
        qrescale_avx512(kRows, n, sums.data(), kStride, q, y.data(), row_bytes);
        EXPECT_EQ(y, expected) << "output " << static_cast<int>(output) << ", " << n << " columns";
      }
}

// Sums, constants and residuals of kRows rows.
struct RescaleData {
  static constexpr int64_t kRows = 3, kStride = 40;
  std::vector<int32_t> sums = std::vector<int32_t>(kRows * kStride), bias = std::vector<int32_t>(kStride);
  std::vector<float> multiplier = std::vector<float>(kStride), float_bias = multiplier, floats = std::vector<float>(kRows * kStride);
  std::vector<uint8_t> bytes = random_bytes(kRows * kStride, 5);

  explicit RescaleData(float size) {
    std::mt19937 engine(3);
    std::uniform_int_distribution<int32_t> sum(-40000, 40000);
    std::uniform_real_distribution<float> factor(size / 20, size), real(-2, 2);
    for (int32_t& s : sums) s = sum(engine);
    for (int32_t& b : bias) b = sum(engine);
    for (float& m : multiplier) m = factor(engine);
    for (float& b : float_bias) b = factor(engine) * 1000;
    for (float& f : floats) f = real(engine);
  }
  // Bit 0 of `with`: a bias, 1: a bias in float.
  QRescale rescale(QOutput output, int with) const {
    QRescale q;
    q.output = output;
    q.multiplier = multiplier.data();
    if ((with & 1) != 0) q.bias = bias.data();
    if ((with & 2) != 0) q.float_bias = float_bias.data();
    q.zero = output == QOutput::kI8 ? -7 : 13;
    q.lo = output == QOutput::kI8 ? -128 : 0;
    q.hi = output == QOutput::kI8 ? 127 : 255;
    q.addend_stride = kStride;
    return q;
  }
};

std::vector<std::pair<const char*, QRescaleFn*>> rescale_functions() {
  std::vector<std::pair<const char*, QRescaleFn*>> list;
  if (cpu_isa() >= Isa::kAvx2) list.emplace_back("avx2", avx2_qgemm().rescale);
  if (cpu_isa() >= Isa::kAvx512) list.emplace_back("avx512", qrescale_avx512);
  return list;
}

// Also against the definition: the result stored first, then quant_add().
TEST(Rescale, AddsBytesAsTheSeparateOperatorDoes) {
  const RescaleData d(0.01f);
  const QParams own{0.03f, 0}, other{0.05f, 9};
  for (const QOutput output : {QOutput::kU8, QOutput::kI8})
    for (const int64_t n : {1, 8, 15, 16, 17, 32, 39})
      for (const int with : {0, 1, 2, 3}) {
        QRescale q = d.rescale(output, with);
        const QParams a{own.scale, q.zero}, sum{0.04f, output == QOutput::kI8 ? -30 : 50};
        q.addition = {a.scale / sum.scale, other.scale / sum.scale, other.zero, sum.zero, sum.zero, q.hi};
        std::vector<uint8_t> stored(RescaleData::kRows * RescaleData::kStride, 77), expected = stored;
        portable_qgemm().rescale(RescaleData::kRows, n, d.sums.data(), RescaleData::kStride, q, stored.data(), RescaleData::kStride);
        for (int64_t r = 0; r < RescaleData::kRows; ++r) {
          const int64_t at = r * RescaleData::kStride;
          if (output == QOutput::kU8)
            quant_add<uint8_t>(n, stored.data() + at, a, d.bytes.data() + at, other, sum, sum.zero, q.hi, expected.data() + at);
          else
            quant_add<int8_t>(n, reinterpret_cast<const int8_t*>(stored.data()) + at, a, reinterpret_cast<const int8_t*>(d.bytes.data()) + at, other, sum,
                              sum.zero, q.hi, reinterpret_cast<int8_t*>(expected.data()) + at);
        }
        auto functions = rescale_functions();
        functions.emplace_back("portable", portable_qgemm().rescale);
        for (const auto& [name, rescale] : functions) {
          std::vector<uint8_t> y(expected.size(), 77), in_place = d.bytes;
          q.addend = d.bytes.data();
          rescale(RescaleData::kRows, n, d.sums.data(), RescaleData::kStride, q, y.data(), RescaleData::kStride);
          EXPECT_EQ(y, expected) << name << ", " << n << " columns";
          q.addend = in_place.data();
          rescale(RescaleData::kRows, n, d.sums.data(), RescaleData::kStride, q, in_place.data(), RescaleData::kStride);
          for (size_t i = 0; i < y.size(); ++i)
            ASSERT_EQ(in_place[i], static_cast<int64_t>(i) % RescaleData::kStride < n ? expected[i] : d.bytes[i]) << name << " in place, " << n << " columns";
        }
      }
}

TEST(Rescale, ActivationsInFloatAgreeWithThePortableOnes) {
  using A = Activation;
  const RescaleData d(1e-4f);
  for (const auto& [name, rescale] : rescale_functions())
    for (const A activation : {A::kNone, A::kRelu, A::kClip, A::kSigmoid, A::kHardSwish, A::kSilu, A::kGelu, A::kGeluTanh, A::kTanh})
      for (const QOutput output : {QOutput::kU8, QOutput::kI8, QOutput::kF32})
        for (const int64_t n : {1, 7, 16, 23, 32, 39})
          for (int with = 0; with < 16; ++with) {
            SCOPED_TRACE(testing::Message() << name << " activation " << static_cast<int>(activation) << ", output " << static_cast<int>(output)
                                            << ", " << n << " columns, options " << with);
            QRescale q = d.rescale(output, with);
            q.real = true;
            q.epilogue = {activation, -0.5f, 1.5f};
            if ((with & 4) != 0) q.addend = d.floats.data();
            if ((with & 8) != 0) {
              q.epilogue.scale = 1.25f;
              q.epilogue.shift = -0.5f;
            }
            q.inverse_scale = 1 / 0.03f;
            const auto stride = RescaleData::kStride * static_cast<int64_t>(output_size(output));
            std::vector<uint8_t> expected(static_cast<size_t>(RescaleData::kRows * stride), 77), y = expected;
            portable_qgemm().rescale(RescaleData::kRows, n, d.sums.data(), RescaleData::kStride, q, expected.data(), stride);
            rescale(RescaleData::kRows, n, d.sums.data(), RescaleData::kStride, q, y.data(), stride);
            for (int64_t r = 0; r < RescaleData::kRows; ++r) {
              for (int64_t c = 0; c < n; ++c) {
                const auto at = static_cast<size_t>(r * stride + c * static_cast<int64_t>(output_size(output)));
                if (output == QOutput::kF32) {
                  const float want = *reinterpret_cast<const float*>(&expected[at]);
                  ASSERT_NEAR(*reinterpret_cast<const float*>(&y[at]), want, 1e-6f * std::max(1.0f, std::abs(want)));
                } else if (output == QOutput::kU8) {
                  ASSERT_NEAR(y[at], expected[at], 1);
                } else {
                  ASSERT_NEAR(static_cast<int8_t>(y[at]), static_cast<int8_t>(expected[at]), 1);
                }
              }
              for (auto at = static_cast<size_t>(r * stride + n * static_cast<int64_t>(output_size(output))); at < static_cast<size_t>((r + 1) * stride); ++at)
                ASSERT_EQ(y[at], 77) << "written beyond the columns";
            }
          }
}

}  // namespace
}  // namespace ds::kernels
