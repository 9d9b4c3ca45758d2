// Operators of domain ai.onnx.ml, and RegexFullMatch: cases by hand where onnxruntime has no answer or another one, and
// hostile attributes. The rest is compared with onnxruntime by tests/python/ml_vs_ort.py.
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "libds/ir/rewriter.h"
#include "libds/run/session.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;
using Floats = std::vector<float>;
using Words = std::vector<std::string>;

std::vector<Tensor> run_ml(const char* op, const std::vector<Tensor>& inputs, Attributes attrs, size_t outputs = 1, const char* domain = "ai.onnx.ml",
                           bool ranks_known = true) {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  Node n;
  n.domain = domain;
  n.op = n.name = op;
  n.def = OpRegistry::instance().find(n.domain, op);
  n.attrs = std::move(attrs);
  for (const Tensor& t : inputs) n.inputs.push_back(rw.add_input("in", t.dtype(), to_dims(t.shape())));
  if (!ranks_known)
    for (ValueId id : n.inputs) rw.set_type(id, graph->value(id).dtype, std::nullopt);
  for (size_t i = 0; i < outputs; ++i) n.outputs.push_back(rw.add_value(rw.unique_name("out")));
  const std::vector<ValueId> results = n.outputs;
  rw.infer(rw.add_raw_node(std::move(n)));
  for (ValueId id : results) rw.add_output(id);
  return Session(graph).run(inputs);
}

// The message of the bad data that running throws; empty when it does not.
std::string refusal(const char* op, const std::vector<Tensor>& inputs, Attributes attrs, size_t outputs = 1, const char* domain = "ai.onnx.ml",
                    ExitCode expected = ExitCode::kBadData) {
  try {
    run_ml(op, inputs, std::move(attrs), outputs, domain);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), expected) << error.what();
    return error.what();
  }
  return {};
}

Attributes with(Attributes attrs, std::initializer_list<std::pair<const char*, Attribute>> changes) {
  for (const auto& [name, value] : changes) attrs[name] = value;
  return attrs;
}

Words words(const Tensor& t) { return {t.strings().begin(), t.strings().end()}; }
std::vector<double> numbers(const Tensor& t) { return t.to_doubles(); }

const float kNan = std::numeric_limits<float>::quiet_NaN();

// Tree 7: x[0] <= 1 ? (x[1] < 0 ? 10 : 20) : 30. Tree 3: the leaf 100.
Attributes two_trees(const char* prefix = "target_") {
  const std::string p = prefix;
  return {{"nodes_treeids", Ints{7, 7, 7, 7, 7, 3}},
          {"nodes_nodeids", Ints{0, 1, 2, 3, 4, 0}},
          {"nodes_featureids", Ints{0, 1, 0, 0, 0, 0}},
          {"nodes_modes", Words{"BRANCH_LEQ", "BRANCH_LT", "LEAF", "LEAF", "LEAF", "LEAF"}},
          {"nodes_values", Floats{1, 0, 0, 0, 0, 0}},
          {"nodes_truenodeids", Ints{1, 2, 0, 0, 0, 0}},
          {"nodes_falsenodeids", Ints{4, 3, 0, 0, 0, 0}},
          {p + "treeids", Ints{7, 7, 7, 3}},
          {p + "nodeids", Ints{2, 3, 4, 0}},
          {p + "ids", Ints{0, 0, 0, 0}},
          {p + "weights", Floats{10, 20, 30, 100}}};
}

const Tensor kRows = Tensor::of<float>({4, 2}, {1, -1, 1, 0, 2, -1, kNan, -5});

