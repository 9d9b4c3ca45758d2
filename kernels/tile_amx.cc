// AMX tiles: 32 rows by 2 panels in four accumulators; the other four of the eight tile registers hold two
// tiles of a and two of b. A step of 16 groups loads four tiles for four products, one load per product,
// which is the best eight registers allow (Intel 64 and IA-32 Architectures Optimization Reference Manual,
// chapter on AMX). A product keeps the multiplier busy for 16 cycles and takes 52 until its sum can be added
// to, a load from L1 keeps the load ports busy for 8: so four accumulators are also what it takes to keep the
// multiplier busy. Blocks of up to 16 rows have them as 16 rows by 4 panels.
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

constexpr TileConfig kFullTiles;

// The intrinsics take register numbers as literals, so each product is written out.
// 2 row tiles by 2 panels: c is 0 1 / 2 3, a is 4 / 5, b is 6 7.
// 1 row tile by 4 panels:  c is 0 1 2 3, a is 4, b is 5 6 7 and 5 again.
#define DS_TILE_PRODUCTS(multiply)                                                  \
  static __attribute__((always_inline)) inline void c00() { multiply(0, 4, 6); }    \
  static __attribute__((always_inline)) inline void c01() { multiply(1, 4, 7); }    \
  static __attribute__((always_inline)) inline void c10() { multiply(2, 5, 6); }    \
  static __attribute__((always_inline)) inline void c11() { multiply(3, 5, 7); }    \
  static __attribute__((always_inline)) inline void panel0() { multiply(0, 4, 5); } \
  static __attribute__((always_inline)) inline void panel1() { multiply(1, 4, 6); } \
  static __attribute__((always_inline)) inline void panel2() { multiply(2, 4, 7); } \
  static __attribute__((always_inline)) inline void panel3() { multiply(3, 4, 5); }

struct Bf16 {
  DS_TILE_PRODUCTS(_tile_dpbf16ps)
};
struct U8S8 {
  DS_TILE_PRODUCTS(_tile_dpbusd)
};
#undef DS_TILE_PRODUCTS

// What to fetch while a tile of b is multiplied: the tile so many bytes on, into L1 (0: nothing) or, for the
// first so many panels, into L2.
struct Ahead {
  int64_t l1 = 0, l2 = 0, l2_panels = 0;
};

// kLocality as of __builtin_prefetch: 3 is prefetcht0, 2 prefetcht1.
template <int kLocality>
__attribute__((always_inline)) inline void prefetch_tile_of_b(const std::byte* b) {
  __asm__("" : "+r"(b));  // one register and 16 offsets, where the compiler would keep 16 running addresses
#pragma GCC unroll 16
  for (int64_t line = 0; line < kTileOfBBytes; line += 64) __builtin_prefetch(b + line, 0, kLocality);
}

// b: of panel `panel` of those being multiplied.
__attribute__((always_inline)) inline void prefetch(const std::byte* b, int panel, const Ahead& ahead) {
  if (ahead.l1 != 0) prefetch_tile_of_b<3>(b + ahead.l1);
  if (panel < ahead.l2_panels) prefetch_tile_of_b<2>(b + ahead.l2);
}

