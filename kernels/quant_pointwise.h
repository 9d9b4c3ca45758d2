// Functions of 8-bit values in floats: what DequantizeLinear, the operator and QuantizeLinear make one after the other, in
// one pass and, but for the division of quant_affine's first step, the same bits.
//
//   stored y = clamp(round_half_even(real / y.scale), lo - y.zero, hi - y.zero) + y.zero; NaN becomes lo
//
// Threads: serial. The *_avx2 and *_vbmi functions only on CPUs that have the instructions.
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

enum class QBinaryOp { kAdd, kSub, kMul, kDiv };

// y[i] = quantize(dequantize(a[i * a_step]) op dequantize(b[i * b_step])); steps are 0 or 1.
struct QBinaryRow {
  QBinaryOp op = QBinaryOp::kAdd;
  int64_t n = 0;
  const uint8_t* a = nullptr;
  int64_t a_step = 1;
  const uint8_t* b = nullptr;
  int64_t b_step = 1;
  uint8_t* y = nullptr;
};
void quant_binary(const QBinaryRow& row, const QBytesType& pa, const QBytesType& pb, const QBytesType& py);
void quant_binary_avx2(const QBinaryRow& row, const QBytesType& pa, const QBytesType& pb, const QBytesType& py);

// byte_table() by shuffles of sixteen entries (AVX2), or of 128 (AVX-512 VBMI).
void byte_table_avx2(int64_t n, const uint8_t* x, const uint8_t* table, uint8_t* y);
bool cpu_has_vbmi();
void byte_table_avx512(int64_t n, const uint8_t* x, const uint8_t* table, uint8_t* y);

}  // namespace ds::kernels
