#include "kernels/nbits.h"

#include <algorithm>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kDepth = 1024;  // of one sweep: kNBitsColumns rows of it take 16 KiB

inline int stored(int bits, const uint8_t* q, int64_t i) {
  const int64_t bit = i * bits;
  return (q[bit / 8] >> (bit % 8)) & ((1 << bits) - 1);
}

void unpack_portable(int bits, int64_t n, const uint8_t* q, float zero, float scale, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = (static_cast<float>(stored(bits, q, i)) - zero) * scale;
}

void dots_portable(int64_t rows, int64_t n, const float* x, int64_t x_stride, const float* w, int64_t w_stride,
                   float sums[2][kNBitsColumns]) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < kNBitsColumns; ++c) {
      float part[8] = {};  // eight sums side by side: shorter chains, less rounding
      const float *a = x + r * x_stride, *b = w + c * w_stride;
      int64_t i = 0;
      for (; i + 8 <= n; i += 8)
        for (int64_t j = 0; j < 8; ++j) part[j] += a[i + j] * b[i + j];
      for (int64_t j = 0; i < n; ++i, ++j) part[j] += a[i] * b[i];
      sums[r][c] = ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]));
    }
}

float zero_of(const NBitsWeights& w, int64_t n, int64_t b) {
  if (w.float_zero != nullptr) return w.float_zero[n * w.blocks() + b];
  if (w.zero != nullptr) return static_cast<float>(stored(w.bits, w.zero + n * w.zero_bytes(), b));
  return static_cast<float>(1 << (w.bits - 1));
}

// Weights [k0, k1) of column n; k0 is a multiple of kDepth.
void unpack_row(const NBitsIsa& isa, const NBitsWeights& w, int64_t n, int64_t k0, int64_t k1, float* out) {
  const int64_t blocks = w.blocks();
  const uint8_t* row = w.data + n * blocks * w.block_bytes();
  if (w.group != nullptr) {
    for (int64_t k = k0; k < k1; ++k) {
      const int64_t b = w.group[k];
      // Blocks fill whole bytes, so that the values of a row lie in one run.
      out[k - k0] = (static_cast<float>(stored(w.bits, row, k)) - zero_of(w, n, b)) * w.scale[n * blocks + b];
    }
    return;
  }
  for (int64_t k = k0; k < k1;) {
    const int64_t b = k / w.block, end = std::min(k1, (b + 1) * w.block);
    isa.unpack(w.bits, end - k, row + k * w.bits / 8, zero_of(w, n, b), w.scale[n * blocks + b], out + (k - k0));
    k = end;
  }
}

}  // namespace

const NBitsIsa& portable_nbits() {
  static constexpr NBitsIsa isa = {unpack_portable, dots_portable};
  return isa;
}

void matmul_nbits(const NBitsIsa& isa, const NBitsWeights& w, int64_t rows, const float* x, const float* bias, float* y) {
  const int64_t tiles = (w.columns + kNBitsColumns - 1) / kNBitsColumns;
  parallel_for(tiles, (1 << 15) / (w.depth + 1) + 1, [&](int64_t first, int64_t last) {
    alignas(64) float unpacked[kNBitsColumns * kDepth];
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t n0 = tile * kNBitsColumns, count = std::min(kNBitsColumns, w.columns - n0);
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t c = 0; c < count; ++c) y[m * w.columns + n0 + c] = bias != nullptr ? bias[n0 + c] : 0.0f;
      for (int64_t k0 = 0; k0 < w.depth; k0 += kDepth) {
        const int64_t k1 = std::min(w.depth, k0 + kDepth);
        for (int64_t c = 0; c < kNBitsColumns; ++c) {
          if (c < count) unpack_row(isa, w, n0 + c, k0, k1, unpacked + c * kDepth);
          else std::fill_n(unpacked + c * kDepth, k1 - k0, 0.0f);
        }
        for (int64_t m = 0; m < rows; m += 2) {
          const int64_t pair = std::min<int64_t>(2, rows - m);
          float sums[2][kNBitsColumns];
          isa.dots(pair, k1 - k0, x + m * w.depth + k0, w.depth, unpacked, kDepth, sums);
          for (int64_t r = 0; r < pair; ++r)
            for (int64_t c = 0; c < count; ++c) y[(m + r) * w.columns + n0 + c] += sums[r][c];
        }
      }
    }
  });
}

}  // namespace ds::kernels
