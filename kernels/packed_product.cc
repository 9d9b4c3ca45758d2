#include "kernels/packed_product.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "libds/base/half.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int64_t kPanelsAtOnce = 2;                 // what a tile takes
constexpr int64_t kSumColumns = kPanelsAtOnce * kPanelColumns;
constexpr int64_t kDepthGroups = 128;                // of one sweep: a pair of panels of it is 16 KiB
constexpr int64_t kGatheredBytes = 384 << 10;        // of a block of rows: a part of L2
constexpr int64_t kLeastTapBytes = 32;
constexpr int64_t kLeastRows = 32, kMostRows = 256;  // of a block

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

int64_t element_bytes(TileType type) { return type == TileType::kF32 ? 4 : type == TileType::kBf16 ? 2 : 1; }
int64_t element_bytes(ActivationType type) { return type == ActivationType::kF32 ? 4 : type == ActivationType::kBf16 ? 2 : 1; }

// How elements of the left operand come into the form of the tiles.
enum class Load { kCopy, kFlipSign, kNarrow };

Load load_of(TileType tile, ActivationType given) {
  if (tile == TileType::kU8S8 && given == ActivationType::kS8) return Load::kFlipSign;
  if (tile == TileType::kBf16 && given == ActivationType::kF32) return Load::kNarrow;
  return Load::kCopy;
}

void narrow_portable(int64_t n, const float* src, uint16_t* dst) {
  for (int64_t i = 0; i < n; ++i) dst[i] = bf16(src[i]).bits;
}

struct Gather {
  const NhwcConv& s;
  const std::byte* x;
  int64_t given_bytes, tile_bytes;
  Load how;
  void (*narrow)(int64_t n, const float* src, uint16_t* dst);
  int pad;  // byte
  int64_t row_bytes;

  void load(int64_t n, const std::byte* src, std::byte* dst) const {
    if (how == Load::kCopy) std::memcpy(dst, src, static_cast<size_t>(n * tile_bytes));
    else if (how == Load::kFlipSign) for (int64_t i = 0; i < n; ++i) dst[i] = src[i] ^ std::byte{0x80};
    else narrow(n, reinterpret_cast<const float*>(src), reinterpret_cast<uint16_t*>(dst));
  }

  // One output pixel's operand row: kernel rows are runs of kernel_w * channels values, contiguous in x when there is one
  // group and no horizontal dilation.
  void row(int64_t pixel, int64_t group, std::byte* dst) const {
    const int64_t ox = pixel % s.out_width, oy = pixel / s.out_width % s.out_height, n = pixel / (s.out_width * s.out_height);
    const int64_t gc = s.group_channels();
    const bool whole_rows = s.groups == 1 && s.dilation_w == 1;
    const int64_t taps = whole_rows ? s.kernel_w : 1;
    std::byte* to = dst;
    const auto padding = [&](int64_t elements) {
      std::memset(to, pad, static_cast<size_t>(elements * tile_bytes));
      to += elements * tile_bytes;
    };
    for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
      const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
      for (int64_t kx = 0; kx < s.kernel_w; kx += taps) {
        const int64_t ix = ox * s.stride_w - s.pad_left + kx * s.dilation_w;
        // Taps [first, last) of the run lie inside the image.
        const int64_t first = iy < 0 || iy >= s.height ? taps : std::clamp<int64_t>(-ix, 0, taps);
        const int64_t last = std::clamp(s.width - ix, first, taps);
        if (first > 0) padding(first * gc);
        if (first == taps) continue;
        if (last > first) {
          const int64_t at = ((n * s.height + iy) * s.width + ix + first) * s.channels + group * gc;
          load((last - first) * gc, x + at * given_bytes, to);
          to += (last - first) * gc * tile_bytes;
        }
        if (last < taps) padding((taps - last) * gc);
      }
    }
    std::memset(to, 0, static_cast<size_t>(dst + row_bytes - to));
  }
};

// How rows of the left operand reach the tiles.
enum class Rows {
  kInPlace,  // they lie in memory as they are wanted
  kTaps,     // in pieces, found by pointers
  kGathered  // copied
};

