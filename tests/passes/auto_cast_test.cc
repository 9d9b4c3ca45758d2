// Products in bf16 and f16: which are chosen, what is stored narrow, how far the results are off; on AVX-512 and on AMX (in
// software where the CPU has none).
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

size_t narrow_products(const Graph& graph, DType type = DType::kBF16) {
  size_t n = 0;
  for (NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (node.is_internal("FusedConv") || node.is_internal("FusedMatMul")) n += graph.value(node.input(1)).dtype == type;
  }
  return n;
}

TEST(AutoCast, ExactStaysExactAndAutoFollowsTheTable) {
  const auto graph = network();
  EXPECT_EQ(narrow_products(Session(graph, with(Precision::kF32, cpu_isa())).graph()), 0u);
  EXPECT_EQ(narrow_products(Session(graph, with(Precision::kAuto, Isa::kAvx2)).graph()), 0u);
  EXPECT_EQ(narrow_products(Session(graph, with(Precision::kAuto, Isa::kAmx)).graph()), 5u);
  EXPECT_EQ(narrow_products(Session(graph, with(Precision::kBf16, Isa::kAvx2)).graph()), 5u);
  EXPECT_EQ(narrow_products(Session(graph, with(Precision::kF16, Isa::kAvx2)).graph(), DType::kF16), 5u);
}

TEST(AutoCast, TheFastestTypeIsTaken) {
  const CostTable& costs = builtin_costs();
  EXPECT_EQ(product_type(Precision::kF32, Isa::kAmx, costs), DType::kF32);
  EXPECT_EQ(product_type(Precision::kBf16, Isa::kPortable, costs), DType::kBF16);
  EXPECT_EQ(product_type(Precision::kF16, Isa::kPortable, costs), DType::kF16);
  EXPECT_EQ(product_type(Precision::kAuto, Isa::kAvx512, costs), DType::kF32);
  EXPECT_EQ(product_type(Precision::kAuto, Isa::kAmx, costs), DType::kBF16);
  if (costs.gain(DType::kBF16, Isa::kVnni) < kLeastNarrowGain) {
    EXPECT_EQ(product_type(Precision::kAuto, Isa::kVnni, costs), cpu_has_fp16() ? DType::kF16 : DType::kF32);
  }
  CostTable table;
  table.rate(DType::kF32, Isa::kAvx2) = 10;
  table.rate(DType::kBF16, Isa::kAvx2) = 15;
  table.rate(DType::kF16, Isa::kAvx2) = 14;
  EXPECT_EQ(product_type(Precision::kAuto, Isa::kAvx2, table), DType::kBF16);
  table.rate(DType::kF16, Isa::kAvx2) = 16;
  EXPECT_EQ(product_type(Precision::kAuto, Isa::kAvx2, table), DType::kF16);
  EXPECT_EQ(product_type(Precision::kAuto, Isa::kAvx2, table, 1), DType::kF16);
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

// Two products in a row with an activation between, of activations times `scale`.
std::shared_ptr<Graph> two_products(float scale, float weight = 1) {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  const auto weights = [&](Shape shape, uint64_t seed) {
    Tensor t = f32(std::move(shape), seed);
    for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<float>()[i] *= weight;
    return t;
  };
  ValueId y = rw.emit("Mul", {rw.add_input("x", DType::kF32, to_dims(Shape{5, 70})), rw.add_constant("s", Tensor::of<float>({}, {scale}))});
  y = rw.emit("Relu", {rw.emit("Add", {rw.emit("MatMul", {y, rw.add_constant("a", weights({70, 90}, 21))}), rw.add_constant("b", f32({90}, 22))})});
  rw.add_output(rw.emit("MatMul", {y, rw.add_constant("c", weights({90, 33}, 23))}));
  return graph;
}

TEST(AutoCast, ResultsBetweenMatrixProductsAreStoredInF16WhereTheCpuHasIt) {
  const Session session(two_products(1), with(Precision::kF16, cpu_isa()));
  size_t narrow = 0;
  for (NodeId id : session.graph().order())
    for (ValueId out : session.graph().node(id).outputs) narrow += session.graph().value(out).dtype == DType::kF16;
  EXPECT_EQ(narrow, cpu_has_fp16() ? 1u : 0u) << print_graph(session.graph());
}

// Activations of 1e5 become 65504; whatever comes of it stays finite.
TEST(AutoCast, F16SaturatesAndStaysFinite) {
  for (const float scale : {1.0f, 100.0f, 1e5f, 1e30f}) {
    const auto graph = two_products(scale);
    const std::vector<Tensor> x = {f32({5, 70}, 99)};
    const Tensor exact = Session(graph, with(Precision::kF32, cpu_isa())).run(x)[0], got = Session(graph, with(Precision::kF16, cpu_isa())).run(x)[0];
    double error = 0, size = 0;
    for (int64_t i = 0; i < got.numel(); ++i) {
      ASSERT_TRUE(std::isfinite(got.data<float>()[i])) << "scale " << scale;
      const double e = exact.data<float>()[i];
      error += (e - got.data<float>()[i]) * (e - got.data<float>()[i]);
      size += e * e;
    }
    if (scale <= 100) {
      EXPECT_LT(std::sqrt(error / size), 0.003) << "scale " << scale;
    }
  }
}

TEST(AutoCast, WeightsBeyondF16StayInF32) {
  EXPECT_EQ(narrow_products(Session(two_products(1, 1e6f), with(Precision::kF16, cpu_isa())).graph(), DType::kF16), 0u);
  EXPECT_EQ(narrow_products(Session(two_products(1, 1e4f), with(Precision::kF16, cpu_isa())).graph(), DType::kF16), 2u);
}

size_t products_with_half_sums(const Graph& graph) {
  size_t n = 0;
  for (NodeId id : graph.order()) n += graph.node(id).attr_int("half_sums", 0) != 0;
  return n;
}

// A model in f16: no sums in it unless they are asked for.
TEST(AutoCast, ModelsInF16AreSummedInF32UnlessAsked) {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  const Tensor w = f32({500, 20}, 31).cast(DType::kF16), x = f32({3, 500}, 32).cast(DType::kF16);
  rw.add_output(rw.emit("Relu", {rw.emit("MatMul", {rw.add_input("x", DType::kF16, to_dims(Shape{3, 500})), rw.add_constant("w", w)})}));
  EXPECT_EQ(products_with_half_sums(Session(graph, with(Precision::kF32, cpu_isa())).graph()), 0u);
  EXPECT_EQ(products_with_half_sums(Session(graph, with(Precision::kF16, cpu_isa())).graph()), 1u);
  for (const Precision precision : {Precision::kF32, Precision::kF16}) {
    const Tensor y = Session(graph, with(precision, cpu_isa())).run(std::vector<Tensor>{x})[0];
    ASSERT_EQ(y.dtype(), DType::kF16);
    const Tensor wide_x = x.cast(DType::kF64), wide_w = w.cast(DType::kF64);
    for (int64_t m = 0; m < 3; ++m)
      for (int64_t n = 0; n < 20; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < 500; ++k) sum += wide_x.data<double>()[m * 500 + k] * wide_w.data<double>()[k * 20 + n];
        const double got = static_cast<float>(y.data<f16>()[m * 20 + n]);
        // f32: one rounding at the end. f16: 6 deviations of the error of short sums, of which the deviation is 7.5.
        EXPECT_NEAR(got, std::max(sum, 0.0), precision == Precision::kF32 ? std::abs(sum) * 0x1p-11 + 1e-4 : 0.06);
      }
  }
}