TEST(Trees, AreWalked) {
  EXPECT_EQ(numbers(run_ml("TreeEnsembleRegressor", {kRows}, two_trees())[0]), (std::vector<double>{110, 120, 130, 130}));
  const Attributes tracked = with(two_trees(), {{"nodes_missing_value_tracks_true", Ints{1, 0, 0, 0, 0, 0}}});
  EXPECT_EQ(numbers(run_ml("TreeEnsembleRegressor", {kRows}, tracked)[0]), (std::vector<double>{110, 120, 130, 110}));
  const auto aggregated = [&](const char* how) {
    return numbers(run_ml("TreeEnsembleRegressor", {kRows}, with(two_trees(), {{"aggregate_function", std::string(how)}, {"base_values", Floats{1}}}))[0]);
  };
  EXPECT_EQ(aggregated("AVERAGE"), (std::vector<double>{56, 61, 66, 66}));
  EXPECT_EQ(aggregated("MIN"), (std::vector<double>{11, 21, 31, 31}));
  EXPECT_EQ(aggregated("MAX"), (std::vector<double>{101, 101, 101, 101}));
}

TEST(Trees, TakeOneRowAndIntegers) {
  const Tensor row = Tensor::of<float>({2}, {1, 0}), integers = Tensor::of<int64_t>({2, 2}, {1, -1, 2, 0}), none = Tensor::zeros(DType::kF32, {0, 2});
  const Tensor y = run_ml("TreeEnsembleRegressor", {row}, two_trees())[0];
  EXPECT_EQ(y.shape(), (Shape{1, 1}));
  EXPECT_EQ(numbers(y), (std::vector<double>{120}));
  EXPECT_EQ(numbers(run_ml("TreeEnsembleRegressor", {integers}, two_trees())[0]), (std::vector<double>{110, 130}));
  EXPECT_EQ(run_ml("TreeEnsembleRegressor", {none}, two_trees())[0].shape(), (Shape{0, 1}));
}

// Rows are assumed where the rank is not known; a vector is refused then, not read as something else.
TEST(Trees, RanksThatAreNotKnown) {
  const auto run = [](const char* op, const Tensor& x, const Attributes& attrs) { return run_ml(op, {x}, attrs, 1, "ai.onnx.ml", false)[0]; };
  const Attributes svm = {{"coefficients", Floats{1}}, {"rho", Floats{0}}, {"n_supports", int64_t{1}}, {"support_vectors", Floats{1, 2}},
                          {"kernel_type", std::string("RBF")}, {"kernel_params", Floats{0, 0, 0}}};
  EXPECT_EQ(numbers(run("TreeEnsembleRegressor", kRows, two_trees())), (std::vector<double>{110, 120, 130, 130}));
  EXPECT_EQ(numbers(run("SVMRegressor", kRows.rows(0, 2), svm)), (std::vector<double>{1, 1}));
  EXPECT_THROW(run("TreeEnsembleRegressor", Tensor::zeros(DType::kF32, {2}), two_trees()), Error);
  EXPECT_THROW(run("SVMRegressor", Tensor::zeros(DType::kF32, {2}), svm), Error);
}

// A missing value does not follow the true branch unless the node says so, whatever it compares by.
TEST(Trees, MissingValuesGoToTheFalseBranch) {
  for (const char* mode : {"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"}) {
    const Attributes attrs = with(two_trees(), {{"nodes_modes", Words{mode, "BRANCH_LT", "LEAF", "LEAF", "LEAF", "LEAF"}}});
    EXPECT_EQ(numbers(run_ml("TreeEnsembleRegressor", {kRows}, attrs)[0])[3], 130) << mode;
  }
}

// A threshold that f32 cannot hold.
TEST(Trees, KeepDoubleThresholds) {
  const double split = 1 + 1e-12;
  Attributes attrs = two_trees();
  attrs.erase("nodes_values");
  attrs["nodes_values_as_tensor"] = Tensor::of<double>({6}, {split, 0, 0, 0, 0, 0});
  const Tensor x = Tensor::of<double>({2, 2}, {split, 0, 1 + 2e-12, 0});
  EXPECT_EQ(numbers(run_ml("TreeEnsembleRegressor", {x}, attrs)[0]), (std::vector<double>{120, 130}));
  EXPECT_EQ(numbers(run_ml("TreeEnsembleRegressor", {x.cast(DType::kF32)}, attrs)[0]), (std::vector<double>{120, 120}));
}

