#include "kernels/nbits_panels.h"

#include <algorithm>
#include <cstring>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// Of weights in f32 at a time: kDepth x kColumns of them take 128 KiB, and two panels of that depth fit L1.
constexpr int64_t kDepth = 256, kPanelsAtOnce = 8, kColumns = kPanelsAtOnce * kPanelColumns;
constexpr int64_t kTileRows = 256;  // of x that meet them: their sums, too, take 128 KiB

int stored(int bits, const uint8_t* q, int64_t i) { return (q[i * bits / 8] >> (i * bits % 8)) & ((1 << bits) - 1); }

// Where a piece of depth that starts at k ends: at whole blocks, or at multiples of kDepth inside one.
int64_t piece_end(const NBitsPanels& w, int64_t k) {
  if (w.block <= kDepth) return std::min(w.depth, k + kDepth / w.block * w.block);
  return std::min({w.depth, k + kDepth, (k / w.block + 1) * w.block});
}

void store_columns(const NBitsPanels& w, int64_t row, int64_t column, int64_t columns, const float* sums, const float* bias, float* y) {
  float* to = y + row * w.columns + column;
  const int64_t n = std::min(columns, w.columns - column);
  if (bias == nullptr) {
    std::memcpy(to, sums, static_cast<size_t>(n) * sizeof(float));
  } else {
    for (int64_t c = 0; c < n; ++c) to[c] = sums[c] + bias[column + c];
  }
}

// At least this much work makes a thread worth its while.
int64_t least_panels(const NBitsPanels& w, int64_t rows) { return (1 << 14) / (w.depth * std::min(rows, kNBitsRows) + 1) + 1; }

void few_rows(const NBitsPanels& w, int64_t rows, const float* x, const float* bias, float* y) {
  const NBitsPanelIsa& isa = avx512_nbits();
  parallel_for(w.count(), least_panels(w, rows), [&](int64_t first, int64_t last) {
    float sums[kNBitsRows][kPanelColumns];
    for (int64_t p = first; p < last; ++p) {
      isa.dots(w.panel(p), rows, x, w.depth, sums);
      for (int64_t r = 0; r < rows; ++r) store_columns(w, r, p * kPanelColumns, kPanelColumns, sums[r], bias, y);
    }
  });
}

void many_rows(const NBitsPanels& w, int64_t rows, const float* x, const float* bias, float* y, int threads, std::byte* workspace) {
  const NBitsPanelIsa& isa = avx512_nbits();
  const TileIsa& tile = avx512_tile_f32();
  const int64_t strips = (w.count() + kPanelsAtOnce - 1) / kPanelsAtOnce, slots = std::max(threads, 1);
  parallel_for(slots, 1, [&](int64_t first_slot, int64_t last_slot) {
    for (int64_t slot = first_slot; slot < last_slot; ++slot) {
      float* const weights = reinterpret_cast<float*>(workspace) + slot * (kDepth + kTileRows) * kColumns;
      float* const sums = weights + kDepth * kColumns;
      for (int64_t strip = strips * slot / slots; strip < strips * (slot + 1) / slots; ++strip) {
        const int64_t first = strip * kPanelsAtOnce, panels = std::min(kPanelsAtOnce, w.count() - first);
        for (int64_t row = 0; row < rows; row += kTileRows) {
          const int64_t count = std::min(kTileRows, rows - row);
          for (int64_t k = 0, end = 0; k < w.depth; k = end) {
            end = piece_end(w, k);
            for (int64_t p = 0; p < panels; ++p) isa.unpack(w.panel(first + p), k, end, weights + p * kDepth * kPanelColumns);
            TileBlock t;
            t.rows = count;
            t.panels = panels;
            t.groups = end - k;
            t.a = reinterpret_cast<const std::byte*>(x + row * w.depth + k);
            t.a_stride = w.depth * static_cast<int64_t>(sizeof(float));
            t.b = reinterpret_cast<const std::byte*>(weights);
            t.b_stride = kDepth * kPanelRowBytes;
            t.accumulate = k > 0;
            t.c = sums;
            t.c_stride = kColumns;
            tile.block(t);
          }
          for (int64_t r = 0; r < count; ++r)
            store_columns(w, row + r, first * kPanelColumns, panels * kPanelColumns, sums + r * kColumns, bias, y);
        }
      }
    }
  });
}

// A workspace for x in 8 bits.
struct RoundedSpace {
  int64_t row_values, blocks;
  size_t values_bytes, scale_bytes;
  RoundedSpace(const NBitsPanels& w, int64_t rows)
      : row_values(w.groups() * w.values()), blocks(w.blocks()),
        values_bytes((static_cast<size_t>(rows * row_values) + 63) / 64 * 64),
        scale_bytes(static_cast<size_t>(rows * blocks) * sizeof(float)) {}
  size_t bytes() const { return values_bytes + 2 * scale_bytes; }
};

void round_row(const NBitsPanels& w, const float* x, int8_t* values, float* scale, float* sum) {
  const int64_t planes = 8 / w.bits, group = w.values();
  std::vector<int8_t> plain(static_cast<size_t>(std::min(w.block, w.depth)));
  for (int64_t b = 0, k = 0; k < w.depth; k += w.block, ++b) {
    const int64_t n = std::min(w.block, w.depth - k);
    scale[b] = avx512_nbits().round(n, x + k, plain.data());
    int32_t total = 0;
    for (int64_t i = 0; i < n; ++i) total += plain[static_cast<size_t>(i)];
    sum[b] = static_cast<float>(total);
    for (int64_t g = 0; g < n; g += group, values += group)
      for (int64_t i = 0; i < group; ++i) values[i % planes * 4 + i / planes] = g + i < n ? plain[static_cast<size_t>(g + i)] : int8_t{0};
  }
}

