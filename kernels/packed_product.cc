#include "kernels/packed_product.h"

#include <algorithm>
#include <cstring>

#include "kernels/blocking.h"
#include "libds/base/half.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kPanelsAtOnce = 2;  // what a tile takes
constexpr int64_t kSumColumns = kPanelsAtOnce * kPanelColumns;
constexpr int64_t kDepthGroups = 256;                // of one sweep: a pair of panels of it is 32 KiB
constexpr int64_t kLeastRows = 32, kMostRows = 256;  // of a block
constexpr int64_t kPointerBytes = sizeof(void*);
// Multiply-adds of groups worth a thread of its own: a microsecond or two, which is what waking one costs.
constexpr int64_t kLeastThreadWork = int64_t{1} << 17;

int64_t element_bytes(ActivationType type) {
  return type == ActivationType::kF32 ? 4 : type == ActivationType::kBf16 || type == ActivationType::kF16 ? 2 : 1;
}

// --- the left operand ------------------------------------------------------------------------------

// Elements of x in the form of the tiles.
class Loader {
 public:
  Loader(const TileIsa& isa, TileType tile, ActivationType given, bool* beyond = nullptr)
      : given_bytes_(element_bytes(given)), tile_bytes_(tile_element_bytes(tile)), narrow_(isa.narrow), beyond_(beyond) {
    if (tile == TileType::kU8S8 && given == ActivationType::kS8) how_ = How::kFlipSign;
    if (given == ActivationType::kF32 && tile != TileType::kF32) how_ = tile == TileType::kF16 ? How::kNarrowF16 : How::kNarrow;
  }
  bool copies() const { return how_ == How::kCopy; }
  int64_t given_bytes() const { return given_bytes_; }
  int64_t tile_bytes() const { return tile_bytes_; }

  void load(int64_t n, const std::byte* src, std::byte* dst) const {
    if (how_ == How::kCopy) {
      std::memcpy(dst, src, static_cast<size_t>(n * tile_bytes_));
    } else if (how_ == How::kFlipSign) {
      for (int64_t i = 0; i < n; ++i) dst[i] = src[i] ^ std::byte{0x80};
    } else if (narrow_ != nullptr) {
      const bool beyond = narrow_(n, reinterpret_cast<const float*>(src), reinterpret_cast<uint16_t*>(dst));
      if (beyond && beyond_ != nullptr) __atomic_store_n(beyond_, true, __ATOMIC_RELAXED);
    } else if (how_ == How::kNarrowF16) {
      for (int64_t i = 0; i < n; ++i) reinterpret_cast<uint16_t*>(dst)[i] = saturated_f16(reinterpret_cast<const float*>(src)[i]).bits;
    } else {
      for (int64_t i = 0; i < n; ++i) reinterpret_cast<uint16_t*>(dst)[i] = bf16(reinterpret_cast<const float*>(src)[i]).bits;
    }
  }

 private:
  enum class How { kCopy, kFlipSign, kNarrow, kNarrowF16 };
  How how_ = How::kCopy;
  int64_t given_bytes_, tile_bytes_;
  bool (*narrow_)(int64_t n, const float* src, uint16_t* dst);
  bool* beyond_;
};

// How rows of the left operand reach the tiles.
struct Rows {
  bool gathered = false;  // copied one by one; else found by pointers, where they lie or in the staged copy
  bool staged = false;    // x is copied once, in the form of the tiles, image rows padded to `width`
  int64_t width = 0;      // pixels of an image row where pointers look
  int64_t left = 0;       // of them before the first of x
};

Rows rows_of(const Loader& loader, const NhwcConv& s, const PackedWeights& w) {
  Rows r;
  r.width = s.width;
  r.gathered = w.piece == Piece::kAll;
  if (r.gathered) return r;
  const int64_t line = s.channels * loader.tile_bytes();
  // Rows a multiple of 4 KiB apart share a few sets of the cache: copies, further apart, do not.
  if (s.stride_w * line % 4096 == 0) r.gathered = true;
  r.staged = !loader.copies();
  if (w.piece == Piece::kKernelRow) {
    r.staged = true;
    r.left = s.pad_left;
    r.width = std::max((s.out_width - 1) * s.stride_w + s.kernel_w, s.pad_left + s.width);
  }
  if (r.gathered) r.staged = false;
  return r;
}