Rows rows_of(const TileIsa& isa, const NhwcConv& s, TileType tile, ActivationType given, int64_t groups) {
  if (load_of(tile, given) != Load::kCopy) return Rows::kGathered;
  const int64_t bytes = s.group_channels() * element_bytes(tile);  // of a tap
  // Short taps cost more in pointers than in copying.
  if (isa.taps != nullptr && bytes % kGroupBytes == 0 && (bytes >= kLeastTapBytes || s.kernel_h * s.kernel_w == 1)) return Rows::kTaps;
  // Rows a multiple of 4 KiB apart would share a few sets of the cache.
  const bool whole = s.pointwise() && bytes == groups * kGroupBytes && s.channels * element_bytes(tile) % 4096 != 0;
  return whole ? Rows::kInPlace : Rows::kGathered;
}

// Pointers to the taps of output pixels [row, row + rows), tap by tap; padding points to `zeros`.
void find_taps(const NhwcConv& s, const std::byte* x, int64_t pixel_bytes, int64_t row, int64_t rows, const std::byte* zeros,
               const std::byte** to) {
  const int64_t plane = s.out_width * s.out_height;
  for (int64_t ky = 0; ky < s.kernel_h; ++ky)
    for (int64_t kx = 0; kx < s.kernel_w; ++kx, to += rows) {
      const int64_t dx = kx * s.dilation_w - s.pad_left, dy = ky * s.dilation_h - s.pad_top;
      // Output columns [first, last) read inside the image.
      const int64_t first = dx >= 0 ? 0 : ceil_div(-dx, s.stride_w), last = s.width > dx ? (s.width - dx - 1) / s.stride_w + 1 : 0;
      for (int64_t r = 0; r < rows;) {  // line by line
        const int64_t ox = (row + r) % s.out_width, oy = (row + r) / s.out_width % s.out_height, n = (row + r) / plane;
        const int64_t count = std::min(rows - r, s.out_width - ox), iy = oy * s.stride_h + dy;
        const bool inside = iy >= 0 && iy < s.height;
        const int64_t begin = inside ? std::clamp(first - ox, int64_t{0}, count) : count;
        const int64_t end = std::clamp(last - ox, begin, count);
        std::fill_n(to + r, begin, zeros);
        const std::byte* from = x + ((n * s.height + iy) * s.width + ox * s.stride_w + dx) * pixel_bytes;
        for (int64_t i = begin; i < end; ++i) to[r + i] = from + i * s.stride_w * pixel_bytes;
        std::fill_n(to + r + end, count - end, zeros);
        r += count;
      }
    }
}

// How the work is cut. Threads share rows; when there are too few of them, columns.
struct Cut {
  int64_t rows = 0, row_blocks = 0;            // of a block; blocks
  int64_t panels = 0, column_parts = 0;        // of a part; parts
  int64_t gather_stride = 0, gather_rows = 0;  // bytes; rows in memory
  int64_t rows_bytes = 0, thread_bytes = 0;    // gathered rows or pointers; all scratch of a thread

  int64_t items(const NhwcConv& s) const { return s.groups * row_blocks * column_parts; }
};

Cut cut(const TileIsa& isa, const NhwcConv& s, const PackedWeights& w, int threads) {
  Cut c;
  const int64_t pixels = s.pixels(), row_bytes = w.groups * kGroupBytes;
  const int64_t most = std::clamp(kGatheredBytes / row_bytes / kLeastRows * kLeastRows, kLeastRows, kMostRows);
  c.row_blocks = std::max<int64_t>(1, ceil_div(pixels, most));
  c.column_parts = 1;
  if (threads > 1 && s.groups * c.row_blocks % threads != 0) {
    if (pixels >= 2 * kLeastRows * threads) c.row_blocks = round_up(c.row_blocks, threads);
    else if (s.groups < threads) c.column_parts = std::min<int64_t>(threads, std::max<int64_t>(1, w.panels / kPanelsAtOnce));
  }
  c.rows = std::max<int64_t>(1, ceil_div(pixels, c.row_blocks));
  c.row_blocks = ceil_div(pixels, c.rows);
  c.panels = round_up(ceil_div(w.panels, c.column_parts), kPanelsAtOnce);
  c.column_parts = ceil_div(w.panels, c.panels);
  c.gather_rows = round_up(c.rows, isa.row_step);
  c.gather_stride = round_up(row_bytes, kPanelRowBytes);
  if (c.gather_stride % 1024 == 0) c.gather_stride += kPanelRowBytes;
  const int64_t pointers = c.rows * s.kernel_h * s.kernel_w * static_cast<int64_t>(sizeof(void*));
  c.rows_bytes = round_up(std::max(c.gather_rows * c.gather_stride, pointers + s.group_channels() * 4), kPanelRowBytes);
  c.thread_bytes = round_up(c.rows_bytes + c.gather_rows * kSumColumns * 4, 4096);
  return c;
}

