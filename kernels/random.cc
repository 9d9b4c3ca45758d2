#include "kernels/random.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "libds/base/parallel.h"
#include "libds/base/random.h"

namespace ds::kernels {
namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;

// Two independent numbers in [0, 1) of 53 bits.
struct Pair {
  double a, b;
};
Pair draw(uint64_t key, uint64_t stream, uint64_t index) {
  const auto w = philox(key, stream, index);
  const auto unit = [](uint32_t high, uint32_t low) {
    return static_cast<double>((static_cast<uint64_t>(high) << 32 | low) >> 11) * 0x1p-53;
  };
  return {unit(w[0], w[1]), unit(w[2], w[3])};
}

// out[i] from pairs of draws.
template <typename T, typename F>
void fill_pairs(int64_t n, uint64_t key, uint64_t stream, T* out, F f) {
  parallel_for((n + 1) / 2, 1 << 10, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const Pair values = f(draw(key, stream, static_cast<uint64_t>(p)));
      out[2 * p] = static_cast<T>(values.a);
      if (2 * p + 1 < n) out[2 * p + 1] = static_cast<T>(values.b);
    }
  });
}

}  // namespace

template <typename T>
void random_uniform(int64_t n, double low, double high, uint64_t key, uint64_t stream, T* out) {
  // Rounding to T must not reach the upper end.
  const double last = static_cast<double>(std::nextafter(static_cast<T>(high), static_cast<T>(low)));
  fill_pairs(n, key, stream, out, [=](Pair p) {
    const auto place = [=](double u) { return std::min(low + (high - low) * u, std::max(last, low)); };
    return Pair{place(p.a), place(p.b)};
  });
}

template <typename T>
void random_normal(int64_t n, double mean, double scale, uint64_t key, uint64_t stream, T* out) {
  fill_pairs(n, key, stream, out, [=](Pair p) {  // Box and Muller
    const double radius = scale * std::sqrt(-2 * std::log1p(-p.a));
    return Pair{mean + radius * std::cos(kTwoPi * p.b), mean + radius * std::sin(kTwoPi * p.b)};
  });
}

template <typename T, typename I>
void multinomial(int64_t rows, int64_t classes, int64_t samples, const T* log_weights, uint64_t key, uint64_t stream, I* out) {
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> sums(static_cast<size_t>(classes));
    for (int64_t r = begin; r < end; ++r) {
      const T* row = log_weights + r * classes;
      const double most = static_cast<double>(*std::max_element(row, row + classes));
      double sum = 0;
      for (int64_t c = 0; c < classes; ++c) sums[static_cast<size_t>(c)] = sum += std::exp(static_cast<double>(row[c]) - most);
      for (int64_t s = 0; s < samples; ++s) {
        const double u = draw(key, stream, static_cast<uint64_t>(r * samples + s)).a * sum;
        const auto at = std::upper_bound(sums.begin(), sums.end(), u) - sums.begin();
        out[r * samples + s] = static_cast<I>(std::min<int64_t>(at, classes - 1));
      }
    }
  });
}

#define DS_INSTANTIATE(T)                                                                                        \
  template void random_uniform(int64_t, double, double, uint64_t, uint64_t, T*);                                 \
  template void random_normal(int64_t, double, double, uint64_t, uint64_t, T*);                                  \
  template void multinomial(int64_t, int64_t, int64_t, const T*, uint64_t, uint64_t, int32_t*);                  \
  template void multinomial(int64_t, int64_t, int64_t, const T*, uint64_t, uint64_t, int64_t*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
