// Matrix products with weights packed in 2, 4 or 8 bits (kernels/nbits.h), on AVX-512.
//
// Weights are put in panels of 16 columns: a group of 4 bytes of depth (16, 8 or 4 values) of each of the 16 columns
// follows that of its neighbour, so that one register holds one group and one lane one column. It is the order of the
// tiles (kernels/tile.h), takes the bytes of the file, and is read from front to back.
//
// Few rows (decoding one token after another) are bound by memory: values are taken apart in registers, multiplied in
// f32, and the sum of a block meets its scale once. Many rows (a prompt): a piece of some panels becomes f32 in
// the tiles' packing, in L2, and all rows are multiplied by it.
//
// Values become floats without a conversion: bits or-ed into the mantissa of 2^e, where their unit is 1, are 2^e + q, from
// which 2^e + zero is subtracted, exactly.
//
// With rounded activations (onnxruntime's accuracy_level 4) a row of x is rounded to 8 bits block by block, signed, with
// scale max |x| / 127, and products are summed in i32.
//
// Threads: parallel_for over panels; results do not depend on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/nbits.h"
#include "kernels/packed_product.h"

namespace ds::kernels {

// One panel.
struct NBitsPanel {
  int bits = 4;
  int64_t depth = 0, block = 32;
  const std::byte* data = nullptr;  // [blocks][groups of a block][16] of 4 bytes; a block ends with a whole group
  const float* scale = nullptr;     // [blocks][16]
  const uint8_t* zero = nullptr;    // [blocks][16]; null: the middle of the range
};

struct NBitsPanels {
  int64_t columns = 0, depth = 0, block = 32;
  int bits = 4;
  PackedBytes data;
  std::vector<float> scale;   // [panels][blocks][16]
  std::vector<uint8_t> zero;  // the same, or empty

  int64_t count() const { return (columns + kPanelColumns - 1) / kPanelColumns; }
  int64_t blocks() const { return (depth + block - 1) / block; }
  int64_t values() const { return 32 / bits; }  // of a group
  int64_t block_groups() const { return (block + values() - 1) / values(); }
  int64_t groups() const;  // of a panel
  size_t bytes() const { return data.size() + scale.size() * sizeof(float) + zero.size(); }
  NBitsPanel panel(int64_t p) const;
};

// Why these weights cannot be had in panels; null: they can.
const char* why_no_panels(const NBitsWeights& w);
NBitsPanels pack_nbits(const NBitsWeights& w);

constexpr int64_t kNBitsRows = 8;  // at a time, at most

// Rows of x in 8 bits. A group's values are ordered as one shift and mask takes them from the weights: value
// i * planes + p at p * 4 + i, with planes = 8 / bits.
struct NBitsRounded {
  const int8_t* values = nullptr;  // [rows][groups of a panel][values of a group]
  const float* scale = nullptr;    // [rows][blocks]
  const float* sum = nullptr;      // [rows][blocks]: of the values
  int64_t row_values = 0, blocks = 0;
};

// The parts that depend on the instruction set.
struct NBitsPanelIsa {
  // sums[r][c], r < rows <= kNBitsRows.
  void (*dots)(const NBitsPanel& p, int64_t rows, const float* x, int64_t x_stride, float (*sums)[kPanelColumns]);
  // out[k - k0][c] for k0 <= k < k1; k0 is a whole number of groups from the start of its block.
  void (*unpack)(const NBitsPanel& p, int64_t k0, int64_t k1, float* out);
  // Needs VNNI.
  void (*rounded_dots)(const NBitsPanel& p, int64_t rows, const NBitsRounded& x, float (*sums)[kPanelColumns]);
  // q[i] = x[i] / scale, rounded, for i < n; returns the scale.
  float (*round)(int64_t n, const float* x, int8_t* q);
};

const NBitsPanelIsa& avx512_nbits();

// Longer blocks overflow sums in i32.
constexpr int64_t kMostRoundedBlock = 1 << 15;

size_t nbits_workspace(const NBitsPanels& w, int64_t rows, bool rounded, int threads);
// x [rows, K], bias [N] or null -> y [rows, N].
void matmul_nbits_panels(const NBitsPanels& w, int64_t rows, const float* x, const float* bias, bool rounded, float* y, int threads,
                         std::byte* workspace);

}  // namespace ds::kernels
