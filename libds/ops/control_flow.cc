// Operators with bodies: If, Loop, Scan. The body's runner does the work (ir/kernel_def.h); here is
// what goes in, what comes out, and how results of the rounds are put together.
#include <algorithm>
#include <limits>

#include "libds/ops/common.h"
#include "libds/ops/register.h"
#include "libds/ops/sequence.h"

namespace ds {
namespace {

// What the bodies read from around the node, for a run of one of them.
void append_captured(const KernelContext& c, size_t own_inputs, std::vector<Tensor>& inputs) {
  for (size_t i = own_inputs; i < c.input_count(); ++i) inputs.push_back(c.input(i));
}

void set_outputs(const KernelContext& c, std::vector<Tensor> results) {
  for (size_t i = 0; i < c.output_count(); ++i)
    if (c.has_output(i)) c.output(i) = std::move(results[i]);
}

// A type that fits both; what they do not share is left open.
ValueType common_type(Graph& graph, const ValueType& a, const ValueType& b) {
  ValueType type = a.dtype == DType::kUndefined ? b : a;
  if (a.dtype == DType::kUndefined || b.dtype == DType::kUndefined) return type;
  if (!a.dims || !b.dims || a.dims->size() != b.dims->size()) type.dims.reset();
  else
    for (size_t i = 0; i < type.dims->size(); ++i)
      if (!((*a.dims)[i] == (*b.dims)[i])) (*type.dims)[i] = graph.fresh_dim();
  if (type.element == nullptr) type.element = b.element;
  else if (b.element != nullptr) type.element = std::make_shared<const ValueType>(common_type(graph, *a.element, *b.element));
  return type;
}

// The elements of one output of all rounds as one tensor: [rounds, ...] along `axis`.
Tensor stack(const std::vector<Tensor>& parts, int64_t axis, bool backwards) {
  const Tensor& first = parts.front();
  for (const Tensor& t : parts)
    if (t.dtype() != first.dtype() || t.shape() != first.shape())
      bad_data("its body gives {} in one round and {} in another, where rounds are put together", shape_string(first.shape()), shape_string(t.shape()));
  axis = ops::normalize_axis(axis, first.rank() + 1);
  Shape shape = first.shape();
  shape.insert(shape.begin() + axis, static_cast<int64_t>(parts.size()));
  Tensor out = Tensor::empty(first.dtype(), shape, Tier::kActivations);
  shape[static_cast<size_t>(axis)] = 1;
  const auto rounds = static_cast<int64_t>(parts.size());
  for (int64_t r = 0; r < rounds; ++r) {
    const Tensor part = parts[static_cast<size_t>(backwards ? rounds - 1 - r : r)].reshaped(shape);
    ops::copy_along_axis(part, 0, out, r, 1, axis);
  }
  return out;
}

// The slice at `at` along `axis`, without that axis.
Tensor slice(const Tensor& t, int64_t axis, int64_t at) {
  Shape shape = t.shape();
  shape[static_cast<size_t>(axis)] = 1;
  Tensor out = Tensor::empty(t.dtype(), shape, Tier::kActivations);
  ops::copy_along_axis(t, at, out, 0, 1, axis);
  shape.erase(shape.begin() + axis);
  return out.reshaped(std::move(shape));
}

bool truth(const Tensor& t) {
  if (t.dtype() != DType::kBool || t.numel() != 1) bad_data("a condition is one bool, got {} of {}", shape_string(t.shape()), dtype_name(t.dtype()));
  return t.data<bool>()[0];
}

OpDef control_flow(std::string_view name, int min_inputs, int max_inputs) {
  OpDef def;
  def.name = name;
  def.min_inputs = min_inputs;
  def.max_inputs = max_inputs;
  def.min_outputs = 0;
  def.max_outputs = -1;
  def.data_dependent = true;
  return def;
}

KernelDef body_kernel(std::string name, std::function<std::unique_ptr<Kernel>(const KernelQuery&)> create) {
  KernelDef k;
  k.name = std::move(name);
  k.create = std::move(create);
  k.takes_objects = k.takes_packed = true;
  return k;
}

// --- If -----------------------------------------------------------------------------------------

void register_if(OpRegistry& registry) {
  OpDef def = control_flow("If", 1, 1);
  def.body_inputs = [](const Graph&, const Node&, std::string_view) { return std::vector<ValueType>(); };
  def.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kBool});
    const std::vector<ValueType> yes = c.infer_body("then_branch", {}), no = c.infer_body("else_branch", {});
    const size_t outputs = c.node().outputs.size();
    if (yes.size() < outputs || no.size() < outputs) c.error("has {} outputs, its branches give {} and {}", outputs, yes.size(), no.size());
    for (size_t i = 0; i < outputs; ++i) {
      if (yes[i].dtype != no[i].dtype && yes[i].dtype != DType::kUndefined && no[i].dtype != DType::kUndefined)
        c.error("output {} is {} in one branch and {} in the other", i, dtype_name(yes[i].dtype), dtype_name(no[i].dtype));
      c.set_output(i, common_type(c.graph(), yes[i], no[i]));
    }
  };
  def.kernels = {body_kernel("portable/if", [](const KernelQuery& q) {
    const auto yes = q.body_runner(q.node, "then_branch"), no = q.body_runner(q.node, "else_branch");
    return make_kernel([yes, no](const KernelContext& c) {
      std::vector<Tensor> inputs;
      append_captured(c, 1, inputs);
      set_outputs(c, (truth(c.input(0)) ? yes : no)->run(inputs));
    });
  })};
  registry.add(std::move(def));
}

