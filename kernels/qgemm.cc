#include "kernels/qgemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kColumns = QPackedWeights::kColumns;
constexpr int64_t kDepthBlock = 512;    // depth of one sweep: a panel of it (16 KiB) stays in L1
constexpr int64_t kPixelBlock = 16 * kQRows;
constexpr int64_t kChannelBlock = 256;  // channels whose sums are kept while sweeping
constexpr int64_t kRowStride = kDepthBlock + 32;  // off the 4 KiB grid

int32_t widen(const void* data, bool is_signed, int64_t i) {
  return is_signed ? static_cast<const int8_t*>(data)[i] : static_cast<const uint8_t*>(data)[i];
}

template <typename T>
void widen_row(int64_t n, const T* src, int32_t zero, int16_t* dst) {
  for (int64_t i = 0; i < n; ++i) dst[i] = static_cast<int16_t>(src[i] - zero);
}

void tile_portable(int64_t rows, int64_t pairs, const int16_t* a, int64_t stride, const int16_t* panel, bool accumulate,
                   int32_t* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    int32_t acc[kColumns];
    for (int64_t c = 0; c < kColumns; ++c) acc[c] = accumulate ? sums[r * kColumns + c] : 0;
    for (int64_t k = 0; k < pairs; ++k) {
      const int32_t a0 = a[r * stride + 2 * k], a1 = a[r * stride + 2 * k + 1];
      const int16_t* b = panel + k * kColumns * 2;
      for (int64_t c = 0; c < kColumns; ++c) acc[c] += a0 * b[2 * c] + a1 * b[2 * c + 1];
    }
    for (int64_t c = 0; c < kColumns; ++c) sums[r * kColumns + c] = acc[c];
  }
}

int32_t bounded(float f, int32_t zero, int32_t lo, int32_t hi) {
  f = std::min(std::max(f, static_cast<float>(lo - zero)), static_cast<float>(hi - zero));
  return static_cast<int32_t>(std::nearbyint(f)) + zero;
}

// One result of 8 bits; `addend` is what QRescale::addend has for it.
int32_t byte_of(float f, const QRescale& q, const std::byte* addend) {
  const int32_t y = bounded(f, q.zero, q.lo, q.hi);
  if (!q.adds_bytes()) return y;
  const QAddition& a = q.addition;
  const int32_t other = widen(addend, q.output == QOutput::kI8, 0);
  return bounded(static_cast<float>(y - q.zero) * a.ratio + static_cast<float>(other - a.addend_zero) * a.addend_ratio, a.zero, a.lo, a.hi);
}

void rescale_row(int64_t n, const int32_t* sums, const QRescale& q, void* out) {
  for (int64_t i = 0; i < n; ++i) {
    const auto sum = static_cast<int32_t>(static_cast<uint32_t>(sums[i]) + static_cast<uint32_t>(q.bias != nullptr ? q.bias[i] : 0));
    if (q.output == QOutput::kI32) {
      static_cast<int32_t*>(out)[i] = sum;
      continue;
    }
    float f = static_cast<float>(sum) * q.multiplier[i];
    if (q.float_bias != nullptr) f = f + q.float_bias[i];
    if (q.real) {
      if (q.addend != nullptr) f = f + static_cast<const float*>(q.addend)[i];
      apply_epilogue<float>(q.epilogue, 1, nullptr, &f);
    }
    if (q.output == QOutput::kF32) {
      static_cast<float*>(out)[i] = q.relu && f < 0 ? 0.0f : f;
      continue;
    }
    if (q.real) f *= q.inverse_scale;
    const int32_t y = byte_of(f, q, static_cast<const std::byte*>(q.addend) + (q.adds_bytes() ? i : 0));
    if (q.output == QOutput::kU8) static_cast<uint8_t*>(out)[i] = static_cast<uint8_t>(y);
    else static_cast<int8_t*>(out)[i] = static_cast<int8_t>(y);
  }
}

void rescale_portable(int64_t rows, int64_t n, const int32_t* sums, int64_t stride, const QRescale& q, void* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r) rescale_row(n, sums + r * stride, at_block(q, r, 0), static_cast<std::byte*>(out) + r * out_stride);
}

