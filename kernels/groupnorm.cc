#include "kernels/groupnorm.h"

#include <algorithm>
#include <numeric>

namespace ds::kernels {

GroupNormRows groupnorm_rows(const GroupNormShape& s) {
  constexpr int64_t kLanes = 32;            // two vectors of AVX-512
  constexpr int64_t kChunk = 1 << 14;       // elements
  GroupNormRows r;
  r.pixels = s.C >= kLanes || s.C == 0 ? 1 : kLanes / std::gcd(s.C, kLanes);
  r.length = r.pixels * s.C;
  r.per_sample = (s.S + r.pixels - 1) / r.pixels;
  r.per_chunk = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, r.length));
  r.chunks = (r.per_sample + r.per_chunk - 1) / r.per_chunk;
  return r;
}

size_t groupnorm_scratch(const GroupNormShape& s) {
  if (!s.channels_last) return 0;
  const GroupNormRows r = groupnorm_rows(s);
  // Two sums of every chunk and lane; then origin, mean, slope and shift by lane.
  return static_cast<size_t>(s.N * r.length) * (static_cast<size_t>(2 * r.chunks) * sizeof(double) + 4 * sizeof(float));
}

}  // namespace ds::kernels
