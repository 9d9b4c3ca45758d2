#include "libds/eval/evaluate.h"

#include <cmath>

#include "libds/ir/rewriter.h"
#include "tests/data/files.h"

namespace ds {
namespace {

using testing::expect_error;

// logits = x + bias
std::shared_ptr<Graph> adder(Dim batch, int64_t classes) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {batch.known() ? batch : g->symbol("batch"), classes});
  rw.add_output(rw.emit("Add", {x, rw.add_constant("b", Tensor::zeros(DType::kF32, {classes}))}, {}, "y"));
  return g;
}

const Dim kOpen = Dim::symbol(0);

Feed feed_of(const Graph& g, Tensor x, Tensor y) { return Feed(std::make_shared<const Dataset>("d", NamedTensors{{"x", x}}, y), input_specs(g)); }

TEST(Evaluate, ClassifiesInAnyBatchSizeAlike) {
  const auto g = adder(kOpen, 3);
  const Tensor x = Tensor::of<float>({5, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1});
  const Feed feed = feed_of(*g, x, Tensor::of<uint8_t>({5}, {0, 1, 2, 2, 2}));
  Session session(g);
  const double wrong = std::log(2 + std::exp(1.0)), right = wrong - 1;
  for (int64_t batch : {1, 2, 5, 64}) {
    const EvalResult r = evaluate(session, feed, {.batch_size = batch});
    EXPECT_EQ(r.samples, 5);
    EXPECT_DOUBLE_EQ(*r.top1, 0.8);
    EXPECT_FALSE(r.top5);
    EXPECT_NEAR(r.loss, (4 * right + wrong) / 5, 1e-12);
    EXPECT_EQ(r.predicted, (std::vector<int64_t>{0, 1, 2, 0, 2}));
  }
  const EvalResult part = evaluate(session, feed, {.batch_size = 2, .rows = {3, 0, 4}});
  EXPECT_EQ(part.samples, 3);
  EXPECT_EQ(part.predicted, (std::vector<int64_t>{0, 0, 2}));
}

TEST(Evaluate, AFixedBatchIsFilledUp) {
  const auto g = adder(Dim(4), 2);
  const Feed feed = feed_of(*g, Tensor::of<float>({5, 2}, {1, 0, 1, 0, 1, 0, 1, 0, 0, 1}), Tensor::of<int64_t>({5}, {0, 0, 0, 0, 1}));
  Session session(g);
  const EvalResult r = evaluate(session, feed);
  EXPECT_EQ(r.samples, 5);
  EXPECT_DOUBLE_EQ(*r.top1, 1);
  const int64_t rows[] = {4, 0, 1, 2, 3, 4};
  const Tensor all = predict(session, feed, rows);
  EXPECT_EQ(all.shape(), (Shape{6, 2}));
  EXPECT_EQ(all.data<float>()[1], 1);
  EXPECT_EQ(all.data<float>()[11], 1);
}

TEST(Evaluate, RegressionAndBinary) {
  const auto g = adder(kOpen, 1);
  const Feed feed = feed_of(*g, Tensor::of<float>({4, 1}, {-2, 3, 0.5, -1}), Tensor::of<float>({4}, {0, 1, 0, 1}));
  Session session(g);
  EXPECT_NEAR(evaluate(session, feed, {.loss = EvalLoss::kMse}).loss, (4 + 4 + 0.25 + 4) / 4, 1e-12);
  const EvalResult b = evaluate(session, feed, {.loss = EvalLoss::kBce});
  const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
  EXPECT_NEAR(b.loss, (softplus(-2) + softplus(-3) + softplus(0.5) + softplus(1)) / 4, 1e-7);
  EXPECT_DOUBLE_EQ(*b.accuracy, 0.5);
  EXPECT_DOUBLE_EQ(*b.auc, 0.75);
}

TEST(Evaluate, BadLabelsNameTheRow) {
  const auto g = adder(kOpen, 2);
  Session session(g);
  const Tensor x = Tensor::zeros(DType::kF32, {3, 2});
  expect_error([&] { evaluate(session, feed_of(*g, x, Tensor::of<int64_t>({3}, {0, 1, 7})), {.batch_size = 2}); }, "d: row 2: label 7 is out of range [0, 2)");
  expect_error([&] { evaluate(session, feed_of(*g, x, Tensor())); }, "d: no labels");
  expect_error([&] { evaluate(session, feed_of(*g, x, Tensor::of<float>({3}, {0, 1, 1}))); }, "must be integers");
  expect_error([&] { evaluate(session, feed_of(*g, x, Tensor::of<float>({3}, {0, 1, 1})), {.loss = EvalLoss::kMse}); }, "for targets of shape");
}

}  // namespace
}  // namespace ds
