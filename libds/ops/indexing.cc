// Operators that read or write at positions given by index tensors: Gather, GatherElements, GatherND,
// ScatterElements, ScatterND, OneHot, NonZero, and the internal GatherGrad.
#include <cstring>
#include <numeric>

#include "kernels/indexing.h"
#include "kernels/layout_moves.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using ops::strides_of;

int64_t product(const Shape& s, size_t begin, size_t end) {
  int64_t n = 1;
  for (size_t i = begin; i < end; ++i) n *= s[i];
  return n;
}

// Calls f(pointer to the indices), typed.
template <typename F>
void dispatch_index(const Tensor& indices, F&& f) {
  if (indices.dtype() == DType::kI32) f(indices.data<int32_t>());
  else f(indices.data<int64_t>());
}

template <typename I>
void check_indices(int64_t n, const I* indices, int64_t dim) {
  const int64_t at = kernels::first_outside(n, indices, dim);
  if (at >= 0) bad_data("index {} at position {} is outside [{}, {})", static_cast<int64_t>(indices[at]), at, -dim, dim);
}

kernels::ScatterReduction reduction_of(const Node& node) {
  const std::string name = node.attr_string("reduction", "none");
  if (name == "none") return kernels::ScatterReduction::kNone;
  if (name == "add") return kernels::ScatterReduction::kAdd;
  if (name == "mul") return kernels::ScatterReduction::kMul;
  if (name == "max") return kernels::ScatterReduction::kMax;
  if (name == "min") return kernels::ScatterReduction::kMin;
  bad_data("unknown reduction '{}'", name);
}

// Strings and the bits of 8-bit floats can be moved, not added up.
void check_reduction(InferContext& c) {
  if (reduction_of(c.node()) == kernels::ScatterReduction::kNone) return;
  const DType dtype = c.dtype(0);
  if (is_object(dtype) || is_float8(dtype) || is_packed(dtype))
    fail(ExitCode::kUnsupported, "reduction '{}' of {} is not supported", c.node().attr_string("reduction", ""), dtype_name(dtype));
}

ValueId filled(GradContext& g, double x, const Shape& shape, DType dtype) { return g.emit("Expand", {g.scalar(x, dtype), g.ints(shape)}); }
ValueId zeros(GradContext& g, const Shape& shape, DType dtype) { return filled(g, 0, shape, dtype); }

// Of ScatterElements and ScatterND. `gather` and `scatter` name the pair of operators that share `attrs`.
//
// mul: an update's gradient is the product of all others that go to its element. That is their product over the
// update's own value, but with zeros left out of it: one zero among the others makes it 0.
// max, min: the gradient is shared out evenly among those that reach the extreme.
void grad_scatter(GradContext& g, const char* gather, const char* scatter, const Attributes& attrs) {
  const std::string reduction = g.node().attr_string("reduction", "none");
  const ValueId d = g.d_output(0), data = g.input(0), indices = g.input(1), updates = g.input(2), y = g.output(0);
  if (d == kNone) return;
  const Shape data_shape = g.shape(data), updates_shape = g.shape(updates);
  const DType dtype = g.dtype(data);
  const auto read = [&](ValueId x) { return g.emit(gather, {x, indices}, attrs); };
  const auto write = [&](ValueId base, ValueId x, const char* how) {
    Attributes all = attrs;
    all["reduction"] = std::string(how);
    return g.emit(scatter, {base, indices, x}, all);
  };
  const auto as_number = [&](ValueId flag) { return g.emit("Cast", {flag}, {{"to", static_cast<int64_t>(dtype)}}); };
  if (reduction == "none" || reduction == "add") {
    if (g.needs(0)) g.set_d_input(0, reduction == "add" ? d : write(d, zeros(g, updates_shape, dtype), "none"));
    if (g.needs(2)) g.set_d_input(2, read(d));
  } else if (reduction == "mul") {
    if (g.needs(0)) g.set_d_input(0, g.emit("Mul", {d, write(filled(g, 1, data_shape, dtype), updates, "mul")}));
    if (!g.needs(2)) return;
    const ValueId is_zero = g.emit("Equal", {updates, g.scalar(0, dtype)}), zero = as_number(is_zero);
    const ValueId factor = g.emit("Where", {is_zero, g.scalar(1, dtype), updates});
    const ValueId product = read(g.emit("Mul", {d, write(data, factor, "mul")}));
    const ValueId other_zeros = g.emit("Sub", {read(write(zeros(g, data_shape, dtype), zero, "add")), zero});
    g.set_d_input(2, g.emit("Where", {g.emit("Greater", {other_zeros, g.scalar(0, dtype)}), g.scalar(0, dtype), g.emit("Div", {product, factor})}));
  } else {
    const ValueId kept = as_number(g.emit("Equal", {data, y})), reached = as_number(g.emit("Equal", {updates, read(y)}));
    const ValueId share = g.emit("Div", {d, write(kept, reached, "add")});
    if (g.needs(0)) g.set_d_input(0, g.emit("Mul", {share, kept}));
    if (g.needs(2)) g.set_d_input(2, g.emit("Mul", {read(share), reached}));
  }
}

