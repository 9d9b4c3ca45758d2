// Linear models and support vector machines (ai.onnx.ml): products of matrices, lowered to Gemm. Their coefficients
// are attributes in f32, so that they compute in f32 whatever the input is.
#include <algorithm>

#include "kernels/svm.h"
#include "libds/ops/ml.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using ops::Lowering;

Tensor matrix(int64_t rows, int64_t columns, std::span<const float> values) { return Tensor::of<float>({rows, columns}, values); }

// x w^T + b; w [E, F], b [E] or kNone.
ValueId product(Lowering& l, ValueId x, Tensor w, ValueId b) {
  std::vector<ValueId> inputs = {x, l.constant(std::move(w))};
  if (b != kNone) inputs.push_back(b);
  return l.emit("Gemm", std::move(inputs), {{"transB", int64_t{1}}});
}

// --- LinearRegressor, LinearClassifier ------------------------------------------------------------

// Coefficients of `targets` linear functions; the number of features follows.
struct Linear {
  std::vector<float> coefficients, intercepts;
  int64_t targets = 1, features = 0;
};

Linear checked(Linear m) {
  const auto count = static_cast<int64_t>(m.coefficients.size());
  if (m.targets < 1 || count == 0 || count % m.targets != 0) bad_data("{} coefficients are none for {} targets", count, m.targets);
  if (!m.intercepts.empty() && static_cast<int64_t>(m.intercepts.size()) != m.targets) bad_data("has {} intercepts for {} targets", m.intercepts.size(), m.targets);
  m.features = count / m.targets;
  return m;
}

ValueId evaluated(Lowering& l, const Linear& m) {
  const ValueId b = m.intercepts.empty() ? kNone : l.constant(Tensor::vector<float>(m.intercepts));
  return product(l, ops::as_matrix(l, DType::kF32), matrix(m.targets, m.features, m.coefficients), b);
}

Linear regression(const Node& n) {
  return checked({n.attr_floats("coefficients"), n.attr_floats("intercepts"), n.attr_int("targets", 1)});
}

void infer_linear_regressor(InferContext& c) {
  ops::require_ml_number(c);
  ops::check_post_transform(c.node());
  const Linear m = regression(c.node());
  c.set_output(0, DType::kF32, Dims{ops::rows_of(c, m.features), Dim(m.targets)});
}

void lower_linear_regressor(Lowering& l) {
  l.set(0, ops::post_transformed(l, evaluated(l, regression(l.node())), l.node().attr_string("post_transform", "NONE")));
}

Tensor labels_of(const Node& n) { return ops::class_labels(n, "classlabels_ints", "classlabels_strings"); }

// One function per class, or a single one for two classes.
Linear classification(const Node& n, int64_t classes) {
  std::vector<float> intercepts = n.attr_floats("intercepts");
  const bool single = classes == 2 && intercepts.size() == 1;
  return checked({n.attr_floats("coefficients"), std::move(intercepts), single ? 1 : classes});
}

void infer_linear_classifier(InferContext& c) {
  ops::require_ml_number(c);
  ops::check_post_transform(c.node());
  const Tensor labels = labels_of(c.node());
  ops::infer_classifier(c, labels, ops::rows_of(c, classification(c.node(), labels.numel()).features), labels.numel());
}

void lower_linear_classifier(Lowering& l) {
  const Tensor labels = labels_of(l.node());
  const std::string transform = l.node().attr_string("post_transform", "NONE");
  const Linear m = classification(l.node(), labels.numel());
  ValueId raw = evaluated(l, m), shown = raw;
  if (m.targets < labels.numel()) {  // the class is a matter of sign; the scores shown without a transform are [1 - s, s]
    shown = ops::two_scores(l, raw, transform == "NONE" || transform == "PROBIT");
    raw = ops::two_scores(l, raw, false);
  }
  ops::set_top_label(l, labels, raw);
  l.set(1, ops::post_transformed(l, shown, transform));
}

// --- support vectors ------------------------------------------------------------------------------

