// Resampling of floats on AVX2.
#include "kernels/resize_loops.h"
#include "kernels/simd_set_avx2.h"

namespace ds::kernels {

void resize_axis_avx2(int64_t outer, const TapsView& axis, int64_t inner, const float* src, float* dst) {
  ResizeAxis<Avx2Set>(axis, inner, src, dst).run(outer);
}

}  // namespace ds::kernels
