// Layer and RMS normalization, eight floats at a time.
#include "kernels/layernorm.h"
#include "kernels/simd_avx2.h"
#include "libds/base/parallel.h"

namespace ds::kernels::avx2 {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread
constexpr int64_t kChunks = 16;      // as in layernorm.cc: pieces in which gradients of scale and bias are summed

struct RowStats {
  float mean, inv_std;
};

RowStats row_stats(bool centered, int64_t n, const float* x, double epsilon) {
  double mean = 0;
  if (centered) {
    DoubleSum sum;
    for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto) { sum.add(get(x + i)); });
    mean = sum.total() / static_cast<double>(n);
  }
  const F8 m = all(static_cast<float>(mean));
  DoubleSum squares;
  for_each_block(0, n, [&](int64_t i, int64_t count, auto get, auto) {
    F8 v = get(x + i) - m;
    if (count < kWidth) v = _mm256_and_ps(v, _mm256_castsi256_ps(lanes(count)));
    squares.add_product(v, v);
  });
  const double inverse = 1.0 / __builtin_sqrt(squares.total() / static_cast<double>(n) + epsilon);
  return {static_cast<float>(mean), static_cast<float>(inverse)};
}

// Adds eight floats to eight doubles, of which `count` exist.
inline void accumulate(double* sums, F8 v, int64_t count) {
  if (count == kWidth) {
    _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), _mm256_cvtps_pd(_mm256_castps256_ps128(v))));
    _mm256_storeu_pd(sums + 4, _mm256_add_pd(_mm256_loadu_pd(sums + 4), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))));
    return;
  }
  float t[8];
  store(t, v);
  for (int64_t j = 0; j < count; ++j) sums[j] += static_cast<double>(t[j]);
}

}  // namespace

void layernorm(bool centered, int64_t R, int64_t n, const float* x, const float* scale, const float* bias, double epsilon,
               float* y, float* mean, float* inv_std) {
  parallel_for(R, kGrain / (n + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* p = x + r * n;
      float* o = y + r * n;
      const RowStats s = row_stats(centered, n, p, epsilon);
      const F8 m = all(s.mean), inv = all(s.inv_std);
      for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) {
        const F8 hat = (get(p + i) - m) * inv;
        put(o + i, bias == nullptr ? hat * get(scale + i) : fma(hat, get(scale + i), get(bias + i)));
      });
      if (mean != nullptr) mean[r] = s.mean;
      if (inv_std != nullptr) inv_std[r] = s.inv_std;
    }
  });
}

void layernorm_grad(bool centered, int64_t R, int64_t n, const float* x, const float* scale, const float* d_y, double epsilon,
                    double* partial, float* d_x, float* d_scale, float* d_bias) {
  const int64_t chunks = R < kChunks ? R : kChunks;
  parallel_for(chunks, chunks == 0 ? 1 : kGrain / (R * n / chunks + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      double* part_scale = partial + 2 * chunk * n;
      double* part_bias = part_scale + n;
      for (int64_t i = 0; i < 2 * n; ++i) part_scale[i] = 0;
      for (int64_t r = R * chunk / chunks; r < R * (chunk + 1) / chunks; ++r) {
        const float* p = x + r * n;
        const float* d = d_y + r * n;
        float* o = d_x + r * n;
        const RowStats s = row_stats(centered, n, p, epsilon);
        const F8 m = all(s.mean), inv = all(s.inv_std);
        DoubleSum sum, products;
        for_each_block(0, n, [&](int64_t i, int64_t count, auto get, auto) {
          const F8 hat = (get(p + i) - m) * inv, grad = get(d + i), g = grad * get(scale + i);
          sum.add(g);
          products.add_product(g, hat);
          accumulate(part_scale + i, grad * hat, count);
          accumulate(part_bias + i, grad, count);
        });
        const F8 mean_g = all(centered ? static_cast<float>(sum.total() / static_cast<double>(n)) : 0.0f);
        const F8 mean_product = all(static_cast<float>(products.total() / static_cast<double>(n)));
        for_each_block(0, n, [&](int64_t i, int64_t, auto get, auto put) {
          const F8 hat = (get(p + i) - m) * inv, g = get(d + i) * get(scale + i);
          put(o + i, inv * (g - mean_g - hat * mean_product));
        });
      }
    }
  });
  for (int64_t i = 0; i < n; ++i) {
    double sum_scale = 0, sum_bias = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      sum_scale += partial[2 * chunk * n + i];
      sum_bias += partial[(2 * chunk + 1) * n + i];
    }
    d_scale[i] = static_cast<float>(sum_scale);
    if (d_bias != nullptr) d_bias[i] = static_cast<float>(sum_bias);
  }
}

}  // namespace ds::kernels::avx2
