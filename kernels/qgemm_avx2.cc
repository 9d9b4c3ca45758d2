// AVX2 parts of qgemm.h. Raw loops only: no library code may be compiled for AVX2 and leak out.
//
// A tile is 6 rows x 16 columns: 12 accumulators of 8 sums, two registers of weights, one broadcast pair of
// activations. vpmaddwd does 16 products and 8 additions; it and vpaddd go to different ports, so that the
// products run at twice the rate of single-precision FMA.
#include <immintrin.h>

#include "kernels/qgemm.h"

namespace ds::kernels {
namespace {

constexpr int64_t kColumns = QPackedWeights::kColumns;

template <bool kSigned>
inline void widen16(const uint8_t* src, __m256i zero, int16_t* dst) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src));
  const __m256i x = kSigned ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), _mm256_sub_epi16(x, zero));
}

template <bool kSigned>
inline void widen(int64_t n, const uint8_t* src, int32_t zero, int16_t* dst) {
  const __m256i z = _mm256_set1_epi16(static_cast<int16_t>(zero));
  if (n < 16) {
    for (int64_t i = 0; i < n; ++i) dst[i] = static_cast<int16_t>((kSigned ? static_cast<int8_t>(src[i]) : src[i]) - zero);
    return;
  }
  for (int64_t i = 0; i + 16 <= n; i += 16) widen16<kSigned>(src + i, z, dst + i);
  if (n % 16 != 0) widen16<kSigned>(src + n - 16, z, dst + n - 16);  // overlaps what is already there
}

void widen_u8(int64_t n, const uint8_t* src, int32_t zero, int16_t* dst) { widen<false>(n, src, zero, dst); }
void widen_i8(int64_t n, const int8_t* src, int32_t zero, int16_t* dst) {
  widen<true>(n, reinterpret_cast<const uint8_t*>(src), zero, dst);
}

// c0, c1 += pair * (b0, b1). Assembly, because compilers hoist the broadcasts and products of all rows and then
// spill the accumulators: with 12 of them, 2 registers of weights and these 2 temporaries all 16 are taken.
inline __attribute__((always_inline)) void multiply_row(const int16_t* pair, __m256i b0, __m256i b1, __m256i& c0, __m256i& c1) {
  __m256i x, product;
  asm("vpbroadcastd %[pair], %[x]\n\t"
      "vpmaddwd %[b0], %[x], %[product]\n\t"
      "vpmaddwd %[b1], %[x], %[x]\n\t"
      "vpaddd %[product], %[c0], %[c0]\n\t"
      "vpaddd %[x], %[c1], %[c1]"
      : [c0] "+x"(c0), [c1] "+x"(c1), [x] "=&x"(x), [product] "=&x"(product)
      : [pair] "m"(*reinterpret_cast<const int32_t(*)[1]>(pair)), [b0] "x"(b0), [b1] "x"(b1));
}

inline __m256i load_sums(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void store_sums(int32_t* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }

// Accumulators have names, not indices: arrays of them end up in memory.
template <int kRows>
void tile_rows(int64_t pairs, const int16_t* a, int64_t stride, const int16_t* panel, bool accumulate, int32_t* sums) {
  __m256i c00 = _mm256_setzero_si256(),
          c01 = _mm256_setzero_si256(),
          c10 = _mm256_setzero_si256(),
          c11 = _mm256_setzero_si256(),
          c20 = _mm256_setzero_si256(),
          c21 = _mm256_setzero_si256(),
          c30 = _mm256_setzero_si256(),
          c31 = _mm256_setzero_si256(),
          c40 = _mm256_setzero_si256(),
          c41 = _mm256_setzero_si256(),
          c50 = _mm256_setzero_si256(),
          c51 = _mm256_setzero_si256();
  if (accumulate) {
    if constexpr (kRows > 0) c00 = load_sums(sums + 0 * kColumns), c01 = load_sums(sums + 0 * kColumns + 8);
    if constexpr (kRows > 1) c10 = load_sums(sums + 1 * kColumns), c11 = load_sums(sums + 1 * kColumns + 8);
    if constexpr (kRows > 2) c20 = load_sums(sums + 2 * kColumns), c21 = load_sums(sums + 2 * kColumns + 8);
    if constexpr (kRows > 3) c30 = load_sums(sums + 3 * kColumns), c31 = load_sums(sums + 3 * kColumns + 8);
    if constexpr (kRows > 4) c40 = load_sums(sums + 4 * kColumns), c41 = load_sums(sums + 4 * kColumns + 8);
    if constexpr (kRows > 5) c50 = load_sums(sums + 5 * kColumns), c51 = load_sums(sums + 5 * kColumns + 8);
  }
  for (int64_t k = 0; k < pairs; ++k, a += 2, panel += kColumns * 2) {
    const __m256i b0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel));
    const __m256i b1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + 16));
    if constexpr (kRows > 0) multiply_row(a + 0 * stride, b0, b1, c00, c01);
    if constexpr (kRows > 1) multiply_row(a + 1 * stride, b0, b1, c10, c11);
    if constexpr (kRows > 2) multiply_row(a + 2 * stride, b0, b1, c20, c21);
    if constexpr (kRows > 3) multiply_row(a + 3 * stride, b0, b1, c30, c31);
    if constexpr (kRows > 4) multiply_row(a + 4 * stride, b0, b1, c40, c41);
    if constexpr (kRows > 5) multiply_row(a + 5 * stride, b0, b1, c50, c51);
  }
  if constexpr (kRows > 0) store_sums(sums + 0 * kColumns, c00), store_sums(sums + 0 * kColumns + 8, c01);
  if constexpr (kRows > 1) store_sums(sums + 1 * kColumns, c10), store_sums(sums + 1 * kColumns + 8, c11);
  if constexpr (kRows > 2) store_sums(sums + 2 * kColumns, c20), store_sums(sums + 2 * kColumns + 8, c21);
  if constexpr (kRows > 3) store_sums(sums + 3 * kColumns, c30), store_sums(sums + 3 * kColumns + 8, c31);
  if constexpr (kRows > 4) store_sums(sums + 4 * kColumns, c40), store_sums(sums + 4 * kColumns + 8, c41);
  if constexpr (kRows > 5) store_sums(sums + 5 * kColumns, c50), store_sums(sums + 5 * kColumns + 8, c51);
}

