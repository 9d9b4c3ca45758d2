// Sequences and optionals: values that hold tensors (mem/tensor.h). Their elements are handles, so
// taking one out or putting one in copies no numbers.
#include "libds/ops/sequence.h"

#include <algorithm>
#include <cstring>

#include "libds/ir/type_text.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using Run = std::function<void(const KernelContext&)>;

ValueType container_of(DType dtype, ValueType element) {
  return {dtype, std::nullopt, std::make_shared<const ValueType>(std::move(element))};
}

// The element type both fit; sizes that differ are left open.
ValueType common_element(InferContext& c, const ValueType& a, const ValueType& b) {
  if (a.dtype == DType::kUndefined) return b;
  if (b.dtype != DType::kUndefined && a.dtype != b.dtype) c.error("a sequence holds one type, got {} and {}", dtype_name(a.dtype), dtype_name(b.dtype));
  ValueType type = a;
  if (!a.dims || !b.dims || a.dims->size() != b.dims->size()) {
    type.dims.reset();
    return type;
  }
  for (size_t i = 0; i < a.dims->size(); ++i)
    if (!((*a.dims)[i] == (*b.dims)[i])) (*type.dims)[i] = c.fresh_dim();
  return type;
}

ValueType element_of(InferContext& c, size_t i, DType container) {
  const Value& v = c.input(i);
  if (v.dtype != container && v.dtype != DType::kUndefined) c.error("input {} ('{}') is {}, not {}", i, v.name, dtype_name(v.dtype), dtype_name(container));
  return v.element ? *v.element : ValueType();
}

int64_t one_int(const Tensor& t) {
  const std::vector<int64_t> values = t.to_ints();
  if (values.size() != 1) bad_data("expected one number, got {}", values.size());
  return values[0];
}

// Position in [-size, size + past_end) to [0, size + past_end).
int64_t position(int64_t at, int64_t size, int64_t past_end) {
  const int64_t end = size + past_end;
  if (at < -size || at >= end) bad_data("position {} is outside a sequence of {}", at, size);
  return at < 0 ? at + size : at;
}

OpDef object_op(std::string_view name, int min_inputs, int max_inputs, std::function<void(InferContext&)> infer, Run run) {
  OpDef def;
  def.name = name;
  def.min_inputs = min_inputs;
  def.max_inputs = max_inputs;
  def.data_dependent = true;
  def.infer = std::move(infer);
  KernelDef k;
  k.name = "portable/" + def.name;
  std::transform(k.name.begin(), k.name.end(), k.name.begin(), [](unsigned char ch) { return static_cast<char>(std::tolower(ch)); });
  k.takes_objects = k.takes_packed = true;
  k.create = [run](const KernelQuery&) { return make_kernel(run); };
  def.kernels = {k};
  return def;
}

std::vector<Tensor> items_of(const Tensor& sequence) { return {sequence.items().begin(), sequence.items().end()}; }

// --- Sequences ----------------------------------------------------------------------------------

