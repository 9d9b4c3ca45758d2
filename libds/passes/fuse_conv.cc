#include "libds/passes/fuse_conv.h"

#include <cmath>
#include <optional>

#include "libds/ir/rewriter.h"
#include "libds/passes/activation_node.h"

namespace ds {
namespace {

// w * scale along an axis, 0 or 1, in double. Made when a kernel asks for it: most pack it and need no plain copy.
Tensor scaled_along(const Tensor& w, size_t axis, const std::vector<double>& scale) {
  return Tensor::deferred(w.dtype(), w.shape(), [w, axis, scale](std::byte* to) {
    const Tensor from = w.transient();
    size_t each = 1;
    for (size_t d = axis + 1; d < w.shape().size(); ++d) each *= static_cast<size_t>(w.shape()[d]);
    const size_t rows = each == 0 ? 0 : static_cast<size_t>(w.numel()) / each;
    dispatch_dtype(w.dtype(), [&](auto tag) {
      using T = decltype(tag);
      if constexpr (std::is_convertible_v<T, float> && !std::is_integral_v<T>) {
        using Through = std::conditional_t<std::is_floating_point_v<T>, T, float>;  // 16-bit types round from float
        const T* x = from.data<T>();
        T* y = reinterpret_cast<T*>(to);
        for (size_t m = 0; m < rows; ++m)
          for (size_t i = m * each; i < (m + 1) * each; ++i)
            y[i] = static_cast<T>(static_cast<Through>(static_cast<double>(x[i]) * scale[m % scale.size()]));
      }
    });
  });
}

class Fuser {
 public:
  explicit Fuser(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), is_state_(state_values(graph_)) {}

  size_t fold() {
    size_t folded = 0;
    for (NodeId id : graph_.order()) {
      if (!graph_.node(id).alive) continue;
      const Node& n = graph_.node(id);
      if (n.is("BatchNormalization")) folded += fold_batch_norm(id);
      else if (n.is("Mul") || n.is("Add")) folded += fold_channel_constant(id);
    }
    return folded;
  }

  size_t fuse() {
    size_t made = 0;
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive) made += fuse_addend(id);
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive) made += fuse_activation(id);
    for (NodeId id : graph_.order())
      if (graph_.node(id).alive) made += fuse_affine(id);
    return made;
  }

 private:
  const Tensor* constant(ValueId id) const {
    if (id == kNone) return nullptr;
    const bool state = static_cast<size_t>(id) < is_state_.size() && is_state_[static_cast<size_t>(id)];
    return state ? nullptr : graph_.value(id).constant.get();
  }

  // The convolution that makes `id` for one reader only and whose weights can be rescaled; kNone otherwise.
  NodeId rescalable_behind(ValueId id) const {
    const NodeId conv = conv_behind(id, false);
    if (conv != kNone || id == kNone) return conv;
    const NodeId made = sole_producer(id);
    return made != kNone && graph_.node(made).is("ConvTranspose") && graph_.node(made).attr_int("group", 1) == 1 ? made : kNone;
  }

  // The Conv (or FusedConv) that makes `id` for one reader only; kNone otherwise.
  NodeId conv_behind(ValueId id, bool fused_too) const {
    const NodeId made = sole_producer(id);
    if (made == kNone) return kNone;
    const Node& n = graph_.node(made);
    return n.is("Conv") || (fused_too && n.is_internal("FusedConv")) ? made : kNone;
  }

  // What makes `id`, which is read once and by nobody outside; kNone otherwise.
  NodeId sole_producer(ValueId id) const {
    if (id == kNone || graph_.is_output(id)) return kNone;
    const Value& v = graph_.value(id);
    if (v.producer == kNone || v.users.size() != 1) return kNone;
    for (const State& s : graph_.states())
      if (s.update == id) return kNone;
    return v.producer;
  }

