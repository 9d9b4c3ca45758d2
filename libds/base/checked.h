// Size arithmetic on numbers that come from files: overflow is bad data, never undefined behaviour.
#pragma once

#include <cstdint>
#include <span>

#include "libds/base/error.h"

namespace ds {

inline int64_t checked_mul(int64_t a, int64_t b) {
  int64_t r;
  if (__builtin_mul_overflow(a, b, &r)) bad_data("size {} x {} overflows", a, b);
  return r;
}

inline int64_t checked_add(int64_t a, int64_t b) {
  int64_t r;
  if (__builtin_add_overflow(a, b, &r)) bad_data("size {} + {} overflows", a, b);
  return r;
}

// Number of elements of a concrete shape; a negative dimension is bad data.
inline int64_t checked_numel(std::span<const int64_t> dims) {
  int64_t n = 1;
  for (int64_t d : dims) {
    if (d < 0) bad_data("negative dimension {}", d);
    n = checked_mul(n, d);
  }
  return n;
}

}  // namespace ds
