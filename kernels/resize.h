// Resampling one axis at a time.
//
// Legend: src [outer, in, inner] -> dst [outer, out, inner]. Each output position is a weighted sum
// of `taps` input positions (1 nearest, 2 linear, 4 cubic, more of them against aliasing); a resize of several axes is one pass per
// axis, since its weights are a product. Threads: parallel_for over outer (and out); every sum has one order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ds::kernels {

struct AxisTaps {
  int64_t in = 0, out = 0;
  int taps = 1;
  std::vector<int64_t> index;   // [out, taps], each in [0, in)
  std::vector<double> weight;   // [out, taps]
  std::vector<int64_t> outside; // output positions that read nothing: all their weights are 0
};

// T: float, double.
template <typename T>
void resize_axis(int64_t outer, const AxisTaps& axis, int64_t inner, const T* src, T* dst);

// The same by vectors. AxisTaps as plain pointers: what is compiled for one instruction set uses no library templates.
struct TapsView {
  int64_t in, out;
  int taps;
  const int64_t* index;
  const double* weight;
};
using ResizeAxisFn = void(int64_t outer, const TapsView& axis, int64_t inner, const float* src, float* dst);
ResizeAxisFn resize_axis_avx2;
ResizeAxisFn resize_axis_avx512;  // call only where the CPU has AVX-512

// Transpose of the above: d_dst [outer, out, inner] -> d_src [outer, in, inner], overwritten.
template <typename T>
void resize_axis_grad(int64_t outer, const AxisTaps& axis, int64_t inner, const T* d_dst, T* d_src);

// One tap of weight one, any element type of `element` bytes.
void resize_axis_copy(int64_t outer, const AxisTaps& axis, int64_t inner, size_t element, const std::byte* src, std::byte* dst);

// The same along two neighbouring axes at once: src [outer, rows.in, columns.in, inner].
void resize_plane_copy(int64_t outer, const AxisTaps& rows, const AxisTaps& columns, int64_t inner, size_t element, const std::byte* src,
                       std::byte* dst);

}  // namespace ds::kernels
