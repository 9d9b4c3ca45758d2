// RNN, GRU, LSTM. See kernels/recurrent.h for the legend.
#include "kernels/recurrent.h"

#include <algorithm>
#include <cctype>

#include "libds/ops/onednn_kernel.h"
#include "libds/ops/operands.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::Cell;
using kernels::GateActivation;
using kernels::Recurrent;
using kernels::RecurrentData;
using kernels::RecurrentShape;
using kernels::Unary;

// Inputs by place; the last two are LSTM's.
enum Input : size_t { kX, kW, kR, kB, kLengths, kH0, kC0, kP };

const char* name_of(Cell cell) { return cell == Cell::kRnn ? "RNN" : cell == Cell::kGru ? "GRU" : "LSTM"; }
size_t activations_of(Cell cell) { return cell == Cell::kRnn ? 1 : cell == Cell::kGru ? 2 : 3; }

struct Known {
  const char* name;
  GateActivation::Kind kind;
  Unary op;
  int parameters;  // how many of alpha, beta it takes
  double alpha, beta;
};
constexpr Known kKnown[] = {
    {"relu", GateActivation::kUnary, Unary::kRelu, 0, 0, 0},
    {"tanh", GateActivation::kUnary, Unary::kTanh, 0, 0, 0},
    {"sigmoid", GateActivation::kUnary, Unary::kSigmoid, 0, 0, 0},
    {"softsign", GateActivation::kUnary, Unary::kSoftsign, 0, 0, 0},
    {"softplus", GateActivation::kUnary, Unary::kSoftplus, 0, 0, 0},
    {"leakyrelu", GateActivation::kUnary, Unary::kLeakyRelu, 1, 0.01, 0},
    {"thresholdedrelu", GateActivation::kUnary, Unary::kThresholdedRelu, 1, 1.0, 0},
    {"elu", GateActivation::kUnary, Unary::kElu, 1, 1.0, 0},
    {"hardsigmoid", GateActivation::kUnary, Unary::kHardSigmoid, 2, 0.2, 0.5},
    {"affine", GateActivation::kAffine, Unary::kTanh, 2, 1.0, 0},
    {"scaledtanh", GateActivation::kScaledTanh, Unary::kTanh, 2, 1.0, 1.0},
};

// The node's activations. activation_alpha and activation_beta are consumed in order by those that take
// one; what is not given is the default.
std::vector<GateActivation> parse_activations(const Node& node, Cell cell, size_t directions) {
  std::vector<std::string> names = node.attr_strings("activations");
  const size_t count = activations_of(cell) * directions;
  if (names.empty())
    for (size_t d = 0; d < directions; ++d) {
      if (cell != Cell::kRnn) names.push_back("sigmoid");
      names.insert(names.end(), cell == Cell::kLstm ? 2 : 1, "tanh");
    }
  if (names.size() != count) bad_data("{} activations are named, {} are needed", names.size(), count);
  const std::vector<float> alphas = node.attr_floats("activation_alpha"),
                           betas = node.attr_floats("activation_beta");
  size_t alpha = 0, beta = 0;
  std::vector<GateActivation> list;
  for (const std::string& name : names) {
    std::string lower;
    for (char c : name) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const auto known =
        std::find_if(std::begin(kKnown), std::end(kKnown), [&](const Known& k) { return lower == k.name; });
    if (known == std::end(kKnown)) bad_data("activation '{}' is unknown", name);
    GateActivation a{known->kind, known->op, known->alpha, known->beta};
    if (known->parameters >= 1 && alpha < alphas.size()) a.alpha = static_cast<double>(alphas[alpha++]);
    if (known->parameters >= 2 && beta < betas.size()) a.beta = static_cast<double>(betas[beta++]);
    list.push_back(a);
  }
  return list;
}

// What the attributes say; sizes are left for the caller.
RecurrentShape parse(const Node& node, Cell cell) {
  RecurrentShape s;
  s.cell = cell;
  const std::string direction = node.attr_string("direction", "forward");
  if (direction == "bidirectional")
    s.D = 2;
  else if (direction == "reverse")
    s.reverse = true;
  else if (direction != "forward")
    bad_data("direction is '{}', expected forward, reverse or bidirectional", direction);
  const int64_t layout = node.attr_int("layout", 0);
  if (layout != 0 && layout != 1) bad_data("layout is {}, expected 0 or 1", layout);
  s.batch_first = layout == 1;
  s.linear_before_reset = node.attr_int("linear_before_reset", 0) != 0;
  s.input_forget = node.attr_int("input_forget", 0) != 0;
  s.clip = static_cast<double>(node.attr_float("clip", 0));
  if (s.clip < 0) bad_data("clip is {}", s.clip);
  s.activations = parse_activations(node, cell, static_cast<size_t>(s.D));
  return s;
}

