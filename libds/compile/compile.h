// compile(): graph -> Plan.
#pragma once

#include <functional>
#include <span>

#include "libds/compile/plan.h"
#include "libds/passes/pass.h"

namespace ds {

class Rewriter;

struct CompileOptions {
  Isa isa = cpu_isa();
  int threads = 1;
  // Assign blocked layouts across the graph (within 1e-5 of plain); off: bitwise equal to eager.
  bool layouts = true;
  // Bodies of control-flow nodes may run by plans and after the inference pipeline; off: node by node.
  bool body_plans = true;
  // The plan is only looked at: kernels are dropped as soon as they have said their sizes, so that packed
  // weights are never all there.
  bool for_sizes = false;
};

// Sets the input shapes, re-infers everything and turns shape arithmetic into constants. Throws
// kBadData when a shape does not fit the graph's declared rank or fixed dimensions. Nodes keep their
// ids; those to be lowered (ir/lower.h) are lowered before or after.
void specialize(Rewriter& rewriter, std::span<const Shape> input_shapes, const Evaluate& evaluate);

// The first reason why a specialised graph has no static plan (an unknown size, a data-dependent
// operator); empty when it has one. Throws kUnsupported for an operator nobody knows.
std::string unplannable_reason(const Graph& graph);

// Precondition: `graph` is specialised and plannable. Throws kUnsupported naming the node when no
// kernel takes it.
std::shared_ptr<const Plan> compile(std::shared_ptr<const Graph> graph, const CompileOptions& options);

// A node of a specialised graph as its kernels see it. `is_state` is indexed by value: states have
// an initializer but are not constant.
KernelQuery make_query(const Graph& graph, NodeId id, const std::vector<char>& is_state, const CompileOptions& options);

}  // namespace ds
