// Walking a ReduceSpace. Internal linkage: this is compiled for several instruction sets.
#pragma once

#include "kernels/reduce.h"

namespace ds::kernels {
namespace {

// Calls f(offset) for all combinations of `axes` axes, outer to inner.
template <typename F>
inline void for_each_offset(int axes, const int64_t* size, const int64_t* stride, F&& f) {
  int64_t index[ReduceSpace::kMaxRank] = {}, offset = 0;
  for (;;) {
    f(offset);
    int d = axes - 1;
    for (; d >= 0; --d) {
      offset += stride[d];
      if (++index[d] < size[d]) break;
      offset -= size[d] * stride[d];
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

// Where the elements behind output `index` start, counting over the first `axes` kept axes.
inline int64_t kept_offset(const ReduceSpace& s, int axes, int64_t index) {
  int64_t offset = 0;
  for (int d = axes - 1; d >= 0; --d) {
    offset += index % s.kept_size[d] * s.kept_stride[d];
    index /= s.kept_size[d];
  }
  return offset;
}

inline bool innermost_is_kept(const ReduceSpace& s) { return s.kept > 0 && s.kept_stride[s.kept - 1] == 1; }

}  // namespace
}  // namespace ds::kernels
