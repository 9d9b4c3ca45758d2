// Attention on AVX2: 6 keys (or elements of a value) by 16 rows in 12 accumulators.
#include "kernels/attention_tiles.h"
#include "kernels/simd_avx2.h"

namespace ds::kernels::avx2 {
namespace {

#define DS_INLINE static __attribute__((always_inline)) inline

struct Avx2 {
  using V = F8;
  static constexpr int64_t kWidth = 8;
  static constexpr int kTile = 6;

  DS_INLINE V load(const float* p) { return kernels::load(p); }
  DS_INLINE V load(const float* p, int64_t n) { return kernels::load(p, n); }
  DS_INLINE void store(float* p, V x) { kernels::store(p, x); }
  DS_INLINE void store(float* p, V x, int64_t n) { kernels::store(p, x, n); }
  DS_INLINE V all(float x) { return kernels::all(x); }
  DS_INLINE V fma(V a, V b, V c) { return kernels::fma(a, b, c); }
  DS_INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }

  // 2^x = 2^floor(x) p(x - floor(x)), a minimax polynomial of relative error 8e-8; 0 below 2^-126.
  DS_INLINE V exp2(V x) {
    x = max(all(-127), x);  // NaN stays
    const V whole = _mm256_floor_ps(x), r = x - whole;
    V p = all(0.0018671302f);
    p = fma(p, r, all(0.0090170298f));
    p = fma(p, r, all(0.055799913f));
    p = fma(p, r, all(0.24016444f));
    p = fma(p, r, all(0.69315130f));
    p = fma(p, r, all(1));
    return p * _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23));
  }
  DS_INLINE V tanh(V x) { return tanh8(x); }

  DS_INLINE V mask(const bool* p, int64_t n) {
    int64_t bytes = -1;
    if (n >= kWidth) __builtin_memcpy(&bytes, p, kWidth);
    else
      for (int64_t i = n; i-- > 0;) bytes = bytes << 8 | (p[i] ? 1 : 0);
    const __m256i seen = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes));
    return _mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(seen, _mm256_setzero_si256())), all(kNever));
  }
  DS_INLINE V biased(V s, V bias) {
    const V never = all(kNever);
    return select(_mm256_cmp_ps(bias, never, _CMP_EQ_OQ), never, s + bias);
  }
  DS_INLINE V between(V s, V j, V low, V high) {
    return select(_mm256_and_ps(_mm256_cmp_ps(low, j, _CMP_LE_OQ), _mm256_cmp_ps(j, high, _CMP_LT_OQ)), s, all(kNever));
  }
  DS_INLINE V unless_never(V a) { return _mm256_and_ps(_mm256_cmp_ps(a, all(kNever), _CMP_NEQ_UQ), a); }
  DS_INLINE bool differ(V a, V b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)) != 0; }

  // Assembly, because compilers hoist the broadcasts of all rows and then spill the accumulators.
  DS_INLINE void row(const float* a, V b0, V b1, V& c0, V& c1) {
    V x;
    asm("vbroadcastss %[a], %[x]\n\t"
        "vfmadd231ps %[b0], %[x], %[c0]\n\t"
        "vfmadd231ps %[b1], %[x], %[c1]"
        : [c0] "+x"(c0), [c1] "+x"(c1), [x] "=&x"(x)
        : [a] "m"(*a), [b0] "x"(b0), [b1] "x"(b1));
  }
  DS_INLINE void row(const float* a, V b0, V& c0) {
    V x;
    asm("vbroadcastss %[a], %[x]\n\t"
        "vfmadd231ps %[b0], %[x], %[c0]"
        : [c0] "+x"(c0), [x] "=&x"(x)
        : [a] "m"(*a), [b0] "x"(b0));
  }

  DS_INLINE V low_pairs(V a, V b) { return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b))); }
  DS_INLINE V high_pairs(V a, V b) { return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b))); }
  DS_INLINE V low_halves(V a, V b) { return _mm256_permute2f128_ps(a, b, 0x20); }
  DS_INLINE V high_halves(V a, V b) { return _mm256_permute2f128_ps(a, b, 0x31); }

  DS_INLINE void transpose(V* x) {
    V t[8];
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {  // 4 by 4 within halves: t[i + c] holds columns c and c + 4 of four rows
      const V a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpackhi_ps(x[i], x[i + 1]);
      const V c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]), d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
      t[i] = low_pairs(a, c);
      t[i + 1] = high_pairs(a, c);
      t[i + 2] = low_pairs(b, d);
      t[i + 3] = high_pairs(b, d);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      x[c] = low_halves(t[c], t[c + 4]);
      x[c + 4] = high_halves(t[c], t[c + 4]);
    }
  }
  DS_INLINE V sums(const V* x) {
    V t[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const V a = _mm256_unpacklo_ps(x[4 * i], x[4 * i + 1]) + _mm256_unpackhi_ps(x[4 * i], x[4 * i + 1]);
      const V b = _mm256_unpacklo_ps(x[4 * i + 2], x[4 * i + 3]) + _mm256_unpackhi_ps(x[4 * i + 2], x[4 * i + 3]);
      t[i] = low_pairs(a, b) + high_pairs(a, b);
    }
    return low_halves(t[0], t[1]) + high_halves(t[0], t[1]);
  }
};

#undef DS_INLINE

}  // namespace

int64_t attention_scratch(const Attention& a, int parts) { return tiles_scratch<Avx2>(a, parts); }
void attention(const Attention& a, const AttentionOperands<float>& o, int parts, float* scratch) { run_tiles<Avx2>(a, o, parts, scratch); }

}  // namespace ds::kernels::avx2
