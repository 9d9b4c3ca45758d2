#include "kernels/batchnorm.h"

#include <algorithm>
#include <cmath>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread
constexpr int kLanes = 4;            // independent accumulators along a row
constexpr int64_t kTile = 64;        // channels accumulated side by side when S is 1

// sums[c] = sum of f(c, i).first, sums[C + c] = of .second, over the elements i of channel c.
template <typename F>
void channel_sums(BatchShape b, double* sums, F&& f) {
  if (b.S == 1) {
    const int64_t tiles = (b.C + kTile - 1) / kTile;
    parallel_for(tiles, kGrain / (b.N * kTile + 1) + 1, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kTile, last = std::min(end * kTile, b.C);
      std::fill(sums + first, sums + last, 0.0);
      std::fill(sums + b.C + first, sums + b.C + last, 0.0);
      for (int64_t n = 0; n < b.N; ++n)
        for (int64_t c = first; c < last; ++c) f(c, n * b.C + c, sums[c], sums[b.C + c]);
    });
    return;
  }
  parallel_for(b.C, kGrain / (b.N * b.S + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double first[kLanes] = {}, second[kLanes] = {};
      for (int64_t n = 0; n < b.N; ++n) {
        const int64_t row = (n * b.C + c) * b.S;
        int64_t s = 0;
        for (; s + kLanes <= b.S; s += kLanes)
          for (int l = 0; l < kLanes; ++l) f(c, row + s + l, first[l], second[l]);
        for (int l = 0; s < b.S; ++s, ++l) f(c, row + s, first[l], second[l]);
      }
      sums[c] = (first[0] + first[1]) + (first[2] + first[3]);
      sums[b.C + c] = (second[0] + second[1]) + (second[2] + second[3]);
    }
  });
}

// row(c, first element, length) over the whole tensor; for S = 1 a row is a whole [C] line, from c = 0.
template <typename Row, typename Line>
void for_each_channel_row(BatchShape b, Row&& row, Line&& line) {
  if (b.S == 1) {
    parallel_for(b.N, kGrain / (b.C + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) line(n * b.C);
    });
    return;
  }
  parallel_for(b.N * b.C, kGrain / (b.S + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) row(i % b.C, i * b.S);
  });
}

template <typename T>
void stats(BatchShape b, const T* x, double* sums) {
  channel_sums(b, sums, [&](int64_t c, int64_t i, double& sum, double& squares) {
    const double v = static_cast<double>(x[i]) - static_cast<double>(x[c * b.S]);
    sum += v;
    squares += v * v;
  });
}

template <typename T>
void grad_sums(BatchShape b, const T* x, const T* d_y, const T* mean, double* sums) {
  channel_sums(b, sums, [&](int64_t c, int64_t i, double& sum, double& products) {
    const auto d = static_cast<double>(d_y[i]);
    sum += d;
    products += d * (static_cast<double>(x[i]) - static_cast<double>(mean[c]));
  });
}

template <typename T>
void affine(BatchShape b, const T* x, const T* a, const T* shift, T* y) {
  for_each_channel_row(
      b,
      [&](int64_t c, int64_t at) {
        const T f = a[c], s = shift[c];
        for (int64_t i = 0; i < b.S; ++i) y[at + i] = x[at + i] * f + s;
      },
      [&](int64_t at) {
        for (int64_t c = 0; c < b.C; ++c) y[at + c] = x[at + c] * a[c] + shift[c];
      });
}

template <typename T>
void grad_affine(BatchShape b, const T* x, const T* d_y, const T* a, const T* k, const T* s, T* d_x) {
  for_each_channel_row(
      b,
      [&](int64_t c, int64_t at) {
        const T fa = a[c], fk = k[c], fs = s[c];
        for (int64_t i = 0; i < b.S; ++i) d_x[at + i] = d_y[at + i] * fa + (x[at + i] * fk + fs);
      },
      [&](int64_t at) {
        for (int64_t c = 0; c < b.C; ++c) d_x[at + c] = d_y[at + c] * a[c] + (x[at + c] * k[c] + s[c]);
      });
}

}  // namespace

