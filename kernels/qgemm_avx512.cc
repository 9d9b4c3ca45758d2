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

// Thirty-two channels: the bytes of a row are packed in registers and stored at once, which is cheaper than two narrowing stores.
template <bool kFloatBias, bool kAdd>
void rescale_pair(int64_t rows, const int32_t* sums, int64_t stride, const QRescale& q, uint8_t* out, int64_t out_stride) {
  const auto at = [](const float* p, int i) { return p != nullptr ? _mm512_loadu_ps(p + 16 * i) : _mm512_setzero_ps(); };
  const __m512i bias[2] = {q.bias != nullptr ? _mm512_loadu_si512(q.bias) : _mm512_setzero_si512(),
                           q.bias != nullptr ? _mm512_loadu_si512(q.bias + 16) : _mm512_setzero_si512()};
  const __m512 multiplier[2] = {at(q.multiplier, 0), at(q.multiplier, 1)}, shift[2] = {at(q.float_bias, 0), at(q.float_bias, 1)};
  const __m512 lo = bound(q.lo, q.zero), hi = bound(q.hi, q.zero);
  const QAddition& a = q.addition;
  const __m512 sum_lo = bound(a.lo, a.zero), sum_hi = bound(a.hi, a.zero), ratio = _mm512_set1_ps(a.ratio), addend_ratio = _mm512_set1_ps(a.addend_ratio);
  const __m512i addend_zero = _mm512_set1_epi32(a.addend_zero), zero = _mm512_set1_epi16(static_cast<int16_t>(kAdd ? a.zero : q.zero));
  // Packing works within quarters: doubleword 4 i + j of the packed bytes belongs to quarter i of vector j.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 4, 8, 12, 1, 5, 9, 13);
  const bool is_signed = q.output == QOutput::kI8;
  const auto* addend = static_cast<const uint8_t*>(q.addend);
  for (int64_t r = 0; r < rows; ++r, sums += stride, out += out_stride) {
    __m512i y[2];
    for (int i = 0; i < 2; ++i) {
      __m512 f = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_loadu_si512(sums + 16 * i), bias[i])), multiplier[i]);
      if constexpr (kFloatBias) f = _mm512_add_ps(f, shift[i]);
      y[i] = rounded(f, lo, hi);
      if constexpr (kAdd) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(addend + r * q.addend_stride + 16 * i));
        const __m512i other = _mm512_sub_epi32(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes), addend_zero);
        f = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(y[i]), ratio), _mm512_mul_ps(_mm512_cvtepi32_ps(other), addend_ratio));
        y[i] = rounded(f, sum_lo, sum_hi);
      }
    }
    const __m512i words = _mm512_add_epi16(_mm512_packs_epi32(y[0], y[1]), zero);
    const __m512i bytes = is_signed ? _mm512_packs_epi16(words, words) : _mm512_packus_epi16(words, words);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, bytes)));
  }
}

}  // namespace

void qadd_terms_avx512(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const int32_t* row, const int32_t* column, int32_t* out) {
  for (int64_t r = 0; r < rows; ++r, sums += stride, out += n) {
    const __m512i factor = _mm512_set1_epi32(row[r]);
    for (int64_t c = 0; c < n; c += 16) {
      const auto mask = static_cast<__mmask16>(n - c >= 16 ? 0xffff : (1u << (n - c)) - 1);
      const __m512i term = _mm512_mullo_epi32(factor, _mm512_maskz_loadu_epi32(mask, column + c));
      _mm512_mask_storeu_epi32(out + c, mask, _mm512_add_epi32(_mm512_maskz_loadu_epi32(mask, sums + c), term));
    }
  }
}

void qrescale_avx512(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const QRescale& q, void* out, int64_t out_stride) {
  if (q.output == QOutput::kI32) return avx2_qgemm().rescale(rows, n, sums, stride, q, out, out_stride);
  if (q.real || q.output == QOutput::kF32) return qrescale_real_avx512(rows, n, sums, stride, q, out, out_stride);
  int64_t c = 0;
  for (; c + 32 <= n; c += 32) {
    const QRescale part = at_block(q, 0, c);
    const auto with = [&](auto function) { function(rows, sums + c, stride, part, static_cast<uint8_t*>(out) + c, out_stride); };
    if (q.addend != nullptr) q.float_bias != nullptr ? with(rescale_pair<true, true>) : with(rescale_pair<false, true>);
    else q.float_bias != nullptr ? with(rescale_pair<true, false>) : with(rescale_pair<false, false>);
  }
  for (; c < n; c += 16) {
    const auto mask = static_cast<__mmask16>(n - c >= 16 ? 0xffff : (1u << (n - c)) - 1);
    const QRescale part = at_block(q, 0, c);
    const auto with = [&](auto function) { function(rows, mask, sums + c, stride, part, static_cast<uint8_t*>(out) + c, out_stride); };
    if (q.addend != nullptr) q.float_bias != nullptr ? with(rescale_panel<true, true>) : with(rescale_panel<false, true>);
    else q.float_bias != nullptr ? with(rescale_panel<true, false>) : with(rescale_panel<false, false>);
  }
}

}  // namespace ds::kernels
