#include "kernels/det.h"

#include <cmath>
#include <utility>
#include <vector>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// Reduces a [m, m] to upper triangular form in place, doing the same to the rows of `right` [m, m] when it
// is given. Returns the determinant; 0 as soon as a column has no pivot.
double eliminate(int64_t m, double* a, double* right) {
  double product = 1;
  for (int64_t k = 0; k < m; ++k) {
    int64_t pivot = k;
    for (int64_t i = k + 1; i < m; ++i)
      if (std::abs(a[i * m + k]) > std::abs(a[pivot * m + k])) pivot = i;
    if (a[pivot * m + k] == 0) return 0;
    if (pivot != k) {
      for (int64_t j = 0; j < m; ++j) {
        std::swap(a[k * m + j], a[pivot * m + j]);
        if (right != nullptr) std::swap(right[k * m + j], right[pivot * m + j]);
      }
      product = -product;
    }
    product *= a[k * m + k];
    for (int64_t i = k + 1; i < m; ++i) {
      const double factor = a[i * m + k] / a[k * m + k];
      for (int64_t j = k; j < m; ++j) a[i * m + j] -= factor * a[k * m + j];
      if (right != nullptr)
        for (int64_t j = 0; j < m; ++j) right[i * m + j] -= factor * right[k * m + j];
    }
  }
  return product;
}

template <typename T>
std::vector<double> widened(int64_t n, const T* x) {
  return std::vector<double>(x, x + n);
}

// cofactor(i, j) = (-1)^(i + j) times the determinant without row i and column j.
template <typename T>
double cofactor(int64_t m, const T* x, int64_t row, int64_t column) {
  std::vector<double> minor;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < m; ++j)
      if (i != row && j != column) minor.push_back(static_cast<double>(x[i * m + j]));
  const double value = eliminate(m - 1, minor.data(), nullptr);
  return (row + column) % 2 == 0 ? value : -value;
}

}  // namespace

template <typename T>
void det(int64_t batch, int64_t m, const T* x, T* out) {
  parallel_for(batch, (1 << 14) / (m * m * m + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      std::vector<double> a = widened(m * m, x + b * m * m);
      out[b] = static_cast<T>(eliminate(m, a.data(), nullptr));
    }
  });
}

template <typename T>
void det_grad(int64_t batch, int64_t m, const T* x, const T* d_y, T* d_x) {
  parallel_for(batch, (1 << 14) / (m * m * m + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const T* matrix = x + b * m * m;
      T* d = d_x + b * m * m;
      const auto incoming = static_cast<double>(d_y[b]);
      std::vector<double> a = widened(m * m, matrix), inverse(static_cast<size_t>(m * m), 0.0);
      for (int64_t i = 0; i < m; ++i) inverse[static_cast<size_t>(i * m + i)] = 1;
      const double determinant = eliminate(m, a.data(), inverse.data());
      if (determinant == 0) {
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < m; ++j) d[i * m + j] = static_cast<T>(incoming * cofactor(m, matrix, i, j));
        continue;
      }
      for (int64_t i = m; i-- > 0;)  // back substitution
        for (int64_t j = 0; j < m; ++j) {
          double& v = inverse[static_cast<size_t>(i * m + j)];
          for (int64_t k = i + 1; k < m; ++k) v -= a[static_cast<size_t>(i * m + k)] * inverse[static_cast<size_t>(k * m + j)];
          v /= a[static_cast<size_t>(i * m + i)];
        }
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < m; ++j) d[i * m + j] = static_cast<T>(incoming * determinant * inverse[static_cast<size_t>(j * m + i)]);
    }
  });
}

#define DS_INSTANTIATE(T)                                   \
  template void det(int64_t, int64_t, const T*, T*);        \
  template void det_grad(int64_t, int64_t, const T*, const T*, T*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
