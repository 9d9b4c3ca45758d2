// Pools over channels-innermost data, one source for all vector widths: internal linkage, no library code but threads.
//
// Vectors of channels; four side by side, so that a window of many positions (a global pool) does not wait for one
// addition after the other.
//
// Simd: V (a vector of kWidth floats), Lanes (those of a last vector that exist: first(n)), load and store (whole, or lanes;
// others read as zero), all, add, mul, max(a, b) (b where one is NaN), and Nans: add(v) notes where v is NaN,
// over(v) is NaN there and else v.
#pragma once

#include <cstddef>

#include "kernels/nhwc_pool.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

template <typename Simd>
class NhwcPool {
  using V = typename Simd::V;
  using Lanes = typename Simd::Lanes;
  static constexpr int64_t W = Simd::kWidth, kChunk = 64;  // channels of one item
  static constexpr int kBeside = 4;
  static constexpr int64_t kItemWork = 1 << 15;  // window elements worth a thread

 public:
  NhwcPool(const PoolShape& s, NhwcPooling pooling, const float* x, float* y) : s_(s), pooling_(pooling), x_(x), y_(y) {}

  void run() const {
    const int64_t rows = s_.batch * s_.out[1], chunks = (s_.channels + kChunk - 1) / kChunk;
    const int64_t work = s_.out[2] * s_.kernel_size() * kChunk;
    parallel_for(rows * chunks, kItemWork / (work > 0 ? work : 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t c = i % chunks * kChunk, last = c + kChunk < s_.channels ? c + kChunk : s_.channels;
        const int64_t row = i / chunks;
        const Span v = span(1, row % s_.out[1]);
        const float* x = x_ + (row / s_.out[1] * s_.in[1] + v.start) * s_.in[2] * s_.channels;
        float* y = y_ + row * s_.out[2] * s_.channels;
        for (int64_t ox = 0; ox < s_.out[2]; ++ox, y += s_.channels) pixel(v, span(2, ox), x, y, c, last);
      }
    });
  }

 private:
  // Of one axis: window positions [first, last) lie inside the image, `counted` of them inside the image or its padding.
  struct Span {
    int64_t first, last, counted, start;
  };
  Span span(size_t axis, int64_t out) const {
    const int64_t start = out * s_.stride[axis] - s_.pad_begin[axis];
    const int64_t step = s_.dilation[axis], kernel = s_.kernel[axis];
    const auto below = [&](int64_t end) {  // positions before `end`
      const int64_t room = end > start ? end - start : 0, n = step == 1 ? room : (room + step - 1) / step;
      return n < kernel ? n : kernel;
    };
    Span p;
    p.start = start;
    p.first = below(0);
    p.last = below(s_.in[axis]);
    p.counted = below(s_.in[axis] + s_.pad_end[axis]);
    return p;
  }

  // Channels [begin, end) of one pixel. x: the row of the image where the window begins, y: the pixel.
  void pixel(const Span& v, const Span& h, const float* x, float* y, int64_t begin, int64_t end) const {
    x += h.start * s_.channels;
    int64_t c = begin;
    for (; c + kBeside * W <= end; c += kBeside * W) reduce<kBeside, true>(v, h, x, y, c, Lanes());
    if (c + 2 * W <= end) {
      reduce<2, true>(v, h, x, y, c, Lanes());
      c += 2 * W;
    }
    for (; c + W <= end; c += W) reduce<1, true>(v, h, x, y, c, Lanes());
    if (c < end) reduce<1, false>(v, h, x, y, c, Simd::first(end - c));
  }

  template <int n, bool kWhole>
  void reduce(const Span& v, const Span& h, const float* x, float* y, int64_t channel, Lanes lanes) const {
    pooling_ == NhwcPooling::kMax ? maximum<n, kWhole>(v, h, x, y, channel, lanes) : average<n, kWhole>(v, h, x, y, channel, lanes);
  }

  template <bool kWhole>
  static V get(const float* p, Lanes lanes) {
    if constexpr (kWhole) return Simd::load(p);
    else return Simd::load(p, lanes);
  }
  template <bool kWhole>
  static void put(float* p, V v, Lanes lanes) {
    if constexpr (kWhole) Simd::store(p, v);
    else Simd::store(p, v, lanes);
  }

  // x: where the window begins, which may be outside of the image.
  const float* position(const float* x, int64_t ky, int64_t kx) const {
    return x + (ky * s_.dilation[1] * s_.in[2] + kx * s_.dilation[2]) * s_.channels;
  }

  template <int n, bool kWhole>
  void maximum(const Span& v, const Span& h, const float* x, float* y, int64_t channel, Lanes lanes) const {
    V most[n];
    typename Simd::Nans nans[n];
    for (int j = 0; j < n; ++j) most[j] = Simd::all(-__builtin_inff());
    for (int64_t ky = v.first; ky < v.last; ++ky)
      for (int64_t kx = h.first; kx < h.last; ++kx) {
        const float* p = position(x, ky, kx) + channel;
#pragma GCC unroll 4
        for (int j = 0; j < n; ++j) {
          const V value = get<kWhole>(p + j * W, lanes);
          most[j] = Simd::max(value, most[j]);
          nans[j].add(value);
        }
      }
    for (int j = 0; j < n; ++j) put<kWhole>(y + channel + j * W, nans[j].over(most[j]), lanes);
  }

  template <int n, bool kWhole>
  void average(const Span& v, const Span& h, const float* x, float* y, int64_t channel, Lanes lanes) const {
    V sum[n];
    for (int j = 0; j < n; ++j) sum[j] = Simd::all(0);
    for (int64_t ky = v.first; ky < v.last; ++ky) {
      V row[n];
      for (int j = 0; j < n; ++j) row[j] = Simd::all(0);
      for (int64_t kx = h.first; kx < h.last; ++kx) {
        const float* p = position(x, ky, kx) + channel;
#pragma GCC unroll 4
        for (int j = 0; j < n; ++j) row[j] = Simd::add(row[j], get<kWhole>(p + j * W, lanes));
      }
      for (int j = 0; j < n; ++j) sum[j] = Simd::add(sum[j], row[j]);
    }
    const int64_t count = pooling_ == NhwcPooling::kAverageWithPadding ? v.counted * h.counted : (v.last - v.first) * (h.last - h.first);
    const V scale = Simd::all(1.0f / static_cast<float>(count));
    for (int j = 0; j < n; ++j) put<kWhole>(y + channel + j * W, Simd::mul(sum[j], scale), lanes);
  }

  const PoolShape& s_;
  const NhwcPooling pooling_;
  const float* x_;
  float* y_;
};

}  // namespace
}  // namespace ds::kernels