// onnxruntime returns 0 and 1 here, whatever the labels are.
TEST(Trees, TwoClassesThatBothGetVotes) {
  const Attributes attrs = with(two_trees("class_"), {{"class_ids", Ints{0, 1, 1, 1}}, {"class_weights", Floats{5, 2, 9, 1}}, {"classlabels_int64s", Ints{40, 50}}});
  const auto out = run_ml("TreeEnsembleClassifier", {kRows}, attrs, 2);
  EXPECT_EQ(out[0].to_ints(), (Ints{40, 50, 50, 50}));
  EXPECT_EQ(numbers(out[1]), (std::vector<double>{5, 1, 0, 3, 0, 10, 0, 10}));
}

// The transform applies to one score too; onnxruntime leaves it out.
TEST(Trees, TransformASingleScore) {
  const Attributes small = with(two_trees(), {{"target_weights", Floats{-1, 2, 3, 0}}, {"post_transform", std::string("LOGISTIC")}});
  EXPECT_NEAR(numbers(run_ml("TreeEnsembleRegressor", {kRows}, small)[0])[0], 1 / (1 + std::exp(1.0)), 1e-6);
  const Attributes binary = with(two_trees("class_"), {{"class_weights", Floats{-1, 2, 3, 0}}, {"classlabels_strings", Words{"n", "y"}},
                                                       {"post_transform", std::string("SOFTMAX")}});
  const auto out = run_ml("TreeEnsembleClassifier", {kRows}, binary, 2);
  EXPECT_EQ(words(out[0]), (Words{"n", "y", "y", "y"}));
  EXPECT_NEAR(numbers(out[1])[0], 1 / (1 + std::exp(-2.0)), 1e-6);
  EXPECT_NEAR(numbers(out[1])[1], 1 / (1 + std::exp(2.0)), 1e-6);
}

TEST(Trees, ProbitIsTheNormalQuantile) {
  const Attributes attrs = with(two_trees(), {{"target_weights", Floats{0.1f, 0.9f, 0.5f, 0}}, {"post_transform", std::string("PROBIT")}});
  const auto y = numbers(run_ml("TreeEnsembleRegressor", {kRows}, attrs)[0]);
  EXPECT_NEAR(y[0], -1.2815516, 3e-4);  // the formula is an approximation
  EXPECT_NEAR(y[1], 1.2815516, 3e-4);
  EXPECT_NEAR(y[2], 0, 1e-6);
}