template <typename T, typename Store>
void pack_elements(const NhwcConv& s, bool matrix, const T* w, int64_t per_group, PackedWeights& packed, Store store) {
  const int64_t gm = s.group_out(), gc = s.group_channels(), plane = s.kernel_h * s.kernel_w;
  const int64_t step = kGroupBytes / per_group;  // bytes of an element
  parallel_for(s.groups * packed.panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / packed.panels, first = i % packed.panels * kPanelColumns;
      std::byte* panel = packed.data.data() + i * packed.panel_bytes();
      for (int64_t column = 0; column < std::min(kPanelColumns, gm - first); ++column) {
        const int64_t m = group * gm + first + column;
        for (int64_t t = 0; t < plane; ++t)
          for (int64_t ch = 0; ch < gc; ++ch) {
            const int64_t k = t * gc + ch;
            const T value = matrix ? w[k * s.out_channels + m] : w[(m * gc + ch) * plane + t];
            store(value, m, panel + k / per_group * kPanelRowBytes + column * kGroupBytes + k % per_group * step);
          }
      }
    }
  });
}

}  // namespace

PackedBytes::PackedBytes(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  auto* p = static_cast<std::byte*>(std::aligned_alloc(alignment, rounded));
  if (p == nullptr) throw std::bad_alloc();
  data_.reset(p);
  if (alignment == kHugePage) madvise(p, rounded, MADV_HUGEPAGE);  // only a hint
  std::memset(p, 0, bytes);
}

void PackedBytes::Free::operator()(std::byte* p) const { std::free(p); }

PackedWeights pack_product(TileType type, const TileIsa& isa, const NhwcConv& s, bool matrix, const void* w, WeightType given) {
  PackedWeights packed;
  packed.type = type;
  const int64_t per_group = kGroupBytes / element_bytes(type);
  packed.panels = ceil_div(s.group_out(), kPanelColumns);
  packed.groups = round_up(ceil_div(s.depth(), per_group), isa.group_step);
  packed.data = PackedBytes(static_cast<size_t>(s.groups * packed.panels * packed.panel_bytes()));
  if (w == nullptr) return packed;
  const auto put = [](auto value, std::byte* to) { std::memcpy(to, &value, sizeof value); };
  if (type == TileType::kU8S8) {
    packed.column_sums.assign(static_cast<size_t>(s.out_channels), 0);
    const uint8_t flip = given == WeightType::kU8Shifted ? 0x80 : 0;
    pack_elements(s, matrix, static_cast<const uint8_t*>(w), per_group, packed, [&](uint8_t value, int64_t m, std::byte* to) {
      const auto v = static_cast<int8_t>(value ^ flip);
      packed.column_sums[static_cast<size_t>(m)] += v;
      put(v, to);
    });
  } else if (type == TileType::kBf16 && given == WeightType::kF32) {
    pack_elements(s, matrix, static_cast<const float*>(w), per_group, packed,
                  [&](float value, int64_t, std::byte* to) { put(bf16(value).bits, to); });
  } else if (type == TileType::kBf16) {
    pack_elements(s, matrix, static_cast<const uint16_t*>(w), per_group, packed, [&](uint16_t value, int64_t, std::byte* to) { put(value, to); });
  } else {
    pack_elements(s, matrix, static_cast<const float*>(w), per_group, packed, [&](float value, int64_t, std::byte* to) { put(value, to); });
  }
  return packed;
}

size_t product_workspace(const TileIsa& isa, const NhwcConv& s, const PackedWeights& w, int threads) {
  return static_cast<size_t>(cut(isa, s, w, threads).thread_bytes * std::max(threads, 1));
}