void tile(int64_t rows, int64_t pairs, const int16_t* a, int64_t stride, const int16_t* panel, bool accumulate, int32_t* sums) {
  switch (rows) {
    case 6: return tile_rows<6>(pairs, a, stride, panel, accumulate, sums);
    case 5: return tile_rows<5>(pairs, a, stride, panel, accumulate, sums);
    case 4: return tile_rows<4>(pairs, a, stride, panel, accumulate, sums);
    case 3: return tile_rows<3>(pairs, a, stride, panel, accumulate, sums);
    case 2: return tile_rows<2>(pairs, a, stride, panel, accumulate, sums);
    default: return tile_rows<1>(pairs, a, stride, panel, accumulate, sums);
  }
}

// Eight sums, rescaled to float.
inline __m256 to_float(const int32_t* sums, const QRescale& q, int64_t i) {
  __m256i s = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + i));
  if (q.bias != nullptr) s = _mm256_add_epi32(s, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q.bias + i)));
  __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(s), _mm256_loadu_ps(q.multiplier + i));
  if (q.float_bias != nullptr) f = _mm256_add_ps(f, _mm256_loadu_ps(q.float_bias + i));
  return f;
}

inline __m256 bound(int32_t value, int32_t zero) { return _mm256_set1_ps(static_cast<float>(value - zero)); }
// Bounded, then rounded: the bounds are whole.
inline __m256i rounded(__m256 f, __m256 lo, __m256 hi) { return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(f, lo), hi)); }

// The sum of eight results (zero subtracted) and a residual, its zero not yet added.
inline __m256i plus_bytes(__m256i y, const uint8_t* addend, const QRescale& q) {
  const QAddition& a = q.addition;
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(addend));
  const __m256i other = _mm256_sub_epi32(q.output == QOutput::kI8 ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(a.addend_zero));
  const __m256 f = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(y), _mm256_set1_ps(a.ratio)),
                                 _mm256_mul_ps(_mm256_cvtepi32_ps(other), _mm256_set1_ps(a.addend_ratio)));
  return rounded(f, bound(a.lo, a.zero), bound(a.hi, a.zero));
}

// Eight bytes.
inline __m128i to_bytes(__m256 f, const QRescale& q, const uint8_t* addend) {
  __m256i y = rounded(f, bound(q.lo, q.zero), bound(q.hi, q.zero));
  if (addend != nullptr) y = plus_bytes(y, addend, q);
  y = _mm256_add_epi32(y, _mm256_set1_epi32(addend != nullptr ? q.addition.zero : q.zero));
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
  return q.output == QOutput::kU8 ? _mm_packus_epi16(words, words) : _mm_packs_epi16(words, words);
}

