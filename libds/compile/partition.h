// Cuts a graph that no static plan can hold as a whole into parts, so that those without data-dependent shapes have one.
//
// Nodes are static, where the shapes of their results follow from the shapes of their operands, or dynamic: data-dependent
// operators, those with bodies, those of sequences and optionals, and those whose shapes are decided by content that a
// run computes. A static node runs as early as its operands allow, a dynamic one as late as it must, in turns: all static nodes
// that wait for no dynamic one are part 0, and so on. That makes few parts, and large ones.
//
// Shape arithmetic (Shape and what is computed from shapes alone) is nowhere and everywhere: each part has its own copy of what
// it needs, so that a plan sees content and not something that another part has computed.
#pragma once

#include <memory>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

struct Part {
  bool is_static = false;  // has a plan once the shapes of its inputs are known
  std::shared_ptr<const Graph> graph;
  std::vector<ValueId> inputs, outputs;  // in the order of graph's: values of the graph that was cut
};

// In an order in which they can run. `specialised` is a copy of the graph for one set of input shapes (specialize(), before
// or after lowering): what it has turned into constants counts as shape arithmetic. Empty where there is nothing to gain: a graph
// with states, or without a static part that is worth a plan (a product, or several steps), or without a dynamic one.
std::vector<Part> cut_into_parts(const Graph& graph, const Graph& specialised);

}  // namespace ds
