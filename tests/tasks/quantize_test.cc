// Post-training quantization: what is quantized and why not, determinism, the gate, and bad input.
#include "libds/tasks/quantize/quantize.h"

#include <gtest/gtest.h>

#include "libds/ir/onnx_export.h"
#include "libds/ir/rewriter.h"
#include "libds/run/session.h"
#include "libds/tasks/quantize/calibrate.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

ValueId weight(Rewriter& rw, Shape shape, uint64_t seed, double most = 0.5) {
  return rw.add_constant(fmt::format("w{}", seed), random_tensor(std::move(shape), seed, -most, most).cast(DType::kF32));
}

// Conv, Relu, MaxPool, Conv + residual Add, GlobalAveragePool, Flatten, Gemm; batch is symbolic.
Graph small_network() {
  Graph g;
  g.opsets[""] = 17;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("batch"), 2, 8, 8});
  ValueId h = rw.emit("Conv", {x, weight(rw, {8, 2, 3, 3}, 1), weight(rw, {8}, 2)}, {{"pads", Ints{1, 1, 1, 1}}}, "first");
  h = rw.emit("MaxPool", {rw.emit("Relu", {h})}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}}, "pool");
  const ValueId branch = rw.emit("Conv", {h, weight(rw, {8, 8, 3, 3}, 3, 0.2)}, {{"pads", Ints{1, 1, 1, 1}}}, "second");
  h = rw.emit("Relu", {rw.emit("Add", {branch, h}, {}, "sum")});
  h = rw.emit("Flatten", {rw.emit("GlobalAveragePool", {h}, {}, "mean")});
  rw.add_output(rw.emit("Gemm", {h, weight(rw, {4, 8}, 4), weight(rw, {4}, 5)}, {{"transB", int64_t{1}}}, "logits"));
  return g;
}

std::shared_ptr<const Dataset> samples(int64_t n, Tensor labels = {}, double most = 1.0) {
  return std::make_shared<Dataset>("samples", NamedTensors{{"x", random_tensor({n, 2, 8, 8}, 9, -most, most).cast(DType::kF32)}}, labels);
}

QuantizeRequest request(int64_t n = 40) {
  QuantizeRequest r;
  r.calibration = samples(n);
  return r;
}

std::map<std::string, int> count_ops(const Graph& g) {
  std::map<std::string, int> counts;
  for (NodeId id : g.order()) ++counts[g.node(id).op];
  return counts;
}

TEST(Quantize, WholeNetworkBecomesIntegers) {
  const Graph g = small_network();
  const QuantizeOutcome o = quantize(g, request());
  verify_graph(*o.graph);
  for (const NodeQuantization& n : o.nodes) {
    EXPECT_TRUE(n.quantized) << n.name << ": " << n.reason;
    EXPECT_TRUE(n.sqnr_db && *n.sqnr_db > 25) << n.name;
  }
  EXPECT_EQ(o.nodes.size(), 6u);
  EXPECT_EQ(o.samples, 40);
  // Weights are stored as integers behind DequantizeLinear.
  for (NodeId id : o.graph->order()) {
    const Node& n = o.graph->node(id);
    if (!n.is("Conv") && !n.is("Gemm")) continue;
    const Node& dq = o.graph->node(o.graph->value(n.inputs[1]).producer);
    EXPECT_TRUE(dq.is("DequantizeLinear"));
    EXPECT_EQ(o.graph->value(dq.inputs[0]).constant->dtype(), DType::kI8);
  }
  // Our runtime takes all of it as integers.
  Session session(o.graph);
  const auto ops = count_ops(session.graph());
  for (const char* op : {"Conv", "FusedConv", "Gemm", "Add", "MaxPool", "DequantizeLinear"}) EXPECT_EQ(ops.count(op), 0u) << op;
  Session exact(std::make_shared<Graph>(g));
  const std::vector<Tensor> input = {random_tensor({3, 2, 8, 8}, 77).cast(DType::kF32)};
  EXPECT_LE(relative_error(session.run(input)[0], exact.run(input)[0]), 0.05);
}

