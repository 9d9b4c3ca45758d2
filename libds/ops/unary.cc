// Functions of one operand: activations, exponentials, trigonometry, rounding; Clip.
//
// One table row per operator. A derivative that is more than a simple rewrite is an internal operator
// <Name>Grad(operand, d_y) -> d_x, operand being the function's output or input (kernels/unary.h).
#include <limits>

#include "kernels/unary.h"
#include "kernels/unary_math.h"
#include "libds/ops/common.h"
#include "libds/ops/cuda.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::Unary;

struct UnaryOp {
  const char* name;
  Unary op;
  // Attributes that become (alpha, beta), with their defaults; null: none.
  const char* alpha = nullptr;
  float alpha_default = 0;
  const char* beta = nullptr;
  float beta_default = 0;
  bool integers = false;  // takes integers too
};

constexpr UnaryOp kUnaryOps[] = {
    {"Relu", Unary::kRelu, nullptr, 0, nullptr, 0, true},
    {"Sigmoid", Unary::kSigmoid},
    {"Tanh", Unary::kTanh},
    {"Exp", Unary::kExp},
    {"Log", Unary::kLog},
    {"Sqrt", Unary::kSqrt},
    {"Reciprocal", Unary::kReciprocal},
    {"Neg", Unary::kNeg, nullptr, 0, nullptr, 0, true},
    {"Abs", Unary::kAbs, nullptr, 0, nullptr, 0, true},
    {"Erf", Unary::kErf},
    {"Floor", Unary::kFloor},
    {"Ceil", Unary::kCeil},
    {"Round", Unary::kRound},
    {"Sign", Unary::kSign, nullptr, 0, nullptr, 0, true},
    {"Sin", Unary::kSin},
    {"Cos", Unary::kCos},
    {"Tan", Unary::kTan},
    {"Asin", Unary::kAsin},
    {"Acos", Unary::kAcos},
    {"Atan", Unary::kAtan},
    {"Sinh", Unary::kSinh},
    {"Cosh", Unary::kCosh},
    {"Asinh", Unary::kAsinh},
    {"Acosh", Unary::kAcosh},
    {"Atanh", Unary::kAtanh},
    {"LeakyRelu", Unary::kLeakyRelu, "alpha", 0.01f},
    {"Elu", Unary::kElu, "alpha", 1.0f},
    {"Celu", Unary::kCelu, "alpha", 1.0f},
    {"Selu", Unary::kSelu, "alpha", 1.67326319217681884765625f, "gamma", 1.05070102214813232421875f},
    {"ThresholdedRelu", Unary::kThresholdedRelu, "alpha", 1.0f},
    {"Softplus", Unary::kSoftplus},
    {"Softsign", Unary::kSoftsign},
    {"HardSigmoid", Unary::kHardSigmoid, "alpha", 0.2f, "beta", 0.5f},
    {"HardSwish", Unary::kHardSwish},
    {"Gelu", Unary::kGelu},  // approximate="tanh" makes it kGeluTanh
    {"Mish", Unary::kMish},
    {"Swish", Unary::kSwish, "alpha", 1.0f},
};

struct Bound {
  Unary op;
  double alpha, beta;
};

Bound bind(const UnaryOp& row, const Node& n) {
  Bound b{row.op, row.alpha == nullptr ? 0 : n.attr_float(row.alpha, row.alpha_default),
          row.beta == nullptr ? 0 : n.attr_float(row.beta, row.beta_default)};
  if (row.op == Unary::kGelu) {
    const std::string approximate = n.attr_string("approximate", "none");
    if (approximate == "tanh") b.op = Unary::kGeluTanh;
    else if (approximate != "none") bad_data("approximate is '{}', expected none or tanh", approximate);
  }
  return b;
}

// f(0) = 0 keeps the zero padding of blocked layouts.
bool keeps_zero(Unary op) {
  switch (op) {
    case Unary::kSigmoid: case Unary::kExp: case Unary::kLog: case Unary::kReciprocal: case Unary::kCos:
    case Unary::kAcos: case Unary::kCosh: case Unary::kAcosh: case Unary::kSoftplus: case Unary::kHardSigmoid:
    case Unary::kThresholdedRelu:
      return false;
    default: return true;
  }
}

// A finite derivative at 0, so that the zero padding of the incoming gradient stays zero.
bool derivative_finite_at_zero(Unary op) {
  return op != Unary::kSqrt && op != Unary::kReciprocal && op != Unary::kLog && op != Unary::kAcosh;
}

