// Pools over channels-innermost data on AVX-512.
#include "kernels/nhwc_pool_loops.h"
#include "kernels/simd_avx512.h"

namespace ds::kernels {
namespace {

struct Avx512 {
  using V = F16;
  using Lanes = __mmask16;
  static constexpr int64_t kWidth = 16;

  static Lanes first(int64_t n) { return static_cast<Lanes>((1u << n) - 1); }
  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static V load(const float* p, Lanes lanes) { return _mm512_maskz_loadu_ps(lanes, p); }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, V v, Lanes lanes) { _mm512_mask_storeu_ps(p, lanes, v); }
  static V all(float x) { return all16(x); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V max(V a, V b) { return _mm512_max_ps(a, b); }
  struct Nans {
    __mmask16 found = 0;
    void add(V v) { found = static_cast<__mmask16>(found | _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q)); }
    V over(V v) const { return _mm512_mask_mov_ps(v, found, all16(__builtin_nanf(""))); }
  };
};

}  // namespace

void nhwc_pool_avx512(const PoolShape& s, NhwcPooling pooling, const float* x, float* y) { NhwcPool<Avx512>(s, pooling, x, y).run(); }

}  // namespace ds::kernels
