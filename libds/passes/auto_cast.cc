#include "libds/passes/auto_cast.h"

#include <algorithm>
#include <cstring>

#include "libds/base/log.h"
#include "libds/ops/attention.h"

namespace ds {
namespace {

// Products of fewer terms are bound by other things than multiplying.
constexpr int64_t kLeastDepth = 16;

class Caster {
 public:
  Caster(Rewriter& rewriter, const PassContext& context) : context_(context), graph_(rewriter.graph()), rw_(rewriter), is_state_(state_values(graph_)) {}

  bool run() {
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive) {
        cast_weights(id);
        round_attention(id);
      }
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive) narrow_result(id);
    return changed_;
  }

 private:
  const Tensor* constant(ValueId id) const {
    if (id == kNone) return nullptr;
    const bool state = static_cast<size_t>(id) < is_state_.size() && is_state_[static_cast<size_t>(id)];
    return state ? nullptr : graph_.value(id).constant.get();
  }

  // How many times each weight is multiplied: the rows of a matrix, the pixels of a convolution's result.
  std::optional<int64_t> rows(const Node& n, bool conv) const {
    const auto& dims = graph_.value(conv ? n.outputs[0] : n.input(0)).dims;
    if (!dims) return std::nullopt;
    int64_t rows = 1;
    for (size_t i = 0; i < dims->size(); ++i) {
      if (i == (conv ? 1 : dims->size() - 1)) continue;
      if (!(*dims)[i].known()) return std::nullopt;
      rows *= (*dims)[i].raw;
    }
    return rows;
  }

  // Why a product that could be in bf16 is not.
  std::string no_gain(const Node& n, bool conv) const {
    if (context_.precision != Precision::kAuto) return "";
    const CostTable& costs = context_.cost_table();
    const auto known = rows(n, conv);
    const double gain = known ? costs.gain(DType::kBF16, context_.isa, *known) : costs.gain(DType::kBF16, context_.isa);
    if (gain >= kLeastBf16Gain) return "";
    return fmt::format("bf16 is {:.3g} times as fast at {}", gain, known ? fmt::format("{} rows", *known) : "any number of rows");
  }

  // Why a product stays in f32; empty when it need not. Null when the node is no product.
  std::optional<std::string> reason(const Node& n) const {
    const bool conv = n.is("Conv") || n.is_internal("FusedConv"), product = n.is("MatMul") || n.is_internal("FusedMatMul");
    if (!conv && !product) return std::nullopt;
    const Value& x = graph_.value(n.input(0));
    const Tensor* w = constant(n.input(1));
    if (x.dtype != DType::kF32) return "not f32";
    if (w == nullptr || w->dtype() != DType::kF32) return "weights are not constant";
    if (product) {
      if (w->rank() != 2 || !x.dims || x.dims->empty()) return "the right operand is no matrix";
      const bool turned = n.attr_int("trans_b", 0) != 0;
      return w->dim(turned ? 1 : 0) < kLeastDepth ? "a short sum" : no_gain(n, conv);
    }
    const int64_t groups = n.attr_int("group", 1), per_group = w->dim(1), out = w->dim(0) / groups;
    if (w->rank() > 4) return "three spatial axes";
    if (groups > 1 && (per_group < 8 || out < 8)) return "groups of few channels";
    return w->numel() / w->dim(0) < kLeastDepth ? "a short sum" : no_gain(n, conv);
  }

  void cast_weights(NodeId id) {
    const Node n = graph_.node(id);
    const auto why = reason(n);
    if (!why) return;
    log("precision", "{}: {}", n.label(), why->empty() ? "bf16" : "f32: " + *why);
    if (!why->empty()) return;
    const Tensor w = *constant(n.input(1));
    const Tensor narrow = Tensor::deferred(DType::kBF16, w.shape(), [w](std::byte* to) {
      const Tensor rounded = w.transient().cast(DType::kBF16);
      std::memcpy(to, rounded.raw(), rounded.bytes());
    });
    std::vector<ValueId> inputs = n.inputs;
    inputs[1] = rw_.add_constant(graph_.value(n.input(1)).name + "/bf16", narrow);
    const bool conv = n.is("Conv") || n.is_internal("FusedConv");
    Attributes attrs = n.attrs;
    if (conv) attrs["to"] = static_cast<int64_t>(DType::kF32);  // also when x becomes narrow
    rw_.insert_before(id);
    replace(id, conv ? "FusedConv" : "FusedMatMul", std::move(inputs), std::move(attrs));
  }

  void round_attention(NodeId id) {
    const Node& n = graph_.node(id);
    if (!n.alive || !n.is("Attention")) return;
    const char* why = graph_.value(n.input(0)).dtype != DType::kF32 ? "f32: not f32" : context_.isa < Isa::kAmx ? "f32: needs AMX"
                      : context_.precision == Precision::kAuto && context_.cost_table().gain(DType::kBF16, context_.isa) < kLeastBf16Gain ? "f32: bf16 gains nothing" : "";
    log("precision", "{}: {}", n.label(), *why == '\0' ? "bf16" : why);
    if (*why != '\0') return;
    rw_.set_attr(id, ops::kProductsAttr, static_cast<int64_t>(DType::kBF16));
    changed_ = true;
  }

  void replace(NodeId id, const char* op, std::vector<ValueId> inputs, Attributes attrs) {
    const std::string name = graph_.node(id).name;
    rw_.replace_uses(graph_.node(id).outputs[0], rw_.emit(op, std::move(inputs), std::move(attrs), name));
    rw_.erase_node(id);
    changed_ = true;
  }

  bool is_narrow_conv(NodeId id) const {
    const Node& n = graph_.node(id);
    return n.is_internal("FusedConv") && graph_.value(n.input(1)).dtype == DType::kBF16;
  }

  // A convolution whose result only goes into others as what they multiply or add.
  void narrow_result(NodeId id) {
    if (!is_narrow_conv(id)) return;
    const ValueId y = graph_.node(id).outputs[0];
    if (graph_.is_output(y) || graph_.value(y).users.empty()) return;
    for (const State& s : graph_.states())
      if (s.update == y) return;
    for (NodeId user : graph_.value(y).users) {
      if (!is_narrow_conv(user)) return;
      const Node& n = graph_.node(user);
      if (n.input(1) == y || n.input(2) == y) return;
    }
    const Node n = graph_.node(id);
    Attributes attrs = n.attrs;
    attrs["to"] = static_cast<int64_t>(DType::kBF16);
    rw_.insert_before(id);
    replace(id, "FusedConv", n.inputs, std::move(attrs));
  }

  const PassContext& context_;
  Graph& graph_;
  Rewriter& rw_;
  std::vector<char> is_state_;
  bool changed_ = false;
};

}  // namespace

bool auto_cast(Rewriter& rewriter, PassContext& context) {
  if (context.precision == Precision::kF32) return false;
  if (context.precision == Precision::kAuto) {
    const CostTable& costs = context.cost_table();
    const double gain = costs.gain(DType::kBF16, context.isa), of_one_row = costs.gain(DType::kBF16, context.isa, 1);
    log("precision", "{}: bf16 is {:.3g} times as fast as f32 at {}, {:.3g} times for one row", costs.text(), gain, isa_name(context.isa), of_one_row);
    if (std::max(gain, of_one_row) < kLeastBf16Gain) return false;
  }
  return Caster(rewriter, context).run();
}

}  // namespace ds
