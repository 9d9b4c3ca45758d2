// Copies of graphs that hold only what is wanted: compacted(), without what rewriting has left behind, and subgraph().
#pragma once

#include <span>

#include "libds/ir/graph.h"

namespace ds {

// The same graph without dead nodes and values, which a graph keeps so that ids stay valid. Ids are new; names,
// order and symbols are the same. For graphs that are copied again and again.
Graph compacted(const Graph& graph);

// Some nodes of a graph, in its order, with their constants: `inputs` (values of the graph, made by others of its nodes or
// its inputs) and `outputs` are the interface, in this order. Of an input that a node makes only type and rank are
// taken over. The graph's states stay behind; names and symbols are the same, ids are new.
Graph subgraph(const Graph& graph, std::span<const NodeId> nodes, std::span<const ValueId> inputs, std::span<const ValueId> outputs);

}  // namespace ds
