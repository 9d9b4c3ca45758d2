#include "libds/passes/fuse_conv.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "libds/run/session.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

using Ints = std::vector<int64_t>;
using test::random_tensor;

Tensor f32(Shape shape, uint64_t seed, double low = -1, double high = 1) {
  return random_tensor(std::move(shape), seed, low, high).cast(DType::kF32);
}

class Builder {
 public:
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Rewriter rw{*graph};

  ValueId input(Shape shape) { return rw.add_input("x", DType::kF32, to_dims(shape)); }
  ValueId conv(ValueId x, int64_t in, int64_t out, int64_t kernel, int64_t stride = 1, bool bias = false, int64_t group = 1) {
    std::vector<ValueId> operands = {x, rw.add_constant("w", f32({out, in / group, kernel, kernel}, ++seed_))};
    if (bias) operands.push_back(rw.add_constant("b", f32({out}, ++seed_)));
    const int64_t p = kernel / 2;
    return rw.emit("Conv", operands, {{"pads", Ints{p, p, p, p}}, {"strides", Ints{stride, stride}}, {"group", group}}, "conv");
  }
  ValueId constant(Shape shape, double low = -1, double high = 1) {
    return rw.add_constant("c", f32(std::move(shape), ++seed_, low, high));
  }
  std::vector<std::string> ops() const {
    std::vector<std::string> names;
    for (NodeId id : graph->order()) names.push_back(graph->node(id).op);
    return names;
  }

 private:
  uint64_t seed_ = 10;
};

// A residual block with a strided shortcut, a pool, an inverted bottleneck and a plain tail.
std::shared_ptr<Graph> network() {
  Builder b;
  ValueId x = b.rw.emit("Relu", {b.conv(b.input({2, 3, 33, 29}), 3, 16, 7, 2, true)});
  x = b.rw.emit("MaxPool", {x}, {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}});
  const ValueId shortcut = b.conv(x, 16, 32, 1, 2);
  ValueId y = b.rw.emit("Relu", {b.conv(x, 16, 8, 1, 1, true)});
  y = b.rw.emit("Relu", {b.conv(y, 8, 8, 3, 2)});
  x = b.rw.emit("Relu", {b.rw.emit("Add", {b.conv(y, 8, 32, 1, 1, true), shortcut})});
  y = b.rw.emit("Relu", {b.conv(x, 32, 32, 3, 1, true, 32)});
  y = b.rw.emit("Add", {x, b.conv(y, 32, 32, 1)});
  y = b.rw.emit("Concat", {y, x}, {{"axis", int64_t{1}}});
  y = b.rw.emit("Add", {b.conv(y, 64, 20, 3), b.constant({20, 1, 1})});  // not a whole number of blocks
  y = b.rw.emit("Mul", {y, b.constant({1, 20, 5, 4})});
  b.rw.add_output(b.rw.emit("GlobalAveragePool", {y}, {}, "pooled"));
  b.rw.add_output(x);
  return b.graph;
}

size_t count(const Graph& g, std::string_view op) {
  size_t n = 0;
  for (NodeId id : g.order()) n += g.node(id).op == op;
  return n;
}

bool fold(Graph& g) {
  Rewriter rw(g);
  PassContext context;
  return fold_into_conv(rw, context);
}

bool fuse(Graph& g) {
  Rewriter rw(g);
  PassContext context;
  return fuse_conv(rw, context);
}

double worst(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double e = a.size() == b.size() ? 0.0 : 1.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) e = std::max(e, test::relative_error(a[i], b[i]));
  return e;
}

std::vector<Tensor> run(const std::shared_ptr<const Graph>& g, const Tensor& x, bool layouts, bool plan = true) {
  CompileOptions options;
  options.layouts = layouts;
  const auto executor = plan ? make_plan_executor(compile(g, options)) : make_eager_executor(g, options);
  executor->run(std::span(&x, 1));
  return executor->run(std::span(&x, 1));  // a second run: scratch and shared memory have been used
}

TEST(Layout, BlockedPlanAgreesWithPlainAndPlainWithEager) {
  const auto g = network();
  const Tensor x = f32({2, 3, 33, 29}, 1);
  const std::vector<Tensor> eager = run(g, x, false, false), plain = run(g, x, false), blocked = run(g, x, true);
  ASSERT_EQ(eager.size(), 2u);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(eager[i].equal_bits(plain[i])) << i;
  EXPECT_LE(worst(blocked, plain), 1e-5);
}