TEST(Quantize, SameInputsSameBytesWhateverTheEvaluationBatch) {
  const Graph g = small_network();
  QuantizeRequest a = request(), b = request();
  Tensor labels = Tensor::zeros(DType::kI64, {40});
  a.evaluation = b.evaluation = samples(40, labels);
  a.batch_size = 7;
  b.batch_size = 40;
  EXPECT_EQ(serialize_model(*quantize(g, a).graph), serialize_model(*quantize(g, b).graph));
}

TEST(Quantize, ExcludedNodesStayFloat) {
  QuantizeRequest r = request();
  r.options.exclude = {"sec*", "Gemm"};
  const QuantizeOutcome o = quantize(small_network(), r);
  std::map<std::string, std::string> reasons;
  for (const NodeQuantization& n : o.nodes) reasons[n.name] = n.reason;
  EXPECT_EQ(reasons["second"], "excluded by 'sec*'");
  EXPECT_EQ(reasons["logits"], "excluded by 'Gemm'");
  EXPECT_EQ(reasons["first"], "");
  EXPECT_EQ(reasons["sum"], "operand 'second' is not quantized");
}

TEST(Quantize, ReducedRangeNeverOverflowsSixteenBits) {
  QuantizeRequest r = request();
  r.options.reduce_range = true;
  const QuantizeOutcome o = quantize(small_network(), r);
  int seen = 0;
  for (ValueId id : o.graph->initializers()) {
    const Tensor& t = *o.graph->value(id).constant;
    if (t.dtype() != DType::kI8) continue;
    ++seen;
    for (int64_t x : t.to_ints()) EXPECT_LE(std::abs(x), 64);
  }
  EXPECT_GT(seen, 0);
}

TEST(Quantize, NeighbouringWeightsNeverOverflowSixteenBits) {
  const QuantizeOutcome o = quantize(small_network(), request());
  int pairs = 0;
  for (ValueId id : o.graph->initializers()) {
    const Tensor& t = *o.graph->value(id).constant;
    if (t.dtype() != DType::kI8 || t.rank() < 2) continue;
    // Along the sum of a channel: kernel position, then input channel.
    const Ints w = t.to_ints();
    const int64_t channels = t.dim(1), plane = t.numel() / (t.dim(0) * channels), depth = channels * plane;
    const auto at = [&](int64_t m, int64_t k) { return std::abs(w[static_cast<size_t>((m * channels + k % channels) * plane + k / channels)]); };
    for (int64_t m = 0; m < t.dim(0); ++m)
      for (int64_t k = 0; k + 1 < depth; k += 2, ++pairs) EXPECT_LE(at(m, k) + at(m, k + 1), 128);
  }
  EXPECT_GT(pairs, 0);
}

TEST(Quantize, DynamicNeedsNoData) {
  QuantizeRequest r;
  r.dynamic = true;
  const Graph g = small_network();
  const QuantizeOutcome o = quantize(g, r);
  const auto ops = count_ops(*o.graph);
  EXPECT_EQ(ops.at("MatMulInteger"), 1);
  EXPECT_EQ(ops.count("Gemm"), 0u);
  Session a(o.graph), b(std::make_shared<Graph>(g));
  const std::vector<Tensor> input = {random_tensor({3, 2, 8, 8}, 77).cast(DType::kF32)};
  EXPECT_LE(relative_error(a.run(input)[0], b.run(input)[0]), 0.02);
}

