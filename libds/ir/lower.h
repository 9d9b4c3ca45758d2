// Operators without kernels of their own, written in terms of others (OpDef::lower).
#pragma once

#include <vector>

#include "libds/ir/rewriter.h"

namespace ds {

// Replaces every node whose operator has a `lower` by the nodes that it writes, until none changes.
// Needs inferred types. For graphs about to run; never applied to what is saved. A node that its
// operator cannot lower (a rank it needs is not known) stays. Returns whether anything changed.
bool lower_nodes(Rewriter& rewriter);

// The same, telling for every node id of the result which node of the graph before it comes from (itself
// for those that stayed).
std::vector<NodeId> lower_nodes_with_origins(Rewriter& rewriter);

}  // namespace ds
