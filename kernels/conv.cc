#include "kernels/conv.h"

#include <algorithm>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kTile = 512;           // columns whose partial sums stay in the first-level cache
constexpr int kBlock = 4;                // channels computed together: each loaded row is used four times
constexpr int64_t kGrainMacs = 1 << 15;  // multiply-adds worth a thread

// A pointwise convolution sees its plane as one long row.
ConvShape flatten(ConvShape s) {
  for (int d = 0; d < 3; ++d)
    if (s.kernel[d] != 1 || s.stride[d] != 1 || s.pad_begin[d] != 0 || s.pad_end[d] != 0) return s;
  s.in = s.out = {1, 1, s.in_plane()};
  return s;
}

int64_t ceil_div(int64_t a, int64_t b) { return a <= 0 ? 0 : (a + b - 1) / b; }

// Outputs [lo, hi) of an axis whose input position o*stride + offset lies inside [0, size).
struct Range {
  int64_t lo, hi;
};
Range inside(int64_t offset, int64_t stride, int64_t size, int64_t outputs) {
  const int64_t last = size - 1 - offset;
  return {ceil_div(-offset, stride), last < 0 ? 0 : std::min(outputs, last / stride + 1)};
}

int64_t grain_of(int64_t work_per_item) { return kGrainMacs / std::max<int64_t>(1, work_per_item) + 1; }

// rows[r][j] += w[r] * x[j * step]
template <typename T>
void add_rows(int count, T* const* rows, const T* w, const T* x, int64_t step, int64_t n) {
  if (count == kBlock && step == 1) {
    T *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
    const T w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
    for (int64_t j = 0; j < n; ++j) {
      const T v = x[j];
      r0[j] += w0 * v;
      r1[j] += w1 * v;
      r2[j] += w2 * v;
      r3[j] += w3 * v;
    }
    return;
  }
  for (int r = 0; r < count; ++r) {
    T* row = rows[r];
    const T wr = w[r];
    if (step == 1) {
      for (int64_t j = 0; j < n; ++j) row[j] += wr * x[j];
    } else {
      for (int64_t j = 0; j < n; ++j) row[j] += wr * x[j * step];
    }
  }
}

// rows[r][j * step] += w[r] * d[j]
template <typename T>
void scatter_rows(int count, T* const* rows, const T* w, const T* d, int64_t step, int64_t n) {
  if (step == 1) return add_rows(count, rows, w, d, 1, n);
  for (int r = 0; r < count; ++r) {
    T* row = rows[r];
    const T wr = w[r];
    for (int64_t j = 0; j < n; ++j) row[j * step] += wr * d[j];
  }
}

}  // namespace

