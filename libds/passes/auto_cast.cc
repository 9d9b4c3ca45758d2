#include "libds/passes/auto_cast.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/tile.h"
#include "kernels/winograd.h"
#include "libds/base/half.h"
#include "libds/base/log.h"
#include "libds/base/parallel.h"
#include "libds/ops/attention.h"

namespace ds {
namespace {

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

// Products of fewer terms are bound by other things than multiplying.
constexpr int64_t kLeastDepth = 16;
// f16 sums are widened and pass through memory, f32 sums are finished in registers, and operands are rounded on their way in: that
// eats the gain of products with a shorter sum or fewer columns.
constexpr int64_t kLeastHalfDepth = 64, kLeastHalfColumns = 64;
// How much faster Winograd's convolutions are than direct ones in f32, measured: 1.9 with tiles of 2x2, 2.4 with 4x4. Only f32 has them.
constexpr double kWinogradGain2 = 1.9, kWinogradGain4 = 2.4;

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
  // What a product is computed in, and why when it stays in f32.
  struct Choice {
    DType type = DType::kF32;
    std::string why;
  };
  static Choice f32(std::string why) { return {DType::kF32, std::move(why)}; }

  const Tensor* constant(ValueId id) const {
    if (id == kNone) return nullptr;
    const bool state = static_cast<size_t>(id) < is_state_.size() && is_state_[static_cast<size_t>(id)];
    return state ? nullptr : graph_.value(id).constant.get();
  }

  static bool is_conv(const Node& n) { return n.is("Conv") || n.is_internal("FusedConv"); }
  static bool is_product(const Node& n) { return n.is("MatMul") || n.is_internal("FusedMatMul"); }

