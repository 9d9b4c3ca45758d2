// ArgMax and ArgMin on AVX2.
#include "kernels/simd_set_avx2.h"

#include "kernels/arg_extreme_loops.h"

namespace ds::kernels {

void arg_extreme_avx2(bool largest, bool last, int64_t outer, int64_t n, int64_t inner, const float* x, int64_t* out) {
  ArgExtreme<Avx2Set>(outer, n, inner, x, out).run(largest, last);
}

}  // namespace ds::kernels
