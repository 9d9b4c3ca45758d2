// Batch normalization (Ioffe and Szegedy, 2015) on raw pointers: inference, training, gradient.
//
// Legend: x, y, d_x, d_y are [N, C, S], S being the product of the spatial sizes (1 for [N, C]);
// everything per channel is [C]. Sums are in double, in an order that does not depend on the number of
// threads. T: f32, f64.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ds::kernels {

struct BatchShape {
  int64_t N, C, S;
};

// The passes over whole tensors, which is where the time goes; one set per instruction set.
template <typename T>
struct BatchPasses {
  // sums[c], sums[C + c]: of x - x0 and of its square, x0 being the channel's first element. Shifted like
  // that, the variance does not cancel where the mean is far from zero.
  void (*stats)(BatchShape shape, const T* x, double* sums);
  // sums[c], sums[C + c]: of d_y, and of d_y (x - mean).
  void (*grad_sums)(BatchShape shape, const T* x, const T* d_y, const T* mean, double* sums);
  // y = x a + b
  void (*affine)(BatchShape shape, const T* x, const T* a, const T* b, T* y);
  // d_x = d_y a + x k + s
  void (*grad_affine)(BatchShape shape, const T* x, const T* d_y, const T* a, const T* k, const T* s, T* d_x);
};
template <typename T>
BatchPasses<T> portable_batch_passes();
BatchPasses<float> avx2_batch_passes();

// y = (x - mean) scale / sqrt(var + epsilon) + bias. `factors`: scratch of 2 C elements. y may equal x.
template <typename T>
void batchnorm(const BatchPasses<T>& passes, BatchShape shape, const T* x, const T* scale, const T* bias, const T* mean, const T* var, double epsilon,
               T* factors, T* y);

// Normalizes with the batch's own mean and (population) variance, which go out as batch_mean and inv_std =
// 1 / sqrt(var + epsilon); running statistics become momentum * old + (1 - momentum) * batch, as in ONNX.
// new_* may equal running_*; y may equal x. `sums`: scratch of 2 C doubles; `factors`: of 2 C elements.
template <typename T>
void batchnorm_train(const BatchPasses<T>& passes, BatchShape shape, const T* x, const T* scale, const T* bias, const T* running_mean,
                     const T* running_var, double epsilon, double momentum, double* sums, T* factors, T* y, T* new_mean,
                     T* new_var, T* batch_mean, T* inv_std);

// d_bias = sum d_y; d_scale = sum d_y x_hat; d_x = scale inv_std (d_y - d_bias / M - x_hat d_scale / M),
// M = N S, x_hat = (x - mean) inv_std. d_x may equal x or d_y. Scratch: `sums` 2 C doubles, `factors` 3 C elements.
template <typename T>
void batchnorm_grad(const BatchPasses<T>& passes, BatchShape shape, const T* x, const T* d_y, const T* scale, const T* batch_mean, const T* inv_std,
                    double* sums, T* factors, T* d_x, T* d_scale, T* d_bias);

}  // namespace ds::kernels