// Sums over the support vectors, whose large terms cancel: k w^T + rho in f64, then f32 again.
ValueId weighted(Lowering& l, ValueId k, const Tensor& w, const std::vector<float>& rho) {
  const ValueId b = l.constant(Tensor::vector<float>(rho).cast(DType::kF64));
  return l.cast(product(l, l.cast(k, DType::kF64), w.cast(DType::kF64), b), DType::kF32);
}

// Values of the kernel function for every support vector, [N, S].
ValueId kernel_values(Lowering& l, ValueId x, Tensor vectors) {
  const Node& n = l.node();
  const std::string type = n.attr_string("kernel_type", "LINEAR");
  std::vector<float> params = n.attr_floats("kernel_params");
  params.resize(3, 0.0f);
  const auto f32 = [&](float v) { return l.scalar(static_cast<double>(v), DType::kF32); };
  if (type == "RBF") {
    const ValueId distance = l.emit("SquaredDistances", {x, l.constant(std::move(vectors))});
    return l.emit("Exp", {l.emit("Mul", {distance, f32(-params[0])})});
  }
  const ValueId dot = product(l, x, std::move(vectors), kNone);
  if (type == "LINEAR") return dot;
  const ValueId inner = l.emit("Add", {l.emit("Mul", {dot, f32(params[0])}), f32(params[1])});
  return type == "SIGMOID" ? l.emit("Tanh", {inner}) : l.emit("Pow", {inner, f32(params[2])});
}

void check_kernel(const Node& n) {
  const std::string type = n.attr_string("kernel_type", "LINEAR");
  if (type != "LINEAR" && type != "POLY" && type != "RBF" && type != "SIGMOID") bad_data("kernel_type '{}' is not known", type);
  const size_t params = n.attr_floats("kernel_params").size();
  if (params != 0 && params != 3) bad_data("kernel_params has {} elements, expected gamma, coef0 and degree", params);
}

struct Vectors {
  std::vector<float> values, coefficients, rho;
  int64_t count = 0, features = 0;  // of support vectors; count 0: the coefficients are a linear model themselves
};

// `functions`: how many linear models there are when there are no support vectors.
Vectors support_vectors(const Node& n, int64_t count, int64_t functions) {
  Vectors v{n.attr_floats("support_vectors"), n.attr_floats("coefficients"), n.attr_floats("rho"), count, 0};
  if (count < 0) bad_data("has {} support vectors", count);
  if (v.rho.empty()) bad_data("has no rho");
  const auto values = static_cast<int64_t>(count > 0 ? v.values.size() : v.coefficients.size());
  const int64_t rows = count > 0 ? count : functions;
  if (values == 0 || values % rows != 0) bad_data("{} numbers are none for {} vectors", values, rows);
  v.features = values / rows;
  return v;
}

Vectors regressor_vectors(const Node& n) {
  Vectors v = support_vectors(n, n.attr_int("n_supports", 0), 1);
  if (v.count > 0 && static_cast<int64_t>(v.coefficients.size()) != v.count) bad_data("has {} coefficients for {} support vectors", v.coefficients.size(), v.count);
  return v;
}

void infer_svm_regressor(InferContext& c) {
  ops::require_ml_number(c);
  ops::check_post_transform(c.node());
  check_kernel(c.node());
  c.set_output(0, DType::kF32, Dims{ops::rows_of(c, regressor_vectors(c.node()).features), Dim(1)});
}

void lower_svm_regressor(Lowering& l) {
  const Vectors v = regressor_vectors(l.node());
  ValueId x = ops::as_matrix(l, DType::kF32);
  if (v.count > 0) x = kernel_values(l, x, matrix(v.count, v.features, v.values));
  ValueId y = weighted(l, x, matrix(1, static_cast<int64_t>(v.coefficients.size()), v.coefficients), {v.rho[0]});
  if (l.node().attr_int("one_class", 0) != 0)
    y = l.emit("Where", {l.emit("Greater", {y, l.scalar(0, DType::kF32)}), l.scalar(1, DType::kF32), l.scalar(-1, DType::kF32)});
  l.set(0, ops::post_transformed(l, y, l.node().attr_string("post_transform", "NONE")));
}

// --- SVMClassifier --------------------------------------------------------------------------------

