#include "kernels/dropout.h"

#include <algorithm>

#include "libds/base/parallel.h"
#include "libds/base/random.h"

namespace ds::kernels {

uint64_t dropout_key(uint64_t seed, uint64_t stream, uint64_t step) {
  const auto words = philox(seed, stream, step);
  return static_cast<uint64_t>(words[0]) << 32 | words[1];
}

namespace {

// f(i, whether element i stays), four elements a draw.
template <typename F>
void for_each_element(int64_t n, double ratio, uint64_t seed, uint64_t stream, uint64_t step, F f) {
  const uint64_t key = dropout_key(seed, stream, step);
  const auto threshold = static_cast<uint64_t>(ratio * 4294967296.0);  // below: dropped
  parallel_for((n + 3) / 4, 1 << 11, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const auto draw = philox(key, stream, static_cast<uint64_t>(b));
      const int64_t count = std::min<int64_t>(4, n - 4 * b);
      for (int64_t k = 0; k < count; ++k) f(4 * b + k, draw[static_cast<size_t>(k)] >= threshold);
    }
  });
}

}  // namespace

template <typename T>
void dropout(int64_t n, const T* x, double ratio, uint64_t seed, uint64_t stream, uint64_t step, T* out) {
  const T factor = static_cast<T>(1.0 / (1.0 - ratio));
  for_each_element(n, ratio, seed, stream, step, [=](int64_t i, bool stays) { out[i] = stays ? x[i] * factor : T(0); });
}

void dropout_mask(int64_t n, double ratio, uint64_t seed, uint64_t stream, uint64_t step, bool* mask) {
  for_each_element(n, ratio, seed, stream, step, [=](int64_t i, bool stays) { mask[i] = stays; });
}

template void dropout(int64_t, const float*, double, uint64_t, uint64_t, uint64_t, float*);
template void dropout(int64_t, const double*, double, uint64_t, uint64_t, uint64_t, double*);

}  // namespace ds::kernels
