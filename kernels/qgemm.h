// Exact integer convolution and matrix multiplication: 8-bit operands, 32-bit sums, then rescaling to
// 8-bit, float or plain 32-bit results.
//
// Legend: activations x [N, H, W, C] (channels innermost), weights w [M, C/G, KH, KW], result
// y [N, OH, OW, M], G groups. A matrix product [rows, K] x [K, M] is the case H = rows, C = K, all else 1.
//
//   sum[p, m] = bias[m] + sum over kernel positions and channels of (x - x_zero) * (w - w_zero[m])
//   y[p, m]   = clamp(round_half_even(sum * multiplier[m] + float_bias[m]), lo - zero, hi - zero) + zero
//
// A residual may be added, to the 8-bit result (QAddition) or in float before an activation (QRescale::real).
//
// Both operands are widened to 16 bits with their zero points subtracted, so that pairs of products can be
// added in 32 bits by one instruction (vpmaddwd on x86) and nothing ever saturates: every instruction
// set gives the same bits. Weights are widened and reordered once, when the kernel is made. The blocking is
// that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a block of
// output pixels is gathered (im2col) and widened into a private buffer that stays in cache, then swept
// by panels of kColumns output channels.
// Threads: parallel_for over blocks of pixels and channels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/epilogue.h"
#include "kernels/nhwc.h"

namespace ds::kernels {

enum class QOutput { kU8, kI8, kF32, kI32 };

// Adds an 8-bit residual to an 8-bit result, as quant_add() does it with both stored:
//   y' = clamp(round((y - zero) * ratio + (addend - addend_zero) * addend_ratio), lo - sum_zero, hi - sum_zero) + sum_zero
struct QAddition {
  float ratio = 1, addend_ratio = 1;
  int32_t addend_zero = 0, zero = 0, lo = 0, hi = 255;  // but the first, of the sum
};

// Rescaling of the sums. Arrays hold out_channels entries or are null. kF32: y = sum * multiplier +
// float_bias, cut below at zero when `relu`; kI32: the sums. lo and hi bound 8-bit results: a ReLU folded
// into a quantized result is lo = zero.
//
// `real`: v = activation(sum * multiplier + float_bias + addend) in float, which is the result, or is quantized:
// y = clamp(round(v * inverse_scale), lo - zero, hi - zero) + zero. Instruction sets agree on the activations up to
// rounding only.
struct QRescale {
  QOutput output = QOutput::kU8;
  const int32_t* bias = nullptr;
  const float* multiplier = nullptr;
  const float* float_bias = nullptr;
  int32_t zero = 0, lo = 0, hi = 255;
  bool relu = false;
  // Residual: like the result, which it may be itself; f32 when `real`, else 8 bits, as the result's. Points at the element
  // that belongs to the first result; rows lie addend_stride elements apart.
  const void* addend = nullptr;
  int64_t addend_stride = 0;
  QAddition addition;  // of an 8-bit addend
  bool real = false;
  Epilogue epilogue;   // `add` is ignored: the addend says it
  float inverse_scale = 1;

  bool adds_bytes() const { return addend != nullptr && !real; }
};

// `q` for the results from (row, channel) on.
QRescale at_block(const QRescale& q, int64_t row, int64_t channel);
size_t output_size(QOutput output);  // bytes of an element

// 8-bit operand: unsigned when is_signed is false.
struct QBytes {
  const void* data = nullptr;
  bool is_signed = false;
  int32_t zero = 0;
};

// Weights in the order of the kernels: per group, panels of kColumns channels, pairs of depth, columns, the two
// of the pair; depth ordered kernel row, kernel column, channel; zeros beyond the edges.
struct QPackedWeights {
  static constexpr int64_t kColumns = 16;
  std::vector<int16_t> data;
  int64_t panels = 0, pairs = 0;  // per group

