#include "kernels/svm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// p from r[i, j], the probability of i among i and j: minimises sum (r[j, i] p[i] - r[i, j] p[j])^2 by
// coordinates until the gradient is even. q: C x C, qp: C.
void couple(size_t classes, const double* r, double* q, double* qp, double* p) {
  const auto at = [classes](size_t i, size_t j) { return i * classes + j; };
  for (size_t i = 0; i < classes; ++i) {
    p[i] = 1.0 / static_cast<double>(classes);
    q[at(i, i)] = 0;
    for (size_t j = 0; j < classes; ++j) {
      if (j == i) continue;
      q[at(i, i)] += r[at(j, i)] * r[at(j, i)];
      q[at(i, j)] = -r[at(j, i)] * r[at(i, j)];
    }
  }
  constexpr int kMostSteps = 100;
  const double enough = 0.005 / static_cast<double>(classes);
  for (int step = 0; step < kMostSteps; ++step) {
    double pqp = 0, error = 0;
    for (size_t i = 0; i < classes; ++i) {
      qp[i] = 0;
      for (size_t j = 0; j < classes; ++j) qp[i] += q[at(i, j)] * p[j];
      pqp += p[i] * qp[i];
    }
    for (size_t i = 0; i < classes; ++i) error = std::max(error, std::abs(qp[i] - pqp));
    if (error < enough) return;
    for (size_t i = 0; i < classes; ++i) {
      const double diff = (pqp - qp[i]) / q[at(i, i)];
      p[i] += diff;
      pqp = (pqp + diff * (diff * q[at(i, i)] + 2 * qp[i])) / (1 + diff) / (1 + diff);
      for (size_t j = 0; j < classes; ++j) {
        qp[j] = (qp[j] + diff * q[at(i, j)]) / (1 + diff);
        p[j] /= 1 + diff;
      }
    }
  }
}

}  // namespace

void squared_distances(int64_t rows, int64_t vectors, int64_t features, const float* x, const float* v, float* out) {
  constexpr int64_t kWorthAThread = 16384;  // differences
  const int64_t work = std::max<int64_t>(1, vectors * features);
  parallel_for(rows, std::max<int64_t>(1, kWorthAThread / work), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t s = 0; s < vectors; ++s) {
        double sum = 0;
        for (int64_t f = 0; f < features; ++f) {
          const double d = static_cast<double>(x[n * features + f]) - static_cast<double>(v[s * features + f]);
          sum += d * d;
        }
        out[n * vectors + s] = static_cast<float>(sum);
      }
    }
  });
}

void pairwise_coupling(int64_t rows, int64_t classes, const float* scores, const float* a, const float* b, float* out) {
  const auto c = static_cast<size_t>(classes);
  const int64_t pairs = classes * (classes - 1) / 2;
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    std::vector<double> r(c * c), q(c * c), qp(c), p(c);
    for (int64_t n = begin; n < end; ++n) {
      size_t pair = 0;
      for (size_t i = 0; i < c; ++i) {
        for (size_t j = i + 1; j < c; ++j, ++pair) {
          const double s = static_cast<double>(scores[n * pairs + static_cast<int64_t>(pair)]);
          const double chance = 1 / (1 + std::exp(static_cast<double>(a[pair]) * s + static_cast<double>(b[pair])));
          r[i * c + j] = std::clamp(chance, 1e-7, 1 - 1e-7);  // LIBSVM's bounds
          r[j * c + i] = 1 - r[i * c + j];
        }
      }
      couple(c, r.data(), q.data(), qp.data(), p.data());
      for (size_t i = 0; i < c; ++i) out[n * classes + static_cast<int64_t>(i)] = static_cast<float>(p[i]);
    }
  });
}

}  // namespace ds::kernels
