// Reverse-mode differentiation, graph to graph.
//
// Gradients are ordinary nodes appended to the graph, so that everything else (planning, fusion,
// precision, recomputation, all-reduce) treats them like any other node. Each operator's rule lives
// with the operator (OpDef::grad). Precondition: shapes are concrete (compile's specialize).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "libds/ir/rewriter.h"

namespace ds {

// Appends the gradient of the scalar `loss` with respect to each of `wrt`; kNone for those the loss
// does not depend on. Throws kUnsupported naming every operator on the way that has no gradient.
std::vector<ValueId> add_gradients(Rewriter& rewriter, ValueId loss, std::span<const ValueId> wrt);

// Vector-Jacobian product: the same, starting from gradients `d_outputs` of several `outputs`.
std::vector<ValueId> add_vjp(Rewriter& rewriter, std::span<const ValueId> outputs, std::span<const ValueId> d_outputs,
                             std::span<const ValueId> wrt);

// What a gradient of `outputs` meets on its way to `wrt`. Shapes do not matter.
struct GradientPath {
  std::vector<NodeId> missing;  // nodes on the way whose operator has no gradient, in order
  std::vector<bool> reached;    // per `wrt`: the outputs depend on it
};
GradientPath gradient_path(const Graph& graph, std::span<const ValueId> outputs, std::span<const ValueId> wrt);

}  // namespace ds
