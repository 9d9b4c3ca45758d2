#include "kernels/winograd.h"

#include <algorithm>
#include <cstring>

#include "kernels/blocking.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kPanelsAtOnce = 2, kRowsAtOnce = 14;  // what a tile takes (of AVX2: 1 and 6)
constexpr int64_t kDepthGroups = 256;                   // of one sweep: a pair of panels of it is 32 KiB
constexpr int64_t kLeastTiles = 16, kMostTiles = 42;    // of a block
constexpr int64_t kMostPositions = 36;

// The rule's cycles, of one core with AVX-512 (with AVX2 products take twice as long, and more is gained): products run at two
// vectors of 16 a cycle, weights come from a cache that all cores share, and a vector of a position takes so long to be
// transformed on the way in or out.
constexpr double kVectorsPerCycle = 2, kWeightBytesPerCycle = 8;
constexpr int64_t kInputCycles = 6, kOutputCycles = 4;
// Weights take 16 or 36 numbers instead of 9: not for less of the time than this.
constexpr double kLeastGain = 0.15;
// Nor for so few pixels that weights are most of what a layer holds and reads.
constexpr int64_t kLeastPixels = 128;

// An odd number of lines, so that positions do not meet in few sets of the cache.
int64_t odd_lines(int64_t bytes) { return (ceil_div(bytes, 64) | 1) * 64; }

// How work is shared: threads take blocks of tiles, which follow one another line by line, or columns.
struct Cut {
  int64_t in_tile = 0, positions = 0;
  int64_t down = 0, across = 0, all = 0;      // tiles of an image, and of all
  int64_t tiles = 0, tile_blocks = 0;         // of a block; blocks
  int64_t panels = 0, column_parts = 0;       // of a part; parts
  // Bytes. From tile to tile and from position to position of the transformed input; from position to position of the sums
  // (whose tiles are kWinogradColumns floats apart); where a thread's zeros, transformed input, sums and result are in its
  // scratch (pointers to the rows of the former come first); of all of that.
  int64_t v_tile = 0, v_position = 0, sum_position = 0;
  int64_t zeros_at = 0, v_at = 0, sums_at = 0, y_at = 0, thread_bytes = 0;
  int64_t y_line = 0;  // pixels that follow one another in the result

  int64_t items() const { return tile_blocks * column_parts; }
};

Cut cut(const NhwcConv& s, const WinogradWeights& w, int threads) {
  Cut c;
  c.in_tile = w.out_tile + 2;
  c.positions = w.positions();
  c.down = ceil_div(s.out_height, w.out_tile);
  c.across = ceil_div(s.out_width, w.out_tile);
  c.all = s.batch * c.down * c.across;
  c.v_tile = round_up(s.channels, kPanelColumns) * 4;
  // Rows a large power of two apart share a few sets of the cache.
  if (c.v_tile % 512 == 0) c.v_tile += 64;
  // A block's transformed input and sums stay in L2 while weights pass by.
  const int64_t tile_bytes = c.positions * (c.v_tile + kWinogradColumns * 4);
  const int64_t most = std::clamp(l2_bytes() / 2 / tile_bytes, kLeastTiles, kMostTiles);
  c.tile_blocks = std::max<int64_t>(1, ceil_div(c.all, most));
  c.column_parts = 1;
  if (threads > 1 && c.tile_blocks % threads != 0) {
    // What is larger is read by one thread each: weights, by sharing columns, or activations, by sharing tiles.
    const int64_t x_bytes = s.batch * s.height * s.width * s.channels * 4;
    const bool columns = static_cast<int64_t>(w.data.size()) > x_bytes || c.all < kLeastTiles * threads;
    if (columns) c.column_parts = std::clamp<int64_t>(threads, 1, ceil_div(w.panels, kPanelsAtOnce));
    c.tile_blocks = std::clamp(round_up(c.tile_blocks, ceil_div(threads, c.column_parts)), int64_t{1}, std::max<int64_t>(1, c.all));
  }
  c.tiles = std::max<int64_t>(1, ceil_div(c.all, c.tile_blocks));
  // Where there are many blocks the last may be smaller, so that the products' rows are those that tiles take at once.
  if (c.tile_blocks > 2 * threads) c.tiles = std::min(round_up(c.tiles, kRowsAtOnce), std::max(most, c.tiles));
  c.tile_blocks = ceil_div(c.all, c.tiles);
  c.panels = round_up(ceil_div(w.panels, c.column_parts), kPanelsAtOnce);
  c.column_parts = ceil_div(w.panels, c.panels);
  c.v_position = odd_lines(c.tiles * c.v_tile);
  c.sum_position = odd_lines(c.tiles * kWinogradColumns * 4);
  c.y_line = std::min(c.tiles, c.across) * w.out_tile;
  c.zeros_at = round_up((c.tiles + kTapsBeyond) * static_cast<int64_t>(sizeof(void*)), 64);
  c.v_at = c.zeros_at + round_up(s.channels * 4, 64);
  c.sums_at = c.v_at + c.positions * c.v_position;
  c.y_at = c.sums_at + c.positions * c.sum_position;
  c.thread_bytes = round_up(c.y_at + w.out_tile * c.y_line * kWinogradColumns * 4, 4096);
  return c;
}