// Writes depth [begin, end) of one output pixel's operand row: kernel rows are runs of kernel_w * channels values,
// contiguous in x when there is one group and no horizontal dilation.
void gather_row(const QGemmIsa& isa, const NhwcConv& s, const QBytes& x, int64_t pixel, int64_t group, int64_t begin,
                int64_t end, int16_t* dst) {
  const int64_t ox = pixel % s.out_width, oy = pixel / s.out_width % s.out_height, n = pixel / (s.out_width * s.out_height);
  const int64_t gc = s.group_channels();
  const auto widen_run = [&](int64_t offset, int64_t count, int16_t* to) {
    if (x.is_signed) isa.widen_i8(count, static_cast<const int8_t*>(x.data) + offset, x.zero, to);
    else isa.widen_u8(count, static_cast<const uint8_t*>(x.data) + offset, x.zero, to);
  };
  const bool whole_rows = s.groups == 1 && s.dilation_w == 1;
  const int64_t taps = whole_rows ? s.kernel_w : 1, run = taps * gc;  // kernel positions and values that lie together in x
  int64_t tap_y = begin / run * taps / s.kernel_w, tap_x = begin / run * taps % s.kernel_w;
  for (int64_t k = begin, start = begin / run * run; k < end; start += run) {
    const int64_t stop = std::min(end, start + run);
    const int64_t iy = oy * s.stride_h - s.pad_top + tap_y * s.dilation_h;
    const int64_t ix = ox * s.stride_w - s.pad_left + tap_x * s.dilation_w;
    int16_t* to = dst + (k - begin);
    if (iy < 0 || iy >= s.height) {
      std::memset(to, 0, static_cast<size_t>(stop - k) * sizeof(int16_t));
    } else {
      // Inside the run, values [first, last) lie inside the row of x.
      const int64_t first = std::clamp(start + std::clamp<int64_t>(-ix, 0, taps) * gc, k, stop);
      const int64_t last = std::clamp(start + std::clamp<int64_t>(s.width - ix, 0, taps) * gc, first, stop);
      if (first > k) std::memset(to, 0, static_cast<size_t>(first - k) * sizeof(int16_t));
      if (last > first)
        widen_run(((n * s.height + iy) * s.width + ix) * s.channels + group * gc + (first - start), last - first, to + (first - k));
      if (stop > last) std::memset(to + (last - k), 0, static_cast<size_t>(stop - last) * sizeof(int16_t));
    }
    k = stop;
    tap_x += taps;
    if (tap_x >= s.kernel_w) {
      tap_x = 0;
      ++tap_y;
    }
  }
}

struct Blocks {
  int64_t pixels, channels;  // of one block
  int64_t pixel_blocks, channel_blocks;
  int64_t items(const NhwcConv& s) const { return pixel_blocks * channel_blocks * s.groups; }
};

// Whole tiles of pixels; channels are split as well when pixels alone would leave threads idle.
Blocks blocks_of(const NhwcConv& s, int threads) {
  Blocks b;
  const int64_t pixels = s.pixels(), channels = s.group_out();
  const int64_t count = std::max<int64_t>(1, (pixels + kPixelBlock - 1) / kPixelBlock);
  b.pixels = std::max(kQRows, ((pixels + count - 1) / count + kQRows - 1) / kQRows * kQRows);
  b.pixel_blocks = (pixels + b.pixels - 1) / b.pixels;
  b.channels = std::min(kChannelBlock, (channels + kColumns - 1) / kColumns * kColumns);
  const int64_t wanted = static_cast<int64_t>(threads) * (threads > 1 ? 2 : 1);
  while (b.channels > kColumns * 2 && b.pixel_blocks * s.groups * ((channels + b.channels - 1) / b.channels) < wanted)
    b.channels = (b.channels / 2 + kColumns - 1) / kColumns * kColumns;
  b.channel_blocks = (channels + b.channels - 1) / b.channels;
  return b;
}

constexpr size_t kGatherBytes = static_cast<size_t>(kPixelBlock * kRowStride) * sizeof(int16_t);
constexpr size_t kSumBytes = static_cast<size_t>(kPixelBlock * kChannelBlock) * sizeof(int32_t);
constexpr size_t kThreadBytes = kGatherBytes + kSumBytes;