// --- Loop ---------------------------------------------------------------------------------------
// Inputs: trip count M, condition, carried values v. Body: (round, condition, v) to (condition, v,
// values to put together over the rounds).

size_t carried_values(const Node& n) { return n.own_inputs() > 2 ? n.own_inputs() - 2 : 0; }

std::vector<ValueType> loop_body_inputs(const Graph& graph, const Node& n, std::string_view) {
  std::vector<ValueType> types = {{DType::kI64, Dims{}}, {DType::kBool, Dims{}}};
  for (size_t i = 0; i < carried_values(n); ++i) {
    if (n.input(2 + i) == kNone) bad_data("carried value {} is left out", i);
    ValueType type = graph.value(n.inputs[2 + i]).type();
    type.dims.reset();  // sizes may change from round to round
    types.push_back(std::move(type));
  }
  return types;
}

void infer_loop(InferContext& c) {
  if (c.has_input(0)) c.require_dtype(0, {DType::kI64});
  if (c.has_input(1)) c.require_dtype(1, {DType::kBool});
  const size_t carried = carried_values(c.node()), outputs = c.node().outputs.size();
  const std::vector<ValueType> results = c.infer_body("body", loop_body_inputs(c.graph(), c.node(), "body"));
  if (results.size() < 1 + carried || results.size() - 1 < outputs)
    c.error("has {} carried values and {} outputs, its body gives {}", carried, outputs, results.size());
  for (size_t i = 0; i < outputs; ++i) {
    ValueType type = results[1 + i];
    if (i < carried) {
      type.dims.reset();  // no round at all gives the first content
      if (type.dtype == DType::kUndefined) type.dtype = c.dtype(2 + i);
    } else if (type.dims) {
      type.dims->insert(type.dims->begin(), c.fresh_dim());
    }
    c.set_output(i, std::move(type));
  }
}

class LoopKernel final : public Kernel {
 public:
  explicit LoopKernel(const KernelQuery& q)
      : body_(q.body_runner(q.node, "body")), own_inputs_(q.node.own_inputs()), carried_(carried_values(q.node)) {
    const std::shared_ptr<const Graph> body = q.node.attr_graph("body");
    for (size_t i = 0; i < carried_; ++i) {
      in_optional_.push_back(body->value(body->inputs()[2 + i]).dtype == DType::kOptional);
      out_dtypes_.push_back(body->value(body->outputs()[1 + i]).dtype);
    }
    for (size_t i = 1 + carried_; i < body->outputs().size(); ++i) {
      const Value& v = body->value(body->outputs()[i]);
      Shape element;  // what is not known is taken for 0
      if (v.dims)
        for (Dim d : *v.dims) element.push_back(d.known() ? d.raw : 0);
      elements_.push_back(std::move(element));
      element_dtypes_.push_back(v.dtype);
    }
  }

