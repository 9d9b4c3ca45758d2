// Elementwise functions of one operand and their derivatives, on raw pointers.
//
// `out` may equal `x`. T: f32, f64; f16 and bf16 compute in float. Threads: parallel_for.
#pragma once

#include <cstdint>

namespace ds::kernels {

// Parameters (alpha, beta) are those of the ONNX operator of the same name, in the order of its attributes:
// LeakyRelu, Elu, Celu, ThresholdedRelu, Swish: alpha. Selu: alpha, gamma. HardSigmoid: alpha, beta.
enum class Unary {
  kRelu, kSigmoid, kTanh, kExp, kLog, kSqrt, kReciprocal, kNeg, kAbs, kErf, kFloor, kCeil, kRound, kSign,
  kSin, kCos, kTan, kAsin, kAcos, kAtan, kSinh, kCosh, kAsinh, kAcosh, kAtanh,
  kLeakyRelu, kElu, kCelu, kSelu, kThresholdedRelu, kSoftplus, kSoftsign, kHardSigmoid, kHardSwish,
  kGelu, kGeluTanh, kMish, kSwish,
};

template <typename T>
void unary(Unary op, int64_t n, const T* x, T* out, double alpha, double beta);

// d_x[i] = d_y[i] * derivative, from the function's output where that is enough (derivative_uses_output),
// else from its input. d_x may equal either operand. T: f32, f64. Not for kNeg, kAbs and the step functions.
bool derivative_uses_output(Unary op);
template <typename T>
void unary_grad(Unary op, int64_t n, const T* operand, const T* d_y, T* d_x, double alpha, double beta);

// Integers: kRelu, kNeg, kAbs, kSign only; the smallest number wraps.
template <typename T>
void integer_unary(Unary op, int64_t n, const T* x, T* out);

// out[i] = min(max(x[i], low), high); NaN stays. T: any numeric type.
template <typename T>
void clip(int64_t n, const T* x, T low, T high, T* out);
// d_x[i] = low <= x[i] <= high ? d_y[i] : 0. T: f32, f64.
template <typename T>
void clip_grad(int64_t n, const T* x, const T* d_y, T low, T high, T* d_x);

// The same eight or sixteen floats at a time, for the functions that has_*() names. Exponentials within 4e-7 relative.
namespace avx2 {
bool has_unary(Unary op);
void unary(Unary op, int64_t n, const float* x, float* out, double alpha, double beta);
bool has_unary_grad(Unary op);
void unary_grad(Unary op, int64_t n, const float* operand, const float* d_y, float* d_x, double alpha, double beta);
}  // namespace avx2
namespace avx512 {  // of what avx2::has_unary() names
void unary(Unary op, int64_t n, const float* x, float* out, double alpha, double beta);
}  // namespace avx512

}  // namespace ds::kernels
