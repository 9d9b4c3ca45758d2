#include "libds/passes/fuse_norm.h"

#include <algorithm>

#include "libds/passes/pattern.h"

namespace ds {
namespace {

class NormFinder {
 public:
  explicit NormFinder(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), pattern_(graph_) {}

  bool run() {
    bool changed = false;
    for (NodeId id : graph_.order()) {
      if (!graph_.node(id).alive || !graph_.node(id).is("ReduceMean")) continue;
      auto found = match(id);
      if (!found) continue;
      replace(*found);
      changed = true;
    }
    return changed;
  }

 private:
  struct Match {
    ValueId x = kNone, scale = kNone, bias = kNone;
    bool centered = false;
    double epsilon = 0;
    Dims normalized;  // the trailing dimensions, all known
    NodeId last = kNone;
  };

  // How many trailing axes a ReduceMean that keeps them averages; 0: it does something else.
  size_t trailing_axes(const Node& n) const {
    const Dims* in = pattern_.dims(n.input(0));
    const auto axes = pattern_.ints(n.input(1));
    if (in == nullptr || !axes || axes->empty() || n.attr_int("keepdims", 1) == 0) return 0;
    const auto rank = static_cast<int64_t>(in->size());
    std::vector<int64_t> sorted;
    for (int64_t axis : *axes) sorted.push_back(axis < 0 ? axis + rank : axis);
    std::sort(sorted.begin(), sorted.end());
    for (size_t i = 0; i < sorted.size(); ++i)
      if (sorted[i] != rank - static_cast<int64_t>(sorted.size() - i)) return 0;
    return sorted.size();
  }

  // What is squared.
  ValueId square_of(ValueId id) const {
    const Node* n = pattern_.producer(id);
    if (n == nullptr) return kNone;
    if (n->is("Mul")) return n->input(0) == n->input(1) ? n->input(0) : kNone;
    return n->is("Pow") && pattern_.scalar(n->input(1)) == 2.0 ? n->input(0) : kNone;
  }

  // The mean that x - mean subtracts, over as many axes.
  const Node* mean_of(const Node& sub, size_t axes) const {
    const Node* mean = pattern_.made_by(sub.input(1), "ReduceMean");
    return mean != nullptr && mean->input(0) == sub.input(0) && trailing_axes(*mean) == axes ? mean : nullptr;
  }

  // Whether the value has exactly one element for each normalized one, in the same order.
  bool fits(ValueId id, const Match& m) const {
    const Dims* d = pattern_.dims(id);
    const Dims* x = pattern_.dims(m.x);
    if (d == nullptr || !all_known(*d) || !pattern_.is_f32(id) || d->size() > x->size()) return false;
    const auto bare = [](const Dims& dims) {
      auto first = std::find_if(dims.begin(), dims.end(), [](Dim v) { return v != Dim(1); });
      return Dims(first, dims.end());
    };
    return bare(*d) == bare(m.normalized);
  }

  // The node of two operands that alone reads `id`.
  const Node* reader(ValueId id, std::string_view op) const {
    const NodeId user = pattern_.only_user(id);
    return user != kNone && graph_.node(user).is(op) ? &graph_.node(user) : nullptr;
  }

  // Takes a scale, or a bias, along. `y` becomes the result.
  bool take(ValueId& y, std::string_view op, const Match& m, ValueId& operand) const {
    const Node* n = reader(y, op);
    const ValueId other = n == nullptr ? kNone : Pattern::partner(*n, y);
    if (other == kNone || !fits(other, m)) return false;
    operand = other;
    y = n->output(0);
    return true;
  }

  std::optional<Match> match(NodeId id) const {
    const Node& n = graph_.node(id);
    const size_t axes = trailing_axes(n);
    const ValueId d = axes == 0 ? kNone : square_of(n.input(0));
    if (d == kNone || !pattern_.is_f32(d) || pattern_.only_user(n.input(0)) == kNone) return std::nullopt;
    Match m;
    m.x = d;
    const Node* sub = pattern_.made_by(d, "Sub");
    const Node* mean = sub == nullptr ? nullptr : mean_of(*sub, axes);
    if (mean != nullptr) {
      m.x = sub->input(0);
      m.centered = true;
    }
    const Dims* dims = pattern_.dims(m.x);
    if (dims == nullptr || dims->size() < axes) return std::nullopt;
    m.normalized = Dims(dims->end() - static_cast<int64_t>(axes), dims->end());
    if (!all_known(m.normalized)) return std::nullopt;
    // mean + epsilon, its root, the root's inverse.
    const Node* add = reader(n.output(0), "Add");
    const ValueId eps = add == nullptr ? kNone : Pattern::partner(*add, n.output(0));
    const auto epsilon = pattern_.scalar(eps);
    if (!epsilon || *epsilon < 0 || pattern_.dims(eps)->size() > dims->size()) return std::nullopt;
    m.epsilon = *epsilon;
    ValueId y = kNone;
    if (const Node* div = quotient(add->output(0), d)) y = div->output(0);
    else if (!products(add->output(0), d, mean, m, y)) return std::nullopt;
    if (m.scale == kNone) take(y, "Mul", m, m.scale);
    if (m.centered && m.bias == kNone) take(y, "Add", m, m.bias);
    m.last = graph_.value(y).producer;
    return m;
  }

