// The one intermediate representation: a graph of operators in static single assignment form.
//
// Nodes and values live in arenas and are named by small integer ids that stay valid for the life
// of the graph (a removed node keeps its id, marked dead). Nodes hang in a doubly linked list that
// is always topologically sorted. ONNX names are labels: unique, kept for export and for messages,
// never used to find anything inside the library.
//
// Who changes what: reading is free; every structural change goes through Rewriter (rewriter.h),
// which keeps uses and types right. A Graph is not thread-safe; share it read-only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "libds/mem/tensor.h"

namespace ds {

struct OpDef;
class Graph;

using NodeId = int32_t;
using ValueId = int32_t;
inline constexpr int32_t kNone = -1;  // no node, no value, omitted optional input

// One dimension: concrete (>= 0) or a symbol of the graph's symbol table. Equal symbols are equal
// sizes; different symbols may still turn out equal.
struct Dim {
  int64_t raw = 0;

  Dim() = default;
  Dim(int64_t size) : raw(size) {}  // NOLINT: a size is a dimension
  static Dim symbol(int32_t id) { return Dim(-1 - static_cast<int64_t>(id)); }
  bool known() const { return raw >= 0; }
  int32_t symbol_id() const { return static_cast<int32_t>(-1 - raw); }
  bool operator==(const Dim&) const = default;
};
using Dims = std::vector<Dim>;

// Whether all dimensions are concrete, and the shape they make (precondition: all known).
bool all_known(const Dims& dims);
Shape concrete(const Dims& dims);
Dims to_dims(const Shape& shape);

using Attribute = std::variant<int64_t, float, std::string, std::vector<int64_t>, std::vector<float>,
                               std::vector<std::string>, Tensor, std::shared_ptr<const Graph>>;
using Attributes = std::map<std::string, Attribute, std::less<>>;

// Type of a value. `element`: what a sequence or an optional holds; null when that is not known.
struct ValueType {
  DType dtype = DType::kUndefined;
  std::optional<Dims> dims = std::nullopt;  // nullopt: rank unknown
  std::shared_ptr<const ValueType> element = nullptr;
};

// A node with bodies (If, Loop, Scan: attributes that are graphs) names everything it reads: what its
// bodies take from the graph around them are the last `captured` of its inputs, and each body has, as
// the last of its own inputs, one for each of these, in the same order. Constants are not captured
// but shared: the body holds the same tensor. A body in an attribute is never changed, only replaced.
struct Node {
  std::string domain;  // "" is ai.onnx; "ai.ds" is ours, never exported
  std::string op;
  std::string name;
  const OpDef* def = nullptr;  // null for an operator the registry does not know
  std::vector<ValueId> inputs;   // kNone where an optional input is omitted
  std::vector<ValueId> outputs;  // kNone where an optional output is not wanted
  size_t captured = 0;           // how many of the inputs are there for the bodies only
  Attributes attrs;
  std::string doc;
  std::string opaque;  // serialized protobuf fields this library does not know; kept for export

  bool has_attr(std::string_view key) const { return attrs.find(key) != attrs.end(); }
  // Typed reads. A present attribute of another type is bad data; an absent one gives `otherwise`.
  int64_t attr_int(std::string_view key, int64_t otherwise) const;
  float attr_float(std::string_view key, float otherwise) const;
  std::string attr_string(std::string_view key, std::string_view otherwise) const;
  std::vector<int64_t> attr_ints(std::string_view key, std::vector<int64_t> otherwise = {}) const;
  std::vector<float> attr_floats(std::string_view key, std::vector<float> otherwise = {}) const;
  const Tensor* attr_tensor(std::string_view key) const;  // null when absent
  std::vector<std::string> attr_strings(std::string_view key) const;
  std::shared_ptr<const Graph> attr_graph(std::string_view key) const;  // null when absent

  ValueId input(size_t i) const { return i < inputs.size() ? inputs[i] : kNone; }
  ValueId output(size_t i) const { return i < outputs.size() ? outputs[i] : kNone; }
  // Inputs that the operator itself has: all but the captured ones.
  size_t own_inputs() const { return inputs.size() - captured; }
  bool has_bodies() const;
  bool is(std::string_view onnx_op) const { return op == onnx_op && domain.empty(); }
  bool is_internal(std::string_view internal_op) const;  // of domain "ai.ds"
  // "node 'b3/conv' (Conv)"
  std::string label() const;

