// Arithmetic of two or more operands with numpy broadcasting: Add, Sub, Mul, Div, Mod, Pow, PRelu, and the
// variadic Min, Max, Sum, Mean.
#include "kernels/binary.h"
#include "kernels/compute_type.h"
#include "libds/ops/cuda.h"
#include "libds/ops/elementwise.h"
#include "libds/ops/int_arith.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::Binary;
using kernels::Broadcast;
using ops::IntElement;

bool is_numeric(DType t) { return is_float(t) || is_int(t); }

// Calls f with a value of the type, for every numeric type.
template <typename F>
void dispatch_numeric(DType dtype, F&& f) {
  dispatch_dtype(dtype, [&](auto tag) {
    if constexpr (!std::is_same_v<decltype(tag), bool>) f(tag);
  });
}

// --- inference -----------------------------------------------------------------------------------

void infer_arithmetic(InferContext& c) {
  if (!is_numeric(c.dtype(0))) c.error("input 0 ('{}') has type {}, which this operator does not take", c.input(0).name, dtype_name(c.dtype(0)));
  ops::require_same_dtype(c);
  c.set_output(0, c.dtype(0), ops::broadcast_inputs(c));
}

// Two operands, when both are known numbers; else nullopt, and the caller tries symbols.
template <typename F>
std::optional<IntElement> on_numbers(std::span<const IntElement> x, F&& f) {
  if (!x[0].known || !x[1].known) return std::nullopt;
  int64_t r;
  if (f(x[0].value, x[1].value, &r)) return std::nullopt;  // overflow
  return IntElement::of(r);
}

bool not_negative(const IntElement& e) { return !e.known || e.value >= 0; }

std::optional<IntElement> int_add(InferContext& c, std::span<const IntElement> x) {
  if (auto r = on_numbers(x, [](int64_t a, int64_t b, int64_t* o) { return __builtin_add_overflow(a, b, o); })) return r;
  if (x[0].is(0)) return x[1];
  if (x[1].is(0)) return x[0];
  if (not_negative(x[0]) && not_negative(x[1])) return IntElement::of(c.fresh_dim());
  return std::nullopt;
}

std::optional<IntElement> int_sub(InferContext&, std::span<const IntElement> x) {
  if (auto r = on_numbers(x, [](int64_t a, int64_t b, int64_t* o) { return __builtin_sub_overflow(a, b, o); })) return r;
  if (x[1].is(0)) return x[0];
  if (x[0].same(x[1])) return IntElement::of(int64_t{0});
  return std::nullopt;
}

std::optional<IntElement> int_mul(InferContext& c, std::span<const IntElement> x) {
  if (auto r = on_numbers(x, [](int64_t a, int64_t b, int64_t* o) { return __builtin_mul_overflow(a, b, o); })) return r;
  if (x[0].is(1) || x[1].is(0)) return x[1];
  if (x[1].is(1) || x[0].is(0)) return x[0];
  if (not_negative(x[0]) && not_negative(x[1])) return IntElement::of(c.fresh_dim());
  return std::nullopt;
}

std::optional<IntElement> int_div(InferContext& c, std::span<const IntElement> x) {
  if (x[1].is(1)) return x[0];
  if (x[1].is(0)) return std::nullopt;
  if (x[0].known && x[1].known) return x[1].value == -1 ? std::nullopt : std::optional(IntElement::of(x[0].value / x[1].value));
  if (not_negative(x[0]) && not_negative(x[1])) return IntElement::of(c.fresh_dim());
  return std::nullopt;
}

std::optional<IntElement> int_mod(InferContext&, std::span<const IntElement> x) {
  if (!x[0].known || !x[1].known || x[0].value < 0 || x[1].value <= 0) return std::nullopt;
  return IntElement::of(x[0].value % x[1].value);
}

