// Losses: the ONNX SoftmaxCrossEntropyLoss, and mean squared error and binary cross-entropy of our own.
//
//   SoftmaxCrossEntropyLoss(scores [N,C,d...], labels [N,d...] [, weights [C]]) -> (loss [, log_prob])
//   ai.ds.MseLoss(x, target) -> scalar mean       ai.ds.BceWithLogitsLoss(x, target) -> scalar mean
#include "kernels/loss.h"

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::CrossEntropyShape;
using kernels::Reduction;

Reduction reduction_of(const Node& n) {
  const std::string name = n.attr_string("reduction", "mean");
  if (name == "mean") return Reduction::kMean;
  if (name == "sum") return Reduction::kSum;
  if (name == "none") return Reduction::kNone;
  bad_data("reduction '{}' is none of mean, sum, none", name);
}

CrossEntropyShape shape_of(const TensorDesc& logits) {
  CrossEntropyShape s{logits.dim(0), logits.dim(1), 1};
  for (int64_t i = 2; i < logits.rank(); ++i) s.d *= logits.dim(i);
  return s;
}

void infer_cross_entropy(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64});
  c.require_dtype(1, {DType::kI64, DType::kI32});
  if (c.has_dims(0) && c.dims(0).size() < 2) c.error("scores need the shape [N, C, ...]");
  if (c.has_dims(0) && c.has_dims(1)) {
    Dims expected = {c.dims(0)[0]};
    expected.insert(expected.end(), c.dims(0).begin() + 2, c.dims(0).end());
    if (all_known(expected) && all_known(c.dims(1)) && expected != c.dims(1))
      c.error("labels have shape {}, expected {}", c.graph().dims_string(c.dims(1)), c.graph().dims_string(expected));
  }
  const bool whole = reduction_of(c.node()) == Reduction::kNone;
  c.set_output(0, c.dtype(0), whole ? c.input(1).dims : std::optional<Dims>(Dims{}));
  c.set_output(1, c.dtype(0), c.input(0).dims);
}

// Labels as i64, converted when the graph has i32.
class Labels {
 public:
  explicit Labels(const Tensor& t) : converted_(t.dtype() == DType::kI64 ? Tensor() : t.cast(DType::kI64)),
                                     data_(converted_.defined() ? converted_.data<int64_t>() : t.data<int64_t>()) {}
  const int64_t* data() const { return data_; }

 private:
  Tensor converted_;
  const int64_t* data_;
};

struct CrossEntropySpec {
  CrossEntropyShape shape;
  Reduction reduction;
  bool has_ignored;
  int64_t ignored;

  explicit CrossEntropySpec(const KernelQuery& q)
      : shape(shape_of(q.in(0))), reduction(reduction_of(q.node)), has_ignored(q.node.has_attr("ignore_index")),
        ignored(q.node.attr_int("ignore_index", 0)) {}

  void check(const int64_t* labels) const {
    const int64_t bad = kernels::find_bad_label(shape, labels, has_ignored, ignored);
    if (bad >= 0) bad_data("label {} of sample {} is outside 0..{}", labels[bad], bad / shape.d, shape.c - 1);
  }
};

KernelDef cross_entropy_kernel() {
  KernelDef k;
  k.name = "portable/cross_entropy";
  k.create = [](const KernelQuery& q) {
    const CrossEntropySpec spec(q);
    return make_kernel([spec](const KernelContext& c) {
      const Labels labels(c.input(1));
      spec.check(labels.data());
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::cross_entropy<T>(spec.shape, spec.reduction, c.input(0).data<T>(), labels.data(),
                                  c.has_input(2) ? c.input(2).data<T>() : nullptr, spec.has_ignored, spec.ignored,
                                  c.output(0).mutable_data<T>(), c.has_output(1) ? c.output(1).mutable_data<T>() : nullptr);
      });
    });
  };
  return k;
}