void rounded_rows(const NBitsPanels& w, int64_t rows, const float* x, const float* bias, float* y, std::byte* workspace) {
  const NBitsPanelIsa& isa = avx512_nbits();
  const RoundedSpace space(w, rows);
  auto* const values = reinterpret_cast<int8_t*>(workspace);
  auto* const scale = reinterpret_cast<float*>(workspace + space.values_bytes);
  float* const sum = scale + rows * space.blocks;
  parallel_for(rows, (1 << 14) / (w.depth + 1) + 1, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      round_row(w, x + r * w.depth, values + r * space.row_values, scale + r * space.blocks, sum + r * space.blocks);
  });
  parallel_for(w.count(), least_panels(w, rows), [&](int64_t first, int64_t last) {
    float sums[kNBitsRows][kPanelColumns];
    for (int64_t p = first; p < last; ++p)
      for (int64_t row = 0; row < rows; row += kNBitsRows) {
        const int64_t count = std::min(kNBitsRows, rows - row);
        isa.rounded_dots(w.panel(p), count,
                         {values + row * space.row_values, scale + row * space.blocks, sum + row * space.blocks, space.row_values, space.blocks}, sums);
        for (int64_t r = 0; r < count; ++r) store_columns(w, row + r, p * kPanelColumns, kPanelColumns, sums[r], bias, y);
      }
  });
}

}  // namespace

int64_t NBitsPanels::groups() const {
  const int64_t whole = (depth - 1) / block;  // blocks before the last
  return whole * block_groups() + (depth - whole * block + values() - 1) / values();
}

NBitsPanel NBitsPanels::panel(int64_t p) const {
  const int64_t at = p * blocks() * kPanelColumns;
  return {bits, depth, block, data.data() + p * groups() * kPanelRowBytes, scale.data() + at, zero.empty() ? nullptr : zero.data() + at};
}

const char* why_no_panels(const NBitsWeights& w) {
  if (w.group != nullptr) return "blocks are not contiguous";
  if (w.float_zero == nullptr) return nullptr;
  const float most = static_cast<float>((1 << w.bits) - 1);
  const bool whole = std::all_of(w.float_zero, w.float_zero + w.columns * w.blocks(),
                                 [&](float z) { return z >= 0 && z <= most && z == static_cast<float>(static_cast<int>(z)); });
  return whole ? nullptr : "zero points are not whole numbers";
}

NBitsPanels pack_nbits(const NBitsWeights& w) {
  NBitsPanels to;
  to.columns = w.columns;
  to.depth = w.depth;
  to.block = std::min(w.block, w.depth);
  to.bits = w.bits;
  const int64_t blocks = to.blocks(), groups = to.groups(), group_values = to.values();
  to.data = PackedBytes(static_cast<size_t>(to.count() * groups * kPanelRowBytes));
  std::memset(to.data.data(), 0, to.data.size());
  to.scale.assign(static_cast<size_t>(to.count() * blocks * kPanelColumns), 0.0f);
  if (w.zero != nullptr || w.float_zero != nullptr) to.zero.assign(to.scale.size(), 0);
  parallel_for(to.count(), 1, [&](int64_t first, int64_t last) {
    for (int64_t n = first * kPanelColumns; n < std::min(last * kPanelColumns, w.columns); ++n) {
      const int64_t panel = n / kPanelColumns, column = n % kPanelColumns;
      std::byte* data = to.data.data() + panel * groups * kPanelRowBytes + column * kGroupBytes;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t values = std::min(to.block, w.depth - b * to.block), bytes = (values * w.bits + 7) / 8;
        const uint8_t* from = w.data + (n * blocks + b) * w.block_bytes();
        for (int64_t g = 0; g * group_values < values; ++g, data += kPanelRowBytes)
          std::memcpy(data, from + g * kGroupBytes, static_cast<size_t>(std::min(kGroupBytes, bytes - g * kGroupBytes)));
        const auto at = static_cast<size_t>((panel * blocks + b) * kPanelColumns + column);
        to.scale[at] = w.scale[n * blocks + b];
        if (w.float_zero != nullptr) to.zero[at] = static_cast<uint8_t>(w.float_zero[n * blocks + b]);
        else if (w.zero != nullptr) to.zero[at] = static_cast<uint8_t>(stored(w.bits, w.zero + n * w.zero_bytes(), b));
      }
    }
  });
  return to;
}

size_t nbits_workspace(const NBitsPanels& w, int64_t rows, bool rounded, int threads) {
  if (rounded) return RoundedSpace(w, rows).bytes();
  if (rows <= kNBitsRows) return 0;
  return static_cast<size_t>(std::max(threads, 1)) * static_cast<size_t>((kDepth + kTileRows) * kColumns) * sizeof(float);
}

void matmul_nbits_panels(const NBitsPanels& w, int64_t rows, const float* x, const float* bias, bool rounded, float* y, int threads,
                         std::byte* workspace) {
  if (rows == 0) return;
  if (rounded) rounded_rows(w, rows, x, bias, y, workspace);
  else if (rows <= kNBitsRows) few_rows(w, rows, x, bias, y);
  else many_rows(w, rows, x, bias, y, threads, workspace);
}

}  // namespace ds::kernels
