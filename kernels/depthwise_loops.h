// Depthwise convolution, one source for all vector widths: internal linkage, no library code but threads.
//
// A vector of channels at a time. Inside of the image eight columns of y share each weight, which is as many sums as
// hide the latency of the multiply-add; at its edges, where taps fall away, vectors that lie side by side do instead.
//
// Simd: V (a vector of kWidth floats, which divides kDepthwisePanel), Lanes (those of a last vector that exist: first(n)),
// load and store (whole, or lanes; others read as zero), fma, add, zero, activated(v, epilogue) for activations that are
// is_simple(), finish(...) for all.
#pragma once

#include "kernels/depthwise.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }  // a >= 0

template <typename Simd>
class Depthwise {
  using V = typename Simd::V;
  using Lanes = typename Simd::Lanes;
  static constexpr int64_t W = Simd::kWidth, kPanel = kDepthwisePanel;
  static constexpr int kColumns = 8, kBeside = 4;
  static constexpr int64_t kCachedBytes = 32 << 10, kLeastChunk = 64;  // channels

 public:
  Depthwise(const NhwcConv& s, const float* x, const float* packed, const Finish& finish)
      : s_(s), x_(x), packed_(packed), finish_(finish), simple_(is_simple(finish.epilogue.activation)), whole_(s.channels / W * W) {}

