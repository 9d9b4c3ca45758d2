// Matrix product with weights that stay packed in 2, 4 or 8 bits:
//
//   y[m, n] = bias[n] + sum over k of x[m, k] * (q[n, k] - zero[n, b]) * scale[n, b]
//
// in f32, where b = k / block, or group[k]. Weights become floats a few rows and a thousand columns at a time, in
// a buffer that stays in L1 and is used for all rows of x: memory sees the packed bytes only, once a product.
// Threads: parallel_for over n; results do not depend on it.
#pragma once

#include <cstdint>

namespace ds::kernels {

struct NBitsWeights {
  int64_t columns = 0, depth = 0, block = 32;  // N, K, values that share a scale
  int bits = 4;
  const uint8_t* data = nullptr;        // [N, blocks, block * bits / 8], the first value in the low bits
  const float* scale = nullptr;         // [N, blocks]
  const uint8_t* zero = nullptr;        // [N, ceil(blocks * bits / 8)], packed alike; or
  const float* float_zero = nullptr;    // [N, blocks]; neither: the middle of the range
  const int32_t* group = nullptr;       // [K], each below blocks; null: k / block

  int64_t blocks() const { return (depth + block - 1) / block; }
  int64_t block_bytes() const { return block * bits / 8; }
  int64_t zero_bytes() const { return (blocks() * bits + 7) / 8; }  // of one n
};

constexpr int64_t kNBitsColumns = 4;  // rows of weights at a time

// The parts that depend on the instruction set.
struct NBitsIsa {
  // out[i] = (q[i] - zero) * scale for i < n; q starts with the first value of a byte.
  void (*unpack)(int bits, int64_t n, const uint8_t* q, float zero, float scale, float* out);
  // sums[r][c] = x[r * x_stride ...] . w[c * w_stride ...] over n products, for r < rows (1 or 2) and all c.
  void (*dots)(int64_t rows, int64_t n, const float* x, int64_t x_stride, const float* w, int64_t w_stride,
               float sums[2][kNBitsColumns]);
};

const NBitsIsa& portable_nbits();
const NBitsIsa& avx2_nbits();  // only on CPUs with AVX2

// x [rows, K], bias [N] or null -> y [rows, N].
void matmul_nbits(const NBitsIsa& isa, const NBitsWeights& w, int64_t rows, const float* x, const float* bias, float* y);

}  // namespace ds::kernels
