// What training adds to a graph: losses, parameter updates, dropout.
#include <cmath>
#include <limits>

#include "libds/base/parallel.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

Tensor labels(Shape shape, const Ints& v) { return Tensor::of<int64_t>(std::move(shape), v); }
Tensor number(double v) { return Tensor::scalar<double>(v); }
Attributes reduction(const char* r) { return {{"reduction", std::string(r)}}; }

const Tensor kScores = random_tensor({4, 5}, 1, -3, 3);
const Tensor kLabels = labels({4}, {0, 4, 2, 2});

std::vector<Tensor> sgd_inputs(bool masked) {
  std::vector<Tensor> list = {random_tensor({37}, 1), random_tensor({37}, 2), random_tensor({37}, 3), number(0.1)};
  if (masked) list.push_back(Tensor::of<double>({37}, std::vector<double>(37, 1.0)));
  return list;
}

const bool added = add_cases({
    {"SoftmaxCrossEntropyLoss", {kScores, kLabels}},
    {"SoftmaxCrossEntropyLoss", {kScores, kLabels.cast(DType::kI32)}, reduction("sum"), 1, {}, 1e-5, "sum"},
    {"SoftmaxCrossEntropyLoss", {kScores, kLabels}, reduction("none"), 1, {}, 1e-5, "none"},
    {"SoftmaxCrossEntropyLoss", {random_tensor({2, 5, 3}, 1), labels({2, 3}, {0, 1, 2, 3, 4, -1})}, {{"ignore_index", int64_t{-1}}}, 1, {}, 1e-5, "ignore"},
    {"SoftmaxCrossEntropyLoss", {kScores, kLabels, random_tensor({5}, 3, 0.2, 2)}, {}, 1, {0}, 1e-5, "weighted"},
    {"SoftmaxCrossEntropyLoss", {kScores, kLabels}, {}, 2, {0}, 1e-5, "log_prob", 1},
    {"SoftmaxCrossEntropyLossGrad", {kScores, kLabels, number(0.7)}},
    {"MseLoss", {random_tensor({3, 7}, 1), random_tensor({3, 7}, 2)}},
    {"MseLossGrad", {random_tensor({3, 7}, 1), random_tensor({3, 7}, 2), number(0.7)}},
    {"BceWithLogitsLoss", {random_tensor({3, 7}, 1, -4, 4), random_tensor({3, 7}, 2, 0, 1)}},
    {"BceWithLogitsLossGrad", {random_tensor({3, 7}, 1, -4, 4), random_tensor({3, 7}, 2, 0, 1), number(0.7)}},
    {"SgdUpdate", sgd_inputs(false), {{"momentum", 0.9f}, {"weight_decay", 0.01f}}, 2},
    {"SgdUpdate", sgd_inputs(true), {{"momentum", 0.9f}, {"nesterov", int64_t{1}}}, 2, {}, 1e-5, "nesterov"},
    {"AdamWUpdate",
     {random_tensor({37}, 1), random_tensor({37}, 2), random_tensor({37}, 3), random_tensor({37}, 4, 0.1, 1), number(0.01), Tensor::scalar<int64_t>(3)},
     {{"weight_decay", 0.1f}}, 3},
    {"Dropout", {random_tensor({7}, 1)}},
    {"DropoutTrain", {random_tensor({35}, 1), Tensor::scalar<int64_t>(3)}, {{"ratio", 0.4f}, {"seed", int64_t{5}}, {"stream", int64_t{9}}}},
});

// --- values against definitions ---------------------------------------------------------------------

TEST(CrossEntropy, KnownValuesAndHugeScores) {
  const auto loss = [](std::vector<double> scores, const Ints& l) {
    const auto classes = static_cast<int64_t>(scores.size() / l.size());
    const auto rows = static_cast<int64_t>(l.size());
    return run_op({"SoftmaxCrossEntropyLoss", {Tensor::of<double>({rows, classes}, scores), labels({rows}, l)}}, DType::kF32)[0].to_doubles()[0];
  };
  EXPECT_NEAR(loss({0, 0, 0, 0}, {2}), std::log(4.0), 1e-6);
  EXPECT_NEAR(loss({1000, 0}, {0}), 0, 1e-6);
  EXPECT_NEAR(loss({1000, 0}, {1}), 1000, 1e-3);
  EXPECT_NEAR(loss({0, 0, 1000, 0}, {0, 1}), (std::log(2.0) + 1000) / 2, 1e-3);
}

TEST(CrossEntropy, LabelOutsideTheClassesIsNamedWithItsRow) {
  for (const char* op : {"SoftmaxCrossEntropyLoss", "SoftmaxCrossEntropyLossGrad"}) {
    std::vector<Tensor> inputs = {kScores, labels({4}, {0, 1, 2, 5})};
    if (std::string(op) != "SoftmaxCrossEntropyLoss") inputs.push_back(number(1));
    try {
      run_op({op, inputs});
      FAIL() << "label 5 of 5 classes was accepted by " << op;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kBadData);
      EXPECT_NE(std::string(e.what()).find("label 5 of row 3 is outside [0, 5)"), std::string::npos) << e.what();
    }
  }
}

