// Normalization over rows: layer normalization (Ba et al., 2016), RMS normalization (Zhang and Sennrich,
// 2019), group and instance normalization (Wu and He, 2018), on raw pointers.
//
// Sums are in double, in an order that does not depend on the number of threads. T: f32, f64.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ds::kernels {

// Legend: x, y, d_x, d_y [R, n]; scale, bias, d_scale, d_bias [n].

// y = (x - m) inv scale + bias, with m and inv = 1 / sqrt(variance + epsilon) of each row; not `centered`:
// m = 0 and inv = 1 / sqrt(mean square + epsilon). bias, mean [R] and inv_std [R] may be null. y may equal x.
template <typename T>
void layernorm(bool centered, int64_t R, int64_t n, const T* x, const T* scale, const T* bias, double epsilon, T* y,
               T* mean, T* inv_std);

// Recomputes the row statistics. d_bias may be null; d_x may equal x or d_y.
// `partial`: scratch of layernorm_grad_scratch(R, n) doubles.
int64_t layernorm_grad_scratch(int64_t R, int64_t n);
template <typename T>
void layernorm_grad(bool centered, int64_t R, int64_t n, const T* x, const T* scale, const T* d_y, double epsilon,
                    double* partial, T* d_x, T* d_scale, T* d_bias);

namespace avx2 {
void layernorm(bool centered, int64_t R, int64_t n, const float* x, const float* scale, const float* bias, double epsilon,
               float* y, float* mean, float* inv_std);
void layernorm_grad(bool centered, int64_t R, int64_t n, const float* x, const float* scale, const float* d_y, double epsilon,
                    double* partial, float* d_x, float* d_scale, float* d_bias);
}  // namespace avx2

// Legend: x, y, d_x, d_y [N, C, S] in G groups of C / G channels; scale, bias, d_scale, d_bias [C].

// Each (sample, group) is normalized by its own mean and variance, then scaled per channel.
template <typename T>
void groupnorm(int64_t N, int64_t C, int64_t S, int64_t G, const T* x, const T* scale, const T* bias, double epsilon, T* y);

// `sums`: scratch of 2 N C + 2 N G doubles. d_x may equal x or d_y.
template <typename T>
void groupnorm_grad(int64_t N, int64_t C, int64_t S, int64_t G, const T* x, const T* scale, const T* d_y, double epsilon,
                    double* sums, T* d_x, T* d_scale, T* d_bias);

// Local response normalization across channels (Krizhevsky et al., 2012):
// y = x / u^beta, u_c = bias + alpha / size * sum of x^2 over the `size` channels around c.
struct Lrn {
  int64_t size;
  double alpha, beta, bias;
};
template <typename T>
void lrn(const Lrn& p, int64_t N, int64_t C, int64_t S, const T* x, T* y);
template <typename T>
void lrn_grad(const Lrn& p, int64_t N, int64_t C, int64_t S, const T* x, const T* d_y, T* d_x);

}  // namespace ds::kernels
