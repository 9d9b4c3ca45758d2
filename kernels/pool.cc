#include "kernels/pool.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

int64_t grain_of(const PoolShape& s) { return (1 << 14) / std::max<int64_t>(1, s.out_plane() * s.kernel_size()) + 1; }

// Kernel positions [lo, hi) of an axis that fall inside the input, and the size an average divides by.
struct Span {
  int64_t start, lo, hi, padded;
};
Span span_of(const PoolShape& s, int d, int64_t o) {
  Span r;
  r.start = o * s.stride[d] - s.pad_begin[d];
  const auto first_at = [&](int64_t position) {  // least k with start + k*dilation >= position
    return position <= r.start ? int64_t{0} : (position - r.start + s.dilation[d] - 1) / s.dilation[d];
  };
  r.lo = std::min(s.kernel[d], first_at(0));
  r.hi = std::max(r.lo, std::min(s.kernel[d], first_at(s.in[d])));
  r.padded = std::min(s.kernel[d], first_at(s.in[d] + s.pad_end[d]));
  return r;
}

// body(output index in plane, z span, y span, x span) in row-major order.
template <typename Body>
void each_window(const PoolShape& s, Body body) {
  int64_t o = 0;
  for (int64_t z = 0; z < s.out[0]; ++z) {
    const Span sz = span_of(s, 0, z);
    for (int64_t y = 0; y < s.out[1]; ++y) {
      const Span sy = span_of(s, 1, y);
      for (int64_t x = 0; x < s.out[2]; ++x) body(o++, sz, sy, span_of(s, 2, x));
    }
  }
}

// body(input index in plane) over the part of a window that lies inside the input.
template <typename Body>
void each_position(const PoolShape& s, const Span& sz, const Span& sy, const Span& sx, Body body) {
  for (int64_t kz = sz.lo; kz < sz.hi; ++kz)
    for (int64_t ky = sy.lo; ky < sy.hi; ++ky) {
      const int64_t row = ((sz.start + kz * s.dilation[0]) * s.in[1] + sy.start + ky * s.dilation[1]) * s.in[2];
      for (int64_t kx = sx.lo; kx < sx.hi; ++kx) body(row + sx.start + kx * s.dilation[2]);
    }
}

// Position of the maximum of a window; -1 when the window sees only padding.
template <typename T>
int64_t arg_max(const PoolShape& s, const T* x, const Span& sz, const Span& sy, const Span& sx) {
  int64_t best = -1;
  each_position(s, sz, sy, sx, [&](int64_t i) {
    if (best < 0 || x[i] > x[best] || (x[i] != x[i] && x[best] == x[best])) best = i;
  });
  return best;
}

int64_t divisor(bool count_pad, const Span& sz, const Span& sy, const Span& sx) {
  const int64_t n = count_pad ? sz.padded * sy.padded * sx.padded : (sz.hi - sz.lo) * (sy.hi - sy.lo) * (sx.hi - sx.lo);
  return std::max<int64_t>(1, n);
}

}  // namespace

template <typename T>
void max_pool(const PoolShape& s, const T* x, T* y, int64_t* indices, bool column_major) {
  parallel_for(s.planes(), grain_of(s), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const T* in = x + p * s.in_plane();
      T* out = y + p * s.out_plane();
      each_window(s, [&](int64_t o, const Span& sz, const Span& sy, const Span& sx) {
        const int64_t best = arg_max(s, in, sz, sy, sx);
        out[o] = best < 0 ? std::numeric_limits<T>::lowest() : in[best];
        if (indices == nullptr) return;
        int64_t position = std::max<int64_t>(best, 0);
        if (column_major) {
          const int64_t w = position % s.in[2], h = position / s.in[2] % s.in[1], d = position / s.in[2] / s.in[1];
          position = d + s.in[0] * (h + s.in[1] * w);
        }
        indices[p * s.out_plane() + o] = p * s.in_plane() + position;
      });
    }
  });
}

template <typename T>
void max_pool_grad(const PoolShape& s, const T* x, const T* d_y, T* d_x) {
  parallel_for(s.planes(), grain_of(s), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const T* in = x + p * s.in_plane();
      const T* d_out = d_y + p * s.out_plane();
      T* d_in = d_x + p * s.in_plane();
      std::fill(d_in, d_in + s.in_plane(), T(0));
      each_window(s, [&](int64_t o, const Span& sz, const Span& sy, const Span& sx) {
        const int64_t best = arg_max(s, in, sz, sy, sx);
        if (best >= 0) d_in[best] += d_out[o];
      });
    }
  });
}

// dst += src, in pieces that become vectors.
template <typename T>
void add_to(int64_t n, const T* src, T* dst) {
  constexpr int64_t kPiece = 8;
  int64_t i = 0;
  for (; i + kPiece <= n; i += kPiece) {
    T sum[kPiece];
    for (int64_t j = 0; j < kPiece; ++j) sum[j] = dst[i + j] + src[i + j];
    for (int64_t j = 0; j < kPiece; ++j) dst[i + j] = sum[j];
  }
  for (; i < n; ++i) dst[i] += src[i];
}

// Sums of windows along one axis: src [outer, in[d], inner] -> dst [outer, out[d], inner].
template <typename T>
void window_sums(const PoolShape& s, int d, const std::vector<Span>& spans, int64_t outer, int64_t inner, const T* src, T* dst) {
  for (int64_t p = 0; p < outer; ++p, src += s.in[static_cast<size_t>(d)] * inner)
    for (const Span& span : spans) {
      const int64_t dilation = s.dilation[static_cast<size_t>(d)], step = dilation * inner;
      const T* row = src + (span.start + span.lo * dilation) * inner;
      if (inner == 1) {
        T sum = 0;
        for (int64_t k = span.lo; k < span.hi; ++k, row += step) sum += *row;
        *dst++ = sum;
        continue;
      }
      if (span.lo == span.hi) std::fill_n(dst, inner, T(0));  // nothing but padding
      for (int64_t k = span.lo; k < span.hi; ++k, row += step) {
        if (k == span.lo) std::copy_n(row, inner, dst);
        else add_to(inner, row, dst);
      }
      dst += inner;
    }
}

