#include "libds/passes/fuse_group_norm.h"

#include "libds/passes/pattern.h"

namespace ds {
namespace {

class GroupNormFinder {
 public:
  explicit GroupNormFinder(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), pattern_(graph_) {}

  bool run() {
    bool changed = false;
    for (NodeId id : graph_.order()) {
      if (!graph_.node(id).alive || !graph_.node(id).is("InstanceNormalization")) continue;
      const auto found = match(id);
      if (!found) continue;
      replace(*found);
      changed = true;
    }
    return changed;
  }

 private:
  struct Match {
    ValueId x = kNone;
    int64_t groups = 0;
    float epsilon = 0;
    std::vector<float> scale, bias;  // per channel
    NodeId last = kNone;
  };

  std::optional<Match> match(NodeId id) const {
    const Node& norm = graph_.node(id);
    const Node* split = pattern_.made_by(norm.input(0), "Reshape");
    const Tensor *scale = pattern_.constant(norm.input(1)), *bias = pattern_.constant(norm.input(2));
    if (split == nullptr || scale == nullptr || bias == nullptr || !pattern_.is_f32(norm.input(0))) return std::nullopt;
    Match m;
    m.x = split->input(0);
    m.epsilon = norm.attr_float("epsilon", 1e-5f);
    const Dims *x = pattern_.dims(m.x), *grouped = pattern_.dims(norm.input(0));
    if (x == nullptr || grouped == nullptr || x->size() < 3 || grouped->size() < 3) return std::nullopt;
    // The same samples, each cut into equal runs of channels.
    if ((*grouped)[0] != (*x)[0] || !(*grouped)[1].known() || !(*x)[1].known()) return std::nullopt;
    const int64_t channels = (*x)[1].raw;
    m.groups = (*grouped)[1].raw;
    if (m.groups < 1 || channels < 1 || channels % m.groups != 0 || scale->numel() != m.groups || bias->numel() != m.groups) return std::nullopt;
    const NodeId merge = pattern_.only_user(norm.output(0));
    if (merge == kNone || !graph_.node(merge).is("Reshape") || graph_.node(merge).input(0) != norm.output(0)) return std::nullopt;
    const Dims* y = pattern_.dims(graph_.node(merge).output(0));
    if (y == nullptr || *y != *x) return std::nullopt;
    for (int64_t c = 0; c < channels; ++c) {
      const auto group = static_cast<size_t>(c / (channels / m.groups));
      m.scale.push_back(scale->data<float>()[group]);
      m.bias.push_back(bias->data<float>()[group]);
    }
    m.last = merge;
    if (const Tensor* factor = per_channel(m.last, "Mul", channels))
      for (size_t c = 0; c < m.scale.size(); ++c) {
        m.scale[c] *= factor->data<float>()[c];
        m.bias[c] *= factor->data<float>()[c];
      }
    if (const Tensor* shift = per_channel(m.last, "Add", channels))
      for (size_t c = 0; c < m.bias.size(); ++c) m.bias[c] += shift->data<float>()[c];
    return m;
  }

  // The constant, one number per channel, that the only reader of `last`, which it becomes, takes; null when there is none.
  const Tensor* per_channel(NodeId& last, std::string_view op, int64_t channels) const {
    const ValueId value = graph_.node(last).output(0);
    const NodeId user = pattern_.only_user(value);
    if (user == kNone || !graph_.node(user).is(op)) return nullptr;
    const ValueId other = Pattern::partner(graph_.node(user), value);
    const Tensor* t = pattern_.constant(other);
    if (t == nullptr || !pattern_.is_f32(other) || t->numel() != channels) return nullptr;
    const size_t rank = pattern_.dims(value)->size(), own = t->shape().size();
    if (own + 1 < rank || own > rank || t->shape()[own + 1 - rank] != channels) return nullptr;
    last = user;
    return t;
  }

  void replace(const Match& m) {
    rw_.insert_before(m.last);
    const std::string name = graph_.node(m.last).name;
    const auto constant = [&](const char* what, const std::vector<float>& v) { return rw_.add_constant(name + what, Tensor::vector<float>(std::span<const float>(v))); };
    const ValueId y = rw_.emit("GroupNormalization", {m.x, constant("/scale", m.scale), constant("/bias", m.bias)},
                               {{"num_groups", m.groups}, {"epsilon", m.epsilon}}, name);
    rw_.replace_uses(graph_.node(m.last).outputs[0], y);
    rw_.remove_dead_nodes();
  }

  Graph& graph_;
  Rewriter& rw_;
  Pattern pattern_;
};

}  // namespace

bool fuse_group_norm(Rewriter& rewriter, PassContext&) { return GroupNormFinder(rewriter).run(); }

}  // namespace ds
