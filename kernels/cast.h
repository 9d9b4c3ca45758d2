// Conversion between element types on raw pointers.
//
// Floats to integers truncate; NaN becomes 0 and numbers out of range the nearest end of it. Integers
// to narrower integers wrap. bool means "is not zero". 16-bit floats round to nearest even.
#pragma once

#include <cstdint>

namespace ds::kernels {

// From, To: every type of dispatch_dtype(). Threads: parallel_for.
template <typename From, typename To>
void cast(int64_t n, const From* x, To* out);

}  // namespace ds::kernels