// One block: pixels [p0, p1) x channels [c0, c1) of one group.
void qconv_block(const QGemmIsa& isa, const NhwcConv& s, const QBytes& x, const QPackedWeights& w, const QRescale& q, void* y,
                 int64_t group, int64_t p0, int64_t p1, int64_t c0, int64_t c1, std::byte* scratch) {
  auto* gathered = reinterpret_cast<int16_t*>(scratch);
  auto* sums = reinterpret_cast<int32_t*>(scratch + kGatherBytes);
  const int64_t depth = s.depth(), rows = p1 - p0;
  const int64_t first_panel = c0 / kColumns, last_panel = (c1 + kColumns - 1) / kColumns;
  for (int64_t k0 = 0; k0 < depth; k0 += kDepthBlock) {
    const int64_t k1 = std::min(depth, k0 + kDepthBlock), pairs = (k1 - k0 + 1) / 2;
    for (int64_t r = 0; r < rows; ++r) {
      int16_t* row = gathered + r * kRowStride;
      gather_row(isa, s, x, p0 + r, group, k0, k1, row);
      if ((k1 - k0) % 2 != 0) row[k1 - k0] = 0;
    }
    for (int64_t p = first_panel; p < last_panel; ++p) {
      const int16_t* panel = w.panel(group, p) + k0 / 2 * kColumns * 2;
      int32_t* panel_sums = sums + (p - first_panel) * kPixelBlock * kColumns;
      for (int64_t r = 0; r < rows; r += kQRows)
        isa.tile(std::min(kQRows, rows - r), pairs, gathered + r * kRowStride, kRowStride, panel, k0 > 0, panel_sums + r * kColumns);
    }
  }
  const size_t element = output_size(q.output);
  for (int64_t p = first_panel; p < last_panel; ++p) {
    const int64_t c = p * kColumns, n = std::min(kColumns, c1 - c), channel = group * s.group_out() + c;
    const QRescale moved = at_block(q, p0, channel);
    const int32_t* panel_sums = sums + (p - first_panel) * kPixelBlock * kColumns;
    isa.rescale(rows, n, panel_sums, kColumns, moved,
                static_cast<std::byte*>(y) + static_cast<size_t>(p0 * s.out_channels + channel) * element,
                s.out_channels * static_cast<int64_t>(element));
  }
}

}  // namespace

size_t output_size(QOutput output) { return output == QOutput::kU8 || output == QOutput::kI8 ? 1 : 4; }

QRescale at_block(const QRescale& q, int64_t row, int64_t channel) {
  QRescale moved = q;
  if (moved.bias != nullptr) moved.bias += channel;
  if (moved.multiplier != nullptr) moved.multiplier += channel;
  if (moved.float_bias != nullptr) moved.float_bias += channel;
  if (moved.addend != nullptr)
    moved.addend = static_cast<const std::byte*>(q.addend) + (row * q.addend_stride + channel) * (q.real ? static_cast<int64_t>(sizeof(float)) : 1);
  return moved;
}

QPackedWeights pack_weights(const NhwcConv& s, const void* w, bool is_signed, const int32_t* zero) {
  QPackedWeights packed;
  const int64_t gm = s.group_out(), gc = s.group_channels(), plane = s.kernel_h * s.kernel_w;
  packed.panels = (gm + kColumns - 1) / kColumns;
  packed.pairs = (s.depth() + 1) / 2;
  packed.data.assign(static_cast<size_t>(s.groups * packed.panels * packed.pairs * kColumns * 2), 0);
  for (int64_t m = 0; m < s.out_channels; ++m) {
    const int64_t group = m / gm, column = m % gm;
    int16_t* to = packed.data.data() + ((group * packed.panels + column / kColumns) * packed.pairs * kColumns + column % kColumns) * 2;
    for (int64_t t = 0; t < plane; ++t)
      for (int64_t c = 0; c < gc; ++c) {
        const int64_t k = t * gc + c;
        to[k / 2 * kColumns * 2 + k % 2] =
            static_cast<int16_t>(widen(w, is_signed, (m * gc + c) * plane + t) - (zero != nullptr ? zero[m] : 0));
      }
  }
  return packed;
}

QPackedWeights pack_matrix(int64_t depth, int64_t columns, const void* w, bool is_signed, const int32_t* zero) {
  QPackedWeights packed;
  packed.panels = (columns + kColumns - 1) / kColumns;
  packed.pairs = (depth + 1) / 2;
  packed.data.assign(static_cast<size_t>(packed.panels * packed.pairs * kColumns * 2), 0);
  for (int64_t k = 0; k < depth; ++k)
    for (int64_t m = 0; m < columns; ++m)
      packed.data[static_cast<size_t>(((m / kColumns * packed.pairs + k / 2) * kColumns + m % kColumns) * 2 + k % 2)] =
          static_cast<int16_t>(widen(w, is_signed, k * columns + m) - (zero != nullptr ? zero[m] : 0));
  return packed;
}

const QGemmIsa& portable_qgemm() {
  static constexpr QGemmIsa isa = {widen_row<uint8_t>, widen_row<int8_t>, tile_portable, rescale_portable};
  return isa;
}

