// Operators about shapes: Shape, Size, the views (Reshape, Flatten, Squeeze, Unsqueeze), and tensors made
// from nothing but shapes and scalars (Constant, ConstantOfShape, Range, EyeLike).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/compute_type.h"
#include "kernels/layout_moves.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

// The content of a Reshape target, element by element, as far as it is known: -1 is common inside
// Concat([-1], [Shape of x]), where the whole is not a list of dimensions.
struct TargetDim {
  enum Kind { kDim, kInferred, kUnknown } kind = kUnknown;
  Dim dim;
};

std::optional<std::vector<TargetDim>> target_of(const InferContext& c, const Graph& graph, ValueId id) {
  const Value& v = graph.value(id);
  std::vector<TargetDim> target;
  const Tensor* constant = v.constant.get();
  const Node* producer = v.producer == kNone ? nullptr : &graph.node(v.producer);
  if (constant == nullptr && producer != nullptr && producer->is("Constant")) constant = producer->attr_tensor("value");
  if (constant != nullptr) {
    for (int64_t x : constant->to_ints()) {
      if (x < -1) c.error("target shape holds {}", x);
      target.push_back(x == -1 ? TargetDim{TargetDim::kInferred, 0} : TargetDim{TargetDim::kDim, x});
    }
    return target;
  }
  if (v.ints) {
    for (Dim d : *v.ints) target.push_back({TargetDim::kDim, d});
    return target;
  }
  if (producer != nullptr && producer->is("Concat")) {
    for (ValueId in : producer->inputs) {
      const auto part = target_of(c, graph, in);
      if (!part) return std::nullopt;
      target.insert(target.end(), part->begin(), part->end());
    }
    return target;
  }
  if (v.dims && v.dims->size() == 1 && (*v.dims)[0].known() && (*v.dims)[0].raw <= 64)
    return std::vector<TargetDim>(static_cast<size_t>((*v.dims)[0].raw));
  return std::nullopt;
}

// What -1 stands for: the input's size over the other dimensions' product, cancelling equal symbols.
Dim inferred_dim(InferContext& c, const Dims& in, const Dims& others) {
  Dims up = in, down = others;
  for (auto it = down.begin(); it != down.end();) {
    const auto match = it->known() ? up.end() : std::find(up.begin(), up.end(), *it);
    if (match == up.end()) {
      ++it;
      continue;
    }
    up.erase(match);
    it = down.erase(it);
  }
  int64_t product = 1, divisor = 1;
  std::optional<Dim> symbol;
  for (Dim d : up) {
    if (d.known()) product = checked_mul(product, d.raw);
    else if (symbol) return c.fresh_dim();
    else symbol = d;
  }
  for (Dim d : down) {
    if (!d.known()) return c.fresh_dim();
    divisor = checked_mul(divisor, d.raw);
  }
  if (symbol) return product == divisor ? *symbol : c.fresh_dim();
  if (divisor == 0) c.error("-1 in the target shape is ambiguous next to a zero");
  if (product % divisor != 0) c.error("{} cannot be reshaped into the target: {} elements do not divide by {}",
                                      c.graph().dims_string(in), product, divisor);
  return product / divisor;
}

void check_same_size(const InferContext& c, const Dims& in, const Dims& out) {
  if (!all_known(in) || !all_known(out)) return;
  if (checked_numel(concrete(in)) != checked_numel(concrete(out)))
    c.error("cannot reshape {} into {}", shape_string(concrete(in)), shape_string(concrete(out)));
}

// A view's output: type of input 0, known content carried along.
void set_view(InferContext& c, std::optional<Dims> dims) {
  const std::optional<Dims> ints = c.ints(0);
  if (dims && c.has_dims(0)) check_same_size(c, c.dims(0), *dims);
  c.set_output(0, c.dtype(0), std::move(dims));
  if (ints && is_int(c.dtype(0))) c.set_output_ints(0, *ints);
}

