// OpDef: everything the library knows about one operator, in one plain struct.
//
// Families live in libds/ops/<family>.cc and add their OpDefs to the registry by an explicit
// register_<family>_ops() call (libds/ops/register.cc); no static initialisers. ONNX operators are
// kept in one canonical form, that of the newest opset (axes as inputs, and so on): the importer
// converts older files, the exporter converts back (ir/onnx_versions.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libds/ir/graph.h"
#include "libds/ir/kernel_def.h"

namespace ds {

class Rewriter;

// Type and shape inference of one node. Dimensions may be symbolic.
class InferContext {
 public:
  InferContext(Graph& graph, Rewriter& rewriter, NodeId id) : graph_(graph), rewriter_(rewriter), id_(id) {}

  const Node& node() const { return graph_.node(id_); }
  Graph& graph() { return graph_; }
  size_t input_count() const { return node().inputs.size(); }
  bool has_input(size_t i) const { return node().input(i) != kNone; }
  const Value& input(size_t i) const;                // precondition: has_input(i)
  DType dtype(size_t i) const { return has_input(i) ? input(i).dtype : DType::kUndefined; }
  bool has_dims(size_t i) const { return has_input(i) && input(i).dims.has_value(); }
  const Dims& dims(size_t i) const { return *input(i).dims; }  // precondition: has_dims(i)
  const Tensor* constant(size_t i) const;            // content if known now, else null
  // Content of an integer input as dimensions (possibly symbolic), from a constant or from shape arithmetic.
  std::optional<Dims> ints(size_t i) const;
  // The same when every element is concrete.
  std::optional<std::vector<int64_t>> concrete_ints(size_t i) const;
  Dim fresh_dim() { return graph_.fresh_dim(); }

  // An output that is not wanted (kNone) is skipped. `dims` nullopt: rank unknown.
  void set_output(size_t i, DType dtype, std::optional<Dims> dims = std::nullopt);
  void set_output(size_t i, ValueType type);
  // Types a body anew: its inputs become `inputs` (the captured ones are added here), everything behind
  // them is inferred. Returns the types of its outputs, in this graph's symbols.
  std::vector<ValueType> infer_body(std::string_view attr, std::vector<ValueType> inputs);
  void set_output_ints(size_t i, Dims ints);

  // Bad model: `message` gains the node's label in front.
  template <typename... Args>
  [[noreturn]] void error(fmt::format_string<Args...> format, Args&&... args) const {
    throw Error(ExitCode::kBadData, fmt::format(format, std::forward<Args>(args)...));
  }
  // Throws unless the input is one of `allowed`.
  void require_dtype(size_t i, std::initializer_list<DType> allowed) const;
  void require_rank(size_t i, size_t rank) const;

 private:
  Graph& graph_;
  Rewriter& rewriter_;
  NodeId id_;
};

// Gradient of one node, written as ordinary nodes. Shapes are concrete when this runs (a training
// plan is specialised to its batch first), so gradients may read dims freely.
class GradContext {
 public:
  GradContext(Rewriter& rewriter, NodeId id, std::vector<ValueId> d_outputs, std::vector<bool> needs)
      : rewriter_(rewriter), id_(id), d_outputs_(std::move(d_outputs)), needs_(std::move(needs)),
        d_inputs_(needs_.size(), kNone) {}

  // Careful: a reference to the node is invalidated by emit(); copy what you need.
  const Node& node() const;
  Rewriter& rewriter() { return rewriter_; }
  ValueId input(size_t i) const { return node().input(i); }
  ValueId output(size_t i) const { return node().output(i); }
  Shape shape(ValueId id) const;  // concrete shape of a value
  DType dtype(ValueId id) const;
  // Gradient flowing in for output i; kNone when that output does not reach the loss.
  ValueId d_output(size_t i) const { return i < d_outputs_.size() ? d_outputs_[i] : kNone; }
  // Whether anybody wants the gradient of input i.
  bool needs(size_t i) const { return i < needs_.size() && needs_[i]; }
  void set_d_input(size_t i, ValueId d) { d_inputs_[i] = d; }
  const std::vector<ValueId>& d_inputs() const { return d_inputs_; }

