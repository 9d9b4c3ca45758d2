// Comparisons, logic and selection on raw pointers, with broadcasting. Threads: parallel_for.
#pragma once

#include <cstddef>

#include "kernels/broadcast.h"

namespace ds::kernels {

enum class Compare { kEqual, kGreater, kGreaterOrEqual, kLess, kLessOrEqual };
enum class Logic { kAnd, kOr, kXor };

// Any type; NaN compares false with everything. bool: kEqual only.
template <typename T>
void compare(Compare op, const Broadcast& space, const T* a, const T* b, bool* out);
void logic(Logic op, const Broadcast& space, const bool* a, const bool* b, bool* out);
void logical_not(int64_t n, const bool* x, bool* out);

// out[i] = condition[i] ? a[i] : b[i]; the space has three operands, elements are `element` bytes (1, 2, 4, 8).
void select(const Broadcast& space, size_t element, const bool* condition, const void* a, const void* b, void* out);

// T: the float types.
template <typename T>
void is_nan(int64_t n, const T* x, bool* out);
template <typename T>
void is_inf(int64_t n, const T* x, bool positive, bool negative, bool* out);

}  // namespace ds::kernels
