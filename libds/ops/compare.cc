// Comparisons, logic, Where, IsNaN, IsInf. None but Where has a gradient: their outputs are steps.
#include "kernels/compare.h"

#include <map>

#include "libds/ops/elementwise.h"
#include "libds/ops/int_arith.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::Broadcast;
using kernels::Compare;
using kernels::Logic;
using ops::IntElement;

// Sizes are never negative, so a symbol against a negative number is decided too.
std::optional<bool> decide(Compare op, const IntElement& a, const IntElement& b) {
  const bool equal = a.same(b);
  bool less;
  if (equal) less = false;
  else if (a.known && b.known) less = a.value < b.value;
  else if (a.known && a.value < 0) less = true;
  else if (b.known && b.value < 0) less = false;
  else return std::nullopt;
  switch (op) {
    case Compare::kEqual: return equal;
    case Compare::kGreater: return !equal && !less;
    case Compare::kGreaterOrEqual: return !less;
    case Compare::kLess: return less;
    case Compare::kLessOrEqual: return less || equal;
  }
  return std::nullopt;
}

// Strings by number: equal strings get equal ones.
KernelDef string_equal() {
  KernelDef k;
  k.name = "portable/equal_strings";
  k.takes_objects = true;
  k.decline = [](const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kString, "no strings"); };
  k.create = [](const KernelQuery& q) {
    return make_kernel([space = ops::broadcast_space(q, {0, 1})](const KernelContext& c) {
      std::map<std::string_view, int64_t> numbers;
      std::vector<int64_t> operands[2];
      for (size_t i : {0, 1})
        for (const std::string& s : c.input(i).strings())
          operands[i].push_back(numbers.emplace(s, static_cast<int64_t>(numbers.size())).first->second);
      kernels::compare<int64_t>(Compare::kEqual, space, operands[0].data(), operands[1].data(), c.output(0).mutable_data<bool>());
    });
  };
  return k;
}

void register_compare(OpRegistry& registry, const char* name, Compare op) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 2;
  def.stops_gradient = true;
  def.infer = [op](InferContext& c) {
    const bool strings = c.dtype(0) == DType::kString && op == Compare::kEqual;
    if ((dtype_size(c.dtype(0)) == 0 && !strings) || is_float8(c.dtype(0)) || (c.dtype(0) == DType::kBool && op != Compare::kEqual))
      c.error("input 0 ('{}') has type {}, which this operator does not take", c.input(0).name, dtype_name(c.dtype(0)));
    ops::require_same_dtype(c);
    c.set_output(0, DType::kBool, ops::broadcast_inputs(c));
    ops::propagate_ints(c, [op](InferContext&, std::span<const IntElement> x) -> std::optional<IntElement> {
      const auto result = decide(op, x[0], x[1]);
      return result ? std::optional(IntElement::of(int64_t{*result})) : std::nullopt;
    });
  };
  KernelDef k;
  k.name = "portable/compare";
  k.decline = ops::rank_fits_broadcast;
  k.create = [op](const KernelQuery& q) {
    return make_kernel([op, space = ops::broadcast_space(q, {0, 1})](const KernelContext& c) {
      dispatch_dtype(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::compare<T>(op, space, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<bool>());
      });
    });
  };
  def.kernels = {k};
  if (op == Compare::kEqual) def.kernels.push_back(string_equal());
  registry.add(std::move(def));
}

bool evaluate(Logic op, bool a, bool b) { return op == Logic::kAnd ? a && b : op == Logic::kOr ? a || b : a != b; }