// Transforms tiles [first, first + count) of x.
void transform_input(const WinogradTransforms& transforms, const NhwcConv& s, const Cut& c, const float* x, int64_t first, int64_t count,
                     const float* zeros, std::byte* v) {
  const int64_t out_tile = c.in_tile - 2;
  const float* pixels[kMostPositions];
  for (int64_t t = 0; t < count; ++t, v += c.v_tile) {
    const int64_t tile = first + t, n = tile / (c.down * c.across);
    const int64_t top = tile / c.across % c.down * out_tile - s.pad_top, left = tile % c.across * out_tile - s.pad_left;
    const float** to = pixels;
    for (int64_t y = top; y < top + c.in_tile; ++y) {
      const bool inside = y >= 0 && y < s.height;
      const float* line = x + (n * s.height + y) * s.width * s.channels;
      for (int64_t i = left; i < left + c.in_tile; ++i) *to++ = inside && i >= 0 && i < s.width ? line + i * s.channels : zeros;
    }
    transforms.input(s.channels, pixels, reinterpret_cast<float*>(v), c.v_position / 4);
  }
}

// The products of all positions for the pair of panels p. next: the pair's after it, a hint.
void multiply(const TileIsa& isa, const Cut& c, const WinogradWeights& w, int64_t tiles, int64_t p, const std::byte* const* rows,
              const std::byte* next, std::byte* sums) {
  const int64_t step = ceil_div(w.channels, ceil_div(w.channels, kDepthGroups));
  for (int64_t position = 0; position < c.positions; ++position) {
    const std::byte* b = w.pair(p, position);
    TileTaps t;
    t.rows = tiles;
    t.panels = w.together(p);
    t.taps = 1;
    t.a = rows;
    t.a_step = tiles;
    t.b_stride = w.panel_bytes();
    t.c = sums + position * c.sum_position;
    t.c_stride = kWinogradColumns;
    for (int64_t k = 0; k < w.channels; k += step) {
      t.groups = std::min(step, w.channels - k);
      t.a_offset = position * c.v_position + k * kGroupBytes;
      t.b = b + k * kPanelRowBytes;
      t.accumulate = k > 0;
      t.next_b = k + step < w.channels ? t.b + step * kPanelRowBytes : position + 1 < c.positions ? w.pair(p, position + 1) : next;
      isa.taps(t);
    }
  }
}

// Transforms the sums of a block into pixels, run by run of tiles that are neighbours in a line, and hands them on.
void transform_output(const WinogradTransforms& transforms, const NhwcConv& s, const Cut& c, int64_t first, int64_t count, int64_t column,
                      int64_t columns, const std::byte* sums, float* y, const ProductSink& sink) {
  const int64_t out_tile = c.in_tile - 2, line = c.y_line * kWinogradColumns;
  for (int64_t t = 0; t < count;) {
    const int64_t tile = first + t, tx = tile % c.across, run = std::min(count - t, c.across - tx);
    for (int64_t i = 0; i < run; ++i)
      transforms.output(round_up(columns, kPanelColumns), reinterpret_cast<const float*>(sums) + (t + i) * kWinogradColumns, c.sum_position / 4,
                        y + i * out_tile * kWinogradColumns, line);
    const int64_t n = tile / (c.down * c.across), top = tile / c.across % c.down * out_tile, left = tx * out_tile;
    const int64_t lines = std::min(out_tile, s.out_height - top), pixels = std::min(run * out_tile, s.out_width - left);
    for (int64_t i = 0; i < lines; ++i)
      sink.take((n * s.out_height + top + i) * s.out_width + left, pixels, column, columns, y + i * line, kWinogradColumns);
    t += run;
  }
}

}  // namespace

WinogradIsa winograd_isa(int64_t out_tile, Isa isa) {
  return {out_tile, *tile_isa(TileType::kF32, isa), isa >= Isa::kAvx512 ? avx512_winograd(out_tile) : avx2_winograd(out_tile)};
}

