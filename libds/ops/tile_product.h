// Kernels on our own tiles (kernels/packed_product.h) for convolutions and matrix products whose weights are constant.
#pragma once

#include "kernels/conv.h"
#include "kernels/nhwc.h"
#include "libds/ir/kernel_def.h"

namespace ds::ops {

// Conv and FusedConv of one or two spatial axes, with x, y and the addend in Layout::kChannelsLast.
KernelDef tile_conv();
// ConvTranspose without overlaps (kernel = stride, no padding, one group), x and y in Layout::kChannelsLast: a matrix
// product whose columns are the kernel's positions and the output channels.
KernelDef tile_conv_transpose();
// MatMul and FusedMatMul with a 2-D right operand.
KernelDef tile_matmul();


// A convolution of one axis is one of two whose first has size one.
kernels::NhwcConv nhwc_of(const kernels::ConvShape& c);

}  // namespace ds::ops