  bool alive = true;
  NodeId prev = kNone, next = kNone;  // list links, kept by Rewriter
};

struct Value {
  std::string name;
  DType dtype = DType::kUndefined;
  std::optional<Dims> dims;         // nullopt: rank unknown
  std::shared_ptr<const ValueType> element;  // of a sequence or an optional, when known
  std::optional<Dims> ints;         // known content of a small integer tensor (shape arithmetic)
  NodeId producer = kNone;          // kNone: graph input or initializer
  int32_t producer_index = 0;
  std::vector<NodeId> users;        // one entry per use; a node using it twice appears twice
  std::shared_ptr<const Tensor> constant;  // initializer content
  std::string opaque;               // unknown fields of an initializer or value info
  bool is_constant() const { return constant != nullptr; }
  ValueType type() const { return {dtype, dims, element}; }
};

// A value that lives across runs: parameters being trained, optimizer moments, running statistics.
// `value` has an initializer, its content before the first run; after each run it becomes `update`.
struct State {
  ValueId value = kNone;
  ValueId update = kNone;
};

// A file beside the model's that holds content of its tensors.
struct ExternalFile {
  std::string location;  // as the model names it
  int64_t bytes = 0;     // of the whole file
  int64_t tensors = 0;   // of the model that lie in it
};

class Graph {
 public:
  static constexpr std::string_view kInternalDomain = "ai.ds";

  // --- nodes and values ---
  const Node& node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  const Value& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  size_t node_capacity() const { return nodes_.size(); }    // ids are below this
  size_t value_capacity() const { return values_.size(); }
  size_t node_count() const { return live_nodes_; }
  NodeId first() const { return head_; }
  NodeId last() const { return tail_; }
  // Live node ids in execution order (a snapshot: safe to rewrite while walking it).
  std::vector<NodeId> order() const;
  ValueId find_value(std::string_view name) const;  // kNone when there is none; linear
  bool is_input(ValueId id) const;
  bool is_output(ValueId id) const;
  // Constants, then nothing else: every value with an initializer that has a use or is an output.
  std::vector<ValueId> initializers() const;

  // --- interface ---
  const std::vector<ValueId>& inputs() const { return inputs_; }    // without initializers
  const std::vector<ValueId>& outputs() const { return outputs_; }
  const std::vector<State>& states() const { return states_; }

  // --- dimensions ---
  Dim symbol(std::string_view name);  // interned
  Dim fresh_dim();                    // a new anonymous symbol
  std::string dim_string(Dim dim) const;      // "224", "batch", "?"
  std::string dims_string(const Dims& dims) const;
  // "f32[batch,3,224,224]", "sequence(f32[?])"
  std::string type_string(ValueId id) const;
  std::string type_string(const ValueType& type) const;
  // A type of another graph in this one's symbols: named symbols keep their names.
  ValueType translate(const Graph& from, const ValueType& type);
  // Name of a symbol; empty for anonymous ones.
  const std::string& symbol_name(int32_t id) const { return symbols_[static_cast<size_t>(id)]; }

  // --- model-level data that travels from import to export ---
  std::string name = "graph";
  std::string doc;
  int64_t ir_version = 8;
  std::map<std::string, int64_t, std::less<>> opsets;  // domain -> version the file asked for
  std::string producer_name, producer_version, model_domain, model_doc;
  int64_t model_version = 0;
  std::map<std::string, std::string> metadata;
  std::vector<ExternalFile> external_files;  // of the file it was loaded from
  std::string opaque;  // unknown protobuf fields of the model

 private:
  friend class Rewriter;
  std::vector<Node> nodes_;
  std::vector<Value> values_;
  std::vector<ValueId> inputs_, outputs_;
  std::vector<State> states_;
  std::vector<std::string> symbols_;
  std::map<std::string, int32_t, std::less<>> symbol_ids_;  // of those with a name
  NodeId head_ = kNone, tail_ = kNone;
  size_t live_nodes_ = 0;
};

// The bodies of a node, by attribute name.
std::vector<std::pair<std::string, std::shared_ptr<const Graph>>> bodies_of(const Node& node);

// Text form for tests, --dump-after and humans: one line per node with types.
std::string print_graph(const Graph& graph);

// Throws an internal error naming the first broken invariant (order, uses, arity, names, types).
// Run after every pass in tests.
void verify_graph(const Graph& graph);

}  // namespace ds