TEST(Layout, ReordersOnlyAtTheEdges) {
  if (cpu_isa() == Isa::kPortable) GTEST_SKIP() << "no blocked kernels at the portable level";
  Builder b;
  ValueId x = b.rw.emit("Relu", {b.conv(b.input({1, 16, 8, 8}), 16, 32, 3)});
  x = b.rw.emit("Relu", {b.rw.emit("MaxPool", {b.conv(x, 32, 32, 3)}, {{"kernel_shape", Ints{2, 2}}})});
  b.rw.add_output(b.conv(x, 32, 16, 1));
  const std::string output = b.graph->value(b.graph->outputs()[0]).name;
  const auto plan = compile(b.graph, {});
  int64_t reorders = 0;
  for (NodeId id : plan->graph->order()) reorders += plan->graph->node(id).is_internal("Reorder");
  EXPECT_EQ(reorders, 2) << print_plan(*plan);  // in and out
  verify_graph(*plan->graph);
  EXPECT_EQ(plan->graph->value(plan->graph->outputs()[0]).name, output);
}

TEST(FuseConv, ResidualBlocksBecomeOneNodeEach) {
  const auto g = network();
  const Tensor x = f32({2, 3, 33, 29}, 1);
  const std::vector<Tensor> before = run(g, x, false);
  const auto fused = std::make_shared<Graph>(*g);
  EXPECT_TRUE(fold(*fused));
  EXPECT_EQ(count(*fused, "Add"), 2u);  // the residual ones
  EXPECT_EQ(count(*fused, "Mul"), 1u);  // it has a value per pixel
  EXPECT_TRUE(fuse(*fused));
  verify_graph(*fused);
  EXPECT_EQ(count(*fused, "Relu") + count(*fused, "Add"), 0u) << print_graph(*fused);
  EXPECT_EQ(count(*fused, "Conv"), 2u);  // the shortcut and the last
  EXPECT_LE(worst(run(fused, x, false), before), 1e-5);
  EXPECT_LE(worst(run(fused, x, true), before), 1e-5);
  EXPECT_EQ(fused->value(fused->outputs()[0]).name, g->value(g->outputs()[0]).name);
}

TEST(FuseConv, FoldsMulAndAddOfChannels) {
  Builder b;
  ValueId x = b.input({1, 5, 6, 7});
  ValueId y = b.rw.emit("Mul", {b.conv(x, 5, 7, 3, 1, true), b.constant({1, 7, 1, 1})});
  b.rw.add_output(b.rw.emit("Add", {b.constant({7, 1, 1}), y}, {}, "y"));
  const Tensor in = f32({1, 5, 6, 7}, 3);
  const std::vector<Tensor> before = run(b.graph, in, false);
  EXPECT_TRUE(fold(*b.graph));
  verify_graph(*b.graph);
  EXPECT_EQ(b.ops(), (std::vector<std::string>{"Conv"}));
  EXPECT_LE(worst(run(b.graph, in, false), before), 1e-5);
}

TEST(FuseConv, LeavesSharedAndVisibleConvolutionsAlone) {
  Builder b;
  const ValueId y = b.conv(b.input({1, 8, 4, 4}), 8, 8, 3);
  b.rw.add_output(b.rw.emit("Relu", {y}));
  b.rw.add_output(y);
  EXPECT_FALSE(fuse(*b.graph));
  EXPECT_FALSE(fold(*b.graph));
  Builder c;
  const ValueId z = c.conv(c.input({1, 8, 4, 4}), 8, 8, 3);
  c.rw.add_output(c.rw.emit("Add", {z, c.rw.emit("Relu", {z})}));
  EXPECT_FALSE(fuse(*c.graph));
}

TEST(FuseConv, SiluIsOneActivation) {
  Builder b;
  const ValueId y = b.conv(b.input({1, 8, 4, 4}), 8, 8, 3, 1, true);
  b.rw.add_output(b.rw.emit("Mul", {y, b.rw.emit("Sigmoid", {y})}, {}, "y"));
  const Tensor in = f32({1, 8, 4, 4}, 3);
  const std::vector<Tensor> before = run(b.graph, in, false);
  EXPECT_TRUE(fuse(*b.graph));
  verify_graph(*b.graph);
  EXPECT_EQ(b.ops(), (std::vector<std::string>{"FusedConv"}));
  EXPECT_LE(worst(run(b.graph, in, false), before), 1e-5);
}