// Copies x with image rows padded.
void stage(const NhwcConv& s, const Loader& loader, const Rows& r, const std::byte* x, int pad, std::byte* to) {
  const int64_t pixel = s.channels * loader.tile_bytes(), row = s.width * s.channels;
  // Read with the last pixel, times zero, which would make NaN of NaN.
  std::memset(to + s.batch * s.height * r.width * pixel, 0, static_cast<size_t>(kGroupBytes));
  parallel_for(s.batch * s.height, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::byte* line = to + i * r.width * pixel;
      std::memset(line, pad, static_cast<size_t>(r.left * pixel));
      loader.load(row, x + i * row * loader.given_bytes(), line + r.left * pixel);
      std::memset(line + (r.left + s.width) * pixel, pad, static_cast<size_t>((r.width - r.left - s.width) * pixel));
    }
  });
}

// Writes one output pixel's row, piece by piece: kernel rows are runs of kernel_w * channels values, contiguous in x
// when there is one group and no horizontal dilation.
void gather_row(const NhwcConv& s, const Loader& loader, const PackedWeights& w, const std::byte* x, int pad, int64_t pixel, int64_t group,
                std::byte* dst) {
  const int64_t ox = pixel % s.out_width, oy = pixel / s.out_width % s.out_height, n = pixel / (s.out_width * s.out_height);
  const int64_t gc = s.group_channels(), bytes = loader.tile_bytes();
  const int64_t taps = w.piece != Piece::kTap && s.groups == 1 && s.dilation_w == 1 ? s.kernel_w : 1;
  const int64_t piece_bytes = w.piece_groups * kGroupBytes;
  std::byte *to = dst, *piece_end = dst + piece_bytes;
  const auto padding = [&](int64_t elements) {
    std::memset(to, pad, static_cast<size_t>(elements * bytes));
    to += elements * bytes;
  };
  for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
    const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
    for (int64_t kx = 0; kx < s.kernel_w; kx += taps) {
      const int64_t ix = ox * s.stride_w - s.pad_left + kx * s.dilation_w;
      // Taps [first, last) of the run lie inside the image.
      const int64_t first = iy < 0 || iy >= s.height ? taps : std::clamp<int64_t>(-ix, 0, taps);
      const int64_t last = std::clamp(s.width - ix, first, taps);
      if (first > 0) padding(first * gc);
      if (last > first) {
        loader.load((last - first) * gc, x + (((n * s.height + iy) * s.width + ix + first) * s.channels + group * gc) * loader.given_bytes(), to);
        to += (last - first) * gc * bytes;
      }
      if (last < taps) padding((taps - last) * gc);
      if (w.piece != Piece::kAll) {  // a run is a piece
        std::memset(to, 0, static_cast<size_t>(piece_end - to));
        to = piece_end;
        piece_end += piece_bytes;
      }
    }
  }
  std::memset(to, 0, static_cast<size_t>(dst + w.groups * kGroupBytes - to));
}

