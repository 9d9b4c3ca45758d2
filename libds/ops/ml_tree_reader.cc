#include "libds/ops/ml_tree_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <unordered_map>

namespace ds::ops {
namespace {

using kernels::Aggregate;
using kernels::Split;
using kernels::TreeNode;
using kernels::Vote;

constexpr size_t kMostNodes = 1u << 30;     // node numbers are 32-bit
constexpr size_t kMostSets = 1u << 24;      // their numbers are kept in f32

// Nodes as they lie in the file, before they are put in order. Children are as in TreeNode.
struct FileTrees {
  std::vector<TreeNode<double>> nodes;
  std::vector<int32_t> roots;
  std::vector<std::vector<Vote>> leaves;
};

void require_length(size_t length, size_t expected, const char* name, const char* like) {
  if (length != expected) bad_data("{} has {} elements, {} has {}", name, length, like, expected);
}

// A list of floats, or the tensor that takes its place: `name` + "_as_tensor". f64 tells a tensor of doubles.
std::vector<double> numbers(const Node& n, const std::string& name, bool& f64) {
  const std::vector<float> floats = n.attr_floats(name);
  const Tensor* tensor = n.attr_tensor(name + "_as_tensor");
  if (tensor == nullptr) return {floats.begin(), floats.end()};
  if (!floats.empty()) bad_data("has both {0} and {0}_as_tensor", name);
  f64 = f64 || tensor->dtype() == DType::kF64;
  return tensor->to_doubles();
}

bool is_binary(const std::vector<int64_t>& flags) {
  return std::all_of(flags.begin(), flags.end(), [](int64_t f) { return f == 0 || f == 1; });
}

int32_t feature_of(int64_t feature) {
  if (feature < 0 || feature >= std::numeric_limits<int32_t>::max()) bad_data("nodes_featureids holds {}", feature);
  return static_cast<int32_t>(feature);
}

void check_target(int64_t target, int64_t targets, const char* name) {
  if (target < 0 || target >= targets) bad_data("{} holds {}, there are {} targets", name, target, targets);
}

// --- TreeEnsembleRegressor and -Classifier: leaves are nodes, nodes are named (tree, node) --------

struct NodeName {
  int64_t tree, node;
  bool operator==(const NodeName&) const = default;
};
struct NodeNameHash {
  size_t operator()(const NodeName& n) const { return static_cast<size_t>(n.tree) * 0x9e3779b97f4a7c15u ^ static_cast<size_t>(n.node); }
};

Split split_named(const std::string& mode) {
  static const std::map<std::string, Split> modes = {{"BRANCH_LEQ", Split::kLeq}, {"BRANCH_LT", Split::kLt}, {"BRANCH_GTE", Split::kGte},
                                                     {"BRANCH_GT", Split::kGt},   {"BRANCH_EQ", Split::kEq}, {"BRANCH_NEQ", Split::kNeq}};
  const auto it = modes.find(mode);
  if (it == modes.end()) bad_data("nodes_modes holds '{}'", mode);
  return it->second;
}

FileTrees read_named(const Node& n, bool classifier, int64_t targets, bool& f64) {
  const std::vector<int64_t> trees = n.attr_ints("nodes_treeids"), ids = n.attr_ints("nodes_nodeids"), features = n.attr_ints("nodes_featureids");
  const std::vector<int64_t> on_true = n.attr_ints("nodes_truenodeids"), on_false = n.attr_ints("nodes_falsenodeids");
  const std::vector<int64_t> missing = n.attr_ints("nodes_missing_value_tracks_true");
  const std::vector<std::string> modes = n.attr_strings("nodes_modes");
  const std::vector<double> splits = numbers(n, "nodes_values", f64);
  const size_t count = trees.size();
  if (count == 0) bad_data("has no nodes");
  if (count > kMostNodes) fail(ExitCode::kUnsupported, "{} nodes are more than this library takes", count);
  require_length(ids.size(), count, "nodes_nodeids", "nodes_treeids");
  require_length(features.size(), count, "nodes_featureids", "nodes_treeids");
  require_length(on_true.size(), count, "nodes_truenodeids", "nodes_treeids");
  require_length(on_false.size(), count, "nodes_falsenodeids", "nodes_treeids");
  require_length(modes.size(), count, "nodes_modes", "nodes_treeids");
  require_length(splits.size(), count, "nodes_values", "nodes_treeids");
  if (!missing.empty()) require_length(missing.size(), count, "nodes_missing_value_tracks_true", "nodes_treeids");

  FileTrees out;
  std::unordered_map<NodeName, int32_t, NodeNameHash> found;  // index of a node, ~n of leaf n
  found.reserve(count);
  std::unordered_map<int64_t, bool> rooted;
  int32_t branches = 0, leaves = 0;
  for (size_t i = 0; i < count; ++i) {
    const int32_t place = modes[i] == "LEAF" ? ~leaves++ : branches++;
    if (!found.emplace(NodeName{trees[i], ids[i]}, place).second) bad_data("node {} of tree {} is there twice", ids[i], trees[i]);
    if (rooted.emplace(trees[i], true).second) out.roots.push_back(place);  // a tree's first node is its root
  }
  const auto child = [&](size_t i, int64_t id, const char* which) {
    const auto it = found.find({trees[i], id});
    if (it == found.end()) bad_data("node {} of tree {} has node {} as its {} branch, which is not there", ids[i], trees[i], id, which);
    return it->second;
  };
  for (size_t i = 0; i < count; ++i) {
    if (modes[i] == "LEAF") continue;
    out.nodes.push_back({splits[i], feature_of(features[i]), child(i, on_true[i], "true"), child(i, on_false[i], "false"), split_named(modes[i]),
                         !missing.empty() && missing[i] != 0});
  }

  const std::string prefix = classifier ? "class_" : "target_";
  const std::vector<int64_t> vote_trees = n.attr_ints(prefix + "treeids"), vote_nodes = n.attr_ints(prefix + "nodeids");
  const std::vector<int64_t> vote_targets = n.attr_ints(prefix + "ids");
  bool f64_weights = false;
  const std::vector<double> weights = numbers(n, prefix + "weights", f64_weights);
  require_length(vote_nodes.size(), vote_trees.size(), "the list of voting nodes", "the list of their trees");
  require_length(vote_targets.size(), vote_trees.size(), "the list of targets", "the list of their trees");
  require_length(weights.size(), vote_trees.size(), "the list of weights", "the list of their trees");
  out.leaves.resize(static_cast<size_t>(leaves));
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto it = found.find({vote_trees[i], vote_nodes[i]});
    if (it == found.end()) bad_data("a weight is for node {} of tree {}, which is not there", vote_nodes[i], vote_trees[i]);
    check_target(vote_targets[i], targets, classifier ? "class_ids" : "target_ids");
    if (it->second < 0) out.leaves[static_cast<size_t>(~it->second)].push_back({weights[i], vote_targets[i]});
  }
  return out;
}

// --- TreeEnsemble: leaves apart, children by position --------------------------------------------

const Tensor& required_tensor(const Node& n, const char* name) {
  const Tensor* t = n.attr_tensor(name);
  if (t == nullptr) bad_data("has no attribute {}", name);
  return *t;
}

// Sets divided by NaN, in the order of the nodes that test for membership.
std::vector<std::vector<double>> member_sets(const Node& n) {
  const Tensor* t = n.attr_tensor("membership_values");
  std::vector<std::vector<double>> sets;
  if (t == nullptr) return sets;
  bool open = false;
  for (double v : t->to_doubles()) {
    if (!open) sets.emplace_back();
    open = !std::isnan(v);
    if (open) sets.back().push_back(v);
  }
  for (std::vector<double>& set : sets) std::sort(set.begin(), set.end());
  return sets;
}

FileTrees read_placed(const Node& n, int64_t targets, bool& f64, std::vector<std::vector<double>>& sets) {
  const std::vector<int64_t> features = n.attr_ints("nodes_featureids"), roots = n.attr_ints("tree_roots");
  const std::vector<int64_t> on_true = n.attr_ints("nodes_truenodeids"), on_false = n.attr_ints("nodes_falsenodeids");
  const std::vector<int64_t> true_leaf = n.attr_ints("nodes_trueleafs"), false_leaf = n.attr_ints("nodes_falseleafs");
  const std::vector<int64_t> missing = n.attr_ints("nodes_missing_value_tracks_true"), leaf_targets = n.attr_ints("leaf_targetids");
  const Tensor& split_tensor = required_tensor(n, "nodes_splits");
  const std::vector<double> splits = split_tensor.to_doubles(), weights = required_tensor(n, "leaf_weights").to_doubles();
  const std::vector<int64_t> modes = required_tensor(n, "nodes_modes").to_ints();
  const Tensor* members = n.attr_tensor("membership_values");
  f64 = split_tensor.dtype() == DType::kF64 || (members != nullptr && members->dtype() == DType::kF64);
  const size_t count = features.size(), leaves = weights.size();
  if (count == 0) bad_data("has no nodes");
  if (count > kMostNodes || leaves > kMostNodes) fail(ExitCode::kUnsupported, "{} nodes are more than this library takes", std::max(count, leaves));
  require_length(on_true.size(), count, "nodes_truenodeids", "nodes_featureids");
  require_length(on_false.size(), count, "nodes_falsenodeids", "nodes_featureids");
  require_length(true_leaf.size(), count, "nodes_trueleafs", "nodes_featureids");
  require_length(false_leaf.size(), count, "nodes_falseleafs", "nodes_featureids");
  require_length(modes.size(), count, "nodes_modes", "nodes_featureids");
  require_length(splits.size(), count, "nodes_splits", "nodes_featureids");
  if (!missing.empty()) require_length(missing.size(), count, "nodes_missing_value_tracks_true", "nodes_featureids");
  require_length(leaf_targets.size(), leaves, "leaf_targetids", "leaf_weights");
  if (!is_binary(true_leaf) || !is_binary(false_leaf)) bad_data("nodes_trueleafs and nodes_falseleafs hold more than 0 and 1");

  FileTrees out;
  const auto child = [&](size_t i, int64_t at, bool leaf) {
    const size_t most = leaf ? leaves : count;
    if (at < 0 || static_cast<size_t>(at) >= most) bad_data("node {} leads to {} {}, there are {}", i, leaf ? "leaf" : "node", at, most);
    return leaf ? ~static_cast<int32_t>(at) : static_cast<int32_t>(at);
  };
  size_t sets_used = 0;
  for (size_t i = 0; i < count; ++i) {
    if (modes[i] < 0 || modes[i] > static_cast<int64_t>(Split::kMember)) bad_data("nodes_modes holds {}", modes[i]);
    const auto mode = static_cast<Split>(modes[i]);
    const double split = mode == Split::kMember ? static_cast<double>(sets_used++) : splits[i];
    out.nodes.push_back({split, feature_of(features[i]), child(i, on_true[i], true_leaf[i] == 1), child(i, on_false[i], false_leaf[i] == 1), mode,
                         !missing.empty() && missing[i] != 0});
  }
  sets = member_sets(n);
  if (sets.size() != sets_used) bad_data("membership_values holds {} sets, {} nodes need one each", sets.size(), sets_used);
  if (sets.size() > kMostSets) fail(ExitCode::kUnsupported, "{} sets of members are more than this library takes", sets.size());
  if (roots.empty()) bad_data("tree_roots is empty");
  for (int64_t root : roots) {
    if (root < 0 || static_cast<size_t>(root) >= count) bad_data("tree_roots holds {}, there are {} nodes", root, count);
    out.roots.push_back(static_cast<int32_t>(root));
  }
  for (size_t i = 0; i < leaves; ++i) {
    check_target(leaf_targets[i], targets, "leaf_targetids");
    out.leaves.push_back({{weights[i], leaf_targets[i]}});
  }
  return out;
}

// --- both -----------------------------------------------------------------------------------------

// Nodes in the order of a walk, true branches first; those that no root reaches are left out. Throws on a circle.
void put_in_order(const FileTrees& file, kernels::TreeEnsemble<double>& e) {
  enum : uint8_t { kUnseen, kOpen, kDone };
  std::vector<uint8_t> state(file.nodes.size(), kUnseen);
  std::vector<int32_t> place(file.nodes.size(), 0), order, stack;
  for (const int32_t root : file.roots) {
    if (root >= 0) stack.push_back(root);
    while (!stack.empty()) {
      const auto at = static_cast<size_t>(stack.back());
      if (state[at] != kUnseen) {  // its branches are done, or it was met on another path meanwhile
        state[at] = kDone;
        stack.pop_back();
        continue;
      }
      state[at] = kOpen;
      place[at] = static_cast<int32_t>(order.size());
      order.push_back(static_cast<int32_t>(at));
      for (const int32_t next : {file.nodes[at].on_false, file.nodes[at].on_true}) {
        if (next < 0) continue;
        if (state[static_cast<size_t>(next)] == kOpen) bad_data("the trees' nodes form a circle");
        if (state[static_cast<size_t>(next)] == kUnseen) stack.push_back(next);
      }
    }
  }
  const auto moved = [&](int32_t child) { return child < 0 ? child : place[static_cast<size_t>(child)]; };
  for (const int32_t at : order) {
    TreeNode<double> node = file.nodes[static_cast<size_t>(at)];
    node.on_true = moved(node.on_true);
    node.on_false = moved(node.on_false);
    e.nodes.push_back(node);
  }
  for (const int32_t root : file.roots) e.roots.push_back(moved(root));
}

Aggregate aggregate_of(const Node& n, TreeForm form) {
  if (form == TreeForm::kClassifier) return Aggregate::kSum;
  if (form == TreeForm::kEnsemble) {
    const int64_t number = n.attr_int("aggregate_function", 1);
    if (number < 0 || number > 3) bad_data("aggregate_function {} is not known", number);
    return static_cast<Aggregate>(number);
  }
  static const std::map<std::string, Aggregate> names = {
      {"AVERAGE", Aggregate::kAverage}, {"SUM", Aggregate::kSum}, {"MIN", Aggregate::kMin}, {"MAX", Aggregate::kMax}};
  const std::string name = n.attr_string("aggregate_function", "SUM");
  const auto it = names.find(name);
  if (it == names.end()) bad_data("aggregate_function '{}' is not known", name);
  return it->second;
}

}  // namespace

