#include "kernels/tree_ensemble.h"

#include <algorithm>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// Rows that walk one tree before the next is taken: the tree stays in L2. Fewer where their scores would not.
constexpr int64_t kMostRows = 64, kMostScores = 16384;

template <typename T>
bool takes_true(const TreeEnsemble<T>& e, const TreeNode<T>& node, T v) {
  if (v != v) return node.nan_is_true;
  switch (node.mode) {
    case Split::kLeq: return v <= node.split;
    case Split::kLt: return v < node.split;
    case Split::kGte: return v >= node.split;
    case Split::kGt: return v > node.split;
    case Split::kEq: return v == node.split;
    case Split::kNeq: return v != node.split;
    case Split::kMember: {
      const std::vector<T>& set = e.members[static_cast<size_t>(node.split)];
      return std::binary_search(set.begin(), set.end(), v);
    }
  }
  return false;
}

// The leaf that a row ends in.
template <bool kAllLeq, typename X, typename T>
size_t leaf_of(const TreeEnsemble<T>& e, int32_t at, const X* row) {
  while (at >= 0) {
    const TreeNode<T>& node = e.nodes[static_cast<size_t>(at)];
    const T v = static_cast<T>(row[node.feature]);
    const bool yes = kAllLeq ? v <= node.split || (node.nan_is_true && v != v) : takes_true(e, node, v);
    at = yes ? node.on_true : node.on_false;
  }
  return static_cast<size_t>(~at);
}

// scores is [rows, targets], as is voted, which tells targets that have no vote yet.
template <typename T>
void vote(const TreeEnsemble<T>& e, size_t leaf, double* scores, uint8_t* voted) {
  for (int64_t i = e.first_vote[leaf]; i < e.first_vote[leaf + 1]; ++i) {
    const Vote& v = e.votes[static_cast<size_t>(i)];
    double& score = scores[v.target];
    if (e.aggregate == Aggregate::kMin) score = voted[v.target] ? std::min(score, v.weight) : v.weight;
    else if (e.aggregate == Aggregate::kMax) score = voted[v.target] ? std::max(score, v.weight) : v.weight;
    else score += v.weight;
    voted[v.target] = 1;
  }
}

}  // namespace

template <typename X, typename T, typename Out>
void tree_scores(const TreeEnsemble<T>& e, int64_t rows, int64_t features, const X* x, Out* out) {
  constexpr int64_t kWorthAThread = 4096;  // trees walked
  const auto trees = std::max<int64_t>(1, static_cast<int64_t>(e.roots.size()));
  const int64_t block = std::clamp<int64_t>(kMostScores / e.targets, 1, kMostRows);
  parallel_for(rows, std::max<int64_t>(1, kWorthAThread / trees), [&](int64_t begin, int64_t end) {
    std::vector<double> scores(static_cast<size_t>(block * e.targets));
    std::vector<uint8_t> voted(scores.size());
    for (int64_t first = begin; first < end; first += block) {
      const int64_t n = std::min(block, end - first);
      std::fill(scores.begin(), scores.end(), 0.0);
      std::fill(voted.begin(), voted.end(), uint8_t{0});
      for (const int32_t root : e.roots) {
        for (int64_t r = 0; r < n; ++r) {
          const X* row = x + (first + r) * features;
          const size_t leaf = e.all_leq ? leaf_of<true>(e, root, row) : leaf_of<false>(e, root, row);
          vote(e, leaf, scores.data() + r * e.targets, voted.data() + r * e.targets);
        }
      }
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t t = 0; t < e.targets; ++t) {
          double score = scores[static_cast<size_t>(r * e.targets + t)];
          if (e.aggregate == Aggregate::kAverage) score /= static_cast<double>(trees);
          if (!e.base.empty()) score += e.base[static_cast<size_t>(t)];
          out[(first + r) * e.targets + t] = static_cast<Out>(score);
        }
      }
    }
  });
}

template void tree_scores(const TreeEnsemble<float>&, int64_t, int64_t, const float*, float*);
template void tree_scores(const TreeEnsemble<double>&, int64_t, int64_t, const float*, float*);
template void tree_scores(const TreeEnsemble<double>&, int64_t, int64_t, const double*, float*);
template void tree_scores(const TreeEnsemble<double>&, int64_t, int64_t, const double*, double*);

}  // namespace ds::kernels
