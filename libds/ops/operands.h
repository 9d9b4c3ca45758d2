// Checks of operands that inference functions share.
#pragma once

#include "libds/ops/common.h"

namespace ds::ops {

// Each throws, with the node's context, unless input i is absent or as it should be.

inline void require_float(InferContext& c, size_t i) {
  if (c.has_input(i) && !is_float(c.dtype(i)))
    c.error("input {} ('{}') is {}, floating point is needed", i, c.input(i).name, dtype_name(c.dtype(i)));
}

inline void require_type(InferContext& c, size_t i, DType dtype) {
  if (c.has_input(i) && c.dtype(i) != dtype)
    c.error("input {} ('{}') is {}, expected {}", i, c.input(i).name, dtype_name(c.dtype(i)),
            dtype_name(dtype));
}

// Sizes that are not known on either side fit.
inline void require_dims(InferContext& c, size_t i, const Dims& need) {
  if (!c.has_dims(i)) return;
  const Dims& dims = c.dims(i);
  bool fits = dims.size() == need.size();
  for (size_t a = 0; fits && a < need.size(); ++a)
    fits = !dims[a].known() || !need[a].known() || dims[a] == need[a];
  if (!fits)
    c.error("input {} ('{}') is {}, expected {}", i, c.input(i).name, c.graph().dims_string(dims),
            c.graph().dims_string(need));
}

}  // namespace ds::ops