  const int16_t* panel(int64_t group, int64_t p) const { return data.data() + (group * panels + p) * pairs * kColumns * 2; }
  size_t bytes() const { return data.size() * sizeof(int16_t); }
};

// w is [M, C/G, KH, KW]; zero points per output channel (null: zeros).
QPackedWeights pack_weights(const NhwcConv& s, const void* w, bool is_signed, const int32_t* zero);
// w is [depth, columns] row-major (a matrix product's right operand).
QPackedWeights pack_matrix(int64_t depth, int64_t columns, const void* w, bool is_signed, const int32_t* zero);

// The instruction-set dependent parts: raw loops over raw pointers.
struct QGemmIsa {
  // dst[i] = src[i] - zero.
  void (*widen_u8)(int64_t n, const uint8_t* src, int32_t zero, int16_t* dst);
  void (*widen_i8)(int64_t n, const int8_t* src, int32_t zero, int16_t* dst);
  // sums[r*kColumns + c] (+)= a[r*stride ...] . panel over `pairs` pairs, for rows < kRows.
  void (*tile)(int64_t rows, int64_t pairs, const int16_t* a, int64_t stride, const int16_t* panel, bool accumulate,
               int32_t* sums);
  // Rows of n results; q's arrays and out already point at the first channel. `stride`: sums from row to row;
  // `out_stride`: bytes.
  void (*rescale)(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const QRescale& q, void* out, int64_t out_stride);
};
constexpr int64_t kQRows = 6;  // most rows of a tile

const QGemmIsa& portable_qgemm();
const QGemmIsa& avx2_qgemm();  // only on CPUs with AVX2
// QGemmIsa::rescale, any n; only on CPUs that have the instructions.
using QRescaleFn = void(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const QRescale& q, void* out, int64_t out_stride);
QRescaleFn qrescale_avx512;
// The same for results that are floats, or `real`.
QRescaleFn qrescale_real_avx2, qrescale_real_avx512;

// What zero points of weights add to the sums: the sum of the part of x that belongs to a result, with x's zero point taken
// off, times a term per column.
//   row[r] = sum over k of (x[r, k] ^ flip) - off, x [rows, depth] bytes; flip 128 reads signed bytes as unsigned
using QRowSumsFn = void(int64_t rows, int64_t depth, const uint8_t* x, uint8_t flip, int32_t off, int32_t* row);
//   out[r, c] = sums[r * stride + c] + row[r] * column[c], rows of n
using QAddTermsFn = void(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const int32_t* row, const int32_t* column, int32_t* out);
QRowSumsFn qrow_sums_avx2;
QAddTermsFn qadd_terms_avx2, qadd_terms_avx512;
//   sums[n, oy, ox] = sum over the window of pixels[n, y, x], those outside left out; lines [N, H, OW] is scratch
void qwindow_sums(const NhwcConv& s, const int32_t* pixels, int32_t* lines, int32_t* sums);

// Scratch that qconv() needs for a number of threads.
size_t qconv_workspace(const NhwcConv& s, int threads);
void qconv(const QGemmIsa& isa, const NhwcConv& s, const QBytes& x, const QPackedWeights& w, const QRescale& q, void* y,
           int threads, std::byte* workspace);

// The definition above in plain loops; w [M, C/G, KH, KW].
void qconv_reference(const NhwcConv& s, const QBytes& x, const void* w, bool w_signed, const int32_t* w_zero, const QRescale& q,
                     void* y);

// Depthwise convolution (G = C = M) for channels-innermost data: channels are the vector.
// `taps` is [KH*KW, C] with zero points subtracted.
struct QDepthwiseIsa {
  // sums[c] over the taps; x[t] points at tap t's first channel, null where it lies in the padding.
  void (*sum)(int64_t channels, int64_t taps, const void* const* x, bool is_signed, int32_t zero, const int16_t* weights,
              int32_t* sums);
};
const QDepthwiseIsa& portable_qdepthwise();
const QDepthwiseIsa& avx2_qdepthwise();
std::vector<int16_t> pack_depthwise(const NhwcConv& s, const void* w, bool is_signed, const int32_t* zero);
size_t qdepthwise_workspace(const NhwcConv& s, int threads);
void qconv_depthwise(const QDepthwiseIsa& isa, QRescaleFn* rescale, const NhwcConv& s, const QBytes& x, const std::vector<int16_t>& taps,
                     const QRescale& q, void* y, int threads, std::byte* workspace);

}  // namespace ds::kernels
