#include "libds/passes/select_channels.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "libds/ir/op_def.h"
#include "libds/passes/sparsify.h"

namespace ds {
namespace {

// --- FLOPs -------------------------------------------------------------------------------------

TensorDesc desc_of(const Value& v) {
  TensorDesc d;
  d.dtype = v.dtype;
  if (v.is_constant()) d.shape = v.constant->shape();
  else if (v.dims && all_known(*v.dims)) d.shape = concrete(*v.dims);
  return d;
}

// A node at concrete shapes, as its cost function sees it.
KernelQuery query_of(const Graph& shapes, const Node& n) {
  KernelQuery q{n, {}, {}, {}};
  for (ValueId in : n.inputs) {
    q.inputs.push_back(in == kNone ? TensorDesc() : desc_of(shapes.value(in)));
    q.constants.push_back(in == kNone ? nullptr : shapes.value(in).constant.get());
  }
  for (ValueId out : n.outputs) q.outputs.push_back(out == kNone ? TensorDesc() : desc_of(shapes.value(out)));
  return q;
}

// FLOPs of the whole graph as channels come and go.
class FlopsModel {
 public:
  FlopsModel(const Graph& graph, const Graph& shapes, const ChannelGroups& groups) : groups_(groups) {
    kept_.resize(groups.axes.size());
    where_.resize(groups.pinned.size());
    nodes_of_axis_.resize(groups.axes.size());
    for (size_t a = 0; a < groups.axes.size(); ++a) {
      kept_[a] = static_cast<int64_t>(groups.axes[a].channels.size());
      std::map<int32_t, int64_t> count;
      for (int32_t c : groups.axes[a].channels) ++count[c];
      for (const auto& [c, n] : count) where_[static_cast<size_t>(c)].emplace_back(a, n);
    }
    for (NodeId id : graph.order()) {
      const Node& n = shapes.node(id);
      if (!n.alive || n.def == nullptr || !n.def->cost) continue;  // folded shape arithmetic costs nothing
      auto cell = std::make_unique<Cell>(n);
      cell->query = std::make_unique<KernelQuery>(query_of(shapes, cell->node));
      const Node& original = graph.node(id);
      for (size_t i = 0; i < original.inputs.size() && i < cell->query->inputs.size(); ++i) add_axes(*cell, original.inputs[i], true, i);
      for (size_t i = 0; i < original.outputs.size(); ++i) add_axes(*cell, original.outputs[i], false, i);
      if (n.is("Conv") && n.attr_int("group", 1) > 1)
        for (const Cell::Link& link : cell->links)
          cell->depthwise |= link.input && link.operand == 0 && link.dim == 1 && kept_[link.axis] == n.attr_int("group", 1);
      cell->flops = node_cost(*n.def, *cell->query).flops;
      total_ += cell->flops;
      cells_.push_back(std::move(cell));
    }
  }

  int64_t total() const { return total_; }

  // Takes channels out (sign -1) or puts them back (+1).
  void change(std::span<const int32_t> channels, int sign) {
    std::vector<size_t> dirty;
    for (int32_t c : channels)
      for (const auto& [axis, count] : where_[static_cast<size_t>(c)]) {
        kept_[axis] += sign * count;
        dirty.insert(dirty.end(), nodes_of_axis_[axis].begin(), nodes_of_axis_[axis].end());
      }
    std::sort(dirty.begin(), dirty.end());
    dirty.erase(std::unique(dirty.begin(), dirty.end()), dirty.end());
    for (size_t i : dirty) {
      Cell& cell = *cells_[i];
      for (const Cell::Link& link : cell.links) {
        auto& operands = link.input ? cell.query->inputs : cell.query->outputs;
        operands[link.operand].shape[link.dim] = kept_[link.axis];
        if (cell.depthwise && link.input && link.operand == 0 && link.dim == 1) cell.node.attrs["group"] = kept_[link.axis];
      }
      total_ -= cell.flops;
      cell.flops = node_cost(*cell.node.def, *cell.query).flops;
      total_ += cell.flops;
    }
  }

 private:
  struct Cell {
    explicit Cell(const Node& n) : node(n) {}
    struct Link {
      bool input;
      size_t operand, dim, axis;
    };
    Node node;  // own copy: `group` of depthwise convolutions follows
    std::unique_ptr<KernelQuery> query;
    std::vector<Link> links;
    bool depthwise = false;
    int64_t flops = 0;
  };

