// Ensembles of decision trees: TreeEnsemble, TreeEnsembleRegressor, TreeEnsembleClassifier (ai.onnx.ml). Each is
// lowered to its scores, ai.ds.TreeScores, and formulas over them; only the walk through the trees is a kernel.
#include <algorithm>

#include "libds/ops/ml.h"
#include "libds/ops/ml_tree_reader.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using ops::Lowering;
using ops::TreeForm;

constexpr int64_t kMostTargets = 1 << 20;

int64_t checked_targets(int64_t targets) {
  if (targets < 1) bad_data("n_targets is {}", targets);
  if (targets > kMostTargets) fail(ExitCode::kUnsupported, "{} targets are more than this library takes", targets);
  return targets;
}

// --- TreeScores (internal): x [N, F], f32 or f64 -> [N, n_scores], f64 where "f64" says so -----------

DType score_dtype(const Node& n) { return n.attr_int("f64", 0) != 0 ? DType::kF64 : DType::kF32; }

void infer_scores(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64});
  c.require_rank(0, 2);  // a vector whose rank was not known when the node was written
  const Dim rows = ops::rows_of(c);
  c.set_output(0, score_dtype(c.node()), Dims{rows, Dim(c.node().attr_int("n_scores", 1))});
}

std::unique_ptr<Kernel> make_scores(const KernelQuery& q) {
  ops::TreeModel model = ops::read_trees(q.node, static_cast<TreeForm>(q.node.attr_int("form", 0)), q.node.attr_int("n_scores", 1));
  const int64_t rows = q.in(0).dim(0), features = q.in(0).dim(1);
  if (model.features > features) bad_data("reads feature {}, its input has {}", model.features - 1, features);
  if (q.in(0).dtype == DType::kF32 && q.out(0).dtype == DType::kF32 && !model.f64_splits) {
    return make_kernel([rows, features, e = std::make_shared<const kernels::TreeEnsemble<float>>(ops::to_f32(model.ensemble))](const KernelContext& c) {
      kernels::tree_scores(*e, rows, features, c.input(0).data<float>(), c.output(0).mutable_data<float>());
    });
  }
  return make_kernel([rows, features, e = std::make_shared<const kernels::TreeEnsemble<double>>(std::move(model.ensemble))](const KernelContext& c) {
    const Tensor &x = c.input(0), &out = c.output(0);
    if (x.dtype() == DType::kF32) kernels::tree_scores(*e, rows, features, x.data<float>(), out.mutable_data<float>());
    else if (out.dtype() == DType::kF32) kernels::tree_scores(*e, rows, features, x.data<double>(), out.mutable_data<float>());
    else kernels::tree_scores(*e, rows, features, x.data<double>(), out.mutable_data<double>());
  });
}

// The node's scores: its own attributes go along, the kernel reads them.
ValueId scores(Lowering& l, TreeForm form, int64_t count) {
  const DType type = l.dtype(l.in(0)), computed = type == DType::kF64 ? DType::kF64 : DType::kF32;
  Attributes attrs = l.node().attrs;
  attrs["form"] = static_cast<int64_t>(form);
  attrs["n_scores"] = count;
  attrs["f64"] = int64_t{form == TreeForm::kEnsemble && computed == DType::kF64};
  return l.emit("TreeScores", {ops::as_matrix(l, computed)}, std::move(attrs));
}

// --- TreeEnsemble and TreeEnsembleRegressor -------------------------------------------------------

void infer_ensemble(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16});
  const int64_t transform = c.node().attr_int("post_transform", 0);
  if (transform < 0 || transform > 4) c.error("post_transform {} is not known", transform);
  const int64_t targets = checked_targets(c.node().attr_int("n_targets", 1));
  c.set_output(0, c.dtype(0), Dims{ops::rows_of(c), Dim(targets)});
}

