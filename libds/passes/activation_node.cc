#include "libds/passes/activation_node.h"

#include <limits>

namespace ds {
namespace {

std::optional<double> scalar(const Graph& graph, ValueId id, const std::vector<char>& is_state) {
  if (id == kNone || (static_cast<size_t>(id) < is_state.size() && is_state[static_cast<size_t>(id)])) return std::nullopt;
  const auto& t = graph.value(id).constant;
  if (t == nullptr || t->numel() != 1) return std::nullopt;
  return t->to_doubles()[0];
}

}  // namespace

std::optional<ActivationNode> activation_node(const Graph& graph, NodeId id, const std::vector<char>& is_state) {
  const Node& n = graph.node(id);
  const auto simple = [&](const char* name) { return ActivationNode{n.input(0), {{"activation", std::string(name)}}}; };
  if (n.is("Relu")) return simple("relu");
  if (n.is("Sigmoid")) return simple("sigmoid");
  if (n.is("HardSwish")) return simple("hardswish");
  if (n.is("Swish") && n.attr_float("alpha", 1.0f) == 1.0f) return simple("silu");
  if (n.is("Tanh")) return simple("tanh");
  if (n.is("Gelu")) return simple(n.attr_string("approximate", "none") == "tanh" ? "gelu_tanh" : "gelu");
  if (n.is("Clip")) {
    constexpr double kMost = std::numeric_limits<float>::max();
    const auto low = n.input(1) == kNone ? std::optional(-kMost) : scalar(graph, n.input(1), is_state);
    const auto high = n.input(2) == kNone ? std::optional(kMost) : scalar(graph, n.input(2), is_state);
    if (!low || !high) return std::nullopt;
    ActivationNode a = simple("clip");
    a.attrs["low"] = static_cast<float>(*low);
    a.attrs["high"] = static_cast<float>(*high);
    return a;
  }
  return std::nullopt;
}

}  // namespace ds
