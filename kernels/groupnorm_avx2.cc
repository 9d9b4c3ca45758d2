// Group normalization on AVX2.
#include "kernels/groupnorm_loops.h"
#include "kernels/simd_set_avx2.h"

namespace ds::kernels {

void groupnorm_avx2(const GroupNormShape& shape, const float* x, const float* scale, const float* bias, double epsilon, void* scratch, float* y) {
  const GroupNorm<Avx2Set> norm(shape, x, scale, bias, epsilon, y);
  shape.channels_last ? norm.channels_last(scratch) : norm.channels_first();
}

}  // namespace ds::kernels
