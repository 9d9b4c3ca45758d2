// AVX2 parts of quant.h. Raw loops only: no library code may be compiled for AVX2 and leak out.
#include <immintrin.h>

#include "kernels/quant.h"

namespace ds::kernels {
namespace {

template <bool kSigned>
inline __m256 widen8(const uint8_t* p, __m256i zero) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(kSigned ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes), zero));
}

template <bool kSigned>
void add_eights(int64_t n, const uint8_t* a, QParams pa, const uint8_t* b, QParams pb, QParams py, int32_t least, int32_t most, uint8_t* y) {
  const __m256 ra = _mm256_set1_ps(pa.scale / py.scale), rb = _mm256_set1_ps(pb.scale / py.scale);
  const __m256 lo = _mm256_set1_ps(static_cast<float>(least - py.zero)), hi = _mm256_set1_ps(static_cast<float>(most - py.zero));
  const __m256i za = _mm256_set1_epi32(pa.zero), zb = _mm256_set1_epi32(pb.zero), zy = _mm256_set1_epi32(py.zero);
  for (int64_t i = 0; i + 8 <= n; i += 8) {
    __m256 f = _mm256_add_ps(_mm256_mul_ps(widen8<kSigned>(a + i, za), ra), _mm256_mul_ps(widen8<kSigned>(b + i, zb), rb));
    f = _mm256_min_ps(_mm256_max_ps(f, lo), hi);
    const __m256i sum = _mm256_add_epi32(_mm256_cvtps_epi32(f), zy);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(y + i), kSigned ? _mm_packs_epi16(words, words) : _mm_packus_epi16(words, words));
  }
}

template <bool kSigned>
void add_all(int64_t n, const uint8_t* a, QParams pa, const uint8_t* b, QParams pb, QParams py, int32_t least, int32_t most, uint8_t* y) {
  const int64_t whole = n & ~int64_t{7}, rest = n - whole;
  add_eights<kSigned>(whole, a, pa, b, pb, py, least, most, y);
  if (rest == 0) return;
  uint8_t last[3][8] = {};
  __builtin_memcpy(last[0], a + whole, static_cast<size_t>(rest));
  __builtin_memcpy(last[1], b + whole, static_cast<size_t>(rest));
  add_eights<kSigned>(8, last[0], pa, last[1], pb, py, least, most, last[2]);
  __builtin_memcpy(y + whole, last[2], static_cast<size_t>(rest));
}

}  // namespace

void quant_add_u8_avx2(int64_t n, const uint8_t* a, QParams pa, const uint8_t* b, QParams pb, QParams py, int32_t least, int32_t most, uint8_t* y) {
  add_all<false>(n, a, pa, b, pb, py, least, most, y);
}
void quant_add_i8_avx2(int64_t n, const int8_t* a, QParams pa, const int8_t* b, QParams pb, QParams py, int32_t least, int32_t most, int8_t* y) {
  add_all<true>(n, reinterpret_cast<const uint8_t*>(a), pa, reinterpret_cast<const uint8_t*>(b), pb, py, least, most, reinterpret_cast<uint8_t*>(y));
}

}  // namespace ds::kernels
