#include "libds/passes/quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/quant.h"
#include "libds/passes/quantize_weights.h"

namespace ds {
namespace {

bool in(std::string_view word, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

class Planner {
 public:
  Planner(const Graph& g, const QuantizeOptions& options) : g_(g) { plan_.options = options; }

  QuantPlan run() {
    for (NodeId id : g_.order()) {
      const Node& n = g_.node(id);
      if (!n.domain.empty() || absorbed_.count(id) != 0) continue;
      if (in(n.op, {"Conv", "Gemm", "MatMul"})) plan_product(id);
      else if (in(n.op, {"Add", "Concat", "MaxPool", "GlobalAveragePool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"})) plan_follower(id);
    }
    for (QuantDecision& d : plan_.decisions) {
      if (d.weight != kNone || d.quantized || !d.reason.empty()) continue;
      d.quantized = chosen_.count(d.result) != 0;
      if (!d.quantized) d.reason = "nothing behind it is quantized";
    }
    collect();
    return std::move(plan_);
  }

 private:
  // A value that could be quantized if somebody behind it wants it to be.
  struct Candidate {
    ValueId same_as = kNone;
    std::vector<ValueId> operands;  // to be quantized as well then
  };

  bool is_activation(ValueId id) const {
    return id != kNone && !g_.value(id).is_constant() && g_.value(id).dtype == DType::kF32;
  }
  const Tensor* constant(ValueId id) const { return id == kNone ? nullptr : g_.value(id).constant.get(); }

  NodeId only_user(ValueId id) const {
    const Value& v = g_.value(id);
    return v.users.size() == 1 && !g_.is_output(id) ? v.users[0] : kNone;
  }

  // Follows an activation that the quantization of its result covers.
  ValueId absorb_activation(ValueId out) {
    const NodeId user = only_user(out);
    if (user == kNone) return out;
    const Node& n = g_.node(user);
    const bool bounds_known = n.is("Clip") && (n.input(1) == kNone || constant(n.input(1)) != nullptr) &&
                              (n.input(2) == kNone || constant(n.input(2)) != nullptr) && n.input(0) == out;
    if (!n.is("Relu") && !bounds_known) return out;
    absorbed_.insert(user);
    return n.outputs[0];
  }

  // The first pattern that excludes a node; empty: none.
  std::string excluded_by(const Node& n) const {
    for (const std::string& p : plan_.options.exclude)
      if (matches_pattern(p, n.name) || matches_pattern(p, n.op)) return p;
    return {};
  }

  std::string product_obstacle(const Node& n, QuantDecision& d) const {
    const std::string pattern = excluded_by(n);
    if (!pattern.empty()) return fmt::format("excluded by '{}'", pattern);
    const auto& kept = plan_.options.keep_float;
    if (std::find(kept.begin(), kept.end(), d.node) != kept.end()) return "its error costs too much accuracy";
    if (!is_activation(n.input(0))) return "its first operand is constant or not f32";
    const Tensor* w = constant(n.input(1));
    if (w == nullptr) return "its weights are not constant";
    if (w->dtype() != DType::kF32) return "its weights are not f32";
    if (n.op == "Gemm") {
      if (n.attr_int("transA", 0) != 0 || n.attr_float("alpha", 1) != 1 || n.attr_float("beta", 1) != 1) return "it scales or transposes its operands";
      d.weight_axis = n.attr_int("transB", 0) != 0 ? 0 : 1;
    } else if (n.op == "MatMul") {
      if (w->rank() != 2) return "its weights are not a matrix";
      d.weight_axis = 1;
    }

    if (!weights_finite(*w)) return "its weights are not finite";  // a scale of infinity would destroy the rest
    if (n.op != "MatMul" && n.input(2) != kNone) {
      const Tensor* b = constant(n.input(2));
      if (b == nullptr) return "its bias is not constant";
      const int64_t channels = w->dim(d.weight_axis);
      const bool row = b->numel() == channels && (b->rank() == 1 || (b->rank() == 2 && b->dim(0) == 1));
      if (b->dtype() != DType::kF32 || !row) return "its bias is not one value per channel";
    }
    return {};
  }

  void plan_product(NodeId id) {
    const Node& n = g_.node(id);
    QuantDecision d;
    d.node = id;
    d.name = n.name;
    d.op = n.op;
    d.reason = product_obstacle(n, d);
    d.quantized = d.reason.empty();
    if (d.quantized) {
      d.input = n.input(0);
      d.operands = {d.input};
      d.weight = n.input(1);
      d.bias = n.op == "MatMul" ? kNone : n.input(2);
      ValueId out = n.outputs[0];
      if (n.op == "MatMul") out = absorb_bias(out, constant(d.weight)->dim(1));
      d.result = absorb_activation(out);
      want(d.input);
      candidates_[d.result] = {};
      // Convolutions run on integers elsewhere only when their result is quantized; products need not.
      if (n.op == "Conv" && !g_.is_output(d.result)) want(d.result);
    }
    plan_.decisions.push_back(std::move(d));
  }

  // Add of a constant vector behind a product.
  ValueId absorb_bias(ValueId out, int64_t channels) {
    const NodeId user = only_user(out);
    if (user == kNone || !g_.node(user).is("Add")) return out;
    const Node& n = g_.node(user);
    const Tensor* b = constant(n.inputs[0] == out ? n.inputs[1] : n.inputs[0]);
    if (b == nullptr || b->rank() != 1 || b->numel() != channels) return out;
    absorbed_.insert(user);
    return n.outputs[0];
  }

  void plan_follower(NodeId id) {
    const Node& n = g_.node(id);
    const bool moves = in(n.op, {"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"});
    QuantDecision d;
    d.node = id;
    d.name = n.name;
    d.op = n.op;
    const size_t operands = n.op == "Add" || n.op == "Concat" ? n.inputs.size() : 1;
    size_t ready = 0;
    for (size_t i = 0; i < operands; ++i) {
      const ValueId x = n.input(i);
      d.operands.push_back(x);
      if (is_activation(x) && (chosen_.count(x) != 0 || candidates_.count(x) != 0)) ++ready;
      else if (d.reason.empty()) d.reason = fmt::format("operand '{}' is not quantized", x == kNone ? "" : g_.value(x).name);
    }
    if (ready == 0) return;  // float among float
    const std::string pattern = excluded_by(n);
    if (!pattern.empty()) d.reason = fmt::format("excluded by '{}'", pattern);
    if (d.reason.empty() && n.op == "Add" && g_.value(n.inputs[0]).dims != g_.value(n.inputs[1]).dims) d.reason = "its operands differ in shape";
    if (d.reason.empty() && n.op == "MaxPool" && n.output(1) != kNone) d.reason = "its indices are used";
    if (d.reason.empty()) {
      d.input = d.operands[0];
      d.result = n.op == "Add" ? absorb_activation(n.outputs[0]) : n.outputs[0];
      const bool keeps = moves || n.op == "MaxPool";
      candidates_[d.result] = {keeps ? d.input : kNone, d.operands};
    }
    if (!moves) plan_.decisions.push_back(std::move(d));
  }

  // Quantizes a value, and with it what its own quantized form depends on.
  void want(ValueId id) {
    if (!chosen_.insert(id).second) return;
    const auto it = candidates_.find(id);
    if (it == candidates_.end()) return;
    for (ValueId x : it->second.operands) want(x);
  }

  void collect() {
    std::vector<ValueId> order(g_.inputs());
    for (NodeId id : g_.order())
      for (ValueId out : g_.node(id).outputs)
        if (out != kNone) order.push_back(out);
    for (ValueId id : order) {
      if (chosen_.count(id) == 0) continue;
      QuantTensor t;
      t.value = id;
      if (const auto it = candidates_.find(id); it != candidates_.end()) {
        t.same_as = it->second.same_as;
        t.all_uses = !g_.is_output(id);
      }
      if (t.same_as == kNone) plan_.observed.push_back(id);
      plan_.tensors.push_back(t);
    }
  }

  const Graph& g_;
  QuantPlan plan_;
  std::set<NodeId> absorbed_;
  std::map<ValueId, Candidate> candidates_;
  std::set<ValueId> chosen_;
};

}  // namespace

bool matches_pattern(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t]) && pattern[p] != '*') {
      ++p;
      ++t;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

QuantPlan plan_quantization(const Graph& graph, const QuantizeOptions& options) { return Planner(graph, options).run(); }

ActivationParams activation_params(const TensorRange& range) {
  const double low = std::min(0.0f, range.low), high = std::max(0.0f, range.high);
  ActivationParams p;
  p.scale = static_cast<float>((high - low) / 255.0);
  if (!(p.scale >= std::numeric_limits<float>::min())) return {};  // nothing but zeros was seen
  p.zero = static_cast<int32_t>(std::clamp(std::nearbyint(-low / static_cast<double>(p.scale)), 0.0, 255.0));
  return p;
}

QuantResult apply_quantization(Rewriter& rw, const QuantPlan& plan, const std::map<ValueId, TensorRange>& ranges) {
  QuantResult result;
  Graph& g = rw.graph();
  std::set<NodeId> quantized;
  for (const QuantDecision& d : plan.decisions)
    if (d.quantized) quantized.insert(d.node);
  // Operators that move elements carry no decision; they read quantized values when their result is one.
  std::map<ValueId, const QuantTensor*> planned;
  for (const QuantTensor& t : plan.tensors) planned[t.value] = &t;
  for (const QuantTensor& t : plan.tensors) {
    if (t.same_as == kNone) {
      const auto range = ranges.find(t.value);
      DS_CHECK(range != ranges.end());
      result.params[t.value] = activation_params(range->second);
    } else {
      result.params[t.value] = result.params.at(t.same_as);
    }
  }
  for (const QuantTensor& t : plan.tensors) {
    const ActivationParams p = result.params.at(t.value);
    const std::string name = g.value(t.value).name;
    const std::vector<NodeId> users = g.value(t.value).users;
    if (g.value(t.value).producer != kNone) rw.insert_after(g.value(t.value).producer);
    else rw.insert_before(g.first());
    const ValueId scale = rw.add_constant(name + "_scale", Tensor::scalar<float>(p.scale));
    const ValueId zero = rw.add_constant(name + "_zero_point", Tensor::scalar<uint8_t>(static_cast<uint8_t>(p.zero)));
    const ValueId q = rw.emit("QuantizeLinear", {t.value, scale, zero}, {}, name + "_quantized");
    const ValueId dq = rw.emit("DequantizeLinear", {q, scale, zero}, {}, name + "_dequantized");
    result.dequantized[t.value] = dq;
    for (NodeId user : users) {
      const Node& n = g.node(user);
      const bool moves = std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId out) {
        const auto it = planned.find(out);
        return it != planned.end() && it->second->same_as == t.value;
      });
      if (!t.all_uses && quantized.count(user) == 0 && !moves) continue;
      for (size_t i = 0; i < g.node(user).inputs.size(); ++i)
        if (g.node(user).inputs[i] == t.value) rw.set_input(user, i, dq);
    }
  }
  for (const QuantDecision& d : plan.decisions)
    if (d.quantized && d.weight != kNone)
      result.weight_scales[d.node] = quantize_operands(rw, d, result.params.at(d.input), plan.options.reduce_range);
  rw.insert_at_end();
  rw.infer_all();
  return result;
}

}  // namespace ds