  // Div(d, Sqrt(v)).
  const Node* quotient(ValueId v, ValueId d) const {
    const Node* root = reader(v, "Sqrt");
    const Node* div = root == nullptr ? nullptr : reader(root->output(0), "Div");
    return div != nullptr && div->input(0) == d && div->input(1) == root->output(0) ? div : nullptr;
  }

  // 1 / sqrt(v), kNone when it is not made.
  ValueId inverse_root(ValueId v) const {
    if (const Node* pow = reader(v, "Pow")) return pow->input(0) == v && pattern_.scalar(pow->input(1)) == -0.5 ? pow->output(0) : kNone;
    const Node* root = reader(v, "Sqrt");
    if (root == nullptr) return kNone;
    if (const Node* inverse = reader(root->output(0), "Reciprocal")) return inverse->output(0);
    const Node* div = reader(root->output(0), "Div");
    return div != nullptr && div->input(1) == root->output(0) && pattern_.scalar(div->input(0)) == 1.0 ? div->output(0) : kNone;
  }

  // d r, r d scale, or x (r scale) + (bias - mean (r scale)), where r = 1 / sqrt(v).
  bool products(ValueId v, ValueId d, const Node* mean, Match& m, ValueId& y) const {
    ValueId r = inverse_root(v);
    if (r == kNone) return false;
    const auto times_d = [&] {
      const Node* mul = reader(r, "Mul");
      if (mul == nullptr || Pattern::partner(*mul, r) != d) return false;
      y = mul->output(0);
      return true;
    };
    if (times_d()) return true;
    if (!take(r, "Mul", m, m.scale)) return false;
    return times_d() || (mean != nullptr && spread(r, mean->output(0), m, y));
  }

  // Add(Mul(x, r), Sub(bias, Mul(mean, r))).
  bool spread(ValueId r, ValueId mean, Match& m, ValueId& y) const {
    if (pattern_.visible(r) || graph_.value(r).users.size() != 2) return false;
    ValueId scaled = kNone, shift = kNone;
    for (NodeId user : graph_.value(r).users) {
      const Node& n = graph_.node(user);
      if (!n.is("Mul")) return false;
      const ValueId other = Pattern::partner(n, r);
      if (other == m.x) scaled = n.output(0);
      else if (other == mean) shift = n.output(0);
    }
    if (scaled == kNone || shift == kNone) return false;
    const Node* sub = reader(shift, "Sub");
    if (sub == nullptr || sub->input(1) != shift || !fits(sub->input(0), m)) return false;
    const Node* add = reader(sub->output(0), "Add");
    if (add == nullptr || Pattern::partner(*add, sub->output(0)) != scaled || reader(scaled, "Add") != add) return false;
    m.bias = sub->input(0);
    y = add->output(0);
    return true;
  }

  void replace(const Match& m) {
    rw_.insert_before(m.last);
    const std::string name = graph_.node(m.last).name;
    std::vector<ValueId> inputs = {m.x, m.scale};
    if (m.scale == kNone) {
      const Shape shape = concrete(m.normalized);
      const std::vector<float> ones(static_cast<size_t>(checked_numel(shape)), 1.0f);
      inputs[1] = rw_.add_constant(name + "/ones", Tensor::of<float>(shape, std::span<const float>(ones)));
    }
    if (m.bias != kNone) inputs.push_back(m.bias);
    const Attributes attrs = {{"axis", -static_cast<int64_t>(m.normalized.size())}, {"epsilon", static_cast<float>(m.epsilon)}};
    const ValueId y = rw_.emit(m.centered ? "LayerNormalization" : "RMSNormalization", inputs, attrs, name);
    rw_.replace_uses(graph_.node(m.last).outputs[0], y);
    rw_.remove_dead_nodes();
  }

  Graph& graph_;
  Rewriter& rw_;
  Pattern pattern_;
};

}  // namespace

bool fuse_norm(Rewriter& rewriter, PassContext&) { return NormFinder(rewriter).run(); }

}  // namespace ds
