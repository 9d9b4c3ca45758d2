// Resampling one axis after another: every output position is a weighted sum of a few input positions, so an
// N-dimensional nearest, linear or cubic Resize is a sequence of [outer, axis, inner] passes.
// Threads: parallel_for over output rows.
#pragma once

#include <cstdint>
#include <vector>

namespace ds::kernels {

// Output position i is the sum over t < taps of weight[i*taps + t] * input[index[i*taps + t]].
struct ResizeAxis {
  int64_t in = 0, out = 0, taps = 1;
  std::vector<int64_t> index;
  std::vector<double> weight;
};

// src [outer, axis.in, inner] -> dst [outer, axis.out, inner]. T: float, double.
template <typename T>
void resize_axis(const ResizeAxis& axis, int64_t outer, int64_t inner, const T* src, T* dst);

}  // namespace ds::kernels
