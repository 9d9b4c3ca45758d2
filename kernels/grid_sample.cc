#include "kernels/grid_sample.h"

#include <algorithm>
#include <cmath>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int kMostTaps = 4;

// What one point reads along one axis; index -1: a zero outside.
template <typename T>
struct Taps {
  int count = 1;
  int64_t index[kMostTaps] = {0, 0, 0, 0};
  T weight[kMostTaps] = {1, 0, 0, 0};
  T slope[kMostTaps] = {0, 0, 0, 0};  // of the weight by the point's coordinate
};

// Mirrors v at the borders until it is between them. `sign` becomes the slope.
template <typename T>
T reflect(T v, T low, T high, T& sign) {
  const T span = high - low;
  sign = 1;
  if (v >= low && v <= high) return v;
  if (!(span > 0)) return sign = 0, low;
  const bool below = v < low;
  const T beyond = below ? low - v : v - high;
  const T turns = std::floor(beyond / span), rest = beyond - turns * span;
  const bool odd = std::fmod(turns, T(2)) != 0;
  sign = odd ? T(1) : T(-1);
  return below != odd ? low + rest : high - rest;
}

template <typename T>
void cubic(T f, T* w, T* dw) {
  const T a = T(-0.75);
  const T far = f + 1, back = 1 - f, last = 2 - f;
  w[0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
  w[1] = ((a + 2) * f - (a + 3)) * f * f + 1;
  w[2] = ((a + 2) * back - (a + 3)) * back * back + 1;
  w[3] = ((a * last - 5 * a) * last + 8 * a) * last - 4 * a;
  dw[0] = (3 * a * far - 10 * a) * far + 8 * a;
  dw[1] = (3 * (a + 2) * f - 2 * (a + 3)) * f;
  dw[2] = -(3 * (a + 2) * back - 2 * (a + 3)) * back;
  dw[3] = -((3 * a * last - 10 * a) * last + 8 * a);
}

template <typename T>
Taps<T> taps_at(const GridSample& s, int64_t n, T coordinate) {
  Taps<T> t;
  const T size = static_cast<T>(n);
  T v = s.align_corners ? (coordinate + 1) / 2 * (size - 1) : ((coordinate + 1) * size - 1) / 2;
  T slope = s.align_corners ? (size - 1) / 2 : size / 2;
  if (!(v == v)) v = -100;  // not a number: outside
  v = std::clamp(v, T(-1e9), T(1e9));
  const T low = s.align_corners ? T(0) : T(-0.5), high = s.align_corners ? size - 1 : size - T(0.5);
  if (s.mode == GridMode::kNearest) v = std::nearbyint(v);
  // The four elements of a cubic are clamped one by one (taps below), as PyTorch and onnxruntime do: the curve goes on outside.
  if (s.padding == GridPadding::kBorder && s.mode != GridMode::kCubic && (v < low || v > high)) {
    v = std::clamp(v, T(0), size - 1);
    slope = 0;
  } else if (s.padding == GridPadding::kReflection) {
    T sign;
    v = reflect(v, low, high, sign);
    slope *= sign;
  }
  const auto inside = [&](int64_t i) -> int64_t {
    if (i >= 0 && i < n) return i;
    if (s.padding == GridPadding::kZeros) return -1;
    if (s.padding == GridPadding::kBorder) return std::clamp<int64_t>(i, 0, n - 1);
    T sign;
    return std::clamp<int64_t>(static_cast<int64_t>(reflect(static_cast<T>(i), low, high, sign)), 0, n - 1);
  };
  const T floor = std::floor(v), f = v - floor;
  const auto first = static_cast<int64_t>(floor);
  if (s.mode == GridMode::kNearest) {
    t.index[0] = inside(first);
  } else if (s.mode == GridMode::kLinear) {
    t.count = 2;
    t.index[0] = inside(first);
    t.index[1] = inside(first + 1);
    t.weight[0] = 1 - f;
    t.weight[1] = f;
    t.slope[0] = -slope;
    t.slope[1] = slope;
  } else {
    t.count = 4;
    cubic(f, t.weight, t.slope);
    for (int k = 0; k < 4; ++k) {
      t.index[k] = inside(first - 1 + k);
      t.slope[k] *= slope;
    }
  }
  return t;
}

// Of all axes, outermost first; a missing one reads element 0 with weight 1.
template <typename T>
std::array<Taps<T>, 3> taps_of(const GridSample& s, const T* point) {
  std::array<Taps<T>, 3> taps;
  for (int d = 0; d < s.axes; ++d) taps[static_cast<size_t>(2 - d)] = taps_at(s, s.in[static_cast<size_t>(2 - d)], point[d]);
  return taps;
}

// body(offset in the plane, tap of each axis) for what lies inside.
template <typename T, typename Body>
void each_element(const GridSample& s, const std::array<Taps<T>, 3>& t, Body body) {
  for (int i = 0; i < t[0].count; ++i) {
    if (t[0].index[i] < 0) continue;
    for (int j = 0; j < t[1].count; ++j) {
      if (t[1].index[j] < 0) continue;
      const int64_t row = (t[0].index[i] * s.in[1] + t[1].index[j]) * s.in[2];
      for (int k = 0; k < t[2].count; ++k)
        if (t[2].index[k] >= 0) body(row + t[2].index[k], i, j, k);
    }
  }
}

int64_t grain_of(int64_t work) { return (1 << 13) / std::max<int64_t>(1, work) + 1; }

// Coordinate of element i along an axis of n elements.
template <typename T>
T base_coordinate(int64_t i, int64_t n, bool align_corners) {
  if (align_corners) return n == 1 ? T(0) : T(-1) + 2 * static_cast<T>(i) / static_cast<T>(n - 1);
  return (2 * static_cast<T>(i) + 1) / static_cast<T>(n) - 1;
}

// Homogeneous coordinates of point p, last axis first.
template <typename T>
void base_point(int axes, const int64_t* size, bool align_corners, int64_t p, T* point) {
  for (int d = 0; d < axes; ++d) {
    const int64_t n = size[axes - 1 - d];
    point[d] = base_coordinate<T>(p % n, n, align_corners);
    p /= n;
  }
  point[axes] = 1;
}

int64_t point_count(int axes, const int64_t* size) {
  int64_t n = 1;
  for (int d = 0; d < axes; ++d) n *= size[d];
  return n;
}

}  // namespace

