// Products with few rows on AVX-512.
#include "kernels/simd_set_avx512.h"
#include "kernels/small_product_loops.h"

namespace ds::kernels {

void small_product_avx512(int64_t m, int64_t n, int64_t k, const float* a, const float* packed, float* c) {
  SmallProduct<Avx512Set, 4>(n, k, packed, c).run(m, a);
}

}  // namespace ds::kernels
