// 8-bit pooling by AVX2 and rescaling by AVX-512 instructions: the portable kernels' bits.
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace ds::kernels