TEST(Trees, WrongArraysAreRefused) {
  const auto why = [](std::initializer_list<std::pair<const char*, Attribute>> changes) {
    return refusal("TreeEnsembleRegressor", {kRows}, with(two_trees(), changes));
  };
  EXPECT_THAT(why({{"nodes_modes", Words{"LEAF"}}}), testing::HasSubstr("nodes_modes has 1 elements, nodes_treeids has 6"));
  EXPECT_THAT(why({{"nodes_values", Floats{1, 2}}}), testing::HasSubstr("nodes_values has 2"));
  EXPECT_THAT(why({{"nodes_missing_value_tracks_true", Ints{1}}}), testing::HasSubstr("tracks_true has 1"));
  EXPECT_THAT(why({{"nodes_truenodeids", Ints{0, 2, 0, 0, 0, 0}}}), testing::HasSubstr("circle"));
  EXPECT_THAT(why({{"nodes_falsenodeids", Ints{4, 0, 0, 0, 0, 0}}}), testing::HasSubstr("circle"));
  EXPECT_THAT(why({{"nodes_truenodeids", Ints{9, 2, 0, 0, 0, 0}}}), testing::HasSubstr("node 9 as its true branch"));
  EXPECT_THAT(why({{"nodes_falsenodeids", Ints{-1, 3, 0, 0, 0, 0}}}), testing::HasSubstr("node -1 as its false branch"));
  EXPECT_THAT(why({{"nodes_nodeids", Ints{0, 1, 2, 3, 3, 0}}}), testing::HasSubstr("twice"));
  EXPECT_THAT(why({{"nodes_featureids", Ints{0, 2, 0, 0, 0, 0}}}), testing::HasSubstr("reads feature 2, its input has 2"));
  EXPECT_THAT(why({{"nodes_featureids", Ints{-1, 1, 0, 0, 0, 0}}}), testing::HasSubstr("nodes_featureids holds -1"));
  EXPECT_THAT(why({{"nodes_modes", Words{"BRANCH_LEQ", "BRANCH", "LEAF", "LEAF", "LEAF", "LEAF"}}}), testing::HasSubstr("'BRANCH'"));
  EXPECT_THAT(why({{"target_ids", Ints{0, 0, 1, 0}}}), testing::HasSubstr("target_ids holds 1"));
  EXPECT_THAT(why({{"target_nodeids", Ints{2, 3, 4, 5}}}), testing::HasSubstr("which is not there"));
  EXPECT_THAT(why({{"target_weights", Floats{1}}}), testing::HasSubstr("weights has 1"));
  EXPECT_THAT(why({{"base_values", Floats{1, 2}}}), testing::HasSubstr("base_values has 2"));
  EXPECT_THAT(why({{"nodes_treeids", Ints{}}}), testing::HasSubstr("no nodes"));
  EXPECT_THAT(why({{"aggregate_function", std::string("MEAN")}}), testing::HasSubstr("'MEAN'"));
  EXPECT_THAT(why({{"post_transform", std::string("TANH")}}), testing::HasSubstr("'TANH'"));
  EXPECT_THAT(why({{"n_targets", int64_t{-1}}}), testing::HasSubstr("n_targets is -1"));
  refusal("TreeEnsembleRegressor", {kRows}, with(two_trees(), {{"n_targets", int64_t{1} << 50}}), 1, "ai.onnx.ml", ExitCode::kUnsupported);
  EXPECT_THAT(refusal("TreeEnsembleClassifier", {kRows}, two_trees("class_"), 2), testing::HasSubstr("classlabels_int64s"));
  EXPECT_THAT(refusal("TreeEnsembleRegressor", {Tensor::zeros(DType::kF32, {1, 2, 2})}, two_trees()), testing::HasSubstr("expected [N, F]"));
}

// Set 5. Nodes: 0: x[0] in {1, 3} ? leaf 0 : node 1; 1: x[0] > 2 ? leaf 1 : leaf 2.
Attributes placed_tree() {
  return {{"nodes_featureids", Ints{0, 0}},
          {"nodes_modes", Tensor::of<uint8_t>({2}, {6, 3})},
          {"nodes_splits", Tensor::of<float>({2}, {0, 2})},
          {"nodes_truenodeids", Ints{0, 1}},
          {"nodes_trueleafs", Ints{1, 1}},
          {"nodes_falsenodeids", Ints{1, 2}},
          {"nodes_falseleafs", Ints{0, 1}},
          {"leaf_weights", Tensor::of<float>({3}, {10, 20, 30})},
          {"leaf_targetids", Ints{0, 1, 0}},
          {"membership_values", Tensor::of<float>({3}, {3, 1, kNan})},
          {"tree_roots", Ints{0}},
          {"n_targets", int64_t{2}}};
}

TEST(TreeEnsemble, TestsForMembership) {
  const Tensor x = Tensor::of<float>({4, 1}, {1, 3, 2.5f, 2});
  EXPECT_EQ(numbers(run_ml("TreeEnsemble", {x}, placed_tree())[0]), (std::vector<double>{10, 0, 10, 0, 0, 20, 30, 0}));
  const Tensor half = run_ml("TreeEnsemble", {x.cast(DType::kF16)}, placed_tree())[0];
  EXPECT_EQ(half.dtype(), DType::kF16);
  EXPECT_EQ(numbers(half), (std::vector<double>{10, 0, 10, 0, 0, 20, 30, 0}));
}

