// Parameter updates, eight floats at a time.
#include "kernels/optimizer.h"
#include "kernels/simd_avx2.h"
#include "libds/base/parallel.h"

#include <cmath>

namespace ds::kernels::avx2 {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

// v where the mask is not 0; everything without a mask.
template <typename Get>
inline F8 kept(const float* mask, int64_t i, Get get, F8 v) {
  if (mask == nullptr) return v;
  return _mm256_andnot_ps(_mm256_cmp_ps(get(mask + i), all(0.0f), _CMP_EQ_OQ), v);
}

}  // namespace

void sgd(const Sgd& o, int64_t n, const float* p, const float* gradient, const float* v, const float* mask, float* p_out, float* v_out) {
  const F8 lr = all(static_cast<float>(o.lr)), momentum = all(static_cast<float>(o.momentum)), decay = all(static_cast<float>(o.weight_decay));
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for_each_block(begin, end, [&](int64_t i, int64_t, auto get, auto put) {
      const F8 parameter = get(p + i), g = fma(decay, parameter, get(gradient + i));
      const F8 velocity = fma(momentum, get(v + i), g);
      const F8 step = o.nesterov ? fma(momentum, velocity, g) : velocity;
      put(v_out + i, kept(mask, i, get, velocity));
      put(p_out + i, kept(mask, i, get, _mm256_fnmadd_ps(lr, step, parameter)));
    });
  });
}

void adamw(const AdamW& o, int64_t n, const float* p, const float* gradient, const float* m, const float* v, const float* mask,
           float* p_out, float* m_out, float* v_out) {
  const double t = static_cast<double>(o.step) + 1.0;
  const F8 beta1 = all(static_cast<float>(o.beta1)), beta2 = all(static_cast<float>(o.beta2));
  const F8 rest1 = all(static_cast<float>(1.0 - o.beta1)), rest2 = all(static_cast<float>(1.0 - o.beta2));
  const F8 step = all(static_cast<float>(o.lr / (1.0 - ::pow(o.beta1, t))));
  const F8 root = all(static_cast<float>(1.0 / ::sqrt(1.0 - ::pow(o.beta2, t))));
  const F8 epsilon = all(static_cast<float>(o.epsilon)), keep_factor = all(static_cast<float>(1.0 - o.lr * o.weight_decay));
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for_each_block(begin, end, [&](int64_t i, int64_t, auto get, auto put) {
      const F8 g = get(gradient + i);
      const F8 first = fma(beta1, get(m + i), rest1 * g), second = fma(beta2, get(v + i), rest2 * g * g);
      const F8 denominator = fma(_mm256_sqrt_ps(second), root, epsilon);
      const F8 updated = get(p + i) * keep_factor - step * first / denominator;
      put(m_out + i, kept(mask, i, get, first));
      put(v_out + i, kept(mask, i, get, second));
      put(p_out + i, kept(mask, i, get, updated));
    });
  });
}

}  // namespace ds::kernels::avx2
