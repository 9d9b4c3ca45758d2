// compile(): graph -> Plan.
#pragma once

#include <functional>
#include <span>

#include "libds/compile/plan.h"
#include "libds/ir/packed_cache.h"
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
  // Where kernels of all plans of a session keep the weights they pack; null: each keeps its own.
  std::shared_ptr<PackedCache> packed = nullptr;
  // A plan of the same graph for other shapes, compiled with the same options. Nodes that see what they saw there take
  // their kernels over; plans that share kernels must not run at the same time.
  std::shared_ptr<const Plan> previous = nullptr;
};

// Sets the input shapes, re-infers everything and turns shape arithmetic into constants. Throws
// kBadData when a shape does not fit the graph's declared rank or fixed dimensions. Nodes keep their
// ids; those to be lowered (ir/lower.h) are lowered before or after.
void specialize(Rewriter& rewriter, std::span<const Shape> input_shapes, const Evaluate& evaluate);

// The first reason why a specialised graph has no static plan (an unknown size, a data-dependent
// operator); empty when it has one. Throws kUnsupported for an operator nobody knows.
std::string unplannable_reason(const Graph& graph);

// Precondition: `graph` is specialised and plannable. A graph that nobody else holds may be changed in place. Throws kUnsupported naming the node when no
// kernel takes it.
std::shared_ptr<const Plan> compile(std::shared_ptr<const Graph> graph, const CompileOptions& options);

// A node of a specialised graph as its kernels see it. `is_state` is indexed by value: states have
// an initializer but are not constant.
KernelQuery make_query(const Graph& graph, NodeId id, const std::vector<char>& is_state, const CompileOptions& options);

}  // namespace ds
