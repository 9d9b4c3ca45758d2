// Strings, 8-bit floats and packed types for operators that only move elements (OpDef::moves_elements):
// plain numbers take the elements' places, a kernel of the operator moves those, and the elements are
// put where their numbers went.
#pragma once

#include "libds/ir/op_def.h"

namespace ds {

// Appends the kernel to the operator's own, when it moves elements. `op` must outlive it.
void add_moving_kernel(OpDef& op);

}  // namespace ds
