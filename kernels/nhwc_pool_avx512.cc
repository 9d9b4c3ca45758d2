// Pools over channels-innermost data on AVX-512.
#include "kernels/nhwc_pool_loops.h"
#include "kernels/simd_set_avx512.h"

namespace ds::kernels {
namespace {

struct Avx512 : Avx512Set {
  struct Nans {
    __mmask16 found = 0;
    void add(V v) { found = static_cast<__mmask16>(found | _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q)); }
    V over(V v) const { return _mm512_mask_mov_ps(v, found, all16(__builtin_nanf(""))); }
  };
};

}  // namespace

void nhwc_pool_avx512(const PoolShape& s, NhwcPooling pooling, const float* x, float* y) { NhwcPool<Avx512>(s, pooling, x, y).run(); }

}  // namespace ds::kernels