// --- Gather -------------------------------------------------------------------------------------

void infer_gather(InferContext& c) {
  c.require_dtype(1, {DType::kI32, DType::kI64});
  if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, c.dtype(0));
  const Dims in = c.dims(0), indices = c.dims(1);
  if (in.empty()) c.error("a scalar has nothing to gather from");
  const auto axis = static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", 0), static_cast<int64_t>(in.size())));
  Dims out(in.begin(), in.begin() + static_cast<int64_t>(axis));
  out.insert(out.end(), indices.begin(), indices.end());
  out.insert(out.end(), in.begin() + static_cast<int64_t>(axis) + 1, in.end());
  std::optional<Dims> ints;
  const auto whole = in.size() == 1 && is_int(c.dtype(0)) ? c.ints(0) : std::nullopt;
  const auto picks = whole && indices.size() <= 1 ? c.concrete_ints(1) : std::nullopt;
  if (picks) {
    const auto n = static_cast<int64_t>(whole->size());
    check_indices(static_cast<int64_t>(picks->size()), picks->data(), n);
    ints.emplace();
    for (int64_t i : *picks) ints->push_back((*whole)[static_cast<size_t>(i < 0 ? i + n : i)]);
  }
  c.set_output(0, c.dtype(0), std::move(out));
  if (ints) c.set_output_ints(0, *ints);
}

