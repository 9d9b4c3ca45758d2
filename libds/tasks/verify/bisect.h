// Finding the first node that diverges from a reference.
//
// Both graphs are run with values inside them as additional outputs, a few at a time: as many as fit into the memory
// allowed, in topological order, each time only the part of the graph that leads to them. What an executor does is
// what it always does; nothing in it knows about this.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "libds/run/session.h"
#include "libds/tasks/verify/compare.h"
#include "libds/tasks/verify/value_pairs.h"

namespace ds {

// One of the two runs.
struct BisectSide {
  std::shared_ptr<const Graph> graph;
  SessionOptions session;      // the pipeline must be empty: the graph is run as it is
  std::vector<Tensor> inputs;  // in the order of graph->inputs()
};

// Outputs of the graph are held to the tolerance as it is. Inside, small elements of a large tensor are what is left
// when large ones cancel, so that the relative tolerance is of the element or of the tensor's root mean square,
// whichever is more; and integers of 8 bits and less may differ by one step, as a value next to a half is rounded either way.
struct BisectOptions {
  Tolerance tolerance;
  size_t memory = size_t{256} << 20;  // bytes of values kept at a time, both sides together
};

// What goes into the node that diverges.
struct BisectOperand {
  enum class Kind { kCompared, kConstant, kInput, kUnmatched };
  std::string name;
  Kind kind = Kind::kUnmatched;
  std::optional<OutputDifference> difference;  // of kCompared, and of a kConstant with a counterpart
};

struct Divergence {
  std::string node, value;           // label of the node; which of its results
  std::string kernel;                // that computed it; empty when it is not known
  std::string reference_node;        // label
  OutputDifference difference;
  std::vector<BisectOperand> operands;
  // The node run alone on what the reference has for its inputs: tells its own error from one that it was handed.
  // Absent where some input has no counterpart.
  std::optional<OutputDifference> alone;
};

struct Bisection {
  std::string reference;     // what was compared with, for people
  int64_t values = 0;        // results of nodes
  int64_t compared = 0;      // those with a counterpart, up to the divergence
  std::optional<Divergence> first;
};

Bisection bisect(const BisectSide& got, const BisectSide& expected, std::span<const ValuePair> pairs, const BisectOptions& options);

}  // namespace ds
