// Memory layouts across a graph.
//
// Convolutions run best on channels in blocks (nChw8c, nChw16c). This pass decides for every value of a
// specialised graph whether it is blocked, and inserts a Reorder (ai.ds) wherever a node needs another
// layout than the value has. Kernels say what they want (KernelDef::preferred_layouts); elementwise
// ones (layout_agnostic) follow their operands, views keep channels last where that is still what the memory holds; all
// others, and everything that leaves the plan, are plain.
#pragma once

#include <memory>
#include <vector>

#include "libds/compile/compile.h"

namespace ds {

struct LayoutPlan {
  std::shared_ptr<const Graph> graph;  // the given one where nothing wants a blocked layout
  std::vector<Layout> of;              // by value; empty: all plain
};

LayoutPlan assign_layouts(std::shared_ptr<const Graph> graph, const CompileOptions& options);

// Puts the layouts of `of` into the query's operands.
void set_layouts(KernelQuery& query, const std::vector<Layout>& of);

}  // namespace ds
