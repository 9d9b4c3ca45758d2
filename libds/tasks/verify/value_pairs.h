// Which values of two graphs should hold the same.
#pragma once

#include <vector>

#include "libds/ir/graph.h"

namespace ds {

struct ValuePair {
  ValueId got = kNone, expected = kNone;  // both made by nodes
};

// For the results of two files, in the topological order of `got`. Values of the same name are the same value (names
// that are mere numbers only when the same operator makes them); what is left is matched by structure: the same
// operators on the same inputs, whatever the weights, the k-th occurrence with the k-th where each graph has as many.
// Quantization, casts and other operators that keep the meaning of a value are looked through.
std::vector<ValuePair> pair_models(const Graph& got, const Graph& expected);

// For a graph and what rewrites made of it (`got`): a name stands for the same content in both.
std::vector<ValuePair> pair_rewritten(const Graph& got, const Graph& expected);

}  // namespace ds
