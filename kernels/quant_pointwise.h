// Functions of 8-bit values in floats: what DequantizeLinear, the operator and QuantizeLinear make one after the other, in
// one pass and the same bits.
//
//   stored y = clamp(round_half_even(real / y.scale), lo - y.zero, hi - y.zero) + y.zero; NaN becomes lo
//
// Threads: serial. *_avx2 and *_avx512: only on CPUs that have the instructions.
#pragma once

#include <cstdint>

#include "kernels/quant.h"

namespace ds::kernels {

// Bytes with scale and zero point, and bounds of the stored values where they are a result.
struct QBytesType {
  QParams params;
  bool is_signed = false;
  int32_t lo = 0, hi = 255;
};

// y[r, c] = quantize(dequantize(x[r, c]) * scale[c] + shift[c]); two roundings. Rows of n.
void quant_affine(int64_t rows, int64_t n, const uint8_t* x, const QBytesType& px, const float* scale, const float* shift, const QBytesType& py,
                  uint8_t* y);
void quant_affine_avx2(int64_t rows, int64_t n, const uint8_t* x, const QBytesType& px, const float* scale, const float* shift,
                       const QBytesType& py, uint8_t* y);
void quant_affine_avx512(int64_t rows, int64_t n, const uint8_t* x, const QBytesType& px, const float* scale, const float* shift,
                         const QBytesType& py, uint8_t* y);

enum class QBinaryOp { kAdd, kSub, kMul, kDiv };

// y[r, i] = quantize(dequantize(a[r * a_row + i * a_step]) op dequantize(b[r * b_row + i * b_step])); steps are 0 or 1. Rows of
// n, which follow one another in y.
struct QBinaryRows {
  QBinaryOp op = QBinaryOp::kAdd;
  int64_t rows = 1, n = 0;
  const uint8_t* a = nullptr;
  int64_t a_row = 0, a_step = 1;
  const uint8_t* b = nullptr;
  int64_t b_row = 0, b_step = 1;
  uint8_t* y = nullptr;
};
void quant_binary(const QBinaryRows& lines, const QBytesType& pa, const QBytesType& pb, const QBytesType& py);
void quant_binary_avx2(const QBinaryRows& lines, const QBytesType& pa, const QBytesType& pb, const QBytesType& py);
void quant_binary_avx512(const QBinaryRows& lines, const QBytesType& pa, const QBytesType& pb, const QBytesType& py);

// byte_table() by shuffles of sixteen entries (AVX2), or of 128 (AVX-512 VBMI).
void byte_table_avx2(int64_t n, const uint8_t* x, const uint8_t* table, uint8_t* y);
bool cpu_has_vbmi();
void byte_table_avx512(int64_t n, const uint8_t* x, const uint8_t* table, uint8_t* y);

}  // namespace ds::kernels
