// A panel of 16 channels at a time. Inside of the image eight columns of y share each weight, which is as many sums as
// hide the latency of the multiply-add; at its edges, where taps fall away, panels that lie side by side do instead.
#include "kernels/depthwise.h"
#include "kernels/finish_avx512.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kPanel = kDepthwisePanel;
constexpr int kColumns = 8, kPanels = 4;
constexpr int64_t kCachedBytes = 32 << 10, kLeastChunk = 4;  // panels

// What one row of y reads.
struct Row {
  const float* x;        // first row of the image that is read, column 0
  const float* w;        // first tap that is read, panel 0
  int64_t rows, taps;    // kernel rows and columns
  int64_t row_step, column_step, tap_step, panel_step;  // of x: kernel row, column of y, tap; of w: panel
};

struct Target {
  float* y;
  const float* addend;
  const float* bias;
  const Finish& finish;
  bool activates;  // here
};

inline void put(const Target& t, int64_t at, __mmask16 mask, __m512 v) {
  if (t.addend != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, t.addend + at));
  if (t.activates) v = activated(v, t.finish.epilogue);
  _mm512_mask_storeu_ps(t.y + at, mask, v);
}

inline __m512 bias_of(const Target& t, int64_t channel, __mmask16 mask) {
  return t.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, t.bias + channel);
}

// n columns of one panel, all of whose taps are inside. x, w: of the first column.
template <int n, bool kWhole>
inline void columns(const Row& r, const float* x, const float* w, __mmask16 mask, __m512 bias, const Target& t, int64_t at, int64_t channels) {
  __m512 sum[n];
  for (int j = 0; j < n; ++j) sum[j] = bias;
  for (int64_t ky = 0; ky < r.rows; ++ky, x += r.row_step) {
    const float* p = x;
    for (int64_t kx = 0; kx < r.taps; ++kx, p += r.tap_step, w += kPanel) {
      const __m512 weight = _mm512_loadu_ps(w);
#pragma GCC unroll 8
      for (int j = 0; j < n; ++j) {
        const float* q = p + j * r.column_step;
        sum[j] = _mm512_fmadd_ps(kWhole ? _mm512_loadu_ps(q) : _mm512_maskz_loadu_ps(mask, q), weight, sum[j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) put(t, at + j * channels, mask, sum[j]);
}

template <bool kWhole>
void columns(int64_t n, const Row& r, const float* x, const float* w, __mmask16 mask, __m512 bias, const Target& t, int64_t at, int64_t channels) {
  switch (n) {
    case 1: return columns<1, kWhole>(r, x, w, mask, bias, t, at, channels);
    case 2: return columns<2, kWhole>(r, x, w, mask, bias, t, at, channels);
    case 3: return columns<3, kWhole>(r, x, w, mask, bias, t, at, channels);
    case 4: return columns<4, kWhole>(r, x, w, mask, bias, t, at, channels);
    case 5: return columns<5, kWhole>(r, x, w, mask, bias, t, at, channels);
    case 6: return columns<6, kWhole>(r, x, w, mask, bias, t, at, channels);
    case 7: return columns<7, kWhole>(r, x, w, mask, bias, t, at, channels);
    default: return columns<kColumns, kWhole>(r, x, w, mask, bias, t, at, channels);
  }
}

// One column, taps [tap, tap + count) of each kernel row, n panels. x: of the first of these taps, at `channel`.
template <int n>
inline void panels(const Row& r, const float* x, int64_t tap, int64_t count, int64_t channel, __mmask16 mask, const Target& t, int64_t at) {
  __m512 sum[n];
  for (int j = 0; j < n; ++j) sum[j] = bias_of(t, channel + j * kPanel, mask);
  const float* w = r.w + channel / kPanel * r.panel_step + tap * kPanel;
  for (int64_t ky = 0; ky < r.rows; ++ky, x += r.row_step, w += r.taps * kPanel)
    for (int64_t kx = 0; kx < count; ++kx) {
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j)
        sum[j] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, x + kx * r.tap_step + j * kPanel),
                                 _mm512_loadu_ps(w + kx * kPanel + j * r.panel_step), sum[j]);
    }
  for (int j = 0; j < n; ++j) put(t, at + channel + j * kPanel, mask, sum[j]);
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }  // a >= 0

// Channels [first, last) of a column of y at the edge of the image.
void edge(const NhwcConv& s, const Row& r, const Target& t, int64_t ox, int64_t first, int64_t last) {
  const int64_t start = ox * s.stride_w - s.pad_left;
  const int64_t tap = start >= 0 ? 0 : least(s.kernel_w, up(-start, s.dilation_w));
  const int64_t end = s.width > start ? least(s.kernel_w, up(s.width - start, s.dilation_w)) : 0;
  const int64_t count = most(0, end - tap), at = ox * s.channels;
  const float* x = count == 0 ? r.x : r.x + (start + tap * s.dilation_w) * s.channels;
  const int64_t whole = last / kPanel * kPanel;
  int64_t c = first;
  for (; c + kPanels * kPanel <= whole; c += kPanels * kPanel) panels<kPanels>(r, x + c, tap, count, c, 0xffff, t, at);
  for (; c < whole; c += kPanel) panels<1>(r, x + c, tap, count, c, 0xffff, t, at);
  if (c < last) panels<1>(r, x + c, tap, count, c, static_cast<__mmask16>((1u << (last - c)) - 1), t, at);
}

}  // namespace