  ValueId emit(std::string_view op, std::vector<ValueId> inputs, Attributes attrs = {});
  NodeId emit_node(std::string_view op, std::vector<ValueId> inputs, Attributes attrs, size_t outputs);
  ValueId scalar(double x, DType dtype);              // a rank-0 constant
  ValueId ints(const std::vector<int64_t>& values);   // a 1-D i64 constant
  // Sums `d` down to `shape` (inverse of broadcasting); `d` itself when the shapes agree.
  ValueId sum_to(ValueId d, const Shape& shape);

 private:
  Rewriter& rewriter_;
  NodeId id_;
  std::vector<ValueId> d_outputs_;
  std::vector<bool> needs_;
  std::vector<ValueId> d_inputs_;
};

// Work of one node at concrete shapes. One multiply-add is two FLOPs.
struct Cost {
  int64_t flops = 0;
  int64_t bytes = 0;  // read + written, each operand once
};

using InferFn = std::function<void(InferContext&)>;
using GradFn = std::function<void(GradContext&)>;
// Writes nodes that compute what the node does (the insertion point is set before it) and puts their
// results in place of its outputs with Rewriter::replace_uses; lower_nodes() (ir/lower.h) then erases
// the node. false: cannot or need not, leave it.
using LowerFn = std::function<bool(Rewriter&, NodeId)>;
using CostFn = std::function<Cost(const KernelQuery&)>;

struct OpDef {
  std::string domain;  // "" or "ai.ds"
  std::string name;
  int min_inputs = 0;
  int max_inputs = 0;   // -1: any number
  int min_outputs = 1;
  int max_outputs = 1;  // -1: any number
  InferFn infer;
  GradFn grad;    // empty: not differentiable
  LowerFn lower;  // empty: has kernels of its own, and a gradient if it has one
  CostFn cost;    // empty: elementwise (no FLOPs counted, bytes = operands)
  std::vector<KernelDef> kernels;  // best first; the last is portable and accepts everything infer accepts

  // The gradient of every input is zero or meaningless by definition (Shape, Greater, ArgMax):
  // autodiff stops here without complaint.
  bool stops_gradient = false;
  // The output is the first input's bytes under another shape: the planner aliases, nothing runs.
  bool is_view = false;
  // Output shapes depend on input *content* even when all shapes are known (NonZero): cannot be
  // planned; the kernel allocates its outputs through KernelContext::allocate.
  bool data_dependent = false;
  // Inputs whose content decides shapes (Reshape's second): bit i set means input i must be known
  // when a plan is compiled. They are folded into the plan.
  uint32_t shape_inputs = 0;
  // Every element of an output is an element of an input, wherever it went, or one that stands for
  // nothing (0, the empty string): types that cannot be computed with can still be moved.
  bool moves_elements = false;
  // Its kernels compute in f32 and f64 only; 16-bit floats are widened for them (ir/widened_kernel.h).
  bool widens_halves = false;
  // Draws random numbers or has side effects: never folded, never merged.
  bool stateful = false;
  // Operators with bodies: types of the inputs of body `attr`, without the captured ones.
  std::function<std::vector<ValueType>(const Graph&, const Node&, std::string_view attr)> body_inputs;
};

class OpRegistry {
 public:
  static OpRegistry& instance();  // filled by register_all_ops() on first use
  void add(OpDef def);
  const OpDef* find(std::string_view domain, std::string_view name) const;
  std::vector<const OpDef*> all() const;  // sorted by domain, name

 private:
  std::map<std::pair<std::string, std::string>, std::unique_ptr<OpDef>, std::less<>> ops_;
};

// Cost of a node: its OpDef's function, or the operands' bytes.
Cost node_cost(const OpDef& def, const KernelQuery& query);

}  // namespace ds
