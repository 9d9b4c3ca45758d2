// The only way to change a Graph.
//
// Keeps uses, order and types consistent: a node added is placed at the insertion point and its
// outputs are typed at once by the operator's inference; a replaced value takes its uses along.
// One Rewriter at a time per graph.
#pragma once

#include <initializer_list>
#include <span>

#include "libds/ir/graph.h"

namespace ds {

class Rewriter {
 public:
  explicit Rewriter(Graph& graph) : graph_(graph) {}
  Graph& graph() { return graph_; }

  // --- where new nodes go (default: at the end) ---
  void insert_before(NodeId id) { before_ = id; }
  void insert_after(NodeId id);
  void insert_at_end() { before_ = kNone; }

  // --- values ---
  ValueId add_input(std::string_view name, DType dtype, Dims dims);
  // An initializer. The name is made unique if it is taken.
  ValueId add_constant(std::string_view name, Tensor tensor);
  ValueId add_constant(std::string_view name, std::shared_ptr<const Tensor> tensor);
  // A value without producer, for the importer, which makes values before nodes.
  ValueId add_value(std::string_view name);
  void set_constant(ValueId id, std::shared_ptr<const Tensor> tensor);  // dtype and dims follow
  void clear_constant(ValueId id);
  // Drops a constant that nothing reads any more, so that its name may be given anew; others stay.
  void forget_unused_constant(ValueId id);
  void set_type(ValueId id, DType dtype, std::optional<Dims> dims);  // a container keeps its element type
  void set_type(ValueId id, ValueType type);
  void set_known_ints(ValueId id, std::optional<Dims> ints);
  void rename_value(ValueId id, std::string_view name);  // made unique if taken
  void set_opaque(ValueId id, std::string opaque);

  // --- nodes ---
  // Adds a node whose outputs are new values named after `name`; infers their types.
  // Ops of domain "" are looked up first, then of "ai.ds". Throws Error when inference fails.
  NodeId add_node(std::string_view op, std::vector<ValueId> inputs, Attributes attrs = {},
                  std::string_view name = {}, size_t outputs = 1);
  // The same, returning the only output.
  ValueId emit(std::string_view op, std::vector<ValueId> inputs, Attributes attrs = {}, std::string_view name = {});
  // Adds a complete node as it is (importer): inputs and outputs must be valid ids; no inference.
  NodeId add_raw_node(Node node);
  void set_input(NodeId node, size_t index, ValueId value);  // grows the input list as needed
  // Makes the node's last inputs, those its bodies capture, `values`; the bodies are the caller's.
  void set_captured(NodeId node, std::vector<ValueId> values);
  void set_attr(NodeId node, std::string_view key, Attribute value);
  void erase_attr(NodeId node, std::string_view key);
  void set_name(NodeId node, std::string_view name);
  void set_op(NodeId node, std::string_view op);  // another operator of domain ""; the caller re-infers
  // Forgets the outputs from `count` on; none of them may be used.
  void truncate_outputs(NodeId node, size_t count);
  // Removes a node none of whose outputs is used; its values become dead.
  void erase_node(NodeId id);
  // Every use of `from` (nodes, graph outputs, state updates) becomes a use of `to`. Its name goes along where
  // `to` is made by a node: a name stands for one content through all rewrites, and the interface keeps its names.
  void replace_uses(ValueId from, ValueId to);
  void move_before(NodeId node, NodeId before);  // before == kNone: to the end

  // --- interface ---
  void set_inputs(std::vector<ValueId> inputs);
  void set_outputs(std::vector<ValueId> outputs);
  void add_output(ValueId id);
  void add_state(State state);
  void clear_states();

  // Erases nodes whose outputs nobody uses; returns how many.
  size_t remove_dead_nodes();
  // Sorts the list topologically, keeping file order where possible; throws on a cycle, naming a node on it.
  void sort();
  // Re-runs inference on one node, or on all in order (after input types changed).
  void infer(NodeId id);
  void infer_all();
  // A name based on `base` that no value has yet.
  std::string unique_name(std::string_view base);

 private:
  Node& node(NodeId id) { return graph_.nodes_[static_cast<size_t>(id)]; }
  Value& value(ValueId id) { return graph_.values_[static_cast<size_t>(id)]; }
  ValueId new_value(std::string name);
  void link(NodeId id, NodeId before);
  void unlink(NodeId id);
  void add_user(ValueId id, NodeId user);
  void drop_user(ValueId id, NodeId user);
  void index_names();

  Graph& graph_;
  NodeId before_ = kNone;
  std::map<std::string, ValueId, std::less<>> names_;  // built on first need
  bool names_indexed_ = false;
};

}  // namespace ds
