// Physically removes channels from a graph.
#pragma once

#include "libds/ir/rewriter.h"
#include "libds/passes/channel_groups.h"

namespace ds {

// `removed`: by channel of `groups`, which must be those of this graph. Weights lose the positions, attributes and shape
// operands that spell sizes out (groups of depthwise convolutions, Reshape, Split, Slice, Expand,
// Resize) follow, and all types are inferred again. Inputs and outputs keep their shapes. Throws
// kInternal when a pinned channel is to be removed, an axis would become empty, or the new shapes do not come out as planned.
void shrink_channels(Rewriter& rewriter, const ChannelGroups& groups, const std::vector<char>& removed);

// Elements of `tensor` at `positions` of `axis`.
Tensor take(const Tensor& tensor, size_t axis, const std::vector<int64_t>& positions);

}  // namespace ds