// With support vectors, one function per pair of classes (LIBSVM), which vote; without, one per class (LIBLINEAR).
struct Svc {
  Vectors vectors;
  std::vector<int64_t> per_class, begin;  // support vectors of each class, and where they start
  std::vector<float> a, b;                // Platt's coefficients, or none
  int64_t classes = 0, pairs = 0;
  bool of_pairs() const { return vectors.count > 0; }
  int64_t columns() const { return !of_pairs() || !a.empty() || classes <= 2 ? classes : pairs; }
};

Svc svc_of(const Node& n, int64_t classes) {
  Svc m;
  m.classes = classes;
  m.pairs = classes * (classes - 1) / 2;
  m.per_class = n.attr_ints("vectors_per_class");
  int64_t count = 0;
  for (int64_t k : m.per_class) {
    if (k < 0) bad_data("vectors_per_class holds {}", k);
    m.begin.push_back(count);
    count = checked_add(count, k);
  }
  m.vectors = support_vectors(n, count, classes);
  m.a = n.attr_floats("prob_a");
  m.b = n.attr_floats("prob_b");
  if (m.a.size() != m.b.size()) bad_data("prob_a has {} elements, prob_b {}", m.a.size(), m.b.size());
  if (!m.of_pairs()) return m;
  if (classes < 2 || static_cast<int64_t>(m.per_class.size()) != classes) bad_data("vectors_per_class has {} elements for {} classes", m.per_class.size(), classes);
  const auto need = [](size_t have, int64_t want, const char* what) {
    if (static_cast<int64_t>(have) != want) bad_data("{} has {} elements, expected {}", what, have, want);
  };
  need(m.vectors.coefficients.size(), checked_mul(classes - 1, count), "coefficients");
  need(m.vectors.rho.size(), m.pairs, "rho");
  if (!m.a.empty()) need(m.a.size(), m.pairs, "prob_a");
  return m;
}

void infer_svm_classifier(InferContext& c) {
  ops::require_ml_number(c);
  ops::check_post_transform(c.node());
  check_kernel(c.node());
  const Tensor labels = labels_of(c.node());
  const Svc m = svc_of(c.node(), labels.numel());
  ops::infer_classifier(c, labels, ops::rows_of(c, m.vectors.features), m.columns());
}

// [P, S]: what each support vector adds to the function of each pair. LIBSVM keeps for class i's vectors, in row
// j - 1 (j > i) or j (j < i), their coefficients against class j.
Tensor pair_coefficients(const Svc& m) {
  const int64_t count = m.vectors.count;
  Tensor w = Tensor::zeros(DType::kF32, {m.pairs, count});
  float* row = w.mutable_data<float>();
  const float* coefficients = m.vectors.coefficients.data();
  for (int64_t i = 0; i < m.classes; ++i) {
    for (int64_t j = i + 1; j < m.classes; ++j, row += count) {
      const auto copy = [&](int64_t of, int64_t from) {
        const int64_t begin = m.begin[static_cast<size_t>(of)];
        std::copy_n(coefficients + from * count + begin, m.per_class[static_cast<size_t>(of)], row + begin);
      };
      copy(i, j - 1);
      copy(j, i);
    }
  }
  return w;
}

// Votes of the pairs for each class, [N, C]: of pair (i, j), a positive value is one for i, any other for j.
ValueId votes(Lowering& l, const Svc& m, ValueId values) {
  Tensor winner = Tensor::zeros(DType::kF32, {m.classes, m.pairs}), loser = Tensor::zeros(DType::kF32, {m.classes, m.pairs});
  int64_t pair = 0;
  for (int64_t i = 0; i < m.classes; ++i) {
    for (int64_t j = i + 1; j < m.classes; ++j, ++pair) {
      winner.mutable_data<float>()[i * m.pairs + pair] = 1;
      loser.mutable_data<float>()[j * m.pairs + pair] = 1;
    }
  }
  const ValueId positive = l.cast(l.emit("Greater", {values, l.scalar(0, DType::kF32)}), DType::kF32);
  const ValueId others = l.emit("Sub", {l.scalar(1, DType::kF32), positive});
  return l.emit("Add", {product(l, positive, std::move(winner), kNone), product(l, others, std::move(loser), kNone)});
}

