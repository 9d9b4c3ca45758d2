// Names that are not taken yet.
#pragma once

#include <cstdint>
#include <string>

namespace ds {

// `base` if it is free, else `base`_1, `base`_2, ... The number is found by doubling and halving, so that
// thousands of requests for one name stay cheap: it is the least free one where the taken ones have no
// gap, and else one whose predecessor is taken. Deterministic: names decide the bytes of what is saved.
template <typename IsTaken>
std::string free_name(const std::string& base, const IsTaken& is_taken) {
  if (!is_taken(base)) return base;
  const auto numbered = [&](int64_t n) { return base + "_" + std::to_string(n); };
  int64_t free = 1;
  while (is_taken(numbered(free))) free *= 2;
  int64_t taken = free / 2;  // 0: the base itself
  while (free - taken > 1) {
    const int64_t middle = taken + (free - taken) / 2;
    (is_taken(numbered(middle)) ? taken : free) = middle;
  }
  return numbered(free);
}

}  // namespace ds
