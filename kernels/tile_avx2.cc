// AVX2 tiles: up to 6 rows by 1 panel in 12 accumulators of 8 columns, two registers of weights, one broadcast group
// and one temporary: all 16 registers. Two panels are taken one after the other. Of half a panel 12 rows fit.
//
// 8 bits: vpmaddubsw adds pairs of products in 16 bits and saturates, vpmaddwd adds the pairs: exact for weights whose
// neighbours in depth keep 255 (|w0| + |w1|) within 16 bits (TileIsa::saturates). CPUs with AVX-VNNI have vpdpbusd, which
// does both in one step and never saturates.
#include <immintrin.h>

#include <utility>

#include "kernels/tile.h"

namespace ds::kernels {
namespace {

constexpr int kMaxRows = 6, kMaxHalfRows = 12;
constexpr int64_t kUnroll = 4, kLinesAhead = 2;  // groups; lines of the next weights fetched in their time

// c0, c1 += group * (b0, b1). Assembly, because compilers hoist the broadcasts of all rows and then spill.
struct F32 {
  static constexpr bool kFinishes = true;
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m256i b0, __m256i b1, __m256i& c0, __m256i& c1) {
    __m256i x;
    asm("vbroadcastss %[group], %[x]\n\t"
        "vfmadd231ps %[b0], %[x], %[c0]\n\t"
        "vfmadd231ps %[b1], %[x], %[c1]"
        : [c0] "+x"(c0), [c1] "+x"(c1), [x] "=&x"(x)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "x"(b0), [b1] "x"(b1));
  }
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m256i b0, __m256i& c0) {
    __m256i x;
    asm("vbroadcastss %[group], %[x]\n\t"
        "vfmadd231ps %[b0], %[x], %[c0]"
        : [c0] "+x"(c0), [x] "=&x"(x)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "x"(b0));
  }
};

struct Saturating {
  static constexpr bool kFinishes = false;
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m256i b0, __m256i b1, __m256i& c0, __m256i& c1) {
    __m256i x, product;
    asm("vpbroadcastd %[group], %[x]\n\t"
        "vpmaddubsw %[b0], %[x], %[product]\n\t"
        "vpmaddubsw %[b1], %[x], %[x]\n\t"
        "vpmaddwd %[ones], %[product], %[product]\n\t"
        "vpmaddwd %[ones], %[x], %[x]\n\t"
        "vpaddd %[product], %[c0], %[c0]\n\t"
        "vpaddd %[x], %[c1], %[c1]"
        : [c0] "+x"(c0), [c1] "+x"(c1), [x] "=&x"(x), [product] "=&x"(product)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "x"(b0), [b1] "x"(b1), [ones] "m"(kOnes));
  }
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m256i b0, __m256i& c0) {
    __m256i x;
    asm("vpbroadcastd %[group], %[x]\n\t"
        "vpmaddubsw %[b0], %[x], %[x]\n\t"
        "vpmaddwd %[ones], %[x], %[x]\n\t"
        "vpaddd %[x], %[c0], %[c0]"
        : [c0] "+x"(c0), [x] "=&x"(x)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "x"(b0), [ones] "m"(kOnes));
  }
  alignas(32) static constexpr int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
};

struct Vnni {
  static constexpr bool kFinishes = false;
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m256i b0, __m256i b1, __m256i& c0, __m256i& c1) {
    __m256i x;
    asm("vpbroadcastd %[group], %[x]\n\t"
        "%{vex%} vpdpbusd %[b0], %[x], %[c0]\n\t"
        "%{vex%} vpdpbusd %[b1], %[x], %[c1]"
        : [c0] "+x"(c0), [c1] "+x"(c1), [x] "=&x"(x)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "x"(b0), [b1] "x"(b1));
  }
  static __attribute__((always_inline)) inline void row(const std::byte* group, __m256i b0, __m256i& c0) {
    __m256i x;
    asm("vpbroadcastd %[group], %[x]\n\t"
        "%{vex%} vpdpbusd %[b0], %[x], %[c0]"
        : [c0] "+x"(c0), [x] "=&x"(x)
        : [group] "m"(*reinterpret_cast<const int32_t(*)[1]>(group)), [b0] "x"(b0));
  }
};

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

