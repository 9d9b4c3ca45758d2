#include "libds/tasks/verify/value_pairs.h"

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "libds/base/random.h"

namespace ds {
namespace {

// Results of nodes in topological order.
std::vector<ValueId> results(const Graph& graph) {
  std::vector<ValueId> list;
  for (NodeId id : graph.order())
    for (ValueId out : graph.node(id).outputs)
      if (out != kNone && graph.value(out).dtype != DType::kUndefined) list.push_back(out);
  return list;
}

bool is_number(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool same_operator(const Graph& a, ValueId x, const Graph& b, ValueId y) {
  const Node& n = a.node(a.value(x).producer);
  const Node& m = b.node(b.value(y).producer);
  return n.op == m.op && n.domain == m.domain && a.value(x).producer_index == b.value(y).producer_index;
}

bool keeps_meaning(const Node& n) {
  static constexpr std::string_view kOps[] = {"Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"};
  return n.domain.empty() && std::find(std::begin(kOps), std::end(kOps), n.op) != std::end(kOps);
}

// Per value, a hash of the operators that lead to it from the graph's inputs. Zero: not reached.
std::vector<uint64_t> structure(const Graph& graph) {
  std::vector<uint64_t> key(graph.value_capacity(), 0);
  for (size_t i = 0; i < graph.inputs().size(); ++i)
    key[static_cast<size_t>(graph.inputs()[i])] = stream_of(std::to_string(i));
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    if (keeps_meaning(n) && n.input(0) != kNone) {
      if (n.output(0) != kNone) key[static_cast<size_t>(n.outputs[0])] = key[static_cast<size_t>(n.inputs[0])];
      continue;
    }
    std::string text = n.domain + "." + n.op;
    for (ValueId in : n.inputs) text += fmt::format(",{:x}", in == kNone ? 1 : key[static_cast<size_t>(in)]);
    for (size_t i = 0; i < n.outputs.size(); ++i)
      if (n.outputs[i] != kNone) key[static_cast<size_t>(n.outputs[i])] = stream_of(text + ":" + std::to_string(i));
  }
  return key;
}

// The k-th of several values with one key goes with the k-th of the other graph's.
void pair_by_structure(const Graph& got, const Graph& expected, std::unordered_map<ValueId, ValueId>& pairs) {
  std::vector<char> taken(expected.value_capacity(), 0);
  for (const auto& [mine, theirs] : pairs) taken[static_cast<size_t>(theirs)] = 1;
  const std::vector<uint64_t> keys = structure(got), their_keys = structure(expected);
  // What keeps the meaning of its input has its key as well; only the operators proper count.
  const auto by_key = [](const Graph& graph, const std::vector<uint64_t>& key, auto&& skip) {
    std::map<uint64_t, std::vector<ValueId>> groups;
    for (ValueId id : results(graph))
      if (!skip(id) && !keeps_meaning(graph.node(graph.value(id).producer))) groups[key[static_cast<size_t>(id)]].push_back(id);
    return groups;
  };
  const auto mine = by_key(got, keys, [&](ValueId id) { return pairs.count(id) > 0; });
  const auto theirs = by_key(expected, their_keys, [&](ValueId id) { return taken[static_cast<size_t>(id)] != 0; });
  for (const auto& [key, list] : mine) {
    const auto other = theirs.find(key);
    if (other == theirs.end() || other->second.size() != list.size()) continue;
    for (size_t i = 0; i < list.size(); ++i) pairs.emplace(list[i], other->second[i]);
  }
}

std::vector<ValuePair> in_order(const Graph& got, const std::unordered_map<ValueId, ValueId>& pairs) {
  std::vector<ValuePair> list;
  for (ValueId id : results(got))
    if (const auto it = pairs.find(id); it != pairs.end()) list.push_back({id, it->second});
  return list;
}

std::unordered_map<ValueId, ValueId> pair_by_name(const Graph& got, const Graph& expected, bool numbers) {
  std::unordered_map<std::string_view, ValueId> named;
  for (ValueId id : results(expected)) named.emplace(expected.value(id).name, id);
  std::unordered_map<ValueId, ValueId> pairs;
  for (ValueId id : results(got)) {
    const auto it = named.find(got.value(id).name);
    if (it == named.end()) continue;
    if (numbers || !is_number(it->first) || same_operator(got, id, expected, it->second)) pairs.emplace(id, it->second);
  }
  return pairs;
}

}  // namespace

std::vector<ValuePair> pair_models(const Graph& got, const Graph& expected) {
  std::unordered_map<ValueId, ValueId> pairs = pair_by_name(got, expected, false);
  pair_by_structure(got, expected, pairs);
  return in_order(got, pairs);
}

std::vector<ValuePair> pair_rewritten(const Graph& got, const Graph& expected) {
  return in_order(got, pair_by_name(got, expected, true));
}

}  // namespace ds