void infer_reshape(InferContext& c) {
  c.require_rank(1, 1);
  if (c.dtype(1) != DType::kI64) c.error("the target shape has type {}, expected i64", dtype_name(c.dtype(1)));
  const auto target = target_of(c, c.graph(), c.node().input(1));
  if (!target) return set_view(c, std::nullopt);
  const bool allow_zero = c.node().attr_int("allowzero", 0) != 0;
  Dims out, others;
  std::optional<size_t> inferred;
  bool unknown = false;
  for (size_t i = 0; i < target->size(); ++i) {
    const TargetDim& t = (*target)[i];
    Dim d = t.dim;
    if (t.kind == TargetDim::kInferred) {
      if (inferred) c.error("more than one -1 in the target shape");
      inferred = i;
      out.push_back(0);
      continue;
    }
    if (t.kind == TargetDim::kUnknown) {
      unknown = true;
      d = c.fresh_dim();
    } else if (d == Dim(0) && !allow_zero) {
      if (c.has_dims(0)) {
        if (i >= c.dims(0).size()) c.error("0 at position {} of the target shape has no input dimension to copy", i);
        d = c.dims(0)[i];
      } else {
        d = c.fresh_dim();
      }
    }
    out.push_back(d);
    others.push_back(d);
  }
  if (inferred) out[*inferred] = c.has_dims(0) && !unknown ? inferred_dim(c, c.dims(0), others) : c.fresh_dim();
  set_view(c, std::move(out));
}

void infer_flatten(InferContext& c) {
  if (!c.has_dims(0)) return set_view(c, Dims{c.fresh_dim(), c.fresh_dim()});
  const Dims in = c.dims(0);
  const auto rank = static_cast<int64_t>(in.size());
  int64_t axis = c.node().attr_int("axis", 1);
  if (axis < -rank || axis > rank) c.error("axis {} is outside rank {}", axis, rank);
  if (axis < 0) axis += rank;
  const auto product = [&](size_t begin, size_t end) {
    return inferred_dim(c, Dims(in.begin() + static_cast<int64_t>(begin), in.begin() + static_cast<int64_t>(end)), {});
  };
  set_view(c, Dims{product(0, static_cast<size_t>(axis)), product(static_cast<size_t>(axis), in.size())});
}

void infer_squeeze(InferContext& c) {
  if (!c.has_dims(0)) return set_view(c, std::nullopt);
  const Dims& in = c.dims(0);
  std::vector<char> drop(in.size(), 0);
  if (c.has_input(1)) {
    const auto axes = c.concrete_ints(1);
    if (!axes) return set_view(c, std::nullopt);
    for (int64_t axis : ops::normalize_axes(*axes, static_cast<int64_t>(in.size()))) {
      if (in.empty()) c.error("a scalar has no axis to squeeze");
      const Dim d = in[static_cast<size_t>(axis)];
      if (d.known() && d.raw != 1) c.error("axis {} has size {}, not 1", axis, d.raw);
      drop[static_cast<size_t>(axis)] = 1;
    }
  } else {
    for (size_t i = 0; i < in.size(); ++i) {
      if (!in[i].known()) return set_view(c, std::nullopt);
      drop[i] = in[i].raw == 1;
    }
  }
  Dims out;
  for (size_t i = 0; i < in.size(); ++i)
    if (!drop[i]) out.push_back(in[i]);
  // A symbol that is squeezed is a one; the sizes cannot be compared then.
  const std::optional<Dims> ints = c.ints(0);
  c.set_output(0, c.dtype(0), std::move(out));
  if (ints && is_int(c.dtype(0))) c.set_output_ints(0, *ints);
}

void infer_unsqueeze(InferContext& c) {
  const auto axes = c.concrete_ints(1);
  if (!c.has_dims(0) || !axes) return set_view(c, std::nullopt);
  const Dims& in = c.dims(0);
  const auto rank = static_cast<int64_t>(in.size() + axes->size());
  std::vector<char> added(static_cast<size_t>(rank), 0);
  for (int64_t axis : ops::normalize_axes(*axes, rank)) {
    if (added[static_cast<size_t>(axis)]) c.error("axis {} is given twice", axis);
    added[static_cast<size_t>(axis)] = 1;
  }
  Dims out;
  size_t next = 0;
  for (char is_new : added) out.push_back(is_new ? Dim(1) : in[next++]);
  set_view(c, std::move(out));
}

