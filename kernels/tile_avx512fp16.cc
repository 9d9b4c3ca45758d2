// AVX512-FP16 tiles: 32 products and sums per instruction, twice those in f32, in 11 bits of mantissa and a range that ends at
// 65504. A lane multiplies a group's two numbers by those of its column, so that a column's sum lies in two neighbours.
//
// Sums are short: after kStretch groups each column's two are added, widened and go on in f32. The error of a sum grows with
// the root of its length: 1.1e-3 of the result for stretches of 64, 8e-4 for 32, which cost 12 % more time (1.7e-3 is bf16's
// for operands rounded to it).
//
// Range: scale_columns() makes the magnitudes of a column's weights in any stretch sum to less than 1, so that sums stay
// within the activations' range, which is that of f16. Powers of two are exact, and products that become small keep 2^-25
// absolutely: activations from 65504 down to 1e-2 lose nothing, those of 1e-3 a bit.
#include <immintrin.h>

#include <utility>

#include "kernels/tile_sweep.h"

namespace ds::kernels {
namespace {

constexpr int64_t kStretch = 64;  // groups that are summed in f16

// c0, c1 += group * (b0, b1), in f16. Assembly, because compilers hoist the broadcasts of all rows and then spill the
// accumulators.
__attribute__((always_inline)) inline void multiply(const std::byte* group, __m512i b0, __m512i b1, __m512i& c0, __m512i& c1) {
  __m512i x;
  asm("vpbroadcastd %[group], %[x]\n\t"
      "vfmadd231ph %[b0], %[x], %[c0]\n\t"
      "vfmadd231ph %[b1], %[x], %[c1]"
      : [c0] "+v"(c0), [c1] "+v"(c1), [x] "=&v"(x)
      : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "v"(b0), [b1] "v"(b1));
}
__attribute__((always_inline)) inline void multiply(const std::byte* group, __m512i b0, __m512i& c0) {
  __m512i x;
  asm("vpbroadcastd %[group], %[x]\n\t"
      "vfmadd231ph %[b0], %[x], %[c0]"
      : [c0] "+v"(c0), [x] "=&v"(x)
      : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "v"(b0));
}

// The sums of neighbours, in f32. Assembly, lest compilers copy all sums to memory first.
__attribute__((always_inline)) inline __m512 widened(__m512i sum) {
  __m512i both;
  __m512 wide;
  asm("vprold $16, %[sum], %[both]\n\t"
      "vaddph %[sum], %[both], %[both]\n\t"
      "vpmovdw %[both], %t[both]\n\t"
      "vcvtph2psx %t[both], %[wide]"
      : [both] "=&v"(both), [wide] "=v"(wide)
      : [sum] "v"(sum));
  return wide;
}

// kRows rows by kPanels (1 or 2) panels; fetches as the tiles of tile_avx512.cc do.
template <int kRows, int kPanels>
void tile(const TileTaps& t, const std::byte* const* a, Place place, const std::byte* next, int64_t period) {
  const std::byte* b = place.weights(t);
  auto* c = place.sums<float>(t);
  const int64_t b_stride = t.b_stride, c_stride = t.c_stride, bytes = t.groups * kGroupBytes, lines = (bytes + 63) / 64;
  // Stretches of about the same length: 36 groups are 18 + 18, not 32 + 4. Without depth there is one, of nothing.
  const int64_t all = t.taps * bytes, stretches = all > 0 ? (all / kGroupBytes + kStretch - 1) / kStretch : 1;
  int64_t wait = period, done = 0, g = 0, left = lines;
  const std::byte* const* soon = a + kRows;
  const std::byte* line = nullptr;
  for (int64_t stretch = 1; stretch <= stretches; ++stretch) {
    __m512i sum[kRows][kPanels];
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) sum[r][p] = _mm512_setzero_si512();
    }
    const int64_t until = all / kGroupBytes * stretch / stretches * kGroupBytes;
    while (done < until) {  // the rest of a tap, or as much of it as the stretch takes
      if (g == 0) {
        line = *soon + t.a_offset;
        left = lines;
      }
      const std::byte* row[kRows];
#pragma GCC unroll 14
      for (int r = 0; r < kRows; ++r) row[r] = a[r] + t.a_offset;
      const int64_t end = bytes - g < until - done ? bytes : g + until - done;
      done += end - g;
      for (; g < end; g += kGroupBytes, b += kPanelRowBytes) {
        const __m512i b0 = _mm512_loadu_si512(b);
        if (--wait == 0) {
          _mm_prefetch(next, _MM_HINT_T1);
          if constexpr (kPanels == 2) _mm_prefetch(next + b_stride, _MM_HINT_T1);
          next += kPanelRowBytes;
          wait = period;
        }
        _mm_prefetch(line, _MM_HINT_T0);
        line += 64;
        if (--left == 0) {
          line = *++soon + t.a_offset;
          left = lines;
        }
        if constexpr (kPanels == 2) {
          const __m512i b1 = _mm512_loadu_si512(b + b_stride);
#pragma GCC unroll 14
          for (int r = 0; r < kRows; ++r) multiply(row[r] + g, b0, b1, sum[r][0], sum[r][1]);
        } else {
#pragma GCC unroll 14
          for (int r = 0; r < kRows; ++r) multiply(row[r] + g, b0, sum[r][0]);
        }
      }
      if (g == bytes) {
        g = 0;
        a += t.a_step;
        soon = a + kRows;
      }
    }
    const __mmask16 accumulate = t.accumulate || stretch > 1 ? 0xffff : 0;
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
        float* at = c + r * c_stride + p * kPanelColumns;
        _mm512_storeu_ps(at, _mm512_add_ps(widened(sum[r][p]), _mm512_maskz_loadu_ps(accumulate, at)));
      }
    }
  }
}

