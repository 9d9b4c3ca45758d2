// Pooling on raw pointers, portable.
//
// Legend: x [planes, in...], y [planes, out...], planes = N*C; 1 to 3 spatial axes, row-major.
// Padding never wins a maximum; an average counts it only with count_pad, and then only as far as the
// declared padding reaches (a last window that ceil_mode pushes further is divided by less).
// Threads: parallel_for over planes, each computed in a fixed order. T: float, double; max_pool also
// int8_t and uint8_t.
#pragma once

#include <array>
#include <cstdint>

namespace ds::kernels {

// The arrays always hold three axes; absent ones come first, with size 1.
struct PoolShape {
  int spatial = 2;
  int64_t batch = 0, channels = 0;
  std::array<int64_t, 3> in{1, 1, 1}, out{1, 1, 1}, kernel{1, 1, 1};
  std::array<int64_t, 3> stride{1, 1, 1}, dilation{1, 1, 1}, pad_begin{0, 0, 0}, pad_end{0, 0, 0};

  int64_t planes() const { return batch * channels; }
  int64_t in_plane() const { return in[0] * in[1] * in[2]; }
  int64_t out_plane() const { return out[0] * out[1] * out[2]; }
  int64_t kernel_size() const { return kernel[0] * kernel[1] * kernel[2]; }
};

// `indices` (may be null): position of each maximum in the whole of x; the first one among equals.
// column_major counts positions inside a plane with the first spatial axis fastest. NaN wins.
template <typename T>
void max_pool(const PoolShape& s, const T* x, T* y, int64_t* indices, bool column_major);
// Each d_y goes to the first maximum of its window.
template <typename T>
void max_pool_grad(const PoolShape& s, const T* x, const T* d_y, T* d_x);
template <typename T>
void average_pool(const PoolShape& s, bool count_pad, const T* x, T* y);
template <typename T>
void average_pool_grad(const PoolShape& s, bool count_pad, const T* d_y, T* d_x);
// (sum of |x|^p over the window)^(1/p); padding is zero.
template <typename T>
void lp_pool(const PoolShape& s, int64_t p, const T* x, T* y);
template <typename T>
void lp_pool_grad(const PoolShape& s, int64_t p, const T* x, const T* y, const T* d_y, T* d_x);

}  // namespace ds::kernels
