// Numbers that cutting work into blocks needs.
#pragma once

#include <unistd.h>

#include <cstdint>

namespace ds::kernels {

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
inline int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

// Of a core's second-level cache; a common size where the system does not say.
inline int64_t l2_bytes() {
  static const int64_t bytes = [] {
    const long found = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return found > 0 ? static_cast<int64_t>(found) : int64_t{512} << 10;
  }();
  return bytes;
}

}  // namespace ds::kernels
