#include "libds/passes/auto_cast.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/tile.h"
#include "libds/base/cpu_vendor.h"
#include "libds/base/half.h"
#include "libds/base/log.h"
#include "libds/base/parallel.h"
#include "libds/ir/op_def.h"

namespace ds {
namespace {

// Relative rates of multiply-adds, from the instructions' documented throughput: an AMX tile multiplies 16 times what
// two AVX-512 ports do in f32, of which memory leaves about half. vdpbf16ps issues every other cycle on Intel's cores
// (half the f32 rate: measured 0.5 on Sapphire Rapids), at full rate on AMD's Zen 4 and later (twice).
constexpr double kAmxSpeed = 8, kIntelDotSpeed = 0.5, kAmdDotSpeed = 2;
// vfmaddph works on twice as many numbers as vfmaddps, at the same rate; widening the sums takes a part of that.
constexpr double kFp16Speed = 1.7;

// Whether f16 can hold them.
bool within_f16(const Tensor& weights) {
  const Tensor w = weights.transient();
  const float* x = w.data<float>();
  std::atomic<bool> within{true};
  parallel_for(w.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    int beyond = 0;  // as integers, which compilers do in vectors; NaN counts
    for (int64_t i = begin; i < end; ++i) beyond |= static_cast<int>((float_bits(x[i]) & 0x7fffffffu) > float_bits(kLargestF16));
    if (beyond != 0) within = false;
  });
  return within;
}

// Whether there is no plan for it, and so no choice of layouts.
bool runs_eagerly(const Graph& graph) {
  const auto order = graph.order();
  return std::any_of(order.begin(), order.end(), [&](NodeId id) { return graph.node(id).def != nullptr && graph.node(id).def->data_dependent; });
}

// Products of fewer terms are bound by other things than multiplying.
constexpr int64_t kLeastDepth = 16;

class Caster {
 public:
  // gaining: products that gain, not all that can be.
  Caster(Rewriter& rewriter, DType type, Isa isa, bool gaining)
      : graph_(rewriter.graph()), rw_(rewriter), is_state_(state_values(graph_)), type_(type),
        tile_(kernels::tile_isa(type == DType::kBF16 ? kernels::TileType::kBf16 : kernels::TileType::kF16, isa)),
        stores_(type == DType::kBF16 || tile_ != nullptr), unplanned_(gaining && runs_eagerly(graph_)) {}

  bool run() {
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive) cast_weights(id);
    if (stores_)
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

  // Why a product stays in f32; empty when it need not. Null when the node is no product.
  std::optional<std::string> reason(const Node& n) const {
    const bool conv = n.is("Conv") || n.is_internal("FusedConv"), product = n.is("MatMul") || n.is_internal("FusedMatMul");
    if (!conv && !product) return std::nullopt;
    const Value& x = graph_.value(n.input(0));
    const Tensor* w = constant(n.input(1));
    if (x.dtype != DType::kF32 && !is_given(n)) return fmt::format("{} already", dtype_name(x.dtype));
    if (w == nullptr || w->dtype() != x.dtype) return "weights are not constant";
    if (product) {
      if (w->rank() != 2 || !x.dims || x.dims->empty()) return "the right operand is no matrix";
      const bool turned = n.attr_int("trans_b", 0) != 0;
      return why_not(*w, w->dim(turned ? 1 : 0));
    }
    const int64_t groups = n.attr_int("group", 1), per_group = w->dim(1), out = w->dim(0) / groups;
    if (w->rank() > 4) return "three spatial axes";
    if (groups > 1 && (per_group < 8 || out < 8)) return "groups of few channels";
    const int64_t depth = w->numel() / w->dim(0);
    return unplanned_ ? "the model runs node by node, where channels are not last" : why_not(*w, depth);
  }
  std::string why_not(const Tensor& w, int64_t depth) const {
    if (depth < kLeastDepth) return "a short sum";
    return type_ == DType::kF16 && w.dtype() == DType::kF32 && !within_f16(w) ? "weights beyond the range of f16" : "";
  }

  // In f16 before: all that is new is that it may be summed in f16.
  bool is_given(const Node& n) const { return type_ == DType::kF16 && graph_.value(n.input(0)).dtype == DType::kF16; }

