#include "libds/passes/fuse_elementwise.h"

#include <algorithm>
#include <map>
#include <queue>
#include <set>

#include "libds/ops/elementwise_program.h"
#include "libds/passes/pattern.h"

namespace ds {
namespace {

using kernels::Chain;

class ChainFinder {
 public:
  explicit ChainFinder(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), pattern_(graph_) {}

  bool run() {
    const std::vector<NodeId> order = graph_.order();
    position_.assign(graph_.node_capacity(), 0);
    for (size_t i = 0; i < order.size(); ++i) position_[static_cast<size_t>(order[i])] = i;
    taken_.assign(graph_.node_capacity(), 0);
    // From the end, so that a region is as large as its last node allows before one inside it is asked.
    for (auto it = order.rbegin(); it != order.rend(); ++it) {
      if (taken_[static_cast<size_t>(*it)] || !is_member(*it) || !pattern_.is_f32(graph_.node(*it).output(0))) continue;
      const std::set<NodeId> region = grow(*it);
      for (NodeId id : region) taken_[static_cast<size_t>(id)] = 1;
      if (region.size() > 1 && !operands(region).empty()) found_.push_back({*it, region});
    }
    for (const Region& r : found_) replace(r);
    return !found_.empty();
  }

 private:
  struct Region {
    NodeId root;
    std::set<NodeId> nodes;
  };

  ops::Content content() const {
    return [this](ValueId id) { return pattern_.constant(id); };
  }

  bool is_member(NodeId id) const {
    const Node& n = graph_.node(id);
    const Dims* dims = pattern_.dims(n.output(0));
    return dims != nullptr && dims->size() <= kernels::Broadcast::kMaxRank && ops::fits_program(n, graph_, content());
  }

  // A number of the program rather than an operand.
  std::optional<double> number(ValueId id) const { return pattern_.is_f32(id) ? pattern_.scalar(id) : std::nullopt; }

  // Whether all that read the value are in the region and nothing else sees it.
  bool is_inside(ValueId id, const std::set<NodeId>& region) const {
    const auto& users = graph_.value(id).users;
    return !pattern_.visible(id) && std::all_of(users.begin(), users.end(), [&](NodeId user) { return region.contains(user); });
  }

  // The bounds of a Clip and the exponent of a square are written into the line: nobody reads them.
  static size_t operands_of(const Node& n) { return n.is("Clip") ? 1 : n.inputs.size(); }

  std::set<ValueId> operands(const std::set<NodeId>& region) const {
    std::set<ValueId> list;
    for (NodeId id : region) {
      const Node& n = graph_.node(id);
      for (size_t i = 0; i < operands_of(n); ++i) {
        const ValueId in = n.inputs[i];
        if (number(in) || (n.is("Pow") && i == 1 && pattern_.constant(in) != nullptr && !pattern_.is_f32(in))) continue;
        const NodeId producer = graph_.value(in).producer;
        if (producer == kNone || !region.contains(producer)) list.insert(in);
      }
    }
    return list;
  }

  // Lines of a program that the region takes, at most.
  size_t lines(const std::set<NodeId>& region) const {
    size_t count = 0;
    for (NodeId id : region) {
      const Node& n = graph_.node(id);
      const bool fold = n.is("Min") || n.is("Max") || n.is("Sum") || n.is("Mean");
      count += fold ? std::max<size_t>(1, n.inputs.size()) : 1;
    }
    return count;
  }

  // Whether a value is computed as often in the region as alone. Sizes that are not known yet are taken to be equal, as
  // broadcasting leaves new symbols wherever it meets two; where they turn out to differ, the result is the same.
  static bool as_large(const Dims& inner, const Dims& root) {
    return std::equal(inner.begin(), inner.end(), root.begin(), root.end(), [](Dim a, Dim b) { return a == b || !a.known(); });
  }

  // Producers come in from the last to the first: when one is looked at, all its readers have been.
  std::set<NodeId> grow(NodeId root) const {
    std::set<NodeId> region = {root};
    const Dims& dims = *pattern_.dims(graph_.node(root).output(0));
    std::set<std::pair<size_t, NodeId>> next;
    const auto enqueue = [&](NodeId id) {
      for (ValueId in : graph_.node(id).inputs) {
        const NodeId producer = in == kNone ? kNone : graph_.value(in).producer;
        if (producer != kNone) next.insert({position_[static_cast<size_t>(producer)], producer});
      }
    };
    enqueue(root);
    while (!next.empty()) {
      const NodeId id = std::prev(next.end())->second;
      next.erase(std::prev(next.end()));
      if (taken_[static_cast<size_t>(id)] || !is_member(id)) continue;
      const ValueId out = graph_.node(id).output(0);
      if (!as_large(*pattern_.dims(out), dims) || !is_inside(out, region)) continue;
      region.insert(id);
      if (operands(region).size() > Chain::kMostOperands || lines(region) > Chain::kMostSteps) region.erase(id);
      else enqueue(id);
    }
    return region;
  }

  void replace(const Region& r) {
    std::vector<NodeId> nodes(r.nodes.begin(), r.nodes.end());
    std::sort(nodes.begin(), nodes.end(), [&](NodeId a, NodeId b) { return position_[static_cast<size_t>(a)] < position_[static_cast<size_t>(b)]; });
    std::vector<ValueId> inputs;
    std::map<ValueId, std::string> names;
    const auto name = [&](ValueId id) -> std::string {
      if (const auto x = number(id)) return ops::program_number(*x);
      auto [it, is_new] = names.emplace(id, "");
      if (is_new) {
        it->second = fmt::format("x{}", inputs.size());
        inputs.push_back(id);
      }
      return it->second;
    };
    std::vector<std::string> program;
    for (NodeId id : nodes) {
      ops::write_program(graph_.node(id), content(), name, program);
      names[graph_.node(id).output(0)] = fmt::format("t{}", program.size() - 1);
    }
    const Node& root = graph_.node(r.root);
    const ValueId old = root.output(0);
    const std::string label = root.name;
    rw_.insert_before(r.root);
    const ValueId fused = rw_.emit("FusedElementwise", std::move(inputs), {{"program", std::move(program)}}, label);
    if (graph_.value(fused).dims != graph_.value(old).dims) rw_.set_type(fused, DType::kF32, graph_.value(old).dims);
    rw_.replace_uses(old, fused);
    for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) rw_.erase_node(*it);
  }

  Graph& graph_;
  Rewriter& rw_;
  Pattern pattern_;
  std::vector<size_t> position_;
  std::vector<char> taken_;
  std::vector<Region> found_;
};

}  // namespace

bool fuse_elementwise(Rewriter& rewriter, PassContext&) { return ChainFinder(rewriter).run(); }

}  // namespace ds
