// PartsExecutor: runs a graph that no static plan can hold as a whole (a data-dependent operator, control flow, sequences) in parts.
//
// The graph is cut once (compile/partition.h). Static parts are Sessions without a pipeline of their own: each keeps plans for
// the shapes it sees, with layouts, planned memory and packed weights as a whole graph has them. A part that reads nothing
// but the graph's inputs is planned at once; one behind a dynamic part, whose shapes may never come again, when it sees shapes for
// the second time. Dynamic parts run node by node, bodies by their BodyRunner. What crosses is in plain layout and
// handed over, not copied. Parts share packed weights and the arena: they run one after the other.
//
// Results are those of EagerExecutor, bit for bit with layouts off; errors name the node.
#pragma once

#include "libds/run/executor.h"

namespace ds {

// `specialised`: the graph at one set of input shapes, as unplannable_reason() has seen it. Null where the graph had better run
// node by node as a whole (compile/partition.h says when).
std::unique_ptr<Executor> make_parts_executor(std::shared_ptr<const Graph> graph, const Graph& specialised, const CompileOptions& options,
                                              std::shared_ptr<Arena> shared = nullptr);

}  // namespace ds
