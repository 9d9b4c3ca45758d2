// Pools over channels-innermost data on AVX2.
#include "kernels/nhwc_pool_loops.h"
#include "kernels/simd_avx2.h"

namespace ds::kernels {
namespace {

struct Avx2 {
  using V = F8;
  using Lanes = __m256i;
  static constexpr int64_t kWidth = 8;

  static Lanes first(int64_t n) { return lanes(n); }
  static V load(const float* p) { return kernels::load(p); }
  static V load(const float* p, Lanes lanes) { return _mm256_maskload_ps(p, lanes); }
  static void store(float* p, V v) { kernels::store(p, v); }
  static void store(float* p, V v, Lanes lanes) { _mm256_maskstore_ps(p, lanes, v); }
  static V all(float x) { return kernels::all(x); }
  static V add(V a, V b) { return a + b; }
  static V mul(V a, V b) { return a * b; }
  static V max(V a, V b) { return _mm256_max_ps(a, b); }
  struct Nans {
    F8 found = _mm256_setzero_ps();
    void add(V v) { found = _mm256_or_ps(found, _mm256_cmp_ps(v, v, _CMP_UNORD_Q)); }
    V over(V v) const { return select(found, kernels::all(__builtin_nanf("")), v); }
  };
};

}  // namespace

void nhwc_pool_avx2(const PoolShape& s, NhwcPooling pooling, const float* x, float* y) { NhwcPool<Avx2>(s, pooling, x, y).run(); }

}  // namespace ds::kernels
