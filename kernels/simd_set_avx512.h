// Sixteen floats as a set of operations, for loops that are written once for all vector widths (*_loops.h): the members
// of simd_set_avx2.h. For *_avx512.cc files only; internal linkage throughout.
#pragma once

#include <cstdint>

#include "kernels/simd_avx512.h"

namespace ds::kernels {
namespace {

struct Avx512Set {
  using V = F16;
  using Lanes = __mmask16;
  static constexpr int64_t kWidth = 16;

  static Lanes first(int64_t n) { return static_cast<Lanes>((1u << n) - 1); }
  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static V load(const float* p, Lanes l) { return _mm512_maskz_loadu_ps(l, p); }
  static V load(const float* p, Lanes l, V otherwise) { return _mm512_mask_loadu_ps(otherwise, l, p); }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, V v, Lanes l) { _mm512_mask_storeu_ps(p, l, v); }
  static V all(float x) { return all16(x); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V fma(V a, V b, V c) { return kernels::fma(a, b, c); }
  static V max(V a, V b) { return _mm512_max_ps(a, b); }  // b where one is NaN

  // `yes` where a compares to b and b is a number, else `no`.
  template <int kCompare>
  static V where(V a, V b, V yes, V no) {
    return _mm512_mask_mov_ps(no, _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(b, b, _CMP_ORD_Q), a, b, kCompare), yes);
  }

  // The upper eight, by a masked form: gcc 12 warns of the operand that the plain one leaves undefined.
  static __m256 upper(V v) { return _mm512_maskz_extractf32x8_ps(0xff, v, 1); }

  static float highest(V v) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(v), upper(v));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 pair = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
  }

  // exp(x) for x <= 0, with zero for what would be subnormal: those take a hundred times as long.
  static V exp_or_zero(V x) {
    const __mmask16 kept = _mm512_cmp_ps_mask(x, all16(-87.3f), _CMP_NLT_UQ);  // NaN passes
    return _mm512_maskz_mov_ps(kept, exp16(at_least(x, -87.3f)));
  }

  static V log(V x) { return log16(x); }
  static V div(V a, V b) { return _mm512_div_ps(a, b); }

  // Sums in double of vectors, lane by lane.
  struct Sum {
    __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
    void add(V v) {
      low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(v)));
      high = _mm512_add_pd(high, _mm512_cvtps_pd(upper(v)));
    }
    double total() const {
      double t[8];
      _mm512_storeu_pd(t, _mm512_add_pd(low, high));
      return ((t[0] + t[4]) + (t[1] + t[5])) + ((t[2] + t[6]) + (t[3] + t[7]));
    }
    V lanes() const {
      return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_maskz_cvtpd_ps(0xff, low)), _mm512_maskz_cvtpd_ps(0xff, high), 1);
    }
    void to(double* lanes) const {  // kWidth of them
      _mm512_storeu_pd(lanes, low);
      _mm512_storeu_pd(lanes + 8, high);
    }
  };
  // Of values and of their squares, which are exact.
  struct Moments {
    Sum values, squares;
    void add(V v) {
      const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v)), high = _mm512_cvtps_pd(upper(v));
      values.low = _mm512_add_pd(values.low, low);
      values.high = _mm512_add_pd(values.high, high);
      squares.low = _mm512_fmadd_pd(low, low, squares.low);
      squares.high = _mm512_fmadd_pd(high, high, squares.high);
    }
  };
};

}  // namespace
}  // namespace ds::kernels
