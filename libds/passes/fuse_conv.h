// Convolutions made to do what surrounds them. For the run-time pipeline only: a file that is saved
// never went through here.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// Conv followed by BatchNormalization in inference form, or by Mul or Add with a per-channel constant,
// becomes one Conv with other weights and bias. Only where the weights are constant and nobody else
// reads the convolution. Exact in real arithmetic; rounding differs (computed in f64).
bool fold_into_conv(Rewriter& rewriter, PassContext& context);

// Conv + residual Add + activation (Relu, Clip, Sigmoid, HardSwish, x*Sigmoid(x)) becomes ai.ds.FusedConv.
// Equal to the separate nodes up to rounding.
bool fuse_conv(Rewriter& rewriter, PassContext& context);

}  // namespace ds
