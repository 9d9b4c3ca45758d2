// Moving elements without arithmetic: strided copies (transpose, slice, concat, expand, tile), padding
// and triangular masks. Everything dispatches on the element size only, so one code serves all types.
//
// Sizes and strides are in elements; a stride may be 0 (repeat) or negative (walk backwards). The
// pointers given already point at the first element to read and to write.
// Threads: every function splits its work with parallel_for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ds::kernels {

// dst[i0*dst_stride[0] + i1*dst_stride[1] + ...] = src[i0*src_stride[0] + ...] over all index tuples.
// make_strided_copy() drops axes of size one and merges neighbours that both sides walk evenly.
struct StridedCopy {
  static constexpr int kMaxRank = 16;
  int rank = 0;
  int64_t size[kMaxRank], src_stride[kMaxRank], dst_stride[kMaxRank];
  int64_t total = 1;
  // Axis contiguous in src while the last axis is contiguous in dst: moved in square tiles, so that both
  // sides use whole cache lines. -1: there is none, rows are copied one by one.
  int tile_axis = -1;
};

StridedCopy make_strided_copy(int rank, const int64_t* size, const int64_t* src_stride, const int64_t* dst_stride);
void strided_copy(const StridedCopy& space, size_t element_size, const void* src, void* dst);

// n copies of the element at `value`.
void fill(int64_t n, size_t element_size, const void* value, void* dst);

enum class PadMode { kConstant, kReflect, kEdge, kWrap };

// Where each output index of each axis comes from (-1: the constant). Begins may be negative: cropping.
struct Pad {
  int rank = 0;
  std::vector<int64_t> in_stride, out_size;
  std::vector<std::vector<int64_t>> source;  // per axis, per output index
  int64_t run_begin = 0, run_end = 0;        // last axis: outputs [run_begin, run_end) read consecutive inputs
};

// Precondition: modes other than kConstant have in[d] > 0 wherever out[d] > 0.
Pad make_pad(int rank, const int64_t* in, const int64_t* out, const int64_t* begin, PadMode mode);
void pad(const Pad& p, size_t element_size, const void* src, const void* value, void* dst);
// Adjoint: d_src (zeroed here, n_in elements) receives the sum of the d_dst elements read from each place.
// Serial, in output order: the same bits every time.
template <typename T>
void pad_grad(const Pad& p, int64_t n_in, const T* d_dst, T* d_src);

// Keeps the elements on and above (upper) or below diagonal k of each [rows, cols] matrix, zero elsewhere.
void trilu(int64_t batch, int64_t rows, int64_t cols, int64_t k, bool upper, size_t element_size, const void* src,
           void* dst);

}  // namespace ds::kernels