void register_sequences(OpRegistry& registry) {
  registry.add(object_op(
      "SequenceConstruct", 1, -1,
      [](InferContext& c) {
        ValueType element = c.input(0).type();
        for (size_t i = 1; i < c.input_count(); ++i) element = common_element(c, element, c.input(i).type());
        c.set_output(0, container_of(DType::kSequence, std::move(element)));
      },
      [](const KernelContext& c) {
        std::vector<Tensor> items;
        for (size_t i = 0; i < c.input_count(); ++i) items.push_back(c.input(i));
        c.output(0) = Tensor::sequence(std::move(items));
      }));

  registry.add(object_op(
      "SequenceEmpty", 0, 0,
      [](InferContext& c) {
        const DType dtype = dtype_of_number(c.node().attr_int("dtype", static_cast<int64_t>(DType::kF32)));
        c.set_output(0, container_of(DType::kSequence, {dtype}));
      },
      [](const KernelContext& c) { c.output(0) = Tensor::sequence({}); }));

  registry.add(object_op(
      "SequenceInsert", 2, 3,
      [](InferContext& c) {
        c.set_output(0, container_of(DType::kSequence, common_element(c, element_of(c, 0, DType::kSequence), c.input(1).type())));
      },
      [](const KernelContext& c) {
        std::vector<Tensor> items = items_of(c.input(0));
        const auto size = static_cast<int64_t>(items.size());
        const int64_t at = c.has_input(2) ? position(one_int(c.input(2)), size, 1) : size;
        items.insert(items.begin() + at, c.input(1));
        c.output(0) = Tensor::sequence(std::move(items));
      }));

  registry.add(object_op(
      "SequenceErase", 1, 2, [](InferContext& c) { c.set_output(0, container_of(DType::kSequence, element_of(c, 0, DType::kSequence))); },
      [](const KernelContext& c) {
        std::vector<Tensor> items = items_of(c.input(0));
        items.erase(items.begin() + position(c.has_input(1) ? one_int(c.input(1)) : -1, static_cast<int64_t>(items.size()), 0));
        c.output(0) = Tensor::sequence(std::move(items));
      }));

  registry.add(object_op(
      "SequenceAt", 2, 2, [](InferContext& c) { c.set_output(0, element_of(c, 0, DType::kSequence)); },
      [](const KernelContext& c) {
        const Tensor& sequence = c.input(0);
        c.output(0) = sequence.items()[static_cast<size_t>(position(one_int(c.input(1)), sequence.numel(), 0))];
      }));

  registry.add(object_op(
      "SequenceLength", 1, 1,
      [](InferContext& c) {
        element_of(c, 0, DType::kSequence);
        c.set_output(0, DType::kI64, Dims{});
      },
      [](const KernelContext& c) { c.output(0) = Tensor::scalar<int64_t>(c.input(0).numel()); }));
}

// --- between tensors and sequences --------------------------------------------------------------

// Elements [begin, end) along `axis`; the axis itself goes when it is not kept.
Tensor part_of(const Tensor& t, int64_t axis, int64_t begin, int64_t end, bool keep_axis) {
  Shape shape = t.shape();
  shape[static_cast<size_t>(axis)] = end - begin;
  Tensor out = Tensor::empty(t.dtype(), shape, Tier::kActivations);
  ops::copy_along_axis(t, begin, out, 0, end - begin, axis);
  if (keep_axis) return out;
  shape.erase(shape.begin() + axis);
  return out.reshaped(std::move(shape));
}

void split_to_sequence(const KernelContext& c, int64_t axis, bool keep_dims) {
  const Tensor& t = c.input(0);
  axis = ops::normalize_axis(axis, t.rank());
  const int64_t size = t.dim(axis);
  std::vector<int64_t> sizes;
  const bool given = c.has_input(1), equal = given && c.input(1).rank() == 0;
  if (!given) {
    sizes.assign(static_cast<size_t>(size), 1);
  } else if (equal) {
    const int64_t part = one_int(c.input(1));
    if (part <= 0) bad_data("splits into parts of {}", part);
    for (int64_t at = 0; at < size; at += part) sizes.push_back(std::min(part, size - at));
  } else {
    sizes = c.input(1).to_ints();
    int64_t total = 0;
    for (int64_t s : sizes) {
      if (s < 0) bad_data("negative part size {}", s);
      total = checked_add(total, s);
    }
    if (total != size) bad_data("parts add up to {}, axis {} has {}", total, axis, size);
  }
  std::vector<Tensor> items;
  int64_t at = 0;
  for (int64_t s : sizes) {
    items.push_back(part_of(t, axis, at, at + s, given || keep_dims));
    at += s;
  }
  c.output(0) = Tensor::sequence(std::move(items));
}

void concat_from_sequence(const KernelContext& c, int64_t axis, bool new_axis) {
  const auto items = c.input(0).items();
  if (items.empty()) bad_data("an empty sequence cannot be put together");
  const Shape& first = items[0].shape();
  axis = ops::normalize_axis(axis, static_cast<int64_t>(first.size()) + (new_axis ? 1 : 0));
  Shape shape = first;
  if (new_axis) shape.insert(shape.begin() + axis, 1);
  if (shape.empty()) bad_data("scalars cannot be put together without a new axis");
  int64_t total = 0;
  std::vector<Tensor> parts;
  for (const Tensor& item : items) {
    Shape s = item.shape();
    if (new_axis) s.insert(s.begin() + std::min(axis, static_cast<int64_t>(s.size())), 1);
    Shape other = s;
    if (s.size() == shape.size()) other[static_cast<size_t>(axis)] = shape[static_cast<size_t>(axis)];
    if (item.dtype() != items[0].dtype() || other != shape)
      bad_data("holds {} and {}, which cannot be put together along axis {}", shape_string(first), shape_string(item.shape()), axis);
    total = checked_add(total, s[static_cast<size_t>(axis)]);
    parts.push_back(item.reshaped(std::move(s)));
  }
  shape[static_cast<size_t>(axis)] = total;
  Tensor out = Tensor::empty(items[0].dtype(), shape, Tier::kActivations);
  int64_t at = 0;
  for (const Tensor& part : parts) {
    ops::copy_along_axis(part, 0, out, at, part.dim(axis), axis);
    at += part.dim(axis);
  }
  c.output(0) = std::move(out);
}