void depthwise_avx512(const NhwcConv& s, const float* x, const float* packed, const Finish& finish) {
  // Columns of y all of whose taps are inside.
  const int64_t reach = (s.kernel_w - 1) * s.dilation_w;
  const int64_t first = least(s.out_width, up(s.pad_left, s.stride_w));
  const int64_t room = s.width - 1 - reach + s.pad_left;
  const int64_t last = room < 0 ? first : most(first, least(s.out_width, room / s.stride_w + 1));
  const int64_t whole = s.channels / kPanel * kPanel;
  const auto tail = static_cast<__mmask16>((1u << (s.channels - whole)) - 1);
  const int64_t work = s.out_width * s.channels * s.kernel_h * s.kernel_w;
  const bool activates = is_simple(finish.epilogue.activation);
  // Channels whose input rows for one row of y stay in L1 until the next row wants most of them again.
  const int64_t fitting = kCachedBytes / most(1, s.kernel_h * s.width * kPanel * int64_t{sizeof(float)});
  const int64_t chunk = most(kLeastChunk, fitting) * kPanel;
  parallel_for(s.batch * s.out_height, (1 << 16) / most(1, work) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t c0 = 0; c0 < s.channels; c0 += chunk) {
      const int64_t c1 = least(s.channels, c0 + chunk);
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = row / s.out_height, start = row % s.out_height * s.stride_h - s.pad_top;
        const int64_t ky = start >= 0 ? 0 : least(s.kernel_h, up(-start, s.dilation_h));
        const int64_t ky_end = s.height > start ? least(s.kernel_h, up(s.height - start, s.dilation_h)) : 0;
        Row r;
        r.rows = most(0, ky_end - ky);
        r.x = x + (n * s.height + (r.rows == 0 ? 0 : start + ky * s.dilation_h)) * s.width * s.channels;
        r.w = packed + (r.rows == 0 ? 0 : ky) * s.kernel_w * kPanel;
        r.taps = s.kernel_w;
        r.row_step = s.dilation_h * s.width * s.channels;
        r.column_step = s.stride_w * s.channels;
        r.tap_step = s.dilation_w * s.channels;
        r.panel_step = s.kernel_h * s.kernel_w * kPanel;
        const int64_t at_row = row * s.out_width * s.channels;
        const Target t{static_cast<float*>(finish.y) + at_row, finish.addend == nullptr ? nullptr : static_cast<const float*>(finish.addend) + at_row,
                       finish.bias, finish, activates};
        for (int64_t ox = 0; ox < first; ++ox) edge(s, r, t, ox, c0, c1);
        for (int64_t ox = first; ox < last; ox += kColumns) {
          const int64_t count = least(kColumns, last - ox), at = ox * s.channels;
          const float* from = r.x + (ox * s.stride_w - s.pad_left) * s.channels;
          for (int64_t c = c0; c < least(whole, c1); c += kPanel)
            columns<true>(count, r, from + c, r.w + c / kPanel * r.panel_step, 0xffff, bias_of(t, c, 0xffff), t, at + c, s.channels);
          if (tail != 0 && c1 == s.channels)
            columns<false>(count, r, from + whole, r.w + whole / kPanel * r.panel_step, tail, bias_of(t, whole, tail), t, at + whole, s.channels);
        }
        for (int64_t ox = last; ox < s.out_width; ++ox) edge(s, r, t, ox, c0, c1);
        if (activates) continue;
        Finish rest;  // bias and addend are in
        rest.epilogue = finish.epilogue;
        rest.y = t.y;
        rest.channels = s.channels;
        finish_avx512(rest, 0, s.out_width, c0, c1 - c0, t.y + c0, s.channels);
      }
    }
  });
}

}  // namespace ds::kernels
