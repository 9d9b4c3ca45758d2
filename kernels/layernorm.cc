#include "kernels/layernorm.h"

#include <algorithm>
#include <cmath>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread
constexpr int64_t kChunks = 16;      // pieces in which gradients of scale and bias are summed

struct RowStats {
  double mean, inv_std;
};

template <typename T>
RowStats row_stats(bool centered, int64_t n, const T* x, double epsilon) {
  double mean = 0;
  if (centered) {
    for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(x[i]);
    mean /= static_cast<double>(n);
  }
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double v = static_cast<double>(x[i]) - mean;
    squares += v * v;
  }
  return {mean, 1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon)};
}

int64_t chunk_count(int64_t R) { return std::min(R, kChunks); }

}  // namespace

template <typename T>
void layernorm(bool centered, int64_t R, int64_t n, const T* x, const T* scale, const T* bias, double epsilon, T* y,
               T* mean, T* inv_std) {
  parallel_for(R, kGrain / (n + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* p = x + r * n;
      T* o = y + r * n;
      const RowStats s = row_stats(centered, n, p, epsilon);
      const T m = static_cast<T>(s.mean), inv = static_cast<T>(s.inv_std);
      for (int64_t i = 0; i < n; ++i) {
        const T v = (p[i] - m) * inv * scale[i];
        o[i] = bias == nullptr ? v : v + bias[i];
      }
      if (mean != nullptr) mean[r] = m;
      if (inv_std != nullptr) inv_std[r] = inv;
    }
  });
}

int64_t layernorm_grad_scratch(int64_t R, int64_t n) { return 2 * chunk_count(R) * n; }

template <typename T>
void layernorm_grad(bool centered, int64_t R, int64_t n, const T* x, const T* scale, const T* d_y, double epsilon,
                    double* partial, T* d_x, T* d_scale, T* d_bias) {
  const int64_t chunks = chunk_count(R);
  parallel_for(chunks, kGrain / (R * n / std::max<int64_t>(chunks, 1) + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      double* part_scale = partial + 2 * chunk * n;
      double* part_bias = part_scale + n;
      std::fill(part_scale, part_scale + 2 * n, 0.0);
      for (int64_t r = R * chunk / chunks; r < R * (chunk + 1) / chunks; ++r) {
        const T* p = x + r * n;
        const T* d = d_y + r * n;
        T* o = d_x + r * n;
        const RowStats s = row_stats(centered, n, p, epsilon);
        double sum = 0, products = 0;  // of g = d_y scale, and of g x_hat
        for (int64_t i = 0; i < n; ++i) {
          const double hat = (static_cast<double>(p[i]) - s.mean) * s.inv_std;
          const double g = static_cast<double>(d[i]) * static_cast<double>(scale[i]);
          sum += g;
          products += g * hat;
          part_scale[i] += static_cast<double>(d[i]) * hat;
          part_bias[i] += static_cast<double>(d[i]);
        }
        const double mean_g = centered ? sum / static_cast<double>(n) : 0.0, mean_product = products / static_cast<double>(n);
        for (int64_t i = 0; i < n; ++i) {
          const double hat = (static_cast<double>(p[i]) - s.mean) * s.inv_std;
          const double g = static_cast<double>(d[i]) * static_cast<double>(scale[i]);
          o[i] = static_cast<T>(s.inv_std * (g - mean_g - hat * mean_product));
        }
      }
    }
  });
  for (int64_t i = 0; i < n; ++i) {
    double sum_scale = 0, sum_bias = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      sum_scale += partial[2 * chunk * n + i];
      sum_bias += partial[(2 * chunk + 1) * n + i];
    }
    d_scale[i] = static_cast<T>(sum_scale);
    if (d_bias != nullptr) d_bias[i] = static_cast<T>(sum_bias);
  }
}

template <typename T>
void groupnorm(int64_t N, int64_t C, int64_t S, int64_t G, const T* x, const T* scale, const T* bias, double epsilon, T* y) {
  const int64_t channels = C / G, n = channels * S;
  parallel_for(N * G, kGrain / (n + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const RowStats s = row_stats(true, n, x + r * n, epsilon);
      const T m = static_cast<T>(s.mean), inv = static_cast<T>(s.inv_std);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t channel = r % G * channels + c, at = r * n + c * S;
        const T a = scale[channel], b = bias[channel];
        for (int64_t i = 0; i < S; ++i) y[at + i] = (x[at + i] - m) * inv * a + b;
      }
    }
  });
}