  void run(const KernelContext& c) override {
    const bool bounded = own_inputs_ > 0 && c.has_input(0);
    if (bounded && c.input(0).numel() != 1) bad_data("the trip count is one number");
    const int64_t rounds = bounded ? c.input(0).data<int64_t>()[0] : std::numeric_limits<int64_t>::max();
    bool go = own_inputs_ < 2 || !c.has_input(1) || truth(c.input(1));
    std::vector<Tensor> carried;
    for (size_t i = 0; i < carried_; ++i) carried.push_back(c.input(2 + i));
    std::vector<std::vector<Tensor>> scanned(elements_.size());
    for (int64_t round = 0; round < rounds && go; ++round) {
      std::vector<Tensor> inputs = {Tensor::scalar<int64_t>(round), Tensor::scalar<bool>(go)};
      for (size_t i = 0; i < carried_; ++i) inputs.push_back(in_optional_[i] ? as_optional(carried[i]) : carried[i]);
      append_captured(c, own_inputs_, inputs);
      std::vector<Tensor> results = body_->run(inputs);
      go = truth(results[0]);
      std::move(results.begin() + 1, results.begin() + 1 + static_cast<std::ptrdiff_t>(carried_), carried.begin());
      for (size_t i = 0; i < scanned.size(); ++i) scanned[i].push_back(std::move(results[1 + carried_ + i]));
    }
    for (size_t i = 0; i < carried_; ++i) carried[i] = as_result(carried[i], i);
    std::vector<Tensor> outputs = std::move(carried);
    for (size_t i = 0; i < scanned.size(); ++i) {
      if (!scanned[i].empty()) {
        outputs.push_back(stack(scanned[i], 0, false));
        continue;
      }
      Shape shape = elements_[i];
      shape.insert(shape.begin(), 0);
      outputs.push_back(Tensor::empty(element_dtypes_[i], std::move(shape)));
    }
    set_outputs(c, std::move(outputs));
  }

 private:
  // A body may take an optional and give what it holds; the next round gets an optional again.
  static Tensor as_optional(const Tensor& t) { return t.dtype() == DType::kOptional ? t : Tensor::optional_of(t); }

  // The same where no round was run: the first content is what would have been given, if it is there.
  Tensor as_result(const Tensor& t, size_t i) const {
    if (t.dtype() != DType::kOptional || out_dtypes_[i] == DType::kOptional || out_dtypes_[i] == DType::kUndefined) return t;
    if (t.items().empty()) bad_data("no round was run, and carried value {} is an empty optional where the body gives {}", i, dtype_name(out_dtypes_[i]));
    return t.items()[0];
  }

  const std::shared_ptr<BodyRunner> body_;
  const size_t own_inputs_, carried_;
  std::vector<char> in_optional_;   // per carried value: whether the body takes an optional
  std::vector<DType> out_dtypes_;   // per carried value: what the body gives
  std::vector<Shape> elements_;  // of what is put together, for loops of no rounds
  std::vector<DType> element_dtypes_;
};

void register_loop(OpRegistry& registry) {
  OpDef def = control_flow("Loop", 0, -1);
  def.body_inputs = loop_body_inputs;
  def.infer = infer_loop;
  def.kernels = {body_kernel("portable/loop", [](const KernelQuery& q) { return std::make_unique<LoopKernel>(q); })};
  registry.add(std::move(def));
}

// --- Scan ---------------------------------------------------------------------------------------
// Inputs: N states, then M tensors to go through. Body: (states, slices) to (states, K slices).

struct ScanShape {
  size_t states = 0, scanned = 0;
  std::vector<int64_t> axes, directions;                // per scanned input
  std::vector<int64_t> output_axes, output_directions;  // per scanned output
};

ScanShape scan_shape(const Node& n, size_t body_outputs) {
  ScanShape s;
  const int64_t scanned = n.attr_int("num_scan_inputs", 0);
  if (scanned < 1 || scanned > static_cast<int64_t>(n.own_inputs()))
    bad_data("num_scan_inputs is {}, there are {} inputs", scanned, n.own_inputs());
  s.scanned = static_cast<size_t>(scanned);
  s.states = n.own_inputs() - s.scanned;
  if (body_outputs < s.states) bad_data("its body has {} outputs for {} states", body_outputs, s.states);
  const auto list = [&](const char* attr, size_t count) {
    std::vector<int64_t> values = n.attr_ints(attr, std::vector<int64_t>(count, 0));
    if (values.size() != count) bad_data("{} has {} entries, expected {}", attr, values.size(), count);
    return values;
  };
  s.axes = list("scan_input_axes", s.scanned);
  s.directions = list("scan_input_directions", s.scanned);
  s.output_axes = list("scan_output_axes", body_outputs - s.states);
  s.output_directions = list("scan_output_directions", body_outputs - s.states);
  return s;
}

std::vector<ValueType> scan_body_inputs(const Graph& graph, const Node& n, std::string_view attr) {
  const std::shared_ptr<const Graph> body = n.attr_graph(attr);
  const ScanShape s = scan_shape(n, body->outputs().size());
  std::vector<ValueType> types;
  for (size_t i = 0; i < n.own_inputs(); ++i) {
    if (n.inputs[i] == kNone) bad_data("input {} is left out", i);
    ValueType type = graph.value(n.inputs[i]).type();
    if (i >= s.states && type.dims) {
      const int64_t axis = ops::normalize_axis(s.axes[i - s.states], static_cast<int64_t>(type.dims->size()));
      type.dims->erase(type.dims->begin() + axis);
    }
    types.push_back(std::move(type));
  }
  return types;
}