void lower_ensemble(Lowering& l) {
  constexpr const char* kTransforms[] = {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"};
  const ValueId raw = scores(l, TreeForm::kEnsemble, l.node().attr_int("n_targets", 1));
  l.set(0, l.cast(ops::post_transformed(l, raw, kTransforms[l.node().attr_int("post_transform", 0)]), l.dtype(l.in(0))));
}

void infer_regressor(InferContext& c) {
  ops::require_ml_number(c);
  ops::check_post_transform(c.node());
  const int64_t targets = checked_targets(c.node().attr_int("n_targets", 1));
  c.set_output(0, DType::kF32, Dims{ops::rows_of(c), Dim(targets)});
}

void lower_regressor(Lowering& l) {
  const ValueId raw = scores(l, TreeForm::kRegressor, l.node().attr_int("n_targets", 1));
  l.set(0, ops::post_transformed(l, raw, l.node().attr_string("post_transform", "NONE")));
}

// --- TreeEnsembleClassifier -----------------------------------------------------------------------

Tensor labels_of(const Node& n) { return ops::class_labels(n, "classlabels_int64s", "classlabels_strings"); }

void infer_tree_classifier(InferContext& c) {
  ops::require_ml_number(c);
  ops::check_post_transform(c.node());
  const Tensor labels = labels_of(c.node());
  ops::infer_classifier(c, labels, ops::rows_of(c), checked_targets(labels.numel()));
}

bool has_negative_weight(const Node& n) {
  const std::vector<float> weights = n.attr_floats("class_weights");
  const Tensor* tensor = n.attr_tensor("class_weights_as_tensor");
  const std::vector<double> more = tensor == nullptr ? std::vector<double>() : tensor->to_doubles();
  return std::any_of(weights.begin(), weights.end(), [](float w) { return w < 0; }) || std::any_of(more.begin(), more.end(), [](double w) { return w < 0; });
}

// Of two classes, all leaves vote for the one numbered 0: its score is that of the second class, and the first one's
// follows from it. Converters write binary models so.
bool has_single_score(const Node& n, int64_t classes) {
  const std::vector<int64_t> ids = n.attr_ints("class_ids");
  const Tensor* base = n.attr_tensor("base_values_as_tensor");
  return classes == 2 && std::all_of(ids.begin(), ids.end(), [](int64_t id) { return id == 0; }) && n.attr_floats("base_values").size() <= 1 &&
         (base == nullptr || base->numel() <= 1);
}

void lower_tree_classifier(Lowering& l) {
  const Node& n = l.node();
  const Tensor labels = labels_of(n);
  const std::string transform = n.attr_string("post_transform", "NONE");
  const bool single = has_single_score(n, labels.numel());
  ValueId raw = scores(l, TreeForm::kClassifier, single ? 1 : labels.numel());
  // A sum of nothing but positive weights is a probability: bagged trees. Otherwise it is a margin: boosted trees.
  if (single) raw = ops::two_scores(l, raw, transform == "PROBIT" || (transform == "NONE" && !has_negative_weight(n)));
  ops::set_top_label(l, labels, raw);
  l.set(1, ops::post_transformed(l, raw, transform));
}

}  // namespace

void register_ml_tree_ops(OpRegistry& registry) {
  registry.add(ops::ml_lowered("TreeEnsemble", infer_ensemble, ops::lower_as(lower_ensemble)));
  registry.add(ops::ml_lowered("TreeEnsembleRegressor", infer_regressor, ops::lower_as(lower_regressor)));
  OpDef classifier = ops::ml_lowered("TreeEnsembleClassifier", infer_tree_classifier, ops::lower_as(lower_tree_classifier));
  classifier.max_outputs = 2;
  registry.add(std::move(classifier));

  OpDef def = ops::ml_op("TreeScores", infer_scores);
  def.domain = Graph::kInternalDomain;
  KernelDef k;
  k.name = "portable/tree_scores";
  k.create = make_scores;
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace ds
