// Group normalization on AVX-512.
#include "kernels/groupnorm_loops.h"
#include "kernels/simd_set_avx512.h"

namespace ds::kernels {

void groupnorm_avx512(const GroupNormShape& shape, const float* x, const float* scale, const float* bias, double epsilon, void* scratch, float* y) {
  const GroupNorm<Avx512Set> norm(shape, x, scale, bias, epsilon, y);
  shape.channels_last ? norm.channels_last(scratch) : norm.channels_first();
}

}  // namespace ds::kernels