template <typename T>
void conv_forward(const ConvShape& shape, const T* x, const T* w, const T* b, T* y) {
  const ConvShape s = flatten(shape);
  const int64_t icg = s.in_channels / s.groups, ocg = s.out_channels / s.groups;
  const int64_t blocks = (ocg + kBlock - 1) / kBlock, rows = s.out[0] * s.out[1];
  const int64_t tiles = (s.out[2] + kTile - 1) / kTile;
  const int64_t ksize = s.kernel_size(), in_plane = s.in_plane(), out_plane = s.out_plane();
  const int64_t work = kBlock * std::min(kTile, s.out[2]) * icg * ksize;
  parallel_for(s.batch * s.groups * blocks * rows * tiles, grain_of(work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t rest = i;
      const int64_t tile = rest % tiles;
      rest /= tiles;
      const int64_t row = rest % rows;
      rest /= rows;
      const int64_t oc0 = rest % blocks * kBlock;
      rest /= blocks;
      const int64_t g = rest % s.groups, n = rest / s.groups;
      const int64_t oz = row / s.out[1], oy = row % s.out[1];
      const int64_t x0 = tile * kTile, x1 = std::min(s.out[2], x0 + kTile);
      const int count = static_cast<int>(std::min<int64_t>(kBlock, ocg - oc0));
      T* base[kBlock];
      for (int r = 0; r < count; ++r) {
        const int64_t oc = g * ocg + oc0 + r;
        base[r] = y + (n * s.out_channels + oc) * out_plane + row * s.out[2];
        std::fill(base[r] + x0, base[r] + x1, b == nullptr ? T(0) : b[oc]);
      }
      for (int64_t c = 0; c < icg; ++c) {
        const T* plane = x + (n * s.in_channels + g * icg + c) * in_plane;
        for (int64_t kz = 0; kz < s.kernel[0]; ++kz) {
          const int64_t iz = oz * s.stride[0] + kz * s.dilation[0] - s.pad_begin[0];
          if (iz < 0 || iz >= s.in[0]) continue;
          for (int64_t ky = 0; ky < s.kernel[1]; ++ky) {
            const int64_t iy = oy * s.stride[1] + ky * s.dilation[1] - s.pad_begin[1];
            if (iy < 0 || iy >= s.in[1]) continue;
            const T* in_row = plane + (iz * s.in[1] + iy) * s.in[2];
            for (int64_t kx = 0; kx < s.kernel[2]; ++kx) {
              const int64_t offset = kx * s.dilation[2] - s.pad_begin[2];
              const Range valid = inside(offset, s.stride[2], s.in[2], s.out[2]);
              const int64_t lo = std::max(valid.lo, x0), hi = std::min(valid.hi, x1);
              if (lo >= hi) continue;
              T* out_rows[kBlock];
              T weights[kBlock];
              for (int r = 0; r < count; ++r) {
                out_rows[r] = base[r] + lo;
                weights[r] = w[((g * ocg + oc0 + r) * icg + c) * ksize + (kz * s.kernel[1] + ky) * s.kernel[2] + kx];
              }
              add_rows(count, out_rows, weights, in_row + lo * s.stride[2] + offset, s.stride[2], hi - lo);
            }
          }
        }
      }
    }
  });
}

template <typename T>
void conv_grad_input(const ConvShape& shape, const T* d_y, const T* w, const T* b, T* d_x) {
  const ConvShape s = flatten(shape);
  const int64_t icg = s.in_channels / s.groups, ocg = s.out_channels / s.groups;
  const int64_t blocks = (icg + kBlock - 1) / kBlock, rows = s.in[0] * s.in[1];
  const int64_t ksize = s.kernel_size(), in_plane = s.in_plane(), out_plane = s.out_plane();
  const int64_t work = kBlock * s.in[2] * ocg * ksize;
  parallel_for(s.batch * s.groups * blocks * rows, grain_of(work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t rest = i;
      const int64_t row = rest % rows;
      rest /= rows;
      const int64_t ic0 = rest % blocks * kBlock;
      rest /= blocks;
      const int64_t g = rest % s.groups, n = rest / s.groups;
      const int64_t iz = row / s.in[1], iy = row % s.in[1];
      const int count = static_cast<int>(std::min<int64_t>(kBlock, icg - ic0));
      T* base[kBlock];
      for (int r = 0; r < count; ++r) {
        const int64_t ic = g * icg + ic0 + r;
        base[r] = d_x + (n * s.in_channels + ic) * in_plane + row * s.in[2];
        std::fill(base[r], base[r] + s.in[2], b == nullptr ? T(0) : b[ic]);
      }
      for (int64_t c = 0; c < ocg; ++c) {
        const int64_t oc = g * ocg + c;
        const T* plane = d_y + (n * s.out_channels + oc) * out_plane;
        for (int64_t kz = 0; kz < s.kernel[0]; ++kz) {
          // The output row that reads this input row through kernel position kz, if there is one.
          const int64_t tz = iz + s.pad_begin[0] - kz * s.dilation[0];
          if (tz < 0 || tz % s.stride[0] != 0 || tz / s.stride[0] >= s.out[0]) continue;
          for (int64_t ky = 0; ky < s.kernel[1]; ++ky) {
            const int64_t ty = iy + s.pad_begin[1] - ky * s.dilation[1];
            if (ty < 0 || ty % s.stride[1] != 0 || ty / s.stride[1] >= s.out[1]) continue;
            const T* out_row = plane + (tz / s.stride[0] * s.out[1] + ty / s.stride[1]) * s.out[2];
            for (int64_t kx = 0; kx < s.kernel[2]; ++kx) {
              const int64_t offset = kx * s.dilation[2] - s.pad_begin[2];
              const Range valid = inside(offset, s.stride[2], s.in[2], s.out[2]);
              if (valid.lo >= valid.hi) continue;
              T* in_rows[kBlock];
              T weights[kBlock];
              for (int r = 0; r < count; ++r) {
                in_rows[r] = base[r] + valid.lo * s.stride[2] + offset;
                weights[r] = w[(oc * icg + ic0 + r) * ksize + (kz * s.kernel[1] + ky) * s.kernel[2] + kx];
              }
              scatter_rows(count, in_rows, weights, out_row + valid.lo, s.stride[2], valid.hi - valid.lo);
            }
          }
        }
      }
    }
  });
}

