#include "libds/compile/schedule.h"

#include <algorithm>

namespace ds {

std::vector<NodeId> schedule(const Graph& graph, const std::vector<char>& is_state) {
  std::vector<NodeId> order = graph.order();
  std::vector<int> position(graph.node_capacity(), -1);
  for (size_t i = 0; i < order.size(); ++i) position[static_cast<size_t>(order[i])] = static_cast<int>(i);
  std::vector<char> is_update(graph.value_capacity(), 0);
  for (const State& s : graph.states()) is_update[static_cast<size_t>(s.update)] = 1;

  const auto only_updates = [&](const Node& n) {
    return std::all_of(n.outputs.begin(), n.outputs.end(), [&](ValueId out) {
      return out == kNone ||
             (is_update[static_cast<size_t>(out)] && graph.value(out).users.empty() && !graph.is_output(out));
    });
  };
  // Position after which a node may run: of its last operand's producer and of the last other
  // reader of a state it replaces.
  const auto ready_after = [&](NodeId id) {
    int ready = -1;
    for (ValueId in : graph.node(id).inputs) {
      if (in == kNone) continue;
      const Value& v = graph.value(in);
      if (v.producer != kNone) ready = std::max(ready, position[static_cast<size_t>(v.producer)]);
      if (!is_state[static_cast<size_t>(in)]) continue;
      for (NodeId user : v.users)
        if (user != id) ready = std::max(ready, position[static_cast<size_t>(user)]);
    }
    return ready;
  };

  struct Key {
    int after, moved;  // nodes that stay sort as (own position, 0), moved ones as (ready position, 1)
    auto operator<=>(const Key&) const = default;
  };
  std::vector<Key> keys(graph.node_capacity());
  for (NodeId id : order) {
    const int own = position[static_cast<size_t>(id)];
    const int ready = only_updates(graph.node(id)) ? ready_after(id) : own;
    keys[static_cast<size_t>(id)] = ready < own ? Key{ready, 1} : Key{own, 0};
  }
  std::stable_sort(order.begin(), order.end(), [&](NodeId a, NodeId b) {
    return keys[static_cast<size_t>(a)] < keys[static_cast<size_t>(b)];
  });
  return order;
}

}  // namespace ds
