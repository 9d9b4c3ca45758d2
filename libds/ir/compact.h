// compacted(): a graph without what rewriting has left behind.
#pragma once

#include "libds/ir/graph.h"

namespace ds {

// The same graph without dead nodes and values, which a graph keeps so that ids stay valid. Ids are new; names,
// order and symbols are the same. For graphs that are copied again and again.
Graph compacted(const Graph& graph);

}  // namespace ds
