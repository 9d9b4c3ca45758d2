// Convolutions made to do what surrounds them. For the run-time pipeline only: a file that is saved
// never went through here.
#pragma once

#include <cstddef>

#include "libds/ir/graph.h"

namespace ds {

// Conv followed by BatchNormalization in inference form, or by Mul or Add with a per-channel constant,
// becomes one Conv with other weights and bias. Only where the weights are constant and nobody else
// reads the convolution. Exact in real arithmetic; rounding differs (computed in f64). Returns how many
// nodes were folded.
size_t fold_into_conv(Graph& graph);

// Conv + residual Add + activation (Relu, Clip, Sigmoid, HardSwish, x*Sigmoid(x)) becomes ai.ds.FusedConv.
// Bitwise equal to the separate nodes only up to the kernels' order of rounding. Returns the number made.
size_t fuse_conv(Graph& graph);

}  // namespace ds
