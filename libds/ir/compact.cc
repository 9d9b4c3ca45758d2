#include "libds/ir/compact.h"

#include <algorithm>
#include <optional>

#include "libds/ir/rewriter.h"

namespace ds {
namespace {

int32_t symbols_of(const std::optional<Dims>& dims) {
  int32_t count = 0;
  if (dims)
    for (Dim d : *dims)
      if (!d.known()) count = std::max(count, d.symbol_id() + 1);
  return count;
}

// How many symbols the type needs: one more than its largest id.
int32_t symbols_of(const ValueType& type) {
  return std::max(symbols_of(type.dims), type.element ? symbols_of(*type.element) : 0);
}

void copy_model_data(const Graph& from, Graph& to) {
  to.name = from.name;
  to.doc = from.doc;
  to.ir_version = from.ir_version;
  to.opsets = from.opsets;
  to.producer_name = from.producer_name;
  to.producer_version = from.producer_version;
  to.model_domain = from.model_domain;
  to.model_doc = from.model_doc;
  to.model_version = from.model_version;
  to.metadata = from.metadata;
  to.external_files = from.external_files;
  to.opaque = from.opaque;
}

// A copy of these nodes, with what they touch and what the interface names.
class Copy {
 public:
  Copy(const Graph& from, std::span<const NodeId> nodes, std::span<const ValueId> inputs, std::span<const ValueId> outputs,
       std::span<const State> states)
      : from_(from), rw_(to_) {
    copy_model_data(from, to_);
    find_values(nodes, inputs, outputs, states);
    take_symbols();
    for (size_t i = 0; i < live_.size(); ++i)
      if (live_[i]) take_value(static_cast<ValueId>(i));
    for (NodeId id : nodes) {
      Node n = from.node(id);
      n.inputs = renumbered(n.inputs);
      n.outputs = renumbered(n.outputs);
      rw_.add_raw_node(std::move(n));
    }
    rw_.set_inputs(renumbered(inputs));
    rw_.set_outputs(renumbered(outputs));
    for (const State& s : states) rw_.add_state({now_[static_cast<size_t>(s.value)], now_[static_cast<size_t>(s.update)]});
    for (ValueId id : inputs)
      if (from.value(id).producer != kNone) forget_sizes(now_[static_cast<size_t>(id)]);
  }
  Graph take() { return std::move(to_); }

 private:
  void find_values(std::span<const NodeId> nodes, std::span<const ValueId> inputs, std::span<const ValueId> outputs,
                   std::span<const State> states) {
    live_.assign(from_.value_capacity(), 0);
    const auto mark = [&](ValueId id) {
      if (id != kNone) live_[static_cast<size_t>(id)] = 1;
    };
    for (ValueId id : inputs) mark(id);
    for (ValueId id : outputs) mark(id);
    for (const State& s : states) mark(s.value), mark(s.update);
    for (NodeId id : nodes) {
      for (ValueId in : from_.node(id).inputs) mark(in);
      for (ValueId out : from_.node(id).outputs) mark(out);
    }
  }

  void take_symbols() {
    int32_t symbols = 0;
    for (size_t i = 0; i < live_.size(); ++i) {
      if (!live_[i]) continue;
      const Value& v = from_.value(static_cast<ValueId>(i));
      symbols = std::max({symbols, symbols_of(v.type()), symbols_of(v.ints)});
    }
    for (int32_t i = 0; i < symbols; ++i) {
      const std::string& name = from_.symbol_name(i);
      const Dim same = name.empty() ? to_.fresh_dim() : to_.symbol(name);
      DS_CHECK(same.symbol_id() == i);
    }
    now_.assign(live_.size(), kNone);
  }

  void take_value(ValueId id) {
    const Value& v = from_.value(id);
    const ValueId copy = now_[static_cast<size_t>(id)] = rw_.add_value(v.name);
    if (v.is_constant()) rw_.set_constant(copy, v.constant);
    rw_.set_type(copy, v.type());
    rw_.set_known_ints(copy, v.ints);
    rw_.set_opaque(copy, v.opaque);
  }

  void forget_sizes(ValueId id) {
    std::optional<Dims> dims = to_.value(id).dims;
    if (dims)
      for (Dim& d : *dims) d = to_.fresh_dim();
    rw_.set_type(id, to_.value(id).dtype, std::move(dims));
    rw_.set_known_ints(id, std::nullopt);
  }

  std::vector<ValueId> renumbered(std::span<const ValueId> ids) const {
    std::vector<ValueId> result;
    for (ValueId id : ids) result.push_back(id == kNone ? kNone : now_[static_cast<size_t>(id)]);
    return result;
  }

  const Graph& from_;
  Graph to_;
  Rewriter rw_;
  std::vector<char> live_;    // by value
  std::vector<ValueId> now_;  // by value: the copy
};

}  // namespace

Graph compacted(const Graph& graph) {
  return Copy(graph, graph.order(), graph.inputs(), graph.outputs(), graph.states()).take();
}

Graph subgraph(const Graph& graph, std::span<const NodeId> nodes, std::span<const ValueId> inputs, std::span<const ValueId> outputs) {
  return Copy(graph, nodes, inputs, outputs, {}).take();
}

}  // namespace ds
