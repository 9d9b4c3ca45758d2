#include "kernels/resize.h"

#include <algorithm>

#include "libds/base/parallel.h"

namespace ds::kernels {

template <typename T>
void resize_axis(const ResizeAxis& axis, int64_t outer, int64_t inner, const T* src, T* dst) {
  parallel_for(outer * axis.out, (1 << 14) / (inner * axis.taps + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t o = row / axis.out, i = row % axis.out;
      const T* from = src + o * axis.in * inner;
      T* to = dst + row * inner;
      const int64_t* index = axis.index.data() + i * axis.taps;
      const double* weight = axis.weight.data() + i * axis.taps;
      if (axis.taps == 1 && weight[0] == 1.0) {
        std::copy_n(from + index[0] * inner, inner, to);
        continue;
      }
      for (int64_t t = 0; t < axis.taps; ++t) {
        const T w = static_cast<T>(weight[t]);
        const T* x = from + index[t] * inner;
        if (t == 0) {
          for (int64_t j = 0; j < inner; ++j) to[j] = w * x[j];
        } else {
          for (int64_t j = 0; j < inner; ++j) to[j] += w * x[j];
        }
      }
    }
  });
}

template void resize_axis(const ResizeAxis&, int64_t, int64_t, const float*, float*);
template void resize_axis(const ResizeAxis&, int64_t, int64_t, const double*, double*);

}  // namespace ds::kernels