// parallel_for hands a thread several ranges at most one after the other, each with scratch of its own: the
// number of ranges is bounded by the number of threads.
size_t qconv_workspace(const NhwcConv&, int threads) { return static_cast<size_t>(std::max(threads, 1)) * kThreadBytes; }

void qconv(const QGemmIsa& isa, const NhwcConv& s, const QBytes& x, const QPackedWeights& w, const QRescale& q, void* y,
           int threads, std::byte* workspace) {
  const Blocks b = blocks_of(s, threads);
  const int64_t items = b.items(s);
  if (items == 0) return;
  // One range per thread, numbered, so that each knows its scratch.
  const int64_t ranges = std::min<int64_t>(threads, items);
  parallel_for(ranges, 1, [&](int64_t first, int64_t last) {
    for (int64_t range = first; range < last; ++range) {
      std::byte* scratch = workspace + static_cast<size_t>(range) * kThreadBytes;
      for (int64_t i = items * range / ranges; i < items * (range + 1) / ranges; ++i) {
        const int64_t channel_block = i % b.channel_blocks, pixel_block = i / b.channel_blocks % b.pixel_blocks;
        const int64_t group = i / (b.channel_blocks * b.pixel_blocks);
        qconv_block(isa, s, x, w, q, y, group, pixel_block * b.pixels, std::min(s.pixels(), (pixel_block + 1) * b.pixels),
                    channel_block * b.channels, std::min(s.group_out(), (channel_block + 1) * b.channels), scratch);
      }
    }
  });
}

void qconv_reference(const NhwcConv& s, const QBytes& x, const void* w, bool w_signed, const int32_t* w_zero, const QRescale& q,
                     void* y) {
  const int64_t gm = s.group_out(), gc = s.group_channels();
  const size_t element = output_size(q.output);
  parallel_for(s.pixels(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t ox = p % s.out_width, oy = p / s.out_width % s.out_height, n = p / (s.out_width * s.out_height);
      for (int64_t m = 0; m < s.out_channels; ++m) {
        uint32_t sum = 0;  // wraps like every other kernel's sums
        const int32_t zero = w_zero != nullptr ? w_zero[m] : 0;
        for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
          const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
          if (iy < 0 || iy >= s.height) continue;
          for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
            const int64_t ix = ox * s.stride_w - s.pad_left + kx * s.dilation_w;
            if (ix < 0 || ix >= s.width) continue;
            const int64_t from = ((n * s.height + iy) * s.width + ix) * s.channels + m / gm * gc;
            for (int64_t c = 0; c < gc; ++c)
              sum += static_cast<uint32_t>((widen(x.data, x.is_signed, from + c) - x.zero) *
                                           (widen(w, w_signed, ((m * gc + c) * s.kernel_h + ky) * s.kernel_w + kx) - zero));
          }
        }
        const auto exact = static_cast<int32_t>(sum);
        rescale_row(1, &exact, at_block(q, p, m), static_cast<std::byte*>(y) + static_cast<size_t>(p * s.out_channels + m) * element);
      }
    }
  });
}

// --- depthwise --------------------------------------------------------------------------------------

namespace {

template <typename T>
void depthwise_sum(int64_t channels, int64_t taps, const void* const* x, int32_t zero, const int16_t* weights, int32_t* sums) {
  std::fill_n(sums, channels, 0);
  for (int64_t t = 0; t < taps; ++t) {
    if (x[t] == nullptr) continue;
    const T* from = static_cast<const T*>(x[t]);
    const int16_t* w = weights + t * channels;
    for (int64_t c = 0; c < channels; ++c) sums[c] += (from[c] - zero) * w[c];
  }
}

}  // namespace

const QDepthwiseIsa& portable_qdepthwise() {
  static constexpr QDepthwiseIsa isa = {
      [](int64_t channels, int64_t taps, const void* const* x, bool is_signed, int32_t zero, const int16_t* weights, int32_t* sums) {
        if (is_signed) depthwise_sum<int8_t>(channels, taps, x, zero, weights, sums);
        else depthwise_sum<uint8_t>(channels, taps, x, zero, weights, sums);
      }};
  return isa;
}