  // Replaces weights W[m] by W[m]*scale[m] and bias b[m] by b[m]*scale[m] + shift[m], and `last` by the convolution.
  bool rescale(NodeId conv, const std::vector<double>& scale, const std::vector<double>& shift, NodeId last) {
    const Node& n = graph_.node(conv);
    const Tensor* w = constant(n.input(1));
    const bool has_bias = n.input(2) != kNone;
    const Tensor* b = constant(n.input(2));
    if (w == nullptr || !is_float(w->dtype()) || (has_bias && b == nullptr)) return false;
    const size_t axis = n.is("ConvTranspose") ? 1 : 0;  // of the output channels in w
    const int64_t channels = w->dim(static_cast<int64_t>(axis));
    if (static_cast<int64_t>(scale.size()) != channels || static_cast<int64_t>(shift.size()) != channels) return false;
    std::vector<double> bias = b != nullptr ? b->to_doubles() : std::vector<double>(scale.size(), 0.0);
    for (size_t m = 0; m < scale.size(); ++m) bias[m] = bias[m] * scale[m] + shift[m];
    const DType dtype = w->dtype();
    const std::string name = graph_.value(n.input(1)).name;
    rw_.set_input(conv, 1, rw_.add_constant(name + "/folded", scaled_along(*w, axis, scale)));
    rw_.set_input(conv, 2, rw_.add_constant(name + "/folded_bias", Tensor::vector<double>(std::span<const double>(bias)).cast(dtype)));
    rw_.replace_uses(graph_.node(last).outputs[0], graph_.node(conv).outputs[0]);
    sweep(last);
    return true;
  }

  bool fold_batch_norm(NodeId id) {
    const Node& n = graph_.node(id);
    if (n.attr_int("training_mode", 0) != 0 || n.inputs.size() != 5) return false;
    for (size_t i = 1; i < n.outputs.size(); ++i)
      if (n.outputs[i] != kNone && (!graph_.value(n.outputs[i]).users.empty() || graph_.is_output(n.outputs[i]))) return false;
    const NodeId conv = rescalable_behind(n.input(0));
    if (conv == kNone) return false;
    std::vector<double> p[4];  // gamma, beta, mean, variance
    for (size_t i = 0; i < 4; ++i) {
      const Tensor* t = constant(n.inputs[i + 1]);
      if (t == nullptr) return false;
      p[i] = t->to_doubles();
      if (p[i].size() != p[0].size()) return false;
    }
    const double epsilon = n.attr_float("epsilon", 1e-5f);
    std::vector<double> scale(p[0].size()), shift(p[0].size());
    for (size_t m = 0; m < scale.size(); ++m) {
      scale[m] = p[0][m] / std::sqrt(p[3][m] + epsilon);
      shift[m] = p[1][m] - p[2][m] * scale[m];
    }
    return rescale(conv, scale, shift, id);
  }

  // Content of a constant that has one value per channel (or one in all) of a rank-`rank` tensor.
  std::optional<std::vector<double>> per_channel(ValueId id, size_t rank, int64_t channels) const {
    const Tensor* t = constant(id);
    if (t == nullptr || t->shape().size() > rank) return std::nullopt;
    if (t->numel() == 1) return std::vector<double>(static_cast<size_t>(channels), t->to_doubles()[0]);
    const size_t lead = rank - t->shape().size();
    for (size_t i = 0; i < t->shape().size(); ++i)
      if (t->shape()[i] != (i + lead == 1 ? channels : 1)) return std::nullopt;
    if (t->numel() != channels) return std::nullopt;
    return t->to_doubles();
  }

  bool fold_channel_constant(NodeId id) {
    const bool product = graph_.node(id).is("Mul");
    for (size_t side : {0, 1}) {
      const Node& n = graph_.node(id);
      const NodeId conv = rescalable_behind(n.input(side));
      if (conv == kNone) continue;
      const auto& dims = graph_.value(n.inputs[side]).dims;
      if (!dims || !(*dims)[1].known()) continue;
      const int64_t channels = (*dims)[1].raw;
      const auto values = per_channel(n.input(1 - side), dims->size(), channels);
      if (!values) continue;
      const std::vector<double> same(values->size(), product ? 0.0 : 1.0);
      return product ? rescale(conv, *values, same, id) : rescale(conv, same, *values, id);
    }
    return false;
  }

  // Erases a node that nobody reads any more, then those before it that only it read: whoever looks at
  // the number of a value's readers next must not count dead ones.
  void sweep(NodeId id) {
    if (id == kNone || !graph_.node(id).alive) return;
    for (ValueId out : graph_.node(id).outputs) {
      if (out == kNone) continue;
      if (!graph_.value(out).users.empty() || graph_.is_output(out)) return;
      for (const State& s : graph_.states())
        if (s.update == out) return;
    }
    const std::vector<ValueId> inputs = graph_.node(id).inputs;
    rw_.erase_node(id);
    for (ValueId in : inputs)
      if (in != kNone) sweep(graph_.value(in).producer);
  }

