#include "kernels/attention.h"

#include <cmath>

#include "kernels/attention_loops.h"

namespace ds::kernels {
namespace {

template <typename T>
struct PortableMath {
  static T row_max(int64_t n, const T* x) {
    T highest = x[0];
    for (int64_t i = 1; i < n; ++i) highest = x[i] > highest || x[i] != x[i] ? x[i] : highest;
    return highest;
  }
  static double exp_shifted(int64_t n, T* x, T shift) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      x[i] = std::exp(x[i] - shift);
      sum += static_cast<double>(x[i]);
    }
    return sum;
  }
  static void softcap(int64_t n, T* x, T cap) {
    for (int64_t i = 0; i < n; ++i) x[i] = cap * std::tanh(x[i] / cap);
  }
};

}  // namespace

int64_t attention_scratch(const Attention& a, int parts) { return parts * AttentionTask<float, PortableMath<float>>::scratch(a); }

template <typename T>
void attention(const Attention& a, const AttentionOperands<T>& o, int parts, T* scratch) {
  run_attention<T, PortableMath<T>>(a, o, parts, scratch);
}

template <typename T>
void rotary_embedding(const Rotary& r, const T* x, const T* cos, const T* sin, const int64_t* rows, T* y) {
  const int64_t half = r.R / 2;
  parallel_for(r.B * r.L, (1 << 13) / (r.H * r.D + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const T *c = cos + rows[token] * half, *s = sin + rows[token] * half;
      for (int64_t h = 0; h < r.H; ++h) {
        const int64_t at = token / r.L * r.layout.sample + h * r.layout.head + token % r.L * r.layout.row;
        const T* from = x + at;
        T* to = y + at;
        for (int64_t j = 0; j < half; ++j) {
          const int64_t first = r.interleaved ? 2 * j : j, second = r.interleaved ? 2 * j + 1 : j + half;
          const T a = from[first], b = from[second];
          to[first] = c[j] * a - s[j] * b;
          to[second] = s[j] * a + c[j] * b;
        }
        for (int64_t d = r.R; d < r.D; ++d) to[d] = from[d];
      }
    }
  });
}

#define DS_INSTANTIATE(T)                                                                \
  template void attention(const Attention&, const AttentionOperands<T>&, int, T*);       \
  template void rotary_embedding(const Rotary&, const T*, const T*, const T*, const int64_t*, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
