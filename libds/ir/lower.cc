#include "libds/ir/lower.h"

#include "libds/base/error.h"
#include "libds/ir/op_def.h"

namespace ds {

bool lower_nodes(Rewriter& rewriter) {
  const Graph& graph = rewriter.graph();
  bool changed = false;
  for (bool again = true; again;) {  // what is written may need lowering itself
    again = false;
    for (NodeId id : graph.order()) {
      const OpDef* def = graph.node(id).def;
      if (def == nullptr || !def->lower) continue;
      rewriter.insert_before(id);
      const std::string label = graph.node(id).label();
      if (!with_context([&] { return label; }, [&] { return def->lower(rewriter, id); })) continue;
      rewriter.erase_node(id);
      changed = again = true;
    }
  }
  rewriter.insert_at_end();
  return changed;
}

}  // namespace ds
