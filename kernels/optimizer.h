// Parameter updates on raw pointers. All operands have n elements; outputs may equal the inputs they
// replace. `mask` may be null; where it is 0 the parameter and its moments become 0 (pruned weights stay
// pruned). Threads: parallel_for. T: f32, f64.
#pragma once

#include <cstdint>

namespace ds::kernels {

// Stochastic gradient descent with momentum (Sutskever et al., 2013, in the form of today's frameworks):
// g = gradient + weight_decay p; v' = momentum v + g; p' = p - lr (nesterov ? g + momentum v' : v').
struct Sgd {
  double lr, momentum, weight_decay;
  bool nesterov;
};
template <typename T>
void sgd(const Sgd& o, int64_t n, const T* p, const T* gradient, const T* v, const T* mask, T* p_out, T* v_out);

// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019); `step` counts from 0.
struct AdamW {
  double lr, beta1, beta2, epsilon, weight_decay;
  int64_t step;
};
template <typename T>
void adamw(const AdamW& o, int64_t n, const T* p, const T* gradient, const T* m, const T* v, const T* mask, T* p_out,
           T* m_out, T* v_out);

namespace avx2 {
void sgd(const Sgd& o, int64_t n, const float* p, const float* gradient, const float* v, const float* mask, float* p_out, float* v_out);
void adamw(const AdamW& o, int64_t n, const float* p, const float* gradient, const float* m, const float* v, const float* mask,
           float* p_out, float* m_out, float* v_out);
}  // namespace avx2

}  // namespace ds::kernels
