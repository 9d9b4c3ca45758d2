#include "libds/passes/fuse_gates.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <set>

#include "libds/passes/pattern.h"

namespace ds {
namespace {

// A polynomial in x and the gate g: (i, j) -> the coefficient of x^i g^j. Sums and products of nodes are
// compared as polynomials, so that neither order nor association nor where a factor stands matters.
using Polynomial = std::map<std::pair<int, int>, double>;
constexpr int kMostDegree = 4;

std::optional<Polynomial> product(const Polynomial& a, const Polynomial& b) {
  Polynomial out;
  for (const auto& [p, u] : a)
    for (const auto& [q, v] : b) {
      const std::pair<int, int> power = {p.first + q.first, p.second + q.second};
      if (power.first > kMostDegree || power.second > 1) return std::nullopt;
      out[power] += u * v;
    }
  return out;
}

Polynomial sum(Polynomial a, const Polynomial& b, double sign) {
  for (const auto& [p, v] : b) a[p] += sign * v;
  return a;
}

bool equals(const Polynomial& a, const Polynomial& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const auto& p, const auto& q) {
           return p.first == q.first && std::abs(p.second - q.second) <= 1e-6 * std::abs(q.second);
         });
}

bool is_arithmetic(const Node& n) {
  return n.is("Add") || n.is("Sub") || n.is("Mul") || n.is("Div") || n.is("Pow") || n.is("Neg");
}

class GateFinder {
 public:
  explicit GateFinder(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), pattern_(graph_) {}