int64_t winograd_out_tile(const NhwcConv& s) {
  if (s.kernel_h != 3 || s.kernel_w != 3 || s.stride_h != 1 || s.stride_w != 1 || s.dilation_h != 1 || s.dilation_w != 1 || s.groups != 1) return 0;
  if (s.pixels() < kLeastPixels) return 0;
  const int64_t panels = ceil_div(s.out_channels, kPanelColumns), vectors = ceil_div(s.channels, kPanelColumns);
  // `positions` products of `rows` rows.
  const auto products = [&](int64_t rows, int64_t positions) {
    return static_cast<double>(positions * s.channels * panels) * (static_cast<double>(rows) / kVectorsPerCycle + kPanelRowBytes / kWeightBytesPerCycle);
  };
  int64_t best = 0;
  double least = products(s.pixels(), 9) * (1 - kLeastGain);
  for (const int64_t out_tile : {2, 4}) {
    const int64_t positions = (out_tile + 2) * (out_tile + 2);
    const int64_t tiles = s.batch * ceil_div(s.out_height, out_tile) * ceil_div(s.out_width, out_tile);
    const double cycles = products(tiles, positions) + static_cast<double>(tiles * positions * (vectors * kInputCycles + panels * kOutputCycles));
    if (cycles >= least) continue;
    best = out_tile;
    least = cycles;
  }
  return best;
}

std::string winograd_form(const WinogradIsa& isa) { return "winograd " + std::to_string(isa.out_tile) + " " + isa.tile.name; }

WinogradWeights pack_winograd(const WinogradIsa& isa, const NhwcConv& s, const float* w) {
  WinogradWeights packed;
  packed.out_tile = isa.out_tile;
  packed.channels = s.channels;
  packed.panels = ceil_div(s.out_channels, kPanelColumns);
  const auto size = static_cast<size_t>(packed.panels * packed.positions() * packed.panel_bytes());
  packed.data = w != nullptr ? PackedBytes(size) : PackedBytes::only_size(size);
  if (w == nullptr) return packed;
  parallel_for(packed.panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t even = p / kPanelsAtOnce * kPanelsAtOnce, step = packed.together(even) * packed.panel_bytes() / 4;
      auto* to = reinterpret_cast<float*>(packed.data.data() + even * packed.positions() * packed.panel_bytes() + (p - even) * packed.panel_bytes());
      const int64_t first = p * kPanelColumns, columns = std::min(kPanelColumns, s.out_channels - first);
      double taps[9][kPanelColumns] = {};  // zeros where there is no such channel
      for (int64_t k = 0; k < s.channels; ++k, to += kPanelColumns) {
        for (int64_t m = 0; m < columns; ++m)
          for (int64_t tap = 0; tap < 9; ++tap) taps[tap][m] = w[((first + m) * s.channels + k) * 9 + tap];
        isa.transforms.weights(taps[0], to, step);
      }
    }
  });
  return packed;
}

size_t winograd_workspace(const NhwcConv& s, const WinogradWeights& w, int threads) {
  return static_cast<size_t>(cut(s, w, threads).thread_bytes * std::max(threads, 1));
}

void winograd_conv(const WinogradIsa& isa, const NhwcConv& s, const float* x, const WinogradWeights& w, const ProductSink& sink, int threads,
                   std::byte* workspace) {
  if (s.pixels() == 0 || s.out_channels == 0) return;
  const Cut c = cut(s, w, threads);
  const int64_t items = c.items(), ranges = std::min<int64_t>(std::max(threads, 1), items);
  // One range per thread, numbered, so that each knows its scratch.
  parallel_for(ranges, 1, [&](int64_t first_range, int64_t last_range) {
    for (int64_t range = first_range; range < last_range; ++range) {
      std::byte* scratch = workspace + range * c.thread_bytes;
      auto** rows = reinterpret_cast<const std::byte**>(scratch);
      auto* zeros = reinterpret_cast<float*>(scratch + c.zeros_at);
      std::byte *v = scratch + c.v_at, *sums = scratch + c.sums_at;
      auto* y = reinterpret_cast<float*>(scratch + c.y_at);
      std::memset(zeros, 0, static_cast<size_t>(s.channels * 4));
      for (int64_t r = 0; r < c.tiles + kTapsBeyond; ++r) rows[r] = v + std::min(r, c.tiles - 1) * c.v_tile;
      int64_t held = -1;  // block of tiles that is transformed
      for (int64_t i = items * range / ranges; i < items * (range + 1) / ranges; ++i) {
        const int64_t part = i % c.column_parts, block = i / c.column_parts;
        const int64_t first = block * c.tiles, tiles = std::min(c.tiles, c.all - first);
        if (held != block) transform_input(isa.transforms, s, c, x, first, tiles, zeros, v);
        held = block;
        const int64_t end = std::min(w.panels, (part + 1) * c.panels);
        for (int64_t p = part * c.panels; p < end; p += kPanelsAtOnce) {
          const std::byte* next = p + kPanelsAtOnce < end && w.together(p + kPanelsAtOnce) == 2 ? w.pair(p + kPanelsAtOnce, 0) : nullptr;
          multiply(isa.tile, c, w, tiles, p, rows, next, sums);
          const int64_t column = p * kPanelColumns, columns = std::min(kPanelsAtOnce * kPanelColumns, s.out_channels - column);
          transform_output(isa.transforms, s, c, first, tiles, column, columns, sums, y, sink);
        }
      }
    }
  });
}

}  // namespace ds::kernels
