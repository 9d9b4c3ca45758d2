// Convolutions and matrix products with constant weights, on the tiles of kernels/tile.h.
//
// Weights are packed once. Rows of the left operand are found by pointers, piece by piece (a tap of the convolution, or a
// kernel row where channels are few), or gathered (im2col) for tiles that want them whole. Depth is cut so that a
// pair of panels stays in L1 (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008; pointers
// instead of copies after Dukhan, "The Indirect Convolution Algorithm", 2019). A finished block of sums goes to a sink
// while it is in L1: bias, activation, residual, rescaling are its business.
//
// Legend: see kernels/nhwc.h. Sums are f32, or i32 for 8 bits: sum = a . b with a taken as unsigned, which the sink
// corrects for zero points (column_sums), as it multiplies by column_scales where there are any.
// Threads: parallel_for over blocks of rows or columns; each sum is added up in one order, whatever their number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/nhwc.h"
#include "kernels/tile.h"

namespace ds::kernels {

// Memory on 64-byte boundaries.
class PackedBytes {
 public:
  PackedBytes() = default;
  explicit PackedBytes(size_t bytes);  // contents undefined
  static PackedBytes only_size(size_t bytes);  // says its size and has no memory
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  size_t size() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t bytes_ = 0;
};

// What one piece of a row's depth is.
enum class Piece {
  kAll,        // the whole row
  kKernelRow,  // kernel_w * channels values, which follow one another in x
  kTap         // the channels of one kernel position
};

// Per group of the convolution, panels of 16 output channels; depth ordered kernel row, kernel column, channel, each piece
// filled up with zeros to whole groups of 4 bytes; zeros beyond the edges.
struct PackedWeights {
  TileType type = TileType::kF32;
  Piece piece = Piece::kAll;
  int64_t panels = 0;                      // of one convolution group
  int64_t pieces = 0, piece_groups = 0;    // groups of 4 bytes of depth in a piece
  int64_t groups = 0;                      // of a panel: at least pieces * piece_groups
  PackedBytes data;
  std::vector<int32_t> column_sums;        // 8 bits: sums of the weights of each output channel
  std::vector<float> column_scales;        // what sums are to be multiplied by, per output channel; empty: by nothing

  size_t bytes() const { return data.size() + column_sums.size() * sizeof(int32_t) + column_scales.size() * sizeof(float); }
  int64_t panel_bytes() const { return groups * kPanelRowBytes; }
  const std::byte* panel(int64_t conv_group, int64_t p) const { return data.data() + (conv_group * panels + p) * panel_bytes(); }
};

// What weights are given as. kU8Shifted: unsigned with zero point 128.
enum class WeightType { kF32, kBf16, kF16, kS8, kU8Shifted };

// Two packings of the same weights are equal when this text is (it names all that pack_product() looks at beside them).
std::string packing_form(const TileIsa& isa, const NhwcConv& s, bool matrix);

// w is [M, C/G, KH, KW], or [depth, columns] row-major when `matrix`; null: only sizes, no memory.
PackedWeights pack_product(TileType type, const TileIsa& isa, const NhwcConv& s, bool matrix, const void* w, WeightType given);

// Whether tiles that saturate are exact for these weights: 255 (|w0| + |w1|) fits 16 bits for every two that one step adds.
bool pairs_fit(const TileIsa& isa, const NhwcConv& s, bool matrix, const void* w, WeightType given);

// What the left operand is given as.
enum class ActivationType { kF32, kBf16, kF16, kU8, kS8 };

struct ProductInput {
  const void* data = nullptr;
  ActivationType type = ActivationType::kF32;
  uint8_t zero = 0;  // 8 bits: what padding holds, as unsigned (a signed zero point plus 128)
  bool* beyond = nullptr;  // set (atomically) where numbers saturate on their way to f16
};

// Takes finished sums: output pixels [row, row + rows) x channels [column, column + columns), `stride` elements from
// row to row. Called from several threads at once for different blocks. Columns come in whole panels but for the last
// of a group.
class ProductSink {
 public:
  virtual ~ProductSink() = default;
  virtual void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const = 0;
  // What tiles shall do instead of take(), those that can: of all of y (`columns` does not matter); null: nothing.
  virtual const TileFinish* in_tiles() const { return nullptr; }
};

size_t product_workspace(const TileIsa& isa, const NhwcConv& s, const PackedWeights& w, ActivationType x, int threads);
void packed_product(const TileIsa& isa, const NhwcConv& s, const ProductInput& x, const PackedWeights& w, const ProductSink& sink,
                    int threads, std::byte* workspace);

}  // namespace ds::kernels
