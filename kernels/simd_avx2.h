// Eight floats at a time: loads with tails, horizontal sums, exponential and its relatives.
//
// For *_avx2.cc files only (compiled with AVX2 and FMA). Everything has internal linkage and uses no
// library template, so that nothing compiled for AVX2 can reach the common binary.
//
// Polynomials are minimax fits on the reduced ranges; the errors given are relative, against double
// precision, measured over the range by tests/kernels/simd_test.cc.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace ds::kernels {
namespace {

using F8 = __m256;
constexpr int64_t kWidth = 8;

inline F8 load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, F8 v) { _mm256_storeu_ps(p, v); }
inline F8 all(float x) { return _mm256_set1_ps(x); }
inline F8 fma(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a, b, c); }

// The first n < 8 lanes; the others read as zero and are not written.
inline __m256i lanes(int64_t n) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), index);
}
inline F8 load(const float* p, int64_t n) { return _mm256_maskload_ps(p, lanes(n)); }
inline void store(float* p, F8 v, int64_t n) { _mm256_maskstore_ps(p, lanes(n), v); }

// Calls step(i, load, store) for blocks of eight and once for the tail, with functions that handle either.
template <typename Step>
inline void for_each_block(int64_t begin, int64_t end, Step&& step) {
  int64_t i = begin;
  for (; i + kWidth <= end; i += kWidth)
    step(i, kWidth, [](const float* p) { return load(p); }, [](float* p, F8 v) { store(p, v); });
  if (const int64_t rest = end - i; rest > 0)
    step(i, rest, [rest](const float* p) { return load(p, rest); }, [rest](float* p, F8 v) { store(p, v, rest); });
}

// Sums in double: two times four lanes.
struct DoubleSum {
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  void add(F8 v) {
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(v)));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
  }
  // Adds a b with the product exact.
  void add_product(F8 a, F8 b) {
    low = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_castps256_ps128(b)), low);
    high = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)), _mm256_cvtps_pd(_mm256_extractf128_ps(b, 1)), high);
  }
  double total() const {
    double t[4];
    _mm256_storeu_pd(t, _mm256_add_pd(low, high));
    return (t[0] + t[2]) + (t[1] + t[3]);
  }
};

// bf16 to f32 and back, rounded to nearest even, as libds/base/half.h does it.
inline F8 widen_bf16(__m128i half) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16)); }
inline __m128i narrow_to_bf16(F8 x) {
  const __m256i u = _mm256_castps_si256(x), high = _mm256_srli_epi32(u, 16);
  __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), _mm256_and_si256(high, _mm256_set1_epi32(1)));
  r = _mm256_srli_epi32(r, 16);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  r = _mm256_blendv_epi8(r, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0xd8));
}

inline float horizontal_max(F8 v) {
  float t[8];
  store(t, v);
  float m = t[0];
  for (int i = 1; i < 8; ++i) m = t[i] > m || t[i] != t[i] ? t[i] : m;
  return m;
}

inline F8 absolute(F8 x) { return _mm256_andnot_ps(all(-0.0f), x); }
inline F8 sign_of(F8 x) { return _mm256_and_ps(all(-0.0f), x); }
// Lower and upper bound; NaN stays NaN (min and max give the second operand for it).
inline F8 at_most(F8 x, float bound) { return _mm256_min_ps(all(bound), x); }
inline F8 at_least(F8 x, float bound) { return _mm256_max_ps(all(bound), x); }
inline F8 select(F8 mask, F8 yes, F8 no) { return _mm256_blendv_ps(no, yes, mask); }
inline F8 less(F8 a, F8 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }

// x = k ln 2 + r, |r| <= ln 2 / 2: k, and exp(r) - 1.
struct ReducedExp8 {
  F8 k, less_one;
  explicit ReducedExp8(F8 x) {
    k = _mm256_round_ps(x * all(1.44269504088896341f), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    F8 r = fma(k, all(-0.693359375f), x);
    r = fma(k, all(2.12194440054690583e-4f), r);
    F8 p = all(0.0013950489f);
    p = fma(p, r, all(0.0083688898f));
    p = fma(p, r, all(0.041666206f));
    p = fma(p, r, all(0.16666518f));
    p = fma(p, r, all(0.5f));
    less_one = fma(p, r * r, r);
  }
};

// exp(x) = 2^k exp(r); 2^k in two factors, so that overflow gives infinity and
// underflow goes through the subnormals. Error 2e-7.
inline F8 exp8(F8 x) {
  const ReducedExp8 e(at_least(at_most(x, 89.0f), -104.0f));
  const F8 p = e.less_one + all(1.0f);
  const __m256i n = _mm256_cvtps_epi32(e.k), half = _mm256_srai_epi32(n, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const F8 first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const F8 second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias), 23));
  return p * first * second;
}