void rescale_eights(int64_t n, const int32_t* sums, const QRescale& q, void* out) {
  const auto* addend = static_cast<const uint8_t*>(q.addend);
  for (int64_t i = 0; i + 8 <= n; i += 8) {
    if (q.output == QOutput::kI32) {
      __m256i s = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + i));
      if (q.bias != nullptr) s = _mm256_add_epi32(s, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q.bias + i)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<int32_t*>(out) + i), s);
    } else {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(static_cast<uint8_t*>(out) + i), to_bytes(to_float(sums, q, i), q, addend != nullptr ? addend + i : nullptr));
    }
  }
}

void rescale_row(int64_t n, const int32_t* sums, const QRescale& q, void* out) {
  const int64_t whole = n & ~int64_t{7}, rest = n - whole;
  rescale_eights(whole, sums, q, out);
  if (rest == 0) return;
  // The last few through padded copies: the same instructions, no reads past the arrays.
  alignas(32) int32_t sum[8] = {}, bias[8] = {}, result[8];
  alignas(32) float multiplier[8] = {}, float_bias[8] = {};
  uint8_t addend[8] = {};
  QRescale part = q;
  for (int64_t i = 0; i < rest; ++i) {
    sum[i] = sums[whole + i];
    if (q.bias != nullptr) bias[i] = q.bias[whole + i];
    if (q.multiplier != nullptr) multiplier[i] = q.multiplier[whole + i];
    if (q.float_bias != nullptr) float_bias[i] = q.float_bias[whole + i];
    if (q.addend != nullptr) addend[i] = static_cast<const uint8_t*>(q.addend)[whole + i];
  }
  if (q.bias != nullptr) part.bias = bias;
  part.multiplier = multiplier;
  if (q.float_bias != nullptr) part.float_bias = float_bias;
  if (q.addend != nullptr) part.addend = addend;
  rescale_eights(8, sum, part, result);
  const int64_t element = q.output == QOutput::kI32 ? 4 : 1;
  __builtin_memcpy(static_cast<char*>(out) + whole * element, result, static_cast<size_t>(rest * element));
}

// Sixteen channels of 8-bit results: everything that depends on the channel stays in registers.
template <bool kFloatBias, bool kAdd>
void rescale_panel(int64_t rows, const int32_t* sums, int64_t stride, const QRescale& q, uint8_t* out, int64_t out_stride) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i bias0 = q.bias != nullptr ? load_sums(q.bias) : zero, bias1 = q.bias != nullptr ? load_sums(q.bias + 8) : zero;
  const __m256 m0 = _mm256_loadu_ps(q.multiplier), m1 = _mm256_loadu_ps(q.multiplier + 8);
  const __m256 f0 = kFloatBias ? _mm256_loadu_ps(q.float_bias) : _mm256_setzero_ps(), f1 = kFloatBias ? _mm256_loadu_ps(q.float_bias + 8) : f0;
  const __m256 lo = bound(q.lo, q.zero), hi = bound(q.hi, q.zero);
  const __m256i shift = _mm256_set1_epi32(kAdd ? q.addition.zero : q.zero);
  const bool is_unsigned = q.output == QOutput::kU8;
  const auto* addend = static_cast<const uint8_t*>(q.addend);
  for (int64_t r = 0; r < rows; ++r, sums += stride, out += out_stride) {
    __m256 a = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(load_sums(sums), bias0)), m0);
    __m256 b = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(load_sums(sums + 8), bias1)), m1);
    if constexpr (kFloatBias) {
      a = _mm256_add_ps(a, f0);
      b = _mm256_add_ps(b, f1);
    }
    __m256i x = rounded(a, lo, hi), y = rounded(b, lo, hi);
    if constexpr (kAdd) {
      x = plus_bytes(x, addend + r * q.addend_stride, q);
      y = plus_bytes(y, addend + r * q.addend_stride + 8, q);
    }
    x = _mm256_add_epi32(x, shift);
    y = _mm256_add_epi32(y, shift);
    // packs interleaves the 128-bit halves of x and y: put them back in order before the last step.
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x, y), 0xd8);
    const __m128i low = _mm256_castsi256_si128(words), high = _mm256_extracti128_si256(words, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), is_unsigned ? _mm_packus_epi16(low, high) : _mm_packs_epi16(low, high));
  }
}

void rescale(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const QRescale& q, void* out, int64_t out_stride) {
  if (q.real || q.output == QOutput::kF32) return qrescale_real_avx2(rows, n, sums, stride, q, out, out_stride);
  if (q.output != QOutput::kI32 && n == kColumns) {
    const auto with = [&](auto function) { function(rows, sums, stride, q, static_cast<uint8_t*>(out), out_stride); };
    if (q.addend != nullptr) q.float_bias != nullptr ? with(rescale_panel<true, true>) : with(rescale_panel<false, true>);
    else q.float_bias != nullptr ? with(rescale_panel<true, false>) : with(rescale_panel<false, false>);
    return;
  }
  for (int64_t r = 0; r < rows; ++r) rescale_row(n, sums + r * stride, at_block(q, r, 0), static_cast<char*>(out) + r * out_stride);
}

