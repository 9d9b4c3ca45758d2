// Normalizations, and the conversion of a graph to training form.
#include <cmath>

#include "libds/ir/rewriter.h"
#include "libds/passes/train_mode.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

Tensor per_channel(int64_t channels, uint64_t seed) { return random_tensor({channels}, seed); }
Tensor positive(int64_t channels, uint64_t seed) { return random_tensor({channels}, seed, 0.3, 2.0); }

std::vector<Tensor> batchnorm_inputs(Shape shape) {
  const int64_t channels = shape[1];
  return {random_tensor(std::move(shape), 1, -2, 3), per_channel(channels, 2), per_channel(channels, 3), per_channel(channels, 4), positive(channels, 5)};
}

std::vector<Tensor> batchnorm_grad_inputs(Shape shape) {
  const int64_t channels = shape[1];
  return {random_tensor(shape, 1), random_tensor(shape, 2), per_channel(channels, 3), per_channel(channels, 4), positive(channels, 5)};
}

const bool added = add_cases({
    {"BatchNormalization", batchnorm_inputs({2, 5, 3, 7})},
    {"BatchNormalization", batchnorm_inputs({4, 67})},
    {"BatchNormalization", batchnorm_inputs({3, 4, 5}), {{"training_mode", int64_t{1}}}, 3, {-1}, 1e-5, "training_mode"},
    {"BatchNormTrain", batchnorm_inputs({3, 4, 5, 3}), {}, 5, {0, 1, 2}, 1e-5, "images", 1},
    {"BatchNormTrain", batchnorm_inputs({5, 67}), {{"epsilon", 1e-3f}, {"momentum", 0.8f}}, 5, {0, 1, 2}, 1e-5, "rows", 1},
    {"BatchNormGrad", batchnorm_grad_inputs({3, 4, 5, 3}), {}, 3},
    {"BatchNormGrad", batchnorm_grad_inputs({5, 67}), {}, 3, {}, 1e-5, "rows"},
    {"LayerNormalization", {random_tensor({3, 19}, 1), random_tensor({19}, 2), random_tensor({19}, 3)}, {}, 1},
    {"LayerNormalization", {random_tensor({2, 3, 5}, 1), random_tensor({3, 5}, 2)}, {{"axis", int64_t{1}}}, 1, {}, 1e-5, "two_axes"},
    {"LayerNormalization", {random_tensor({3, 19}, 1), random_tensor({19}, 2), random_tensor({19}, 3)}, {}, 3, {-1}, 1e-5, "with_statistics"},
    {"LayerNormalizationGrad", {random_tensor({37, 19}, 1), random_tensor({19}, 2), random_tensor({37, 19}, 3)}, {}, 3},
    {"RMSNormalization", {random_tensor({3, 19}, 1), random_tensor({19}, 2)}},
    {"SimplifiedLayerNormalization", {random_tensor({3, 19}, 1), random_tensor({19}, 2)}},
    {"RMSNormalizationGrad", {random_tensor({37, 19}, 1), random_tensor({19}, 2), random_tensor({37, 19}, 3)}, {}, 2},
    {"InstanceNormalization", {random_tensor({2, 3, 5, 3}, 1), per_channel(3, 2), per_channel(3, 3)}},
    {"GroupNormalization", {random_tensor({2, 6, 5}, 1), per_channel(6, 2), per_channel(6, 3)}, {{"num_groups", int64_t{3}}}},
    {"GroupNormalization", {random_tensor({2, 8, 7, 11}, 1, -2, 4), per_channel(8, 2), per_channel(8, 3)}, {{"num_groups", int64_t{4}}}, 1, {-1}, 1e-5, "image"},
    {"GroupNormGrad", {random_tensor({2, 6, 5}, 1), per_channel(6, 2), random_tensor({2, 6, 5}, 3)}, {{"num_groups", int64_t{2}}}, 3},
    {"LRN", {random_tensor({2, 7, 3}, 1)}, {{"size", int64_t{3}}, {"alpha", 0.5f}}},
    {"LRN", {random_tensor({1, 5, 3}, 1)}, {{"size", int64_t{4}}, {"alpha", 0.5f}, {"bias", 2.0f}}, 1, {}, 1e-5, "even"},
    {"LRNGrad", {random_tensor({2, 7, 3}, 1), random_tensor({2, 7, 3}, 2)}, {{"size", int64_t{3}}, {"alpha", 0.5f}}},
});

TEST(BatchNormTrain, StatisticsOfAnOffsetChannelAreExact) {
  // Mean 10,000, variance 1.25: a one-pass variance in f32 would lose it.
  const Tensor x = Tensor::of<double>({4, 1}, {9999, 10000, 10001, 10002});
  const auto one = [](double v) { return Tensor::of<double>({1}, {v}); };
  const auto out = run_op({"BatchNormTrain", {x, one(1), one(0), one(0), one(1)}, {{"epsilon", 0.0f}}, 5}, DType::kF32);
  EXPECT_FLOAT_EQ(out[3].data<float>()[0], 10000.5f);
  EXPECT_FLOAT_EQ(out[4].data<float>()[0], static_cast<float>(1 / std::sqrt(1.25)));
  EXPECT_FLOAT_EQ(out[1].data<float>()[0], 1000.05f);
  EXPECT_FLOAT_EQ(out[2].data<float>()[0], 0.9f + 0.125f);
}

TEST(BatchNormalization, WrongChannelCountIsNamed) {
  std::vector<Tensor> inputs = batchnorm_inputs({2, 5, 3});
  inputs[1] = per_channel(4, 1);
  try {
    run_op({"BatchNormalization", inputs});
    FAIL() << "4 scales for 5 channels were accepted";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "node 'op' (BatchNormalization): input 1 ('in1') has 4 elements, the input has 5 channels");
  }
}

TEST(TrainingMode, ConvertsAndReturnsRunningStatistics) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {8, 3});
  const ValueId step = rw.add_input("step", DType::kI64, {});
  const auto constant = [&](const char* name, float v) {
    return rw.add_constant(name, Tensor::vector<float>(std::vector<float>(3, v)));
  };
  const ValueId mean = constant("mean", 0), var = constant("var", 1);
  const ValueId bn = rw.emit("BatchNormalization", {x, constant("scale", 1), constant("bias", 0), mean, var}, {}, "bn");
  const ValueId y = rw.emit("Dropout", {bn, rw.add_constant("ratio", Tensor::scalar<float>(0.25f))}, {}, "drop");
  rw.add_output(y);
  const std::vector<State> states = to_training_mode(rw, step, 7);
  ASSERT_EQ(states.size(), 2u);
  EXPECT_EQ(states[0].value, mean);
  EXPECT_EQ(states[1].value, var);
  for (const State& s : states) rw.add_state(s);
  verify_graph(g);
  EXPECT_EQ(g.node(g.first()).op, "BatchNormTrain");
  EXPECT_EQ(g.node(g.last()).op, "DropoutTrain");
  EXPECT_EQ(g.value(g.outputs()[0]).name, "drop");
  const auto executor = make_eager_executor(std::make_shared<Graph>(g), {});
  std::vector<float> content(24);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<float>(i);
  executor->run(std::vector<Tensor>{Tensor::of<float>({8, 3}, content), Tensor::scalar<int64_t>(0)});
  EXPECT_FLOAT_EQ(executor->states()[0].data<float>()[1], 0.1f * 11.5f);  // mean of 1, 4, ..., 22
}

}  // namespace
}  // namespace ds::test