namespace {

// One block of rows against a pair of panels, depth cut into sweeps.
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

// The same by taps: several to a sweep, or a tap in several sweeps. t.groups: of a tap.
void multiply_taps(const TileIsa& isa, TileTaps t, int64_t taps) {
  const std::byte* next = t.next_b;
  const auto* a = t.a;
  const std::byte* b = t.b;
  const int64_t groups = t.groups, together = std::clamp<int64_t>(kDepthGroups / groups, 1, taps);
  const int64_t step = ceil_div(groups, ceil_div(groups, kDepthGroups));
  for (int64_t tap = 0; tap < taps; tap += together) {
    t.taps = std::min(together, taps - tap);
    t.a = a + tap * t.a_step;
    for (int64_t g = 0; g < groups; g += step) {
      t.groups = std::min(step, groups - g);
      t.a_offset = g * kGroupBytes;
      t.b = b + (tap * groups + g) * kPanelRowBytes;
      t.accumulate = tap > 0 || g > 0;
      const bool last = tap + together >= taps && g + step >= groups;
      t.next_b = last ? next : t.b + t.taps * t.groups * kPanelRowBytes;
      isa.taps(t);
    }
  }
}

}  // namespace

void packed_product(const TileIsa& isa, const NhwcConv& s, const ProductInput& x, const PackedWeights& w, const ProductSink& sink,
                    int threads, std::byte* workspace) {
  const int64_t pixels = s.pixels();
  if (pixels == 0 || s.out_channels == 0) return;
  const Cut c = cut(isa, s, w, threads);
  const Rows how = rows_of(isa, s, w.type, x.type, w.groups);
  const int pad = w.type == TileType::kU8S8 ? x.zero : 0;
  const Gather gather = {s, static_cast<const std::byte*>(x.data), element_bytes(x.type), element_bytes(w.type), load_of(w.type, x.type),
                         isa.narrow != nullptr ? isa.narrow : narrow_portable, pad, w.groups * kGroupBytes};
  const int64_t taps = s.kernel_h * s.kernel_w, pixel_bytes = s.channels * gather.tile_bytes, tap_bytes = s.group_channels() * gather.tile_bytes;
  const int64_t items = c.items(s), ranges = std::min<int64_t>(std::max(threads, 1), items);
  // One range per thread, numbered, so that each knows its scratch.
  parallel_for(ranges, 1, [&](int64_t first_range, int64_t last_range) {
    for (int64_t range = first_range; range < last_range; ++range) {
      std::byte* rows_here = workspace + range * c.thread_bytes;
      auto* sums = reinterpret_cast<float*>(rows_here + c.rows_bytes);
      auto** pointers = reinterpret_cast<const std::byte**>(rows_here);
      std::byte* zeros = rows_here + c.rows * taps * static_cast<int64_t>(sizeof(void*));
      if (how == Rows::kTaps) std::memset(zeros, pad, static_cast<size_t>(tap_bytes));
      int64_t held = -1;  // block of rows that is gathered or found
      for (int64_t i = items * range / ranges; i < items * (range + 1) / ranges; ++i) {
        const int64_t part = i % c.column_parts, block = i / c.column_parts % c.row_blocks, group = i / (c.column_parts * c.row_blocks);
        const int64_t row = block * c.rows, rows = std::min(c.rows, pixels - row);
        const std::byte* x_group = gather.x + group * s.group_channels() * gather.given_bytes;
        const bool in_place = how == Rows::kInPlace && row + round_up(rows, isa.row_step) <= pixels;
        if (held != i / c.column_parts && !in_place) {
          if (how == Rows::kTaps) find_taps(s, x_group, pixel_bytes, row, rows, zeros, pointers);
          else for (int64_t r = 0; r < rows; ++r) gather.row(row + r, group, rows_here + r * c.gather_stride);
          held = i / c.column_parts;
        }
        const int64_t end = std::min(w.panels, (part + 1) * c.panels);
        for (int64_t p = part * c.panels; p < end; p += kPanelsAtOnce) {
          const int64_t panels = std::min(kPanelsAtOnce, end - p);
          const std::byte* b = w.panel(group, p);
          if (how == Rows::kTaps)
            multiply_taps(isa, {rows, panels, taps, tap_bytes / kGroupBytes, pointers, rows, 0, b, w.panel_bytes(), false, sums, kSumColumns,
                                p + kPanelsAtOnce < end ? w.panel(group, p + kPanelsAtOnce) : nullptr}, taps);
          else
            multiply_rows(isa, {rows, panels, 0, in_place ? x_group + row * pixel_bytes : rows_here, in_place ? pixel_bytes : c.gather_stride, b,
                                w.panel_bytes(), false, sums, kSumColumns}, w.groups);
          const int64_t column = p * kPanelColumns, columns = std::min(panels * kPanelColumns, s.group_out() - column);
          sink.take(row, rows, group * s.group_out() + column, columns, sums, kSumColumns);
        }
      }
    }
  });
}

}  // namespace ds::kernels
