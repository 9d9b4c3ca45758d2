#include "tests/support/op_check.h"

#include "libds/base/error.h"

namespace ds::test {
namespace {

const Tensor kLabels = Tensor::of<int64_t>({5}, {0, 3, 2, 1, 3});
const Tensor kPixels = Tensor::of<int64_t>({2, 3}, {0, 2, 1, 1, 0, 2});

const bool added = add_cases({
    {.op = "SoftmaxCrossEntropyLoss", .inputs = {random_tensor({5, 4}, 1, -3, 3), kLabels}, .name = "mean"},
    {.op = "SoftmaxCrossEntropyLoss", .inputs = {random_tensor({2, 3, 3}, 2, -3, 3), kPixels},
     .attrs = {{"reduction", std::string("sum")}, {"ignore_index", int64_t{1}}}, .name = "pixels_ignored"},
    {.op = "SoftmaxCrossEntropyLoss", .inputs = {random_tensor({5, 4}, 3), kLabels},
     .attrs = {{"reduction", std::string("none")}}, .name = "none"},
    {.op = "SoftmaxCrossEntropyLoss", .inputs = {random_tensor({5, 4}, 4), kLabels, random_tensor({4}, 5, 0.2, 1)},
     .wrt = {0}, .name = "weighted"},
    {.op = "MseLoss", .inputs = {random_tensor({3, 7}, 6), random_tensor({3, 7}, 7)}, .wrt = {0}},
    {.op = "BceWithLogitsLoss", .inputs = {random_tensor({3, 7}, 8, -9, 9), random_tensor({3, 7}, 9, 0, 1)}, .wrt = {0}},
    {.op = "SgdUpdate", .inputs = {random_tensor({13}, 1), random_tensor({13}, 2), random_tensor({13}, 3), random_tensor({}, 4, 0.1, 0.2)},
     .attrs = {{"weight_decay", 0.01f}, {"nesterov", int64_t{1}}}, .outputs = 2},
    {.op = "AdamWUpdate",
     .inputs = {random_tensor({13}, 1), random_tensor({13}, 2), random_tensor({13}, 3), random_tensor({13}, 4, 0, 1),
                random_tensor({}, 5, 0.1, 0.2), Tensor::scalar<int64_t>(3)},
     .attrs = {{"weight_decay", 0.01f}}, .outputs = 3},
});

TEST(Loss, LabelOutOfRangeNamesLabelAndSample) {
  const OpCase c{"SoftmaxCrossEntropyLoss", {random_tensor({3, 4}, 1), Tensor::of<int64_t>({3}, {0, 7, 1})}};
  try {
    run_op(c);
    FAIL() << "label 7 of 4 classes was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kBadData);
    EXPECT_NE(std::string(e.what()).find("label 7 of sample 1 is outside 0..3"), std::string::npos) << e.what();
  }
}

TEST(Optimizer, MaskedWeightsAndMomentsAreZero) {
  const Tensor mask = Tensor::of<double>({3}, {1, 0, 1});
  const OpCase c{"SgdUpdate", {random_tensor({3}, 1), random_tensor({3}, 2), random_tensor({3}, 3), Tensor::scalar<double>(0.1), mask}, {}, 2};
  for (const Tensor& t : run_op(c)) {
    EXPECT_EQ(t.data<double>()[1], 0.0);
    EXPECT_NE(t.data<double>()[0], 0.0);
  }
}

}  // namespace
}  // namespace ds::test