  void add_axes(Cell& cell, ValueId id, bool input, size_t operand) {
    if (id == kNone) return;
    const TensorDesc& d = input ? cell.query->inputs[operand] : cell.query->outputs[operand];
    for (size_t dim = 0; dim < d.shape.size(); ++dim) {
      const auto it = groups_.index.find({id, dim});
      if (it == groups_.index.end()) continue;
      cell.links.push_back({input, operand, dim, it->second});
      nodes_of_axis_[it->second].push_back(cells_.size());
    }
  }

  const ChannelGroups& groups_;
  std::vector<int64_t> kept_;                                      // by axis
  std::vector<std::vector<std::pair<size_t, int64_t>>> where_;     // by channel: axis, positions
  std::vector<std::vector<size_t>> nodes_of_axis_;                 // by axis: cells
  std::vector<std::unique_ptr<Cell>> cells_;
  int64_t total_ = 0;
};

// --- importance --------------------------------------------------------------------------------

// Squared L2 norm of every position along an axis.
std::vector<double> squared_norms(const Tensor& t, size_t axis) {
  const std::vector<double> x = t.to_doubles();
  const auto n = static_cast<size_t>(t.shape()[axis]);
  size_t inner = 1;
  for (size_t i = axis + 1; i < t.shape().size(); ++i) inner *= static_cast<size_t>(t.shape()[i]);
  std::vector<double> norms(n, 0.0);
  for (size_t i = 0; i < x.size(); ++i) norms[i / inner % n] += x[i] * x[i];
  return norms;
}

// gamma² / (variance + epsilon) of the batch normalisation behind a node; empty when there is none.
std::vector<double> batch_norm_gain(const Graph& graph, const Node& n) {
  const Value& y = graph.value(n.output(0));
  if (y.users.size() != 1) return {};
  const Node& bn = graph.node(y.users[0]);
  if (!bn.is("BatchNormalization") || bn.input(0) != n.output(0)) return {};
  const Value &gamma = graph.value(bn.inputs[1]), &variance = graph.value(bn.inputs[4]);
  if (!gamma.is_constant() || !variance.is_constant()) return {};
  std::vector<double> gain = gamma.constant->to_doubles();
  const std::vector<double> var = variance.constant->to_doubles();
  const double epsilon = bn.attr_float("epsilon", 1e-5f);
  for (size_t i = 0; i < gain.size(); ++i) gain[i] = gain[i] * gain[i] / (std::max(var[i], 0.0) + epsilon);
  return gain;
}

// --- choice ------------------------------------------------------------------------------------

struct Candidate {
  std::vector<int32_t> order;   // channels, least important first
  std::vector<double> loss;     // their importance
  std::vector<size_t> cuts{0};  // numbers of channels gone so far, one a step
  int64_t step = 1;             // channels a block
  bool stuck = false;           // removing more saves nothing

  size_t gone() const { return cuts.back(); }
  // Channels gone after one step more; gone() when the last block is reached.
  size_t next() const {
    const auto left = static_cast<int64_t>(order.size() - gone());
    const int64_t after = left % step != 0 ? left - left % step : left - step;
    return after < step ? gone() : order.size() - static_cast<size_t>(after);
  }
  bool can_go_on() const { return !stuck && next() != gone(); }
  // Share of the class's importance that is lost with its first n channels.
  double share(size_t n) const {
    const auto sum = [&](size_t k) { return std::accumulate(loss.begin(), loss.begin() + static_cast<std::ptrdiff_t>(k), 0.0); };
    const double all = sum(loss.size());
    return all > 0 ? sum(n) / all : static_cast<double>(n) / static_cast<double>(order.size());
  }
  double share_gone() const { return share(gone()); }
  // After one step more. Comparing what is lost altogether, not step by step, keeps wide layers from
  // being emptied first because their blocks are small parts.
  double share_lost() const { return share(next()); }
  std::span<const int32_t> block(size_t begin, size_t end) const { return std::span(order).subspan(begin, end - begin); }
};

std::vector<Candidate> make_candidates(const ChannelGroups& groups, const std::vector<double>& importance, int64_t multiple) {
  std::vector<Candidate> list;
  for (const ChannelClass& c : groups.classes) {
    Candidate made;
    const int64_t channels = checked_mul(static_cast<int64_t>(c.channels.size()), c.width);
    const int64_t block = multiple > 0 ? multiple : automatic_multiple(channels);
    made.step = block / std::gcd(block, c.width);
    made.order = c.channels;
    std::stable_sort(made.order.begin(), made.order.end(), [&](int32_t a, int32_t b) {
      return importance[static_cast<size_t>(a)] < importance[static_cast<size_t>(b)];
    });
    for (int32_t ch : made.order) made.loss.push_back(importance[static_cast<size_t>(ch)]);
    list.push_back(std::move(made));
  }
  return list;
}

class Chooser {
 public:
  Chooser(FlopsModel& model, std::vector<Candidate> candidates, int64_t goal)
      : model_(model), candidates_(std::move(candidates)), goal_(goal) {}