void register_gather(OpRegistry& registry) {
  OpDef def;
  def.name = "Gather";
  def.moves_elements = true;
  def.min_inputs = def.max_inputs = 2;
  def.infer = infer_gather;
  def.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    const Shape in = g.shape(g.input(0));
    g.set_d_input(0, g.emit("GatherGrad", {g.d_output(0), g.input(1)},
                            {{"axis", ops::normalize_axis(g.node().attr_int("axis", 0), static_cast<int64_t>(in.size()))}, {"dims", in}}));
  };
  KernelDef k;
  k.name = "portable/gather";
  k.create = [](const KernelQuery& q) {
    const Shape& in = q.in(0).shape;
    const auto axis = static_cast<size_t>(ops::normalize_axis(q.node.attr_int("axis", 0), q.in(0).rank()));
    const int64_t outer = product(in, 0, axis), dim = in[axis], inner = product(in, axis + 1, in.size());
    return make_kernel([=](const KernelContext& c) {
      const int64_t n = c.input(1).numel();
      if (c.output(0).numel() == 0) return;
      dispatch_index(c.input(1), [&](const auto* indices) {
        check_indices(n, indices, dim);
        kernels::gather(outer, dim, inner, dtype_size(c.input(0).dtype()), n, indices, c.input(0).raw(), c.output(0).mutable_raw());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef grad;  // (d_y, indices) -> d_x of shape `dims`, gathered along `axis`
  grad.domain = Graph::kInternalDomain;
  grad.name = "GatherGrad";
  grad.min_inputs = grad.max_inputs = 2;
  grad.infer = [](InferContext& c) {
    c.require_dtype(0, ops::kFloats);
    c.require_dtype(1, {DType::kI32, DType::kI64});
    c.set_output(0, c.dtype(0), to_dims(c.node().attr_ints("dims")));
  };
  KernelDef gk;
  gk.name = "portable/gather_grad";
  gk.create = [](const KernelQuery& q) {
    const Shape& in = q.out(0).shape;
    const auto axis = static_cast<size_t>(q.node.attr_int("axis", 0));
    const int64_t outer = product(in, 0, axis), dim = in[axis], inner = product(in, axis + 1, in.size());
    return make_kernel([=](const KernelContext& c) {
      const int64_t n = c.input(1).numel();
      dispatch_index(c.input(1), [&](const auto* indices) {
        check_indices(n, indices, dim);
        dispatch_float(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          kernels::gather_grad(outer, dim, inner, n, indices, c.input(0).data<T>(), c.output(0).mutable_data<T>());
        });
      });
    });
  };
  grad.kernels = {gk};
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

// --- GatherElements, ScatterElements ------------------------------------------------------------------

kernels::ElementsSpace elements_space(const Node& node, const Shape& data, const Shape& indices) {
  kernels::ElementsSpace s;
  s.rank = static_cast<int>(data.size());
  s.axis = static_cast<int>(ops::normalize_axis(node.attr_int("axis", 0), s.rank));
  std::copy(indices.begin(), indices.end(), s.size);
  std::copy(data.begin(), data.end(), s.data_size);
  return s;
}

void check_elements(InferContext& c) {
  c.require_dtype(1, {DType::kI32, DType::kI64});
  if (!c.has_dims(0) || !c.has_dims(1)) return;
  const Dims &data = c.dims(0), &indices = c.dims(1);
  if (data.empty()) c.error("a scalar has nothing to index");
  if (data.size() != indices.size()) c.error("data has rank {}, indices {}", data.size(), indices.size());
  const auto axis = static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", 0), static_cast<int64_t>(data.size())));
  for (size_t i = 0; i < data.size(); ++i)
    if (i != axis && data[i].known() && indices[i].known() && indices[i].raw > data[i].raw)
      c.error("indices are larger than data on axis {}: {} and {}", i, indices[i].raw, data[i].raw);
}

std::string elements_rank(const KernelQuery& q) {
  return ops::require(q.in(0).rank() <= kernels::ElementsSpace::kMaxRank, "rank above 8");
}

void register_elements(OpRegistry& registry) {
  OpDef gather;
  gather.name = "GatherElements";
  gather.moves_elements = true;
  gather.min_inputs = gather.max_inputs = 2;
  gather.infer = [](InferContext& c) {
    check_elements(c);
    c.set_output(0, c.dtype(0), c.input(1).dims);
  };
  gather.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    const ValueId base = zeros(g, g.shape(g.input(0)), g.dtype(g.input(0)));
    g.set_d_input(0, g.emit("ScatterElements", {base, g.input(1), g.d_output(0)},
                            {{"axis", g.node().attr_int("axis", 0)}, {"reduction", std::string("add")}}));
  };
  KernelDef k;
  k.name = "portable/gather_elements";
  k.decline = elements_rank;
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = elements_space(q.node, q.in(0).shape, q.in(1).shape)](const KernelContext& c) {
      if (c.output(0).numel() == 0) return;
      dispatch_index(c.input(1), [&](const auto* indices) {
        check_indices(c.input(1).numel(), indices, s.data_size[s.axis]);
        kernels::gather_elements(s, dtype_size(c.input(0).dtype()), indices, c.input(0).raw(), c.output(0).mutable_raw());
      });
    });
  };
  gather.kernels = {k};
  registry.add(std::move(gather));

  OpDef scatter;
  scatter.name = "ScatterElements";
  scatter.moves_elements = true;
  scatter.min_inputs = scatter.max_inputs = 3;
  scatter.infer = [](InferContext& c) {
    check_elements(c);
    check_reduction(c);
    if (c.dtype(2) != c.dtype(0)) c.error("updates have type {}, data {}", dtype_name(c.dtype(2)), dtype_name(c.dtype(0)));
    if (c.has_dims(1) && c.has_dims(2) && all_known(c.dims(1)) && all_known(c.dims(2)) && c.dims(1) != c.dims(2))
      c.error("updates are {}, indices {}", shape_string(concrete(c.dims(2))), shape_string(concrete(c.dims(1))));
    ops::infer_same_as_input(c);
  };
  scatter.grad = [](GradContext& g) { grad_scatter(g, "GatherElements", "ScatterElements", {{"axis", g.node().attr_int("axis", 0)}}); };
  KernelDef sk;
  sk.name = "portable/scatter_elements";
  sk.in_place = {{0, 0}};
  sk.decline = elements_rank;
  sk.create = [](const KernelQuery& q) {
    return make_kernel([s = elements_space(q.node, q.in(0).shape, q.in(1).shape), reduction = reduction_of(q.node)](const KernelContext& c) {
      if (c.output(0).raw() != c.input(0).raw() && c.input(0).numel() > 0)
        std::memcpy(c.output(0).mutable_raw(), c.input(0).raw(), c.input(0).bytes());
      if (c.input(1).numel() == 0) return;
      dispatch_index(c.input(1), [&](const auto* indices) {
        check_indices(c.input(1).numel(), indices, s.data_size[s.axis]);
        dispatch_dtype(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          kernels::scatter_elements(s, reduction, indices, c.input(2).data<T>(), c.output(0).mutable_data<T>());
        });
      });
    });
  };
  scatter.kernels = {sk};
  registry.add(std::move(scatter));
}