void infer_recurrent(InferContext& c, Cell cell) {
  const RecurrentShape s = parse(c.node(), cell);
  ops::require_float(c, kX);
  for (size_t i = 1; i < c.input_count(); ++i)
    ops::require_type(c, i, i == kLengths ? DType::kI32 : c.dtype(kX));
  Dim H = c.fresh_dim(), T = c.fresh_dim(), N = c.fresh_dim(), I = c.fresh_dim();
  if (const int64_t hidden = c.node().attr_int("hidden_size", 0); hidden > 0) H = hidden;
  if (c.has_dims(kR)) {
    c.require_rank(kR, 3);
    if (!H.known() && c.dims(kR)[2].known()) H = c.dims(kR)[2];
  }
  if (c.has_dims(kX)) {
    c.require_rank(kX, 3);
    T = c.dims(kX)[s.batch_first ? 1 : 0];
    N = c.dims(kX)[s.batch_first ? 0 : 1];
    I = c.dims(kX)[2];
  }
  const auto times = [&](int64_t n) { return H.known() ? Dim(checked_mul(n, H.raw)) : c.fresh_dim(); };
  const Dims state = s.batch_first ? Dims{N, s.D, H} : Dims{s.D, N, H};
  ops::require_dims(c, kW, {s.D, times(s.gates()), I});
  ops::require_dims(c, kR, {s.D, times(s.gates()), H});
  ops::require_dims(c, kB, {s.D, times(2 * s.gates())});
  ops::require_dims(c, kLengths, {N});
  ops::require_dims(c, kH0, state);
  if (cell == Cell::kLstm) {
    ops::require_dims(c, kC0, state);
    ops::require_dims(c, kP, {s.D, times(3)});
  }
  c.set_output(0, c.dtype(kX), s.batch_first ? Dims{N, T, s.D, H} : Dims{T, s.D, N, H});
  for (size_t i = 1; i < c.node().outputs.size(); ++i) c.set_output(i, c.dtype(kX), state);
}

RecurrentShape shape_of(const KernelQuery& q, Cell cell) {
  RecurrentShape s = parse(q.node, cell);
  s.T = q.in(kX).dim(s.batch_first ? 1 : 0);
  s.N = q.in(kX).dim(s.batch_first ? 0 : 1);
  s.I = q.in(kX).dim(2);
  s.H = q.in(kR).dim(2);
  return s;
}

template <typename T>
class RecurrentKernel final : public Kernel {
 public:
  RecurrentKernel(const KernelQuery& q, Cell cell, bool native)
      : steps_(shape_of(q, cell).T), recurrent_(shape_of(q, cell), native, native ? small_product(q) : nullptr, content(q, kW), content(q, kR), ops::share_content(q, kW, {}),
                                                      ops::share_content(q, kR, {})) {}
  size_t workspace_bytes() const override { return recurrent_.workspace_bytes(); }
  size_t packed_bytes() const override { return recurrent_.packed_bytes(); }
  void run(const KernelContext& c) override {
    RecurrentData<T> d;
    const auto in = [&](size_t i) { return c.has_input(i) ? c.input(i).data<T>() : nullptr; };
    const auto out = [&](size_t i) { return c.has_output(i) ? c.output(i).mutable_data<T>() : nullptr; };
    d.x = in(kX), d.w = in(kW), d.r = in(kR), d.b = in(kB), d.h0 = in(kH0), d.c0 = in(kC0), d.p = in(kP);
    d.y = out(0), d.y_h = out(1), d.y_c = out(2);
    if (c.has_input(kLengths)) {
      d.lengths = c.input(kLengths).data<int32_t>();
      for (int32_t n : c.input(kLengths).span<int32_t>())
        if (n < 0 || n > steps_) bad_data("a sequence length is {}, sequences have {} steps", n, steps_);
    }
    recurrent_.run(d, c.workspace());
  }

 private:
  static kernels::SmallProductFn* small_product(const KernelQuery& q) {
    return q.isa >= Isa::kAvx512 ? kernels::small_product_avx512 : kernels::small_product_avx2;
  }
  static const T* content(const KernelQuery& q, size_t i) {
    return q.constant(i) == nullptr ? nullptr : q.constant(i)->data<T>();
  }

  int64_t steps_;
  Recurrent<T> recurrent_;
};

KernelDef onednn_kernel(Cell cell) {
  KernelDef k;
  k.name = "onednn/recurrent";
  k.isa = Isa::kAvx2;
  k.decline = [](const KernelQuery& q) { return ops::require(q.in(kX).dtype == DType::kF32, "needs f32"); };
  k.create = [cell](const KernelQuery& q) { return std::make_unique<RecurrentKernel<float>>(q, cell, true); };
  return k;
}

KernelDef portable_kernel(Cell cell) {
  KernelDef k;
  k.name = "portable/recurrent";
  k.decline = [](const KernelQuery& q) { return ops::require(!is_half(q.in(kX).dtype), "16-bit floats"); };
  k.create = [cell](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    if (q.in(kX).dtype == DType::kF32) return std::make_unique<RecurrentKernel<float>>(q, cell, false);
    return std::make_unique<RecurrentKernel<double>>(q, cell, false);
  };
  return k;
}

}  // namespace

void register_recurrent_ops(OpRegistry& registry) {
  for (Cell cell : {Cell::kRnn, Cell::kGru, Cell::kLstm}) {
    OpDef def;
    def.name = name_of(cell);  // (x, w, r, b?, sequence_lens?, initial_h?, initial_c?, p?) -> y?, y_h?, y_c?
    def.min_inputs = 3;
    def.max_inputs = cell == Cell::kLstm ? 8 : 6;
    def.min_outputs = 0;
    def.max_outputs = cell == Cell::kLstm ? 3 : 2;
    def.infer = [cell](InferContext& c) { infer_recurrent(c, cell); };
    def.cost = [cell](const KernelQuery& q) {
      const RecurrentShape s = shape_of(q, cell);
      const int64_t rows = checked_mul(checked_mul(s.T, s.N), checked_mul(s.D, s.gates() * s.H));
      return Cost{2 * checked_mul(rows, s.I + s.H), ops::operand_bytes(q)};
    };
    def.kernels = {onednn_kernel(cell), portable_kernel(cell)};
    registry.add(std::move(def));
  }
}

}  // namespace ds