  void cast_weights(NodeId id) {
    const Node n = graph_.node(id);
    const auto why = reason(n);
    if (!why) return;
    log("precision", "{}: {}", n.label(), why->empty() ? std::string(dtype_name(type_)) : "f32: " + *why);
    if (!why->empty()) return;
    std::vector<ValueId> inputs = n.inputs;
    if (!is_given(n)) inputs[1] = narrow_weights(n.input(1));
    const bool conv = n.is("Conv") || n.is_internal("FusedConv");
    Attributes attrs = n.attrs;
    attrs["to"] = static_cast<int64_t>(graph_.value(n.outputs[0]).dtype);  // also when x becomes narrow
    if (type_ == DType::kF16) attrs["half_sums"] = int64_t{1};
    rw_.insert_before(id);
    replace(id, conv ? "FusedConv" : "FusedMatMul", std::move(inputs), std::move(attrs));
  }

  ValueId narrow_weights(ValueId id) {
    const Tensor w = *constant(id);
    const Tensor narrow = Tensor::deferred(type_, w.shape(), [w, type = type_, tile = tile_](std::byte* to) {
      const Tensor wide = w.transient();
      if (tile != nullptr && tile->narrow != nullptr) {
        parallel_for(wide.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
          tile->narrow(end - begin, wide.data<float>() + begin, reinterpret_cast<uint16_t*>(to) + begin);
        });
        return;
      }
      const Tensor rounded = wide.cast(type);
      std::memcpy(to, rounded.raw(), rounded.bytes());
    });
    return rw_.add_constant(fmt::format("{}/{}", graph_.value(id).name, dtype_name(type_)), narrow);
  }

  void replace(NodeId id, const char* op, std::vector<ValueId> inputs, Attributes attrs) {
    const std::string name = graph_.node(id).name;
    rw_.replace_uses(graph_.node(id).outputs[0], rw_.emit(op, std::move(inputs), std::move(attrs), name));
    rw_.erase_node(id);
    changed_ = true;
  }

  bool is_narrow(NodeId id) const {
    const Node& n = graph_.node(id);
    return (n.is_internal("FusedConv") || n.is_internal("FusedMatMul")) && n.has_attr("to") && graph_.value(n.input(1)).dtype == type_;
  }

  // A product whose result only goes into others of its kind as what they multiply or add.
  void narrow_result(NodeId id) {
    if (!is_narrow(id)) return;
    const ValueId y = graph_.node(id).outputs[0];
    if (graph_.value(y).dtype == type_ || graph_.is_output(y) || graph_.value(y).users.empty()) return;
    for (const State& s : graph_.states())
      if (s.update == y) return;
    for (NodeId user : graph_.value(y).users) {
      const Node& n = graph_.node(user);
      if (!is_narrow(user) || n.op != graph_.node(id).op || n.input(1) == y || n.input(2) == y) return;
    }
    const Node n = graph_.node(id);
    Attributes attrs = n.attrs;
    attrs["to"] = static_cast<int64_t>(type_);
    rw_.insert_before(id);
    replace(id, n.is_internal("FusedConv") ? "FusedConv" : "FusedMatMul", n.inputs, std::move(attrs));
  }

  Graph& graph_;
  Rewriter& rw_;
  std::vector<char> is_state_;
  DType type_;
  const kernels::TileIsa* tile_;  // null: products are done in f32
  bool stores_;  // results too: not where kernels for f16 are missing
  bool unplanned_;
  bool changed_ = false;
};

}  // namespace

double bf16_speed(Isa isa) {
  if (isa >= Isa::kAmx) return kAmxSpeed;
  if (isa < Isa::kVnni || !cpu_has_bf16()) return 0;
  return cpu_vendor() == "AuthenticAMD" ? kAmdDotSpeed : kIntelDotSpeed;
}

double f16_speed(Isa isa) { return isa >= Isa::kVnni && cpu_has_fp16() ? kFp16Speed : 0; }

DType product_type(Precision precision, Isa isa) {
  if (precision == Precision::kBf16) return DType::kBF16;
  if (precision == Precision::kF16) return DType::kF16;
  const double bf16 = bf16_speed(isa), f16 = f16_speed(isa);
  if (precision == Precision::kF32 || std::max(bf16, f16) < kLeastNarrowGain) return DType::kF32;
  return bf16 > f16 ? DType::kBF16 : DType::kF16;
}

bool auto_cast(Rewriter& rewriter, PassContext& context) {
  const DType type = product_type(context.precision, context.isa);
  if (type != DType::kF32) return Caster(rewriter, type, context.isa, context.precision == Precision::kAuto).run();
  if (context.precision == Precision::kAuto)
    log("precision", "f32: at {} bf16 is {} times as fast, f16 {} times", isa_name(context.isa), bf16_speed(context.isa), f16_speed(context.isa));
  return false;
}

}  // namespace ds