template <typename T>
void groupnorm_grad(int64_t N, int64_t C, int64_t S, int64_t G, const T* x, const T* scale, const T* d_y, double epsilon,
                    double* sums, T* d_x, T* d_scale, T* d_bias) {
  const int64_t channels = C / G, n = channels * S;
  double *sum_d = sums, *sum_product = sums + N * C, *stats = sums + 2 * N * C;
  parallel_for(N * G, kGrain / (n + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const RowStats s = row_stats(true, n, x + r * n, epsilon);
      stats[2 * r] = s.mean;
      stats[2 * r + 1] = s.inv_std;
      double mean_g = 0, mean_product = 0;
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = r * n + c * S, row = r * channels + c;  // row = sample * C + channel
        double d_sum = 0, product = 0;
        for (int64_t i = 0; i < S; ++i) {
          d_sum += static_cast<double>(d_y[at + i]);
          product += static_cast<double>(d_y[at + i]) * (static_cast<double>(x[at + i]) - s.mean) * s.inv_std;
        }
        sum_d[row] = d_sum;
        sum_product[row] = product;
        const auto a = static_cast<double>(scale[r % G * channels + c]);
        mean_g += a * d_sum;
        mean_product += a * product;
      }
      mean_g /= static_cast<double>(n);
      mean_product /= static_cast<double>(n);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = r * n + c * S;
        const auto a = static_cast<double>(scale[r % G * channels + c]);
        for (int64_t i = 0; i < S; ++i) {
          const double hat = (static_cast<double>(x[at + i]) - s.mean) * s.inv_std;
          d_x[at + i] = static_cast<T>(s.inv_std * (static_cast<double>(d_y[at + i]) * a - mean_g - hat * mean_product));
        }
      }
    }
  });
  for (int64_t c = 0; c < C; ++c) {
    double total_scale = 0, total_bias = 0;
    for (int64_t i = 0; i < N; ++i) {
      total_scale += sum_product[i * C + c];
      total_bias += sum_d[i * C + c];
    }
    d_scale[c] = static_cast<T>(total_scale);
    d_bias[c] = static_cast<T>(total_bias);
  }
}

namespace {

// u of one position: the window holds (size - 1) / 2 channels below c and size / 2 above.
template <typename T>
double lrn_base(const Lrn& p, int64_t C, int64_t S, int64_t c, const T* column) {
  double sum = 0;
  for (int64_t k = std::max<int64_t>(0, c - (p.size - 1) / 2); k <= std::min(C - 1, c + p.size / 2); ++k)
    sum += static_cast<double>(column[k * S]) * static_cast<double>(column[k * S]);
  return p.bias + p.alpha / static_cast<double>(p.size) * sum;
}

}  // namespace

template <typename T>
void lrn(const Lrn& p, int64_t N, int64_t C, int64_t S, const T* x, T* y) {
  parallel_for(N * C, kGrain / (S * p.size + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t i = 0; i < S; ++i) {
        const double u = lrn_base(p, C, S, row % C, x + row / C * C * S + i);
        y[row * S + i] = static_cast<T>(static_cast<double>(x[row * S + i]) * std::pow(u, -p.beta));
      }
  });
}

// d_x_c = d_y_c u_c^-beta - 2 alpha beta / size x_c * sum over the windows k that hold c of d_y_k x_k u_k^(-beta-1).
template <typename T>
void lrn_grad(const Lrn& p, int64_t N, int64_t C, int64_t S, const T* x, const T* d_y, T* d_x) {
  parallel_for(N * C, kGrain / (S * p.size * p.size + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t i = 0; i < S; ++i) {
        const int64_t c = row % C;
        const T* column = x + row / C * C * S + i;
        const T* d_column = d_y + row / C * C * S + i;
        double sum = 0;
        for (int64_t k = std::max<int64_t>(0, c - p.size / 2); k <= std::min(C - 1, c + (p.size - 1) / 2); ++k)
          sum += static_cast<double>(d_column[k * S]) * static_cast<double>(column[k * S]) *
                 std::pow(lrn_base(p, C, S, k, column), -p.beta - 1.0);
        const double own = static_cast<double>(d_column[c * S]) * std::pow(lrn_base(p, C, S, c, column), -p.beta);
        const double factor = 2.0 * p.alpha * p.beta / static_cast<double>(p.size);
        d_x[row * S + i] = static_cast<T>(own - factor * static_cast<double>(column[c * S]) * sum);
      }
  });
}

#define DS_INSTANTIATE(T)                                                                                              \
  template void layernorm(bool, int64_t, int64_t, const T*, const T*, const T*, double, T*, T*, T*);                   \
  template void layernorm_grad(bool, int64_t, int64_t, const T*, const T*, const T*, double, double*, T*, T*, T*);     \
  template void groupnorm(int64_t, int64_t, int64_t, int64_t, const T*, const T*, const T*, double, T*);               \
  template void groupnorm_grad(int64_t, int64_t, int64_t, int64_t, const T*, const T*, const T*, double, double*, T*,  \
                               T*, T*);                                                                                \
  template void lrn(const Lrn&, int64_t, int64_t, int64_t, const T*, T*);                                              \
  template void lrn_grad(const Lrn&, int64_t, int64_t, int64_t, const T*, const T*, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
