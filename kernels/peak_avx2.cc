#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/peak.h"

namespace ds::kernels {

int64_t peak_f32_avx2(int64_t rounds, float* sink) {
  constexpr int kAccumulators = 12;  // two FMA ports, latency 4 to 5
  __m256 acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(*sink * 0.0f + 0.999f), b = _mm256_set1_ps(*sink * 0.0f + 0.001f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm256_fmadd_ps(acc[i], a, b);
  }
  __m256 sum = acc[0];
  for (int i = 1; i < kAccumulators; ++i) sum = _mm256_add_ps(sum, acc[i]);
  *sink = _mm256_cvtss_f32(sum);
  return rounds * kAccumulators * 8 * 2;
}

// Without VNNI: vpmaddubsw, vpmaddwd, vpaddd make 32 multiply-adds of four into eight sums.
int64_t peak_s8_avx2(int64_t rounds, float* sink) {
  constexpr int kAccumulators = 10;
  __m256i acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm256_set1_epi32(i);
  const __m256i ones = _mm256_set1_epi16(1), b = _mm256_set1_epi8(3);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 10
    for (int i = 0; i < kAccumulators; ++i) {
      // The accumulator is an operand, so that no part can be moved out of the loop.
      const __m256i pairs = _mm256_maddubs_epi16(acc[i], b);
      acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(pairs, ones));
    }
  }
  __m256i sum = acc[0];
  for (int i = 1; i < kAccumulators; ++i) sum = _mm256_add_epi32(sum, acc[i]);
  *sink = static_cast<float>(_mm256_extract_epi32(sum, 0) & 1);
  return rounds * kAccumulators * 32 * 2;
}

}  // namespace ds::kernels
#endif
