// Floats to bytes with one scale (quant.h). Raw loops only: no library code may be compiled for AVX2 and leak out.
#include <immintrin.h>

#include "kernels/quant.h"

namespace ds::kernels {
namespace {

template <bool kSigned>
class Quantizer {
 public:
  Quantizer(float scale, int32_t zero)
      : scale_(_mm256_set1_ps(scale)),
        lo_(_mm256_set1_ps(static_cast<float>((kSigned ? -128 : 0) - zero))),
        hi_(_mm256_set1_ps(static_cast<float>((kSigned ? 127 : 255) - zero))),
        zero_(_mm256_set1_epi32(zero)) {}

  // Bounded as float, then rounded: the bounds are whole, so that the order does not matter. max gives its second operand
  // for NaN, the least value.
  __m256i eight(const float* x) const {
    const __m256 f = _mm256_min_ps(_mm256_max_ps(_mm256_div_ps(_mm256_loadu_ps(x), scale_), lo_), hi_);
    return _mm256_add_epi32(_mm256_cvtps_epi32(f), zero_);
  }

  void thirty_two(const float* x, uint8_t* y) const {
    const __m256i low = _mm256_packs_epi32(eight(x), eight(x + 8)), high = _mm256_packs_epi32(eight(x + 16), eight(x + 24));
    const __m256i bytes = kSigned ? _mm256_packs_epi16(low, high) : _mm256_packus_epi16(low, high);
    // The packs work within halves of 128 bits: quarters come out as 0 2 4 6 1 3 5 7.
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }

 private:
  __m256 scale_, lo_, hi_;
  __m256i zero_;
};

template <bool kSigned>
void quantize_all(int64_t n, const float* x, float scale, int32_t zero, uint8_t* y) {
  const Quantizer<kSigned> q(scale, zero);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) q.thirty_two(x + i, y + i);
  if (i == n) return;
  float last[32] = {};
  uint8_t bytes[32];
  __builtin_memcpy(last, x + i, static_cast<size_t>(n - i) * sizeof(float));
  q.thirty_two(last, bytes);
  __builtin_memcpy(y + i, bytes, static_cast<size_t>(n - i));
}

}  // namespace

// min and max give their second operand for NaN: what was found so far.
void value_range_avx2(int64_t n, const float* x, float* low, float* high) {
  constexpr int kChains = 4;
  __m256 lo[kChains], hi[kChains];
  for (int k = 0; k < kChains; ++k) lo[k] = hi[k] = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 * kChains <= n; i += 8 * kChains)
    for (int k = 0; k < kChains; ++k) {
      const __m256 v = _mm256_loadu_ps(x + i + 8 * k);
      lo[k] = _mm256_min_ps(v, lo[k]);
      hi[k] = _mm256_max_ps(v, hi[k]);
    }
  float least[8 * kChains], most[8 * kChains];
  for (int k = 0; k < kChains; ++k) {
    _mm256_storeu_ps(least + 8 * k, lo[k]);
    _mm256_storeu_ps(most + 8 * k, hi[k]);
  }
  *low = *high = 0;
  for (int k = 0; k < 8 * kChains; ++k) {
    *low = least[k] < *low ? least[k] : *low;
    *high = most[k] > *high ? most[k] : *high;
  }
  for (; i < n; ++i) {
    *low = x[i] < *low ? x[i] : *low;
    *high = x[i] > *high ? x[i] : *high;
  }
}

void quantize_u8_avx2(int64_t n, const float* x, QParams p, uint8_t* y) { quantize_all<false>(n, x, p.scale, p.zero, y); }
void quantize_i8_avx2(int64_t n, const float* x, QParams p, int8_t* y) {
  quantize_all<true>(n, x, p.scale, p.zero, reinterpret_cast<uint8_t*>(y));
}

}  // namespace ds::kernels
