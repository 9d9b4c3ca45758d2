#include "libds/compile/partition.h"

#include <algorithm>
#include <map>
#include <set>

#include "libds/ir/compact.h"
#include "libds/ir/op_def.h"

namespace ds {
namespace {

constexpr int64_t kMostElements = 1024;  // of content that specialize() computes
constexpr size_t kLeastSteps = 8;        // of a part that has no product

enum class Kind : char { kStatic, kDynamic, kShapes };

class Cutter {
 public:
  Cutter(const Graph& graph, const Graph& specialised) : graph_(graph), specialised_(specialised), order_(graph.order()) {
    kind_.assign(graph.node_capacity(), Kind::kDynamic);
    turn_.assign(graph.node_capacity(), 0);
    from_shapes_.assign(graph.value_capacity(), 0);
    position_.assign(graph.node_capacity(), 0);
  }

  std::vector<Part> run() {
    for (size_t i = 0; i < order_.size(); ++i) place(order_[i], i);
    std::vector<Group> groups;
    for (int turn = 0; turn <= last_turn_; ++turn) {
      Group group{turn % 2 == 0, {}};
      for (NodeId id : order_)
        if (turn_of(id) == turn && kind_of(id) != Kind::kShapes) group.nodes.push_back(id);
      if (group.nodes.empty()) continue;
      group.is_static = group.is_static && worth_a_plan(group.nodes);
      if (!groups.empty() && !group.is_static && !groups.back().is_static) append(groups.back().nodes, group.nodes);
      else groups.push_back(std::move(group));
    }
    const auto is_static = [](const Group& g) { return g.is_static; };
    if (std::none_of(groups.begin(), groups.end(), is_static) || std::all_of(groups.begin(), groups.end(), is_static)) return {};
    give_shape_results(groups);
    return parts_of(groups);
  }

 private:
  struct Group {
    bool is_static = false;
    std::vector<NodeId> nodes;
  };

  Kind kind_of(NodeId id) const { return kind_[static_cast<size_t>(id)]; }
  int turn_of(NodeId id) const { return turn_[static_cast<size_t>(id)]; }
  NodeId producer(ValueId id) const { return id == kNone ? kNone : graph_.value(id).producer; }
  bool from_shapes(ValueId id) const { return from_shapes_[static_cast<size_t>(id)]; }

  // --- what a node is ---

  void place(NodeId id, size_t position) {
    const Node& n = graph_.node(id);
    position_[static_cast<size_t>(id)] = position;
    const Kind kind = kind_[static_cast<size_t>(id)] = classify(id, n);
    if (kind == Kind::kShapes)
      for (ValueId out : n.outputs)
        if (out != kNone) from_shapes_[static_cast<size_t>(out)] = 1;
    int turn = 0;
    for (ValueId in : n.inputs)
      if (producer(in) != kNone) turn = std::max(turn, turn_of(producer(in)));
    if (n.def->stateful) turn = std::max(turn, latest_stateful_);  // random numbers are drawn in the graph's order
    if (kind != Kind::kShapes && turn % 2 != (kind == Kind::kDynamic)) ++turn;
    if (n.def->stateful) latest_stateful_ = turn;
    turn_[static_cast<size_t>(id)] = turn;
    last_turn_ = std::max(last_turn_, turn);
  }

  Kind classify(NodeId id, const Node& n) const {
    if (n.def == nullptr) fail(ExitCode::kUnsupported, "{}: unknown operator", n.label());
    const auto plain = [&](ValueId v) { return v == kNone || (graph_.value(v).dtype != DType::kUndefined && !is_object(graph_.value(v).dtype)); };
    if (!std::all_of(n.inputs.begin(), n.inputs.end(), plain) || !std::all_of(n.outputs.begin(), n.outputs.end(), plain)) return Kind::kDynamic;
    if (computes_shapes(id, n)) return Kind::kShapes;
    if (n.def->data_dependent || n.has_bodies()) return Kind::kDynamic;
    for (size_t i = 0; i < n.inputs.size() && i < 32; ++i)
      if (((n.def->shape_inputs >> i) & 1) && n.inputs[i] != kNone && !graph_.value(n.inputs[i]).is_constant() && !from_shapes(n.inputs[i]))
        return Kind::kDynamic;
    return Kind::kStatic;
  }

