// The epilogue of a fused operator in its node's attributes: `activation` ("", relu, clip, sigmoid, hardswish, silu, gelu,
// gelu_tanh, tanh), `low` and `high` for clip, `scale` and `shift`. Nodes without them have none.
#pragma once

#include "kernels/epilogue.h"
#include "libds/ir/graph.h"

namespace ds::ops {

// `add` is set when the node has input 3, the addend.
kernels::Epilogue epilogue_of(const Node& node);

}  // namespace ds::ops
