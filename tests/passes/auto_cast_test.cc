// Products in bf16: which are chosen, what is stored narrow, how far the results are off; on AVX-512 and on AMX (in software
// where the CPU has none).
#include "libds/passes/auto_cast.h"

#include <gtest/gtest.h>

#include "libds/ir/rewriter.h"
#include "libds/ops/attention.h"
#include "libds/run/device.h"
#include "libds/run/session.h"
#include "tests/support/amx_emulator.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

using Ints = std::vector<int64_t>;
using test::random_tensor;

Tensor f32(Shape shape, uint64_t seed) { return random_tensor(std::move(shape), seed, -1, 1).cast(DType::kF32); }

// Convolutions with a residual, a depthwise one, a pool, a product with activation and a softmax.
std::shared_ptr<Graph> network() {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  uint64_t seed = 1;
  const auto conv = [&](ValueId x, int64_t in, int64_t out, int64_t kernel, int64_t group = 1) {
    const int64_t p = kernel / 2;
    return rw.emit("Conv", {x, rw.add_constant("w", f32({out, in / group, kernel, kernel}, ++seed)), rw.add_constant("b", f32({out}, ++seed))},
                   {{"pads", Ints{p, p, p, p}}, {"group", group}});
  };
  const ValueId image = rw.add_input("x", DType::kF32, to_dims(Shape{2, 3, 13, 11}));
  const ValueId a = rw.emit("Relu", {conv(image, 3, 24, 3)});
  ValueId y = rw.emit("Relu", {conv(a, 24, 40, 1)});
  y = rw.emit("Relu", {rw.emit("Add", {conv(y, 40, 24, 3), a})});
  y = rw.emit("Relu", {conv(y, 24, 24, 3, 24)});
  y = rw.emit("GlobalAveragePool", {conv(y, 24, 33, 1)});
  y = rw.emit("Flatten", {y});
  y = rw.emit("MatMul", {y, rw.add_constant("m", f32({33, 20}, ++seed))});
  y = rw.emit("Tanh", {rw.emit("Add", {y, rw.add_constant("c", f32({20}, ++seed))})});
  rw.add_output(rw.emit("Softmax", {y}));
  return graph;
}

SessionOptions with(Precision precision, Isa isa) {
  SessionOptions options;
  options.precision = precision;
  options.isa = isa;
  return options;
}

size_t narrow_products(const Graph& graph) {
  size_t n = 0;
  for (NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (node.is_internal("FusedConv") || node.is_internal("FusedMatMul")) n += graph.value(node.input(1)).dtype == DType::kBF16;
  }
  return n;
}

TEST(AutoCast, ExactStaysExactAndAutoFollowsTheTable) {
  const auto graph = network();
  EXPECT_EQ(narrow_products(Session(graph, with(Precision::kF32, cpu_isa())).graph()), 0u);
  EXPECT_EQ(narrow_products(Session(graph, with(Precision::kAuto, Isa::kAvx2)).graph()), 0u);
  EXPECT_EQ(narrow_products(Session(graph, with(Precision::kAuto, Isa::kAmx)).graph()), 5u);
  EXPECT_EQ(narrow_products(Session(graph, with(Precision::kBf16, Isa::kAvx2)).graph()), 5u);
}

TEST(AutoCast, AutoFollowsAMeasuredTable) {
  const auto graph = network();
  const auto products = [&](Isa level, double f32, double bf16) {
    auto costs = std::make_shared<CostTable>();
    costs->cpu = "measured";
    costs->rate(DType::kF32, level) = f32;
    costs->rate(DType::kBF16, level) = bf16;
    SessionOptions options = with(Precision::kAuto, level);
    options.costs = costs;
    return narrow_products(Session(graph, options).graph());
  };
  EXPECT_EQ(products(Isa::kAvx2, 10, 20), 5u);
  EXPECT_EQ(products(Isa::kAvx2, 10, 12), 5u);
  EXPECT_EQ(products(Isa::kAvx2, 10, 11.9), 0u);
  EXPECT_EQ(products(Isa::kAmx, 10, 9), 0u);   // the built-in table says otherwise
  EXPECT_EQ(products(Isa::kAmx, 0, 9), 0u);    // unknown
  EXPECT_EQ(products(Isa::kAmx, 10, 0), 0u);
}

TEST(AutoCast, ProductsOfFewRowsGainByWeightsOfHalfTheSize) {
  const auto products = [](double bandwidth) {
    auto costs = std::make_shared<CostTable>();
    costs->cpu = "measured";
    costs->rate(DType::kF32, Isa::kAvx2) = 32;
    costs->rate(DType::kBF16, Isa::kAvx2) = 16;
    costs->bandwidth = bandwidth;
    SessionOptions options = with(Precision::kAuto, Isa::kAvx2);
    options.costs = costs;
    return narrow_products(Session(network(), options).graph());
  };
  EXPECT_EQ(products(8), 1u);     // the matrix product of two rows; convolutions have 286
  EXPECT_EQ(products(1e6), 0u);   // reading costs nothing
  EXPECT_EQ(products(0), 0u);     // unknown
  EXPECT_EQ(products(0.01), 5u);  // nothing else counts
}

TEST(AutoCast, ResultsBetweenConvolutionsAreStoredNarrow) {
  const Session session(network(), with(Precision::kBf16, cpu_isa()));
  size_t narrow = 0;
  for (NodeId id : session.graph().order())
    for (ValueId out : session.graph().node(id).outputs) narrow += out != kNone && session.graph().value(out).dtype == DType::kBF16;
  EXPECT_EQ(narrow, 2u) << print_graph(session.graph());  // a and what follows it; the depthwise one reads f32
  EXPECT_EQ(session.graph().value(session.graph().outputs()[0]).dtype, DType::kF32);
}

