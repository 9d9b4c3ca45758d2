// f16 and bf16 for operators whose kernels compute in f32: operands are widened, the f32 kernel runs,
// results are rounded, once. A node's 16-bit constants are widened when the kernel is made, so that
// kernels that pack weights still do.
#pragma once

#include "libds/ir/op_def.h"

namespace ds {

// Appends the kernel to the operator's own, which decline 16-bit floats if it says so. It accepts a node when a 16-bit float is among its
// operands and one of the other kernels takes the node with f32 in its place. `op` must outlive it.
void add_widened_kernel(OpDef& op);

}  // namespace ds
