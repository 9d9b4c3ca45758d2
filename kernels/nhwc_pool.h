// Maximum and average pools of channels-innermost f32 data.
//
// Legend: x [N, H, W, C], y [N, OH, OW, C]; the shape is that of kernels/pool.h, whose rules hold here too: padding never
// wins a maximum, NaN does; an average counts padding only with count_pad, as far as the declared padding reaches.
// One or two spatial axes (the first of the three has size 1). Sums are f32, by rows of the window.
// Threads: parallel_for over rows of y and channels; each result is computed in one order.
#pragma once

#include "kernels/pool.h"

namespace ds::kernels {

enum class NhwcPooling { kMax, kAverage, kAverageWithPadding };
using NhwcPoolFn = void(const PoolShape& s, NhwcPooling pooling, const float* x, float* y);
NhwcPoolFn nhwc_pool_avx2;
NhwcPoolFn nhwc_pool_avx512;  // call only where the CPU has AVX-512

}  // namespace ds::kernels