// Pointers to the pieces of output pixels [row, row + rows), piece by piece; padding points to `zeros`. x: of the
// convolution group, in the form of the tiles, `r.width` pixels of `pixel_bytes` to an image row.
void find_pieces(const NhwcConv& s, const PackedWeights& w, const Rows& r, const std::byte* x, int64_t pixel_bytes, int64_t row, int64_t rows,
                 const std::byte* zeros, const std::byte** to) {
  const int64_t plane = s.out_width * s.out_height, across = w.piece == Piece::kTap ? s.kernel_w : 1;
  for (int64_t ky = 0; ky < s.kernel_h; ++ky)
    for (int64_t kx = 0; kx < across; ++kx, to += rows) {
      const int64_t dx = kx * s.dilation_w - s.pad_left + r.left, dy = ky * s.dilation_h - s.pad_top;
      // Output columns [first, last) read inside the image.
      const int64_t first = dx >= 0 ? 0 : ceil_div(-dx, s.stride_w), last = r.width > dx ? (r.width - dx - 1) / s.stride_w + 1 : 0;
      for (int64_t i = 0; i < rows;) {  // line by line
        const int64_t ox = (row + i) % s.out_width, oy = (row + i) / s.out_width % s.out_height, n = (row + i) / plane;
        const int64_t count = std::min(rows - i, s.out_width - ox), iy = oy * s.stride_h + dy;
        const bool inside = iy >= 0 && iy < s.height;
        const int64_t begin = inside ? std::clamp(first - ox, int64_t{0}, count) : count;
        const int64_t end = std::clamp(last - ox, begin, count);
        std::fill_n(to + i, begin, zeros);
        const std::byte* from = x + ((n * s.height + iy) * r.width + ox * s.stride_w + dx) * pixel_bytes;
        for (int64_t j = begin; j < end; ++j) to[i + j] = from + j * s.stride_w * pixel_bytes;
        std::fill_n(to + i + end, count - end, zeros);
        i += count;
      }
    }
}

// --- how the work is cut ---------------------------------------------------------------------------

// How work is shared: threads take rows or columns.
struct Cut {
  int64_t rows = 0, row_blocks = 0;      // of a block; blocks
  int64_t panels = 0, column_parts = 0;  // of a part; parts
  // Bytes. Of a gathered row to the next; where a thread's zeros, gathered rows and sums are in its scratch; of all of
  // that; of the staged copy, which all share.
  int64_t gather_stride = 0, zeros_at = 0, gathered_at = 0, sums_at = 0, thread_bytes = 0, staged_bytes = 0;

  int64_t items(const NhwcConv& s) const { return s.groups * row_blocks * column_parts; }
};

int useful_threads(const NhwcConv& s, const PackedWeights& w, int threads) {
  const int64_t work = s.pixels() * w.groups * s.out_channels;
  return static_cast<int>(std::clamp<int64_t>(work / kLeastThreadWork, 1, std::max(threads, 1)));
}

Cut cut(const TileIsa& isa, const NhwcConv& s, const Loader& loader, const PackedWeights& w, const Rows& r, int threads) {
  Cut c;
  const int64_t pixels = s.pixels(), row_bytes = std::max<int64_t>(w.groups, 1) * kGroupBytes;
  const int64_t x_bytes = s.batch * s.height * s.width * s.channels * loader.tile_bytes();
  // A block of rows is read once per pair of panels: it stays in L2.
  const int64_t cached = r.gathered ? row_bytes : std::max<int64_t>(1, x_bytes / std::max<int64_t>(1, pixels));
  const int64_t most = std::clamp(l2_bytes() * 3 / 4 / cached / kLeastRows * kLeastRows, kLeastRows, kMostRows);
  c.row_blocks = std::max<int64_t>(1, ceil_div(pixels, most));
  c.column_parts = 1;
  if (threads > 1 && s.groups * c.row_blocks % threads != 0) {
    // What is larger is read by one thread each: weights, by sharing columns, or activations, by sharing rows.
    const bool columns = static_cast<int64_t>(w.data.size()) > x_bytes || pixels < kLeastRows * threads;
    if (columns && s.groups < threads && w.panels >= kPanelsAtOnce * threads) c.column_parts = threads;
    else c.row_blocks = std::clamp(round_up(c.row_blocks, threads), int64_t{1}, std::max<int64_t>(1, pixels));
  }
  c.rows = std::max<int64_t>(1, ceil_div(pixels, c.row_blocks));
  c.row_blocks = ceil_div(pixels, c.rows);
  c.panels = round_up(ceil_div(w.panels, c.column_parts), kPanelsAtOnce);
  c.column_parts = ceil_div(w.panels, c.panels);
  const int64_t rows_in_memory = round_up(c.rows, isa.row_step);
  c.gather_stride = round_up(row_bytes, kPanelRowBytes);
  if (c.gather_stride % 1024 == 0) c.gather_stride += kPanelRowBytes;
  c.zeros_at = round_up((c.rows * w.pieces + kTapsBeyond) * kPointerBytes, kPanelRowBytes);
  c.gathered_at = c.zeros_at + round_up(w.piece_groups * kGroupBytes, kPanelRowBytes);
  c.sums_at = c.gathered_at + (r.gathered ? rows_in_memory * c.gather_stride : 0);
  c.thread_bytes = round_up(c.sums_at + rows_in_memory * kSumColumns * 4, 4096);
  // Pieces filled up to whole groups reach beyond the last pixel.
  if (r.staged) c.staged_bytes = round_up(s.batch * s.height * r.width * s.channels * loader.tile_bytes() + kGroupBytes, 4096);
  return c;
}

