#include "libds/run/model_cost.h"

#include "libds/compile/compile.h"
#include "libds/ir/lower.h"
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"

namespace ds {

std::optional<Cost> model_cost(const Graph& graph, std::span<const Shape> input_shapes) {
  Graph specialised = graph;
  Rewriter rw(specialised);
  lower_nodes(rw);
  specialize(rw, input_shapes, evaluate_node);
  if (!unplannable_reason(specialised).empty()) return std::nullopt;
  std::vector<char> is_state(specialised.value_capacity(), 0);
  for (const State& s : specialised.states()) is_state[static_cast<size_t>(s.value)] = 1;
  Cost total;
  for (NodeId id : specialised.order()) {
    const Cost cost = node_cost(*specialised.node(id).def, make_query(specialised, id, is_state, {}));
    total.flops = checked_add(total.flops, cost.flops);
    total.bytes = checked_add(total.bytes, cost.bytes);
  }
  return total;
}

}  // namespace ds
