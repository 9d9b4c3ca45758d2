// Ensembles of decision trees, on raw pointers: for each row of features, the leaves that it ends in vote for
// targets (TreeEnsemble and its predecessors in domain ai.onnx.ml).
//
// Legend: x is [rows, features], out [rows, targets]. A child or a root is the index of a node (>= 0) or, for leaf
// n, ~n. Nodes lie in the order of a walk that takes the true branch first, so that a path mostly moves forward in
// memory. The caller has checked every index; a walk ends, as no node is reached from itself.
//
// Scores are summed in f64 in the order of the trees: the same bits for any number of threads.
// Threads: parallel_for over blocks of rows.
#pragma once

#include <cstdint>
#include <vector>

namespace ds::kernels {

// The numbers of TreeEnsemble's nodes_modes and aggregate_function.
enum class Split : uint8_t { kLeq, kLt, kGte, kGt, kEq, kNeq, kMember };
enum class Aggregate : uint8_t { kAverage, kSum, kMin, kMax };

// T: the type that features are compared in, f32 or f64.
template <typename T>
struct TreeNode {
  T split;  // kMember: which of TreeEnsemble::members
  int32_t feature;
  int32_t on_true, on_false;
  Split mode;
  bool nan_is_true;  // where a missing value (NaN) goes
};

struct Vote {
  double weight;
  int64_t target;
};

template <typename T>
struct TreeEnsemble {
  std::vector<TreeNode<T>> nodes;
  std::vector<std::vector<T>> members;  // sorted sets
  std::vector<int32_t> roots;
  std::vector<int64_t> first_vote;  // leaf n has votes [first_vote[n], first_vote[n + 1])
  std::vector<Vote> votes;
  std::vector<double> base;  // per target, added to the aggregate; or empty
  int64_t targets = 1;
  Aggregate aggregate = Aggregate::kSum;
  bool all_leq = false;  // every node compares by kLeq
};

// A target that no leaf votes for scores 0 before the base.
template <typename X, typename T, typename Out>
void tree_scores(const TreeEnsemble<T>& ensemble, int64_t rows, int64_t features, const X* x, Out* out);

}  // namespace ds::kernels
