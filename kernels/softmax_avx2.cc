// Softmax on AVX2, and its gradient over contiguous rows.
#include "kernels/simd_set_avx2.h"
#include "kernels/softmax_loops.h"

namespace ds::kernels {

void softmax_avx2(bool log, int64_t outer, int64_t n, int64_t inner, const float* x, float* out) {
  Softmax<Avx2Set>(log, outer, n, inner, x, out).run();
}

namespace avx2 {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

}  // namespace

void softmax_grad(bool log, int64_t rows, int64_t n, const float* y, const float* d_y, float* d_x) {
  if (n == 0) return;
  parallel_for(rows, kGrain / n + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* p = y + r * n;
      const float* d = d_y + r * n;
      float* o = d_x + r * n;
      DoubleSum sum;
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto) {
        if (log) sum.add(get(d + i));
        else sum.add_product(get(d + i), get(p + i));
      });
      const F8 s = all(static_cast<float>(sum.total()));
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) {
        const F8 v = get(p + i), g = get(d + i);
        put(o + i, log ? g - exp8(v) * s : v * (g - s));
      });
    }
  });
}

}  // namespace avx2
}  // namespace ds::kernels
