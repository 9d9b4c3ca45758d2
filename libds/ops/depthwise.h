// Depthwise convolutions in Layout::kChannelsLast, on kernels/depthwise.h.
#pragma once

#include "libds/ir/kernel_def.h"

namespace ds::ops {

// Conv and FusedConv of one or two spatial axes, f32, with constant weights and group = channels = output channels.
KernelDef depthwise_conv_avx512();
KernelDef depthwise_conv_avx2();

}  // namespace ds::ops