// Min and Max of any number of operands.
template <bool kMin>
std::optional<IntElement> int_extreme(InferContext& c, std::span<const IntElement> x) {
  IntElement best = x[0];
  for (const IntElement& e : x.subspan(1)) {
    if (best.same(e)) continue;
    if (best.known && e.known) best = IntElement::of(kMin ? std::min(best.value, e.value) : std::max(best.value, e.value));
    else if (!kMin && e.known && e.value <= 0) continue;        // a dimension is at least 0
    else if (!kMin && best.known && best.value <= 0) best = e;
    else if (not_negative(best) && not_negative(e)) best = IntElement::of(c.fresh_dim());
    else return std::nullopt;
  }
  return best;
}

std::optional<IntElement> int_sum(InferContext& c, std::span<const IntElement> x) {
  IntElement sum = x[0];
  for (const IntElement& e : x.subspan(1)) {
    const IntElement pair[] = {sum, e};
    const auto next = int_add(c, pair);
    if (!next) return std::nullopt;
    sum = *next;
  }
  return sum;
}

// --- kernels -------------------------------------------------------------------------------------

void run_portable(Binary op, const Broadcast& space, const KernelContext& c) {
  dispatch_numeric(c.input(0).dtype(), [&](auto tag) {
    using T = decltype(tag);
    kernels::binary<T>(op, space, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>());
  });
}

void run_avx2(Binary op, const Broadcast& space, const KernelContext& c) {
  kernels::avx2::binary(op, space, c.input(0).data<float>(), c.input(1).data<float>(), c.output(0).mutable_data<float>());
}

std::string declines_avx2(const KernelQuery& q) {
  return ops::require(q.inputs.size() == 2 && q.in(0).dtype == DType::kF32, "needs two f32 operands");
}

// Equal shapes: any layout will do, because 0 op 0 = 0 keeps the padding of blocked layouts zero.
KernelDef same_shape_kernel(Binary op, Isa isa) {
  KernelDef k;
  k.name = isa == Isa::kAvx2 ? "avx2/binary_same_shape" : "portable/binary_same_shape";
  k.isa = isa;
  k.in_place = {{0, 0}, {1, 0}};
  k.layout_agnostic = k.order_agnostic = true;
  k.decline = [isa](const KernelQuery& q) {
    if (isa == Isa::kAvx2)
      if (std::string reason = declines_avx2(q); !reason.empty()) return reason;
    return ops::require(q.inputs.size() == 2 && q.in(0).shape == q.in(1).shape, "shapes differ");
  };
  k.create = [op, isa](const KernelQuery& q) {
    const int64_t n = static_cast<int64_t>(q.out(0).bytes() / dtype_size(q.out(0).dtype));  // with padding
    const int64_t* dims[] = {&n, &n};
    const Broadcast space = kernels::make_broadcast(1, &n, 2, dims);
    return make_kernel([op, space, run = isa == Isa::kAvx2 ? run_avx2 : run_portable](const KernelContext& c) { run(op, space, c); });
  };
  return k;
}

KernelDef avx2_kernel(Binary op) {
  KernelDef k;
  k.name = "avx2/binary";
  k.isa = Isa::kAvx2;
  k.in_place = {{0, 0}, {1, 0}};
  k.order_agnostic = true;
  k.decline = [](const KernelQuery& q) {
    const std::string reason = declines_avx2(q);
    return reason.empty() ? ops::rank_fits_broadcast(q) : reason;
  };
  k.create = [op](const KernelQuery& q) {
    return make_kernel([op, space = ops::broadcast_space(q, {0, 1})](const KernelContext& c) { run_avx2(op, space, c); });
  };
  return k;
}

// Best first: f32 before any type, equal shapes (which allow any layout) before broadcasting.
std::vector<KernelDef> fast_kernels(Binary op) {
  if (op == Binary::kDiv || op == Binary::kPRelu) return {avx2_kernel(op)};  // 0 / 0 would spoil the padding
  return {same_shape_kernel(op, Isa::kAvx2), avx2_kernel(op), same_shape_kernel(op, Isa::kPortable)};
}

