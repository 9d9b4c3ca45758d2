// Pools over channels-innermost data against the portable ones in f64.
#include "kernels/nhwc_pool.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "libds/base/cpu.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// Those that this CPU has.
std::vector<NhwcPoolFn*> functions() {
  std::vector<NhwcPoolFn*> all;
  if (cpu_isa() >= Isa::kAvx2) all.push_back(nhwc_pool_avx2);
  if (cpu_isa() >= Isa::kAvx512) all.push_back(nhwc_pool_avx512);
  return all;
}

struct Case {
  int64_t batch, channels, height, width, kernel_h, kernel_w, stride, dilation, pad_begin, pad_end;
  bool ceil = false;
};

PoolShape shape_of(const Case& c) {
  PoolShape s;
  s.batch = c.batch;
  s.channels = c.channels;
  s.in = {1, c.height, c.width};
  s.kernel = {1, c.kernel_h, c.kernel_w};
  s.stride = {1, c.stride, c.stride};
  s.dilation = {1, c.dilation, c.dilation};
  s.pad_begin = {0, c.pad_begin, c.pad_begin};
  s.pad_end = {0, c.pad_end, c.pad_end};
  for (size_t d = 1; d < 3; ++d) {
    const int64_t room = s.in[d] + s.pad_begin[d] + s.pad_end[d] - (s.kernel[d] - 1) * s.dilation[d] - 1;
    s.out[d] = (c.ceil ? room + s.stride[d] - 1 : room) / s.stride[d] + 1;
    // No window begins in the padding at the end.
    if (c.ceil && (s.out[d] - 1) * s.stride[d] >= s.in[d] + s.pad_begin[d]) --s.out[d];
  }
  return s;
}

// [N, P, C] from [N, C, P] or back.
template <typename To, typename From>
std::vector<To> turned(const std::vector<From>& from, int64_t batch, int64_t a, int64_t b) {
  std::vector<To> to(from.size());
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t i = 0; i < a; ++i)
      for (int64_t j = 0; j < b; ++j) to[static_cast<size_t>((n * b + j) * a + i)] = static_cast<To>(from[static_cast<size_t>((n * a + i) * b + j)]);
  return to;
}

constexpr Case kCases[] = {
    {1, 64, 12, 13, 3, 3, 2, 1, 1, 1}, {2, 75, 7, 7, 7, 7, 1, 1, 0, 0},  {1, 5, 9, 1, 2, 1, 2, 1, 0, 0},       {3, 17, 6, 11, 3, 5, 1, 1, 1, 1},
    {1, 130, 5, 5, 3, 3, 3, 1, 1, 2},  {1, 16, 8, 9, 2, 2, 1, 3, 1, 0},  {1, 9, 6, 7, 3, 3, 2, 1, 0, 1, true}, {1, 72, 4, 30, 1, 4, 2, 1, 0, 0, true}};

TEST(NhwcPool, AgreesWithDouble) {
  if (functions().empty()) GTEST_SKIP() << "needs AVX2";
  std::mt19937 engine(3);
  std::uniform_real_distribution<float> draw(-2, 2);
  for (NhwcPoolFn* pool : functions())
    for (const Case& c : kCases)
      for (const NhwcPooling pooling : {NhwcPooling::kMax, NhwcPooling::kAverage, NhwcPooling::kAverageWithPadding})
        for (const int threads : {1, 2}) {
          const PoolShape s = shape_of(c);
          std::vector<float> x(static_cast<size_t>(s.planes() * s.in_plane())), y(static_cast<size_t>(s.planes() * s.out_plane()) + 1, 77.0f);
          for (float& v : x) v = draw(engine);
          const std::vector<double> wide = turned<double>(x, s.batch, s.in_plane(), s.channels);
          std::vector<double> expected(y.size() - 1);
          if (pooling == NhwcPooling::kMax) max_pool<double>(s, wide.data(), expected.data(), nullptr, false);
          else average_pool<double>(s, pooling == NhwcPooling::kAverageWithPadding, wide.data(), expected.data());
          expected = turned<double>(expected, s.batch, s.channels, s.out_plane());
          set_num_threads(threads);
          pool(s, pooling, x.data(), y.data());
          set_num_threads(1);
          EXPECT_EQ(y.back(), 77.0f);
          for (size_t i = 0; i < expected.size(); ++i)
            ASSERT_NEAR(y[i], expected[i], pooling == NhwcPooling::kMax ? 0 : 2e-6) << "channels " << c.channels << ", kernel " << c.kernel_h << "x"
                                                                                  << c.kernel_w << ", element " << i;
        }
}

TEST(NhwcPool, NanWins) {
  if (functions().empty()) GTEST_SKIP() << "needs AVX2";
  PoolShape s = shape_of({1, 20, 4, 4, 2, 2, 2, 1, 0, 0});
  std::vector<float> x(20 * 16, 1.0f), y(20 * 4);
  x[0 * 20 + 3] = std::numeric_limits<float>::quiet_NaN();   // first of its window
  x[15 * 20 + 18] = std::numeric_limits<float>::quiet_NaN(); // last of its window
  x[2 * 20 + 7] = -std::numeric_limits<float>::infinity();
  for (NhwcPoolFn* pool : functions()) {
    pool(s, NhwcPooling::kMax, x.data(), y.data());
    for (size_t i = 0; i < y.size(); ++i) {
      const bool nan = i == 3 || i == 3 * 20 + 18;
      EXPECT_EQ(std::isnan(y[i]), nan) << i;
      if (!nan) { EXPECT_EQ(y[i], 1.0f) << i; }
    }
  }
}

}  // namespace
}  // namespace ds::kernels
