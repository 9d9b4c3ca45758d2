// Softmax on AVX-512.
#include "kernels/simd_set_avx512.h"
#include "kernels/softmax_loops.h"

namespace ds::kernels {

void softmax_avx512(bool log, int64_t outer, int64_t n, int64_t inner, const float* x, float* out) {
  Softmax<Avx512Set>(log, outer, n, inner, x, out).run();
}

}  // namespace ds::kernels