TreeModel read_trees(const Node& n, TreeForm form, int64_t targets) {
  TreeModel model;
  kernels::TreeEnsemble<double>& e = model.ensemble;
  const FileTrees file = form == TreeForm::kEnsemble ? read_placed(n, targets, model.f64_splits, e.members)
                                                     : read_named(n, form == TreeForm::kClassifier, targets, model.f64_splits);
  put_in_order(file, e);
  e.targets = targets;
  e.aggregate = aggregate_of(n, form);
  e.first_vote.push_back(0);
  for (const std::vector<Vote>& votes : file.leaves) {
    e.votes.insert(e.votes.end(), votes.begin(), votes.end());
    e.first_vote.push_back(static_cast<int64_t>(e.votes.size()));
  }
  bool f64_base = false;
  e.base = numbers(n, "base_values", f64_base);
  if (!e.base.empty()) require_length(e.base.size(), static_cast<size_t>(targets), "base_values", "the list of scores");
  e.all_leq = std::all_of(e.nodes.begin(), e.nodes.end(), [](const TreeNode<double>& node) { return node.mode == Split::kLeq; });
  for (const TreeNode<double>& node : e.nodes) model.features = std::max(model.features, int64_t{node.feature} + 1);
  return model;
}

kernels::TreeEnsemble<float> to_f32(const kernels::TreeEnsemble<double>& e) {
  kernels::TreeEnsemble<float> out;
  for (const TreeNode<double>& n : e.nodes)
    out.nodes.push_back({static_cast<float>(n.split), n.feature, n.on_true, n.on_false, n.mode, n.nan_is_true});
  for (const std::vector<double>& set : e.members) out.members.emplace_back(set.begin(), set.end());
  out.roots = e.roots;
  out.first_vote = e.first_vote;
  out.votes = e.votes;
  out.base = e.base;
  out.targets = e.targets;
  out.aggregate = e.aggregate;
  out.all_leq = e.all_leq;
  return out;
}

}  // namespace ds::ops
