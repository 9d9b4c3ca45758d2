// How channels travel through operators: the tracer that numbers positions, and a rule per operator.
// Internal to channel_groups.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

// Numbers positions of axes while walking a graph in order, joining numbers that are coupled
// (union-find). Axes of size 1 are never numbered: they broadcast.
class ChannelTracer {
 public:
  using Numbers = std::vector<int32_t>;

  // `shapes`: the same graph with concrete shapes.
  ChannelTracer(const Graph& graph, const Graph& shapes) : graph_(graph), shapes_(shapes), frozen_(graph.value_capacity()) {}

  const Graph& graph() const { return graph_; }
  // Concrete shape; nullopt when even `shapes` does not know it.
  std::optional<Shape> shape(ValueId id) const;
  int64_t size(ValueId id, size_t axis) const;  // precondition: shape is known
  // Size 1 whatever the model's inputs are.
  bool always_one(ValueId id, size_t axis) const;

  // Numbers along an axis; null when it is not followed. Axes of constants get theirs on first request.
  // Valid until the next call that makes numbers.
  const Numbers* numbers(ValueId id, size_t axis);
  void set(ValueId id, size_t axis, Numbers numbers);
  // Gives `to` the numbers of `from`, when there are any.
  void pass(ValueId from, size_t from_axis, ValueId to, size_t to_axis);
  void join(int32_t a, int32_t b);
  // Couples two axes position by position; one without numbers pins the other.
  void tie(ValueId a, size_t axis_a, ValueId b, size_t axis_b);
  // `count` numbers that must stay.
  Numbers fixed_numbers(size_t count, const std::string& reason);

  void pin(int32_t number, const std::string& reason);
  void pin(ValueId id, size_t axis, const std::string& reason);
  void pin_from(ValueId id, size_t first_axis, const std::string& reason);
  // Pins every axis, also those numbered later.
  void freeze(ValueId id, const std::string& reason);

  // --- results ---
  const std::map<std::pair<ValueId, size_t>, Numbers>& all() const { return numbers_; }
  int32_t root(int32_t number);
  const std::string& reason(int32_t root) const { return reasons_[static_cast<size_t>(root)]; }
  size_t count() const { return parents_.size(); }

 private:
  int32_t make(const std::string& reason);

  const Graph& graph_;
  const Graph& shapes_;
  std::map<std::pair<ValueId, size_t>, Numbers> numbers_;
  std::vector<int32_t> parents_;
  std::vector<std::string> reasons_;  // by root; empty: free
  std::vector<std::string> frozen_;   // by value: why
};

// Numbers the outputs of a node and couples its operands. Operators without a rule freeze their inputs.
void trace_node(ChannelTracer& tracer, const Node& node, NodeId id);

// Where an element of a 1-D integer operand is written down: node `user` reads it from the constant
// at its input `operand`, position `index`.
struct ShapeElement {
  NodeId user = kNone;
  size_t operand = 0;
  size_t index = 0;
  int64_t content = 0;
};
// Looks through Concat, Unsqueeze, Cast and the like; nullopt when it is computed.
std::optional<ShapeElement> locate_shape_element(const Graph& graph, NodeId user, size_t operand, size_t index);

// Start and end of a Slice along `axis` for a size, and whether it takes every element between them; nullopt
// when the operands are not constants. Axes that are not sliced give the whole range.
struct SliceRange {
  int64_t begin = 0, end = 0, step = 1;
};
std::optional<SliceRange> slice_range(const Graph& graph, const Node& node, size_t rank, size_t axis, int64_t size);

// Part sizes of a Split of `size` elements; nullopt when they are computed.
std::optional<std::vector<int64_t>> split_parts(const Graph& graph, const Node& node, int64_t size);

}  // namespace ds