// (scores, labels, d_loss [, weights]) -> d_scores
KernelDef cross_entropy_grad_kernel() {
  KernelDef k;
  k.name = "portable/cross_entropy_grad";
  k.create = [](const KernelQuery& q) {
    const CrossEntropySpec spec(q);
    return make_kernel([spec](const KernelContext& c) {
      const Labels labels(c.input(1));
      spec.check(labels.data());
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::cross_entropy_grad<T>(spec.shape, spec.reduction, c.input(0).data<T>(), labels.data(),
                                       c.has_input(3) ? c.input(3).data<T>() : nullptr, spec.has_ignored, spec.ignored,
                                       c.input(2).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  return k;
}

void register_cross_entropy(OpRegistry& registry) {
  OpDef def;
  def.name = "SoftmaxCrossEntropyLoss";
  def.min_inputs = 2;
  def.max_inputs = 3;
  def.max_outputs = 2;
  def.infer = infer_cross_entropy;
  def.grad = [](GradContext& g) {
    if (g.d_output(1) != kNone) fail(ExitCode::kUnsupported, "no gradient through the log-probabilities output");
    if (!g.needs(0)) return;
    Attributes attrs = g.node().attrs;
    std::vector<ValueId> inputs = {g.input(0), g.input(1), g.d_output(0)};
    if (g.input(2) != kNone) inputs.push_back(g.input(2));
    g.set_d_input(0, g.emit("SoftmaxCrossEntropyGrad", inputs, std::move(attrs)));
  };
  def.kernels = {cross_entropy_kernel()};
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = "SoftmaxCrossEntropyGrad";
  grad.min_inputs = 3;
  grad.max_inputs = 4;
  grad.infer = ops::infer_same_as_input;
  grad.kernels = {cross_entropy_grad_kernel()};
  registry.add(std::move(grad));
}

void infer_pair_loss(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64});
  if (c.dtype(1) != c.dtype(0)) c.error("prediction and target differ in type");
  if (c.has_dims(0) && c.has_dims(1) && all_known(c.dims(0)) && all_known(c.dims(1)) && c.dims(0) != c.dims(1))
    c.error("prediction is {}, target {}", c.graph().dims_string(c.dims(0)), c.graph().dims_string(c.dims(1)));
  c.set_output(0, c.dtype(0), Dims{});
}

// A mean over pairs with its gradient operator (x, target, d_loss) -> d_x. `Functions` names the kernels.
template <typename Functions>
void register_pair_loss(OpRegistry& registry, const std::string& name) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = name + "Loss";
  def.min_inputs = def.max_inputs = 2;
  def.infer = infer_pair_loss;
  def.grad = [name](GradContext& g) {
    if (g.needs(1)) fail(ExitCode::kUnsupported, "no gradient for the target of a loss");
    g.set_d_input(0, g.emit(name + "LossGrad", {g.input(0), g.input(1), g.d_output(0)}));
  };
  KernelDef k;
  k.name = "portable/" + name;
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        c.output(0).mutable_data<T>()[0] = Functions::loss(c.input(0).numel(), c.input(0).data<T>(), c.input(1).data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = name + "LossGrad";
  grad.min_inputs = grad.max_inputs = 3;
  grad.infer = ops::infer_same_as_input;
  KernelDef gk;
  gk.name = "portable/" + name + "_grad";
  gk.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        Functions::grad(c.input(0).numel(), c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>()[0],
                        c.output(0).mutable_data<T>());
      });
    });
  };
  grad.kernels = {gk};
  registry.add(std::move(grad));
}

struct Mse {
  template <typename T>
  static T loss(int64_t n, const T* x, const T* y) { return kernels::mse(n, x, y); }
  template <typename T>
  static void grad(int64_t n, const T* x, const T* y, T d, T* out) { kernels::mse_grad(n, x, y, d, out); }
};

struct BceWithLogits {
  template <typename T>
  static T loss(int64_t n, const T* x, const T* y) { return kernels::bce_with_logits(n, x, y); }
  template <typename T>
  static void grad(int64_t n, const T* x, const T* y, T d, T* out) { kernels::bce_with_logits_grad(n, x, y, d, out); }
};

}  // namespace

void register_loss_ops(OpRegistry& registry) {
  register_cross_entropy(registry);
  register_pair_loss<Mse>(registry, "Mse");
  register_pair_loss<BceWithLogits>(registry, "BceWithLogits");
}

}  // namespace ds