  // Add(conv, r) with r of the same shape.
  bool fuse_addend(NodeId id) {
    if (!graph_.node(id).is("Add")) return false;
    // The later of two convolutions takes the other's result as its addend.
    NodeId conv = kNone;
    size_t side = 0;
    for (size_t s : {0, 1}) {
      const NodeId candidate = conv_behind(graph_.node(id).input(s), false);
      if (candidate == kNone || graph_.node(id).input(0) == graph_.node(id).input(1)) continue;
      if (conv == kNone || precedes(graph_, conv, candidate)) {
        conv = candidate;
        side = s;
      }
    }
    if (conv == kNone) return false;
    const Value &y = graph_.value(graph_.node(id).input(side)), &r = graph_.value(graph_.node(id).input(1 - side));
    if (!y.dims || !r.dims || *y.dims != *r.dims || y.dtype != DType::kF32 || r.dtype != DType::kF32) return false;
    const Node c = graph_.node(conv);
    rw_.insert_before(id);
    const std::string name = graph_.node(id).name;
    const ValueId fused = rw_.emit("FusedConv", {c.input(0), c.input(1), c.input(2), graph_.node(id).input(1 - side)}, c.attrs, name);
    rw_.replace_uses(graph_.node(id).outputs[0], fused);
    sweep(id);
    return true;
  }

  std::optional<double> scalar(ValueId id) const {
    const Tensor* t = constant(id);
    if (t == nullptr || t->numel() != 1) return std::nullopt;
    return t->to_doubles()[0];
  }

  // x * Sigmoid(x), x from a convolution that nothing else reads.
  bool fuse_silu(NodeId id) {
    const Node& n = graph_.node(id);
    if (!n.is("Mul")) return false;
    for (size_t side : {0, 1}) {
      const ValueId x = n.input(side), gate = n.input(1 - side);
      if (x == kNone || gate == kNone || x == gate) continue;
      const Value &xv = graph_.value(x), &gv = graph_.value(gate);
      if (gv.producer == kNone || xv.producer == kNone || gv.users.size() != 1 || xv.users.size() != 2) continue;
      if (!graph_.node(gv.producer).is("Sigmoid") || graph_.node(gv.producer).input(0) != x) continue;
      const Node& c = graph_.node(xv.producer);
      if (!c.is("Conv") || graph_.is_output(x) || graph_.is_output(gate) || xv.dtype != DType::kF32) continue;
      replace(id, xv.producer, {{"activation", std::string("silu")}});
      return true;
    }
    return false;
  }

  bool fuse_activation(NodeId id) {
    if (fuse_silu(id)) return true;
    const auto m = activation_node(graph_, id, is_state_);
    if (!m) return false;
    const NodeId conv = conv_behind(m->x, true);
    if (conv == kNone || graph_.node(conv).has_attr("activation") || graph_.value(m->x).dtype != DType::kF32) return false;
    replace(id, conv, m->attrs);
    return true;
  }

  // Mul or Add of one constant number after the activation (LearnableAffineBlock of PP-LCNet).
  bool fuse_affine(NodeId id) {
    const bool product = graph_.node(id).is("Mul");
    if (!product && !graph_.node(id).is("Add")) return false;
    for (size_t side : {0, 1}) {
      const Node& n = graph_.node(id);
      const ValueId x = n.input(side);
      const NodeId conv = conv_behind(x, true);
      if (conv == kNone || !graph_.node(conv).has_attr("activation") || graph_.value(x).dtype != DType::kF32) continue;
      const auto number = scalar(n.input(1 - side));
      const auto &dims = graph_.value(x).dims, &wide = graph_.value(n.outputs[0]).dims;
      if (!number || !dims || !wide || dims->size() != wide->size()) continue;
      const double scale = graph_.node(conv).attr_float("scale", 1), shift = graph_.node(conv).attr_float("shift", 0);
      replace(id, conv, {{"scale", static_cast<float>(product ? scale * *number : scale)},
                         {"shift", static_cast<float>(product ? shift * *number : shift + *number)}});
      return true;
    }
    return false;
  }

  void replace(NodeId id, NodeId conv, const Attributes& activation) {
    const Node c = graph_.node(conv);
    Attributes attrs = c.attrs;
    for (const auto& [key, value] : activation) attrs[key] = value;
    rw_.insert_before(id);
    const std::string name = graph_.node(id).name;
    rw_.replace_uses(graph_.node(id).outputs[0], rw_.emit("FusedConv", c.inputs, std::move(attrs), name));
    sweep(id);
  }

  Graph& graph_;
  Rewriter& rw_;
  std::vector<char> is_state_;
};

}  // namespace

bool fold_into_conv(Rewriter& rewriter, PassContext&) { return Fuser(rewriter).fold() > 0; }
bool fuse_conv(Rewriter& rewriter, PassContext&) { return Fuser(rewriter).fuse() > 0; }

}  // namespace ds
