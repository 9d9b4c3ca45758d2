// Models in 16-bit floats: where casts are left, what stays 16 bits wide, and how exact results are.
#include "libds/passes/widen_halves.h"

#include <gtest/gtest.h>

#include "libds/ir/rewriter.h"
#include "libds/passes/pipeline.h"
#include "libds/run/executor.h"
#include "libds/run/session.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

using Ints = std::vector<int64_t>;
using test::random_tensor;

class WidenHalves : public testing::TestWithParam<DType> {
 protected:
  Tensor half(Shape shape, uint64_t seed) const { return random_tensor(std::move(shape), seed, -1, 1).cast(GetParam()); }

  static std::shared_ptr<Graph> widened(const Graph& graph) {
    auto copy = std::make_shared<Graph>(graph);
    Rewriter rw(*copy);
    PassContext context;
    widen_halves(rw, context);
    return copy;
  }
  static size_t count(const Graph& graph, std::string_view op) {
    size_t n = 0;
    for (NodeId id : graph.order()) n += graph.node(id).op == op;
    return n;
  }
  // Of the values that nodes make.
  static size_t halves(const Graph& graph) {
    size_t n = 0;
    for (NodeId id : graph.order())
      for (ValueId out : graph.node(id).outputs) n += out != kNone && is_half(graph.value(out).dtype);
    return n;
  }
};

TEST_P(WidenHalves, CastsOnlyAtTheEdges) {
  Graph graph;
  Rewriter rw(graph);
  const ValueId x = rw.add_input("x", GetParam(), to_dims(Shape{1, 3, 9, 9}));
  ValueId y = rw.emit("Conv", {x, rw.add_constant("w", half({8, 3, 3, 3}, 1)), rw.add_constant("b", half({8}, 2))});
  y = rw.emit("Relu", {y});
  const ValueId turned = rw.emit("Transpose", {y}, {{"perm", Ints{0, 2, 3, 1}}});
  y = rw.emit("MatMul", {turned, rw.add_constant("m", half({8, 5}, 3))});
  rw.add_output(rw.emit("Softmax", {y}, {}, "y"));
  rw.rename_value(graph.outputs()[0], "y");

  const auto wide = widened(graph);
  EXPECT_EQ(count(*wide, "Cast"), 2u) << print_graph(*wide);
  EXPECT_EQ(halves(*wide), 1u) << print_graph(*wide);
  EXPECT_EQ(wide->value(wide->outputs()[0]).dtype, GetParam());
  EXPECT_EQ(wide->value(wide->outputs()[0]).name, "y");

  // One rounding, of the exact result.
  const Tensor input = half({1, 3, 9, 9}, 4);
  auto exact = std::make_shared<Graph>();
  {
    Rewriter to(*exact);
    const auto f64 = [&](Shape shape, uint64_t seed) { return half(std::move(shape), seed).cast(DType::kF64); };
    const ValueId in = to.add_input("x", DType::kF64, to_dims(Shape{1, 3, 9, 9}));
    ValueId z = to.emit("Conv", {in, to.add_constant("w", f64({8, 3, 3, 3}, 1)), to.add_constant("b", f64({8}, 2))});
    z = to.emit("Transpose", {to.emit("Relu", {z})}, {{"perm", Ints{0, 2, 3, 1}}});
    to.add_output(to.emit("Softmax", {to.emit("MatMul", {z, to.add_constant("m", f64({8, 5}, 3))})}));
  }
  const Tensor expected = Session(exact).run(std::vector<Tensor>{input.cast(DType::kF64)})[0];
  const Tensor got = Session(std::make_shared<Graph>(graph)).run(std::vector<Tensor>{input})[0].cast(DType::kF64);
  const double ulp = GetParam() == DType::kF16 ? 1.0 / 1024 : 1.0 / 128;
  for (int64_t i = 0; i < got.numel(); ++i)
    ASSERT_NEAR(got.data<double>()[i], expected.data<double>()[i], (ulp * 0.51 + 1e-6) * expected.data<double>()[i] + 1e-7) << i;
}

TEST_P(WidenHalves, TablesStayNarrow) {
  Graph graph;
  Rewriter rw(graph);
  const ValueId ids = rw.add_input("ids", DType::kI64, to_dims(Shape{4}));
  const ValueId rows = rw.emit("Gather", {rw.add_constant("table", half({100, 6}, 1)), ids});
  rw.add_output(rw.emit("Tanh", {rw.emit("Neg", {rows})}));
  const auto wide = widened(graph);
  EXPECT_EQ(count(*wide, "Cast"), 2u) << print_graph(*wide);
  const NodeId gather = wide->order().front();
  EXPECT_EQ(wide->node(gather).op, "Gather");
  EXPECT_EQ(wide->value(wide->node(gather).input(0)).dtype, GetParam());
}

TEST_P(WidenHalves, RoundingThatTheFileAsksForStays) {
  Graph graph;
  Rewriter rw(graph);
  const ValueId x = rw.add_input("x", DType::kF32, to_dims(Shape{4}));
  const ValueId rounded = rw.emit("Cast", {x}, {{"to", static_cast<int64_t>(GetParam())}});
  rw.add_output(rw.emit("Cast", {rounded}, {{"to", static_cast<int64_t>(DType::kF32)}}));
  EXPECT_EQ(count(*widened(graph), "Cast"), 2u);
  const Tensor third = Tensor::of<float>({4}, std::vector<float>{1.0f / 3, 1e-3f, 700.3f, -2.1f});
  const Tensor got = Session(std::make_shared<Graph>(graph)).run(std::vector<Tensor>{third})[0];
  EXPECT_TRUE(got.equal_bits(third.cast(GetParam()).cast(DType::kF32)));
}

TEST_P(WidenHalves, MixedGraphsLoseTheirCasts) {
  Graph graph;
  Rewriter rw(graph);
  const ValueId x = rw.add_input("x", DType::kF32, to_dims(Shape{2, 8}));
  ValueId y = rw.emit("Cast", {x}, {{"to", static_cast<int64_t>(GetParam())}});
  y = rw.emit("MatMul", {y, rw.add_constant("m", half({8, 8}, 3))});
  y = rw.emit("Cast", {y}, {{"to", static_cast<int64_t>(DType::kF32)}});
  rw.add_output(rw.emit("Softmax", {y}));
  const auto wide = widened(graph);
  EXPECT_EQ(count(*wide, "Cast"), 0u) << print_graph(*wide);
}

INSTANTIATE_TEST_SUITE_P(Types, WidenHalves, testing::Values(DType::kF16, DType::kBF16),
                         [](const auto& info) { return std::string(dtype_name(info.param)); });

}  // namespace
}  // namespace ds
