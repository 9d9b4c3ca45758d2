#include "kernels/dropout.h"

#include <algorithm>

#include "libds/base/parallel.h"
#include "libds/base/random.h"

namespace ds::kernels {

uint64_t dropout_key(uint64_t seed, uint64_t stream, uint64_t step) {
  const auto words = philox(seed, stream, step);
  return static_cast<uint64_t>(words[0]) << 32 | words[1];
}

template <typename T>
void dropout(int64_t n, const T* x, double ratio, uint64_t seed, uint64_t stream, uint64_t step, T* out) {
  const uint64_t key = dropout_key(seed, stream, step);
  const auto threshold = static_cast<uint64_t>(ratio * 4294967296.0);  // below: dropped
  const T factor = static_cast<T>(1.0 / (1.0 - ratio));
  const int64_t blocks = (n + 3) / 4;  // four elements a draw
  parallel_for(blocks, 1 << 11, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const auto draw = philox(key, stream, static_cast<uint64_t>(b));
      const int64_t count = std::min<int64_t>(4, n - 4 * b);
      for (int64_t k = 0; k < count; ++k) {
        const int64_t i = 4 * b + k;
        out[i] = draw[static_cast<size_t>(k)] < threshold ? T(0) : x[i] * factor;
      }
    }
  });
}

template void dropout(int64_t, const float*, double, uint64_t, uint64_t, uint64_t, float*);
template void dropout(int64_t, const double*, double, uint64_t, uint64_t, uint64_t, double*);

}  // namespace ds::kernels
