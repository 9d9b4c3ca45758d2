#include "kernels/deform.h"

#include <algorithm>
#include <cmath>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// Four elements around a point; those outside have index -1.
template <typename T>
struct Corners {
  int64_t at[4];
  T weight[4], by_y[4], by_x[4];  // the weights, and their slopes by the point's coordinates
};

template <typename T>
Corners<T> corners_of(const DeformShape& s, T y, T x) {
  Corners<T> c{};
  std::fill(c.at, c.at + 4, int64_t{-1});
  if (!(y > -1 && x > -1 && y < static_cast<T>(s.height) && x < static_cast<T>(s.width))) return c;
  const T fy = std::floor(y), fx = std::floor(x), ly = y - fy, lx = x - fx;
  const auto y0 = static_cast<int64_t>(fy), x0 = static_cast<int64_t>(fx);
  for (int k = 0; k < 4; ++k) {
    const int64_t row = y0 + k / 2, column = x0 + k % 2;
    if (row < 0 || column < 0 || row >= s.height || column >= s.width) continue;
    const T wy = k / 2 ? ly : 1 - ly, wx = k % 2 ? lx : 1 - lx;
    c.at[k] = row * s.width + column;
    c.weight[k] = wy * wx;
    c.by_y[k] = k / 2 ? wx : -wx;
    c.by_x[k] = k % 2 ? wy : -wy;
  }
  return c;
}

// Tap `t` of offset group `g` of image `n` at point `p`.
template <typename T>
Corners<T> corners_at(const DeformShape& s, const T* offset, int64_t n, int64_t g, int64_t t, int64_t p) {
  const T* moved = offset + ((n * s.offset_groups + g) * s.taps() + t) * 2 * s.points() + p;
  const int64_t row = p / s.out_w * s.stride_h - s.pad_top + t / s.kernel_w * s.dilation_h;
  const int64_t column = p % s.out_w * s.stride_w - s.pad_left + t % s.kernel_w * s.dilation_w;
  return corners_of(s, static_cast<T>(row) + moved[0], static_cast<T>(column) + moved[s.points()]);
}

int64_t mask_index(const DeformShape& s, int64_t n, int64_t g, int64_t t, int64_t p) {
  return ((n * s.offset_groups + g) * s.taps() + t) * s.points() + p;
}

template <typename T>
T sum_of(const T* weight, const int64_t* at, const T* in) {
  T sum = 0;
  for (int k = 0; k < 4; ++k)
    if (at[k] >= 0) sum += weight[k] * in[at[k]];
  return sum;
}

}  // namespace

template <typename T>
void deform_columns(const DeformShape& s, const T* x, const T* offset, const T* mask, T* columns) {
  // The channels of an offset group read the same points: the group is one piece of work per tap.
  parallel_for(s.batch * s.offset_groups * s.taps(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const int64_t t = q % s.taps(), g = q / s.taps() % s.offset_groups, n = q / s.taps() / s.offset_groups;
      for (int64_t p = 0; p < s.points(); ++p) {
        const Corners<T> c = corners_at(s, offset, n, g, t, p);
        const T scale = mask ? mask[mask_index(s, n, g, t, p)] : T(1);
        for (int64_t i = 0; i < s.per_group(); ++i) {
          const int64_t channel = n * s.channels + g * s.per_group() + i;
          columns[(channel * s.taps() + t) * s.points() + p] = scale * sum_of(c.weight, c.at, x + channel * s.plane());
        }
      }
    }
  });
}

template <typename T>
void deform_columns_grad_x(const DeformShape& s, const T* offset, const T* mask, const T* d_columns, T* d_x) {
  parallel_for(s.batch * s.channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t channel = begin; channel < end; ++channel) {
      const int64_t n = channel / s.channels, g = channel % s.channels / s.per_group();
      T* to = d_x + channel * s.plane();
      std::fill(to, to + s.plane(), T(0));
      for (int64_t t = 0; t < s.taps(); ++t)
        for (int64_t p = 0; p < s.points(); ++p) {
          const Corners<T> c = corners_at(s, offset, n, g, t, p);
          const T d = d_columns[(channel * s.taps() + t) * s.points() + p] * (mask ? mask[mask_index(s, n, g, t, p)] : T(1));
          for (int k = 0; k < 4; ++k)
            if (c.at[k] >= 0) to[c.at[k]] += c.weight[k] * d;
        }
    }
  });
}

template <typename T>
void deform_columns_grad_offset(const DeformShape& s, const T* x, const T* offset, const T* mask, const T* d_columns, T* d_offset) {
  parallel_for(s.batch * s.offset_groups * s.taps(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const int64_t t = q % s.taps(), g = q / s.taps() % s.offset_groups, n = q / s.taps() / s.offset_groups;
      T* to = d_offset + q * 2 * s.points();
      for (int64_t p = 0; p < s.points(); ++p) {
        const Corners<T> c = corners_at(s, offset, n, g, t, p);
        const T scale = mask ? mask[mask_index(s, n, g, t, p)] : T(1);
        T by_y = 0, by_x = 0;
        for (int64_t i = 0; i < s.per_group(); ++i) {
          const int64_t channel = n * s.channels + g * s.per_group() + i;
          const T d = d_columns[(channel * s.taps() + t) * s.points() + p] * scale;
          by_y += d * sum_of(c.by_y, c.at, x + channel * s.plane());
          by_x += d * sum_of(c.by_x, c.at, x + channel * s.plane());
        }
        to[p] = by_y;
        to[s.points() + p] = by_x;
      }
    }
  });
}

template <typename T>
void deform_columns_grad_mask(const DeformShape& s, const T* x, const T* offset, const T* d_columns, T* d_mask) {
  parallel_for(s.batch * s.offset_groups * s.taps(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const int64_t t = q % s.taps(), g = q / s.taps() % s.offset_groups, n = q / s.taps() / s.offset_groups;
      for (int64_t p = 0; p < s.points(); ++p) {
        const Corners<T> c = corners_at(s, offset, n, g, t, p);
        T sum = 0;
        for (int64_t i = 0; i < s.per_group(); ++i) {
          const int64_t channel = n * s.channels + g * s.per_group() + i;
          sum += d_columns[(channel * s.taps() + t) * s.points() + p] * sum_of(c.weight, c.at, x + channel * s.plane());
        }
        d_mask[q * s.points() + p] = sum;
      }
    }
  });
}

#define DS_DEFORM(T)                                                                                                   \
  template void deform_columns(const DeformShape&, const T*, const T*, const T*, T*);                                  \
  template void deform_columns_grad_x(const DeformShape&, const T*, const T*, const T*, T*);                           \
  template void deform_columns_grad_offset(const DeformShape&, const T*, const T*, const T*, const T*, T*);            \
  template void deform_columns_grad_mask(const DeformShape&, const T*, const T*, const T*, T*);
DS_DEFORM(float)
DS_DEFORM(double)
#undef DS_DEFORM

}  // namespace ds::kernels
