// Softmax and its logarithm along one axis, with gradients, on raw pointers.
//
// Legend: operands are [outer, n, inner]; the axis has n elements. out may equal x (or y, d_y).
// Threads: parallel_for over outer x inner. T: f32, f64.
#pragma once

#include <cstdint>

namespace ds::kernels {

// out = exp(x - max) / sum, or x - max - log(sum) when `log`.
template <typename T>
void softmax(bool log, int64_t outer, int64_t n, int64_t inner, const T* x, T* out);

// From the output y: d_x = y (d_y - sum(y d_y)), or d_y - exp(y) sum(d_y) when `log`.
template <typename T>
void softmax_grad(bool log, int64_t outer, int64_t n, int64_t inner, const T* y, const T* d_y, T* d_x);

// inner = 1, but for softmax_columns. Results below 1e-38 are 0.
namespace avx2 {
void softmax_columns(bool log, int64_t outer, int64_t n, int64_t inner, const float* x, float* out);
void softmax(bool log, int64_t rows, int64_t n, const float* x, float* out);
void softmax_grad(bool log, int64_t rows, int64_t n, const float* y, const float* d_y, float* d_x);
}  // namespace avx2

}  // namespace ds::kernels
