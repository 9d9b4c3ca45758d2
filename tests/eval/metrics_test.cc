#include "libds/eval/metrics.h"

#include <cmath>
#include <limits>

#include "tests/data/files.h"

namespace ds {
namespace {

using testing::expect_error;

TEST(Classify, CountsRanksAndSumsEntropy) {
  const Tensor logits = Tensor::of<float>({3, 7}, {0, 1, 2, 3, 4, 5, 6,   //
                                                   6, 5, 4, 3, 2, 1, 0,   //
                                                   0, 0, 0, 0, 0, 0, 0});
  const Classified c = classify(logits, Tensor::of<int64_t>({3}, {6, 5, 2}));
  EXPECT_EQ(c.samples, 3);
  EXPECT_EQ(c.top1, 1);  // ties go to the lower index: 2 is third among equals
  EXPECT_EQ(c.top5, 2);
  double log_sum = 0;
  for (int i = 0; i < 7; ++i) log_sum += std::exp(i);
  log_sum = std::log(log_sum);
  EXPECT_NEAR(c.cross_entropy, (log_sum - 6) + (log_sum - 1) + std::log(7.0), 1e-12);
  EXPECT_EQ(argmax_rows(logits), (std::vector<int64_t>{6, 0, 0}));
}

TEST(Classify, LargeLogitsDoNotOverflow) {
  const Classified c = classify(Tensor::of<float>({1, 2}, {1e4f, -1e4f}), Tensor::of<int64_t>({1}, {1}));
  EXPECT_DOUBLE_EQ(c.cross_entropy, 2e4);
}

TEST(Classify, NaNIsNeverRight) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(classify(Tensor::of<float>({2, 2}, {nan, nan, 1, nan}), Tensor::of<int64_t>({2}, {0, 0})).top1, 0);
}

TEST(Classify, TrailingUnitAxesAreAllowedAndBadInputNamed) {
  const Tensor logits = Tensor::of<float>({2, 2, 1, 1}, {0, 1, 1, 0});
  EXPECT_EQ(classify(logits, Tensor::of<uint8_t>({2}, {1, 0})).top1, 2);
  expect_error([&] { classify(logits, Tensor::of<int64_t>({2}, {1, 2})); }, "row 1: label 2 is out of range [0, 2)");
  expect_error([&] { classify(logits, Tensor::of<int64_t>({3}, {1, 1, 1})); }, "3 labels for 2 samples");
  expect_error([&] { classify(Tensor::zeros(DType::kF32, {4}), Tensor::zeros(DType::kI64, {4})); }, "expected logits");
}

TEST(Agreement, IsThePartOfEqualChoices) {
  const Tensor a = Tensor::of<float>({4, 2}, {0, 1, 1, 0, 0, 1, 1, 0}), b = Tensor::of<float>({4, 2}, {0, 2, 1, 0, 5, 1, 1, 0});
  EXPECT_DOUBLE_EQ(agreement(a, b), 0.75);
}

TEST(Auc, PerfectReversedTiedAndByHand) {
  EXPECT_DOUBLE_EQ(roc_auc(std::vector<double>{1, 2, 3, 4}, std::vector<int64_t>{0, 0, 1, 1}), 1.0);
  EXPECT_DOUBLE_EQ(roc_auc(std::vector<double>{4, 3, 2, 1}, std::vector<int64_t>{0, 0, 1, 1}), 0.0);
  EXPECT_DOUBLE_EQ(roc_auc(std::vector<double>{1, 1, 1, 1}, std::vector<int64_t>{0, 1, 0, 1}), 0.5);
  // pairs (positive, negative): 0.8>0.6, 0.8>0.4, 0.4<0.6, 0.4=0.4 -> 2.5 of 4
  EXPECT_DOUBLE_EQ(roc_auc(std::vector<double>{0.6, 0.4, 0.8, 0.4}, std::vector<int64_t>{0, 0, 1, 1}), 0.625);
  EXPECT_DOUBLE_EQ(roc_auc(std::vector<double>{1, 2}, std::vector<int64_t>{1, 1}), 0.5);
}

TEST(F1, MacroAndMicro) {
  const F1 f = f1_score(std::vector<int64_t>{0, 0, 1, 1}, std::vector<int64_t>{0, 1, 1, 1}, 3);
  EXPECT_DOUBLE_EQ(f.per_class[0], 2.0 / 3);
  EXPECT_DOUBLE_EQ(f.per_class[1], 0.8);
  EXPECT_DOUBLE_EQ(f.per_class[2], 0);
  EXPECT_DOUBLE_EQ(f.macro, (2.0 / 3 + 0.8) / 2);
  EXPECT_DOUBLE_EQ(f.micro, 0.75);
}

TEST(Distance, ByHand) {
  const Tensor a = Tensor::of<float>({2}, {3, 4}), b = Tensor::of<float>({2}, {3, 5}), zero = Tensor::zeros(DType::kF32, {2});
  EXPECT_DOUBLE_EQ(mean_squared_error(a, b), 0.5);
  EXPECT_DOUBLE_EQ(cosine_similarity(a, b), 29.0 / (5 * std::sqrt(34.0)));
  EXPECT_DOUBLE_EQ(sqnr_db(a, b), 10 * std::log10(34.0));
  EXPECT_TRUE(std::isinf(sqnr_db(a, a)));
  EXPECT_DOUBLE_EQ(cosine_similarity(zero, zero), 1);
  EXPECT_DOUBLE_EQ(cosine_similarity(zero, a), 0);
  EXPECT_DOUBLE_EQ(max_error(a, b).absolute, 1);
  EXPECT_DOUBLE_EQ(max_error(a, b).relative, 0.2);
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(max_error(Tensor::of<float>({1}, {inf}), Tensor::of<float>({1}, {inf})).absolute, 0);
  EXPECT_TRUE(std::isinf(max_error(Tensor::of<float>({1}, {std::nanf("")}), Tensor::of<float>({1}, {1})).absolute));
  expect_error([&] { mean_squared_error(a, Tensor::zeros(DType::kF32, {1, 2})); }, "shapes 2 and 1x2 differ");
  EXPECT_DOUBLE_EQ(perplexity(std::log(7.0)), 7.0);
}

}  // namespace
}  // namespace ds
