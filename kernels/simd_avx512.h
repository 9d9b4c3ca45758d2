// Sixteen floats at a time: the exponential and its relatives, with the polynomials and error bounds of simd_avx2.h.
//
// For *_avx512.cc files only. Everything has internal linkage and uses no library template, so that nothing compiled for
// AVX-512 can reach the common binary. Errors are measured by tests/kernels/simd_test.cc.
#pragma once

#include <immintrin.h>

namespace ds::kernels {
namespace {

using F16 = __m512;

inline F16 all16(float x) { return _mm512_set1_ps(x); }
inline F16 fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }
inline F16 at_least(F16 x, float bound) { return _mm512_max_ps(all16(bound), x); }  // NaN passes
inline F16 at_most(F16 x, float bound) { return _mm512_min_ps(all16(bound), x); }
inline F16 with_sign_of(F16 x, F16 sign) { return _mm512_or_ps(x, _mm512_and_ps(sign, all16(-0.0f))); }

// 1 / x for 1 <= x < 2^126: Newton's step on the 14-bit estimate, without the division's latency. Error 1e-7.
inline F16 reciprocal16(F16 x) {
  const F16 r = _mm512_rcp14_ps(x);
  return fma(r, _mm512_fnmadd_ps(x, r, all16(1.0f)), r);
}

// x = k ln 2 + r, |r| <= ln 2 / 2: k, and exp(r) - 1.
struct ReducedExp16 {
  F16 k, less_one;
  explicit ReducedExp16(F16 x) {
    k = _mm512_roundscale_ps(_mm512_mul_ps(x, all16(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    F16 r = fma(k, all16(-0.693359375f), x);
    r = fma(k, all16(2.12194440054690583e-4f), r);
    F16 p = all16(0.0013950489f);
    p = fma(p, r, all16(0.0083688898f));
    p = fma(p, r, all16(0.041666206f));
    p = fma(p, r, all16(0.16666518f));
    p = fma(p, r, all16(0.5f));
    less_one = fma(p, _mm512_mul_ps(r, r), r);
  }
};

// exp(x) = 2^k exp(r); vscalefps goes to infinity and through the subnormals by itself. Error 2e-7.
inline F16 exp16(F16 x) {
  const ReducedExp16 e(at_least(at_most(x, 89.0f), -104.0f));
  return _mm512_scalef_ps(_mm512_add_ps(e.less_one, all16(1.0f)), e.k);
}

// A true division: the sum may be infinite. Error 3e-7.
inline F16 sigmoid16(F16 x) {
  return _mm512_div_ps(all16(1.0f), _mm512_add_ps(all16(1.0f), exp16(_mm512_xor_ps(x, all16(-0.0f)))));
}

// tanh(x): an odd polynomial below 0.625, else 1 - 2 / (exp(2 |x|) + 1), which is 1 from 9 on. Error 3e-7.
inline F16 tanh16(F16 x) {
  const F16 a = at_most(_mm512_abs_ps(x), 16.0f), u = _mm512_mul_ps(x, x);
  F16 p = all16(-0.0056607766f);
  p = fma(p, u, all16(0.020601996f));
  p = fma(p, u, all16(-0.053729225f));
  p = fma(p, u, all16(0.13331328f));
  p = fma(p, u, all16(-0.33333278f));
  const F16 small = fma(_mm512_mul_ps(p, u), x, x);
  const F16 large = _mm512_fnmadd_ps(all16(2.0f), reciprocal16(_mm512_add_ps(exp16(_mm512_add_ps(a, a)), all16(1.0f))), all16(1.0f));
  return _mm512_mask_mov_ps(with_sign_of(large, x), _mm512_cmp_ps_mask(a, all16(0.625f), _CMP_LT_OQ), small);
}

// erf(x): an odd polynomial below 1, else 1 - exp(-x^2) q(1 / (1 + |x| / 2)). Error 4e-7.
inline F16 erf16(F16 x) {
  const F16 a = at_most(_mm512_abs_ps(x), 4.0f), u = _mm512_mul_ps(a, a);
  F16 p = all16(7.8538578e-05f);
  p = fma(p, u, all16(-0.00080101931f));
  p = fma(p, u, all16(0.0051883277f));
  p = fma(p, u, all16(-0.026853813f));
  p = fma(p, u, all16(0.11283585f));
  p = fma(p, u, all16(-0.37612626f));
  p = fma(p, u, all16(1.1283791f));
  const F16 t = reciprocal16(fma(all16(0.5f), a, all16(1.0f)));
  F16 q = all16(-0.057131272f);
  q = fma(q, t, all16(-0.046014912f));
  q = fma(q, t, all16(0.38917762f));
  q = fma(q, t, all16(0.11124166f));
  q = fma(q, t, all16(0.32708082f));
  q = fma(q, t, all16(0.27436295f));
  q = fma(q, t, all16(0.00054583180f));
  const F16 large = _mm512_fnmadd_ps(exp16(_mm512_xor_ps(u, all16(-0.0f))), q, all16(1.0f));
  return _mm512_mask_mov_ps(with_sign_of(large, x), _mm512_cmp_ps_mask(a, all16(1.0f), _CMP_LT_OQ), _mm512_mul_ps(p, x));
}

// log(x): x = 2^k (1 + f), 1 + f between sqrt(1/2) and sqrt(2), subnormals scaled up first. Error 1e-7.
inline F16 log16(F16 x) {
  const __mmask16 tiny = _mm512_cmp_ps_mask(x, all16(1.17549435e-38f), _CMP_LT_OQ);
  const __m512i bits = _mm512_castps_si512(_mm512_mask_mul_ps(x, tiny, x, all16(8388608.0f)));
  const __m512i n = _mm512_srai_epi32(_mm512_sub_epi32(bits, _mm512_castps_si512(all16(0.70710678f))), 23);
  F16 k = _mm512_cvtepi32_ps(n);
  k = _mm512_mask_sub_ps(k, tiny, k, all16(23.0f));
  const F16 f = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(n, 23))), all16(1.0f)), u = _mm512_mul_ps(f, f);
  F16 p = all16(-0.0763449296f);
  p = fma(p, f, all16(0.12761575f));
  p = fma(p, f, all16(-0.131601825f));
  p = fma(p, f, all16(0.142017588f));
  p = fma(p, f, all16(-0.166233569f));
  p = fma(p, f, all16(0.200012267f));
  p = fma(p, f, all16(-0.250008196f));
  p = fma(p, f, all16(0.333333313f));
  F16 y = fma(k, all16(-2.12194440054690583e-4f), _mm512_mul_ps(_mm512_mul_ps(f, u), p));
  y = fma(all16(-0.5f), u, y);
  y = fma(k, all16(0.693359375f), _mm512_add_ps(f, y));
  y = _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, all16(3.4028235e38f), _CMP_LE_OQ), y);  // infinity and NaN as they are
  y = _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, all16(0.0f), _CMP_LT_OQ), all16(__builtin_nanf("")));
  return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, all16(0.0f), _CMP_EQ_OQ), all16(-__builtin_inff()));
}

// exp(x) - 1 for x <= 0, reduced alike: 2^k (exp(r) - 1) + (2^k - 1). Error 3e-7.
inline F16 expm1_16(F16 x) {
  const ReducedExp16 e(at_least(at_most(x, 0.0f), -60.0f));
  const F16 scale = _mm512_scalef_ps(all16(1.0f), e.k);
  return fma(scale, e.less_one, _mm512_sub_ps(scale, all16(1.0f)));
}

}  // namespace
}  // namespace ds::kernels