// kRows (1 or 2) row tiles by kPanels (1 or 2) panels over all of the depth. kStream: a will not be in L1
// when it is next needed, so it need not push out b.
template <typename Product, bool kStream, int kRows, int kPanels>
__attribute__((noinline)) void tiles(const TileBlock& t, const std::byte* a, const std::byte* b, std::byte* c,
                                     const Ahead ahead) {
  const int64_t a_stride = t.a_stride, c_stride = t.c_stride * kGroupBytes;
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
  const std::byte *a1 = a + kTileRows * a_stride, *b1 = b + t.b_stride;
  for (int64_t step = t.groups / kTileGroups; step > 0; --step) {
    _tile_loadd(6, b, kPanelRowBytes);
    if constexpr (kStream) {
      _tile_stream_loadd(4, a, a_stride);
    } else {
      _tile_loadd(4, a, a_stride);
    }
    Product::c00();
    if constexpr (kRows > 1) {
      if constexpr (kStream) {
        _tile_stream_loadd(5, a1, a_stride);
      } else {
        _tile_loadd(5, a1, a_stride);
      }
      Product::c10();
      a1 += kTileRowBytes;
    }
    prefetch(b, 0, ahead);
    if constexpr (kPanels > 1) {
      _tile_loadd(7, b1, kPanelRowBytes);
      Product::c01();
      if constexpr (kRows > 1) Product::c11();
      prefetch(b1, 1, ahead);
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

// One row tile by 4 panels.
template <typename Product>
__attribute__((noinline)) void tiles_of_4_panels(const TileBlock& t, const std::byte* a, const std::byte* b,
                                                 std::byte* c, const Ahead ahead) {
  const int64_t a_stride = t.a_stride, b_stride = t.b_stride, c_stride = t.c_stride * kGroupBytes;
  if (t.accumulate) {
    _tile_loadd(0, c, c_stride);
    _tile_loadd(1, c + kPanelRowBytes, c_stride);
    _tile_loadd(2, c + 2 * kPanelRowBytes, c_stride);
    _tile_loadd(3, c + 3 * kPanelRowBytes, c_stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const std::byte *b1 = b + b_stride, *b2 = b1 + b_stride, *b3 = b2 + b_stride;
  for (int64_t step = t.groups / kTileGroups; step > 0; --step) {
    _tile_loadd(4, a, a_stride);
    _tile_loadd(5, b, kPanelRowBytes);
    Product::panel0();
    prefetch(b, 0, ahead);
    _tile_loadd(6, b1, kPanelRowBytes);
    Product::panel1();
    prefetch(b1, 1, ahead);
    _tile_loadd(7, b2, kPanelRowBytes);
    Product::panel2();
    prefetch(b2, 2, ahead);
    _tile_loadd(5, b3, kPanelRowBytes);
    Product::panel3();
    prefetch(b3, 3, ahead);
    a += kTileRowBytes;
    b += kTileOfBBytes;
    b1 += kTileOfBBytes;
    b2 += kTileOfBBytes;
    b3 += kTileOfBBytes;
  }
  _tile_stored(0, c, c_stride);
  _tile_stored(1, c + kPanelRowBytes, c_stride);
  _tile_stored(2, c + 2 * kPanelRowBytes, c_stride);
  _tile_stored(3, c + 3 * kPanelRowBytes, c_stride);
}

// All rows by kPanels panels from `panel` on; kPanels is 4 only where there is one row tile.
template <typename Product, bool kStream, int kPanels>
void rows_of_panels(const TileBlock& t, int64_t panel) {
  const std::byte* b = t.b + panel * t.b_stride;
  auto* c = static_cast<std::byte*>(t.c) + panel * kPanelRowBytes;
  const int64_t row_tiles = (t.rows + kTileRows - 1) / kTileRows;
  for (int64_t r = 0; r < row_tiles; r += 2) {
    const bool first = r == 0, last = r + 2 >= row_tiles;
    Ahead ahead;
    // The first pass brings b into L1, one tile ahead. Where one pass is all, the panels before have brought
    // b into L2 and loads come too far ahead of the products to wait for that; asking for each line twice
    // would only cost.
    if (first && (!last || panel == 0)) ahead.l1 = kTileOfBBytes;
    // The last pass brings the next panels into L2, where they do not push out these.
    if (last) {
      ahead.l2 = kPanels * t.b_stride;
      ahead.l2_panels = t.panels - panel - kPanels;
    }
    const std::byte* a = t.a + r * kTileRows * t.a_stride;
    std::byte* out = c + r * kTileRows * t.c_stride * kGroupBytes;
    if constexpr (kPanels == 4) {
      tiles_of_4_panels<Product>(t, a, b, out, ahead);
    } else if (r + 1 < row_tiles) {
      tiles<Product, kStream, 2, kPanels>(t, a, b, out, ahead);
    } else {
      tiles<Product, kStream, 1, kPanels>(t, a, b, out, ahead);
    }
  }
}

template <typename Product, bool kStream>
void all_panels(const TileBlock& t) {
  int64_t panel = 0;
  if (t.rows <= kTileRows)
    for (; panel + 4 <= t.panels; panel += 4) rows_of_panels<Product, kStream, 4>(t, panel);
  for (; panel + 2 <= t.panels; panel += 2) rows_of_panels<Product, kStream, 2>(t, panel);
  if (panel < t.panels) rows_of_panels<Product, kStream, 1>(t, panel);
}

template <typename Product>
void block(const TileBlock& t) {
  if (t.rows <= 0 || t.panels <= 0) return;
  // gcc's intrinsics say neither that ldtilecfg reads all of its 64 bytes nor that loads of tiles read memory
  // at all: this does, also for what the caller stored, should it ever be compiled together with us.
  __asm__ volatile("ldtilecfg %0" ::"m"(kFullTiles) : "memory");
  // a is used again with every pair of panels. It is streamed when it cannot wait for that in L1.
  const int64_t a_bytes = t.rows * t.groups * kGroupBytes, pair_bytes = 2 * t.groups * kPanelRowBytes;
  if (t.rows > 2 * kTileRows && a_bytes + pair_bytes > kL1Bytes) {
    all_panels<Product, true>(t);
  } else {
    all_panels<Product, false>(t);
  }
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