void agrees(Isa isa, Precision precision = Precision::kBf16, double bound = 0.02) {
  const auto graph = network();
  const Tensor x = f32({2, 3, 13, 11}, 99);
  const Tensor exact = Session(graph, with(Precision::kF32, std::min(isa, cpu_isa()))).run(std::vector<Tensor>{x})[0];
  const Tensor narrow = Session(graph, with(precision, isa)).run(std::vector<Tensor>{x})[0];
  ASSERT_EQ(narrow.dtype(), DType::kF32);
  double worst = 0;
  for (int64_t i = 0; i < exact.numel(); ++i) worst = std::max(worst, std::abs(static_cast<double>(exact.data<float>()[i]) - narrow.data<float>()[i]));
  EXPECT_LT(worst, bound);
  EXPECT_GT(worst, 0) << "nothing was rounded";
}

TEST(AutoCast, AgreesWithin8BitsOfMantissa) { agrees(cpu_isa()); }
TEST(AutoCast, AgreesOnThePortableKernels) { agrees(Isa::kPortable); }
TEST(AutoCast, F16AgreesWithin11BitsOfMantissa) { agrees(cpu_isa(), Precision::kF16, 0.005); }
TEST(AutoCast, F16AgreesOnThePortableKernels) { agrees(Isa::kPortable, Precision::kF16, 0.005); }

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
  EXPECT_EQ(map_device({"cpu", true, "fp16", 3}).precision, Precision::kF16);
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
