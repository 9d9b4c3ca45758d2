// Losses: SoftmaxCrossEntropyLoss (ONNX) and the internal MseLoss and BceWithLogitsLoss, which give the
// mean as a scalar.
#include "kernels/loss.h"

#include "kernels/cast.h"
#include "kernels/softmax.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::CrossEntropy;

enum class Reduction { kMean, kSum, kNone };

Reduction reduction_of(const Node& n) {
  const std::string r = n.attr_string("reduction", "mean");
  if (r == "mean") return Reduction::kMean;
  if (r == "sum") return Reduction::kSum;
  if (r == "none") return Reduction::kNone;
  bad_data("reduction is '{}', expected mean, sum or none", r);
}

CrossEntropy cross_entropy_of(const KernelQuery& q) {
  CrossEntropy p{q.in(0).dim(0), q.in(0).dim(1), 1, std::nullopt};
  for (int64_t i = 2; i < q.in(0).rank(); ++i) p.S *= q.in(0).dim(i);
  if (q.node.has_attr("ignore_index")) p.ignore_index = q.node.attr_int("ignore_index", 0);
  return p;
}

// Labels as i64: those of the tensor, or converted into `buffer`. Throws on one outside the classes.
const int64_t* checked_labels(const CrossEntropy& p, const Tensor& labels, int64_t* buffer) {
  const int64_t* list = buffer;
  if (labels.dtype() == DType::kI64) list = labels.data<int64_t>();
  else kernels::cast<int32_t, int64_t>(labels.numel(), labels.data<int32_t>(), buffer);
  if (const int64_t bad = kernels::first_bad_label(p, list); bad >= 0)
    bad_data("label {} of row {} is outside [0, {})", list[bad], bad / p.S, p.C);
  return list;
}

void check_scores(InferContext& c, size_t weights) {
  c.require_dtype(0, ops::kFloats);
  c.require_dtype(1, {DType::kI64, DType::kI32});
  if (c.has_input(weights) && c.dtype(weights) != c.dtype(0)) c.error("class weights have type {}, scores {}", dtype_name(c.dtype(weights)), dtype_name(c.dtype(0)));
  if (!c.has_dims(0)) return;
  const Dims& scores = c.dims(0);
  if (scores.size() < 2) c.error("scores ('{}') have rank {}, [N, C, ...] is needed", c.input(0).name, scores.size());
  if (c.has_input(weights) && c.has_dims(weights) && all_known(c.dims(weights)) && scores[1].known() &&
      (c.dims(weights).size() != 1 || c.dims(weights)[0] != scores[1]))
    c.error("class weights are {}, there are {} classes", c.graph().dims_string(c.dims(weights)), scores[1].raw);
  if (!c.has_dims(1)) return;
  const Dims& labels = c.dims(1);
  bool fits = labels.size() + 1 == scores.size();
  for (size_t i = 0; fits && i < labels.size(); ++i) {
    const Dim wanted = scores[i == 0 ? 0 : i + 1];
    fits = !wanted.known() || !labels[i].known() || wanted == labels[i];
  }
  if (!fits) c.error("labels ('{}') are {}, scores {}", c.input(1).name, c.graph().dims_string(labels), c.graph().dims_string(scores));
}

void infer_cross_entropy(InferContext& c) {
  check_scores(c, 2);
  const bool none = reduction_of(c.node()) == Reduction::kNone;
  c.set_output(0, c.dtype(0), none ? c.input(1).dims : std::optional<Dims>(Dims{}));
  c.set_output(1, c.dtype(0), c.input(0).dims);
}

// Scratch: labels as i64, then one loss per position.
std::unique_ptr<Kernel> cross_entropy_kernel(const KernelQuery& q) {
  const CrossEntropy p = cross_entropy_of(q);
  const int64_t positions = p.N * p.S;
  return make_kernel(
      [p, positions, reduction = reduction_of(q.node)](const KernelContext& c) {
        auto* buffer = reinterpret_cast<int64_t*>(c.workspace());
        const int64_t* labels = checked_labels(p, c.input(1), buffer);
        dispatch_float(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          const T* x = c.input(0).data<T>();
          const T* weights = c.has_input(2) ? c.input(2).data<T>() : nullptr;
          T* out = c.output(0).mutable_data<T>();
          T* losses = reduction == Reduction::kNone ? out : reinterpret_cast<T*>(buffer + positions);
          kernels::cross_entropy<T>(p, x, labels, weights, losses);
          if (reduction != Reduction::kNone) {
            const double total = kernels::sum(positions, losses);
            *out = static_cast<T>(reduction == Reduction::kSum ? total : total / kernels::cross_entropy_weight<T>(p, labels, weights));
          }
          if (c.has_output(1)) kernels::softmax<T>(true, p.N, p.C, p.S, x, c.output(1).mutable_data<T>());
        });
      },
      static_cast<size_t>(positions) * 2 * sizeof(int64_t));
}

std::unique_ptr<Kernel> cross_entropy_grad_kernel(const KernelQuery& q) {
  const CrossEntropy p = cross_entropy_of(q);
  return make_kernel(
      [p, reduction = reduction_of(q.node)](const KernelContext& c) {
        const int64_t* labels = checked_labels(p, c.input(1), reinterpret_cast<int64_t*>(c.workspace()));
        dispatch_float(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          const T* weights = c.has_input(3) ? c.input(3).data<T>() : nullptr;
          const double factor = reduction == Reduction::kMean ? 1.0 / kernels::cross_entropy_weight<T>(p, labels, weights) : 1.0;
          kernels::cross_entropy_grad<T>(p, c.input(0).data<T>(), labels, weights, factor, reduction != Reduction::kNone,
                                         c.input(2).data<T>(), c.output(0).mutable_data<T>());
        });
      },
      static_cast<size_t>(p.N * p.S) * sizeof(int64_t));
}