void lower_svm_classifier(Lowering& l) {
  const Tensor labels = labels_of(l.node());
  const std::string transform = l.node().attr_string("post_transform", "NONE");
  const Svc m = svc_of(l.node(), labels.numel());
  const ValueId x = ops::as_matrix(l, DType::kF32);
  ValueId shown;
  if (m.of_pairs()) {
    const ValueId k = kernel_values(l, x, matrix(m.vectors.count, m.vectors.features, m.vectors.values));
    const ValueId values = weighted(l, k, pair_coefficients(m), m.vectors.rho);
    ops::set_top_label(l, labels, votes(l, m, values));
    shown = values;
    if (!m.a.empty())
      shown = l.emit("PairwiseCoupling", {values, l.constant(Tensor::vector<float>(m.a)), l.constant(Tensor::vector<float>(m.b))}, {{"classes", m.classes}});
    else if (m.classes == 2) shown = ops::two_scores(l, values, transform == "PROBIT");
  } else {
    const ValueId rho = l.constant(Tensor::of<float>({1}, {m.vectors.rho[0]}));
    shown = product(l, x, matrix(m.classes, m.vectors.features, m.vectors.coefficients), rho);
    ops::set_top_label(l, labels, shown);
  }
  l.set(1, ops::post_transformed(l, shown, transform));
}

// --- internal operators ---------------------------------------------------------------------------

OpDef internal(std::string_view name, int inputs, InferFn infer, std::function<void(const KernelContext&)> run) {
  OpDef def = ops::ml_op(name, std::move(infer));
  def.domain = Graph::kInternalDomain;
  def.min_inputs = def.max_inputs = inputs;
  KernelDef k;
  k.name = "portable/" + def.name;
  k.create = [run = std::move(run)](const KernelQuery&) { return make_kernel(run); };
  def.kernels = {k};
  return def;
}

// (x [N, F], vectors [S, F]) -> [N, S]
void infer_distances(InferContext& c) {
  for (size_t i : {0, 1}) c.require_dtype(i, {DType::kF32});
  c.require_rank(0, 2);
  const Dim rows = ops::rows_of(c, c.dims(1)[1].raw);
  c.set_output(0, DType::kF32, Dims{rows, c.dims(1)[0]});
}

void run_distances(const KernelContext& c) {
  const Tensor &x = c.input(0), &v = c.input(1);
  kernels::squared_distances(x.dim(0), v.dim(0), v.dim(1), x.data<float>(), v.data<float>(), c.output(0).mutable_data<float>());
}

// (values of pairs [N, P], a [P], b [P]) -> [N, classes]
void infer_coupling(InferContext& c) {
  for (size_t i : {0, 1, 2}) c.require_dtype(i, {DType::kF32});
  c.set_output(0, DType::kF32, Dims{ops::rows_of(c), Dim(c.node().attr_int("classes", 2))});
}

void run_coupling(const KernelContext& c) {
  kernels::pairwise_coupling(c.output(0).dim(0), c.output(0).dim(1), c.input(0).data<float>(), c.input(1).data<float>(), c.input(2).data<float>(),
                             c.output(0).mutable_data<float>());
}

}  // namespace

void register_ml_linear_ops(OpRegistry& registry) {
  registry.add(ops::ml_lowered("LinearRegressor", infer_linear_regressor, ops::lower_as(lower_linear_regressor)));
  registry.add(ops::ml_lowered("SVMRegressor", infer_svm_regressor, ops::lower_as(lower_svm_regressor)));
  OpDef linear = ops::ml_lowered("LinearClassifier", infer_linear_classifier, ops::lower_as(lower_linear_classifier));
  linear.max_outputs = 2;
  registry.add(std::move(linear));
  OpDef svc = ops::ml_lowered("SVMClassifier", infer_svm_classifier, ops::lower_as(lower_svm_classifier));
  svc.max_outputs = 2;
  registry.add(std::move(svc));
  registry.add(internal("SquaredDistances", 2, infer_distances, run_distances));
  registry.add(internal("PairwiseCoupling", 3, infer_coupling, run_coupling));
}

}  // namespace ds
