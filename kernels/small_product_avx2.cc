// Products with few rows on AVX2.
#include "kernels/simd_set_avx2.h"
#include "kernels/small_product_loops.h"

namespace ds::kernels {

void small_product_avx2(int64_t m, int64_t n, int64_t k, const float* a, const float* packed, float* c) {
  SmallProduct<Avx2Set, 2>(n, k, packed, c).run(m, a);
}

}  // namespace ds::kernels
