// AVX2 parts of quant.h. Raw loops only: no library code may be compiled for AVX2 and leak out.
#include <immintrin.h>

#include "kernels/quant.h"
#include "libds/base/parallel.h"

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

inline __m256i larger(__m256i a, __m256i b, bool is_signed) { return is_signed ? _mm256_max_epi8(a, b) : _mm256_max_epu8(a, b); }
inline __m128i larger(__m128i a, __m128i b, bool is_signed) { return is_signed ? _mm_max_epi8(a, b) : _mm_max_epu8(a, b); }

// Taps of one output pixel that lie inside of the image.
struct Taps {
  const uint8_t* x;  // of the first, channel 0
  int64_t rows, columns, row_step, column_step;
};

// Maxima of `kBytes` channels from channel c on.
template <int kBytes>
inline void max_block(const Taps& t, int64_t c, bool is_signed, uint8_t* y) {
  const uint8_t* row = t.x + c;
  if constexpr (kBytes == 32) {
    __m256i m = _mm256_set1_epi8(is_signed ? -128 : 0);
    for (int64_t i = 0; i < t.rows; ++i, row += t.row_step)
      for (int64_t j = 0; j < t.columns; ++j)
        m = larger(m, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + j * t.column_step)), is_signed);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + c), m);
  } else {
    __m128i m = _mm_set1_epi8(is_signed ? -128 : 0);
    for (int64_t i = 0; i < t.rows; ++i, row += t.row_step)
      for (int64_t j = 0; j < t.columns; ++j) {
        uint8_t some[16] = {};
        __builtin_memcpy(some, row + j * t.column_step, kBytes);
        m = larger(m, _mm_loadu_si128(reinterpret_cast<const __m128i*>(some)), is_signed);
      }
    uint8_t some[16];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(some), m);
    __builtin_memcpy(y + c, some, kBytes);
  }
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The first of `n` taps that start at `start` with `step` between them and do not lie before 0; and how many of them are
// below `size`.
inline int64_t first_tap(int64_t start, int64_t step, int64_t n) { return start >= 0 ? 0 : least(n, (-start + step - 1) / step); }
inline int64_t end_tap(int64_t start, int64_t step, int64_t n, int64_t size) { return size > start ? least(n, (size - start + step - 1) / step) : 0; }

}  // namespace

void quant_max_pool_avx2(const QPoolShape& s, bool is_signed, const uint8_t* x, uint8_t* y) {
  const int64_t work = s.out_width * s.channels * s.kernel_h * s.kernel_w;
  parallel_for(s.batch * s.out_height, (1 << 18) / (work + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t n = line / s.out_height, iy = line % s.out_height * s.stride_h - s.pad_top;
      const int64_t top = first_tap(iy, s.dilation_h, s.kernel_h), bottom = end_tap(iy, s.dilation_h, s.kernel_h, s.height);
      for (int64_t ox = 0; ox < s.out_width; ++ox) {
        const int64_t ix = ox * s.stride_w - s.pad_left;
        const int64_t left = first_tap(ix, s.dilation_w, s.kernel_w), right = end_tap(ix, s.dilation_w, s.kernel_w, s.width);
        const bool any = bottom > top && right > left;
        const Taps t = {any ? x + ((n * s.height + iy + top * s.dilation_h) * s.width + ix + left * s.dilation_w) * s.channels : x,
                        any ? bottom - top : 0, any ? right - left : 0, s.dilation_h * s.width * s.channels, s.dilation_w * s.channels};
        uint8_t* to = y + (line * s.out_width + ox) * s.channels;
        int64_t c = 0;
        for (; c + 32 <= s.channels; c += 32) max_block<32>(t, c, is_signed, to);
        for (; c + 8 <= s.channels; c += 8) max_block<8>(t, c, is_signed, to);
        for (; c < s.channels; ++c) max_block<1>(t, c, is_signed, to);
      }
    }
  });
}

void quant_global_average_avx2(int64_t batch, int64_t pixels, int64_t channels, bool is_signed, const uint8_t* x, QParams px, QParams py, uint8_t* y) {
  const float ratio = px.scale / (py.scale * static_cast<float>(pixels));
  const float lo = static_cast<float>((is_signed ? -128 : 0) - py.zero), hi = static_cast<float>((is_signed ? 127 : 255) - py.zero);
  const int64_t blocks = (channels + 7) / 8;
  parallel_for(batch * blocks, (1 << 14) / (pixels + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / blocks, c = i % blocks * 8, count = least(8, channels - c);
      const uint8_t* from = x + n * pixels * channels + c;
      __m256i sum = _mm256_setzero_si256();
      for (int64_t p = 0; p < pixels; ++p, from += channels) {
        __m128i bytes;
        if (count == 8) {
          bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
        } else {
          uint8_t some[16] = {};
          for (int64_t k = 0; k < count; ++k) some[k] = from[k];
          bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(some));
        }
        sum = _mm256_add_epi32(sum, is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
      }
      // pixels * zero fits as the sum itself does.
      const __m256i centered = _mm256_sub_epi32(sum, _mm256_set1_epi32(static_cast<int32_t>(pixels * px.zero)));
      __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(centered), _mm256_set1_ps(ratio));
      f = _mm256_min_ps(_mm256_max_ps(f, _mm256_set1_ps(lo)), _mm256_set1_ps(hi));
      int32_t result[8];
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(result), _mm256_add_epi32(_mm256_cvtps_epi32(f), _mm256_set1_epi32(py.zero)));
      for (int64_t k = 0; k < count; ++k) y[n * channels + c + k] = static_cast<uint8_t>(result[k]);
    }
  });
}

void quant_add_u8_avx2(int64_t n, const uint8_t* a, QParams pa, const uint8_t* b, QParams pb, QParams py, int32_t least, int32_t most, uint8_t* y) {
  add_all<false>(n, a, pa, b, pb, py, least, most, y);
}
void quant_add_i8_avx2(int64_t n, const int8_t* a, QParams pa, const int8_t* b, QParams pb, QParams py, int32_t least, int32_t most, int8_t* y) {
  add_all<true>(n, reinterpret_cast<const uint8_t*>(a), pa, reinterpret_cast<const uint8_t*>(b), pb, py, least, most, reinterpret_cast<uint8_t*>(y));
}

}  // namespace ds::kernels