std::vector<int16_t> pack_depthwise(const NhwcConv& s, const void* w, bool is_signed, const int32_t* zero) {
  const int64_t plane = s.kernel_h * s.kernel_w;
  std::vector<int16_t> taps(static_cast<size_t>(plane * s.channels));
  for (int64_t c = 0; c < s.channels; ++c)
    for (int64_t t = 0; t < plane; ++t)
      taps[static_cast<size_t>(t * s.channels + c)] = static_cast<int16_t>(widen(w, is_signed, c * plane + t) - (zero != nullptr ? zero[c] : 0));
  return taps;
}

void qwindow_sums(const NhwcConv& s, const int32_t* pixels, int32_t* lines, int32_t* sums) {
  // Unsigned, as sums may wrap. First along the lines, then over them.
  const auto add = [](int32_t& to, int32_t v) { to = static_cast<int32_t>(static_cast<uint32_t>(to) + static_cast<uint32_t>(v)); };
  for (int64_t line = 0; line < s.batch * s.height; ++line)
    for (int64_t ox = 0; ox < s.out_width; ++ox) {
      int32_t& sum = lines[line * s.out_width + ox] = 0;
      for (int64_t kx = 0; kx < s.kernel_w; ++kx)
        if (const int64_t x = ox * s.stride_w - s.pad_left + kx * s.dilation_w; x >= 0 && x < s.width) add(sum, pixels[line * s.width + x]);
    }
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t oy = 0; oy < s.out_height; ++oy) {
      int32_t* to = sums + (n * s.out_height + oy) * s.out_width;
      std::fill_n(to, s.out_width, 0);
      for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
        const int64_t y = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
        if (y < 0 || y >= s.height) continue;
        for (int64_t ox = 0; ox < s.out_width; ++ox) add(to[ox], lines[(n * s.height + y) * s.out_width + ox]);
      }
    }
}

namespace {

constexpr int64_t kDepthwisePixels = 32;  // that are rescaled together

// Scratch of a thread: pointers of the taps, then sums.
size_t depthwise_scratch(const NhwcConv& s) {
  const auto pointers = static_cast<size_t>(s.kernel_h * s.kernel_w) * sizeof(void*);
  const auto sums = static_cast<size_t>(kDepthwisePixels * s.channels) * sizeof(int32_t);
  return (pointers + sums + 63) / 64 * 64;
}

}  // namespace

void qconv_depthwise(const QDepthwiseIsa& isa, QRescaleFn* rescale, const NhwcConv& s, const QBytes& x, const std::vector<int16_t>& taps,
                     const QRescale& q, void* y, int threads, std::byte* workspace) {
  const int64_t plane = s.kernel_h * s.kernel_w, pixels = s.pixels();
  if (pixels == 0) return;
  const auto pixel_bytes = static_cast<int64_t>(output_size(q.output)) * s.channels;
  const int64_t ranges = std::min<int64_t>(threads, pixels);
  parallel_for(ranges, 1, [&](int64_t first, int64_t last) {
    for (int64_t range = first; range < last; ++range) {
      std::byte* scratch = workspace + static_cast<size_t>(range) * depthwise_scratch(s);
      auto** from = reinterpret_cast<const void**>(scratch);
      auto* sums = reinterpret_cast<int32_t*>(scratch + static_cast<size_t>(plane) * sizeof(void*));
      const int64_t end = pixels * (range + 1) / ranges;
      for (int64_t p = pixels * range / ranges; p < end;) {
        const int64_t left = p % s.out_width, line = p / s.out_width, oy = line % s.out_height, n = line / s.out_height;
        const int64_t count = std::min({end - p, s.out_width - left, kDepthwisePixels});
        for (int64_t i = 0; i < count; ++i) {
          const void** tap = from;
          for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
            const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
            const uint8_t* row = iy >= 0 && iy < s.height ? static_cast<const uint8_t*>(x.data) + (n * s.height + iy) * s.width * s.channels : nullptr;
            int64_t ix = (left + i) * s.stride_w - s.pad_left;
            for (int64_t kx = 0; kx < s.kernel_w; ++kx, ix += s.dilation_w)
              *tap++ = row != nullptr && ix >= 0 && ix < s.width ? row + ix * s.channels : nullptr;
          }
          isa.sum(s.channels, plane, from, x.is_signed, x.zero, taps.data(), sums + i * s.channels);
        }
        rescale(count, s.channels, sums, s.channels, at_block(q, p, 0), static_cast<std::byte*>(y) + p * pixel_bytes, pixel_bytes);
        p += count;
      }
    }
  });
}

size_t qdepthwise_workspace(const NhwcConv& s, int threads) { return static_cast<size_t>(std::max(threads, 1)) * depthwise_scratch(s); }

}  // namespace ds::kernels