KernelDef binary_kernel(std::function<Binary(const Node&)> op_of) {
  KernelDef k;
  k.name = "portable/binary";
  k.in_place = {{0, 0}, {1, 0}};
  k.decline = ops::rank_fits_broadcast;
  k.create = [op_of = std::move(op_of)](const KernelQuery& q) {
    const Broadcast space = ops::broadcast_space(q, {0, 1});
    return make_kernel([op = op_of(q.node), space](const KernelContext& c) { run_portable(op, space, c); });
  };
  return k;
}

// Exponents come as f32, f64, i32, i64 and u64; others are converted without loss.
Tensor exponents(const Tensor& t) {
  switch (t.dtype()) {
    case DType::kF16: case DType::kBF16: return t.cast(DType::kF32);
    case DType::kI8: case DType::kI16: case DType::kU8: case DType::kU16: return t.cast(DType::kI32);
    case DType::kU32: return t.cast(DType::kI64);
    default: return t;
  }
}

KernelDef power_kernel() {
  KernelDef k;
  k.name = "portable/pow";
  k.in_place = {{0, 0}};
  k.decline = ops::rank_fits_broadcast;
  k.create = [](const KernelQuery& q) {
    const Broadcast space = ops::broadcast_space(q, {0, 1});
    return make_kernel([space](const KernelContext& c) {
      const Tensor exponent = exponents(c.input(1));
      dispatch_numeric(c.input(0).dtype(), [&](auto base) {
        using T = decltype(base);
        if constexpr (!std::is_integral_v<T> || (std::is_signed_v<T> && sizeof(T) >= 4))
          dispatch_numeric(exponent.dtype(), [&](auto tag) {
            using E = decltype(tag);
            if constexpr (!kernels::is_half_v<E> && (!std::is_integral_v<E> || sizeof(E) == 8 || std::is_same_v<E, int32_t>))
              kernels::power<T, E>(space, c.input(0).data<T>(), exponent.data<E>(), c.output(0).mutable_data<T>());
          });
      });
    });
  };
  return k;
}

// Left fold over any number of operands; `mean` divides at the end. Only operand 0 may be in place:
// the output is overwritten before the third operand is read.
KernelDef fold_kernel(Binary op, bool mean) {
  KernelDef k;
  k.name = "portable/fold";
  k.in_place = {{0, 0}};
  k.decline = ops::rank_fits_broadcast;
  k.create = [op, mean](const KernelQuery& q) {
    KernelQuery pair = q;  // output so far, next operand
    std::vector<Broadcast> spaces;
    if (q.inputs.size() > 1) spaces.push_back(ops::broadcast_space(q, {0, 1}));
    pair.inputs[0].shape = q.out(0).shape;
    for (size_t i = 2; i < q.inputs.size(); ++i) spaces.push_back(ops::broadcast_space(pair, {0, i}));
    return make_kernel([op, mean, spaces](const KernelContext& c) {
      dispatch_numeric(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        T* out = c.output(0).mutable_data<T>();
        const T* first = c.input(0).data<T>();
        if (spaces.empty() && out != first) std::copy(first, first + c.input(0).numel(), out);
        for (size_t i = 0; i < spaces.size(); ++i)
          kernels::binary<T>(op, spaces[i], i == 0 ? first : out, c.input(i + 1).data<T>(), out);
        if constexpr (!std::is_integral_v<T>)
          if (mean) kernels::scale(c.output(0).numel(), out, 1.0 / static_cast<double>(spaces.size() + 1), out);
      });
    });
  };
  return k;
}

// --- gradients -----------------------------------------------------------------------------------

// d_input(i) = sum of `full` (of the output's shape) over what was broadcast.
void set_summed(GradContext& g, size_t i, ValueId full) { g.set_d_input(i, g.sum_to(full, g.shape(g.input(i)))); }

