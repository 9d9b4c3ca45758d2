// Elementwise arithmetic of two operands on raw pointers, with broadcasting.
//
// `out` may equal an operand of the same size. T is any numeric type; 16-bit floats compute in float.
// Integers wrap around; division and remainder by zero give 0 (ONNX leaves them undefined).
// Min and Max pass NaN on. Threads: work is split with parallel_for.
#pragma once

#include "kernels/broadcast.h"

namespace ds::kernels {

// kMod: the sign follows the divisor; kFmod: the sign follows the dividend.
// kPRelu: x < 0 ? x * slope : x.
enum class Binary { kAdd, kSub, kMul, kDiv, kMin, kMax, kMod, kFmod, kPRelu };

template <typename T>
void binary(Binary op, const Broadcast& space, const T* a, const T* b, T* out);

// out[i] = base[i] ^ exponent[i]. T: f32, f64, f16, bf16, i32, i64; E: f32, f64, i32, i64, u64.
template <typename T, typename E>
void power(const Broadcast& space, const T* base, const E* exponent, T* out);

// out[i] = x[i] * factor, T float or 16-bit float (the last step of Mean).
template <typename T>
void scale(int64_t n, const T* x, double factor, T* out);

// The same eight floats at a time; same results bit for bit.
namespace avx2 {
bool has_binary(Binary op);
void binary(Binary op, const Broadcast& space, const float* a, const float* b, float* out);
}  // namespace avx2

}  // namespace ds::kernels
