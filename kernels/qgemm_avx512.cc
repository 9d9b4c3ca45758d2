// Rescaling of sixteen sums at a time: the bits of kernels/qgemm_avx2.cc and of the portable code.
#include <immintrin.h>

#include "kernels/qgemm.h"

namespace ds::kernels {
namespace {

// Bounded, then rounded: the bounds are whole.
inline __m512i rounded(__m512 f, __m512 lo, __m512 hi) { return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(f, lo), hi)); }
inline __m512 bound(int32_t value, int32_t zero) { return _mm512_set1_ps(static_cast<float>(value - zero)); }

// Sixteen channels or fewer: everything that depends on the channel stays in registers.
template <bool kFloatBias, bool kAdd>
void rescale_panel(int64_t rows, __mmask16 mask, const int32_t* sums, int64_t stride, const QRescale& q, uint8_t* out, int64_t out_stride) {
  const __m512i bias = q.bias != nullptr ? _mm512_maskz_loadu_epi32(mask, q.bias) : _mm512_setzero_si512();
  const __m512 multiplier = _mm512_maskz_loadu_ps(mask, q.multiplier);
  const __m512 shift = kFloatBias ? _mm512_maskz_loadu_ps(mask, q.float_bias) : _mm512_setzero_ps();
  const __m512 lo = bound(q.lo, q.zero), hi = bound(q.hi, q.zero);
  const QAddition& a = q.addition;
  const __m512 sum_lo = bound(a.lo, a.zero), sum_hi = bound(a.hi, a.zero), ratio = _mm512_set1_ps(a.ratio), addend_ratio = _mm512_set1_ps(a.addend_ratio);
  const __m512i zero = _mm512_set1_epi32(kAdd ? a.zero : q.zero), addend_zero = _mm512_set1_epi32(a.addend_zero);
  const bool is_signed = q.output == QOutput::kI8;
  const auto* addend = static_cast<const uint8_t*>(q.addend);
  for (int64_t r = 0; r < rows; ++r, sums += stride, out += out_stride) {
    __m512 f = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_maskz_loadu_epi32(mask, sums), bias)), multiplier);
    if constexpr (kFloatBias) f = _mm512_add_ps(f, shift);  // two roundings, as elsewhere
    __m512i y = rounded(f, lo, hi);
    if constexpr (kAdd) {
      const __m128i bytes = _mm_maskz_loadu_epi8(mask, addend + r * q.addend_stride);
      const __m512i other = _mm512_sub_epi32(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes), addend_zero);
      f = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(y), ratio), _mm512_mul_ps(_mm512_cvtepi32_ps(other), addend_ratio));
      y = rounded(f, sum_lo, sum_hi);
    }
    _mm512_mask_cvtepi32_storeu_epi8(out, mask, _mm512_add_epi32(y, zero));  // in range: cutting off is exact
  }
}

}  // namespace

void qrescale_avx512(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const QRescale& q, void* out, int64_t out_stride) {
  if (q.output == QOutput::kI32) return avx2_qgemm().rescale(rows, n, sums, stride, q, out, out_stride);
  if (q.real || q.output == QOutput::kF32) return qrescale_real_avx512(rows, n, sums, stride, q, out, out_stride);
  for (int64_t c = 0; c < n; c += 16) {
    const auto mask = static_cast<__mmask16>(n - c >= 16 ? 0xffff : (1u << (n - c)) - 1);
    const QRescale part = at_block(q, 0, c);
    const auto with = [&](auto function) { function(rows, mask, sums + c, stride, part, static_cast<uint8_t*>(out) + c, out_stride); };
    if (q.addend != nullptr) q.float_bias != nullptr ? with(rescale_panel<true, true>) : with(rescale_panel<false, true>);
    else q.float_bias != nullptr ? with(rescale_panel<true, false>) : with(rescale_panel<false, false>);
  }
}

}  // namespace ds::kernels
