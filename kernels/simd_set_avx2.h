// Eight floats as a set of operations, for loops that are written once for all vector widths (*_loops.h).
//
// For *_avx2.cc files only; internal linkage throughout, as simd_avx2.h. Lanes: those of a vector that exist; loads of
// others read as zero (or a value given), stores leave them alone.
#pragma once

#include "kernels/simd_avx2.h"
#include "kernels/simd_avx2.h"

namespace ds::kernels {
namespace {

struct Avx2Set {
  using V = F8;
  using Lanes = __m256i;
  static constexpr int64_t kWidth = 8;

  static Lanes first(int64_t n) { return lanes(n); }
  static V load(const float* p) { return kernels::load(p); }
  static V load(const float* p, Lanes l) { return _mm256_maskload_ps(p, l); }
  static V load(const float* p, Lanes l, V otherwise) { return select(_mm256_castsi256_ps(l), _mm256_maskload_ps(p, l), otherwise); }
  static void store(float* p, V v) { kernels::store(p, v); }
  static void store(float* p, V v, Lanes l) { _mm256_maskstore_ps(p, l, v); }
  static V all(float x) { return kernels::all(x); }
  static V add(V a, V b) { return a + b; }
  static V sub(V a, V b) { return a - b; }
  static V mul(V a, V b) { return a * b; }
  static V fma(V a, V b, V c) { return kernels::fma(a, b, c); }
  static V max(V a, V b) { return _mm256_max_ps(a, b); }  // b where one is NaN

  // `yes` where a compares to b and b is a number, else `no`.
  template <int kCompare>
  static V where(V a, V b, V yes, V no) {
    return select(_mm256_and_ps(_mm256_cmp_ps(a, b, kCompare), _mm256_cmp_ps(b, b, _CMP_ORD_Q)), yes, no);
  }

  static float highest(V v) {
    const __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
  }

  // exp(x) for x <= 0, with zero for what would be subnormal: those take a hundred times as long.
  static V exp_or_zero(V x) {
    const V kept = _mm256_cmp_ps(x, kernels::all(-87.3f), _CMP_NLT_UQ);  // NaN passes
    return _mm256_and_ps(kept, exp8(at_least(x, -87.3f)));
  }

  static V log(V x) { return log8(x); }
  static V div(V a, V b) { return a / b; }

  // Sums in double of vectors, lane by lane.
  struct Sum {
    __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
    void add(V v) {
      low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(v)));
      high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
    }
    double total() const {
      const __m256d sum = _mm256_add_pd(low, high);
      const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd(sum, 1));
      return _mm_cvtsd_f64(pair) + _mm_cvtsd_f64(_mm_unpackhi_pd(pair, pair));
    }
    V lanes() const { return _mm256_set_m128(_mm256_cvtpd_ps(high), _mm256_cvtpd_ps(low)); }
    void to(double* lanes) const {  // kWidth of them
      _mm256_storeu_pd(lanes, low);
      _mm256_storeu_pd(lanes + 4, high);
    }
  };
  // Of values and of their squares, which are exact.
  struct Moments {
    Sum values, squares;
    void add(V v) {
      const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v)), high = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
      values.low = _mm256_add_pd(values.low, low);
      values.high = _mm256_add_pd(values.high, high);
      squares.low = _mm256_fmadd_pd(low, low, squares.low);
      squares.high = _mm256_fmadd_pd(high, high, squares.high);
    }
  };
};

}  // namespace
}  // namespace ds::kernels
