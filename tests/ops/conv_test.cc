#include "libds/compile/compile.h"
#include "libds/compile/plan.h"
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

const bool added = add_cases({
    {"Conv", {random_tensor({2, 3, 7, 9}, 1), random_tensor({5, 3, 3, 3}, 2), random_tensor({5}, 3)}, {{"pads", Ints{1, 1, 1, 1}}}},
    {"Conv", {random_tensor({1, 4, 9, 6}, 1), random_tensor({6, 2, 3, 2}, 2)},
     {{"group", int64_t{2}}, {"strides", Ints{2, 1}}, {"dilations", Ints{1, 2}}, {"pads", Ints{0, 2, 1, 1}}}, 1, {}, 1e-5, "grouped"},
    {"Conv", {random_tensor({2, 5, 6, 7}, 1), random_tensor({5, 1, 3, 3}, 2), random_tensor({5}, 3)},
     {{"group", int64_t{5}}, {"pads", Ints{1, 1, 1, 1}}, {"strides", Ints{2, 2}}}, 1, {}, 1e-5, "depthwise"},
    {"Conv", {random_tensor({2, 9, 5, 5}, 1), random_tensor({17, 9, 1, 1}, 2)}, {}, 1, {}, 1e-5, "pointwise"},
    {"Conv", {random_tensor({1, 3, 5, 6}, 1), random_tensor({4, 3, 1, 1}, 2)}, {{"strides", Ints{2, 2}}}, 1, {}, 1e-5, "pointwise_strided"},
    {"Conv", {random_tensor({2, 3, 11}, 1), random_tensor({4, 3, 4}, 2)},
     {{"auto_pad", std::string("SAME_UPPER")}, {"strides", Ints{2}}}, 1, {}, 1e-5, "one_dimension"},
    {"Conv", {random_tensor({1, 2, 4, 5, 3}, 1), random_tensor({3, 2, 2, 3, 2}, 2), random_tensor({3}, 3)},
     {{"auto_pad", std::string("SAME_LOWER")}}, 1, {}, 1e-5, "three_dimensions"},
    {"Conv", {random_tensor({2, 16, 8, 8}, 1), random_tensor({32, 16, 3, 3}, 2), random_tensor({32}, 3)},
     {{"pads", Ints{1, 1, 1, 1}}}, 1, {-1}, 1e-5, "whole_blocks"},
    {"Conv", {random_tensor({1, 3, 19, 23}, 1), random_tensor({24, 3, 7, 7}, 2)},
     {{"pads", Ints{3, 3, 3, 3}}, {"strides", Ints{2, 2}}}, 1, {-1}, 1e-5, "first_layer"},
    {"ConvTranspose", {random_tensor({2, 3, 4, 5}, 1), random_tensor({3, 4, 3, 3}, 2), random_tensor({4}, 3)},
     {{"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}, {"output_padding", Ints{1, 1}}}},
    {"ConvTranspose", {random_tensor({1, 4, 5}, 1), random_tensor({4, 3, 4}, 2)},
     {{"group", int64_t{2}}, {"strides", Ints{3}}, {"dilations", Ints{2}}}, 1, {}, 1e-5, "grouped"},
    {"ConvTranspose", {random_tensor({1, 2, 3, 4}, 1), random_tensor({2, 2, 3, 3}, 2)},
     {{"strides", Ints{2, 3}}, {"auto_pad", std::string("SAME_UPPER")}}, 1, {}, 1e-5, "same"},
    {"ConvGradInput", {random_tensor({3, 17, 5, 4}, 1), random_tensor({17, 9, 3, 3}, 2)},
     {{"shape", Ints{3, 9, 9, 7}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}}},
    {"ConvGradInput", {random_tensor({2, 8, 7, 6}, 1), random_tensor({8, 1, 3, 3}, 2)},
     {{"shape", Ints{2, 8, 7, 6}}, {"group", int64_t{8}}, {"pads", Ints{1, 1, 1, 1}}}, 1, {}, 1e-5, "depthwise"},
    {"ConvGradInput", {random_tensor({2, 6, 5, 5}, 1), random_tensor({6, 2, 3, 3}, 2)},
     {{"shape", Ints{2, 4, 8, 7}}, {"group", int64_t{2}}, {"pads", Ints{0, 1, 1, 1}}, {"dilations", Ints{2, 2}}}, 1, {}, 1e-5, "dilated"},
    {"ConvGradWeight", {random_tensor({3, 9, 9, 7}, 1), random_tensor({3, 17, 5, 4}, 2)},
     {{"shape", Ints{17, 9, 3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}}},
    {"ConvGradWeight", {random_tensor({2, 8, 7, 6}, 1), random_tensor({2, 8, 7, 6}, 2)},
     {{"shape", Ints{8, 1, 3, 3}}, {"group", int64_t{8}}, {"pads", Ints{1, 1, 1, 1}}}, 1, {}, 1e-5, "depthwise"},
    {"ConvGradWeight", {random_tensor({5, 1, 28, 28}, 1), random_tensor({5, 6, 28, 28}, 2)},
     {{"shape", Ints{6, 1, 5, 5}}, {"pads", Ints{2, 2, 2, 2}}}, 1, {}, 1e-5, "first_layer"},
    {"ConvGradWeight", {random_tensor({2, 3, 13}, 1), random_tensor({2, 4, 6}, 2)},
     {{"shape", Ints{4, 3, 3}}, {"strides", Ints{2}}}, 1, {}, 1e-5, "one_dimension"},
    {"FusedConv", {random_tensor({2, 9, 7, 5}, 1), random_tensor({17, 9, 3, 3}, 2), random_tensor({17}, 3), random_tensor({2, 17, 7, 5}, 4)},
     {{"pads", Ints{1, 1, 1, 1}}, {"activation", std::string("relu")}}},
    {"FusedConv", {random_tensor({1, 8, 7, 5}, 1), random_tensor({16, 8, 1, 1}, 2), Tensor(), random_tensor({1, 16, 7, 5}, 4)},
     {}, 1, {}, 1e-5, "addend_only"},
    {"FusedConv", {random_tensor({1, 3, 9, 9}, 1), random_tensor({8, 3, 3, 3}, 2)},
     {{"strides", Ints{2, 2}}, {"activation", std::string("clip")}, {"low", -0.5f}, {"high", 0.25f}}, 1, {}, 1e-5, "clip"},
    {"FusedConv", {random_tensor({1, 8, 6, 9}, 1), random_tensor({8, 1, 3, 3}, 2), random_tensor({8}, 3)},
     {{"group", int64_t{8}}, {"pads", Ints{1, 1, 1, 1}}, {"activation", std::string("hardswish")}}, 1, {}, 1e-5, "hardswish"},
    {"FusedConv", {random_tensor({1, 4, 6, 9}, 1), random_tensor({6, 2, 3, 3}, 2), random_tensor({6}, 3)},
     {{"group", int64_t{2}}, {"activation", std::string("silu")}}, 1, {}, 1e-5, "silu"},
    {"FusedConv", {random_tensor({1, 4, 6, 9}, 1), random_tensor({5, 4, 1, 1}, 2)}, {{"activation", std::string("sigmoid")}}, 1, {}, 1e-5, "sigmoid"},
});

// Weights known when the kernel is made are packed then; the result is that of packing in every run.
TEST(Conv, ConstantWeightsGiveTheSameBits) {
  for (const Shape& w : {Shape{17, 9, 3, 3}, Shape{16, 16, 1, 1}, Shape{6, 3, 5, 5}}) {
    const Tensor weight = random_tensor(w, 5).cast(DType::kF32), x = random_tensor({2, w[1], 9, 8}, 6).cast(DType::kF32);
    std::vector<Tensor> results;
    for (bool constant : {false, true}) {
      auto g = std::make_shared<Graph>();
      Rewriter rw(*g);
      std::vector<Tensor> inputs = {x};
      const ValueId in = rw.add_input("x", DType::kF32, to_dims(x.shape()));
      ValueId operand;
      if (constant) {
        operand = rw.add_constant("w", weight);
      } else {
        operand = rw.add_input("w", DType::kF32, to_dims(w));
        inputs.push_back(weight);
      }
      rw.add_output(rw.emit("Conv", {in, operand}));
      CompileOptions options;
      options.layouts = false;
      results.push_back(make_plan_executor(compile(g, options))->run(inputs).at(0));
    }
    EXPECT_TRUE(results[0].equal_bits(results[1]));
  }
}

// The kernel that a plan with layouts has for x [N, C, H, W] * w, and its result beside that of direct sums.
struct Planned {
  std::string kernel;
  double difference;  // the largest, in parts of the largest result
};
Planned planned(const Shape& x, const Shape& w, Attributes attrs, bool residual = false) {
  std::vector<Tensor> inputs = {random_tensor(x, 6).cast(DType::kF32)};
  const Tensor weight = random_tensor(w, 5).cast(DType::kF32), bias = random_tensor({w[0]}, 4).cast(DType::kF32);
  Planned p;
  std::vector<Tensor> results;
  for (bool layouts : {false, true}) {
    auto g = std::make_shared<Graph>();
    Rewriter rw(*g);
    const ValueId in = rw.add_input("x", DType::kF32, to_dims(x));
    std::vector<ValueId> operands = {in, rw.add_constant("w", weight), rw.add_constant("b", bias)};
    if (residual) operands.push_back(rw.emit("Relu", {in}));
    rw.add_output(rw.emit(residual ? "FusedConv" : "Conv", operands, attrs));
    CompileOptions options;
    options.layouts = layouts;
    const auto plan = compile(g, options);
    for (const Step& step : plan->steps)
      if (plan->graph->node(step.node).inputs.size() > 2) p.kernel = step.def->name;
    results.push_back(make_plan_executor(plan)->run(inputs).at(0));
  }
  const float *a = results[0].data<float>(), *b = results[1].data<float>();
  float apart = 0, most = 0;
  for (int64_t i = 0; i < results[0].numel(); ++i) {
    apart = std::max(apart, std::abs(a[i] - b[i]));
    most = std::max(most, std::abs(a[i]));
  }
  p.difference = static_cast<double>(apart / most);
  return p;
}

TEST(Conv, WinogradWhereItCostsLess) {
  if (cpu_isa() < Isa::kAvx2) GTEST_SKIP() << "no such kernel for this CPU";
  const Attributes same = {{"pads", Ints{1, 1, 1, 1}}};
  const auto expect = [](const Planned& p, const std::string& kernel) {
    EXPECT_EQ(p.kernel, kernel);
    EXPECT_LT(p.difference, 5e-6);
  };
  expect(planned({1, 32, 27, 30}, {48, 32, 3, 3}, same), "winograd4x4/conv");
  expect(planned({2, 32, 27, 30}, {48, 32, 3, 3}, {{"pads", Ints{0, 2, 1, 0}}}), "winograd4x4/conv");
  expect(planned({1, 256, 14, 14}, {256, 256, 3, 3}, same), "winograd2x2/conv");
  expect(planned({1, 512, 4, 4}, {512, 512, 3, 3}, same), "tile/conv");
  expect(planned({1, 32, 27, 30}, {48, 32, 3, 3}, {{"strides", Ints{2, 2}}}), "tile/conv");
  expect(planned({1, 32, 27, 30}, {48, 32, 3, 3}, {{"dilations", Ints{2, 2}}}), "tile/conv");
  expect(planned({1, 32, 27, 30}, {48, 16, 3, 3}, {{"group", int64_t{2}}}), "tile/conv");
  Attributes with_relu = same;
  with_relu["activation"] = std::string("relu");
  expect(planned({1, 32, 27, 30}, {32, 32, 3, 3}, with_relu, true), "winograd4x4/conv");
}

Graph conv_graph(Dims x, Shape w, Attributes attrs = {}) {
  Graph g;
  Rewriter rw(g);
  for (Dim& d : x)
    if (!d.known()) d = g.symbol(d == Dim::symbol(0) ? "a" : "b");
  const ValueId in = rw.add_input("x", DType::kF32, std::move(x));
  const ValueId weight = rw.add_constant("w", Tensor::zeros(DType::kF32, std::move(w)));
  rw.add_output(rw.emit("Conv", {in, weight}, std::move(attrs), "y"));
  return g;
}

TEST(ConvInference, KeepsSymbolsWhereSizeIsPreserved) {
  const Graph g = conv_graph({Dim::symbol(0), 3, Dim::symbol(1), 8}, {4, 3, 3, 3}, {{"pads", Ints{1, 1, 1, 1}}});
  EXPECT_EQ(g.type_string(g.outputs()[0]), "f32[a,4,b,8]");
}

TEST(ConvInference, MismatchedChannelsNameTheNode) {
  try {
    conv_graph({1, 4, 8, 8}, {4, 3, 3, 3});
    FAIL() << "4 channels went into a weight for 3";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "node 'y' (Conv): weight expects 3 channels, input has 4");
  }
}

TEST(ConvInference, RejectsImpossibleGeometry) {
  EXPECT_THROW(conv_graph({1, 3, 2, 2}, {4, 3, 3, 3}), Error);                              // window too large
  EXPECT_THROW(conv_graph({1, 3, 8, 8}, {4, 3, 3, 3}, {{"strides", Ints{0, 1}}}), Error);   // no step
  EXPECT_THROW(conv_graph({1, 3, 8, 8}, {4, 3, 3, 3}, {{"pads", Ints{-1, 0, 0, 0}}}), Error);
  EXPECT_THROW(conv_graph({1, 3, 8, 8}, {4, 3, 3, 3}, {{"pads", Ints{1, 1}}}), Error);
  EXPECT_THROW(conv_graph({1, 3, 8, 8}, {4, 3, 3, 3}, {{"group", int64_t{0}}}), Error);
  EXPECT_THROW(conv_graph({1, 3, 8, 8}, {4, 3, 3, 3}, {{"kernel_shape", Ints{2, 2}}}), Error);
  EXPECT_THROW(conv_graph({1, 3, 8, 8}, {4, 3, 3, 3}, {{"dilations", Ints{int64_t{1} << 62, 1}}}), Error);
}

}  // namespace
}  // namespace ds::test
