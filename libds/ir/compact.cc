#include "libds/ir/compact.h"

#include <algorithm>

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

std::vector<char> live_values(const Graph& graph) {
  std::vector<char> live(graph.value_capacity(), 0);
  const auto mark = [&](ValueId id) {
    if (id != kNone) live[static_cast<size_t>(id)] = 1;
  };
  for (ValueId id : graph.inputs()) mark(id);
  for (ValueId id : graph.outputs()) mark(id);
  for (const State& s : graph.states()) mark(s.value), mark(s.update);
  for (NodeId id : graph.order()) {
    for (ValueId in : graph.node(id).inputs) mark(in);
    for (ValueId out : graph.node(id).outputs) mark(out);
  }
  return live;
}

}  // namespace

Graph compacted(const Graph& graph) {
  Graph result;
  copy_model_data(graph, result);
  const std::vector<char> live = live_values(graph);
  int32_t symbols = 0;
  for (size_t i = 0; i < live.size(); ++i) {
    if (!live[i]) continue;
    const Value& v = graph.value(static_cast<ValueId>(i));
    symbols = std::max({symbols, symbols_of(v.type()), symbols_of(v.ints)});
  }
  for (int32_t i = 0; i < symbols; ++i) {
    const std::string& name = graph.symbol_name(i);
    const Dim same = name.empty() ? result.fresh_dim() : result.symbol(name);
    DS_CHECK(same.symbol_id() == i);
  }
  Rewriter rw(result);
  std::vector<ValueId> now(live.size(), kNone);
  for (size_t i = 0; i < live.size(); ++i) {
    if (!live[i]) continue;
    const Value& v = graph.value(static_cast<ValueId>(i));
    const ValueId id = now[i] = rw.add_value(v.name);
    if (v.is_constant()) rw.set_constant(id, v.constant);
    rw.set_type(id, v.type());
    rw.set_known_ints(id, v.ints);
    rw.set_opaque(id, v.opaque);
  }
  const auto renumber = [&](std::vector<ValueId> ids) {
    for (ValueId& id : ids)
      if (id != kNone) id = now[static_cast<size_t>(id)];
    return ids;
  };
  for (NodeId id : graph.order()) {
    Node n = graph.node(id);
    n.inputs = renumber(std::move(n.inputs));
    n.outputs = renumber(std::move(n.outputs));
    rw.add_raw_node(std::move(n));
  }
  rw.set_inputs(renumber(graph.inputs()));
  rw.set_outputs(renumber(graph.outputs()));
  for (const State& s : graph.states()) rw.add_state({now[static_cast<size_t>(s.value)], now[static_cast<size_t>(s.update)]});
  return result;
}

}  // namespace ds