TEST(Quantize, ObserversFollowTheirDefinition) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("n"), 2});
  rw.add_output(rw.emit("Relu", {x}));
  // Two whole groups of 16 and two samples over; extremes -4 and 9 in the first, -2 and 3 in the second, 50 behind.
  Tensor data = Tensor::zeros(DType::kF32, {34, 2});
  float* p = data.mutable_data<float>();
  p[2 * 3] = -4;
  p[2 * 15 + 1] = 9;
  p[2 * 16] = -2;
  p[2 * 31 + 1] = 3;
  p[2 * 33 + 1] = 50;
  const Dataset d("d", NamedTensors{{"x", data}}, {});
  const TensorRange most = calibrate(g, {x}, d, 34, Observer::kMinMax, nullptr).at(x);
  EXPECT_EQ(most.low, -4.0f);
  EXPECT_EQ(most.high, 50.0f);
  const TensorRange mean = calibrate(g, {x}, d, 34, Observer::kMovingAverage, nullptr).at(x);
  EXPECT_FLOAT_EQ(mean.low, -3.0f);
  EXPECT_FLOAT_EQ(mean.high, 6.0f);
  // Fewer than a group: all there is.
  EXPECT_EQ(calibrate(g, {x}, d, 5, Observer::kMovingAverage, nullptr).at(x).low, -4.0f);
}

TEST(Quantize, ParametersHoldZeroExactly) {
  const ActivationParams p = activation_params({0.5f, 2.0f});
  EXPECT_EQ(p.zero, 0);
  EXPECT_FLOAT_EQ(p.scale, 2.0f / 255);
  const ActivationParams q = activation_params({-1.0f, 3.0f});
  EXPECT_EQ(q.zero, 64);
  EXPECT_EQ(activation_params({0, 0}).scale, 1.0f);
}

TEST(Quantize, PatternsMatch) {
  EXPECT_TRUE(matches_pattern("a*c?", "abbcd"));
  EXPECT_TRUE(matches_pattern("*", ""));
  EXPECT_FALSE(matches_pattern("a*c", "abcd"));
  EXPECT_TRUE(matches_pattern("*/conv*", "b3/x/conv1"));
}

// An impossible gate still gives the best model; a generous one passes.
TEST(Quantize, GateReportsAndKeepsTheBest) {
  Tensor labels = Tensor::empty(DType::kI64, {64});
  const Graph g = small_network();
  const auto data = samples(64);
  Session session(std::make_shared<Graph>(g));
  const Tensor y = session.run(std::vector<Tensor>{data->arrays()[0].second})[0];
  for (int64_t i = 0; i < 64; ++i) {
    const float* row = y.data<float>() + 4 * i;
    labels.mutable_data<int64_t>()[i] = std::max_element(row, row + 4) - row;
  }
  QuantizeRequest r = request();
  r.evaluation = samples(64, labels);
  r.max_drop = 1.0;
  const QuantizeOutcome passed = quantize(g, r);
  EXPECT_TRUE(passed.gate_passed);
  EXPECT_EQ(*passed.float_metric, 1.0);
  r.max_drop = -1.0;  // more accurate than perfect
  const QuantizeOutcome failed = quantize(g, r);
  EXPECT_FALSE(failed.gate_passed);
  ASSERT_NE(failed.graph, nullptr);
  EXPECT_GE(*failed.quantized_metric, *passed.quantized_metric);
}

void expect_bad(const Graph& g, const QuantizeRequest& r, const std::string& reason) {
  try {
    quantize(g, r);
    FAIL() << "accepted; expected: " << reason;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kBadData) << e.what();
    EXPECT_NE(std::string(e.what()).find(reason), std::string::npos) << e.what();
  }
}

TEST(Quantize, BadInputNamesTheReason) {
  Graph plain;
  Rewriter rw(plain);
  rw.add_output(rw.emit("Relu", {rw.add_input("x", DType::kF32, {plain.symbol("n"), 2, 8, 8})}));
  expect_bad(plain, request(), "it has no Conv, Gemm or MatMul");
  QuantizeRequest nan = request();
  Tensor x = random_tensor({20, 2, 8, 8}, 9).cast(DType::kF32);
  x.mutable_data<float>()[17 * 128 + 5] = std::nanf("");
  nan.calibration = std::make_shared<Dataset>("samples", NamedTensors{{"x", x}}, Tensor());
  expect_bad(small_network(), nan, "tensor 'x' is not finite on calibration sample 17");
  QuantizeRequest all = request();
  all.options.exclude = {"*"};
  expect_bad(small_network(), all, "excluded by '*'");
}

}  // namespace
}  // namespace ds::test