void register_splits(OpRegistry& registry) {
  OpDef split = object_op(
      "SplitToSequence", 1, 2,
      [](InferContext& c) {
        ValueType element = c.input(0).type();
        if (element.dims) {
          const auto axis = ops::normalize_axis(c.node().attr_int("axis", 0), static_cast<int64_t>(element.dims->size()));
          if (!c.has_input(1) && c.node().attr_int("keepdims", 1) == 0) element.dims->erase(element.dims->begin() + axis);
          else (*element.dims)[static_cast<size_t>(axis)] = c.fresh_dim();
        }
        c.set_output(0, container_of(DType::kSequence, std::move(element)));
      },
      nullptr);
  split.kernels[0].create = [](const KernelQuery& q) {
    const int64_t axis = q.node.attr_int("axis", 0);
    const bool keep_dims = q.node.attr_int("keepdims", 1) != 0;
    return make_kernel([axis, keep_dims](const KernelContext& c) { split_to_sequence(c, axis, keep_dims); });
  };
  registry.add(std::move(split));

  OpDef concat = object_op(
      "ConcatFromSequence", 1, 1,
      [](InferContext& c) {
        ValueType element = element_of(c, 0, DType::kSequence);
        if (!c.node().has_attr("axis")) c.error("attribute axis is missing");
        if (element.dims) {
          const bool new_axis = c.node().attr_int("new_axis", 0) != 0;
          const auto axis = ops::normalize_axis(c.node().attr_int("axis", 0), static_cast<int64_t>(element.dims->size()) + (new_axis ? 1 : 0));
          if (new_axis) element.dims->insert(element.dims->begin() + axis, c.fresh_dim());
          else (*element.dims)[static_cast<size_t>(axis)] = c.fresh_dim();
        }
        c.set_output(0, std::move(element));
      },
      nullptr);
  concat.kernels[0].create = [](const KernelQuery& q) {
    const int64_t axis = q.node.attr_int("axis", 0);
    const bool new_axis = q.node.attr_int("new_axis", 0) != 0;
    return make_kernel([axis, new_axis](const KernelContext& c) { concat_from_sequence(c, axis, new_axis); });
  };
  registry.add(std::move(concat));
}

// --- SequenceMap --------------------------------------------------------------------------------
// The body for every element of the first sequence; further inputs are sequences that go along, or
// tensors that stay.

std::vector<ValueType> map_body_inputs(const Graph& graph, const Node& n, std::string_view) {
  std::vector<ValueType> types;
  for (size_t i = 0; i < n.own_inputs(); ++i) {
    if (n.inputs[i] == kNone) bad_data("input {} is left out", i);
    const Value& v = graph.value(n.inputs[i]);
    types.push_back(v.dtype != DType::kSequence ? v.type() : v.element ? *v.element : ValueType());
    if (v.dtype == DType::kSequence) types.back().dims.reset();  // elements may differ in size
  }
  return types;
}

