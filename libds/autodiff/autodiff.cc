#include "libds/autodiff/autodiff.h"

#include <algorithm>

#include "libds/ir/op_def.h"

namespace ds {
namespace {

// Values through which a gradient may travel to one of `sources`.
std::vector<char> reachable(const Graph& graph, std::span<const ValueId> sources) {
  std::vector<char> reached(graph.value_capacity(), 0);
  for (ValueId id : sources) reached[static_cast<size_t>(id)] = 1;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    if (n.def != nullptr && n.def->stops_gradient) continue;
    const bool depends = std::any_of(n.inputs.begin(), n.inputs.end(),
                                     [&](ValueId in) { return in != kNone && reached[static_cast<size_t>(in)]; });
    if (!depends) continue;
    for (ValueId out : n.outputs)
      if (out != kNone && is_float(graph.value(out).dtype)) reached[static_cast<size_t>(out)] = 1;
  }
  return reached;
}

class Differentiator {
 public:
  Differentiator(Rewriter& rewriter, std::span<const ValueId> outputs, std::span<const ValueId> d_outputs,
                 std::span<const ValueId> wrt)
      : rw_(rewriter), graph_(rewriter.graph()), reached_(reachable(graph_, wrt)), order_(graph_.order()),
        parts_(graph_.value_capacity()), total_(graph_.value_capacity(), kNone) {
    rw_.insert_at_end();
    for (size_t i = 0; i < outputs.size(); ++i)
      if (reached_[static_cast<size_t>(outputs[i])]) parts_[static_cast<size_t>(outputs[i])].push_back(d_outputs[i]);
    std::string missing;
    for (NodeId id : gradient_path(graph_, outputs, wrt).missing) missing += (missing.empty() ? "" : ", ") + graph_.node(id).label();
    if (!missing.empty()) fail(ExitCode::kUnsupported, "no gradient for {}", missing);
  }

  void run() {
    for (auto it = order_.rbegin(); it != order_.rend(); ++it) visit(*it);
  }

  // Sum of all that flows into a value; kNone when nothing does.
  ValueId gradient(ValueId id) {
    const auto i = static_cast<size_t>(id);
    if (total_[i] != kNone || parts_[i].empty()) return total_[i];
    ValueId sum = parts_[i][0];
    for (size_t k = 1; k < parts_[i].size(); ++k)
      sum = rw_.emit("Add", {sum, parts_[i][k]}, {}, fmt::format("grad/{}", graph_.value(id).name));
    return total_[i] = sum;
  }

 private:
  void visit(NodeId id) {
    const OpDef* def = graph_.node(id).def;
    if (def == nullptr || def->stops_gradient) return;
    const std::vector<ValueId> inputs = graph_.node(id).inputs, outputs = graph_.node(id).outputs;
    std::vector<bool> needs;
    for (ValueId in : inputs) needs.push_back(in != kNone && reached_[static_cast<size_t>(in)]);
    if (std::none_of(needs.begin(), needs.end(), [](bool b) { return b; })) return;
    std::vector<ValueId> d_outputs;
    for (ValueId out : outputs) d_outputs.push_back(out == kNone ? kNone : gradient(out));
    if (std::all_of(d_outputs.begin(), d_outputs.end(), [](ValueId d) { return d == kNone; })) return;
    const std::string label = graph_.node(id).label();
    with_context([&] { return "gradient of " + label; }, [&] {
      GradContext context(rw_, id, d_outputs, needs);
      def->grad(context);
      for (size_t i = 0; i < inputs.size(); ++i) {
        const ValueId d = context.d_inputs()[i];
        if (!needs[i] || d == kNone) continue;
        DS_CHECK(context.shape(d) == context.shape(inputs[i]));
        parts_[static_cast<size_t>(inputs[i])].push_back(d);
      }
    });
  }

  Rewriter& rw_;
  Graph& graph_;
  std::vector<char> reached_;                // by value of the forward graph
  std::vector<NodeId> order_;                // forward nodes
  std::vector<std::vector<ValueId>> parts_;  // by value: contributions to its gradient
  std::vector<ValueId> total_;               // by value: their sum, once asked for
};

}  // namespace

std::vector<ValueId> add_vjp(Rewriter& rewriter, std::span<const ValueId> outputs, std::span<const ValueId> d_outputs,
                             std::span<const ValueId> wrt) {
  Differentiator d(rewriter, outputs, d_outputs, wrt);
  d.run();
  std::vector<ValueId> gradients;
  for (ValueId id : wrt) gradients.push_back(d.gradient(id));
  return gradients;
}

std::vector<ValueId> add_gradients(Rewriter& rewriter, ValueId loss, std::span<const ValueId> wrt) {
  const Graph& graph = rewriter.graph();
  const Value& v = graph.value(loss);
  if (!v.dims || !all_known(*v.dims) || checked_numel(concrete(*v.dims)) != 1)
    bad_data("the loss '{}' is {}, a single number is needed", v.name, graph.type_string(loss));
  const Tensor one = Tensor::scalar<double>(1.0).cast(v.dtype).reshaped(concrete(*v.dims));
  const ValueId d_loss = rewriter.add_constant("grad/loss", one);
  return add_vjp(rewriter, std::span(&loss, 1), std::span(&d_loss, 1), wrt);
}

GradientPath gradient_path(const Graph& graph, std::span<const ValueId> outputs, std::span<const ValueId> wrt) {
  GradientPath path;
  const std::vector<char> reached = reachable(graph, wrt);
  std::vector<char> flows(graph.value_capacity(), 0);
  for (ValueId id : outputs) flows[static_cast<size_t>(id)] = reached[static_cast<size_t>(id)];
  const std::vector<NodeId> order = graph.order();
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const Node& n = graph.node(*it);
    const bool used = std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId out) { return out != kNone && flows[static_cast<size_t>(out)]; });
    if (!used || (n.def != nullptr && n.def->stops_gradient)) continue;
    bool wanted = false;
    for (ValueId in : n.inputs) {
      if (in == kNone || !reached[static_cast<size_t>(in)]) continue;
      flows[static_cast<size_t>(in)] = 1;
      wanted = true;
    }
    if (wanted && (n.def == nullptr || !n.def->grad)) path.missing.push_back(*it);
  }
  std::reverse(path.missing.begin(), path.missing.end());
  for (ValueId id : wrt) path.reached.push_back(flows[static_cast<size_t>(id)] != 0);
  return path;
}

}  // namespace ds