// --- sweeps over depth -----------------------------------------------------------------------------

// One block of rows against a pair of panels.
void multiply_rows(const TileIsa& isa, TileBlock t, int64_t groups) {
  const std::byte *a = t.a, *b = t.b;
  const int64_t step = round_up(ceil_div(groups, ceil_div(groups, kDepthGroups)), isa.group_step);
  for (int64_t g = 0; g < groups; g += step) {
    t.groups = std::min(step, groups - g);
    t.a = a + g * kGroupBytes;
    t.b = b + g * kPanelRowBytes;
    t.accumulate = g > 0;
    isa.block(t);
  }
}

// The same by pieces: several to a sweep, or one in several sweeps. t.groups: of a piece; t.next_b: what comes after.
void multiply_pieces(const TileIsa& isa, TileTaps t, int64_t pieces) {
  const auto* a = t.a;
  const std::byte *b = t.b, *next = t.next_b;
  const TileFinish* finish = t.finish;
  const int64_t groups = t.groups, together = std::clamp<int64_t>(kDepthGroups / groups, 1, pieces);
  const int64_t step = ceil_div(groups, ceil_div(groups, kDepthGroups));
  for (int64_t piece = 0; piece < pieces; piece += together) {
    t.taps = std::min(together, pieces - piece);
    t.a = a + piece * t.a_step;
    for (int64_t g = 0; g < groups; g += step) {
      t.groups = std::min(step, groups - g);
      t.a_offset = g * kGroupBytes;
      t.b = b + (piece * groups + g) * kPanelRowBytes;
      t.accumulate = piece > 0 || g > 0;
      const bool last = piece + together >= pieces && g + step >= groups;
      t.next_b = last ? next : t.b + t.taps * t.groups * kPanelRowBytes;
      t.finish = last ? finish : nullptr;
      isa.taps(t);
    }
  }
}

// `all` is of all of y.
TileFinish finish_at(TileFinish all, int64_t row, int64_t column, int64_t columns) {
  const int64_t at = row * all.stride + column;
  all.y += at;
  if (all.addend != nullptr) all.addend += at;
  if (all.bias != nullptr) all.bias += column;
  all.columns = columns;
  return all;
}

}  // namespace

size_t product_workspace(const TileIsa& isa, const NhwcConv& s, const PackedWeights& w, ActivationType x, int threads) {
  const Loader loader(isa, w.type, x);
  threads = useful_threads(s, w, threads);
  const Cut c = cut(isa, s, loader, w, rows_of(loader, s, w), threads);
  return static_cast<size_t>(c.staged_bytes + c.thread_bytes * std::max(threads, 1));
}