// Elements including the padding of a blocked layout.
int64_t stored_elements(const TensorDesc& d) { return static_cast<int64_t>(d.bytes() / dtype_size(d.dtype)); }

void infer_unary(const UnaryOp& row, InferContext& c) {
  if (!row.integers) c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
  else if (!is_float(c.dtype(0)) && !is_int(c.dtype(0)))
    c.error("input 0 ('{}') has type {}, which this operator does not take", c.input(0).name, dtype_name(c.dtype(0)));
  bind(row, c.node());  // checks the attributes
  ops::infer_same_as_input(c);
}

void run_unary(const Bound& f, int64_t n, const Tensor& x, const Tensor& out) {
  dispatch_dtype(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, bool>) return;
    else if constexpr (std::is_integral_v<T>) kernels::integer_unary(f.op, n, x.data<T>(), out.mutable_data<T>());
    else kernels::unary(f.op, n, x.data<T>(), out.mutable_data<T>(), f.alpha, f.beta);
  });
}

GradFn gradient_of(const UnaryOp& row) {
  switch (row.op) {
    case Unary::kNeg: return [](GradContext& g) { g.set_d_input(0, g.emit("Neg", {g.d_output(0)})); };
    case Unary::kAbs:
      return [](GradContext& g) { g.set_d_input(0, g.emit("Mul", {g.d_output(0), g.emit("Sign", {g.input(0)})})); };
    default:
      return [name = std::string(row.name) + "Grad", op = row.op](GradContext& g) {
        const ValueId operand = kernels::derivative_uses_output(op) ? g.output(0) : g.input(0);
        const Attributes attrs = g.node().attrs;
        g.set_d_input(0, g.emit(name, {operand, g.d_output(0)}, attrs));
      };
  }
}

std::string needs_f32(const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kF32, "needs f32"); }

KernelDef avx2_kernel(const UnaryOp& row) {
  KernelDef k;
  k.name = "avx2/unary";
  k.isa = Isa::kAvx2;
  k.in_place = {{0, 0}};
  k.layout_agnostic = keeps_zero(row.op);
  k.order_agnostic = true;
  k.decline = needs_f32;
  k.create = [&row](const KernelQuery& q) {
    return make_kernel([f = bind(row, q.node), n = stored_elements(q.out(0))](const KernelContext& c) {
      kernels::avx2::unary(f.op, n, c.input(0).data<float>(), c.output(0).mutable_data<float>(), f.alpha, f.beta);
    });
  };
  return k;
}

KernelDef avx2_grad_kernel(const UnaryOp& row) {
  KernelDef k;
  k.name = "avx2/unary_grad";
  k.isa = Isa::kAvx2;
  k.in_place = {{1, 0}, {0, 0}};
  k.layout_agnostic = derivative_finite_at_zero(row.op);
  k.decline = needs_f32;
  k.create = [&row](const KernelQuery& q) {
    return make_kernel([f = bind(row, q.node), n = stored_elements(q.out(0))](const KernelContext& c) {
      kernels::avx2::unary_grad(f.op, n, c.input(0).data<float>(), c.input(1).data<float>(), c.output(0).mutable_data<float>(), f.alpha, f.beta);
    });
  };
  return k;
}

void register_unary(OpRegistry& registry, const UnaryOp& row) {
  OpDef def;
  def.name = row.name;
  def.min_inputs = def.max_inputs = 1;
  def.infer = [&row](InferContext& c) { infer_unary(row, c); };
  const bool step = row.op == Unary::kFloor || row.op == Unary::kCeil || row.op == Unary::kRound || row.op == Unary::kSign;
  if (step) def.stops_gradient = true;
  else def.grad = gradient_of(row);
  KernelDef k;
  k.name = "portable/unary";
  k.in_place = {{0, 0}};
  k.layout_agnostic = keeps_zero(row.op);
  k.order_agnostic = true;
  k.create = [&row](const KernelQuery& q) {
    return make_kernel([f = bind(row, q.node), n = stored_elements(q.out(0))](const KernelContext& c) {
      run_unary(f, n, c.input(0), c.output(0));
    });
  };
  def.kernels = ops::cuda_kernels(def.name);
  if (kernels::avx2::has_unary(row.op)) def.kernels.push_back(avx2_kernel(row));
  def.kernels.push_back(k);
  registry.add(std::move(def));

  if (step || !kernels::has_derivative(row.op)) return;
  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = std::string(row.name) + "Grad";
  grad.min_inputs = grad.max_inputs = 2;
  grad.infer = [](InferContext& c) {
    c.require_dtype(0, ops::kFloats);
    ops::infer_same_as_input(c);
  };
  KernelDef gk;
  gk.name = "portable/unary_grad";
  gk.in_place = {{1, 0}, {0, 0}};
  gk.layout_agnostic = derivative_finite_at_zero(row.op);
  gk.create = [&row](const KernelQuery& q) {
    return make_kernel([f = bind(row, q.node), n = stored_elements(q.out(0))](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::unary_grad(f.op, n, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>(), f.alpha, f.beta);
      });
    });
  };
  if (kernels::avx2::has_unary_grad(row.op)) grad.kernels.push_back(avx2_grad_kernel(row));
  grad.kernels.push_back(gk);
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

