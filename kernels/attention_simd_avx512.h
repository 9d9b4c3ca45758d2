// Vectors of AVX-512 as attention_tiles.h asks for them: 14 keys (or elements of a value) by 32 rows in 28 accumulators.
// Internal linkage, no library code; for units compiled for AVX-512 and above.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/attention_product.h"

namespace ds::kernels {
namespace {

#define DS_INLINE static __attribute__((always_inline)) inline

struct Avx512 {
  using V = __m512;
  static constexpr int64_t kWidth = 16;
  static constexpr int kTile = 14;

  DS_INLINE __mmask16 lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  DS_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
  DS_INLINE V load(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(lanes(n), p); }
  DS_INLINE void store(float* p, V x) { _mm512_storeu_ps(p, x); }
  DS_INLINE void store(float* p, V x, int64_t n) { _mm512_mask_storeu_ps(p, lanes(n), x); }
  DS_INLINE V all(float x) { return _mm512_set1_ps(x); }
  DS_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  DS_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }

  // 2^x = 2^floor(x) p(x - floor(x)), a minimax polynomial of relative error 8e-8; 0 below 2^-126. NaN stays.
  DS_INLINE V exp2(V x) {
    const V r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    V p = all(0.0018671302f);
    p = fma(p, r, all(0.0090170298f));
    p = fma(p, r, all(0.055799913f));
    p = fma(p, r, all(0.24016444f));
    p = fma(p, r, all(0.69315130f));
    p = fma(p, r, all(1));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, all(-126), _CMP_NLT_UQ), p, x);
  }
  // As tanh8 in simd_avx2.h.
  DS_INLINE V tanh(V x) {
    const V a = _mm512_abs_ps(x), u = x * x;
    V p = all(-0.0056607766f);
    p = fma(p, u, all(0.020601996f));
    p = fma(p, u, all(-0.053729225f));
    p = fma(p, u, all(0.13331328f));
    p = fma(p, u, all(-0.33333278f));
    const V small = fma(p * u, x, x);
    const V large = all(1) - all(2) / (exp2(_mm512_min_ps(all(60), a * all(2 * kLog2E))) + all(1));
    const V sign = _mm512_and_ps(x, all(-0.0f));
    return _mm512_mask_mov_ps(_mm512_or_ps(large, sign), _mm512_cmp_ps_mask(a, all(0.625f), _CMP_LT_OQ), small);
  }

  DS_INLINE V mask(const bool* p, int64_t n) {
    const __mmask16 there = lanes(n < kWidth ? n : kWidth);
    const __m128i seen = _mm_maskz_loadu_epi8(there, p);
    return _mm512_maskz_mov_ps(_mm_mask_cmpeq_epi8_mask(there, seen, _mm_setzero_si128()), all(kNever));
  }
  DS_INLINE V biased(V s, V bias) {
    return _mm512_mask_mov_ps(s + bias, _mm512_cmp_ps_mask(bias, all(kNever), _CMP_EQ_OQ), all(kNever));
  }
  DS_INLINE V between(V s, V j, V low, V high) {
    const __mmask16 in = _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(low, j, _CMP_LE_OQ), j, high, _CMP_LT_OQ);
    return _mm512_mask_mov_ps(all(kNever), in, s);
  }
  DS_INLINE V unless_never(V a) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, all(kNever), _CMP_NEQ_UQ), a); }
  DS_INLINE bool differ(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ) != 0; }

  // Assembly, because compilers hoist the broadcasts of all rows and then spill the accumulators.
  DS_INLINE void row(const float* a, V b0, V b1, V& c0, V& c1) {
    V x;
    asm("vbroadcastss %[a], %[x]\n\t"
        "vfmadd231ps %[b0], %[x], %[c0]\n\t"
        "vfmadd231ps %[b1], %[x], %[c1]"
        : [c0] "+v"(c0), [c1] "+v"(c1), [x] "=&v"(x)
        : [a] "m"(*a), [b0] "v"(b0), [b1] "v"(b1));
  }
  DS_INLINE void row(const float* a, V b0, V& c0) {
    asm("vfmadd231ps %[a]%{1to16%}, %[b0], %[c0]" : [c0] "+v"(c0) : [a] "m"(*a), [b0] "v"(b0));
  }

  DS_INLINE V low_pairs(V a, V b) { return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))); }
  DS_INLINE V high_pairs(V a, V b) { return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))); }
  // Quarters 0 and 2 of a, then of b; 1 and 3.
  DS_INLINE V even_quarters(V a, V b) { return _mm512_shuffle_f32x4(a, b, 0x88); }
  DS_INLINE V odd_quarters(V a, V b) { return _mm512_shuffle_f32x4(a, b, 0xdd); }

  DS_INLINE void transpose(V* x) {
    V t[16];
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {  // 4 by 4 within quarters: t[i + c] holds columns c, c + 4, c + 8, c + 12 of four rows
      const V a = _mm512_unpacklo_ps(x[i], x[i + 1]), b = _mm512_unpackhi_ps(x[i], x[i + 1]);
      const V c = _mm512_unpacklo_ps(x[i + 2], x[i + 3]), d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
      t[i] = low_pairs(a, c);
      t[i + 1] = high_pairs(a, c);
      t[i + 2] = low_pairs(b, d);
      t[i + 3] = high_pairs(b, d);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const V even0 = even_quarters(t[c], t[c + 4]), odd0 = odd_quarters(t[c], t[c + 4]);
      const V even1 = even_quarters(t[c + 8], t[c + 12]), odd1 = odd_quarters(t[c + 8], t[c + 12]);
      x[c] = even_quarters(even0, even1);
      x[c + 8] = odd_quarters(even0, even1);
      x[c + 4] = even_quarters(odd0, odd1);
      x[c + 12] = odd_quarters(odd0, odd1);
    }
  }
  DS_INLINE V sums(const V* x) {
    V t[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const V a = _mm512_unpacklo_ps(x[4 * i], x[4 * i + 1]) + _mm512_unpackhi_ps(x[4 * i], x[4 * i + 1]);
      const V b = _mm512_unpacklo_ps(x[4 * i + 2], x[4 * i + 3]) + _mm512_unpackhi_ps(x[4 * i + 2], x[4 * i + 3]);
      t[i] = low_pairs(a, b) + high_pairs(a, b);
    }
    const V a = even_quarters(t[0], t[1]) + odd_quarters(t[0], t[1]), b = even_quarters(t[2], t[3]) + odd_quarters(t[2], t[3]);
    return even_quarters(a, b) + odd_quarters(a, b);
  }
};

#undef DS_INLINE

}  // namespace
}  // namespace ds::kernels
