// Group normalization that files spell out as instance normalization of reshaped values.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// Reshape to [N, groups, ...], InstanceNormalization, Reshape back, then Mul and Add of one constant per channel (both
// optional), the way exporters write it for want of the operator, becomes GroupNormalization of x [N, C, ...]. f32 only; equal
// up to rounding.
bool fuse_group_norm(Rewriter& rewriter, PassContext& context);

}  // namespace ds