TEST(CrossEntropy, AllIgnoredHasNoNumber) {
  const auto out = run_op({"SoftmaxCrossEntropyLoss", {kScores, labels({4}, {-1, -1, -1, -1})}, {{"ignore_index", int64_t{-1}}}});
  EXPECT_TRUE(std::isnan(out[0].to_doubles()[0]));  // 0 / 0, as onnx defines the mean
}

TEST(SgdUpdate, FollowsTheDefinition) {
  const auto one = [](double v) { return Tensor::of<double>({1}, {v}); };
  const auto plain = run_op({"SgdUpdate", {one(2), one(0.5), one(0.25), number(0.1)}, {{"momentum", 0.5f}, {"weight_decay", 0.25f}}, 2});
  EXPECT_DOUBLE_EQ(plain[1].to_doubles()[0], 0.5 * 0.25 + 0.5 + 0.25 * 2);
  EXPECT_DOUBLE_EQ(plain[0].to_doubles()[0], 2 - 0.1 * 1.125);
  const auto nesterov = run_op({"SgdUpdate", {one(2), one(0.5), one(0.25), number(0.1)}, {{"momentum", 0.5f}, {"nesterov", int64_t{1}}}, 2});
  EXPECT_DOUBLE_EQ(nesterov[0].to_doubles()[0], 2 - 0.1 * (0.5 + 0.5 * 0.625));
}

TEST(AdamWUpdate, FirstStepMovesByTheLearningRate) {
  const Tensor p = Tensor::of<double>({2}, {1, 1}), zero = Tensor::zeros(DType::kF64, {2});
  const auto out = run_op({"AdamWUpdate", {p, Tensor::of<double>({2}, {3, -0.2}), zero, zero, number(0.01), Tensor::scalar<int64_t>(0)}, {}, 3});
  EXPECT_NEAR(out[0].to_doubles()[0], 0.99, 1e-8);
  EXPECT_NEAR(out[0].to_doubles()[1], 1.01, 1e-8);
}

TEST(Updates, MaskedWeightsAndTheirMomentsBecomeZero) {
  const Tensor p = random_tensor({5}, 1), g = random_tensor({5}, 2), m = random_tensor({5}, 3), v = random_tensor({5}, 4, 0, 1);
  const Tensor mask = Tensor::of<double>({5}, {1, 0, 1, 0, 1});
  for (DType dtype : {DType::kF64, DType::kF32}) {
    std::vector<Tensor> sgd = run_op({"SgdUpdate", {p, g, m, number(0.1), mask}, {{"momentum", 0.9f}}, 2}, dtype);
    const std::vector<Tensor> adamw = run_op({"AdamWUpdate", {p, g, m, v, number(0.1), Tensor::scalar<int64_t>(4), mask}, {}, 3}, dtype);
    sgd.insert(sgd.end(), adamw.begin(), adamw.end());
    for (const Tensor& t : sgd) {
      const auto values = t.to_doubles();
      for (size_t i = 0; i < 5; ++i) EXPECT_EQ(values[i] == 0, i % 2 == 1);
    }
  }
}

TEST(DropoutTrain, KeepsTheRightShareAndTheMeanAndRepeats) {
  constexpr int64_t kCount = 40001;
  const Tensor x = Tensor::of<double>({kCount}, std::vector<double>(kCount, 1.0));
  const auto draw = [&](int64_t step, int64_t stream) {
    return run_op({"DropoutTrain", {x, Tensor::scalar<int64_t>(step)}, {{"ratio", 0.3f}, {"seed", int64_t{1}}, {"stream", stream}}})[0];
  };
  const Tensor first = draw(0, 1);
  int64_t kept = 0;
  for (double v : first.to_doubles()) {
    EXPECT_TRUE(v == 0 || std::abs(v - 1 / 0.7) < 1e-6);
    kept += v != 0;
  }
  EXPECT_NEAR(static_cast<double>(kept) / kCount, 0.7, 0.01);  // 4 standard deviations
  EXPECT_TRUE(first.equal_bits(draw(0, 1)));
  EXPECT_FALSE(first.equal_bits(draw(1, 1)));
  EXPECT_FALSE(first.equal_bits(draw(0, 2)));
  const int threads = num_threads();
  set_num_threads(1);
  EXPECT_TRUE(first.equal_bits(draw(0, 1)));
  set_num_threads(threads);
}

TEST(Dropout, IsTheIdentityOutsideTraining) {
  const Tensor x = random_tensor({6}, 1);
  const auto out = run_op({"Dropout", {x}, {}, 2});
  EXPECT_TRUE(out[0].equal_bits(x));
  EXPECT_EQ(out[1].to_ints(), (Ints{1, 1, 1, 1, 1, 1}));
}

}  // namespace
}  // namespace ds::test
