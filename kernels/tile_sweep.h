// A block of rows cut into tiles of AVX-512 registers: up to 14 rows by 2 panels in 28 accumulators, two registers of weights and
// one broadcast group of activations fill the 32 registers. A group costs 14 broadcasts and 2 loads for 28 multiply-adds, so
// the two multiply ports are the bound as long as the panels of a depth block stay in L1.
//
// For tile_avx512*.cc files only: internal linkage, raw loops.
#pragma once

#include "kernels/tile.h"

namespace ds::kernels {
namespace {

constexpr int kMaxRows = 14;

// What a tile takes of a sweep.
struct Place {
  int64_t row, panel;

  const std::byte* weights(const TileTaps& t) const { return t.b + panel * t.b_stride; }
  template <typename T>
  T* sums(const TileTaps& t) const { return static_cast<T*>(t.c) + row * t.c_stride + panel * kPanelColumns; }
};

// One tile: the pointers of its rows, its place; and a line of each of the next panels, from `next` on, to be fetched every
// `period` groups (0: none).
using TileFn = void (*)(const TileTaps&, const std::byte* const* a, Place place, const std::byte* next, int64_t period);

// Tiles::of(rows, pair): the tile of 1 to kMaxRows rows by one panel or two.
// `rows_at(r)` gives the pointers of rows r and up.
template <typename Tiles, typename RowsAt>
void sweep(const TileTaps& t, RowsAt rows_at) {
  if (t.rows <= 0) return;
  // Rows are shared out evenly: 49 rows are 12 + 12 + 12 + 13, not 14 + 14 + 14 + 7.
  const int64_t parts = (t.rows + kMaxRows - 1) / kMaxRows;
  for (int64_t p = 0; p < t.panels; p += 2) {
    const bool pair = p + 1 < t.panels;
    const int64_t lines = t.next_b != nullptr && p + 2 >= t.panels ? t.taps * t.groups : 0;
    for (int64_t i = 0, r = 0; i < parts; ++i) {
      const int64_t rows = (t.rows + i) / parts;  // sums to t.rows over i
      const TileFn fn = Tiles::of(rows, pair);
      // Every tile fetches its share of the lines.
      fn(t, rows_at(r, rows), {r, p}, t.next_b + lines * i / parts * kPanelRowBytes, lines > 0 ? parts : 0);
      r += rows;
    }
  }
}

template <typename Tiles>
void taps(const TileTaps& t) {
  sweep<Tiles>(t, [&](int64_t r, int64_t) { return t.a + r; });
}

template <typename Tiles>
void block(const TileBlock& k) {
  const std::byte* rows_here[kMaxRows + kTapsBeyond] = {};
  const TileTaps t = {k.rows, k.panels, 1, k.groups, rows_here, 0, 0, k.b, k.b_stride, k.accumulate, k.c, k.c_stride, nullptr};
  sweep<Tiles>(t, [&](int64_t r, int64_t rows) -> const std::byte* const* {
    for (int64_t i = 0; i < rows; ++i) rows_here[i] = k.a + (r + i) * k.a_stride;
    return rows_here;
  });
}

}  // namespace
}  // namespace ds::kernels