void grad_add(GradContext& g) {
  for (size_t i = 0; i < g.node().inputs.size(); ++i)
    if (g.needs(i)) set_summed(g, i, g.d_output(0));
}

void grad_mean(GradContext& g) {
  const size_t count = g.node().inputs.size();
  const ValueId d = g.emit("Mul", {g.d_output(0), g.scalar(1.0 / static_cast<double>(count), g.dtype(g.output(0)))});
  for (size_t i = 0; i < count; ++i)
    if (g.needs(i)) set_summed(g, i, d);
}

void grad_sub(GradContext& g) {
  if (g.needs(0)) set_summed(g, 0, g.d_output(0));
  if (g.needs(1)) set_summed(g, 1, g.emit("Neg", {g.d_output(0)}));
}

void grad_mul(GradContext& g) {
  for (size_t i : {0, 1})
    if (g.needs(i)) set_summed(g, i, g.emit("Mul", {g.d_output(0), g.input(1 - i)}));
}

// y = a / b: d_a = d_y / b, d_b = -d_a y.
void grad_div(GradContext& g) {
  const ValueId d_a = g.emit("Div", {g.d_output(0), g.input(1)});
  if (g.needs(0)) set_summed(g, 0, d_a);
  if (g.needs(1)) set_summed(g, 1, g.emit("Neg", {g.emit("Mul", {d_a, g.output(0)})}));
}

// y = a - q b with q = trunc(a / b) or floor(a / b), in any case (a - y) / b.
void grad_mod(GradContext& g) {
  if (g.needs(0)) set_summed(g, 0, g.d_output(0));
  if (!g.needs(1)) return;
  const ValueId quotient = g.emit("Div", {g.emit("Sub", {g.input(0), g.output(0)}), g.input(1)});
  set_summed(g, 1, g.emit("Neg", {g.emit("Mul", {g.d_output(0), g.emit("Round", {quotient})})}));
}

// y = a ^ b: d_a = d_y b a^(b-1), d_b = d_y y ln a.
void grad_pow(GradContext& g) {
  const DType dtype = g.dtype(g.input(0));
  ValueId exponent = g.input(1);
  if (g.dtype(exponent) != dtype) exponent = g.emit("Cast", {exponent}, {{"to", static_cast<int64_t>(dtype)}});
  if (g.needs(0)) {
    const ValueId lower = g.emit("Pow", {g.input(0), g.emit("Sub", {exponent, g.scalar(1, dtype)})});
    set_summed(g, 0, g.emit("Mul", {g.emit("Mul", {g.d_output(0), exponent}), lower}));
  }
  if (g.needs(1)) set_summed(g, 1, g.emit("Mul", {g.emit("Mul", {g.d_output(0), g.output(0)}), g.emit("Log", {g.input(0)})}));
}

// Flows to the operand that was chosen; among equal ones to the first.
void grad_extreme(GradContext& g) {
  const ValueId zero = g.scalar(0, g.dtype(g.output(0)));
  ValueId taken = kNone;
  const size_t count = g.node().inputs.size();
  for (size_t i = 0; i < count; ++i) {
    ValueId chosen = g.emit("Equal", {g.input(i), g.output(0)});
    if (taken != kNone) chosen = g.emit("And", {chosen, g.emit("Not", {taken})});
    if (i + 1 < count) taken = taken == kNone ? chosen : g.emit("Or", {taken, chosen});
    if (g.needs(i)) set_summed(g, i, g.emit("Where", {chosen, g.d_output(0), zero}));
  }
}

void grad_prelu(GradContext& g) {
  const DType dtype = g.dtype(g.output(0));
  const ValueId zero = g.scalar(0, dtype);
  const ValueId negative = g.emit("Less", {g.input(0), zero});
  if (g.needs(0)) {
    const ValueId slope = g.emit("Where", {negative, g.input(1), g.scalar(1, dtype)});
    g.set_d_input(0, g.emit("Mul", {g.d_output(0), slope}));
  }
  if (g.needs(1)) set_summed(g, 1, g.emit("Mul", {g.d_output(0), g.emit("Where", {negative, g.input(0), zero})}));
}