// One group of all rows; kHalves: of the panel's columns.
template <typename Product, int kRows, int kHalves>
__attribute__((always_inline)) inline void multiply(const std::byte* const (&row)[kRows], int64_t g, const std::byte* b, __m256i (&sum)[kRows][kHalves]) {
  const __m256i b0 = load(b);
  if constexpr (kHalves == 2) {
    const __m256i b1 = load(b + kPanelRowBytes / 2);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) Product::row(row[r] + g, b0, b1, sum[r][0], sum[r][1]);
  } else {
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) Product::row(row[r] + g, b0, sum[r][0]);
  }
}

// See TileFinish. row, column: in the block.
template <int kRows, int kHalves>
__attribute__((always_inline)) inline void finish_tile(const TileFinish& f, int64_t row, int64_t column, const __m256i (&sum)[kRows][kHalves]) {
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h, column += 8) {
    const int64_t left = f.columns - column;
    if (left <= 0) return;
    const __m256i lanes = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const bool whole = left >= 8;
    int64_t at = row * f.stride + column;
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r, at += f.stride) {
      __m256 v = _mm256_castsi256_ps(sum[r][h]);
      if (f.bias != nullptr) v = _mm256_add_ps(v, _mm256_maskload_ps(f.bias + column, lanes));
      if (f.addend != nullptr) v = _mm256_add_ps(v, whole ? _mm256_loadu_ps(f.addend + at) : _mm256_maskload_ps(f.addend + at, lanes));
      if (f.hard_swish) {
        const __m256 gate = _mm256_fmadd_ps(v, _mm256_set1_ps(1.0f / 6), _mm256_set1_ps(0.5f));
        v = _mm256_mul_ps(v, _mm256_min_ps(_mm256_set1_ps(1.0f), _mm256_max_ps(_mm256_setzero_ps(), gate)));
      } else {
        v = _mm256_min_ps(_mm256_broadcast_ss(&f.high), _mm256_max_ps(_mm256_broadcast_ss(&f.low), v));
      }
      v = _mm256_fmadd_ps(v, _mm256_broadcast_ss(&f.scale), _mm256_broadcast_ss(&f.shift));
      if (whole) _mm256_storeu_ps(f.y + at, v);
      else _mm256_maskstore_ps(f.y + at, lanes, v);
    }
  }
}

// What a tile takes of a sweep.
struct Place {
  int64_t row, panel;
};

// Meanwhile the rows after these are fetched, from the pointers behind theirs, and two lines of `next` every `period`
// rounds of four groups (0: none), so that memory is kept busy and not flooded.
template <typename Product, int kRows, int kHalves>
void tile(const TileTaps& t, const std::byte* const* a, Place place, const std::byte* next, int64_t period) {
  const std::byte* b = t.b + place.panel * t.b_stride;
  int32_t* c = static_cast<int32_t*>(t.c) + place.row * t.c_stride + place.panel * kPanelColumns;
  int64_t wait = period;
  __m256i sum[kRows][kHalves];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) sum[r][h] = t.accumulate ? load(c + r * t.c_stride + 8 * h) : _mm256_setzero_si256();
  }
  for (int64_t tap = 0; tap < t.taps; ++tap, a += t.a_step) {
    const std::byte* row[kRows];
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) row[r] = a[r] + t.a_offset;
    const int64_t bytes = t.groups * kGroupBytes, lines = (bytes + 63) / 64;
    const std::byte* const* soon = a + kRows;
    const std::byte* line = *soon + t.a_offset;
    int64_t g = 0, left = lines;
    for (; g + kUnroll * kGroupBytes <= bytes; g += kUnroll * kGroupBytes, b += kUnroll * kPanelRowBytes) {
      _mm_prefetch(line, _MM_HINT_T0);
      line += 64;
      if (--left == 0) {
        line = *++soon + t.a_offset;
        left = lines;
      }
      if (--wait == 0) {
        _mm_prefetch(next, _MM_HINT_T1);
        _mm_prefetch(next + 64, _MM_HINT_T1);
        next += kLinesAhead * 64;
        wait = period;
      }
#pragma GCC unroll 4
      for (int64_t u = 0; u < kUnroll; ++u) multiply<Product>(row, g + u * kGroupBytes, b + u * kPanelRowBytes, sum);
    }
    for (; g < bytes; g += kGroupBytes, b += kPanelRowBytes) multiply<Product>(row, g, b, sum);
  }
  if constexpr (Product::kFinishes)
    if (t.finish != nullptr) return finish_tile(*t.finish, place.row, place.panel * kPanelColumns, sum);
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) store(c + r * t.c_stride + 8 * h, sum[r][h]);
  }
}

