#include <immintrin.h>

#include "kernels/peak.h"

namespace ds::kernels {

int64_t peak_f16_avx512(int64_t rounds, float* sink) {
  constexpr int kAccumulators = 16;
  __m512h acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_set1_ph(static_cast<_Float16>(i));
  const __m512h a = _mm512_set1_ph(static_cast<_Float16>(*sink * 0.0f + 0.5f)), b = _mm512_set1_ph(static_cast<_Float16>(1.0f));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kAccumulators; ++i) acc[i] = _mm512_fmadd_ph(acc[i], a, b);
  }
  __m512h sum = acc[0];
  for (int i = 1; i < kAccumulators; ++i) sum = _mm512_add_ph(sum, acc[i]);
  *sink = static_cast<float>(_mm512_cvtsh_h(sum));
  return rounds * kAccumulators * 32 * 2;
}

}  // namespace ds::kernels
