#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/peak.h"

namespace ds::kernels {

int64_t peak_f32_avx512(int64_t rounds, float* sink) {
  constexpr int kAccumulators = 16;
  __m512 acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(*sink * 0.0f + 0.999f), b = _mm512_set1_ps(*sink * 0.0f + 0.001f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_fmadd_ps(acc[i], a, b);
  }
  __m512 sum = acc[0];
  for (int i = 1; i < kAccumulators; ++i) sum = _mm512_add_ps(sum, acc[i]);
  *sink = _mm512_cvtss_f32(sum);
  return rounds * kAccumulators * 16 * 2;
}

int64_t peak_s8_vnni_avx512(int64_t rounds, float* sink) {
  constexpr int kAccumulators = 16;
  __m512i acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi8(static_cast<char>(static_cast<int>(*sink) & 3)), b = _mm512_set1_epi8(3);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
  }
  __m512i sum = acc[0];
  for (int i = 1; i < kAccumulators; ++i) sum = _mm512_add_epi32(sum, acc[i]);
  *sink = static_cast<float>(_mm512_cvtsi512_si32(sum) & 1);
  return rounds * kAccumulators * 64 * 2;
}

int64_t peak_bf16_avx512(int64_t rounds, float* sink) {
  constexpr int kAccumulators = 16;
  __m512 acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 start = _mm512_set1_ps(*sink * 0.0f + 0.001f);
  const __m512bh a = _mm512_cvtne2ps_pbh(start, start), b = _mm512_cvtne2ps_pbh(start, start);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], a, b);
  }
  __m512 sum = acc[0];
  for (int i = 1; i < kAccumulators; ++i) sum = _mm512_add_ps(sum, acc[i]);
  *sink = _mm512_cvtss_f32(sum);
  return rounds * kAccumulators * 32 * 2;
}

}  // namespace ds::kernels
#endif
