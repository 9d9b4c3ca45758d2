// Activations that can be done in the epilogue of a product.
#pragma once

#include <optional>

#include "libds/ir/rewriter.h"

namespace ds {

struct ActivationNode {
  ValueId x = kNone;  // what it is applied to
  Attributes attrs;   // as ops/epilogue.h reads them
};

// What the node does when it is Relu, Clip with constant bounds, Sigmoid, HardSwish, Swish, Gelu, Tanh; `is_state`:
// passes/pass.h.
std::optional<ActivationNode> activation_node(const Graph& graph, NodeId id, const std::vector<char>& is_state);

}  // namespace ds