template <typename T>
BatchPasses<T> portable_batch_passes() { return {stats<T>, grad_sums<T>, affine<T>, grad_affine<T>}; }

template <typename T>
void batchnorm(const BatchPasses<T>& passes, BatchShape b, const T* x, const T* scale, const T* bias, const T* mean, const T* var, double epsilon,
               T* factors, T* y) {
  for (int64_t c = 0; c < b.C; ++c) {
    const double a = static_cast<double>(scale[c]) / std::sqrt(static_cast<double>(var[c]) + epsilon);
    factors[c] = static_cast<T>(a);
    factors[b.C + c] = static_cast<T>(static_cast<double>(bias[c]) - static_cast<double>(mean[c]) * a);
  }
  passes.affine(b, x, factors, factors + b.C, y);
}

template <typename T>
void batchnorm_train(const BatchPasses<T>& passes, BatchShape b, const T* x, const T* scale, const T* bias, const T* running_mean, const T* running_var,
                     double epsilon, double momentum, double* sums, T* factors, T* y, T* new_mean, T* new_var,
                     T* batch_mean, T* inv_std) {
  passes.stats(b, x, sums);
  const double count = static_cast<double>(b.N * b.S);
  for (int64_t c = 0; c < b.C; ++c) {
    const double shifted = sums[c] / count;
    const double mean = shifted + static_cast<double>(x[c * b.S]);
    const double var = std::max(0.0, sums[b.C + c] / count - shifted * shifted);
    const double inverse = 1.0 / std::sqrt(var + epsilon);
    batch_mean[c] = static_cast<T>(mean);
    inv_std[c] = static_cast<T>(inverse);
    new_mean[c] = static_cast<T>(momentum * static_cast<double>(running_mean[c]) + (1.0 - momentum) * mean);
    new_var[c] = static_cast<T>(momentum * static_cast<double>(running_var[c]) + (1.0 - momentum) * var);
    const double a = static_cast<double>(scale[c]) * inverse;
    factors[c] = static_cast<T>(a);
    factors[b.C + c] = static_cast<T>(static_cast<double>(bias[c]) - mean * a);
  }
  passes.affine(b, x, factors, factors + b.C, y);
}

template <typename T>
void batchnorm_grad(const BatchPasses<T>& passes, BatchShape b, const T* x, const T* d_y, const T* scale, const T* batch_mean, const T* inv_std,
                    double* sums, T* factors, T* d_x, T* d_scale, T* d_bias) {
  passes.grad_sums(b, x, d_y, batch_mean, sums);
  const double count = static_cast<double>(b.N * b.S);
  T *a = factors, *k = factors + b.C, *s = factors + 2 * b.C;
  for (int64_t c = 0; c < b.C; ++c) {
    const auto inverse = static_cast<double>(inv_std[c]), mean = static_cast<double>(batch_mean[c]);
    d_bias[c] = static_cast<T>(sums[c]);
    d_scale[c] = static_cast<T>(sums[b.C + c] * inverse);
    const double slope = static_cast<double>(scale[c]) * inverse;
    const double projection = slope * inverse * inverse * sums[b.C + c] / count;
    a[c] = static_cast<T>(slope);
    k[c] = static_cast<T>(-projection);
    s[c] = static_cast<T>(projection * mean - slope * sums[c] / count);
  }
  passes.grad_affine(b, x, d_y, a, k, s, d_x);
}

#define DS_INSTANTIATE(T)                                                                                              \
  template BatchPasses<T> portable_batch_passes<T>();\
  template void batchnorm(const BatchPasses<T>&, BatchShape, const T*, const T*, const T*, const T*, const T*, double, T*, T*);              \
  template void batchnorm_train(const BatchPasses<T>&, BatchShape, const T*, const T*, const T*, const T*, const T*, double, double, double*, \
                                T*, T*, T*, T*, T*, T*);                                                              \
  template void batchnorm_grad(const BatchPasses<T>&, BatchShape, const T*, const T*, const T*, const T*, const T*, double*, T*, T*, T*, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