// A window is a product of three spans, and its sum is that of sums of sums.
template <typename T>
void average_pool(const PoolShape& s, bool count_pad, const T* x, T* y) {
  std::vector<Span> spans[3];
  std::vector<T> counts[3];  // what an average divides by is their product
  for (int d = 0; d < 3; ++d)
    for (int64_t o = 0; o < s.out[static_cast<size_t>(d)]; ++o) {
      const Span span = span_of(s, d, o);
      spans[d].push_back(span);
      counts[d].push_back(static_cast<T>(std::max<int64_t>(1, count_pad ? span.padded : span.hi - span.lo)));
    }
  parallel_for(s.planes(), grain_of(s), [&](int64_t begin, int64_t end) {
    std::vector<T> columns(static_cast<size_t>(s.in[0] * s.in[1] * s.out[2])), rows(static_cast<size_t>(s.in[0] * s.out[1] * s.out[2]));
    for (int64_t p = begin; p < end; ++p) {
      T* out = y + p * s.out_plane();
      window_sums(s, 2, spans[2], s.in[0] * s.in[1], 1, x + p * s.in_plane(), columns.data());
      window_sums(s, 1, spans[1], s.in[0], s.out[2], columns.data(), rows.data());
      window_sums(s, 0, spans[0], 1, s.out[1] * s.out[2], rows.data(), out);
      for (const T z : counts[0])
        for (const T y_count : counts[1])
          for (const T x_count : counts[2]) *out++ /= z * y_count * x_count;
    }
  });
}

template <typename T>
void average_pool_grad(const PoolShape& s, bool count_pad, const T* d_y, T* d_x) {
  parallel_for(s.planes(), grain_of(s), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const T* d_out = d_y + p * s.out_plane();
      T* d_in = d_x + p * s.in_plane();
      std::fill(d_in, d_in + s.in_plane(), T(0));
      each_window(s, [&](int64_t o, const Span& sz, const Span& sy, const Span& sx) {
        const T share = d_out[o] / static_cast<T>(divisor(count_pad, sz, sy, sx));
        each_position(s, sz, sy, sx, [&](int64_t i) { d_in[i] += share; });
      });
    }
  });
}

template <typename T>
void lp_pool(const PoolShape& s, int64_t p, const T* x, T* y) {
  const T exponent = static_cast<T>(p);
  parallel_for(s.planes(), grain_of(s), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const T* in = x + plane * s.in_plane();
      T* out = y + plane * s.out_plane();
      each_window(s, [&](int64_t o, const Span& sz, const Span& sy, const Span& sx) {
        T sum = 0;
        if (p == 1) each_position(s, sz, sy, sx, [&](int64_t i) { sum += std::abs(in[i]); });
        else if (p == 2) each_position(s, sz, sy, sx, [&](int64_t i) { sum += in[i] * in[i]; });
        else each_position(s, sz, sy, sx, [&](int64_t i) { sum += std::pow(std::abs(in[i]), exponent); });
        out[o] = p == 1 ? sum : p == 2 ? std::sqrt(sum) : std::pow(sum, 1 / exponent);
      });
    }
  });
}

// d y / d x = sign(x) * (|x| / y)^(p-1); nothing where y is 0.
template <typename T>
void lp_pool_grad(const PoolShape& s, int64_t p, const T* x, const T* y, const T* d_y, T* d_x) {
  const T exponent = static_cast<T>(p - 1);
  parallel_for(s.planes(), grain_of(s), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const T* in = x + plane * s.in_plane();
      const T *out = y + plane * s.out_plane(), *d_out = d_y + plane * s.out_plane();
      T* d_in = d_x + plane * s.in_plane();
      std::fill(d_in, d_in + s.in_plane(), T(0));
      each_window(s, [&](int64_t o, const Span& sz, const Span& sy, const Span& sx) {
        if (out[o] == 0) return;
        each_position(s, sz, sy, sx, [&](int64_t i) {
          const T ratio = std::abs(in[i]) / out[o];
          const T slope = p == 1 ? T(in[i] != 0) : p == 2 ? ratio : std::pow(ratio, exponent);
          d_in[i] += std::copysign(slope, in[i]) * d_out[o];
        });
      });
    }
  });
}

template void max_pool(const PoolShape&, const int8_t*, int8_t*, int64_t*, bool);
template void max_pool(const PoolShape&, const uint8_t*, uint8_t*, int64_t*, bool);
template void max_pool(const PoolShape&, const float*, float*, int64_t*, bool);
template void max_pool(const PoolShape&, const double*, double*, int64_t*, bool);
template void max_pool_grad(const PoolShape&, const float*, const float*, float*);
template void max_pool_grad(const PoolShape&, const double*, const double*, double*);
template void average_pool(const PoolShape&, bool, const float*, float*);
template void average_pool(const PoolShape&, bool, const double*, double*);
template void average_pool_grad(const PoolShape&, bool, const float*, float*);
template void average_pool_grad(const PoolShape&, bool, const double*, double*);
template void lp_pool(const PoolShape&, int64_t, const float*, float*);
template void lp_pool(const PoolShape&, int64_t, const double*, double*);
template void lp_pool_grad(const PoolShape&, int64_t, const float*, const float*, const float*, float*);
template void lp_pool_grad(const PoolShape&, int64_t, const double*, const double*, const double*, double*);

}  // namespace ds::kernels