template <typename T>
void conv_grad_weight(const ConvShape& shape, const T* x, const T* d_y, T* d_w) {
  const ConvShape s = flatten(shape);
  const int64_t icg = s.in_channels / s.groups, ocg = s.out_channels / s.groups;
  const int64_t ksize = s.kernel_size(), in_plane = s.in_plane(), out_plane = s.out_plane();
  constexpr int kLanes = 8;  // independent sums, in a fixed assignment of columns to lanes
  parallel_for(s.out_channels * icg, grain_of(s.batch * out_plane * ksize), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t oc = i / icg, c = i % icg, ic = oc / ocg * icg + c;
      for (int64_t k = 0; k < ksize; ++k) {
        const int64_t kx = k % s.kernel[2], ky = k / s.kernel[2] % s.kernel[1], kz = k / s.kernel[2] / s.kernel[1];
        const int64_t oz0 = kz * s.dilation[0] - s.pad_begin[0], oy0 = ky * s.dilation[1] - s.pad_begin[1];
        const int64_t ox0 = kx * s.dilation[2] - s.pad_begin[2];
        const Range rz = inside(oz0, s.stride[0], s.in[0], s.out[0]), ry = inside(oy0, s.stride[1], s.in[1], s.out[1]);
        const Range rx = inside(ox0, s.stride[2], s.in[2], s.out[2]);
        const int64_t width = rx.hi - rx.lo, step = s.stride[2];
        T lanes[kLanes] = {};
        for (int64_t n = 0; n < s.batch; ++n) {
          const T* in = x + (n * s.in_channels + ic) * in_plane;
          const T* out = d_y + (n * s.out_channels + oc) * out_plane;
          for (int64_t oz = rz.lo; oz < rz.hi; ++oz) {
            for (int64_t oy = ry.lo; oy < ry.hi; ++oy) {
              const T* p = in + ((oz * s.stride[0] + oz0) * s.in[1] + oy * s.stride[1] + oy0) * s.in[2] + rx.lo * step + ox0;
              const T* q = out + (oz * s.out[1] + oy) * s.out[2] + rx.lo;
              int64_t j = 0;
              if (step == 1) {
                for (; j + kLanes <= width; j += kLanes)
                  for (int l = 0; l < kLanes; ++l) lanes[l] += p[j + l] * q[j + l];
              } else {
                for (; j + kLanes <= width; j += kLanes)
                  for (int l = 0; l < kLanes; ++l) lanes[l] += p[(j + l) * step] * q[j + l];
              }
              for (int l = 0; j < width; ++j, ++l) lanes[l] += p[j * step] * q[j];
            }
          }
        }
        T sum = 0;
        for (T lane : lanes) sum += lane;
        d_w[i * ksize + k] = sum;
      }
    }
  });
}

template void conv_forward(const ConvShape&, const float*, const float*, const float*, float*);
template void conv_forward(const ConvShape&, const double*, const double*, const double*, double*);
template void conv_grad_input(const ConvShape&, const float*, const float*, const float*, float*);
template void conv_grad_input(const ConvShape&, const double*, const double*, const double*, double*);
template void conv_grad_weight(const ConvShape&, const float*, const float*, float*);
template void conv_grad_weight(const ConvShape&, const double*, const double*, double*);

}  // namespace ds::kernels