template <bool kSigned>
inline __m256i load_widened(const void* p, int64_t i, __m256i zero) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint8_t*>(p) + i));
  return _mm256_sub_epi16(kSigned ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes), zero);
}

template <bool kSigned>
void depthwise_sum(int64_t channels, int64_t taps, const void* const* x, int32_t zero, const int16_t* weights, int32_t* sums) {
  const __m256i z = _mm256_set1_epi16(static_cast<int16_t>(zero)), nothing = _mm256_setzero_si256();
  const auto sixteen = [&](int64_t c) {
    // Taps two by two: a product of each, added by vpmaddwd.
    __m256i low = nothing, high = nothing;
    for (int64_t t = 0; t < taps; t += 2) {
      const bool second = t + 1 < taps && x[t + 1] != nullptr;
      if (x[t] == nullptr && !second) continue;
      const __m256i x0 = x[t] != nullptr ? load_widened<kSigned>(x[t], c, z) : nothing;
      const __m256i x1 = second ? load_widened<kSigned>(x[t + 1], c, z) : nothing;
      const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + t * channels + c));
      const __m256i w1 = second ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + (t + 1) * channels + c)) : nothing;
      low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(x0, x1), _mm256_unpacklo_epi16(w0, w1)));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(x0, x1), _mm256_unpackhi_epi16(w0, w1)));
    }
    // unpack works within 128-bit halves: low holds channels 0-3 and 8-11, high 4-7 and 12-15.
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + c), _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + c + 8), _mm256_permute2x128_si256(low, high, 0x31));
  };
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) sixteen(c);
  if (c < channels && channels >= 16) {  // the last ones together with some that are done
    sixteen(channels - 16);
    c = channels;
  }
  for (; c < channels; ++c) {
    int32_t sum = 0;
    for (int64_t t = 0; t < taps; ++t) {
      if (x[t] == nullptr) continue;
      const int32_t v = kSigned ? static_cast<const int8_t*>(x[t])[c] : static_cast<const uint8_t*>(x[t])[c];
      sum += (v - zero) * weights[t * channels + c];
    }
    sums[c] = sum;
  }
}

void depthwise(int64_t channels, int64_t taps, const void* const* x, bool is_signed, int32_t zero, const int16_t* weights, int32_t* sums) {
  if (is_signed) depthwise_sum<true>(channels, taps, x, zero, weights, sums);
  else depthwise_sum<false>(channels, taps, x, zero, weights, sums);
}

}  // namespace

void qrow_sums_avx2(int64_t rows, int64_t depth, const uint8_t* x, uint8_t flip, int32_t off, int32_t* row) {
  const __m256i flips = _mm256_set1_epi8(static_cast<char>(flip)), nothing = _mm256_setzero_si256();
  for (int64_t r = 0; r < rows; ++r, x += depth) {
    __m256i sum = nothing;
    int64_t k = 0;
    for (; k + 32 <= depth; k += 32)
      sum = _mm256_add_epi64(sum, _mm256_sad_epu8(_mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + k)), flips), nothing));
    int64_t parts[4];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts), sum);
    int64_t total = parts[0] + parts[1] + parts[2] + parts[3];
    for (; k < depth; ++k) total += x[k] ^ flip;
    row[r] = static_cast<int32_t>(total - off);
  }
}

void qadd_terms_avx2(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const int32_t* row, const int32_t* column, int32_t* out) {
  for (int64_t r = 0; r < rows; ++r, sums += stride, out += n) {
    const __m256i factor = _mm256_set1_epi32(row[r]);
    int64_t c = 0;
    for (; c + 8 <= n; c += 8) {
      const __m256i term = _mm256_mullo_epi32(factor, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(column + c)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c), _mm256_add_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + c)), term));
    }
    for (; c < n; ++c) out[c] = static_cast<int32_t>(static_cast<uint32_t>(sums[c]) + static_cast<uint32_t>(row[r]) * static_cast<uint32_t>(column[c]));
  }
}

const QGemmIsa& avx2_qgemm() {
  static constexpr QGemmIsa isa = {widen_u8, widen_i8, tile, rescale};
  return isa;
}

const QDepthwiseIsa& avx2_qdepthwise() {
  static constexpr QDepthwiseIsa isa = {depthwise};
  return isa;
}

}  // namespace ds::kernels