  bool run() {
    bool changed = false;
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      if (!n.alive || !(n.is("Erf") || n.is("Tanh") || n.is("Sigmoid")) || !pattern_.is_f32(n.output(0))) continue;
      const auto found = match(id);
      if (!found) continue;
      rw_.insert_before(found->root);
      const std::string name = graph_.node(found->root).name;
      rw_.replace_uses(graph_.node(found->root).outputs[0], rw_.emit(found->op, {found->x}, found->attrs, name));
      rw_.remove_dead_nodes();
      changed = true;
    }
    return changed;
  }

 private:
  struct Gate {
    std::string_view op;
    Attributes attrs;
    Polynomial whole;  // what the root must be
  };
  struct Match {
    std::string_view op;
    Attributes attrs;
    ValueId x;
    NodeId root;
  };

  // The value as a polynomial in x and g; nullopt when something else is in it. `through` gains the nodes passed.
  std::optional<Polynomial> polynomial(ValueId id, ValueId x, ValueId g, std::set<NodeId>& through, int depth = 0) const {
    constexpr int kMostDepth = 8;
    if (id == kNone || depth > kMostDepth) return std::nullopt;
    if (id == x) return Polynomial{{{1, 0}, 1.0}};
    if (id == g) return Polynomial{{{0, 1}, 1.0}};
    if (const auto c = pattern_.scalar(id)) return Polynomial{{{0, 0}, *c}};
    const Node* n = pattern_.producer(id);
    if (n == nullptr || !is_arithmetic(*n)) return std::nullopt;
    through.insert(graph_.value(id).producer);
    const auto a = polynomial(n->input(0), x, g, through, depth + 1);
    if (!a) return std::nullopt;
    if (n->is("Neg")) return sum({}, *a, -1);
    if (n->is("Pow") || n->is("Div")) {
      const auto c = pattern_.scalar(n->input(1));
      if (!c) return std::nullopt;
      if (n->is("Div")) return *c == 0 ? std::nullopt : product(*a, {{{0, 0}, 1 / *c}});
      if (*c == 2) return product(*a, *a);
      const auto square = *c == 3 ? product(*a, *a) : std::nullopt;
      return square ? product(*square, *a) : std::nullopt;
    }
    const auto b = polynomial(n->input(1), x, g, through, depth + 1);
    if (!b) return std::nullopt;
    return n->is("Mul") ? product(*a, *b) : sum(*a, *b, n->is("Add") ? 1 : -1);
  }

  // What may be x: the argument of the gate and what its arithmetic is made of.
  std::vector<ValueId> candidates(ValueId argument) const {
    constexpr size_t kMost = 24;
    std::vector<ValueId> list = {argument};
    for (size_t i = 0; i < list.size() && list.size() < kMost; ++i) {
      const Node* n = pattern_.producer(list[i]);
      if (n == nullptr || !is_arithmetic(*n)) continue;
      for (ValueId in : n->inputs)
        if (in != kNone && pattern_.constant(in) == nullptr && std::find(list.begin(), list.end(), in) == list.end()) list.push_back(in);
    }
    return list;
  }

  // softplus(x), spelled out or not: x. kNone: it is none.
  ValueId softplus(ValueId id, std::set<NodeId>& through) const {
    if (const Node* n = pattern_.made_by(id, "Softplus")) {
      through.insert(graph_.value(id).producer);
      return n->input(0);
    }
    const Node* log = pattern_.made_by(id, "Log");
    const Node* add = log == nullptr ? nullptr : pattern_.made_by(log->input(0), "Add");
    if (add == nullptr) return kNone;
    const ValueId e = pattern_.scalar(add->input(1)) == 1.0 ? add->input(0) : pattern_.scalar(add->input(0)) == 1.0 ? add->input(1) : kNone;
    const Node* exp = pattern_.made_by(e, "Exp");
    if (exp == nullptr) return kNone;
    for (ValueId v : {id, log->input(0), e}) through.insert(graph_.value(v).producer);
    return exp->input(0);
  }

  // The activation that a gate of this argument belongs to.
  std::optional<Gate> gate_of(const Node& n, ValueId x, ValueId g, std::set<NodeId>& through) const {
    const double k = std::sqrt(2 / std::numbers::pi);
    constexpr double kCubic = 0.044715;
    const Polynomial halves = {{{1, 0}, 0.5}, {{1, 1}, 0.5}}, whole = {{{1, 1}, 1.0}};
    const auto argument = polynomial(n.input(0), x, g, through);
    if (!argument) return std::nullopt;
    if (n.is("Erf")) {
      if (!equals(*argument, {{{1, 0}, 1 / std::numbers::sqrt2}})) return std::nullopt;
      return Gate{"Gelu", {}, halves};
    }
    const Attributes tanh = {{"approximate", std::string("tanh")}};
    if (n.is("Tanh")) {
      if (!equals(*argument, {{{1, 0}, k}, {{3, 0}, k * kCubic}})) return std::nullopt;
      return Gate{"Gelu", tanh, halves};
    }
    if (equals(*argument, {{{1, 0}, 2 * k}, {{3, 0}, 2 * k * kCubic}})) return Gate{"Gelu", tanh, whole};
    if (argument->size() != 1 || argument->begin()->first != std::pair(1, 0)) return std::nullopt;
    return Gate{"Swish", {{"alpha", static_cast<float>(argument->begin()->second)}}, whole};
  }

  // From the gate up through its only readers to the node that makes `whole`.
  std::optional<Match> climb(const Gate& gate, ValueId x, ValueId g, const std::set<NodeId>& below) const {
    constexpr int kMostSteps = 5;
    ValueId v = g;
    for (int step = 0; step < kMostSteps; ++step) {
      const NodeId user = pattern_.only_user(v);
      if (user == kNone || !is_arithmetic(graph_.node(user))) return std::nullopt;
      v = graph_.node(user).output(0);
      std::set<NodeId> through = below;
      const auto made = polynomial(v, x, g, through);
      if (!made) continue;  // an operand further up may hold the rest
      if (!equals(*made, gate.whole)) continue;
      const Dims *from = pattern_.dims(x), *to = pattern_.dims(v);
      if (from == nullptr || to == nullptr || *from != *to || !pattern_.is_f32(x)) return std::nullopt;
      if (!closed(through, user)) return std::nullopt;
      return Match{gate.op, gate.attrs, x, user};
    }
    return std::nullopt;
  }

  // Whether nobody but these nodes and no caller reads what they make, the root aside.
  bool closed(const std::set<NodeId>& nodes, NodeId root) const {
    return std::all_of(nodes.begin(), nodes.end(), [&](NodeId id) {
      if (id == root) return true;
      const ValueId out = graph_.node(id).output(0);
      const auto& users = graph_.value(out).users;
      return !pattern_.visible(out) && std::all_of(users.begin(), users.end(), [&](NodeId user) { return nodes.contains(user); });
    });
  }

  std::optional<Match> match(NodeId id) const {
    const Node& n = graph_.node(id);
    const ValueId g = n.output(0);
    if (n.is("Tanh")) {
      std::set<NodeId> through = {id};
      const ValueId x = softplus(n.input(0), through);
      if (x != kNone) return climb({"Mish", {}, {{{1, 1}, 1.0}}}, x, g, through);
    }
    for (ValueId x : candidates(n.input(0))) {
      std::set<NodeId> through = {id};
      const auto gate = gate_of(n, x, g, through);
      if (!gate) continue;
      if (auto found = climb(*gate, x, g, through)) return found;
    }
    return std::nullopt;
  }

  Graph& graph_;
  Rewriter& rw_;
  Pattern pattern_;
};

}  // namespace

bool fuse_gates(Rewriter& rewriter) { return GateFinder(rewriter).run(); }

}  // namespace ds