void register_sequence_map(OpRegistry& registry) {
  OpDef def = object_op("SequenceMap", 1, -1, nullptr, nullptr);
  def.max_outputs = -1;
  def.body_inputs = map_body_inputs;
  def.infer = [](InferContext& c) {
    element_of(c, 0, DType::kSequence);
    const std::vector<ValueType> results = c.infer_body("body", map_body_inputs(c.graph(), c.node(), "body"));
    if (results.size() < c.node().outputs.size()) c.error("has {} outputs, its body gives {}", c.node().outputs.size(), results.size());
    for (size_t i = 0; i < c.node().outputs.size(); ++i) c.set_output(i, container_of(DType::kSequence, results[i]));
  };
  def.kernels[0].create = [](const KernelQuery& q) {
    const auto body = q.body_runner(q.node, "body");
    const size_t own = q.node.own_inputs();
    return make_kernel([body, own](const KernelContext& c) {
      std::vector<std::vector<Tensor>> results(c.output_count());
      for (size_t at = 0; at < c.input(0).items().size(); ++at) {
        std::vector<Tensor> inputs;
        for (size_t i = 0; i < c.input_count(); ++i) {
          const bool along = i < own && c.input(i).dtype() == DType::kSequence;
          if (along && c.input(i).items().size() != c.input(0).items().size()) bad_data("its sequences differ in length");
          inputs.push_back(along ? c.input(i).items()[at] : c.input(i));
        }
        std::vector<Tensor> made = body->run(inputs);
        for (size_t i = 0; i < results.size(); ++i) results[i].push_back(std::move(made[i]));
      }
      for (size_t i = 0; i < results.size(); ++i)
        if (c.has_output(i)) c.output(i) = Tensor::sequence(std::move(results[i]));
    });
  };
  registry.add(std::move(def));
}

// --- Optionals ----------------------------------------------------------------------------------

void register_optionals(OpRegistry& registry) {
  OpDef optional = object_op(
      "Optional", 0, 1,
      [](InferContext& c) {
        const std::string type = c.node().attr_string("type", "");
        ValueType element = c.has_input(0) ? c.input(0).type() : ValueType();
        if (!c.has_input(0) && !type.empty()) element = type_from_text(c.graph(), type);
        c.set_output(0, container_of(DType::kOptional, std::move(element)));
      },
      [](const KernelContext& c) { c.output(0) = Tensor::optional_of(c.has_input(0) ? c.input(0) : Tensor()); });
  registry.add(std::move(optional));

  // Also of what is no optional: that is always there.
  registry.add(object_op(
      "OptionalHasElement", 0, 1, [](InferContext& c) { c.set_output(0, DType::kBool, Dims{}); },
      [](const KernelContext& c) {
        const bool there = c.has_input(0) && (c.input(0).dtype() != DType::kOptional || c.input(0).numel() == 1);
        c.output(0) = Tensor::scalar<bool>(there);
      }));

  registry.add(object_op(
      "OptionalGetElement", 1, 1,
      [](InferContext& c) {
        const Value& v = c.input(0);
        c.set_output(0, v.dtype != DType::kOptional ? v.type() : v.element ? *v.element : ValueType());
      },
      [](const KernelContext& c) {
        const Tensor& v = c.input(0);
        if (v.dtype() == DType::kOptional && v.numel() == 0) bad_data("the optional is empty");
        c.output(0) = v.dtype() == DType::kOptional ? v.items()[0] : v;
      }));
}

}  // namespace

namespace ops {

void copy_along_axis(const Tensor& from, int64_t from_at, Tensor& to, int64_t to_at, int64_t count, int64_t axis) {
  if (is_packed(from.dtype())) fail(ExitCode::kUnsupported, "{} cannot be cut or put together", dtype_name(from.dtype()));
  int64_t outer = 1, inner = 1;
  for (int64_t i = 0; i < axis; ++i) outer *= from.dim(i);
  for (int64_t i = axis + 1; i < from.rank(); ++i) inner *= from.dim(i);
  for (int64_t o = 0; o < outer; ++o) {
    const int64_t source = (o * from.dim(axis) + from_at) * inner, target = (o * to.dim(axis) + to_at) * inner, n = count * inner;
    if (n == 0) continue;
    if (from.dtype() == DType::kString) {
      std::copy_n(from.strings().begin() + source, n, to.strings().begin() + target);
    } else {
      const auto size = static_cast<int64_t>(dtype_size(from.dtype()));
      std::memcpy(static_cast<std::byte*>(to.mutable_raw()) + target * size, static_cast<const std::byte*>(from.raw()) + source * size,
                  static_cast<size_t>(n * size));
    }
  }
}

}  // namespace ops

void register_sequence_ops(OpRegistry& registry) {
  register_sequences(registry);
  register_splits(registry);
  register_sequence_map(registry);
  register_optionals(registry);
}

}  // namespace ds
