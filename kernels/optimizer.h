// Optimizer steps on one parameter.
//
// Legend: n elements; w parameter, g its gradient, mask (may be null) 1 where a weight lives and 0
// where it is pruned: pruned weights and their moments become zero. Outputs may equal the inputs of
// the same name. T: float or double.
#pragma once

#include <cstdint>

namespace ds::kernels {

// PyTorch's SGD: g' = g + decay w; v = momentum v + g'; w -= lr (nesterov ? g' + momentum v : v).
template <typename T>
struct Sgd {
  T lr, momentum, decay;
  bool nesterov;
};

template <typename T>
void sgd_step(const Sgd<T>& p, int64_t n, const T* w, const T* g, const T* v, const T* mask, T* w_out, T* v_out);

// Adam with decoupled decay (Loshchilov & Hutter, ICLR 2019), bias-corrected:
// m = b1 m + (1-b1) g; v = b2 v + (1-b2) g²; w -= lr (m / c1 / (sqrt(v / c2) + eps) + decay w),
// c1 = 1 - b1^(step+1), c2 = 1 - b2^(step+1).
template <typename T>
struct AdamW {
  T lr, beta1, beta2, epsilon, decay;
  int64_t step;  // from 0
};

template <typename T>
void adamw_step(const AdamW<T>& p, int64_t n, const T* w, const T* g, const T* m, const T* v, const T* mask, T* w_out,
                T* m_out, T* v_out);

}  // namespace ds::kernels
