#include "kernels/loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 12;  // logits worth a thread

// Largest logit of sample (n, d) and log of the sum of exponentials above it.
template <typename T>
struct Normalizer {
  T largest;
  double log_sum;
};

template <typename T>
Normalizer<T> normalizer(const CrossEntropyShape& s, const T* x) {
  T largest = x[0];
  for (int64_t c = 1; c < s.c; ++c) largest = std::max(largest, x[c * s.d]);
  double sum = 0;
  for (int64_t c = 0; c < s.c; ++c) sum += std::exp(static_cast<double>(x[c * s.d] - largest));
  return {largest, std::log(sum)};
}

template <typename Body>
void each_sample(const CrossEntropyShape& s, Body&& body) {
  parallel_for(s.n * s.d, kGrain / std::max<int64_t>(1, s.c) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, i / s.d * s.c * s.d + i % s.d);
  });
}

// What the mean divides by: the sum of the weights of the labels that count.
template <typename T>
double mean_divisor(const CrossEntropyShape& s, const int64_t* labels, const T* weight, bool has_ignored, int64_t ignored) {
  double sum = 0;
  for (int64_t i = 0; i < s.n * s.d; ++i)
    if (!has_ignored || labels[i] != ignored) sum += weight == nullptr ? 1.0 : static_cast<double>(weight[labels[i]]);
  return sum;
}

}  // namespace

int64_t find_bad_label(const CrossEntropyShape& s, const int64_t* labels, bool has_ignored, int64_t ignored) {
  for (int64_t i = 0; i < s.n * s.d; ++i) {
    if (has_ignored && labels[i] == ignored) continue;
    if (labels[i] < 0 || labels[i] >= s.c) return i;
  }
  return -1;
}

template <typename T>
void cross_entropy(const CrossEntropyShape& s, Reduction reduction, const T* logits, const int64_t* labels, const T* weight,
                   bool has_ignored, int64_t ignored, T* loss, T* log_prob) {
  std::vector<double> losses(static_cast<size_t>(s.n * s.d));
  each_sample(s, [&](int64_t i, int64_t at) {
    const T* x = logits + at;
    const Normalizer<T> norm = normalizer(s, x);
    if (log_prob != nullptr)
      for (int64_t c = 0; c < s.c; ++c)
        log_prob[at + c * s.d] = static_cast<T>(static_cast<double>(x[c * s.d] - norm.largest) - norm.log_sum);
    const int64_t label = labels[i];
    if (has_ignored && label == ignored) return;
    const double w = weight == nullptr ? 1.0 : static_cast<double>(weight[label]);
    losses[static_cast<size_t>(i)] = w * (norm.log_sum - static_cast<double>(x[label * s.d] - norm.largest));
  });
  if (reduction == Reduction::kNone) {
    for (size_t i = 0; i < losses.size(); ++i) loss[i] = static_cast<T>(losses[i]);
    return;
  }
  double sum = 0;
  for (double l : losses) sum += l;
  loss[0] = static_cast<T>(reduction == Reduction::kSum ? sum : sum / mean_divisor(s, labels, weight, has_ignored, ignored));
}

template <typename T>
void cross_entropy_grad(const CrossEntropyShape& s, Reduction reduction, const T* logits, const int64_t* labels,
                        const T* weight, bool has_ignored, int64_t ignored, const T* d_loss, T* d_logits) {
  const double divisor = reduction == Reduction::kMean ? mean_divisor(s, labels, weight, has_ignored, ignored) : 1.0;
  each_sample(s, [&](int64_t i, int64_t at) {
    const T* x = logits + at;
    T* out = d_logits + at;
    const int64_t label = labels[i];
    if (has_ignored && label == ignored) {
      for (int64_t c = 0; c < s.c; ++c) out[c * s.d] = T(0);
      return;
    }
    const double w = weight == nullptr ? 1.0 : static_cast<double>(weight[label]);
    const double scale = w * static_cast<double>(reduction == Reduction::kNone ? d_loss[i] : d_loss[0]) / divisor;
    const Normalizer<T> norm = normalizer(s, x);
    for (int64_t c = 0; c < s.c; ++c) {
      const double p = std::exp(static_cast<double>(x[c * s.d] - norm.largest) - norm.log_sum);
      out[c * s.d] = static_cast<T>(scale * (p - (c == label ? 1.0 : 0.0)));
    }
  });
}

template <typename T>
T mse(int64_t n, const T* x, const T* y) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double e = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += e * e;
  }
  return static_cast<T>(sum / static_cast<double>(n));
}

template <typename T>
void mse_grad(int64_t n, const T* x, const T* y, T d_loss, T* d_x) {
  const T scale = T(2) * d_loss / static_cast<T>(n);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) d_x[i] = scale * (x[i] - y[i]);
  });
}

template <typename T>
T bce_with_logits(int64_t n, const T* x, const T* y) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double v = static_cast<double>(x[i]);
    sum += std::max(v, 0.0) - v * static_cast<double>(y[i]) + std::log1p(std::exp(-std::abs(v)));
  }
  return static_cast<T>(sum / static_cast<double>(n));
}

template <typename T>
void bce_with_logits_grad(int64_t n, const T* x, const T* y, T d_loss, T* d_x) {
  const T scale = d_loss / static_cast<T>(n);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) d_x[i] = scale * (T(1) / (T(1) + std::exp(-x[i])) - y[i]);
  });
}

template void cross_entropy(const CrossEntropyShape&, Reduction, const float*, const int64_t*, const float*, bool, int64_t, float*, float*);
template void cross_entropy(const CrossEntropyShape&, Reduction, const double*, const int64_t*, const double*, bool, int64_t, double*, double*);
template void cross_entropy_grad(const CrossEntropyShape&, Reduction, const float*, const int64_t*, const float*, bool, int64_t, const float*, float*);
template void cross_entropy_grad(const CrossEntropyShape&, Reduction, const double*, const int64_t*, const double*, bool, int64_t, const double*, double*);
template float mse(int64_t, const float*, const float*);
template double mse(int64_t, const double*, const double*);
template void mse_grad(int64_t, const float*, const float*, float, float*);
template void mse_grad(int64_t, const double*, const double*, double, double*);
template float bce_with_logits(int64_t, const float*, const float*);
template double bce_with_logits(int64_t, const double*, const double*);
template void bce_with_logits_grad(int64_t, const float*, const float*, float, float*);
template void bce_with_logits_grad(int64_t, const double*, const double*, double, double*);

}  // namespace ds::kernels
