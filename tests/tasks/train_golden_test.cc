// The golden training run: testdata/golden/train_cnn.txt holds ten steps of a small CNN computed in
// numpy and float64 with central differences (tests/golden/train_cnn.py). Our step graph, on portable
// kernels and on whatever this machine selects, planned and eager, has to follow it.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <sstream>

#include "libds/compile/compile.h"
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "libds/tasks/train/train_graph.h"

namespace ds {
namespace {

constexpr int64_t kBatch = 6;
constexpr int kSteps = 10;

// ((a * i + b) mod 16 - 7.5) * scale + offset: never zero, since zeros count as pruned
Tensor pattern(Shape shape, int64_t a, int64_t b, float scale, float offset = 0) {
  Tensor t = Tensor::empty(DType::kF32, std::move(shape));
  for (int64_t i = 0; i < t.numel(); ++i)
    t.mutable_data<float>()[i] = (static_cast<float>((a * i + b) % 16) - 7.5f) * scale + offset;
  return t;
}

Graph model() {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("image", DType::kF32, {g.symbol("batch"), 1, 6, 6});
  const ValueId cw = rw.add_constant("conv.weight", pattern({4, 1, 3, 3}, 5, 3, 0.03125f));
  const ValueId cb = rw.add_constant("conv.bias", pattern({4}, 7, 1, 0.015625f));
  const ValueId bw = rw.add_constant("bn.weight", pattern({4}, 3, 2, 0.015625f, 1.0f));
  const ValueId bb = rw.add_constant("bn.bias", pattern({4}, 11, 5, 0.015625f));
  const ValueId mean = rw.add_constant("bn.mean", Tensor::zeros(DType::kF32, {4}));
  const ValueId var = rw.add_constant("bn.var", pattern({4}, 0, 0, 0.0f, 1.0f));
  const ValueId fw = rw.add_constant("fc.weight", pattern({3, 36}, 13, 4, 0.03125f));
  const ValueId fb = rw.add_constant("fc.bias", pattern({3}, 2, 9, 0.015625f));
  const std::vector<int64_t> ones = {1, 1, 1, 1}, two = {2, 2};
  ValueId y = rw.emit("Conv", {x, cw, cb}, {{"pads", ones}}, "conv");
  y = rw.emit("BatchNormalization", {y, bw, bb, mean, var}, {{"epsilon", 1e-5f}, {"momentum", 0.9f}}, "bn");
  y = rw.emit("MaxPool", {rw.emit("Relu", {y})}, {{"kernel_shape", two}, {"strides", two}}, "pool");
  y = rw.emit("Flatten", {y}, {{"axis", int64_t{1}}}, "flat");
  rw.add_output(rw.emit("Gemm", {y, fw, fb}, {{"transB", int64_t{1}}}, "logits"));
  return g;
}

// "<optimizer> <name>" -> values; losses under "<optimizer> loss".
std::map<std::string, std::vector<double>> reference() {
  std::map<std::string, std::vector<double>> values;
  std::ifstream file(std::string(DS_TESTDATA) + "/golden/train_cnn.txt");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string optimizer, name;
    words >> optimizer >> name;
    if (name == "loss") {
      int step;
      words >> step;
    }
    double v;
    while (words >> v) values[optimizer + " " + name].push_back(v);
  }
  return values;
}

struct Variant {
  const char* name;
  OptimizerKind optimizer;
  Isa isa;
  bool planned;
};

class GoldenTraining : public testing::TestWithParam<Variant> {};

TEST_P(GoldenTraining, FollowsTheReference) {
  const Variant& variant = GetParam();
  const auto expected = reference();
  ASSERT_EQ(expected.size(), 18u) << "incomplete reference file";
  const Graph g = model();
  TrainGraphOptions options;
  options.optimizer = variant.optimizer;
  options.weight_decay = 0.01f;
  const bool sgd = variant.optimizer == OptimizerKind::kSgd;
  // Before BatchNorm the gradient of a bias is zero but for rounding, which AdamW would scale up.
  if (!sgd) options.freeze = {"conv.bias"};
  const std::vector<Shape> shapes = {{kBatch, 1, 6, 6}};
  const TrainGraph train = build_train_graph(g, shapes, options);
  verify_graph(*train.graph);
  CompileOptions compile_options;
  compile_options.isa = variant.isa;
  compile_options.layouts = false;
  const auto executor = variant.planned ? make_plan_executor(compile(train.graph, compile_options))
                                        : make_eager_executor(train.graph, compile_options);
  const Tensor images = Tensor::empty(DType::kF32, {kBatch, 1, 6, 6});
  for (int64_t i = 0; i < images.numel(); ++i)
    images.mutable_data<float>()[i] = static_cast<float>((11 * i * i + 5 * i) % 509 - 254) / 256;
  const Tensor labels = Tensor::of<int64_t>({kBatch}, {0, 1, 2, 0, 1, 2});
  const std::string prefix = sgd ? "sgd " : "adamw ";
  for (int64_t step = 0; step < kSteps; ++step) {
    const std::vector<Tensor> inputs = {images, labels, Tensor::scalar<float>(sgd ? 0.05f : 0.01f), Tensor::scalar<int64_t>(step)};
    const double loss = executor->run(inputs)[0].to_doubles()[0];
    EXPECT_NEAR(loss, expected.at(prefix + "loss")[static_cast<size_t>(step)], 1e-5) << "step " << step;
  }
  for (size_t i = 0; i < train.states.size(); ++i) {
    if (train.states[i].model_value == kNone) continue;
    const std::vector<double> got = executor->states()[i].to_doubles();
    const std::vector<double>& want = expected.at(prefix + train.states[i].name);
    ASSERT_EQ(got.size(), want.size());
    for (size_t j = 0; j < got.size(); ++j) EXPECT_NEAR(got[j], want[j], 1e-5) << train.states[i].name << "[" << j << "]";
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, GoldenTraining,
                         testing::Values(Variant{"sgd_portable_planned", OptimizerKind::kSgd, Isa::kPortable, true},
                                         Variant{"sgd_portable_eager", OptimizerKind::kSgd, Isa::kPortable, false},
                                         Variant{"sgd_native_planned", OptimizerKind::kSgd, cpu_isa(), true},
                                         Variant{"adamw_portable_planned", OptimizerKind::kAdamW, Isa::kPortable, true},
                                         Variant{"adamw_native_planned", OptimizerKind::kAdamW, cpu_isa(), true}),
                         [](const auto& info) { return info.param.name; });

// Static = eager: the same kernels on the unfused graph with layouts off, so the same bits.
TEST(GoldenNetwork, PlannedAndEagerStepsAreBitwiseEqual) {
  const Graph g = model();
  const std::vector<Shape> shapes = {{kBatch, 1, 6, 6}};
  const TrainGraph train = build_train_graph(g, shapes, TrainGraphOptions());
  CompileOptions options;
  options.layouts = false;
  const auto planned = make_plan_executor(compile(train.graph, options)), eager = make_eager_executor(train.graph, options);
  for (int64_t step = 0; step < 3; ++step) {
    const std::vector<Tensor> inputs = {pattern({kBatch, 1, 6, 6}, 29, 6, 0.125f), Tensor::of<int64_t>({kBatch}, {0, 1, 2, 0, 1, 2}),
                                        Tensor::scalar<float>(0.05f), Tensor::scalar<int64_t>(step)};
    EXPECT_TRUE(planned->run(inputs)[0].equal_bits(eager->run(inputs)[0])) << "loss of step " << step;
  }
  for (size_t i = 0; i < train.states.size(); ++i)
    EXPECT_TRUE(planned->states()[i].equal_bits(eager->states()[i])) << train.states[i].name;
}

}  // namespace
}  // namespace ds
