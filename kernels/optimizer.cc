#include "kernels/optimizer.h"

#include <cmath>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {
constexpr int64_t kGrain = 1 << 13;  // elements worth a thread
}

template <typename T>
void sgd_step(const Sgd<T>& p, int64_t n, const T* w, const T* g, const T* v, const T* mask, T* w_out, T* v_out) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T keep = mask == nullptr ? T(1) : mask[i];
      const T gradient = g[i] + p.decay * w[i];
      const T velocity = (p.momentum * v[i] + gradient) * keep;
      const T direction = p.nesterov ? gradient + p.momentum * velocity : velocity;
      v_out[i] = velocity;
      w_out[i] = (w[i] - p.lr * direction) * keep;
    }
  });
}

template <typename T>
void adamw_step(const AdamW<T>& p, int64_t n, const T* w, const T* g, const T* m, const T* v, const T* mask, T* w_out,
                T* m_out, T* v_out) {
  const T t = static_cast<T>(p.step + 1);
  const T inverse1 = T(1) / (T(1) - std::pow(p.beta1, t)), inverse2 = T(1) / (T(1) - std::pow(p.beta2, t));
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T keep = mask == nullptr ? T(1) : mask[i];
      const T first = (p.beta1 * m[i] + (T(1) - p.beta1) * g[i]) * keep;
      const T second = (p.beta2 * v[i] + (T(1) - p.beta2) * g[i] * g[i]) * keep;
      const T step = first * inverse1 / (std::sqrt(second * inverse2) + p.epsilon);
      m_out[i] = first;
      v_out[i] = second;
      w_out[i] = (w[i] - p.lr * (step + p.decay * w[i])) * keep;
    }
  });
}

template void sgd_step(const Sgd<float>&, int64_t, const float*, const float*, const float*, const float*, float*, float*);
template void sgd_step(const Sgd<double>&, int64_t, const double*, const double*, const double*, const double*, double*, double*);
template void adamw_step(const AdamW<float>&, int64_t, const float*, const float*, const float*, const float*, const float*,
                         float*, float*, float*);
template void adamw_step(const AdamW<double>&, int64_t, const double*, const double*, const double*, const double*,
                         const double*, double*, double*, double*);

}  // namespace ds::kernels
