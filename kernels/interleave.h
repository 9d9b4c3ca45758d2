// Three planes to pixels of three values: images [N, 3, plane] of f32 to [N, plane, 3].
// Threads: parallel_for over pieces of the planes.
#pragma once

#include <cstdint>

namespace ds::kernels {

void interleave3_avx512(int64_t batch, int64_t plane, const float* x, float* y);  // only on CPUs with AVX-512

}  // namespace ds::kernels
