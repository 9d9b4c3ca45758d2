// The type in which a kernel computes with elements of type T: float for 16-bit floats, else T.
#pragma once

#include <type_traits>

#include "libds/base/half.h"

namespace ds::kernels {

template <typename T>
inline constexpr bool is_half_v = std::is_same_v<T, f16> || std::is_same_v<T, bf16>;

template <typename T>
using ComputeType = std::conditional_t<is_half_v<T>, float, T>;

}  // namespace ds::kernels