void register_logic(OpRegistry& registry, const char* name, Logic op) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 2;
  def.stops_gradient = true;
  def.infer = [op](InferContext& c) {
    for (size_t i : {0, 1}) c.require_dtype(i, {DType::kBool});
    c.set_output(0, DType::kBool, ops::broadcast_inputs(c));
    ops::propagate_ints(c, [op](InferContext&, std::span<const IntElement> x) -> std::optional<IntElement> {
      if (!x[0].known || !x[1].known) return std::nullopt;
      return IntElement::of(int64_t{evaluate(op, x[0].value != 0, x[1].value != 0)});
    });
  };
  KernelDef k;
  k.name = "portable/logic";
  k.in_place = {{0, 0}, {1, 0}};
  k.decline = ops::rank_fits_broadcast;
  k.create = [op](const KernelQuery& q) {
    return make_kernel([op, space = ops::broadcast_space(q, {0, 1})](const KernelContext& c) {
      kernels::logic(op, space, c.input(0).data<bool>(), c.input(1).data<bool>(), c.output(0).mutable_data<bool>());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void register_not(OpRegistry& registry) {
  OpDef def;
  def.name = "Not";
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kBool});
    ops::infer_same_as_input(c);
    ops::propagate_ints(c, [](InferContext&, std::span<const IntElement> x) -> std::optional<IntElement> {
      return x[0].known ? std::optional(IntElement::of(int64_t{x[0].value == 0})) : std::nullopt;
    });
  };
  KernelDef k;
  k.name = "portable/not";
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      kernels::logical_not(c.input(0).numel(), c.input(0).data<bool>(), c.output(0).mutable_data<bool>());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void grad_where(GradContext& g) {
  const ValueId zero = g.scalar(0, g.dtype(g.output(0)));
  if (g.needs(1)) g.set_d_input(1, g.sum_to(g.emit("Where", {g.input(0), g.d_output(0), zero}), g.shape(g.input(1))));
  if (g.needs(2)) g.set_d_input(2, g.sum_to(g.emit("Where", {g.input(0), zero, g.d_output(0)}), g.shape(g.input(2))));
}

void register_where(OpRegistry& registry) {
  OpDef def;
  def.name = "Where";
  def.moves_elements = true;
  def.min_inputs = def.max_inputs = 3;
  def.grad = grad_where;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kBool});
    ops::require_same_dtype(c, 1);
    c.set_output(0, c.dtype(1), ops::broadcast_inputs(c));
    ops::propagate_ints(c, [](InferContext&, std::span<const IntElement> x) -> std::optional<IntElement> {
      if (x[1].same(x[2])) return x[1];
      if (!x[0].known) return std::nullopt;
      return x[0].value != 0 ? x[1] : x[2];
    });
  };
  KernelDef k;
  k.name = "portable/where";
  k.in_place = {{1, 0}, {2, 0}};
  k.decline = ops::rank_fits_broadcast;
  k.create = [](const KernelQuery& q) {
    const size_t element = dtype_size(q.out(0).dtype);
    return make_kernel([element, space = ops::broadcast_space(q, {0, 1, 2})](const KernelContext& c) {
      kernels::select(space, element, c.input(0).data<bool>(), c.input(1).raw(), c.input(2).raw(), c.output(0).mutable_raw());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void register_classify(OpRegistry& registry, const char* name, std::function<void(const Node&, const Tensor&, bool*)> run) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 1;
  def.stops_gradient = true;
  def.infer = [](InferContext& c) {
    if (!is_float(c.dtype(0)) && !is_float8(c.dtype(0)))
      c.error("input 0 ('{}') has type {}, which this operator does not take", c.input(0).name, dtype_name(c.dtype(0)));
    c.set_output(0, DType::kBool, c.input(0).dims);
  };
  KernelDef k;
  k.name = "portable/classify";
  k.takes_packed = true;
  k.create = [run = std::move(run)](const KernelQuery& q) {
    return make_kernel([run, node = q.node](const KernelContext& c) { run(node, c.input(0), c.output(0).mutable_data<bool>()); });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// 16-bit floats included; 8-bit ones are widened first.
Tensor computable(const Tensor& x) {
  return is_float8(x.dtype()) ? Tensor::vector<double>(x.to_doubles()) : x;
}

template <typename F>
void dispatch_any_float(DType dtype, F&& f) {
  dispatch_dtype(dtype, [&](auto tag) {
    if constexpr (!std::is_integral_v<decltype(tag)>) f(tag);
  });
}

}  // namespace

void register_compare_ops(OpRegistry& registry) {
  register_compare(registry, "Equal", Compare::kEqual);
  register_compare(registry, "Greater", Compare::kGreater);
  register_compare(registry, "GreaterOrEqual", Compare::kGreaterOrEqual);
  register_compare(registry, "Less", Compare::kLess);
  register_compare(registry, "LessOrEqual", Compare::kLessOrEqual);
  register_logic(registry, "And", Logic::kAnd);
  register_logic(registry, "Or", Logic::kOr);
  register_logic(registry, "Xor", Logic::kXor);
  register_not(registry);
  register_where(registry);
  register_classify(registry, "IsNaN", [](const Node&, const Tensor& given, bool* out) {
    const Tensor x = computable(given);
    dispatch_any_float(x.dtype(), [&](auto tag) { kernels::is_nan(x.numel(), x.data<decltype(tag)>(), out); });
  });
  register_classify(registry, "IsInf", [](const Node& n, const Tensor& given, bool* out) {
    const Tensor x = computable(given);
    const bool positive = n.attr_int("detect_positive", 1) != 0, negative = n.attr_int("detect_negative", 1) != 0;
    dispatch_any_float(x.dtype(), [&](auto tag) { kernels::is_inf(x.numel(), x.data<decltype(tag)>(), positive, negative, out); });
  });
}

}  // namespace ds
