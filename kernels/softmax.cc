#include "kernels/softmax.h"

#include <algorithm>
#include <cmath>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 12;  // elements worth a thread

// Calls row(offset of its first element) for every row along the axis.
template <typename Row>
void for_each_axis_row(int64_t outer, int64_t n, int64_t inner, Row&& row) {
  if (n == 0) return;
  parallel_for(outer * inner, kGrain / n + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) row(i / inner * n * inner + i % inner);
  });
}

}  // namespace

template <typename T>
void softmax(bool log, int64_t outer, int64_t n, int64_t inner, const T* x, T* out) {
  for_each_axis_row(outer, n, inner, [&](int64_t start) {
    const T* p = x + start;
    T* o = out + start;
    T highest = p[0];
    for (int64_t j = 1; j < n; ++j) highest = std::max(highest, p[j * inner]);
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) {
      const T shifted = p[j * inner] - highest;
      const T e = std::exp(shifted);
      sum += static_cast<double>(e);
      o[j * inner] = log ? shifted : e;
    }
    if (log) {
      const T shift = static_cast<T>(std::log(sum));
      for (int64_t j = 0; j < n; ++j) o[j * inner] -= shift;
    } else {
      const T factor = static_cast<T>(1.0 / sum);
      for (int64_t j = 0; j < n; ++j) o[j * inner] *= factor;
    }
  });
}

template <typename T>
void softmax_grad(bool log, int64_t outer, int64_t n, int64_t inner, const T* y, const T* d_y, T* d_x) {
  for_each_axis_row(outer, n, inner, [&](int64_t start) {
    const T* p = y + start;
    const T* d = d_y + start;
    T* o = d_x + start;
    double sum = 0;
    for (int64_t j = 0; j < n; ++j)
      sum += static_cast<double>(d[j * inner]) * (log ? 1.0 : static_cast<double>(p[j * inner]));
    const T s = static_cast<T>(sum);
    for (int64_t j = 0; j < n; ++j) {
      const T v = p[j * inner], g = d[j * inner];
      o[j * inner] = log ? g - std::exp(v) * s : v * (g - s);
    }
  });
}

#define DS_INSTANTIATE(T)                                                                 \
  template void softmax(bool, int64_t, int64_t, int64_t, const T*, T*);                   \
  template void softmax_grad(bool, int64_t, int64_t, int64_t, const T*, const T*, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
