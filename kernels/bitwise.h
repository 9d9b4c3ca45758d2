// Bit operations on integers, on raw pointers, with broadcasting. T: the eight integer types.
// `out` may equal an operand of the same size. Threads: parallel_for.
#pragma once

#include "kernels/broadcast.h"

namespace ds::kernels {

// Shifts move copies of the sign bit in from the left, zeros for unsigned types. A count that is negative or
// not below the width of T leaves what filling alone gives: -1 for a negative number shifted right, else 0.
enum class Bitwise { kAnd, kOr, kXor, kShiftLeft, kShiftRight };

template <typename T>
void bitwise(Bitwise op, const Broadcast& space, const T* a, const T* b, T* out);
template <typename T>
void bitwise_not(int64_t n, const T* x, T* out);

}  // namespace ds::kernels
