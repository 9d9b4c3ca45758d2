// Products with few rows against f64.
#include "kernels/small_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "libds/base/cpu.h"

namespace ds::kernels {
namespace {

TEST(SmallProduct, AgreesWithDouble) {
  std::vector<SmallProductFn*> functions;
  if (cpu_isa() >= Isa::kAvx2) functions.push_back(small_product_avx2);
  if (cpu_isa() >= Isa::kAvx512) functions.push_back(small_product_avx512);
  if (functions.empty()) GTEST_SKIP() << "needs AVX2";
  std::mt19937 engine(3);
  std::uniform_real_distribution<float> draw(-1, 1);
  for (const int64_t m : {1, 2, 3, 4, 5, 9})
    for (const int64_t n : {1, 7, 16, 33, 48, 64, 100, 131, 192})
      for (const int64_t k : {1, 2, 17, 40}) {
        std::vector<float> a(static_cast<size_t>(m * k)), w(static_cast<size_t>(n * k)), packed(static_cast<size_t>(small_product_elements(n, k)));
        for (float& v : a) v = draw(engine);
        for (float& v : w) v = draw(engine);
        pack_small_product(n, k, w.data(), packed.data());
        for (SmallProductFn* product : functions) {
          std::vector<float> c(static_cast<size_t>(m * n) + 1, 77.0f);
          product(m, n, k, a.data(), packed.data(), c.data());
          ASSERT_EQ(c.back(), 77.0f);
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              double sum = 0;
              for (int64_t d = 0; d < k; ++d) sum += static_cast<double>(a[static_cast<size_t>(i * k + d)]) * static_cast<double>(w[static_cast<size_t>(j * k + d)]);
              ASSERT_NEAR(c[static_cast<size_t>(i * n + j)], sum, 4e-6) << m << "x" << n << "x" << k << " at " << i << ", " << j;
            }
        }
      }
}

}  // namespace
}  // namespace ds::kernels