void infer_scan(InferContext& c) {
  if (c.node().attr_graph("body") == nullptr) c.error("attribute 'body' is missing");
  const std::vector<ValueType> results = c.infer_body("body", scan_body_inputs(c.graph(), c.node(), "body"));
  const ScanShape s = scan_shape(c.node(), results.size());
  if (c.node().outputs.size() > results.size()) c.error("has {} outputs, its body gives {}", c.node().outputs.size(), results.size());
  std::optional<Dim> rounds;
  for (size_t i = 0; i < s.scanned; ++i)
    if (c.has_dims(s.states + i)) {
      const Dims& d = c.dims(s.states + i);
      rounds = d[static_cast<size_t>(ops::normalize_axis(s.axes[i], static_cast<int64_t>(d.size())))];
    }
  for (size_t i = 0; i < c.node().outputs.size(); ++i) {
    ValueType type = results[i];
    if (i >= s.states && type.dims) {
      const int64_t axis = ops::normalize_axis(s.output_axes[i - s.states], static_cast<int64_t>(type.dims->size()) + 1);
      type.dims->insert(type.dims->begin() + axis, rounds ? *rounds : c.fresh_dim());
    }
    c.set_output(i, std::move(type));
  }
}

class ScanKernel final : public Kernel {
 public:
  explicit ScanKernel(const KernelQuery& q)
      : body_(q.body_runner(q.node, "body")), own_inputs_(q.node.own_inputs()),
        graph_(q.node.attr_graph("body")), shape_(scan_shape(q.node, graph_->outputs().size())) {}

  void run(const KernelContext& c) override {
    std::vector<Tensor> states;
    for (size_t i = 0; i < shape_.states; ++i) states.push_back(c.input(i));
    int64_t rounds = -1;
    std::vector<int64_t> axes;
    for (size_t i = 0; i < shape_.scanned; ++i) {
      const Tensor& t = c.input(shape_.states + i);
      axes.push_back(ops::normalize_axis(shape_.axes[i], t.rank()));
      if (rounds >= 0 && rounds != t.dim(axes[i])) bad_data("goes through inputs of {} and {} slices", rounds, t.dim(axes[i]));
      rounds = t.dim(axes[i]);
    }
    std::vector<std::vector<Tensor>> scanned(graph_->outputs().size() - shape_.states);
    for (int64_t round = 0; round < rounds; ++round) {
      std::vector<Tensor> inputs = states;
      for (size_t i = 0; i < shape_.scanned; ++i)
        inputs.push_back(slice(c.input(shape_.states + i), axes[i], shape_.directions[i] ? rounds - 1 - round : round));
      append_captured(c, own_inputs_, inputs);
      std::vector<Tensor> results = body_->run(inputs);
      std::move(results.begin(), results.begin() + static_cast<std::ptrdiff_t>(shape_.states), states.begin());
      for (size_t i = 0; i < scanned.size(); ++i) scanned[i].push_back(std::move(results[shape_.states + i]));
    }
    std::vector<Tensor> outputs = std::move(states);
    for (size_t i = 0; i < scanned.size(); ++i)
      outputs.push_back(scanned[i].empty() ? empty_output(i) : stack(scanned[i], shape_.output_axes[i], shape_.output_directions[i] != 0));
    set_outputs(c, std::move(outputs));
  }

 private:
  Tensor empty_output(size_t i) const {
    const Value& v = graph_->value(graph_->outputs()[shape_.states + i]);
    Shape shape;
    if (v.dims)
      for (Dim d : *v.dims) shape.push_back(d.known() ? d.raw : 0);
    shape.insert(shape.begin() + ops::normalize_axis(shape_.output_axes[i], static_cast<int64_t>(shape.size()) + 1), 0);
    return Tensor::empty(v.dtype, std::move(shape));
  }

  const std::shared_ptr<BodyRunner> body_;
  const size_t own_inputs_;
  const std::shared_ptr<const Graph> graph_;
  const ScanShape shape_;
};

void register_scan(OpRegistry& registry) {
  OpDef def = control_flow("Scan", 1, -1);
  def.body_inputs = scan_body_inputs;
  def.infer = infer_scan;
  def.kernels = {body_kernel("portable/scan", [](const KernelQuery& q) { return std::make_unique<ScanKernel>(q); })};
  registry.add(std::move(def));
}

}  // namespace

void register_control_flow_ops(OpRegistry& registry) {
  register_if(registry);
  register_loop(registry);
  register_scan(registry);
}

}  // namespace ds