void register_view(OpRegistry& registry, const char* name, int min_inputs, int max_inputs, InferFn infer) {
  OpDef def;
  def.name = name;
  def.min_inputs = min_inputs;
  def.max_inputs = max_inputs;
  def.infer = std::move(infer);
  def.is_view = true;
  def.shape_inputs = max_inputs > 1 ? 0b10 : 0;
  def.cost = [](const KernelQuery&) { return Cost{}; };
  def.grad = [](GradContext& g) {
    if (g.needs(0)) g.set_d_input(0, g.emit("Reshape", {g.d_output(0), g.ints(g.shape(g.input(0)))}, {{"allowzero", int64_t{1}}}));
  };
  KernelDef k;
  k.name = "portable/view";
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      if (c.output(0).raw() != c.input(0).raw() && c.input(0).numel() > 0)
        std::memcpy(c.output(0).mutable_raw(), c.input(0).raw(), c.input(0).bytes());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// --- Shape, Size -------------------------------------------------------------------------------

// First and last (exclusive) axis that Shape reports for a given rank.
std::pair<int64_t, int64_t> shape_range(const Node& node, int64_t rank) {
  const auto clamp = [&](int64_t x) { return std::min(std::max<int64_t>(x < 0 ? x + rank : x, 0), rank); };
  const int64_t start = clamp(node.attr_int("start", 0)), end = clamp(node.attr_int("end", rank));
  return {start, std::max(start, end)};
}

void register_shape(OpRegistry& registry) {
  OpDef def;
  def.name = "Shape";
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.cost = [](const KernelQuery&) { return Cost{}; };
  def.infer = [](InferContext& c) {
    if (!c.has_dims(0)) return c.set_output(0, DType::kI64, Dims{c.fresh_dim()});
    const Dims in = c.dims(0);
    const auto [start, end] = shape_range(c.node(), static_cast<int64_t>(in.size()));
    c.set_output(0, DType::kI64, Dims{end - start});
    c.set_output_ints(0, Dims(in.begin() + start, in.begin() + end));
  };
  KernelDef k;
  k.name = "portable/shape";
  k.takes_objects = k.takes_packed = true;  // only the shape is read
  k.create = [](const KernelQuery& q) {
    const auto [start, end] = shape_range(q.node, q.in(0).rank());
    const Shape part(q.in(0).shape.begin() + start, q.in(0).shape.begin() + end);
    return make_kernel([part](const KernelContext& c) {
      std::copy(part.begin(), part.end(), c.output(0).mutable_data<int64_t>());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef size;
  size.name = "Size";
  size.min_inputs = size.max_inputs = 1;
  size.stops_gradient = true;
  size.cost = [](const KernelQuery&) { return Cost{}; };
  size.infer = [](InferContext& c) {
    std::optional<Dims> count;
    if (c.has_dims(0) && all_known(c.dims(0))) count = Dims{checked_numel(concrete(c.dims(0)))};
    c.set_output(0, DType::kI64, Dims{});
    if (count) c.set_output_ints(0, *count);
  };
  KernelDef s;
  s.name = "portable/size";
  s.takes_objects = s.takes_packed = true;
  s.create = [](const KernelQuery& q) {
    return make_kernel([n = q.in(0).numel()](const KernelContext& c) { *c.output(0).mutable_data<int64_t>() = n; });
  };
  size.kernels = {s};
  registry.add(std::move(size));
}

// --- Constant, ConstantOfShape, Range ------------------------------------------------------------

// The tensor a Constant node stands for.
Tensor constant_content(const Node& node) {
  if (const Tensor* t = node.attr_tensor("value")) return *t;
  if (node.has_attr("value_int")) return Tensor::scalar<int64_t>(node.attr_int("value_int", 0));
  if (node.has_attr("value_float")) return Tensor::scalar<float>(node.attr_float("value_float", 0));
  if (node.has_attr("value_ints")) return Tensor::vector<int64_t>(node.attr_ints("value_ints"));
  if (node.has_attr("value_floats")) return Tensor::vector<float>(node.attr_floats("value_floats"));
  bad_data("holds none of the supported values (value, value_int, value_ints, value_float, value_floats)");
}

void register_constant(OpRegistry& registry) {
  OpDef def;
  def.name = "Constant";
  def.min_inputs = def.max_inputs = 0;
  def.stops_gradient = true;
  def.cost = [](const KernelQuery&) { return Cost{}; };
  def.infer = [](InferContext& c) {
    const Tensor content = constant_content(c.node());
    c.set_output(0, content.dtype(), to_dims(content.shape()));
    constexpr int64_t kMostElements = 4096;
    if (!is_int(content.dtype()) || content.numel() > kMostElements) return;
    Dims ints;
    for (int64_t x : content.to_ints()) {
      if (x < 0) return;
      ints.emplace_back(x);
    }
    c.set_output_ints(0, std::move(ints));
  };
  KernelDef k;
  k.name = "portable/constant";
  k.create = [](const KernelQuery& q) {
    return make_kernel([content = constant_content(q.node)](const KernelContext& c) {
      if (content.numel() > 0) std::memcpy(c.output(0).mutable_raw(), content.raw(), content.bytes());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef fill;
  fill.name = "ConstantOfShape";
  fill.min_inputs = fill.max_inputs = 1;
  fill.stops_gradient = true;
  fill.shape_inputs = 0b1;
  const auto value_of = [](const Node& node) {
    const Tensor* t = node.attr_tensor("value");
    if (t != nullptr && t->numel() != 1) bad_data("value holds {} elements, expected one", t->numel());
    return t != nullptr ? *t : Tensor::scalar<float>(0);
  };
  fill.infer = [value_of](InferContext& c) {
    const Tensor value = value_of(c.node());
    c.require_rank(0, 1);
    std::optional<Dims> dims;
    if (const auto exact = c.concrete_ints(0)) {
      for (int64_t d : *exact)
        if (d < 0) c.error("negative dimension {}", d);
      dims = to_dims(*exact);
    } else if (auto symbolic = c.ints(0)) {
      dims = std::move(symbolic);
    } else if (c.has_dims(0) && c.dims(0).size() == 1 && c.dims(0)[0].known()) {
      dims.emplace();
      for (int64_t i = 0; i < c.dims(0)[0].raw; ++i) dims->push_back(c.fresh_dim());
    }
    const bool small = dims && dims->size() <= 1 && all_known(*dims) && checked_numel(concrete(*dims)) <= 64;
    const int64_t n = small ? checked_numel(concrete(*dims)) : 0;
    c.set_output(0, value.dtype(), std::move(dims));
    if (small && is_int(value.dtype()) && value.to_ints()[0] >= 0)
      c.set_output_ints(0, Dims(static_cast<size_t>(n), Dim(value.to_ints()[0])));
  };
  KernelDef f;
  f.name = "portable/constant_of_shape";
  f.create = [value_of](const KernelQuery& q) {
    return make_kernel([value = value_of(q.node)](const KernelContext& c) {
      kernels::fill(c.output(0).numel(), dtype_size(value.dtype()), value.raw(), c.output(0).mutable_raw());
    });
  };
  fill.kernels = {f};
  registry.add(std::move(fill));
}

int64_t range_length(double start, double limit, double delta) {
  if (delta == 0) bad_data("step is zero");
  const double n = std::ceil((limit - start) / delta);
  if (!(n < 1e15)) bad_data("from {} to {} in steps of {} is not a finite number of elements", start, limit, delta);
  return n > 0 ? static_cast<int64_t>(n) : 0;
}

void register_range(OpRegistry& registry) {
  OpDef def;
  def.name = "Range";
  def.min_inputs = def.max_inputs = 3;
  def.stops_gradient = true;
  def.shape_inputs = 0b111;
  def.infer = [](InferContext& c) {
    const DType dtype = c.dtype(0);
    c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16, DType::kI16, DType::kI32, DType::kI64});
    for (size_t i = 1; i < 3; ++i)
      if (c.dtype(i) != dtype) c.error("start, limit and delta differ in type");
    std::optional<double> v[3];
    Dims symbolic[3];
    for (size_t i = 0; i < 3; ++i) {
      if (const Tensor* t = c.constant(i)) {
        if (t->numel() != 1) c.error("input {} is not a scalar", i);
        v[i] = t->to_doubles()[0];
      } else if (auto ints = c.ints(i); ints && ints->size() == 1) {
        symbolic[i] = *ints;
        if ((*ints)[0].known()) v[i] = static_cast<double>((*ints)[0].raw);
      }
    }
    if (v[0] && v[1] && v[2]) {
      const int64_t n = range_length(*v[0], *v[1], *v[2]);
      c.set_output(0, dtype, Dims{n});
      if (!is_int(dtype) || n > 64) return;
      Dims ints;
      for (int64_t i = 0; i < n; ++i) {
        const auto x = static_cast<int64_t>(*v[0]) + i * static_cast<int64_t>(*v[2]);
        if (x < 0) return;
        ints.emplace_back(x);
      }
      return c.set_output_ints(0, std::move(ints));
    }
    // Range(0, n, 1) has n elements whatever n is.
    const bool counts = v[0] == 0.0 && v[2] == 1.0 && symbolic[1].size() == 1;
    c.set_output(0, dtype, Dims{counts ? symbolic[1][0] : c.fresh_dim()});
  };
  KernelDef k;
  k.name = "portable/range";
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      dispatch_dtype(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        using C = kernels::ComputeType<T>;  // the specification's stash_type 1: 16-bit floats count in f32
        if constexpr (!std::is_same_v<T, bool>) {
          const C start = static_cast<C>(*c.input(0).data<T>()), delta = static_cast<C>(*c.input(2).data<T>());
          T* out = c.output(0).mutable_data<T>();
          for (int64_t i = 0; i < c.output(0).numel(); ++i) out[i] = static_cast<T>(static_cast<C>(start + static_cast<C>(i) * delta));
        }
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void register_eye_like(OpRegistry& registry) {
  OpDef def;
  def.name = "EyeLike";  // ones on diagonal k of a matrix of x's shape
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    c.require_rank(0, 2);
    const int64_t value = c.node().attr_int("dtype", static_cast<int64_t>(c.dtype(0)));
    const auto dtype = static_cast<DType>(value);
    if (value < 0 || value > INT32_MAX || !(is_float(dtype) || is_int(dtype) || dtype == DType::kBool)) c.error("dtype {} is not supported", value);
    c.set_output(0, dtype, c.input(0).dims);
  };
  KernelDef k;
  k.name = "portable/eye_like";
  k.create = [](const KernelQuery& q) {
    return make_kernel([diagonal = q.node.attr_int("k", 0)](const KernelContext& c) {
      const Tensor& out = c.output(0);
      if (out.bytes() > 0) std::memset(out.mutable_raw(), 0, out.bytes());
      dispatch_dtype(out.dtype(), [&](auto tag) {
        using T = decltype(tag);
        const int64_t rows = out.dim(0), columns = out.dim(1), shift = std::clamp(diagonal, -rows, columns);
        for (int64_t i = std::max<int64_t>(0, -shift); i < rows && i + shift < columns; ++i)
          out.mutable_data<T>()[i * columns + i + shift] = static_cast<T>(1.0f);
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_shape_ops(OpRegistry& registry) {
  register_view(registry, "Reshape", 2, 2, infer_reshape);
  register_view(registry, "Flatten", 1, 1, infer_flatten);
  register_view(registry, "Squeeze", 1, 2, infer_squeeze);
  register_view(registry, "Unsqueeze", 2, 2, infer_unsqueeze);
  register_shape(registry);
  register_constant(registry);
  register_range(registry);
  register_eye_like(registry);
}

}  // namespace ds
