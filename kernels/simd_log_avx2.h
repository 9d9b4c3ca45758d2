// Logarithms and exp(x) - 1, eight floats at a time. For *_avx2.cc files only; internal linkage throughout. Errors are
// relative, measured by tests/kernels/simd_test.cc.
#pragma once

#include "kernels/log_polynomial.h"
#include "kernels/simd_avx2.h"

namespace ds::kernels {
namespace {

// log((1 + s) / (1 - s)), |s| <= 1/3.
inline F8 log_of_quotient8(F8 s) {
  const F8 u = s * s;
  F8 q = all(kLogPolynomial[4]);
  for (int i = 3; i >= 0; --i) q = fma(q, u, all(kLogPolynomial[i]));
  return fma(q * u, s + s, s + s);
}

// log(1 + x), 0 <= x <= 1. Error 3e-7.
inline F8 log1p8(F8 x) { return log_of_quotient8(x / (x + all(2.0f))); }

// log(x) of normal positive numbers; NaN stays. Error 3e-7, near 1 too.
inline F8 log8(F8 x) {
  // x = 2^k m, sqrt(1/2) <= m < sqrt(2).
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i k = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f3504f3)), 23);
  const F8 m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(k, 23))), one = all(1.0f);
  const F8 n = _mm256_cvtepi32_ps(k), low = log_of_quotient8((m - one) / (m + one));
  // The difference is zero, or NaN.
  return fma(n, all(0.693359375f), fma(n, all(-2.12194440054690583e-4f), low)) + (x - x);
}

// exp(x) - 1 for x <= 0, exact to float near zero too: 2^k - 1 + 2^k (exp(r) - 1), with exp8's polynomial. Error 3e-7.
inline F8 expm1_8(F8 x) {
  x = at_least(x, -87.0f);
  const F8 k = _mm256_round_ps(x * all(1.44269504088896341f), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  F8 r = fma(k, all(-0.693359375f), x);
  r = fma(k, all(2.12194440054690583e-4f), r);
  F8 p = all(0.0013950489f);
  p = fma(p, r, all(0.0083688898f));
  p = fma(p, r, all(0.041666206f));
  p = fma(p, r, all(0.16666518f));
  p = fma(p, r, all(0.5f));
  p = fma(p, r * r, r);
  const F8 scale = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127)), 23));
  return fma(p, scale, scale - all(1.0f));
}

// log(1 + exp(x)) without overflow.
inline F8 softplus8(F8 x) { return _mm256_max_ps(all(0.0f), x) + log1p8(exp8(_mm256_or_ps(x, all(-0.0f)))); }

}  // namespace
}  // namespace ds::kernels
