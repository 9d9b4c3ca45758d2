#include "kernels/selection.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// -1, 0, 1; NaN is above everything and equal to itself.
template <typename T>
int order_of(T a, T b) {
  if (a < b) return -1;
  if (a > b) return 1;
  if (a == b) return 0;
  return static_cast<int>(a != a) - static_cast<int>(b != b);
}

}  // namespace

template <typename T>
int64_t unique_slices(int64_t outer, int64_t n, int64_t inner, const T* x, bool sorted, int64_t* first, int64_t* inverse, int64_t* counts) {
  const auto compare = [&](int64_t a, int64_t b) {
    for (int64_t o = 0; o < outer; ++o) {
      const T *pa = x + (o * n + a) * inner, *pb = x + (o * n + b) * inner;
      for (int64_t i = 0; i < inner; ++i)
        if (const int c = order_of(pa[i], pb[i]); c != 0) return c;
    }
    return 0;
  };
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const int c = compare(a, b);
    return c < 0 || (c == 0 && a < b);
  });
  int64_t groups = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || compare(order[i - 1], order[i]) != 0) {
      first[groups] = order[i];
      counts[groups++] = 0;
    }
    ++counts[groups - 1];
    inverse[order[i]] = groups - 1;
  }
  if (sorted) return groups;
  // Number the groups anew, by where they begin.
  std::vector<int64_t> by_place(static_cast<size_t>(groups)), place(by_place.size());
  std::iota(by_place.begin(), by_place.end(), int64_t{0});
  std::sort(by_place.begin(), by_place.end(), [&](int64_t a, int64_t b) { return first[a] < first[b]; });
  const std::vector<int64_t> old_first(first, first + groups), old_counts(counts, counts + groups);
  for (size_t k = 0; k < by_place.size(); ++k) {
    const auto was = static_cast<size_t>(by_place[k]);
    first[k] = old_first[was];
    counts[k] = old_counts[was];
    place[was] = static_cast<int64_t>(k);
  }
  for (int64_t j = 0; j < n; ++j) inverse[j] = place[static_cast<size_t>(inverse[j])];
  return groups;
}

void reverse_sequence(int64_t batch, int64_t time, int64_t batch_stride, int64_t time_stride, size_t slice, const int64_t* lengths,
                      const void* src, void* dst) {
  const auto* from = static_cast<const std::byte*>(src);
  auto* to = static_cast<std::byte*>(dst);
  parallel_for(batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      for (int64_t t = 0; t < time; ++t) {
        const int64_t s = t < lengths[b] ? lengths[b] - 1 - t : t;
        std::memcpy(to + static_cast<size_t>(b * batch_stride + t * time_stride) * slice,
                    from + static_cast<size_t>(b * batch_stride + s * time_stride) * slice, slice);
      }
  });
}

#define DS_INSTANTIATE(T) \
  template int64_t unique_slices(int64_t, int64_t, int64_t, const T*, bool, int64_t*, int64_t*, int64_t*);
DS_INSTANTIATE(float) DS_INSTANTIATE(double) DS_INSTANTIATE(bool)
DS_INSTANTIATE(int8_t) DS_INSTANTIATE(int16_t) DS_INSTANTIATE(int32_t) DS_INSTANTIATE(int64_t)
DS_INSTANTIATE(uint8_t) DS_INSTANTIATE(uint16_t) DS_INSTANTIATE(uint32_t) DS_INSTANTIATE(uint64_t)
#undef DS_INSTANTIATE

}  // namespace ds::kernels