TEST(TreeEnsemble, WrongArraysAreRefused) {
  const Tensor x = Tensor::of<float>({1, 1}, {1});
  const auto why = [&](std::initializer_list<std::pair<const char*, Attribute>> changes) { return refusal("TreeEnsemble", {x}, with(placed_tree(), changes)); };
  EXPECT_THAT(why({{"nodes_falsenodeids", Ints{0, 2}}}), testing::HasSubstr("circle"));
  EXPECT_THAT(why({{"nodes_falsenodeids", Ints{2, 2}}}), testing::HasSubstr("node 0 leads to node 2, there are 2"));
  EXPECT_THAT(why({{"nodes_truenodeids", Ints{0, 3}}}), testing::HasSubstr("leaf 3, there are 3"));
  EXPECT_THAT(why({{"nodes_truenodeids", Ints{-1, 1}}}), testing::HasSubstr("leaf -1"));
  EXPECT_THAT(why({{"tree_roots", Ints{2}}}), testing::HasSubstr("tree_roots holds 2"));
  EXPECT_THAT(why({{"tree_roots", Ints{}}}), testing::HasSubstr("tree_roots"));
  EXPECT_THAT(why({{"leaf_targetids", Ints{0, 1, 2}}}), testing::HasSubstr("leaf_targetids holds 2"));
  EXPECT_THAT(why({{"leaf_targetids", Ints{0}}}), testing::HasSubstr("leaf_targetids has 1"));
  EXPECT_THAT(why({{"nodes_modes", Tensor::of<uint8_t>({2}, {6, 7})}}), testing::HasSubstr("nodes_modes holds 7"));
  EXPECT_THAT(why({{"nodes_modes", Tensor::of<uint8_t>({2}, {6, 6})}}), testing::HasSubstr("holds 1 sets, 2 nodes"));
  EXPECT_THAT(why({{"nodes_trueleafs", Ints{1, 2}}}), testing::HasSubstr("more than 0 and 1"));
  EXPECT_THAT(why({{"aggregate_function", int64_t{4}}}), testing::HasSubstr("aggregate_function 4"));
  EXPECT_THAT(why({{"post_transform", int64_t{5}}}), testing::HasSubstr("post_transform 5"));
  Attributes without = placed_tree();
  without.erase("nodes_splits");
  EXPECT_THAT(refusal("TreeEnsemble", {x}, without), testing::HasSubstr("no attribute nodes_splits"));
}

// As deep as it has nodes: neither reading nor walking it may recurse.
TEST(TreeEnsemble, MayBeAChain) {
  constexpr int64_t kDepth = 200000;
  Ints next, zeros(kDepth, 0), ones(kDepth, 1), leaf(kDepth, 0);
  for (int64_t i = 0; i < kDepth; ++i) next.push_back(i + 1);
  next.back() = 1;
  leaf.back() = 1;
  Attributes attrs = placed_tree();
  attrs.erase("membership_values");
  attrs = with(attrs, {{"nodes_featureids", zeros}, {"nodes_truenodeids", zeros}, {"nodes_trueleafs", ones}, {"nodes_falsenodeids", next}, {"nodes_falseleafs", leaf}});
  attrs["nodes_modes"] = Tensor::zeros(DType::kU8, {kDepth});
  attrs["nodes_splits"] = Tensor::zeros(DType::kF32, {kDepth});
  EXPECT_EQ(numbers(run_ml("TreeEnsemble", {Tensor::of<float>({2, 1}, {-1, 1})}, attrs)[0]), (std::vector<double>{10, 0, 0, 20}));
}

