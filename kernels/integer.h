// Integer products with zero points, in plain loops over channels-first data: what ONNX defines for
// MatMulInteger, ConvInteger, QLinearMatMul and QLinearConv. Sums are 32-bit and wrap.
// Threads: parallel_for over outputs.
#pragma once

#include <cstdint>

#include "kernels/conv.h"
#include "kernels/qgemm.h"

namespace ds::kernels {

// Zero point of a row or column: `values` holds one entry (count 1) or one per index.
struct ZeroPoints {
  const void* values = nullptr;  // null: zero
  bool is_signed = false;
  int64_t count = 1;

  int32_t at(int64_t i) const;
};

// sums[m, n] = sum over k of (a[m, k] - za[m]) * (b[k, n] - zb[n]).
void integer_matmul(int64_t rows, int64_t columns, int64_t depth, const void* a, bool a_signed, const ZeroPoints& za, const void* b,
                    bool b_signed, const ZeroPoints& zb, int32_t* sums);

// x [N, C, in...], w [M, C/G, kernel...] -> sums [N, M, out...]; padding stands for the zero point.
void integer_conv(const ConvShape& s, const void* x, bool x_signed, int32_t x_zero, const void* w, bool w_signed,
                  const ZeroPoints& w_zero, int32_t* sums);

// [batch, rows, columns] -> [batch, columns, rows], as between channels first and channels last.
void turn_bytes(int64_t batch, int64_t rows, int64_t columns, const uint8_t* x, uint8_t* y);
void turn_sums(int64_t batch, int64_t rows, int64_t columns, const int32_t* x, int32_t* y);

}  // namespace ds::kernels
