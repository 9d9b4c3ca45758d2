// The attributes of tree operators, in both of ONNX's forms, as one kernels::TreeEnsemble.
#pragma once

#include "kernels/tree_ensemble.h"
#include "libds/ir/graph.h"

namespace ds::ops {

// Which attributes there are: TreeEnsembleRegressor's, TreeEnsembleClassifier's, or TreeEnsemble's (set 5).
enum class TreeForm : int64_t { kRegressor, kClassifier, kEnsemble };

struct TreeModel {
  kernels::TreeEnsemble<double> ensemble;
  bool f64_splits = false;  // splits (or members) were given in f64, so that f32 could not hold them
  int64_t features = 0;     // least number that the nodes read
};

// Throws bad data when arrays differ in length, an index leads nowhere, or a node is reached from itself. `targets`:
// how many scores there are. Takes time and memory in proportion to the attributes.
TreeModel read_trees(const Node& n, TreeForm form, int64_t targets);

// The same nodes with splits in f32.
kernels::TreeEnsemble<float> to_f32(const kernels::TreeEnsemble<double>& e);

}  // namespace ds::ops
