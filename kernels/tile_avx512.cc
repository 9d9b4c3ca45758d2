// AVX-512 tiles that sum in 32 bits (how a block is cut: kernels/tile_sweep.h).
#include <immintrin.h>

#include <utility>

#include "kernels/tile_sweep.h"

namespace ds::kernels {
namespace {

constexpr int kUnroll = 4;

// c0, c1 += group * (b0, b1). Assembly, because compilers hoist the broadcasts of all rows and then spill the
// accumulators.
struct F32 {
  static constexpr bool kFinishes = true;
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m512i b0, __m512i b1, __m512i& c0, __m512i& c1) {
    __m512i x;
    asm("vbroadcastss %[group], %[x]\n\t"
        "vfmadd231ps %[b0], %[x], %[c0]\n\t"
        "vfmadd231ps %[b1], %[x], %[c1]"
        : [c0] "+v"(c0), [c1] "+v"(c1), [x] "=&v"(x)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "v"(b0), [b1] "v"(b1));
  }
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m512i b0, __m512i& c0) {
    asm("vfmadd231ps %[group]%{1to16%}, %[b0], %[c0]"
        : [c0] "+v"(c0)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "v"(b0));
  }
};

struct Bf16 {
  static constexpr bool kFinishes = true;
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m512i b0, __m512i b1, __m512i& c0, __m512i& c1) {
    __m512i x;
    asm("vpbroadcastd %[group], %[x]\n\t"
        "vdpbf16ps %[b0], %[x], %[c0]\n\t"
        "vdpbf16ps %[b1], %[x], %[c1]"
        : [c0] "+v"(c0), [c1] "+v"(c1), [x] "=&v"(x)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "v"(b0), [b1] "v"(b1));
  }
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m512i b0, __m512i& c0) {
    asm("vdpbf16ps %[group]%{1to16%}, %[b0], %[c0]"
        : [c0] "+v"(c0)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "v"(b0));
  }
};

// vpdpbusd takes its unsigned operand from a register: no embedded broadcast.
struct U8S8 {
  static constexpr bool kFinishes = false;
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m512i b0, __m512i b1, __m512i& c0, __m512i& c1) {
    __m512i x;
    asm("vpbroadcastd %[group], %[x]\n\t"
        "vpdpbusd %[b0], %[x], %[c0]\n\t"
        "vpdpbusd %[b1], %[x], %[c1]"
        : [c0] "+v"(c0), [c1] "+v"(c1), [x] "=&v"(x)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "v"(b0), [b1] "v"(b1));
  }
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m512i b0, __m512i& c0) {
    __m512i x;
    asm("vpbroadcastd %[group], %[x]\n\t"
        "vpdpbusd %[b0], %[x], %[c0]"
        : [c0] "+v"(c0), [x] "=&v"(x)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "v"(b0));
  }
};

// See TileFinish. row, column: in the block.
template <int kRows, int kPanels>
__attribute__((always_inline)) inline void finish_tile(const TileFinish& f, int64_t row, int64_t column, const __m512i (&sum)[kRows][kPanels]) {
  const __m512 low = _mm512_set1_ps(f.low), high = _mm512_set1_ps(f.high), scale = _mm512_set1_ps(f.scale), shift = _mm512_set1_ps(f.shift);
#pragma GCC unroll 2
  for (int p = 0; p < kPanels; ++p, column += kPanelColumns) {
    const int64_t left = f.columns - column;
    const auto mask = static_cast<__mmask16>(left >= kPanelColumns ? 0xffff : (1u << (left > 0 ? left : 0)) - 1);
    const __m512 bias = f.bias != nullptr ? _mm512_maskz_loadu_ps(mask, f.bias + column) : _mm512_setzero_ps();
    int64_t at = row * f.stride + column;
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r, at += f.stride) {
      __m512 v = _mm512_castsi512_ps(sum[r][p]);
      if (f.bias != nullptr) v = _mm512_add_ps(v, bias);
      if (f.addend != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, f.addend + at));
      if (f.hard_swish) {
        const __m512 gate = _mm512_fmadd_ps(v, _mm512_set1_ps(1.0f / 6), _mm512_set1_ps(0.5f));
        v = _mm512_mul_ps(v, _mm512_min_ps(_mm512_set1_ps(1.0f), _mm512_max_ps(_mm512_setzero_ps(), gate)));
      } else {
        v = _mm512_min_ps(high, _mm512_max_ps(low, v));
      }
      _mm512_mask_storeu_ps(f.y + at, mask, _mm512_fmadd_ps(v, scale, shift));
    }
  }
}