TEST(LinearModels, WrongAttributesAreRefused) {
  const Tensor x = Tensor::zeros(DType::kF32, {2, 3});
  EXPECT_THAT(refusal("LinearRegressor", {x}, {{"coefficients", Floats{1, 2}}}), testing::HasSubstr("3 features, the attributes have 2"));
  EXPECT_THAT(refusal("LinearRegressor", {x}, {{"coefficients", Floats{1, 2, 3}}, {"targets", int64_t{2}}}), testing::HasSubstr("3 coefficients are none for 2"));
  EXPECT_THAT(refusal("LinearRegressor", {x}, {{"coefficients", Floats{1, 2, 3}}, {"intercepts", Floats{1, 2}}}), testing::HasSubstr("2 intercepts"));
  EXPECT_THAT(refusal("LinearClassifier", {x}, {{"coefficients", Floats{1, 2, 3}}}, 2), testing::HasSubstr("classlabels_ints"));
  EXPECT_THAT(refusal("SVMRegressor", {x}, {{"coefficients", Floats{1}}, {"rho", Floats{0}}, {"n_supports", int64_t{2}}, {"support_vectors", Floats{1, 2, 3, 4, 5, 6}}}),
              testing::HasSubstr("1 coefficients for 2 support vectors"));
  const Attributes svc = {{"coefficients", Floats{1, 2}}, {"support_vectors", Floats{1, 2, 3, 4, 5, 6}}, {"vectors_per_class", Ints{1, 1}}, {"rho", Floats{0}},
                          {"classlabels_ints", Ints{0, 1}}};
  EXPECT_EQ(refusal("SVMClassifier", {x}, svc, 2), "");
  EXPECT_THAT(refusal("SVMClassifier", {x}, with(svc, {{"vectors_per_class", Ints{1, -1}}}), 2), testing::HasSubstr("vectors_per_class holds -1"));
  EXPECT_THAT(refusal("SVMClassifier", {x}, with(svc, {{"vectors_per_class", Ints{1, 5}}}), 2), testing::HasSubstr("coefficients has 2 elements, expected 6"));
  EXPECT_THAT(refusal("SVMClassifier", {x}, with(svc, {{"rho", Floats{0, 1}}}), 2), testing::HasSubstr("rho has 2"));
  EXPECT_THAT(refusal("SVMClassifier", {x}, with(svc, {{"prob_a", Floats{0}}}), 2), testing::HasSubstr("prob_b 0"));
  EXPECT_THAT(refusal("SVMClassifier", {x}, with(svc, {{"kernel_type", std::string("COSINE")}}), 2), testing::HasSubstr("'COSINE'"));
  EXPECT_THAT(refusal("SVMClassifier", {x}, with(svc, {{"kernel_params", Floats{1}}}), 2), testing::HasSubstr("kernel_params has 1"));
}

TEST(Features, TypesThatOnnxruntimeDoesNotRun) {
  const Tensor ints = Tensor::of<int32_t>({2, 2}, {1, 2, 3, -1});
  EXPECT_EQ(run_ml("Binarizer", {ints}, {{"threshold", 1.5f}})[0].to_ints(), (Ints{0, 1, 1, 0}));
  EXPECT_EQ(run_ml("Imputer", {ints}, {{"imputed_value_int64s", Ints{7, 8}}, {"replaced_value_int64", int64_t{-1}}})[0].to_ints(), (Ints{1, 2, 3, 8}));
  const Tensor doubles = Tensor::of<double>({1, 2}, {std::nan(""), 0.1});
  EXPECT_EQ(numbers(run_ml("Imputer", {doubles}, {{"imputed_value_floats", Floats{0.5f}}, {"replaced_value_float", kNan}})[0]), (std::vector<double>{0.5, 0.1}));
  EXPECT_EQ(numbers(run_ml("LinearRegressor", {ints}, {{"coefficients", Floats{2, 3}}})[0]), (std::vector<double>{8, 3}));
}