inline F8 sigmoid8(F8 x) { return all(1.0f) / (all(1.0f) + exp8(-x)); }

// tanh(x): an odd polynomial below 0.625, else 1 - 2 / (exp(2 |x|) + 1). Error 3e-7.
inline F8 tanh8(F8 x) {
  const F8 a = absolute(x), u = x * x;
  F8 p = all(-0.0056607766f);
  p = fma(p, u, all(0.020601996f));
  p = fma(p, u, all(-0.053729225f));
  p = fma(p, u, all(0.13331328f));
  p = fma(p, u, all(-0.33333278f));
  const F8 small = fma(p * u, x, x);
  const F8 large = all(1.0f) - all(2.0f) / (exp8(a + a) + all(1.0f));
  return select(less(a, all(0.625f)), small, _mm256_or_ps(large, sign_of(x)));
}

// erf(x): an odd polynomial below 1, else 1 - exp(-x^2) q(1 / (1 + |x| / 2)). Error 4e-7.
inline F8 erf8(F8 x) {
  const F8 a = at_most(absolute(x), 4.0f), u = a * a;
  F8 p = all(7.8538578e-05f);
  p = fma(p, u, all(-0.00080101931f));
  p = fma(p, u, all(0.0051883277f));
  p = fma(p, u, all(-0.026853813f));
  p = fma(p, u, all(0.11283585f));
  p = fma(p, u, all(-0.37612626f));
  p = fma(p, u, all(1.1283791f));
  const F8 t = all(1.0f) / fma(all(0.5f), a, all(1.0f));
  F8 q = all(-0.057131272f);
  q = fma(q, t, all(-0.046014912f));
  q = fma(q, t, all(0.38917762f));
  q = fma(q, t, all(0.11124166f));
  q = fma(q, t, all(0.32708082f));
  q = fma(q, t, all(0.27436295f));
  q = fma(q, t, all(0.00054583180f));
  const F8 large = _mm256_or_ps(all(1.0f) - exp8(-u) * q, sign_of(x));
  return select(less(a, all(1.0f)), p * x, large);
}

// log(x): x = 2^k (1 + f), 1 + f between sqrt(1/2) and sqrt(2), subnormals scaled up first. Error 1e-7.
inline F8 log8(F8 x) {
  const F8 tiny = less(x, all(1.17549435e-38f));
  const __m256i bits = _mm256_castps_si256(select(tiny, x * all(8388608.0f), x));
  const __m256i n = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_castps_si256(all(0.70710678f))), 23);
  const F8 k = _mm256_cvtepi32_ps(n) - _mm256_and_ps(tiny, all(23.0f));
  const F8 f = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(n, 23))) - all(1.0f), u = f * f;
  F8 p = all(-0.0763449296f);
  p = fma(p, f, all(0.12761575f));
  p = fma(p, f, all(-0.131601825f));
  p = fma(p, f, all(0.142017588f));
  p = fma(p, f, all(-0.166233569f));
  p = fma(p, f, all(0.200012267f));
  p = fma(p, f, all(-0.250008196f));
  p = fma(p, f, all(0.333333313f));
  F8 y = fma(k, all(-2.12194440054690583e-4f), f * u * p);
  y = fma(all(-0.5f), u, y);
  y = fma(k, all(0.693359375f), f + y);
  y = select(_mm256_cmp_ps(x, all(3.4028235e38f), _CMP_LE_OQ), y, x);  // infinity and NaN as they are
  y = select(less(x, all(0.0f)), all(__builtin_nanf("")), y);
  return select(_mm256_cmp_ps(x, all(0.0f), _CMP_EQ_OQ), all(-__builtin_inff()), y);
}

// exp(x) - 1 for x <= 0, reduced alike: 2^k (exp(r) - 1) + (2^k - 1). Error 3e-7.
inline F8 expm1_8(F8 x) {
  const ReducedExp8 e(at_least(at_most(x, 0.0f), -60.0f));
  const F8 scale = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(e.k), _mm256_set1_epi32(127)), 23));
  return fma(scale, e.less_one, scale - all(1.0f));
}

}  // namespace
}  // namespace ds::kernels