struct Tiles {
  template <int kPanels, int... kRows>
  static TileFn of(int64_t rows, std::integer_sequence<int, kRows...>) {
    static constexpr TileFn kTable[] = {tile<kRows + 1, kPanels>...};
    return kTable[rows - 1];
  }
  static TileFn of(int64_t rows, bool pair) {
    constexpr std::make_integer_sequence<int, kMaxRows> kAll;
    return pair ? of<2>(rows, kAll) : of<1>(rows, kAll);
  }
};

bool narrow(int64_t n, const float* src, uint16_t* dst) {
  constexpr float kLargest = 65504;
  const __m512 low = _mm512_set1_ps(-kLargest), high = _mm512_set1_ps(kLargest);
  unsigned beyond = 0;
  for (int64_t i = 0; i < n; i += 16) {
    const auto mask = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1);
    const __m512 given = _mm512_maskz_loadu_ps(mask, src + i);
    const __m512 x = _mm512_min_ps(high, _mm512_max_ps(low, given));  // NaN passes
    beyond |= _mm512_cmp_ps_mask(x, given, _CMP_NEQ_OQ);
    _mm256_mask_storeu_epi16(dst + i, mask, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  return beyond != 0;
}

__attribute__((always_inline)) inline __m512 half_of(__m512i both, bool high) {
  return _mm512_cvtph_ps(high ? _mm512_extracti64x4_epi64(both, 1) : _mm512_castsi512_si256(both));
}

void scale_columns(std::byte* panel, int64_t groups, float* undo) {
  // Sums of magnitudes over any kStretch groups, a column's in two neighbours. What leaves a sum is taken off again; the error of
  // that is 2^-24 of the largest.
  __m512 most[2] = {}, sum[2] = {};
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  for (int64_t g = 0; g < groups; ++g) {
    const __m512i w = _mm512_and_si512(_mm512_loadu_si512(panel + g * kPanelRowBytes), magnitude);
    const __m512i gone = g < kStretch ? _mm512_setzero_si512() : _mm512_and_si512(_mm512_loadu_si512(panel + (g - kStretch) * kPanelRowBytes), magnitude);
    for (int h = 0; h < 2; ++h) {
      sum[h] = _mm512_add_ps(sum[h], _mm512_sub_ps(half_of(w, h == 1), half_of(gone, h == 1)));
      const __m512 neighbour = _mm512_castsi512_ps(_mm512_ror_epi64(_mm512_castps_si512(sum[h]), 32));
      most[h] = _mm512_max_ps(most[h], _mm512_add_ps(sum[h], neighbour));
    }
  }
  alignas(64) float sums[2 * kPanelColumns], factors[2 * kPanelColumns];
  for (int h = 0; h < 2; ++h) _mm512_store_ps(sums + 16 * h, most[h]);
  for (int64_t column = 0; column < kPanelColumns; ++column) {
    // Rounding adds at most 2^-11 of itself to each sum of a stretch and to the last, of both neighbours: 1.02 in all.
    const float bound = sums[2 * column] * 1.02f;
    // 2^-(e + 1) for a bound in [2^e, 2^(e + 1)); columns of zeros, infinity and NaN stay.
    const int exponent = static_cast<int>(__builtin_bit_cast(uint32_t, bound) >> 23) - 127;
    const int up = exponent > -60 && exponent < 60 ? -(exponent + 1) : 0;
    factors[2 * column] = factors[2 * column + 1] = __builtin_bit_cast(float, static_cast<uint32_t>(127 + up) << 23);
    undo[column] = __builtin_bit_cast(float, static_cast<uint32_t>(127 - up) << 23);
  }
  for (int64_t g = 0; g < groups; ++g) {
    std::byte* at = panel + g * kPanelRowBytes;
    const __m512i w = _mm512_loadu_si512(at);
    __m256i scaled[2];
    for (int h = 0; h < 2; ++h)
      scaled[h] = _mm512_cvtps_ph(_mm512_mul_ps(half_of(w, h == 1), _mm512_load_ps(factors + 16 * h)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm512_storeu_si512(at, _mm512_inserti64x4(_mm512_castsi256_si512(scaled[0]), scaled[1], 1));
  }
}

}  // namespace

const TileIsa& avx512_tile_f16() {
  static constexpr TileIsa isa = {"avx512_fp16", 1, 1, block<Tiles>, taps<Tiles>, narrow, false, false, scale_columns};
  return isa;
}

}  // namespace ds::kernels
