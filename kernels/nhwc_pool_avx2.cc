// Pools over channels-innermost data on AVX2.
#include "kernels/nhwc_pool_loops.h"
#include "kernels/simd_set_avx2.h"

namespace ds::kernels {
namespace {

struct Avx2 : Avx2Set {
  struct Nans {
    F8 found = _mm256_setzero_ps();
    void add(V v) { found = _mm256_or_ps(found, _mm256_cmp_ps(v, v, _CMP_UNORD_Q)); }
    V over(V v) const { return select(found, kernels::all(__builtin_nanf("")), v); }
  };
};

}  // namespace

void nhwc_pool_avx2(const PoolShape& s, NhwcPooling pooling, const float* x, float* y) { NhwcPool<Avx2>(s, pooling, x, y).run(); }

}  // namespace ds::kernels
