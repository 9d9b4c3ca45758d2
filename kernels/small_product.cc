#include "kernels/small_product.h"

#include <algorithm>

namespace ds::kernels {

void pack_small_product(int64_t n, int64_t k, const float* weights, float* packed) {
  std::fill_n(packed, small_product_elements(n, k), 0.0f);
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < k; ++i) packed[(j / kSmallPanel * k + i) * kSmallPanel + j % kSmallPanel] = weights[j * k + i];
}

}  // namespace ds::kernels