// --- Clip ----------------------------------------------------------------------------------------

// Scalar operand i of a Clip, or `otherwise` when it is omitted.
template <typename T>
T bound_of(const KernelContext& c, size_t i, T otherwise) {
  return c.has_input(i) ? *c.input(i).data<T>() : otherwise;
}

void check_bound(InferContext& c, size_t i) {
  if (!c.has_input(i)) return;
  if (c.dtype(i) != c.dtype(0)) c.error("bound has type {}, the input {}", dtype_name(c.dtype(i)), dtype_name(c.dtype(0)));
  if (c.has_dims(i) && all_known(c.dims(i)) && checked_numel(concrete(c.dims(i))) != 1)
    c.error("input {} ('{}') is {}, a scalar is expected", i, c.input(i).name, c.graph().dims_string(c.dims(i)));
}

template <typename T>
constexpr T lowest_of() {
  if constexpr (std::is_integral_v<T>) return std::numeric_limits<T>::min();
  else return T(-std::numeric_limits<float>::infinity());
}
template <typename T>
constexpr T highest_of() {
  if constexpr (std::is_integral_v<T>) return std::numeric_limits<T>::max();
  else return T(std::numeric_limits<float>::infinity());
}

void register_clip(OpRegistry& registry) {
  OpDef def;
  def.name = "Clip";  // (x, min?, max?)
  def.min_inputs = 1;
  def.max_inputs = 3;
  def.infer = [](InferContext& c) {
    if (!is_float(c.dtype(0)) && !is_int(c.dtype(0))) c.error("type {} is not supported", dtype_name(c.dtype(0)));
    check_bound(c, 1);
    check_bound(c, 2);
    ops::infer_same_as_input(c);
  };
  // The bounds are hyper-parameters: no gradient flows to them.
  def.grad = [](GradContext& g) {
    if (g.needs(0)) g.set_d_input(0, g.emit("ClipGrad", {g.input(0), g.d_output(0), g.input(1), g.input(2)}));
  };
  KernelDef k;
  k.name = "portable/clip";
  k.in_place = {{0, 0}};
  k.order_agnostic = true;
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      dispatch_dtype(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        if constexpr (!std::is_same_v<T, bool>)
          kernels::clip<T>(c.input(0).numel(), c.input(0).data<T>(), bound_of<T>(c, 1, lowest_of<T>()),
                           bound_of<T>(c, 2, highest_of<T>()), c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = "ClipGrad";  // (x, d_y, min?, max?) -> d_x
  grad.min_inputs = 2;
  grad.max_inputs = 4;
  grad.infer = [](InferContext& c) {
    c.require_dtype(0, ops::kFloats);
    ops::infer_same_as_input(c);
  };
  KernelDef gk;
  gk.name = "portable/clip_grad";
  gk.in_place = {{1, 0}, {0, 0}};
  gk.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::clip_grad<T>(c.input(0).numel(), c.input(0).data<T>(), c.input(1).data<T>(), bound_of<T>(c, 2, lowest_of<T>()),
                              bound_of<T>(c, 3, highest_of<T>()), c.output(0).mutable_data<T>());
      });
    });
  };
  grad.kernels = {gk};
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

}  // namespace

void register_unary_ops(OpRegistry& registry) {
  for (const UnaryOp& row : kUnaryOps) register_unary(registry, row);
  register_clip(registry);
}

}  // namespace ds
