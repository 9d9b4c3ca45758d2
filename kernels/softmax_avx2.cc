// Softmax over contiguous rows, eight floats at a time.
#include "kernels/simd_avx2.h"
#include "kernels/softmax.h"
#include "libds/base/parallel.h"

#include <cmath>

namespace ds::kernels::avx2 {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

float row_max(const float* x, int64_t n) {
  float highest = x[0];
  int64_t i = 0;
  if (n >= kWidth) {
    F8 m = load(x);
    for (i = kWidth; i + kWidth <= n; i += kWidth) m = _mm256_max_ps(m, load(x + i));
    highest = horizontal_max(m);
  }
  for (; i < n; ++i) highest = x[i] > highest ? x[i] : highest;
  return highest;
}

}  // namespace

void softmax(bool log, int64_t rows, int64_t n, const float* x, float* out) {
  if (n == 0) return;
  parallel_for(rows, kGrain / n + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* p = x + r * n;
      float* o = out + r * n;
      const F8 highest = all(row_max(p, n));
      DoubleSum sum;
      for_each_block(0, n, [&](int64_t i, int64_t count, auto get, auto put) {
        const F8 shifted = get(p + i) - highest;
        F8 e = exp8(shifted);
        put(o + i, log ? shifted : e);
        if (count < kWidth) e = _mm256_and_ps(e, _mm256_castsi256_ps(lanes(count)));
        sum.add(e);
      });
      const double total = sum.total();
      const F8 last = all(static_cast<float>(log ? ::log(total) : 1.0 / total));
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) {
        const F8 v = get(o + i);
        put(o + i, log ? v - last : v * last);
      });
    }
  });
}

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

}  // namespace ds::kernels::avx2
