#include "libds/passes/fuse_activation.h"

#include <cmath>
#include <optional>

#include "libds/passes/fuse_gates.h"
#include "libds/passes/pattern.h"

namespace ds {
namespace {

class HardSwishFinder {
 public:
  explicit HardSwishFinder(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), pattern_(graph_) {}

  bool run() {
    bool changed = false;
    for (NodeId id : graph_.order()) {
      if (!graph_.node(id).alive) continue;
      const auto found = match(id);
      if (!found || graph_.value(found->x).dtype != DType::kF32) continue;
      rw_.insert_before(found->last);
      const std::string name = graph_.node(found->last).name;
      rw_.replace_uses(graph_.node(found->last).outputs[0], rw_.emit("HardSwish", {found->x}, {}, name));
      changed = true;
    }
    if (changed) rw_.remove_dead_nodes();
    return changed;
  }

 private:
  struct Match {
    ValueId x;
    NodeId last;  // the node that makes the activation's result
  };

  std::optional<double> scalar(ValueId id) const { return pattern_.scalar(id); }
  static ValueId partner(const Node& n, ValueId a) { return Pattern::partner(n, a); }
  NodeId only_user(ValueId id) const { return pattern_.only_user(id); }
  static bool near(std::optional<double> a, double b) { return a && std::abs(*a - b) <= 1e-6 * std::abs(b); }

  // Whether the node divides `a` by six.
  bool is_sixth(const Node& n, ValueId a) const {
    if (n.is("Div")) return n.input(0) == a && near(scalar(n.input(1)), 6);
    return n.is("Mul") && partner(n, a) != kNone && near(scalar(partner(n, a)), 1.0 / 6);
  }

  std::optional<Match> match(NodeId id) const {
    const Node& n = graph_.node(id);
    const ValueId gate = n.output(0);
    if (n.is("HardSigmoid")) {
      if (!near(n.attr_float("alpha", 0.2f), 1.0 / 6) || !near(n.attr_float("beta", 0.5f), 0.5)) return std::nullopt;
      return times(gate, n.input(0), false);
    }
    if (!n.is("Clip") || scalar(n.input(1)) != 0.0 || !near(scalar(n.input(2)), 6)) return std::nullopt;
    const Value& sum = graph_.value(n.input(0));
    if (sum.producer == kNone || only_user(n.input(0)) == kNone) return std::nullopt;
    const Node& add = graph_.node(sum.producer);
    if (!add.is("Add")) return std::nullopt;
    const ValueId x = near(scalar(add.input(1)), 3) ? add.input(0) : near(scalar(add.input(0)), 3) ? add.input(1) : kNone;
    if (x == kNone) return std::nullopt;
    const NodeId user = only_user(gate);
    if (user == kNone) return std::nullopt;
    if (is_sixth(graph_.node(user), gate)) return times(graph_.node(user).output(0), x, false);
    return times(gate, x, true);
  }

  // gate * x, then, with `sixth`, divided by six.
  std::optional<Match> times(ValueId gate, ValueId x, bool sixth) const {
    const NodeId product = only_user(gate);
    if (product == kNone || !graph_.node(product).is("Mul") || partner(graph_.node(product), gate) != x) return std::nullopt;
    if (!sixth) return Match{x, product};
    const NodeId last = only_user(graph_.node(product).output(0));
    if (last == kNone || !is_sixth(graph_.node(last), graph_.node(product).output(0))) return std::nullopt;
    return Match{x, last};
  }

  Graph& graph_;
  Rewriter& rw_;
  Pattern pattern_;
};

}  // namespace

bool fuse_activation(Rewriter& rewriter, PassContext&) {
  const bool hard = HardSwishFinder(rewriter).run();
  return fuse_gates(rewriter) || hard;
}

}  // namespace ds