TEST(FuseConv, NumbersAfterAnActivationJoinTheEpilogue) {
  for (const int64_t group : {1, 8}) {
    Builder b;
    ValueId y = b.rw.emit("Relu", {b.conv(b.input({1, 8, 5, 7}), 8, 8, 3, 1, true, group)});
    y = b.rw.emit("Mul", {b.constant({1}), y});
    y = b.rw.emit("Add", {y, b.constant({1})});
    b.rw.add_output(b.rw.emit("Relu", {y}, {}, "y"));  // after the shift: must stay behind it
    const Tensor in = f32({1, 8, 5, 7}, 3);
    const std::vector<Tensor> before = run(b.graph, in, false);
    EXPECT_TRUE(fuse(*b.graph));
    verify_graph(*b.graph);
    EXPECT_EQ(b.ops(), (std::vector<std::string>{"FusedConv", "Relu"}));
    EXPECT_LE(worst(run(b.graph, in, false), before), 1e-5);
    EXPECT_LE(worst(run(b.graph, in, true), before), 1e-5);
  }
}

TEST(FuseConv, FoldsIntoTransposedConvolutions) {
  Builder b;
  const ValueId x = b.input({2, 5, 3, 4});
  ValueId y = b.rw.emit("ConvTranspose", {x, b.constant({5, 3, 2, 2})}, {{"strides", Ints{2, 2}}});
  y = b.rw.emit("Add", {y, b.constant({1, 3, 1, 1})});
  y = b.rw.emit("BatchNormalization", {y, b.constant({3}), b.constant({3}), b.constant({3}), b.constant({3}, 0.5, 2)});
  b.rw.add_output(y);
  const Tensor in = f32({2, 5, 3, 4}, 3);
  const std::vector<Tensor> before = run(b.graph, in, false);
  EXPECT_TRUE(fold(*b.graph));
  verify_graph(*b.graph);
  EXPECT_EQ(b.ops(), (std::vector<std::string>{"ConvTranspose"}));
  EXPECT_LE(worst(run(b.graph, in, false), before), 1e-5);
  EXPECT_LE(worst(run(b.graph, in, true), before), 1e-5);
}

// What lies between the convolutions of small networks: depthwise filters, squeeze-excite, feature pyramids, upsampling.
TEST(Layout, SmallNetworksStayInOneLayout) {
  for (const char* mode : {"nearest", "linear", "cubic"}) {
    for (const int64_t channels : {16, 24}) {
      Builder b;
      ValueId x = b.rw.emit("HardSwish", {b.conv(b.input({2, 3, 11, 13}), 3, channels, 3, 1, true)});
      x = b.rw.emit("Relu", {b.conv(x, channels, channels, 5, 1, true, channels)});
      ValueId gate = b.rw.emit("Relu", {b.conv(b.rw.emit("GlobalAveragePool", {x}), channels, 8, 1)});
      gate = b.rw.emit("HardSigmoid", {b.conv(gate, 8, channels, 1)});
      x = b.conv(b.rw.emit("Mul", {x, gate}), channels, channels, 1);
      const ValueId half = b.conv(x, channels, channels, 3, 2, true, channels);
      const ValueId up = b.rw.emit("Resize", {half, kNone, kNone, b.rw.add_constant("sizes", Tensor::vector<int64_t>(Ints{2, channels, 11, 13}))},
                                   {{"mode", std::string(mode)}});
      x = b.rw.emit("Concat", {x, up}, {{"axis", int64_t{1}}});
      x = b.conv(x, 2 * channels, channels, 1);
      x = b.rw.emit("ConvTranspose", {x, b.constant({channels, 5, 2, 2}), b.constant({5})}, {{"strides", Ints{2, 2}}});
      x = b.rw.emit("ConvTranspose", {b.rw.emit("Relu", {x}), b.constant({5, 1, 3, 2})}, {{"strides", Ints{3, 2}}});
      b.rw.add_output(b.rw.emit("Neg", {x}, {}, "y"));
      const Tensor in = f32({2, 3, 11, 13}, 3);
      const std::vector<Tensor> plain = run(b.graph, in, false);
      EXPECT_LE(worst(run(b.graph, in, true), plain), 1e-5) << mode;
      fuse(*b.graph);
      EXPECT_LE(worst(run(b.graph, in, true), plain), 1e-5) << mode;
      if (cpu_isa() < Isa::kAvx512) continue;  // there channels are not last
      const auto plan = compile(b.graph, {});
      EXPECT_EQ(count(*plan->graph, "Reorder"), 2u) << print_plan(*plan);  // in and out
    }
  }
}

}  // namespace
}  // namespace ds