TEST(Features, WrongAttributesAreRefused) {
  const Tensor x = Tensor::zeros(DType::kF32, {2, 3});
  EXPECT_THAT(refusal("Scaler", {x}, {{"offset", Floats{1, 2}}}), testing::HasSubstr("offset has 2 elements"));
  EXPECT_THAT(refusal("Normalizer", {x}, {{"norm", std::string("L3")}}), testing::HasSubstr("'L3'"));
  EXPECT_THAT(refusal("Imputer", {x}, {{"imputed_value_int64s", Ints{1}}}), testing::HasSubstr("are integers"));
  EXPECT_THAT(refusal("Imputer", {x}, {}), testing::HasSubstr("needs one of"));
  EXPECT_THAT(refusal("ArrayFeatureExtractor", {x, Tensor::of<int64_t>({1}, {3})}, {}), testing::HasSubstr("3"));
  EXPECT_THAT(refusal("FeatureVectorizer", {x}, {{"inputdimensions", Ints{1, 2}}}), testing::HasSubstr("2 elements for 1 inputs"));
  EXPECT_THAT(refusal("FeatureVectorizer", {x}, {{"inputdimensions", Ints{-1}}}), testing::HasSubstr("holds -1"));
}

TEST(Labels, TheLastOfEqualKeysCounts) {
  const Tensor x = Tensor::of<float>({4}, {-0.0f, kNan, 1, 5});
  const Attributes attrs = {{"keys_floats", Floats{0, 1, kNan, 1}}, {"values_int64s", Ints{10, 20, 30, 40}}};
  EXPECT_EQ(run_ml("LabelEncoder", {x}, attrs)[0].to_ints(), (Ints{10, 30, 40, -1}));
}

TEST(Labels, WrongAttributesAreRefused) {
  const Tensor x = Tensor::of<int64_t>({1}, {3});
  EXPECT_THAT(refusal("LabelEncoder", {x}, {{"keys_int64s", Ints{1}}, {"values_int64s", Ints{1, 2}}}), testing::HasSubstr("1 keys and 2 values"));
  EXPECT_THAT(refusal("LabelEncoder", {x}, {{"keys_int64s", Ints{1}}}), testing::HasSubstr("0 attributes values_*"));
  EXPECT_THAT(refusal("LabelEncoder", {x}, {{"keys_strings", Words{"1"}}, {"values_int64s", Ints{1}}}), testing::HasSubstr("i64"));
  EXPECT_THAT(refusal("LabelEncoder", {x}, {{"keys_int64s", Ints{1}}, {"values_int64s", Ints{1}}, {"default_tensor", Tensor::of<float>({1}, {1})}}),
              testing::HasSubstr("the default is f32"));
  EXPECT_THAT(refusal("CategoryMapper", {x}, {{"cats_int64s", Ints{1}}}), testing::HasSubstr("1 keys and 0 values"));
  EXPECT_THAT(refusal("OneHotEncoder", {x}, {{"cats_int64s", Ints{1, 2}}, {"zeros", int64_t{0}}}), testing::HasSubstr("no category"));
  EXPECT_THAT(refusal("OneHotEncoder", {x}, {{"cats_strings", Words{"a"}}}), testing::HasSubstr("categories are string"));
  const Tensor huge = Tensor::of<double>({3}, {1e300, std::nan(""), 1.9});
  EXPECT_EQ(numbers(run_ml("OneHotEncoder", {huge}, {{"cats_int64s", Ints{0, 1}}})[0]), (std::vector<double>{0, 0, 0, 0, 0, 1}));
}

TEST(RegexFullMatch, IsSafe) {
  const std::string text(100000, 'a');
  const Tensor x = Tensor::of_strings({2}, {text, text + "b"});
  // Exponential for engines that go back.
  EXPECT_EQ(run_ml("RegexFullMatch", {x}, {{"pattern", std::string("(a+)+")}}, 1, "")[0].to_ints(), (Ints{1, 0}));
  for (const char* pattern : {"(", "a{100000}", "(a)\\1", "(?=a)", "[z-a]", "*", "\xff"})
    EXPECT_THAT(refusal("RegexFullMatch", {x}, {{"pattern", std::string(pattern)}}, 1, ""), testing::HasSubstr("RE2")) << pattern;
  EXPECT_THAT(refusal("RegexFullMatch", {x}, {}, 1, ""), testing::HasSubstr("pattern"));
}

}  // namespace
}  // namespace ds::test