  void run() {
    if (combinations() <= kMostCombinations && try_all()) return;
    while (model_.total() > goal_ && remove_cheapest()) {}
    if (model_.total() > goal_) return;
    while (return_best_block()) {}
    constexpr double kCloseEnough = 0.01;  // of the goal
    for (int i = 0; i < 100 && static_cast<double>(goal_ - model_.total()) > kCloseEnough * static_cast<double>(goal_); ++i)
      if (!swap_blocks()) break;
  }

  const std::vector<Candidate>& candidates() const { return candidates_; }

 private:
  void go_on(Candidate& c) {
    const size_t next = c.next();
    model_.change(c.block(c.gone(), next), -1);
    c.cuts.push_back(next);
  }
  void go_back(Candidate& c) {
    const size_t now = c.gone();
    c.cuts.pop_back();
    model_.change(c.block(c.gone(), now), +1);
  }

  // --- few blocks: every combination ---

  static constexpr int64_t kMostCombinations = 20000;
  static constexpr double kWindow = 0.03;  // of the goal: totals this close below it compete by what they lose

  int64_t combinations() {
    int64_t n = 1;
    for (Candidate& c : candidates_) {
      const size_t before = c.cuts.size();
      while (c.can_go_on()) c.cuts.push_back(c.next());
      n *= static_cast<int64_t>(c.cuts.size());
      c.cuts.resize(before);
      if (n > kMostCombinations) break;
    }
    return n;
  }

  struct Choice {
    std::vector<size_t> steps;  // per candidate
    int64_t total = 0;
    double loss = 0;
    bool found = false;
  };

  // Sum of the squared shares lost: an even loss counts less than one layer emptied.
  double total_loss() const {
    double sum = 0;
    for (const Candidate& c : candidates_) sum += c.share_gone() * c.share_gone();
    return sum;
  }

  void visit(size_t i, Choice& best) {
    if (i < candidates_.size()) {
      Candidate& c = candidates_[i];
      visit(i + 1, best);
      while (c.can_go_on()) {
        go_on(c);
        visit(i + 1, best);
      }
      while (c.cuts.size() > 1) go_back(c);
      return;
    }
    const int64_t total = model_.total();
    if (total > goal_) return;
    const auto near = [&](int64_t t) { return static_cast<double>(goal_ - t) <= kWindow * static_cast<double>(goal_); };
    const double loss = total_loss();
    const bool better = !best.found || (near(total) != near(best.total) ? near(total)
                                        : near(total)                   ? loss < best.loss
                                                                        : total > best.total);
    if (!better) return;
    best = {{}, total, loss, true};
    for (const Candidate& c : candidates_) best.steps.push_back(c.cuts.size() - 1);
  }

  bool try_all() {
    Choice best;
    visit(0, best);
    if (!best.found) return false;
    for (size_t i = 0; i < candidates_.size(); ++i)
      for (size_t s = 0; s < best.steps[i]; ++s) go_on(candidates_[i]);
    return true;
  }

  // --- many blocks: the cheapest first ---

  bool remove_cheapest() {
    for (;;) {
      Candidate* best = nullptr;
      for (Candidate& c : candidates_)
        if (c.can_go_on() && (best == nullptr || c.share_lost() < best->share_lost())) best = &c;
      if (best == nullptr) return false;
      const int64_t before = model_.total();
      go_on(*best);
      if (model_.total() < before) return true;
      go_back(*best);  // costs accuracy and saves nothing
      best->stuck = true;
    }
  }