void packed_product(const TileIsa& isa, const NhwcConv& s, const ProductInput& x, const PackedWeights& w, const ProductSink& sink,
                    int threads, std::byte* workspace) {
  const int64_t pixels = s.pixels();
  if (pixels == 0 || s.out_channels == 0) return;
  const Loader loader(isa, w.type, x.type, x.beyond);
  threads = useful_threads(s, w, threads);
  const Rows how = rows_of(loader, s, w);
  const Cut c = cut(isa, s, loader, w, how, threads);
  const int pad = w.type == TileType::kU8S8 ? x.zero : 0;
  const auto* given = static_cast<const std::byte*>(x.data);
  if (how.staged) stage(s, loader, how, given, pad, workspace);
  const std::byte* from = how.staged ? workspace : given;
  const int64_t pixel_bytes = s.channels * loader.tile_bytes(), group_bytes = s.group_channels() * loader.tile_bytes();
  const int64_t items = c.items(s), ranges = std::min<int64_t>(std::max(threads, 1), items);
  // Tiles that want whole rows find them in x itself when it is one row after the other, in their form. Rows a multiple of
  // 4 KiB apart would share a few sets of the cache.
  const bool whole = loader.copies() && s.pointwise() && group_bytes == w.groups * kGroupBytes && pixel_bytes % 4096 != 0;
  const TileFinish* const in_tiles = isa.finishes ? sink.in_tiles() : nullptr;
  // One range per thread, numbered, so that each knows its scratch.
  parallel_for(ranges, 1, [&](int64_t first_range, int64_t last_range) {
    for (int64_t range = first_range; range < last_range; ++range) {
      std::byte* scratch = workspace + c.staged_bytes + range * c.thread_bytes;
      auto* sums = reinterpret_cast<float*>(scratch + c.sums_at);
      auto** pointers = reinterpret_cast<const std::byte**>(scratch);
      std::byte* gathered = scratch + c.gathered_at;
      std::memset(scratch, 0, static_cast<size_t>(c.zeros_at));
      std::memset(scratch + c.zeros_at, pad, static_cast<size_t>(w.piece_groups * kGroupBytes));
      int64_t held = -1;  // block of rows that is gathered or found
      for (int64_t i = items * range / ranges; i < items * (range + 1) / ranges; ++i) {
        const int64_t part = i % c.column_parts, block = i / c.column_parts % c.row_blocks, group = i / (c.column_parts * c.row_blocks);
        const int64_t row = block * c.rows, rows = std::min(c.rows, pixels - row);
        const bool in_place = isa.taps == nullptr && whole && row + round_up(rows, isa.row_step) <= pixels;
        if (held != i / c.column_parts && !in_place) {
          if (!how.gathered) find_pieces(s, w, how, from + group * group_bytes, pixel_bytes, row, rows, scratch + c.zeros_at, pointers);
          else for (int64_t r = 0; r < rows; ++r) gather_row(s, loader, w, given, pad, row + r, group, gathered + r * c.gather_stride);
          if (how.gathered)
            for (int64_t j = 0; j < rows * w.pieces; ++j)
              pointers[j] = gathered + j % rows * c.gather_stride + j / rows * w.piece_groups * kGroupBytes;
          held = i / c.column_parts;
        }
        const int64_t end = std::min(w.panels, (part + 1) * c.panels);
        for (int64_t p = part * c.panels; p < end; p += kPanelsAtOnce) {
          const int64_t panels = std::min(kPanelsAtOnce, end - p);
          const int64_t column = p * kPanelColumns, columns = std::min(panels * kPanelColumns, s.group_out() - column);
          const int64_t channel = group * s.group_out() + column;
          const std::byte* b = w.panel(group, p);
          if (isa.taps == nullptr) {
            multiply_rows(isa, {rows, panels, 0, in_place ? given + row * pixel_bytes + group * group_bytes : gathered,
                                in_place ? pixel_bytes : c.gather_stride, b, w.panel_bytes(), false, sums, kSumColumns}, w.groups);
          } else {
            TileFinish finish;
            if (in_tiles != nullptr) finish = finish_at(*in_tiles, row, channel, columns);
            TileTaps t;
            t.rows = rows;
            t.panels = panels;
            t.groups = w.piece_groups;
            t.a = pointers;
            t.a_step = rows;
            t.b = b;
            t.b_stride = w.panel_bytes();
            t.c = sums;
            t.c_stride = kSumColumns;
            t.next_b = p + panels < end ? w.panel(group, p + panels) : nullptr;
            t.half = columns <= (panels - 1) * kPanelColumns + kPanelColumns / 2;
            t.finish = in_tiles != nullptr ? &finish : nullptr;
            multiply_pieces(isa, t, w.pieces);
            if (in_tiles != nullptr) continue;
          }
          sink.take(row, rows, channel, columns, sums, kSumColumns);
        }
      }
    }
  });
}

}  // namespace ds::kernels
