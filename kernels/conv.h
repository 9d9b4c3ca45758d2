// Convolution on raw pointers, portable: direct loops whose innermost one runs along a row.
//
// Legend: x [N, C, in...], w [M, C/G, kernel...], y [N, M, out...], b [M], G groups; 1 to 3 spatial
// axes, row-major. y[n,m,o] = b[m] + sum over c,k of w[m,c,k] * x[n,c,o*stride + k*dilation - pad].
// Threads: parallel_for over outputs; every output is summed in one fixed order by one thread, so
// that results do not depend on the number of threads. T: float, double.
#pragma once

#include <array>
#include <cstdint>

namespace ds::kernels {

// Geometry of one convolution. The arrays always hold three axes; those a 1-D or 2-D convolution
// does not have come first, with size 1.
struct ConvShape {
  int spatial = 2;
  int64_t batch = 0, groups = 1, in_channels = 0, out_channels = 0;
  std::array<int64_t, 3> in{1, 1, 1}, out{1, 1, 1}, kernel{1, 1, 1};
  std::array<int64_t, 3> stride{1, 1, 1}, dilation{1, 1, 1}, pad_begin{0, 0, 0}, pad_end{0, 0, 0};

  int64_t in_plane() const { return in[0] * in[1] * in[2]; }
  int64_t out_plane() const { return out[0] * out[1] * out[2]; }
  int64_t kernel_size() const { return kernel[0] * kernel[1] * kernel[2]; }
};

// b may be null.
template <typename T>
void conv_forward(const ConvShape& s, const T* x, const T* w, const T* b, T* y);

// d_x from d_y: also the forward of ConvTranspose, whose input is d_y; b [C] is then its bias, else null.
template <typename T>
void conv_grad_input(const ConvShape& s, const T* d_y, const T* w, const T* b, T* d_x);

template <typename T>
void conv_grad_weight(const ConvShape& s, const T* x, const T* d_y, T* d_w);

}  // namespace ds::kernels
