// What passes that look for patterns of nodes ask of a graph.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

class Pattern {
 public:
  explicit Pattern(const Graph& graph);

  // The node that makes a value, when it is this operator of ai.onnx; null otherwise.
  const Node* made_by(ValueId id, std::string_view op) const;
  const Node* producer(ValueId id) const;  // null for inputs and constants
  // Content that never changes: of a constant that is no state.
  const Tensor* constant(ValueId id) const;
  std::optional<double> scalar(ValueId id) const;  // the only element of a constant of floats
  std::optional<std::vector<int64_t>> ints(ValueId id) const;
  // Whether callers see the value: an output, or the next content of a state.
  bool visible(ValueId id) const;
  NodeId only_user(ValueId id) const;  // the only reader of a value that nothing outside sees; kNone otherwise
  // The other operand of a node of two; kNone when `operand` is neither or both.
  static ValueId partner(const Node& node, ValueId operand);
  // Dimensions, null where the rank is not known.
  const Dims* dims(ValueId id) const;
  bool is_f32(ValueId id) const;
  // Transpose of a value of known rank; an empty list when the node is none.
  std::vector<int64_t> permutation(const Node& node) const;

 private:
  const Graph& graph_;
  std::vector<char> is_state_;
};

}  // namespace ds
