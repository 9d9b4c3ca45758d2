// Rescaling of sixteen sums at a time: the bits of kernels/qgemm_avx2.cc and of the portable code.
#include <immintrin.h>

#include "kernels/qgemm.h"

namespace ds::kernels {
namespace {

// Sixteen channels or fewer: everything that depends on the channel stays in registers.
template <bool kFloatBias>
void rescale_panel(int64_t rows, __mmask16 mask, const int32_t* sums, int64_t stride, const QRescale& q, uint8_t* out, int64_t out_stride) {
  const __m512i bias = q.bias != nullptr ? _mm512_maskz_loadu_epi32(mask, q.bias) : _mm512_setzero_si512();
  const __m512 multiplier = _mm512_maskz_loadu_ps(mask, q.multiplier);
  const __m512 shift = kFloatBias ? _mm512_maskz_loadu_ps(mask, q.float_bias) : _mm512_setzero_ps();
  const __m512 lo = _mm512_set1_ps(static_cast<float>(q.lo - q.zero)), hi = _mm512_set1_ps(static_cast<float>(q.hi - q.zero));
  const __m512i zero = _mm512_set1_epi32(q.zero);
  for (int64_t r = 0; r < rows; ++r, sums += stride, out += out_stride) {
    __m512 f = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_maskz_loadu_epi32(mask, sums), bias)), multiplier);
    if constexpr (kFloatBias) f = _mm512_add_ps(f, shift);  // two roundings, as elsewhere
    f = _mm512_min_ps(_mm512_max_ps(f, lo), hi);
    _mm512_mask_cvtepi32_storeu_epi8(out, mask, _mm512_add_epi32(_mm512_cvtps_epi32(f), zero));  // in range: cutting off is exact
  }
}

}  // namespace

void qrescale_avx512(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const QRescale& q, void* out, int64_t out_stride) {
  if (q.output != QOutput::kU8 && q.output != QOutput::kI8) return avx2_qgemm().rescale(rows, n, sums, stride, q, out, out_stride);
  for (int64_t c = 0; c < n; c += 16) {
    const auto mask = static_cast<__mmask16>(n - c >= 16 ? 0xffff : (1u << (n - c)) - 1);
    QRescale part = q;
    if (q.bias != nullptr) part.bias = q.bias + c;
    part.multiplier = q.multiplier + c;
    if (q.float_bias != nullptr) part.float_bias = q.float_bias + c;
    auto* to = static_cast<uint8_t*>(out) + c;
    if (q.float_bias != nullptr) rescale_panel<true>(rows, mask, sums + c, stride, part, to, out_stride);
    else rescale_panel<false>(rows, mask, sums + c, stride, part, to, out_stride);
  }
}

}  // namespace ds::kernels
