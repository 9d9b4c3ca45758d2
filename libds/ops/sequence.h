// What operators that cut tensors apart and put them together share.
#pragma once

#include "libds/mem/tensor.h"

namespace ds::ops {

// Copies `count` positions along `axis`: those of `from` from `from_at` on to `to` from `to_at` on. The
// other axes are equal. Numbers of whole bytes, and strings.
void copy_along_axis(const Tensor& from, int64_t from_at, Tensor& to, int64_t to_at, int64_t count, int64_t axis);

}  // namespace ds::ops
