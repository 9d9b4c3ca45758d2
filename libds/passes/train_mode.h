// Turns an inference graph into its training form.
#pragma once

#include <cstdint>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

class Rewriter;

// BatchNormalization becomes BatchNormTrain, which normalizes with the statistics of the batch and updates
// the running ones; Dropout becomes DropoutTrain, which draws its mask from (seed, node, `step`, element),
// `step` being an i64 scalar. Returns (running statistic -> its update) pairs, for the caller to bind as
// states. Throws kUnsupported for a Dropout whose ratio is computed or whose mask is used.
std::vector<State> to_training_mode(Rewriter& rewriter, ValueId step, uint64_t seed);

}  // namespace ds