template <typename T>
void grid_sample(const GridSample& s, const T* x, const T* grid, T* y) {
  parallel_for(s.batch * s.points, grain_of(s.channels * 8), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const auto taps = taps_of(s, grid + p * s.axes);
      const int64_t n = p / s.points;
      const T* in = x + n * s.channels * s.plane();
      T* out = y + n * s.channels * s.points + p % s.points;
      for (int64_t c = 0; c < s.channels; ++c, in += s.plane(), out += s.points) {
        T sum = 0;
        each_element(s, taps, [&](int64_t at, int i, int j, int k) { sum += taps[0].weight[i] * taps[1].weight[j] * taps[2].weight[k] * in[at]; });
        *out = sum;
      }
    }
  });
}

template <typename T>
void grid_sample_grad_x(const GridSample& s, const T* grid, const T* d_y, T* d_x) {
  parallel_for(s.batch * s.channels, grain_of(s.points * 32), [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      T* to = d_x + q * s.plane();
      std::fill(to, to + s.plane(), T(0));
      const T* point = grid + q / s.channels * s.points * s.axes;
      for (int64_t p = 0; p < s.points; ++p, point += s.axes) {
        const auto taps = taps_of(s, point);
        const T d = d_y[q * s.points + p];
        each_element(s, taps, [&](int64_t at, int i, int j, int k) { to[at] += taps[0].weight[i] * taps[1].weight[j] * taps[2].weight[k] * d; });
      }
    }
  });
}

template <typename T>
void grid_sample_grad_grid(const GridSample& s, const T* x, const T* grid, const T* d_y, T* d_grid) {
  parallel_for(s.batch * s.points, grain_of(s.channels * 32), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const auto t = taps_of(s, grid + p * s.axes);
      const int64_t n = p / s.points;
      const T* in = x + n * s.channels * s.plane();
      const T* d = d_y + n * s.channels * s.points + p % s.points;
      T sum[3] = {0, 0, 0};
      for (int64_t c = 0; c < s.channels; ++c, in += s.plane(), d += s.points) {
        each_element(s, t, [&](int64_t at, int i, int j, int k) {
          const T v = in[at] * *d;
          sum[0] += t[0].slope[i] * t[1].weight[j] * t[2].weight[k] * v;
          sum[1] += t[0].weight[i] * t[1].slope[j] * t[2].weight[k] * v;
          sum[2] += t[0].weight[i] * t[1].weight[j] * t[2].slope[k] * v;
        });
      }
      for (int a = 0; a < s.axes; ++a) d_grid[p * s.axes + a] = sum[2 - a];
    }
  });
}

template <typename T>
void affine_grid(int64_t batch, int axes, const int64_t* size, bool align_corners, const T* theta, T* grid) {
  const int64_t points = point_count(axes, size);
  parallel_for(batch * points, grain_of(16), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      T base[4];
      base_point(axes, size, align_corners, p % points, base);
      const T* matrix = theta + p / points * axes * (axes + 1);
      for (int row = 0; row < axes; ++row) {
        T sum = 0;
        for (int c = 0; c <= axes; ++c) sum += matrix[row * (axes + 1) + c] * base[c];
        grid[p * axes + row] = sum;
      }
    }
  });
}

template <typename T>
void affine_base(int axes, const int64_t* size, bool align_corners, T* base) {
  const int64_t points = point_count(axes, size);
  for (int64_t p = 0; p < points; ++p) base_point(axes, size, align_corners, p, base + p * (axes + 1));
}

#define DS_GRID_SAMPLE(T)                                                                          \
  template void grid_sample(const GridSample&, const T*, const T*, T*);                            \
  template void grid_sample_grad_x(const GridSample&, const T*, const T*, T*);                     \
  template void grid_sample_grad_grid(const GridSample&, const T*, const T*, const T*, T*);        \
  template void affine_grid(int64_t, int, const int64_t*, bool, const T*, T*);                     \
  template void affine_base(int, const int64_t*, bool, T*);
DS_GRID_SAMPLE(float)
DS_GRID_SAMPLE(double)
#undef DS_GRID_SAMPLE

}  // namespace ds::kernels
