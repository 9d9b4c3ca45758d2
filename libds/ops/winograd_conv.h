// 3x3 convolutions of stride 1 with fewer multiplications, on kernels/winograd.h.
#pragma once

#include "libds/ir/kernel_def.h"

namespace ds::ops {

// Conv and FusedConv of two spatial axes, f32, with constant weights, one group, and x, y and the addend in
// Layout::kChannelsLast, where kernels::winograd_out_tile() says that it takes `out_tile` (2 or 4) squared pixels at a time.
KernelDef winograd_conv(int64_t out_tile);

}  // namespace ds::ops
