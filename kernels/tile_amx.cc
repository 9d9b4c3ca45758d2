// AMX tiles: 32 rows by 2 panels in four accumulators; the other four of the eight tile registers hold two
// tiles of a and two of b. A step of 16 groups loads four tiles for four products, one load per product,
// which is the best eight registers allow (Intel 64 and IA-32 Architectures Optimization Reference Manual,
// chapter on AMX). A product keeps the multiplier busy for 16 cycles, a load from L1 takes the load ports 8.
//
// Loops, outermost first: pairs of panels, pairs of row tiles, depth. So a pair of panels of the depth block
// is read from L2 or memory once and then stays in L1, while a passes by from L2 once per pair of panels.
//
// All tiles are full: 16 rows of 64 bytes. What ldtilecfg describes is therefore one constant, loaded and
// released per call, so that a thread that is switched out between calls has no tile state to be saved.
//
// c goes through the tile registers only, never through vector registers in between: a tile load from stores
// of other widths, or of lines still in the store buffer, would wait for them.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/tile.h"

namespace ds::kernels {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileGroups = 16;
constexpr int64_t kTileRowBytes = kTileGroups * kGroupBytes;     // of a; a row of b or c has as many
constexpr int64_t kTileOfBBytes = kTileGroups * kPanelRowBytes;  // contiguous
constexpr int64_t kL1Bytes = 48 * 1024;                          // of every CPU with AMX so far
static_assert(kTileRowBytes == 64 && kPanelRowBytes == 64);

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// In memory before the program starts: the intrinsic does not tell the compiler that it reads all 64 bytes.
constexpr TileConfig kFullTiles;

// The intrinsics take register numbers as literals, so these are macros underneath and the numbers are
// spelled out: 0..3 are c (row tile * 2 + panel), 4 and 5 a, 6 and 7 b.
struct Bf16 {
  static inline __attribute__((always_inline)) void c00() { _tile_dpbf16ps(0, 4, 6); }
  static inline __attribute__((always_inline)) void c01() { _tile_dpbf16ps(1, 4, 7); }
  static inline __attribute__((always_inline)) void c10() { _tile_dpbf16ps(2, 5, 6); }
  static inline __attribute__((always_inline)) void c11() { _tile_dpbf16ps(3, 5, 7); }
};

struct U8S8 {
  static inline __attribute__((always_inline)) void c00() { _tile_dpbusd(0, 4, 6); }
  static inline __attribute__((always_inline)) void c01() { _tile_dpbusd(1, 4, 7); }
  static inline __attribute__((always_inline)) void c10() { _tile_dpbusd(2, 5, 6); }
  static inline __attribute__((always_inline)) void c11() { _tile_dpbusd(3, 5, 7); }
};

// What to fetch while a tile of b is multiplied: the tile this many bytes on, into L1 or into L2. 0: nothing.
struct Ahead {
  int64_t l1 = 0, l2 = 0;
};

template <_mm_hint kHint>
inline __attribute__((always_inline)) void prefetch_tile_of_b(const std::byte* b) {
  __asm__("" : "+r"(b));  // one register and 16 offsets, where the compiler would keep 16 running addresses
#pragma GCC unroll 16
  for (int64_t line = 0; line < kTileOfBBytes; line += 64) _mm_prefetch(b + line, kHint);
}

inline __attribute__((always_inline)) void prefetch(const std::byte* b, const Ahead& ahead) {
  if (ahead.l1 != 0) prefetch_tile_of_b<_MM_HINT_T0>(b + ahead.l1);
  if (ahead.l2 != 0) prefetch_tile_of_b<_MM_HINT_T1>(b + ahead.l2);
}

// kRows row tiles by kPanels panels over all of the depth. kStream: a will not be in L1 when it is next
// needed, so it need not push out b. Strides in bytes.
template <typename Product, bool kStream, int kRows, int kPanels>
__attribute__((noinline)) void tiles(const TileBlock& t, const std::byte* a, const std::byte* b, std::byte* c,
                                     const Ahead ahead) {
  const int64_t a_stride = t.a_stride, b_stride = t.b_stride, c_stride = t.c_stride * kGroupBytes;
  std::byte* const c1 = c + kTileRows * c_stride;  // second row tile
  if (t.accumulate) {
    _tile_loadd(0, c, c_stride);
    if constexpr (kPanels > 1) _tile_loadd(1, c + kPanelRowBytes, c_stride);
    if constexpr (kRows > 1) _tile_loadd(2, c1, c_stride);
    if constexpr (kRows > 1 && kPanels > 1) _tile_loadd(3, c1 + kPanelRowBytes, c_stride);
  } else {
    _tile_zero(0);
    if constexpr (kPanels > 1) _tile_zero(1);
    if constexpr (kRows > 1) _tile_zero(2);
    if constexpr (kRows > 1 && kPanels > 1) _tile_zero(3);
  }

  // Loads stand between the products that need them, so that the load ports and the multiplier work side by
  // side.
  const std::byte *a1 = a + kTileRows * a_stride, *b1 = b + b_stride;
  for (int64_t step = t.groups / kTileGroups; step > 0; --step) {
    _tile_loadd(6, b, kPanelRowBytes);
    if constexpr (kStream)
      _tile_stream_loadd(4, a, a_stride);
    else
      _tile_loadd(4, a, a_stride);
    Product::c00();
    if constexpr (kRows > 1) {
      if constexpr (kStream)
        _tile_stream_loadd(5, a1, a_stride);
      else
        _tile_loadd(5, a1, a_stride);
      Product::c10();
      a1 += kTileRowBytes;
    }
    prefetch(b, ahead);
    if constexpr (kPanels > 1) {
      _tile_loadd(7, b1, kPanelRowBytes);
      Product::c01();
      if constexpr (kRows > 1) Product::c11();
      prefetch(b1, ahead);
      b1 += kTileOfBBytes;
    }
    a += kTileRowBytes;
    b += kTileOfBBytes;
  }

  _tile_stored(0, c, c_stride);
  if constexpr (kPanels > 1) _tile_stored(1, c + kPanelRowBytes, c_stride);
  if constexpr (kRows > 1) _tile_stored(2, c1, c_stride);
  if constexpr (kRows > 1 && kPanels > 1) _tile_stored(3, c1 + kPanelRowBytes, c_stride);
}

template <typename Product, bool kStream, int kPanels>
void rows_of_panels(const TileBlock& t, int64_t panel) {
  const std::byte* b = t.b + panel * t.b_stride;
  auto* c = static_cast<std::byte*>(t.c) + panel * kPanelRowBytes;
  const int64_t row_tiles = (t.rows + kTileRows - 1) / kTileRows;
  const bool more = panel + kPanels < t.panels;
  for (int64_t r = 0; r < row_tiles; r += 2) {
    const bool first = r == 0, last = r + 2 >= row_tiles;
    Ahead ahead;
    // The first pass brings b into L1, one tile ahead. Where one pass is all, the pair before has brought b
    // into L2 and loads come too far ahead of the products to wait for that; asking for each line twice would
    // only cost.
    if (first && (!last || panel == 0)) ahead.l1 = kTileOfBBytes;
    // The last pass brings the next pair into L2, where it does not push out this one. A lone last panel
    // behind a pair is fetched by the first of the pair; the second asks for what lies behind it, which is
    // harmless.
    if (last && more) ahead.l2 = kPanels * t.b_stride;
    const std::byte* a = t.a + r * kTileRows * t.a_stride;
    std::byte* out = c + r * kTileRows * t.c_stride * kGroupBytes;
    if (r + 1 < row_tiles)
      tiles<Product, kStream, 2, kPanels>(t, a, b, out, ahead);
    else
      tiles<Product, kStream, 1, kPanels>(t, a, b, out, ahead);
  }
}

template <typename Product, bool kStream>
void pairs_of_panels(const TileBlock& t) {
  int64_t panel = 0;
  for (; panel + 2 <= t.panels; panel += 2) rows_of_panels<Product, kStream, 2>(t, panel);
  if (panel < t.panels) rows_of_panels<Product, kStream, 1>(t, panel);
}

template <typename Product>
void block(const TileBlock& t) {
  if (t.rows <= 0 || t.panels <= 0) return;
  // The intrinsics for loads do not say that they read memory: what the caller stored must be there before,
  // should this function ever be inlined.
  __asm__ volatile("" ::: "memory");
  _tile_loadconfig(&kFullTiles);
  // a is used again with every pair of panels. It is streamed when it cannot wait for that in L1.
  const int64_t a_bytes = t.rows * t.groups * kGroupBytes, pair_bytes = 2 * t.groups * kPanelRowBytes;
  if (t.rows > 2 * kTileRows && a_bytes + pair_bytes > kL1Bytes)
    pairs_of_panels<Product, true>(t);
  else
    pairs_of_panels<Product, false>(t);
  _tile_release();
}

}  // namespace

const TileIsa& amx_tile_bf16() {
  static constexpr TileIsa isa = {"amx_bf16", kTileRows, kTileGroups, block<Bf16>};
  return isa;
}

const TileIsa& amx_tile_u8s8() {
  static constexpr TileIsa isa = {"amx_int8", kTileRows, kTileGroups, block<U8S8>};
  return isa;
}

}  // namespace ds::kernels
#endif