void agrees(Isa isa) {
  const auto graph = network();
  const Tensor x = f32({2, 3, 13, 11}, 99);
  const Tensor exact = Session(graph, with(Precision::kF32, std::min(isa, cpu_isa()))).run(std::vector<Tensor>{x})[0];
  const Tensor narrow = Session(graph, with(Precision::kBf16, isa)).run(std::vector<Tensor>{x})[0];
  ASSERT_EQ(narrow.dtype(), DType::kF32);
  double worst = 0;
  for (int64_t i = 0; i < exact.numel(); ++i) worst = std::max(worst, std::abs(static_cast<double>(exact.data<float>()[i]) - narrow.data<float>()[i]));
  EXPECT_LT(worst, 0.02);
  EXPECT_GT(worst, 0) << "nothing was rounded";
}

TEST(AutoCast, AgreesWithin8BitsOfMantissa) { agrees(cpu_isa()); }
TEST(AutoCast, AgreesOnThePortableKernels) { agrees(Isa::kPortable); }

TEST(AutoCast, AgreesOnAmx) {
  const test::AmxEmulator emulator;
  if (cpu_isa() < Isa::kVnni || !(emulator.active() || test::amx_is_real())) GTEST_SKIP() << "AMX comes with AVX-512, which this CPU has not";
  agrees(Isa::kAmx);
}

// Two heads of 20 queries and as many keys, behind a product.
std::shared_ptr<Graph> transformer() {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  const ValueId x = rw.add_input("x", DType::kF32, to_dims(Shape{2, 20, 24}));
  std::vector<ValueId> inputs;
  for (uint64_t seed : {11, 12, 13}) inputs.push_back(rw.emit("MatMul", {x, rw.add_constant("w", f32({24, 32}, seed))}));
  rw.add_output(rw.emit("Attention", inputs, {{"q_num_heads", int64_t{2}}, {"kv_num_heads", int64_t{2}}}));
  return graph;
}

TEST(AutoCast, AttentionIsRoundedAtAmxAlone) {
  const auto rounded = [](Precision precision, Isa isa) {
    const Session session(transformer(), with(precision, isa));
    size_t n = 0, there = 0;
    for (NodeId id : session.graph().order()) {
      const Node& node = session.graph().node(id);
      there += node.is("Attention");
      n += node.is("Attention") && node.attr_int(ops::kProductsAttr, 0) == static_cast<int64_t>(DType::kBF16);
    }
    EXPECT_EQ(there, 1u);
    return n;
  };
  EXPECT_EQ(rounded(Precision::kBf16, Isa::kAmx), 1u);
  EXPECT_EQ(rounded(Precision::kAuto, Isa::kAmx), 1u);
  EXPECT_EQ(rounded(Precision::kF32, Isa::kAmx), 0u);
  EXPECT_EQ(rounded(Precision::kBf16, Isa::kVnni), 0u);
}

TEST(AutoCast, AttentionAgreesOnAmx) {
  const test::AmxEmulator emulator;
  if (!cpu_has_bf16() || !(emulator.active() || test::amx_is_real())) GTEST_SKIP() << "AMX comes with AVX-512 BF16, which this CPU has not";
  const auto graph = transformer();
  const std::vector<Tensor> inputs{f32({2, 20, 24}, 98)};
  const Tensor exact = Session(graph, with(Precision::kF32, Isa::kVnni)).run(inputs)[0];
  Session narrow_session(graph, with(Precision::kBf16, Isa::kAmx));
  const std::vector<Shape> shapes{{2, 20, 24}};
  const auto plan = narrow_session.plan(shapes);
  size_t amx = 0;
  for (const Step& step : plan->steps) amx += step.def != nullptr && step.def->name == "amx/attention";
  EXPECT_EQ(amx, 1u);
  const Tensor narrow = narrow_session.run(inputs)[0], half = Session(graph, with(Precision::kBf16, Isa::kVnni)).run(inputs)[0];
  double worst = 0, by_attention = 0;
  for (int64_t i = 0; i < exact.numel(); ++i) {
    const auto at = [i](const Tensor& t) { return static_cast<double>(t.data<float>()[i]); };
    worst = std::max(worst, std::abs(at(exact) - at(narrow)));
    by_attention = std::max(by_attention, std::abs(at(half) - at(narrow)));
  }
  EXPECT_LT(worst, 0.05);
  EXPECT_GT(by_attention, 0) << "attention was not rounded";
}

TEST(Device, MapsWhatIsAskedFor) {
  EXPECT_EQ(map_device({}).device, Device::kCpu);
  EXPECT_EQ(map_device({"cpu", true, "bf16", 3}).precision, Precision::kBf16);
  EXPECT_EQ(map_device({"cpu", true, "bf16", 3}).threads, 3);
  EXPECT_EQ(map_device({"cuda:0", true}).device, Device::kCpu);  // falls back
  EXPECT_THROW(map_device({"cuda:0", false}), Error);
  EXPECT_THROW(map_device({"tpu", true}), Error);
  EXPECT_THROW(map_device({"cpu", true, "fp8"}), Error);
  EXPECT_EQ(map_device({"cpu", true, "auto"}).costs, nullptr);
  EXPECT_THROW(map_device({"cpu", true, "auto", 1, "/no/such/costs.json"}), Error);
}

}  // namespace
}  // namespace ds
