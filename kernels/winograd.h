// 3x3 convolutions of stride 1 with fewer multiplications than products: F(2x2, 3x3) and F(4x4, 3x3) of Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks", 2015.
//
// An out_tile x out_tile tile Y of output pixels is A^T [(G g G^T) . (B^T d B)] A: d the in_tile x in_tile input pixels that it
// reads (in_tile = out_tile + 2), g the 3x3 weights of an input and an output channel, . elementwise, summed over input
// channels before A is applied. So there are in_tile^2 positions, each a matrix product [tiles, C] x [C, M]: 16
// multiplications for 4 pixels (2.25 times fewer than 36), or 36 for 16 (4 times fewer than 144). G g G^T is worked out once,
// in f64, and packed in panels for the tiles of kernels/tile.h.
//
// Precision: everything is f32. F(2x2) interpolates at 0, +-1 and infinity, F(4x4) at 0, +-5/8, +-3/2 and infinity: points
// whose transforms grow little (Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
// Neural Networks", 2020) and whose coefficients are exact. Their largest error against f64, on normal numbers and on those
// that ReLU leaves of them, 16 to 256 channels, is 0.4 to 0.65 times that of direct f32 sums for F(2x2), which adds up fewer
// products at a time, and 1.9 to 2.7 times for F(4x4) (0, +-1, +-2 and infinity: 4 to 8 times);
// tests/kernels/winograd_test.cc holds them to 1 and 4 times. ResNet-50's results, up to 112, are 1.3e-4 off at most, with direct
// sums 1.1e-4. An infinity or NaN in x spreads over the tiles that read it, as NaN.
//
// Legend: see kernels/nhwc.h; x f32 without groups. Sums go to a ProductSink (kernels/packed_product.h), 2 panels of
// columns at a time.
// Threads: parallel_for over blocks of tiles and parts of the columns; each sum is added up in one order, whatever their number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/nhwc.h"
#include "kernels/packed_product.h"
#include "kernels/tile.h"

namespace ds::kernels {

// The interpolation points of F(4x4), and minus these.
constexpr double kWinogradNear = 0.625, kWinogradFar = 1.5;
constexpr int64_t kWinogradColumns = 2 * kPanelColumns;  // of output channels that are transformed together

// What depends on the instruction set, for one size of tiles. Raw loops over raw pointers.
struct WinogradTransforms {
  // B^T d B of one tile. pixels: in_tile^2 pointers to `channels` floats, line by line; position p goes to v + p * stride,
  // where room is for whole panels of channels.
  void (*input)(int64_t channels, const float* const* pixels, float* v, int64_t stride);
  // A^T s A of one tile: `columns` (16 or 32) sums of position p at s + p * stride; pixel (i, j) goes to
  // y + i * line + j * kWinogradColumns.
  void (*output)(int64_t columns, const float* s, int64_t stride, float* y, int64_t line);
  // G g G^T, in f64, of the weights of kPanelColumns output channels: taps [3, 3, kPanelColumns]; position p goes to u + p * stride.
  void (*weights)(const double* taps, float* u, int64_t stride);
};

const WinogradTransforms& avx2_winograd(int64_t out_tile);    // call only where the CPU has AVX2
const WinogradTransforms& avx512_winograd(int64_t out_tile);  // call only where the CPU has AVX-512

struct WinogradIsa {
  int64_t out_tile;
  const TileIsa& tile;  // f32, takes pieces
  const WinogradTransforms& transforms;
};

// For AVX2 and above.
WinogradIsa winograd_isa(int64_t out_tile, Isa isa);

// The out_tile that takes least time, 0 where direct sums do (or it is no such convolution). By count, from the shape alone, so
// that neither threads nor the machine's load choose the bits: products, the weights that are read for them (which are what
// decides where images are small) and the transforms, by cycles measured once.
int64_t winograd_out_tile(const NhwcConv& s);

// [pairs of panels][positions][panels of the pair][C][16]: what one pair of panels wants follows one another.
struct WinogradWeights {
  int64_t out_tile = 0, channels = 0, panels = 0;
  PackedBytes data;

  int64_t positions() const { return (out_tile + 2) * (out_tile + 2); }
  int64_t panel_bytes() const { return channels * kPanelRowBytes; }
  // Panels of the pair that begins with the even `p`.
  int64_t together(int64_t p) const { return p + 1 < panels ? 2 : 1; }
  const std::byte* pair(int64_t p, int64_t position) const {
    return data.data() + (p * positions() + position * together(p)) * panel_bytes();
  }
};

// Two packings of the same weights are equal when this text is.
std::string winograd_form(const WinogradIsa& isa);
// w: [M, C, 3, 3], neither M nor C zero; null: only sizes, no memory.
WinogradWeights pack_winograd(const WinogradIsa& isa, const NhwcConv& s, const float* w);

size_t winograd_workspace(const NhwcConv& s, const WinogradWeights& w, int threads);
void winograd_conv(const WinogradIsa& isa, const NhwcConv& s, const float* x, const WinogradWeights& w, const ProductSink& sink, int threads,
                   std::byte* workspace);

}  // namespace ds::kernels