// --- GatherND, ScatterND ------------------------------------------------------------------------------

kernels::TupleSpace tuple_space(const Shape& data, const Shape& indices, int64_t batch_dims) {
  kernels::TupleSpace s;
  const auto batch = static_cast<size_t>(batch_dims);
  s.depth = static_cast<int>(indices.back());
  const Shape strides = strides_of(data);
  for (int d = 0; d < s.depth; ++d) {
    s.size[d] = data[batch + static_cast<size_t>(d)];
    s.stride[d] = strides[batch + static_cast<size_t>(d)];
  }
  s.tuples = product(indices, 0, indices.size() - 1);
  s.slice = product(data, batch + static_cast<size_t>(s.depth), data.size());
  s.tuples_per_batch = std::max<int64_t>(1, product(indices, batch, indices.size() - 1));
  s.batch_stride = product(data, batch, data.size());
  return s;
}

void check_tuples(const kernels::TupleSpace& s, const int64_t* indices) {
  const int64_t at = kernels::first_outside(s, indices);
  if (at < 0) return;
  const int64_t dim = s.size[at % s.depth];
  bad_data("index {} of tuple {} is outside [{}, {})", indices[at], at / s.depth, -dim, dim);
}

// Depth of the index tuples, checked against the data's rank; nullopt when not known.
std::optional<size_t> tuple_depth(InferContext& c, int64_t batch_dims) {
  c.require_dtype(1, {DType::kI64});
  if (!c.has_dims(0) || !c.has_dims(1)) return std::nullopt;
  const Dims &data = c.dims(0), &indices = c.dims(1);
  if (data.empty() || indices.empty()) c.error("data and indices need at least one axis");
  const auto smaller = static_cast<int64_t>(std::min(data.size(), indices.size()));
  if (batch_dims < 0 || batch_dims >= smaller) c.error("batch_dims is {} for ranks {} and {}", batch_dims, data.size(), indices.size());
  if (!indices.back().known()) return std::nullopt;
  const int64_t depth = indices.back().raw;
  if (depth < 1 || depth > static_cast<int64_t>(data.size()) - batch_dims || depth > kernels::TupleSpace::kMaxDepth)
    c.error("index tuples of {} numbers do not fit data of rank {}", depth, data.size());
  return static_cast<size_t>(depth);
}