// --- registration --------------------------------------------------------------------------------

void register_binary(OpRegistry& registry, const char* name, Binary op, GradFn grad, ops::IntRule rule) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 2;
  def.infer = [rule = std::move(rule)](InferContext& c) {
    infer_arithmetic(c);
    ops::propagate_ints(c, rule);
  };
  def.grad = std::move(grad);
  def.kernels = ops::cuda_kernels(name);
  for (KernelDef& k : fast_kernels(op)) def.kernels.push_back(std::move(k));
  def.kernels.push_back(binary_kernel([op](const Node&) { return op; }));
  registry.add(std::move(def));
}

void register_fold(OpRegistry& registry, const char* name, Binary op, bool mean, GradFn grad, ops::IntRule rule) {
  OpDef def;
  def.name = name;
  def.min_inputs = 1;
  def.max_inputs = -1;
  def.infer = [rule = std::move(rule), mean](InferContext& c) {
    if (mean) c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
    infer_arithmetic(c);
    if (rule) ops::propagate_ints(c, rule);
  };
  def.grad = std::move(grad);
  if (!mean) def.kernels = fast_kernels(op);
  def.kernels.push_back(fold_kernel(op, mean));
  registry.add(std::move(def));
}

void register_mod(OpRegistry& registry) {
  OpDef def;
  def.name = "Mod";
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    infer_arithmetic(c);
    const int64_t fmod = c.node().attr_int("fmod", 0);
    if (fmod != 0 && fmod != 1) c.error("fmod is {}, expected 0 or 1", fmod);
    ops::propagate_ints(c, int_mod);
  };
  def.grad = grad_mod;
  def.kernels = {binary_kernel([](const Node& n) { return n.attr_int("fmod", 0) != 0 ? Binary::kFmod : Binary::kMod; })};
  registry.add(std::move(def));
}

void register_pow(OpRegistry& registry) {
  OpDef def;
  def.name = "Pow";
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16, DType::kI32, DType::kI64});
    if (!is_numeric(c.dtype(1))) c.error("exponents of type {} are not supported", dtype_name(c.dtype(1)));
    c.set_output(0, c.dtype(0), ops::broadcast_inputs(c));
  };
  def.grad = grad_pow;
  def.kernels = {power_kernel()};
  registry.add(std::move(def));
}

void register_prelu(OpRegistry& registry) {
  OpDef def;
  def.name = "PRelu";
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    infer_arithmetic(c);
    // The slope broadcasts to x, not the other way round.
    if (c.has_dims(0)) c.set_output(0, c.dtype(0), c.dims(0));
  };
  def.grad = grad_prelu;
  def.kernels = fast_kernels(Binary::kPRelu);
  def.kernels.push_back(binary_kernel([](const Node&) { return Binary::kPRelu; }));
  registry.add(std::move(def));
}

}  // namespace

void register_binary_ops(OpRegistry& registry) {
  register_binary(registry, "Add", Binary::kAdd, grad_add, int_add);
  register_binary(registry, "Sub", Binary::kSub, grad_sub, int_sub);
  register_binary(registry, "Mul", Binary::kMul, grad_mul, int_mul);
  register_binary(registry, "Div", Binary::kDiv, grad_div, int_div);
  register_fold(registry, "Min", Binary::kMin, false, grad_extreme, int_extreme<true>);
  register_fold(registry, "Max", Binary::kMax, false, grad_extreme, int_extreme<false>);
  register_fold(registry, "Sum", Binary::kAdd, false, grad_add, int_sum);
  register_fold(registry, "Mean", Binary::kAdd, true, grad_mean, nullptr);
  register_mod(registry);
  register_pow(registry);
  register_prelu(registry);
}

}  // namespace ds
