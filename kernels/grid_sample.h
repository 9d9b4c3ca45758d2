// Sampling x at the points of a grid (GridSample), and the gradients.
//
// Legend: x [N, C, in...], grid [N, P, D], y [N, C, P]; D = 2 or 3 spatial axes, P points. A point
// names its coordinates in [-1, 1], last axis of x first. Along each axis it reads 1 (nearest),
// 2 (linear) or 4 (cubic, Keys with a = -0.75) elements, and the weights are the product over axes.
// Threads: parallel_for over points, or over planes where planes are summed into; every sum has one
// order. T: float, double.
#pragma once

#include <array>
#include <cstdint>

namespace ds::kernels {

enum class GridMode { kNearest, kLinear, kCubic };
enum class GridPadding { kZeros, kBorder, kReflection };

struct GridSample {
  int64_t batch = 0, channels = 0, points = 0;
  int axes = 2;                       // D
  std::array<int64_t, 3> in{1, 1, 1}; // the last D are used, the first is 1 when D = 2
  GridMode mode = GridMode::kLinear;
  GridPadding padding = GridPadding::kZeros;
  bool align_corners = false;

  int64_t plane() const { return in[0] * in[1] * in[2]; }
};

template <typename T>
void grid_sample(const GridSample& s, const T* x, const T* grid, T* y);
// d_x is overwritten.
template <typename T>
void grid_sample_grad_x(const GridSample& s, const T* grid, const T* d_y, T* d_x);
template <typename T>
void grid_sample_grad_grid(const GridSample& s, const T* x, const T* grid, const T* d_y, T* d_grid);

// Base points of AffineGrid transformed by theta [N, D, D+1]: grid [N, P, D], P the product of `size`
// (D sizes, row-major).
template <typename T>
void affine_grid(int64_t batch, int axes, const int64_t* size, bool align_corners, const T* theta, T* grid);
// The base points themselves, homogeneous: [P, D+1].
template <typename T>
void affine_base(int axes, const int64_t* size, bool align_corners, T* base);

}  // namespace ds::kernels