using TileFn = void (*)(const TileTaps&, const std::byte* const*, Place, const std::byte*, int64_t);

template <typename Product, int kHalves, int... kRows>
TileFn tile_of(int64_t rows, std::integer_sequence<int, kRows...>) {
  static constexpr TileFn kTable[] = {tile<Product, kRows + 1, kHalves>...};
  return kTable[rows - 1];
}

// One panel, kMax rows at most at a time, shared out evenly. `rows_at(r, n)` gives the pointers of rows r to r + n.
template <typename Product, int kHalves, int kMax, typename RowsAt>
void sweep_panel(const TileTaps& t, int64_t p, RowsAt rows_at) {
  const int64_t parts = (t.rows + kMax - 1) / kMax;
  // Every tile fetches its share of the next panel.
  const std::byte* next = t.next_b != nullptr ? t.next_b + p * t.b_stride : nullptr;
  const int64_t lines = next != nullptr ? t.taps * t.groups : 0;
  const int64_t rounds = parts * kLinesAhead / kUnroll, period = lines == 0 ? 0 : rounds > 1 ? rounds : 1;
  for (int64_t i = 0, r = 0; i < parts; ++i) {
    const int64_t rows = (t.rows + i) / parts;  // sums to t.rows over i
    constexpr std::make_integer_sequence<int, kMax> kAll;
    const TileFn fn = tile_of<Product, kHalves>(rows, kAll);
    fn(t, rows_at(r, rows), {r, p}, next + lines * i / parts * kPanelRowBytes, period);
    r += rows;
  }
}

template <typename Product, typename RowsAt>
void sweep(const TileTaps& t, RowsAt rows_at) {
  if (t.rows <= 0) return;
  for (int64_t p = 0; p < t.panels; ++p)
    t.half && p + 1 == t.panels ? sweep_panel<Product, 1, kMaxHalfRows>(t, p, rows_at) : sweep_panel<Product, 2, kMaxRows>(t, p, rows_at);
}

template <typename Product>
void taps(const TileTaps& t) {
  sweep<Product>(t, [&](int64_t r, int64_t) { return t.a + r; });
}

template <typename Product>
void block(const TileBlock& k) {
  const std::byte* rows_here[kMaxHalfRows + kTapsBeyond] = {};
  const TileTaps t = {k.rows, k.panels, 1, k.groups, rows_here, 0, 0, k.b, k.b_stride, k.accumulate, k.c, k.c_stride, nullptr};
  sweep<Product>(t, [&](int64_t r, int64_t rows) -> const std::byte* const* {
    for (int64_t i = 0; i < rows; ++i) rows_here[i] = k.a + (r + i) * k.a_stride;
    return rows_here;
  });
}

}  // namespace

const TileIsa& avx2_tile_f32() {
  static constexpr TileIsa isa = {"avx2", 1, 1, block<F32>, taps<F32>, nullptr, false, true};
  return isa;
}

const TileIsa& avx2_tile_u8s8() {
  static constexpr TileIsa isa = {"avx2", 1, 1, block<Saturating>, taps<Saturating>, nullptr, true};
  return isa;
}

const TileIsa& avx_vnni_tile_u8s8() {
  static constexpr TileIsa isa = {"avx_vnni", 1, 1, block<Vnni>, taps<Vnni>};
  return isa;
}

}  // namespace ds::kernels