  // Puts back the block that brings the total closest to the goal from below.
  bool return_best_block() {
    Candidate* best = nullptr;
    int64_t best_total = model_.total();
    for (Candidate& c : candidates_) {
      if (c.cuts.size() < 2) continue;
      go_back(c);
      if (model_.total() <= goal_ && model_.total() > best_total) {
        best = &c;
        best_total = model_.total();
      }
      go_on(c);
    }
    if (best != nullptr) go_back(*best);
    return best != nullptr;
  }

  // One block back for another one out, when that comes closer.
  bool swap_blocks() {
    int64_t best_total = model_.total();
    std::pair<Candidate*, Candidate*> best{nullptr, nullptr};
    for (Candidate& back : candidates_) {
      if (back.cuts.size() < 2) continue;
      go_back(back);
      for (Candidate& out : candidates_) {
        if (&out == &back || !out.can_go_on()) continue;
        go_on(out);
        if (model_.total() <= goal_ && model_.total() > best_total) {
          best = {&back, &out};
          best_total = model_.total();
        }
        go_back(out);
      }
      go_on(back);
    }
    if (best.first == nullptr) return false;
    go_back(*best.first);
    go_on(*best.second);
    return true;
  }

  FlopsModel& model_;
  std::vector<Candidate> candidates_;
  int64_t goal_;
};

}  // namespace

int64_t automatic_multiple(int64_t channels) { return channels < 64 ? 8 : 16; }

std::vector<double> channel_importance(const Graph& graph, const ChannelGroups& groups) {
  std::vector<double> sum(groups.pinned.size(), 0.0);
  std::vector<int64_t> layers(groups.pinned.size(), 0);
  for (const WeightOperand& w : weight_operands(graph)) {
    const Tensor& content = *graph.value(w.weight).constant;
    const Node& n = graph.node(w.node);
    for (size_t axis = 0; axis < content.shape().size(); ++axis) {
      const ChannelAxis* a = groups.find(w.weight, axis);
      if (a == nullptr) continue;
      std::vector<double> norms = squared_norms(content, axis);
      if (n.is("Conv") && axis == 0) {
        const std::vector<double> gain = batch_norm_gain(graph, n);
        for (size_t i = 0; i < gain.size() && i < norms.size(); ++i) norms[i] *= gain[i];
      }
      std::map<int32_t, double> of_channel;
      for (size_t i = 0; i < norms.size(); ++i) of_channel[a->channels[i]] += norms[i];
      double mean = 0;
      for (const auto& [c, x] : of_channel) mean += x / static_cast<double>(of_channel.size());
      if (!(mean > 0)) continue;
      for (const auto& [c, x] : of_channel) {
        sum[static_cast<size_t>(c)] += x / mean;
        ++layers[static_cast<size_t>(c)];
      }
    }
  }
  for (size_t c = 0; c < sum.size(); ++c)
    if (layers[c] > 0) sum[c] /= static_cast<double>(layers[c]);
  return sum;
}

ChannelSelection select_channels(const Graph& graph, const Graph& shapes, const ChannelGroups& groups, const ChannelTarget& target) {
  if (!(target.flops > 0 && target.flops <= 1)) bad_data("target FLOPs {} is not between 0 and 1", target.flops);
  FlopsModel model(graph, shapes, groups);
  ChannelSelection selection;
  selection.flops_before = model.total();
  const auto goal = static_cast<int64_t>(std::floor(target.flops * static_cast<double>(selection.flops_before)));
  Chooser chooser(model, make_candidates(groups, channel_importance(graph, groups), target.multiple), goal);
  chooser.run();
  selection.flops_after = model.total();
  if (selection.flops_after > goal)
    fail(ExitCode::kUnsupported, "{:.1f} % of the FLOPs cannot be reached: {:.1f} % are left when every layer that may shrink is down to one block",
         100 * target.flops, 100.0 * static_cast<double>(selection.flops_after) / static_cast<double>(std::max<int64_t>(1, selection.flops_before)));
  selection.removed.assign(groups.pinned.size(), 0);
  for (const Candidate& c : chooser.candidates())
    for (int32_t channel : c.block(0, c.gone())) selection.removed[static_cast<size_t>(channel)] = 1;
  return selection;
}

int64_t count_flops(const Graph& shapes) {
  int64_t total = 0;
  for (NodeId id : shapes.order()) {
    const Node& n = shapes.node(id);
    if (n.def != nullptr && n.def->cost) total = checked_add(total, node_cost(*n.def, query_of(shapes, n)).flops);
  }
  return total;
}

}  // namespace ds