  // How many times each weight is multiplied: the rows of a matrix, the pixels of a convolution's result.
  std::optional<int64_t> rows(const Node& n) const {
    const bool conv = is_conv(n);
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

  // The tile that computes it; null: kernels for it are missing here, and products are done in f32.
  const kernels::TileIsa* tile(DType type) const {
    return kernels::tile_isa(type == DType::kBF16 ? kernels::TileType::kBf16 : kernels::TileType::kF16, context_.isa);
  }

  // How many times as fast as a direct one the convolution is in f32. Sizes that are not known yet are taken to be large.
  double f32_gain(const Node& n, const Tensor& w) const {
    const auto is = [&](const char* attr, int64_t value) {
      const std::vector<int64_t> v = n.attr_ints(attr);
      return std::all_of(v.begin(), v.end(), [&](int64_t x) { return x == value; });
    };
    const auto& dims = graph_.value(n.outputs[0]).dims;
    if (!is_conv(n) || w.rank() != 4 || !dims || dims->size() != 4 || !is("strides", 1) || !is("dilations", 1)) return 1;
    const auto size = [&](size_t i) { return (*dims)[i].known() ? (*dims)[i].raw : int64_t{56}; };
    kernels::NhwcConv s;
    s.groups = n.attr_int("group", 1);
    s.channels = w.dim(1) * s.groups;
    s.out_channels = w.dim(0);
    s.kernel_h = w.dim(2);
    s.kernel_w = w.dim(3);
    s.height = s.out_height = size(2);
    s.width = s.out_width = size(3);
    const int64_t tile = kernels::winograd_out_tile(s);
    return tile == 4 ? kWinogradGain4 : tile == 2 ? kWinogradGain2 : 1;
  }

  // Of a product of so much depth that could be in 16 bits.
  Choice by_cost(const Node& n, const Tensor& w, int64_t depth) const {
    if (depth < kLeastDepth) return f32("a short sum");
    const auto known = rows(n);
    const CostTable& costs = context_.cost_table();
    const double ahead = f32_gain(n, w);
    const DType type = product_type(context_.precision, context_.isa, costs, known, ahead);
    if (type == DType::kF32) {
      const auto gain = [&](DType t) { return (known ? costs.gain(t, context_.isa, *known) : costs.gain(t, context_.isa)) / ahead; };
      return f32(fmt::format("bf16 is {:.3g} times as fast, f16 {:.3g} times, at {}", gain(DType::kBF16), gain(DType::kF16),
                             known ? fmt::format("{} rows", *known) : "any number of rows"));
    }
    const bool small = depth < kLeastHalfDepth || w.numel() / depth < kLeastHalfColumns;
    if (type == DType::kF16 && context_.precision == Precision::kAuto && small) return f32("too small for f16 to gain");
    if (type == DType::kF16 && !within_f16(w)) return f32("weights beyond the range of f16");
    return {type, {}};
  }

  // Null when the node is no product.
  std::optional<Choice> choose(const Node& n) const {
    if (!is_conv(n) && !is_product(n)) return std::nullopt;
    const Value& x = graph_.value(n.input(0));
    const Tensor* w = constant(n.input(1));
    if (x.dtype != DType::kF32) return f32("not f32");
    if (w == nullptr || w->dtype() != DType::kF32) return f32("weights are not constant");
    if (is_product(n)) {
      if (w->rank() != 2 || !x.dims || x.dims->empty()) return f32("the right operand is no matrix");
      return by_cost(n, *w, w->dim(n.attr_int("trans_b", 0) != 0 ? 1 : 0));
    }
    const int64_t groups = n.attr_int("group", 1), per_group = w->dim(1), out = w->dim(0) / groups;
    if (w->rank() > 4) return f32("three spatial axes");
    if (groups > 1 && (per_group < 8 || out < 8)) return f32("groups of few channels");
    return by_cost(n, *w, w->numel() / w->dim(0));
  }

  void cast_weights(NodeId id) {
    const Node n = graph_.node(id);
    const auto choice = choose(n);
    if (!choice) return;
    log("precision", "{}: {}{}", n.label(), dtype_name(choice->type), choice->why.empty() ? "" : ": " + choice->why);
    if (choice->type == DType::kF32) return;
    std::vector<ValueId> inputs = n.inputs;
    inputs[1] = narrow_weights(n.input(1), choice->type);
    Attributes attrs = n.attrs;
    attrs["to"] = static_cast<int64_t>(DType::kF32);  // also when x becomes narrow
    if (choice->type == DType::kF16) attrs["half_sums"] = int64_t{1};
    rw_.insert_before(id);
    replace(id, is_conv(n) ? "FusedConv" : "FusedMatMul", std::move(inputs), std::move(attrs));
  }

  ValueId narrow_weights(ValueId id, DType type) {
    const Tensor w = *constant(id);
    const Tensor narrow = Tensor::deferred(type, w.shape(), [w, type, tile = tile(type)](std::byte* to) {
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
    return rw_.add_constant(fmt::format("{}/{}", graph_.value(id).name, dtype_name(type)), narrow);
  }

  void round_attention(NodeId id) {
    const Node& n = graph_.node(id);
    if (!n.alive || !n.is("Attention")) return;
    const DType type = product_type(context_.precision, context_.isa, context_.cost_table());
    const char* why = graph_.value(n.input(0)).dtype != DType::kF32 ? "f32: not f32" : context_.isa < Isa::kAmx ? "f32: needs AMX"
                      : type != DType::kBF16 ? "f32: bf16 gains nothing" : "";
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

  // What a product of this pass is computed in; f32 for everything else.
  DType narrow_type(const Node& n) const {
    if ((!n.is_internal("FusedConv") && !n.is_internal("FusedMatMul")) || !n.has_attr("to")) return DType::kF32;
    const DType w = graph_.value(n.input(1)).dtype;
    return is_half(w) ? w : DType::kF32;
  }

  // A product whose result only goes into others of its kind as what they multiply or add. Results in f16 want kernels for it.
  void narrow_result(NodeId id) {
    const DType type = narrow_type(graph_.node(id));
    if (type == DType::kF32 || (type == DType::kF16 && tile(type) == nullptr)) return;
    const ValueId y = graph_.node(id).outputs[0];
    if (graph_.value(y).dtype == type || graph_.is_output(y) || graph_.value(y).users.empty()) return;
    for (const State& s : graph_.states())
      if (s.update == y) return;
    for (NodeId user : graph_.value(y).users) {
      const Node& n = graph_.node(user);
      if (narrow_type(n) != type || n.op != graph_.node(id).op || n.input(1) == y || n.input(2) == y) return;
    }
    const Node n = graph_.node(id);
    Attributes attrs = n.attrs;
    attrs["to"] = static_cast<int64_t>(type);
    rw_.insert_before(id);
    replace(id, n.is_internal("FusedConv") ? "FusedConv" : "FusedMatMul", n.inputs, std::move(attrs));
  }

  const PassContext& context_;
  Graph& graph_;
  Rewriter& rw_;
  std::vector<char> is_state_;
  bool changed_ = false;
};

}  // namespace

DType product_type(Precision precision, Isa isa, const CostTable& costs, std::optional<int64_t> rows, double f32_gain) {
  if (precision == Precision::kBf16) return DType::kBF16;
  if (precision == Precision::kF16) return DType::kF16;
  if (precision == Precision::kF32) return DType::kF32;
  const auto gain = [&](DType type) { return (rows ? costs.gain(type, isa, *rows) : costs.gain(type, isa)) / f32_gain; };
  const double bf16 = gain(DType::kBF16), f16 = gain(DType::kF16);
  if (std::max(bf16, f16) < kLeastNarrowGain) return DType::kF32;
  return bf16 > f16 ? DType::kBF16 : DType::kF16;
}

bool auto_cast(Rewriter& rewriter, PassContext& context) {
  if (context.precision == Precision::kF32) return false;
  if (context.precision == Precision::kAuto) {
    const CostTable& costs = context.cost_table();
    for (const DType type : {DType::kBF16, DType::kF16})
      log("precision", "{}: {} is {:.3g} times as fast as f32 at {}, {:.3g} times for one row", costs.text(), dtype_name(type),
          costs.gain(type, context.isa), isa_name(context.isa), costs.gain(type, context.isa, 1));
  }
  return Caster(rewriter, context).run();
}

}  // namespace ds
