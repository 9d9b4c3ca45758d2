// Kernels on our own tiles (kernels/packed_product.h) for convolutions and matrix products whose weights are constant.
#pragma once

#include "libds/ir/kernel_def.h"

namespace ds::ops {

// Conv and FusedConv of one or two spatial axes, with x, y and the addend in Layout::kChannelsLast.
KernelDef tile_conv();
// MatMul and FusedMatMul with a 2-D right operand.
KernelDef tile_matmul();

}  // namespace ds::ops
