#include "libds/ir/op_def.h"

#include <algorithm>

#include "libds/ir/moving_kernel.h"
#include "libds/ir/rewriter.h"
#include "libds/ir/widened_kernel.h"

namespace ds {

// --- InferContext ------------------------------------------------------------------------------

const Value& InferContext::input(size_t i) const {
  DS_CHECK(has_input(i));
  return graph_.value(node().inputs[i]);
}

const Tensor* InferContext::constant(size_t i) const {
  if (!has_input(i)) return nullptr;
  const Value& v = input(i);
  if (v.constant || v.producer == kNone) return v.constant.get();
  const Node& producer = graph_.node(v.producer);
  return producer.is("Constant") ? producer.attr_tensor("value") : nullptr;
}

std::optional<Dims> InferContext::ints(size_t i) const {
  if (!has_input(i)) return std::nullopt;
  if (const Tensor* t = constant(i)) {
    constexpr int64_t kMostElements = 4096;  // shape arithmetic is short; weights are not
    if (!(is_int(t->dtype()) || t->dtype() == DType::kBool) || t->numel() > kMostElements) return std::nullopt;
    Dims dims;
    for (int64_t x : t->to_ints()) {
      // Negative numbers (-1 in Reshape) are not dimensions: callers that accept them ask concrete_ints.
      if (x < 0) return std::nullopt;
      dims.emplace_back(x);
    }
    return dims;
  }
  return input(i).ints;
}

std::optional<std::vector<int64_t>> InferContext::concrete_ints(size_t i) const {
  if (!has_input(i)) return std::nullopt;
  if (const Tensor* t = constant(i)) {
    if (!(is_int(t->dtype()) || t->dtype() == DType::kBool)) return std::nullopt;
    return t->to_ints();
  }
  const auto& known = input(i).ints;
  if (!known || !all_known(*known)) return std::nullopt;
  return concrete(*known);
}

void InferContext::set_output(size_t i, DType dtype, std::optional<Dims> dims) {
  const ValueId id = node().output(i);
  if (id == kNone) return;
  rewriter_.set_type(id, dtype, std::move(dims));
  rewriter_.set_known_ints(id, std::nullopt);
}

void InferContext::set_output(size_t i, ValueType type) {
  const ValueId id = node().output(i);
  if (id == kNone) return;
  rewriter_.set_type(id, std::move(type));
  rewriter_.set_known_ints(id, std::nullopt);
}

std::vector<ValueType> InferContext::infer_body(std::string_view attr, std::vector<ValueType> inputs) {
  const std::shared_ptr<const Graph> body = node().attr_graph(attr);
  if (body == nullptr) error("attribute '{}' is missing", attr);
  auto typed = std::make_shared<Graph>(*body);
  for (size_t i = node().own_inputs(); i < node().inputs.size(); ++i) inputs.push_back(input(i).type());
  if (typed->inputs().size() != inputs.size())
    error("body '{}' has {} inputs, expected {}", attr, typed->inputs().size() - node().captured, inputs.size() - node().captured);
  Rewriter rw(*typed);
  for (size_t i = 0; i < inputs.size(); ++i) {
    // What is not known here may have been declared in the body.
    const ValueId id = typed->inputs()[i];
    const ValueType declared = typed->value(id).type();
    ValueType given = typed->translate(graph_, inputs[i]);
    if (given.dtype == DType::kUndefined) given.dtype = declared.dtype;
    if (!given.dims && !is_container(given.dtype)) given.dims = declared.dims;
    if (given.element == nullptr) given.element = declared.element;
    rw.set_type(id, std::move(given));
  }
  with_context([&] { return fmt::format("body '{}'", attr); }, [&] { rw.infer_all(); });
  std::vector<ValueType> outputs;
  for (ValueId id : typed->outputs()) outputs.push_back(graph_.translate(*typed, typed->value(id).type()));
  rewriter_.set_attr(id_, attr, std::shared_ptr<const Graph>(std::move(typed)));
  return outputs;
}

void InferContext::set_output_ints(size_t i, Dims ints) {
  const ValueId id = node().output(i);
  if (id != kNone) rewriter_.set_known_ints(id, std::move(ints));
}

void InferContext::require_dtype(size_t i, std::initializer_list<DType> allowed) const {
  if (!has_input(i) || std::find(allowed.begin(), allowed.end(), dtype(i)) != allowed.end()) return;
  error("input {} ('{}') has type {}, which this operator does not take", i, input(i).name, dtype_name(dtype(i)));
}

void InferContext::require_rank(size_t i, size_t rank) const {
  if (has_dims(i) && dims(i).size() != rank)
    error("input {} ('{}') has rank {}, expected {}", i, input(i).name, dims(i).size(), rank);
}

// --- GradContext -------------------------------------------------------------------------------

const Node& GradContext::node() const { return rewriter_.graph().node(id_); }

Shape GradContext::shape(ValueId id) const {
  const Value& v = rewriter_.graph().value(id);
  if (!v.dims || !all_known(*v.dims)) fail(ExitCode::kInternal, "shape of '{}' is not known to autodiff", v.name);
  return concrete(*v.dims);
}

DType GradContext::dtype(ValueId id) const { return rewriter_.graph().value(id).dtype; }

ValueId GradContext::emit(std::string_view op, std::vector<ValueId> inputs, Attributes attrs) {
  return rewriter_.emit(op, std::move(inputs), std::move(attrs), fmt::format("grad/{}/{}", node().name, op));
}

NodeId GradContext::emit_node(std::string_view op, std::vector<ValueId> inputs, Attributes attrs, size_t outputs) {
  return rewriter_.add_node(op, std::move(inputs), std::move(attrs), fmt::format("grad/{}/{}", node().name, op), outputs);
}

ValueId GradContext::scalar(double x, DType dtype) {
  return rewriter_.add_constant(fmt::format("grad/{}/c", node().name), Tensor::scalar<double>(x).cast(dtype));
}

ValueId GradContext::ints(const std::vector<int64_t>& values) {
  return rewriter_.add_constant(fmt::format("grad/{}/ints", node().name), Tensor::vector<int64_t>(values));
}

ValueId GradContext::sum_to(ValueId d, const Shape& target) {
  if (shape(d) == target) return d;
  const Shape from = shape(d);
  std::vector<int64_t> axes;
  const size_t lead = from.size() - target.size();
  for (size_t i = 0; i < from.size(); ++i)
    if (i < lead || (target[i - lead] == 1 && from[i] != 1)) axes.push_back(static_cast<int64_t>(i));
  if (!axes.empty()) d = emit("ReduceSum", {d, ints(axes)}, {{"keepdims", int64_t{1}}});
  return shape(d) == target ? d : emit("Reshape", {d, ints(target)});
}

// --- registry ----------------------------------------------------------------------------------

void OpRegistry::add(OpDef def) {
  const auto key = std::make_pair(def.domain, def.name);
  if (ops_.count(key) != 0) fail(ExitCode::kInternal, "operator {}.{} is registered twice", def.domain, def.name);
  const auto [entry, added] = ops_.emplace(key, std::make_unique<OpDef>(std::move(def)));
  add_moving_kernel(*entry->second);
  add_widened_kernel(*entry->second);
}

const OpDef* OpRegistry::find(std::string_view domain, std::string_view name) const {
  const auto it = ops_.find(std::make_pair(std::string(domain), std::string(name)));
  return it == ops_.end() ? nullptr : it->second.get();
}

std::vector<const OpDef*> OpRegistry::all() const {
  std::vector<const OpDef*> list;
  for (const auto& [key, def] : ops_) list.push_back(def.get());
  return list;
}

Cost node_cost(const OpDef& def, const KernelQuery& query) {
  if (def.cost) return def.cost(query);
  Cost cost;
  for (const TensorDesc& d : query.inputs) cost.bytes += d.defined() ? static_cast<int64_t>(d.bytes()) : 0;
  for (const TensorDesc& d : query.outputs) cost.bytes += d.defined() ? static_cast<int64_t>(d.bytes()) : 0;
  return cost;
}

}  // namespace ds