// ScatterND has no batch_dims: the positions along the batch's axes go in front of each tuple.
ValueId with_batch_positions(GradContext& g, ValueId indices, int64_t batch_dims) {
  if (batch_dims == 0) return indices;
  Shape each = g.shape(indices);
  each.back() = 1;
  std::vector<ValueId> columns;
  for (size_t axis = 0; axis < static_cast<size_t>(batch_dims); ++axis) {
    Shape along(each.size(), 1);
    along[axis] = each[axis];
    std::vector<int64_t> positions(static_cast<size_t>(each[axis]));
    std::iota(positions.begin(), positions.end(), int64_t{0});
    columns.push_back(g.emit("Expand", {g.emit("Reshape", {g.ints(positions), g.ints(along)}), g.ints(each)}));
  }
  columns.push_back(indices);
  return g.emit("Concat", columns, {{"axis", int64_t{-1}}});
}

void register_nd(OpRegistry& registry) {
  OpDef gather;
  gather.name = "GatherND";
  gather.moves_elements = true;
  gather.min_inputs = gather.max_inputs = 2;
  gather.infer = [](InferContext& c) {
    const int64_t batch = c.node().attr_int("batch_dims", 0);
    const auto depth = tuple_depth(c, batch);
    if (!depth) return c.set_output(0, c.dtype(0));
    const Dims data = c.dims(0), indices = c.dims(1);
    for (int64_t i = 0; i < batch; ++i) {
      const Dim a = data[static_cast<size_t>(i)], b = indices[static_cast<size_t>(i)];
      if (a.known() && b.known() && a != b) c.error("batch axis {} has sizes {} and {}", i, a.raw, b.raw);
    }
    Dims out(indices.begin(), indices.end() - 1);
    out.insert(out.end(), data.begin() + batch + static_cast<int64_t>(*depth), data.end());
    c.set_output(0, c.dtype(0), std::move(out));
  };
  gather.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    const ValueId base = zeros(g, g.shape(g.input(0)), g.dtype(g.input(0)));
    const ValueId tuples = with_batch_positions(g, g.input(1), g.node().attr_int("batch_dims", 0));
    g.set_d_input(0, g.emit("ScatterND", {base, tuples, g.d_output(0)}, {{"reduction", std::string("add")}}));
  };
  KernelDef k;
  k.name = "portable/gather_nd";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = tuple_space(q.in(0).shape, q.in(1).shape, q.node.attr_int("batch_dims", 0))](const KernelContext& c) {
      check_tuples(s, c.input(1).data<int64_t>());
      kernels::gather_nd(s, dtype_size(c.input(0).dtype()), c.input(1).data<int64_t>(), c.input(0).raw(), c.output(0).mutable_raw());
    });
  };
  gather.kernels = {k};
  registry.add(std::move(gather));

  OpDef scatter;
  scatter.name = "ScatterND";
  scatter.moves_elements = true;
  scatter.min_inputs = scatter.max_inputs = 3;
  scatter.infer = [](InferContext& c) {
    const auto depth = tuple_depth(c, 0);
    check_reduction(c);
    if (c.dtype(2) != c.dtype(0)) c.error("updates have type {}, data {}", dtype_name(c.dtype(2)), dtype_name(c.dtype(0)));
    if (depth && c.has_dims(2)) {
      const Dims &data = c.dims(0), &indices = c.dims(1);
      Dims expected(indices.begin(), indices.end() - 1);
      expected.insert(expected.end(), data.begin() + static_cast<int64_t>(*depth), data.end());
      if (all_known(expected) && all_known(c.dims(2)) && expected != c.dims(2))
        c.error("updates are {}, expected {}", shape_string(concrete(c.dims(2))), shape_string(concrete(expected)));
    }
    ops::infer_same_as_input(c);
  };
  scatter.grad = [](GradContext& g) { grad_scatter(g, "GatherND", "ScatterND", {}); };
  KernelDef sk;
  sk.name = "portable/scatter_nd";
  sk.in_place = {{0, 0}};
  sk.create = [](const KernelQuery& q) {
    return make_kernel([s = tuple_space(q.in(0).shape, q.in(1).shape, 0), reduction = reduction_of(q.node)](const KernelContext& c) {
      check_tuples(s, c.input(1).data<int64_t>());
      if (c.output(0).raw() != c.input(0).raw() && c.input(0).numel() > 0)
        std::memcpy(c.output(0).mutable_raw(), c.input(0).raw(), c.input(0).bytes());
      dispatch_dtype(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::scatter_nd(s, reduction, c.input(1).data<int64_t>(), c.input(2).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  scatter.kernels = {sk};
  registry.add(std::move(scatter));
}

// --- OneHot, NonZero ------------------------------------------------------------------------------------

int64_t index_at(const Tensor& indices, int64_t i) {
  int64_t index = 0;
  dispatch_dtype(indices.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) index = static_cast<int64_t>(static_cast<float>(indices.data<T>()[i]));
    else index = static_cast<int64_t>(indices.data<T>()[i]);
  });
  return index;
}

void register_one_hot(OpRegistry& registry) {
  OpDef def;
  def.name = "OneHot";
  def.min_inputs = def.max_inputs = 3;
  def.stops_gradient = true;
  def.shape_inputs = 0b10;
  def.infer = [](InferContext& c) {
    if (!c.has_dims(0)) return c.set_output(0, c.dtype(2));
    Dim depth = c.fresh_dim();
    if (const Tensor* t = c.constant(1)) {
      if (t->numel() != 1) c.error("depth is not a scalar");
      const double d = t->to_doubles()[0];
      if (!(d >= 0) || d > 1e15) c.error("depth is {}", d);
      depth = static_cast<int64_t>(d);
    } else if (const auto ints = c.ints(1); ints && ints->size() == 1) {
      depth = (*ints)[0];
    }
    Dims out = c.dims(0);
    const auto axis = ops::normalize_axis(c.node().attr_int("axis", -1), static_cast<int64_t>(out.size()) + 1);
    out.insert(out.begin() + axis, depth);
    c.set_output(0, c.dtype(2), std::move(out));
  };
  KernelDef k;
  k.name = "portable/one_hot";
  k.create = [](const KernelQuery& q) {
    const Shape& out = q.out(0).shape;
    const auto axis = static_cast<size_t>(ops::normalize_axis(q.node.attr_int("axis", -1), q.out(0).rank()));
    const int64_t depth = out[axis], inner = product(out, axis + 1, out.size());
    return make_kernel([=](const KernelContext& c) {
      const size_t element = dtype_size(c.output(0).dtype());
      const auto* values = static_cast<const std::byte*>(c.input(2).raw());
      auto* to = static_cast<std::byte*>(c.output(0).mutable_raw());
      kernels::fill(c.output(0).numel(), element, values, to);
      for (int64_t i = 0; i < c.input(0).numel(); ++i) {
        int64_t index = index_at(c.input(0), i);
        if (index < -depth || index >= depth) continue;  // the specification: all off
        if (index < 0) index += depth;
        const int64_t at = (i / inner * depth + index) * inner + i % inner;
        std::memcpy(to + at * static_cast<int64_t>(element), values + element, element);
      }
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void register_non_zero(OpRegistry& registry) {
  OpDef def;
  def.name = "NonZero";
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.data_dependent = true;
  def.infer = [](InferContext& c) {
    const Dim rank = c.has_dims(0) ? Dim(static_cast<int64_t>(c.dims(0).size())) : c.fresh_dim();
    c.set_output(0, DType::kI64, Dims{rank, c.fresh_dim()});
  };
  KernelDef k;
  k.name = "portable/non_zero";
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      const Tensor& in = c.input(0);
      dispatch_dtype(in.dtype(), [&](auto tag) {
        using T = decltype(tag);
        const int rank = static_cast<int>(in.rank());
        const int64_t n = kernels::non_zero<T>(rank, in.shape().data(), in.numel(), in.data<T>(), 0, nullptr);
        c.allocate(0, DType::kI64, {in.rank(), n});
        kernels::non_zero<T>(rank, in.shape().data(), in.numel(), in.data<T>(), n, c.output(0).mutable_data<int64_t>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_indexing_ops(OpRegistry& registry) {
  register_gather(registry);
  register_elements(registry);
  register_nd(registry);
  register_one_hot(registry);
  register_non_zero(registry);
}

}  // namespace ds
