#include "kernels/loss.h"

#include <algorithm>
#include <cmath>

#include "kernels/unary_math.h"
#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 12;  // elements worth a thread
constexpr int64_t kChunks = 64;

// Sum of f(i) over [0, n): chunks that do not depend on the number of threads, added in order.
template <typename F>
double chunked_sum(int64_t n, F&& f) {
  const int64_t chunk = std::max<int64_t>(kGrain, (n + kChunks - 1) / kChunks);
  const int64_t chunks = (n + chunk - 1) / chunk;
  double parts[kChunks] = {};
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double part = 0;
      for (int64_t i = c * chunk; i < std::min(n, (c + 1) * chunk); ++i) part += f(i);
      parts[c] = part;
    }
  });
  double total = 0;
  for (int64_t c = 0; c < chunks; ++c) total += parts[c];
  return total;
}

// Maximum and log(sum(exp(x - maximum))) over the classes of one position.
struct Normalizer {
  double highest, log_sum;
};

template <typename T>
Normalizer normalizer(const T* x, int64_t C, int64_t S) {
  T highest = x[0];
  for (int64_t c = 1; c < C; ++c) highest = std::max(highest, x[c * S]);
  double sum = 0;
  for (int64_t c = 0; c < C; ++c) sum += static_cast<double>(std::exp(x[c * S] - highest));
  return {static_cast<double>(highest), std::log(sum)};
}

template <typename F>
void for_each_position(const CrossEntropy& p, F&& f) {
  parallel_for(p.N * p.S, kGrain / (p.C + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i, i / p.S * p.C * p.S + i % p.S);
  });
}

bool ignored(const CrossEntropy& p, int64_t label) { return p.ignore_index && label == *p.ignore_index; }

}  // namespace

int64_t first_bad_label(const CrossEntropy& p, const int64_t* labels) {
  for (int64_t i = 0; i < p.N * p.S; ++i)
    if ((labels[i] < 0 || labels[i] >= p.C) && !ignored(p, labels[i])) return i;
  return -1;
}

template <typename T>
void cross_entropy(const CrossEntropy& p, const T* x, const int64_t* labels, const T* class_weights, T* loss) {
  for_each_position(p, [&](int64_t i, int64_t at) {
    const int64_t label = labels[i];
    if (ignored(p, label)) {
      loss[i] = T(0);
      return;
    }
    const Normalizer z = normalizer(x + at, p.C, p.S);
    const double l = z.log_sum - (static_cast<double>(x[at + label * p.S]) - z.highest);
    loss[i] = static_cast<T>(class_weights == nullptr ? l : l * static_cast<double>(class_weights[label]));
  });
}

template <typename T>
double cross_entropy_weight(const CrossEntropy& p, const int64_t* labels, const T* class_weights) {
  double total = 0;
  for (int64_t i = 0; i < p.N * p.S; ++i)
    if (!ignored(p, labels[i])) total += class_weights == nullptr ? 1.0 : static_cast<double>(class_weights[labels[i]]);
  return total;
}

template <typename T>
void cross_entropy_grad(const CrossEntropy& p, const T* x, const int64_t* labels, const T* class_weights, double factor,
                        bool scalar, const T* d_loss, T* d_x) {
  for_each_position(p, [&](int64_t i, int64_t at) {
    const int64_t label = labels[i];
    if (ignored(p, label)) {
      for (int64_t c = 0; c < p.C; ++c) d_x[at + c * p.S] = T(0);
      return;
    }
    const Normalizer z = normalizer(x + at, p.C, p.S);
    const double weight = class_weights == nullptr ? 1.0 : static_cast<double>(class_weights[label]);
    const T d = static_cast<T>(weight * factor * static_cast<double>(d_loss[scalar ? 0 : i]));
    const T shift = static_cast<T>(z.highest), log_sum = static_cast<T>(z.log_sum);
    for (int64_t c = 0; c < p.C; ++c) {
      const T probability = std::exp(x[at + c * p.S] - shift - log_sum);
      d_x[at + c * p.S] = (probability - (c == label ? T(1) : T(0))) * d;
    }
  });
}

template <typename T>
double sum(int64_t n, const T* x) {
  return chunked_sum(n, [x](int64_t i) { return static_cast<double>(x[i]); });
}

template <typename T>
T mse(int64_t n, const T* x, const T* target) {
  const double total = chunked_sum(n, [=](int64_t i) {
    const double e = static_cast<double>(x[i]) - static_cast<double>(target[i]);
    return e * e;
  });
  return static_cast<T>(total / static_cast<double>(n));
}

template <typename T>
void mse_grad(int64_t n, const T* x, const T* target, T d_loss, T* d_x) {
  const T f = static_cast<T>(2.0 * static_cast<double>(d_loss) / static_cast<double>(n));
  parallel_for(n, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) d_x[i] = (x[i] - target[i]) * f;
  });
}

template <typename T>
T bce_with_logits(int64_t n, const T* x, const T* target) {
  // -t log(s) - (1 - t) log(1 - s) = softplus(x) - t x, without the cancellation.
  const double total = chunked_sum(n, [=](int64_t i) {
    return static_cast<double>(softplus(x[i])) - static_cast<double>(target[i]) * static_cast<double>(x[i]);
  });
  return static_cast<T>(total / static_cast<double>(n));
}

template <typename T>
void bce_with_logits_grad(int64_t n, const T* x, const T* target, T d_loss, T* d_x) {
  const T f = static_cast<T>(static_cast<double>(d_loss) / static_cast<double>(n));
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) d_x[i] = (sigmoid(x[i]) - target[i]) * f;
  });
}

#define DS_INSTANTIATE(T)                                                                                            \
  template void cross_entropy(const CrossEntropy&, const T*, const int64_t*, const T*, T*);                          \
  template double cross_entropy_weight(const CrossEntropy&, const int64_t*, const T*);                               \
  template void cross_entropy_grad(const CrossEntropy&, const T*, const int64_t*, const T*, double, bool, const T*, T*); \
  template double sum(int64_t, const T*);                                                                            \
  template T mse(int64_t, const T*, const T*);                                                                       \
  template void mse_grad(int64_t, const T*, const T*, T, T*);                                                        \
  template T bce_with_logits(int64_t, const T*, const T*);                                                           \
  template void bce_with_logits_grad(int64_t, const T*, const T*, T, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
