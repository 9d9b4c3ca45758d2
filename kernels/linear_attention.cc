#include "kernels/linear_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "libds/base/parallel.h"

namespace ds::kernels {

template <typename T>
void linear_attention(const LinearAttention& s, const T* q, const T* k, const T* v, const T* state,
                      const T* decay, const T* beta, T* out, T* new_state) {
  const int64_t K = s.K, V = s.V;
  const T scale = static_cast<T>(s.scale);
  parallel_for(s.B * s.H, (1 << 12) / (1 + s.T * K * V) + 1, [&](int64_t begin, int64_t end) {
    std::vector<T> written(static_cast<size_t>(V));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / s.H, h = i % s.H;
      T* S = new_state + i * K * V;
      if (state == nullptr)
        std::fill(S, S + K * V, T(0));
      else
        std::copy(state + i * K * V, state + (i + 1) * K * V, S);
      for (int64_t t = 0; t < s.T; ++t) {
        const int64_t step = b * s.T + t, at = step * s.H + h;
        const T *key = k + at * K, *value = v + at * V;
        if (s.decay_width > 0) {
          const T* d = decay + at * s.decay_width;
          T factor = std::exp(d[0]);
          for (int64_t x = 0; x < K; ++x) {
            if (s.decay_width > 1) factor = std::exp(d[x]);
            for (int64_t y = 0; y < V; ++y) S[x * V + y] *= factor;
          }
        }
        std::copy(value, value + V, written.begin());
        if (s.beta_width > 0) {
          for (int64_t x = 0; x < K; ++x)
            for (int64_t y = 0; y < V; ++y) written[static_cast<size_t>(y)] -= S[x * V + y] * key[x];
          const T rate = beta[step * s.beta_width + (s.beta_width > 1 ? h : 0)];
          for (T& w : written) w *= rate;
        }
        for (int64_t x = 0; x < K; ++x)
          for (int64_t y = 0; y < V; ++y) S[x * V + y] += key[x] * written[static_cast<size_t>(y)];
        for (int64_t g = 0; g < s.group; ++g) {
          const int64_t head = at * s.group + g;
          const T* query = q + head * K;
          T* o = out + head * V;
          std::fill(o, o + V, T(0));
          for (int64_t x = 0; x < K; ++x)
            for (int64_t y = 0; y < V; ++y) o[y] += S[x * V + y] * query[x];
          for (int64_t y = 0; y < V; ++y) o[y] *= scale;
        }
      }
    }
  });
}

template void linear_attention(const LinearAttention&, const float*, const float*, const float*, const float*,
                               const float*, const float*, float*, float*);
template void linear_attention(const LinearAttention&, const double*, const double*, const double*,
                               const double*, const double*, const double*, double*, double*);

}  // namespace ds::kernels
