// Random inputs for a model nobody gave data for.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

// Valid almost anywhere: floats in [0, 1), booleans, integers 0 or 1 (masks, lengths); integers that only
// look up rows of tables cover the smallest table. A function of (seed, name of the input), so that models that
// share an input get the same numbers. Throws kUnsupported for types without numbers.
Tensor random_input(const Graph& graph, ValueId input, const Shape& shape, uint64_t seed);

// One for each input of the graph, in its order.
std::vector<Tensor> random_inputs(const Graph& graph, std::span<const Shape> shapes, uint64_t seed);

}  // namespace ds
