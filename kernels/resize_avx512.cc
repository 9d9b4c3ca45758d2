// Resampling of floats on AVX-512.
#include "kernels/resize_loops.h"
#include "kernels/simd_set_avx512.h"

namespace ds::kernels {

void resize_axis_avx512(int64_t outer, const TapsView& axis, int64_t inner, const float* src, float* dst) {
  ResizeAxis<Avx512Set>(axis, inner, src, dst).run(outer);
}

}  // namespace ds::kernels
