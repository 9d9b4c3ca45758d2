// Execution order of a plan.
#pragma once

#include <vector>

#include "libds/ir/graph.h"

namespace ds {

// File order, except that a node which only updates states (an optimizer step) moves up to where its
// operands are ready and the old content has no later reader, so that gradients die early.
std::vector<NodeId> schedule(const Graph& graph, const std::vector<char>& is_state);

}  // namespace ds
