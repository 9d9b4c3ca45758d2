#include "libds/ir/lower.h"

#include "libds/base/error.h"
#include "libds/ir/op_def.h"

namespace ds {

namespace {

// False when the node stays.
bool lower_node(Rewriter& rewriter, NodeId id) {
  const Node& n = rewriter.graph().node(id);
  const OpDef* def = n.def;
  if (def == nullptr || !def->lower) return false;
  rewriter.insert_before(id);
  const std::string label = n.label();
  if (!with_context([&] { return label; }, [&] { return def->lower(rewriter, id); })) return false;
  rewriter.erase_node(id);
  return true;
}

// Calls lowered(id) after each node that was lowered.
template <typename Lowered>
void lower_all(Rewriter& rewriter, Lowered lowered) {
  for (bool again = true; again;) {  // what is written may need lowering itself
    again = false;
    for (NodeId id : rewriter.graph().order()) {
      if (!lower_node(rewriter, id)) continue;
      lowered(id);
      again = true;
    }
  }
  rewriter.insert_at_end();
}

}  // namespace

bool lower_nodes(Rewriter& rewriter) {
  bool changed = false;
  lower_all(rewriter, [&](NodeId) { changed = true; });
  return changed;
}

std::vector<NodeId> lower_nodes_with_origins(Rewriter& rewriter) {
  const Graph& graph = rewriter.graph();
  std::vector<NodeId> origin(graph.node_capacity());
  for (size_t i = 0; i < origin.size(); ++i) origin[i] = static_cast<NodeId>(i);
  lower_all(rewriter, [&](NodeId id) {
    const NodeId from = origin[static_cast<size_t>(id)];
    origin.resize(graph.node_capacity(), from);
  });
  return origin;
}

}  // namespace ds