// kRows rows by kPanels (1 or 2) panels. Meanwhile the rows after these are fetched, from the pointers behind theirs, and
// a line of each of the next panels every `period` groups (0: none), so that memory is kept busy and not flooded.
template <typename Product, int kRows, int kPanels>
void tile(const TileTaps& t, const std::byte* const* a, Place place, const std::byte* next, int64_t period) {
  const std::byte* b = place.weights(t);
  int32_t* c = place.sums<int32_t>(t);
  int64_t wait = period;
  __m512i sum[kRows][kPanels];
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p)
      sum[r][p] = t.accumulate ? _mm512_loadu_si512(c + r * t.c_stride + p * kPanelColumns) : _mm512_setzero_si512();
  }
  const int64_t b_stride = t.b_stride;
  for (int64_t tap = 0; tap < t.taps; ++tap, a += t.a_step) {
    const std::byte* row[kRows];
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) row[r] = a[r] + t.a_offset;
    const int64_t bytes = t.groups * kGroupBytes, lines = (bytes + 63) / 64;
    const std::byte* const* soon = a + kRows;
    const std::byte* line = *soon + t.a_offset;
    int64_t left = lines, g = 0;
    const auto fetch = [&](int64_t groups) __attribute__((always_inline)) {
      for (wait -= groups; period > 0 && wait <= 0; wait += period) {
        _mm_prefetch(next, _MM_HINT_T1);
        if constexpr (kPanels == 2) _mm_prefetch(next + b_stride, _MM_HINT_T1);
        next += kPanelRowBytes;
      }
      _mm_prefetch(line, _MM_HINT_T0);
      line += 64;
      if (--left == 0) {
        line = *++soon + t.a_offset;
        left = lines;
      }
    };
    if constexpr (kPanels == 1) {
      // A row's pointer is fetched (they do not all fit the registers) for several groups at once.
      for (; g + kUnroll * kGroupBytes <= bytes; g += kUnroll * kGroupBytes, b += kUnroll * kPanelRowBytes) {
        fetch(kUnroll);
        __m512i weights[kUnroll];
#pragma GCC unroll 4
        for (int u = 0; u < kUnroll; ++u) weights[u] = _mm512_loadu_si512(b + u * kPanelRowBytes);
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) {
          const std::byte* from = row[r] + g;
#pragma GCC unroll 4
          for (int u = 0; u < kUnroll; ++u) Product::row(from + u * kGroupBytes, weights[u], sum[r][0]);
        }
      }
    }
    for (; g < bytes; g += kGroupBytes, b += kPanelRowBytes) {
      const __m512i b0 = _mm512_loadu_si512(b);
      fetch(1);
      if constexpr (kPanels == 2) {
        const __m512i b1 = _mm512_loadu_si512(b + b_stride);
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) Product::row(row[r] + g, b0, b1, sum[r][0], sum[r][1]);
      } else {
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) Product::row(row[r] + g, b0, sum[r][0]);
      }
    }
  }
  if constexpr (Product::kFinishes)
    if (t.finish != nullptr) return finish_tile(*t.finish, place.row, place.panel * kPanelColumns, sum);
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) _mm512_storeu_si512(c + r * t.c_stride + p * kPanelColumns, sum[r][p]);
  }
}

template <typename Product>
struct Tiles {
  template <int kPanels, int... kRows>
  static TileFn of(int64_t rows, std::integer_sequence<int, kRows...>) {
    static constexpr TileFn kTable[] = {tile<Product, kRows + 1, kPanels>...};
    return kTable[rows - 1];
  }
  static TileFn of(int64_t rows, bool pair) {
    constexpr std::make_integer_sequence<int, kMaxRows> kAll;
    return pair ? of<2>(rows, kAll) : of<1>(rows, kAll);
  }
};

// In integers, so that the bits are those of libds/base/half.h, subnormal numbers included.
bool narrow(int64_t n, const float* src, uint16_t* dst) {
  for (int64_t i = 0; i < n; i += 16) {
    const auto mask = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1);
    const __m512i u = _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, src + i));
    const __m512i high = _mm512_srli_epi32(u, 16);
    const __m512i rounded = _mm512_srli_epi32(
        _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), _mm512_and_si512(high, _mm512_set1_epi32(1))), 16);
    const __mmask16 nan = _mm512_cmpgt_epu32_mask(_mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff)), _mm512_set1_epi32(0x7f800000));
    const __m512i result = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
    _mm512_mask_cvtepi32_storeu_epi16(dst + i, mask, result);
  }
  return false;
}

}  // namespace

const TileIsa& avx512_tile_f32() {
  static constexpr TileIsa isa = {"avx512", 1, 1, block<Tiles<F32>>, taps<Tiles<F32>>, nullptr, false, true};
  return isa;
}

const TileIsa& avx512_tile_bf16() {
  static constexpr TileIsa isa = {"avx512_bf16", 1, 1, block<Tiles<Bf16>>, taps<Tiles<Bf16>>, narrow, false, true};
  return isa;
}

const TileIsa& avx512_tile_u8s8() {
  static constexpr TileIsa isa = {"avx512_vnni", 1, 1, block<Tiles<U8S8>>, taps<Tiles<U8S8>>};
  return isa;
}

}  // namespace ds::kernels