void register_cross_entropy(OpRegistry& registry) {
  OpDef def;
  def.name = "SoftmaxCrossEntropyLoss";  // (scores, labels, weights?) -> loss, log_prob?
  def.min_inputs = 2;
  def.max_inputs = 3;
  def.max_outputs = 2;
  def.infer = infer_cross_entropy;
  def.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    if (g.d_output(1) != kNone) fail(ExitCode::kUnsupported, "no gradient flows through log_prob");
    const Attributes attrs = g.node().attrs;
    std::vector<ValueId> inputs = {g.input(0), g.input(1), g.d_output(0)};
    if (g.input(2) != kNone) inputs.push_back(g.input(2));
    g.set_d_input(0, g.emit("SoftmaxCrossEntropyLossGrad", inputs, attrs));
  };
  KernelDef k;
  k.name = "portable/cross_entropy";
  k.create = cross_entropy_kernel;
  def.kernels = {k};
  def.widens_halves = true;
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = "SoftmaxCrossEntropyLossGrad";  // (scores, labels, d_loss, weights?) -> d_scores
  grad.min_inputs = 3;
  grad.max_inputs = 4;
  grad.infer = [](InferContext& c) {
    check_scores(c, 3);
    ops::infer_same_as_input(c);
  };
  KernelDef gk;
  gk.name = "portable/cross_entropy_grad";
  gk.in_place = {{0, 0}};
  gk.create = cross_entropy_grad_kernel;
  grad.kernels = {gk};
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

// --- losses of pairs -----------------------------------------------------------------------------

enum class PairLoss { kMse, kBce };

void check_pair(InferContext& c) {
  c.require_dtype(0, ops::kFloats);
  if (c.dtype(1) != c.dtype(0)) c.error("the target has type {}, the prediction {}", dtype_name(c.dtype(1)), dtype_name(c.dtype(0)));
  if (!c.has_dims(0) || !c.has_dims(1)) return;
  if (all_known(c.dims(0)) && all_known(c.dims(1)) && c.dims(0) != c.dims(1))
    c.error("the target is {}, the prediction {}", c.graph().dims_string(c.dims(1)), c.graph().dims_string(c.dims(0)));
}

GradFn pair_gradient(PairLoss loss, std::string grad_name) {
  return [loss, grad_name = std::move(grad_name)](GradContext& g) {
    const DType dtype = g.dtype(g.input(0));
    ValueId d_x = kNone;
    if (g.needs(0) || (g.needs(1) && loss == PairLoss::kMse)) d_x = g.emit(grad_name, {g.input(0), g.input(1), g.d_output(0)});
    if (g.needs(0)) g.set_d_input(0, d_x);
    if (!g.needs(1)) return;
    if (loss == PairLoss::kMse) return g.set_d_input(1, g.emit("Neg", {d_x}));
    const double count = static_cast<double>(checked_numel(g.shape(g.input(0))));
    g.set_d_input(1, g.emit("Mul", {g.emit("Mul", {g.input(0), g.scalar(-1.0 / count, dtype)}), g.d_output(0)}));
  };
}

void register_pair_loss(OpRegistry& registry, const char* name, PairLoss loss) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = name;  // (x, target) -> scalar
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    check_pair(c);
    c.set_output(0, c.dtype(0), Dims{});
  };
  const std::string grad_name = std::string(name) + "Grad";
  def.grad = pair_gradient(loss, grad_name);
  KernelDef k;
  k.name = "portable/pair_loss";
  k.create = [loss](const KernelQuery&) {
    return make_kernel([loss](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const auto f = loss == PairLoss::kMse ? kernels::mse<T> : kernels::bce_with_logits<T>;
        *c.output(0).mutable_data<T>() = f(c.input(0).numel(), c.input(0).data<T>(), c.input(1).data<T>());
      });
    });
  };
  def.kernels = {k};
  def.widens_halves = true;
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = grad_name;  // (x, target, d_loss) -> d_x
  grad.min_inputs = grad.max_inputs = 3;
  grad.infer = [](InferContext& c) {
    check_pair(c);
    ops::infer_same_as_input(c);
  };
  KernelDef gk;
  gk.name = "portable/pair_loss_grad";
  gk.in_place = {{0, 0}};
  gk.create = [loss](const KernelQuery&) {
    return make_kernel([loss](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const auto f = loss == PairLoss::kMse ? kernels::mse_grad<T> : kernels::bce_with_logits_grad<T>;
        f(c.input(0).numel(), c.input(0).data<T>(), c.input(1).data<T>(), *c.input(2).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  grad.kernels = {gk};
  grad.widens_halves = true;
  registry.add(std::move(grad));
}

}  // namespace

void register_loss_ops(OpRegistry& registry) {
  register_cross_entropy(registry);
  register_pair_loss(registry, "MseLoss", PairLoss::kMse);
  register_pair_loss(registry, "BceWithLogitsLoss", PairLoss::kBce);
}

}  // namespace ds
