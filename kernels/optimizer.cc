#include "kernels/optimizer.h"

#include <cmath>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

}  // namespace

template <typename T>
void sgd(const Sgd& o, int64_t n, const T* p, const T* gradient, const T* v, const T* mask, T* p_out, T* v_out) {
  const T lr = static_cast<T>(o.lr), momentum = static_cast<T>(o.momentum), decay = static_cast<T>(o.weight_decay);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T g = gradient[i] + decay * p[i];
      const T velocity = momentum * v[i] + g;
      const T updated = p[i] - lr * (o.nesterov ? g + momentum * velocity : velocity);
      const bool keep = mask == nullptr || mask[i] != T(0);
      v_out[i] = keep ? velocity : T(0);
      p_out[i] = keep ? updated : T(0);
    }
  });
}

template <typename T>
void adamw(const AdamW& o, int64_t n, const T* p, const T* gradient, const T* m, const T* v, const T* mask, T* p_out,
           T* m_out, T* v_out) {
  const double t = static_cast<double>(o.step) + 1.0;
  const T beta1 = static_cast<T>(o.beta1), beta2 = static_cast<T>(o.beta2);
  const T rest1 = static_cast<T>(1.0 - o.beta1), rest2 = static_cast<T>(1.0 - o.beta2);
  // The bias corrections are folded into the step size and into epsilon's neighbour.
  const T step = static_cast<T>(o.lr / (1.0 - std::pow(o.beta1, t)));
  const T root = static_cast<T>(1.0 / std::sqrt(1.0 - std::pow(o.beta2, t)));
  const T epsilon = static_cast<T>(o.epsilon), keep_factor = static_cast<T>(1.0 - o.lr * o.weight_decay);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T g = gradient[i];
      const T first = beta1 * m[i] + rest1 * g;
      const T second = beta2 * v[i] + rest2 * g * g;
      const T updated = p[i] * keep_factor - step * first / (std::sqrt(second) * root + epsilon);
      const bool keep = mask == nullptr || mask[i] != T(0);
      m_out[i] = keep ? first : T(0);
      v_out[i] = keep ? second : T(0);
      p_out[i] = keep ? updated : T(0);
    }
  });
}

#define DS_INSTANTIATE(T)                                                                           \
  template void sgd(const Sgd&, int64_t, const T*, const T*, const T*, const T*, T*, T*);           \
  template void adamw(const AdamW&, int64_t, const T*, const T*, const T*, const T*, const T*, T*, T*, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
