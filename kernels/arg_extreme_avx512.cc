// ArgMax and ArgMin on AVX-512.
#include "kernels/simd_set_avx512.h"

#include "kernels/arg_extreme_loops.h"

namespace ds::kernels {

void arg_extreme_avx512(bool largest, bool last, int64_t outer, int64_t n, int64_t inner, const float* x, int64_t* out) {
  ArgExtreme<Avx512Set>(outer, n, inner, x, out).run(largest, last);
}

}  // namespace ds::kernels