  bool computes_shapes(NodeId id, const Node& n) const {
    if (n.def->stateful || n.inputs.empty()) return false;
    if (n.is("Shape") || n.is("Size")) return true;
    const bool known = std::all_of(n.inputs.begin(), n.inputs.end(), [&](ValueId in) {
      if (in == kNone || from_shapes(in)) return true;
      const Value& v = graph_.value(in);
      return v.is_constant() && v.constant->numel() <= kMostElements;
    });
    if (!known || n.def->lower) return false;
    // What makes more of shapes than shapes (a mask, a grid of positions) is computed by a part.
    if (!specialised_.node(id).alive) return true;
    return std::all_of(n.outputs.begin(), n.outputs.end(), [&](ValueId out) {
      if (out == kNone) return true;
      const Value& v = graph_.value(out);
      return v.dims && all_known(*v.dims) && checked_numel(concrete(*v.dims)) <= kMostElements;
    });
  }

  bool worth_a_plan(const std::vector<NodeId>& nodes) const {
    size_t steps = 0;
    for (NodeId id : nodes) {
      const Node& n = graph_.node(id);
      const bool weights = n.input(1) != kNone && graph_.value(n.input(1)).is_constant() && ((n.def->shape_inputs >> 1) & 1) == 0;
      if (n.def->cost && weights) return true;
      steps += !n.def->is_view;
    }
    return steps >= kLeastSteps;
  }

  // --- groups to parts ---

  static void append(std::vector<NodeId>& to, const std::vector<NodeId>& more) { to.insert(to.end(), more.begin(), more.end()); }

  // Results of the graph that are shape arithmetic are made by the last part: all they ask for is there by then.
  void give_shape_results(std::vector<Group>& groups) const {
    for (ValueId out : graph_.outputs())
      if (from_shapes(out)) groups.back().nodes.push_back(producer(out));
  }

  // The group's nodes and the shape arithmetic they need, in the graph's order.
  std::vector<NodeId> with_shapes(const Group& group) const {
    std::set<NodeId> all(group.nodes.begin(), group.nodes.end());
    std::vector<NodeId> left = group.nodes;
    while (!left.empty()) {
      const NodeId id = left.back();
      left.pop_back();
      for (ValueId in : graph_.node(id).inputs)
        if (in != kNone && from_shapes(in) && all.insert(producer(in)).second) left.push_back(producer(in));
    }
    std::vector<NodeId> sorted(all.begin(), all.end());
    std::sort(sorted.begin(), sorted.end(), [&](NodeId a, NodeId b) { return position_[static_cast<size_t>(a)] < position_[static_cast<size_t>(b)]; });
    return sorted;
  }

  std::vector<Part> parts_of(const std::vector<Group>& groups) const {
    std::vector<std::vector<NodeId>> nodes;
    for (const Group& g : groups) nodes.push_back(with_shapes(g));
    std::vector<Part> parts(groups.size());
    std::map<ValueId, size_t> maker;  // of values that no shape arithmetic makes: the part
    for (size_t i = 0; i < groups.size(); ++i)
      for (NodeId id : groups[i].nodes)
        for (ValueId out : graph_.node(id).outputs)
          if (out != kNone) maker[out] = i;
    const auto leaves = [&](ValueId id) {
      const auto it = maker.find(id);
      if (it == maker.end()) return;
      std::vector<ValueId>& outputs = parts[it->second].outputs;
      if (std::find(outputs.begin(), outputs.end(), id) == outputs.end()) outputs.push_back(id);
    };
    for (size_t i = 0; i < groups.size(); ++i) {
      std::set<ValueId> seen;
      for (NodeId id : nodes[i]) {
        for (ValueId in : graph_.node(id).inputs) {
          if (in == kNone || graph_.value(in).is_constant() || from_shapes(in) || !seen.insert(in).second) continue;
          const auto it = maker.find(in);
          if (it != maker.end() && it->second == i) continue;
          parts[i].inputs.push_back(in);
          leaves(in);
        }
      }
    }
    for (ValueId out : graph_.outputs()) leaves(out);
    for (size_t i = 0; i < groups.size(); ++i) {
      parts[i].is_static = groups[i].is_static;
      parts[i].graph = std::make_shared<const Graph>(subgraph(graph_, nodes[i], parts[i].inputs, parts[i].outputs));
    }
    return parts;
  }

  const Graph& graph_;
  const Graph& specialised_;
  const std::vector<NodeId> order_;
  std::vector<Kind> kind_;         // by node
  std::vector<int> turn_;          // by node: even ones are of static nodes, odd ones of dynamic ones
  std::vector<size_t> position_;   // by node: in order_
  std::vector<char> from_shapes_;  // by value
  int latest_stateful_ = 0;        // its turn
  int last_turn_ = 0;
};

}  // namespace

std::vector<Part> cut_into_parts(const Graph& graph, const Graph& specialised) {
  if (!graph.states().empty()) return {};
  return Cutter(graph, specialised).run();
}

}  // namespace ds