  void run() const {
    const int64_t work = s_.out_width * s_.channels * s_.kernel_h * s_.kernel_w;
    // Channels whose input rows for one row of y stay in L1 until the next row wants most of them again.
    const int64_t fitting = kCachedBytes / most(1, s_.kernel_h * s_.width * kPanel * int64_t{sizeof(float)});
    const int64_t chunk = most(kLeastChunk, fitting * kPanel);
    parallel_for(s_.batch * s_.out_height, (1 << 16) / most(1, work) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = 0; c < s_.channels; c += chunk)
        for (int64_t row = begin; row < end; ++row) run_row(row, c, least(s_.channels, c + chunk));
    });
  }

 private:
  // What one row of y reads, and where it goes.
  struct Row {
    const float* x = nullptr;      // first row of the image that is read, column 0
    const float* w = nullptr;      // first tap that is read, panel 0
    int64_t rows = 0, taps = 0;    // kernel rows and columns
    int64_t row_step = 0, column_step = 0, tap_step = 0, panel_step = 0;  // of x: kernel row, column of y, tap; of w: panel
    float* y = nullptr;
    const float* addend = nullptr;

    const float* weights(int64_t channel) const { return w + channel / kPanel * panel_step + channel % kPanel; }
  };

  Row row_at(int64_t row) const {
    const int64_t n = row / s_.out_height, start = row % s_.out_height * s_.stride_h - s_.pad_top;
    const int64_t ky = start >= 0 ? 0 : least(s_.kernel_h, up(-start, s_.dilation_h));
    const int64_t end = s_.height > start ? least(s_.kernel_h, up(s_.height - start, s_.dilation_h)) : 0;
    Row r;
    r.rows = most(0, end - ky);
    r.x = x_ + (n * s_.height + (r.rows == 0 ? 0 : start + ky * s_.dilation_h)) * s_.width * s_.channels;
    r.w = packed_ + (r.rows == 0 ? 0 : ky) * s_.kernel_w * kPanel;
    r.taps = s_.kernel_w;
    r.row_step = s_.dilation_h * s_.width * s_.channels;
    r.column_step = s_.stride_w * s_.channels;
    r.tap_step = s_.dilation_w * s_.channels;
    r.panel_step = s_.kernel_h * s_.kernel_w * kPanel;
    const int64_t at = row * s_.out_width * s_.channels;
    r.y = static_cast<float*>(finish_.y) + at;
    if (finish_.addend != nullptr) r.addend = static_cast<const float*>(finish_.addend) + at;
    return r;
  }

  // Channels [begin, end) of a row of y.
  void run_row(int64_t row, int64_t begin, int64_t end) const {
    const Row r = row_at(row);
    // Columns of y all of whose taps are inside.
    const int64_t first = least(s_.out_width, up(s_.pad_left, s_.stride_w));
    const int64_t room = s_.width - 1 - (s_.kernel_w - 1) * s_.dilation_w + s_.pad_left;
    const int64_t last = room < 0 ? first : most(first, least(s_.out_width, room / s_.stride_w + 1));
    for (int64_t ox = 0; ox < first; ++ox) edge(r, ox, begin, end);
    for (int64_t ox = first; ox < last; ox += kColumns) {
      const int64_t count = least(kColumns, last - ox), at = ox * s_.channels;
      const float* from = r.x + (ox * s_.stride_w - s_.pad_left) * s_.channels;
      for (int64_t c = begin; c < least(whole_, end); c += W) columns<true>(count, r, from + c, c, Lanes(), at + c);
      if (end == s_.channels && whole_ < end) columns<false>(count, r, from + whole_, whole_, Simd::first(end - whole_), at + whole_);
    }
    for (int64_t ox = last; ox < s_.out_width; ++ox) edge(r, ox, begin, end);
    if (simple_) return;
    Finish rest;  // bias and addend are in
    rest.epilogue = finish_.epilogue;
    rest.y = r.y;
    rest.channels = s_.channels;
    Simd::finish(rest, 0, s_.out_width, begin, end - begin, r.y + begin, s_.channels);
  }

  template <bool kWhole>
  static V get(const float* p, Lanes lanes) {
    if constexpr (kWhole) return Simd::load(p);
    else return Simd::load(p, lanes);
  }

  template <bool kWhole>
  V bias_of(int64_t channel, Lanes lanes) const {
    return finish_.bias == nullptr ? Simd::zero() : get<kWhole>(finish_.bias + channel, lanes);
  }

  template <bool kWhole>
  void put(const Row& r, int64_t at, Lanes lanes, V v) const {
    if (r.addend != nullptr) v = Simd::add(v, get<kWhole>(r.addend + at, lanes));
    if (simple_) v = Simd::activated(v, finish_.epilogue);
    if constexpr (kWhole) Simd::store(r.y + at, v);
    else Simd::store(r.y + at, v, lanes);
  }

  // n columns of one vector, all of whose taps are inside. x: of the first column.
  template <int n, bool kWhole>
  void columns_of(const Row& r, const float* x, int64_t channel, Lanes lanes, int64_t at) const {
    V sum[n];
    const V bias = bias_of<kWhole>(channel, lanes);
    const float* w = r.weights(channel);
    for (int j = 0; j < n; ++j) sum[j] = bias;
    for (int64_t ky = 0; ky < r.rows; ++ky, x += r.row_step) {
      const float* p = x;
      for (int64_t kx = 0; kx < r.taps; ++kx, p += r.tap_step, w += kPanel) {
        const V weight = Simd::load(w);
#pragma GCC unroll 8
        for (int j = 0; j < n; ++j) sum[j] = Simd::fma(get<kWhole>(p + j * r.column_step, lanes), weight, sum[j]);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) put<kWhole>(r, at + j * s_.channels, lanes, sum[j]);
  }

  template <bool kWhole>
  void columns(int64_t n, const Row& r, const float* x, int64_t channel, Lanes lanes, int64_t at) const {
    switch (n) {
      case 1: return columns_of<1, kWhole>(r, x, channel, lanes, at);
      case 2: return columns_of<2, kWhole>(r, x, channel, lanes, at);
      case 3: return columns_of<3, kWhole>(r, x, channel, lanes, at);
      case 4: return columns_of<4, kWhole>(r, x, channel, lanes, at);
      case 5: return columns_of<5, kWhole>(r, x, channel, lanes, at);
      case 6: return columns_of<6, kWhole>(r, x, channel, lanes, at);
      case 7: return columns_of<7, kWhole>(r, x, channel, lanes, at);
      default: return columns_of<kColumns, kWhole>(r, x, channel, lanes, at);
    }
  }

  // One column, taps [tap, tap + count) of each kernel row, n vectors. x: of the first of these taps, channel 0.
  template <int n, bool kWhole>
  void beside(const Row& r, const float* x, int64_t tap, int64_t count, int64_t channel, Lanes lanes, int64_t at) const {
    V sum[n];
    const float* w[n];
    for (int j = 0; j < n; ++j) {
      sum[j] = bias_of<kWhole>(channel + j * W, lanes);
      w[j] = r.weights(channel + j * W) + tap * kPanel;
    }
    x += channel;
    for (int64_t ky = 0; ky < r.rows; ++ky, x += r.row_step)
      for (int64_t kx = 0; kx < count; ++kx) {
#pragma GCC unroll 4
        for (int j = 0; j < n; ++j)
          sum[j] = Simd::fma(get<kWhole>(x + kx * r.tap_step + j * W, lanes), Simd::load(w[j] + (ky * r.taps + kx) * kPanel), sum[j]);
      }
    for (int j = 0; j < n; ++j) put<kWhole>(r, at + channel + j * W, lanes, sum[j]);
  }

  // Channels [begin, end) of a column of y at the edge of the image.
  void edge(const Row& r, int64_t ox, int64_t begin, int64_t end) const {
    const int64_t start = ox * s_.stride_w - s_.pad_left;
    const int64_t tap = start >= 0 ? 0 : least(s_.kernel_w, up(-start, s_.dilation_w));
    const int64_t last = s_.width > start ? least(s_.kernel_w, up(s_.width - start, s_.dilation_w)) : 0;
    const int64_t count = most(0, last - tap), at = ox * s_.channels, whole = end / W * W;
    const float* x = count == 0 ? r.x : r.x + (start + tap * s_.dilation_w) * s_.channels;
    int64_t c = begin;
    for (; c + kBeside * W <= whole; c += kBeside * W) beside<kBeside, true>(r, x, tap, count, c, Lanes(), at);
    for (; c < whole; c += W) beside<1, true>(r, x, tap, count, c, Lanes(), at);
    if (c < end) beside<1, false>(r, x, tap, count, c, Simd::first(end - c), at);
  }

  const NhwcConv& s_;
  const float *x_, *packed_;
  const Finish& finish_;
  const bool simple_;      // the activation is done here
  const int64_t whole_;    // channels in whole vectors
};

}  // namespace
}  // namespace ds::kernels
