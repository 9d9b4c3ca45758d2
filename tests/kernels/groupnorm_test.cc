// Group normalization by vectors, channels first and last, against f64.
#include "kernels/groupnorm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "libds/base/cpu.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

std::vector<GroupNormFn*> functions() {
  std::vector<GroupNormFn*> all;
  if (cpu_isa() >= Isa::kAvx2) all.push_back(groupnorm_avx2);
  if (cpu_isa() >= Isa::kAvx512) all.push_back(groupnorm_avx512);
  return all;
}

int64_t place(const GroupNormShape& s, int64_t n, int64_t c, int64_t i) {
  return s.channels_last ? (n * s.S + i) * s.C + c : (n * s.C + c) * s.S + i;
}

std::vector<double> exact(const GroupNormShape& s, const std::vector<float>& x, const std::vector<float>& scale, const std::vector<float>& bias,
                          double epsilon) {
  std::vector<double> y(x.size());
  const int64_t channels = s.C / s.G;
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t g = 0; g < s.G; ++g) {
      const auto each = [&](auto&& f) {
        for (int64_t c = g * channels; c < (g + 1) * channels; ++c)
          for (int64_t i = 0; i < s.S; ++i) f(static_cast<size_t>(c), static_cast<size_t>(place(s, n, c, i)));
      };
      const auto count = static_cast<double>(channels * s.S);
      double mean = 0, variance = 0;
      each([&](size_t, size_t at) { mean += static_cast<double>(x[at]) / count; });
      each([&](size_t, size_t at) { variance += std::pow(static_cast<double>(x[at]) - mean, 2) / count; });
      each([&](size_t c, size_t at) {
        y[at] = (static_cast<double>(x[at]) - mean) / std::sqrt(variance + epsilon) * static_cast<double>(scale[c]) + static_cast<double>(bias[c]);
      });
    }
  return y;
}

// Channels below, at and above a vector and two; groups of one, of some and of all channels; samples of several chunks.
constexpr int64_t kSizes[][4] = {{2, 8, 77, 4},  {1, 3, 5, 3},    {3, 24, 41, 8},  {2, 16, 33, 16}, {1, 32, 9, 4},   {2, 35, 19, 5},
                                 {1, 64, 50, 1}, {1, 7, 9001, 7}, {2, 130, 300, 13}, {1, 1, 3, 1},  {1, 48, 1, 12}, {2, 6, 6007, 2}};

TEST(GroupNorm, AgreesWithDouble) {
  if (functions().empty()) GTEST_SKIP() << "needs AVX2";
  std::mt19937 engine(5);
  std::uniform_real_distribution<float> draw(-2, 3);
  for (const auto& size : kSizes) {
    for (const bool channels_last : {false, true}) {
      const GroupNormShape s{size[0], size[1], size[2], size[3], channels_last};
      std::vector<float> x(static_cast<size_t>(s.N * s.C * s.S)), scale(static_cast<size_t>(s.C)), bias(scale.size());
      for (std::vector<float>* v : {&x, &scale, &bias})
        for (float& f : *v) f = draw(engine);
      const std::vector<double> want = exact(s, x, scale, bias, 1e-3);
      for (GroupNormFn* norm : functions()) {
        std::vector<float> once;
        for (const int threads : {1, 2}) {
          std::vector<double> scratch(groupnorm_scratch(s) / sizeof(double) + 1);
          std::vector<float> y = x;
          y.push_back(77.0f);
          set_num_threads(threads);
          norm(s, y.data(), scale.data(), bias.data(), 1e-3, scratch.data(), y.data());  // in place
          set_num_threads(1);
          ASSERT_EQ(y.back(), 77.0f);
          for (size_t i = 0; i < want.size(); ++i)
            ASSERT_NEAR(y[i], want[i], 4e-6 * (1 + std::abs(want[i]))) << s.N << "x" << s.C << "x" << s.S << ", groups " << s.G << ", channels last " << channels_last
                                                                  << ", element " << i;
          if (threads == 1) once = y;
          else EXPECT_EQ(once, y) << "the number of threads decides bits";
        }
      }
    }
  }
}

TEST(GroupNorm, KeepsTheVarianceOfNumbersFarFromZero) {
  if (functions().empty()) GTEST_SKIP() << "needs AVX2";
  for (const bool channels_last : {false, true}) {
    const GroupNormShape s{1, 4, 200, 2, channels_last};
    std::vector<float> x(800), scale(4, 1.0f), bias(4, 0.0f), y(800);
    for (size_t i = 0; i < x.size(); ++i) x[i] = 100000.0f + static_cast<float>(i * 7 % 11);
    const std::vector<double> want = exact(s, x, scale, bias, 1e-5);
    for (GroupNormFn* norm : functions()) {
      std::vector<double> scratch(groupnorm_scratch(s) / sizeof(double) + 1);
      norm(s, x.data(), scale.data(), bias.data(), 1e-5, scratch.data(), y.data());
      // The mean is rounded to 1/128 of what lies between the numbers.
      for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], want[i], 2e-3) << i;
    }
  }
}

}  // namespace
}  // namespace ds::kernels
