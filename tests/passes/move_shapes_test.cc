#include "libds/passes/move_shapes.h"

#include <gtest/gtest.h>

#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

using Ints = std::vector<int64_t>;

Tensor f32(Shape shape, uint64_t seed) { return test::random_tensor(std::move(shape), seed, 0.1, 2).cast(DType::kF32); }

class MoveShapes : public testing::Test {
 protected:
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Rewriter rw{*graph};

  ValueId input(Dims dims) { return rw.add_input("x", DType::kF32, std::move(dims)); }
  ValueId transpose(ValueId x, Ints perm) { return rw.emit("Transpose", {x}, {{"perm", std::move(perm)}}); }
  ValueId reshape(ValueId x, const Ints& to) { return rw.emit("Reshape", {x, rw.add_constant("to", Tensor::vector<int64_t>(std::span<const int64_t>(to)))}); }
  ValueId constant(Shape shape) { return rw.add_constant("c", f32(std::move(shape), 8)); }
  ValueId number(float v) { return rw.add_constant("c", Tensor::scalar<float>(v)); }

  // Runs the pass on content of this shape; the operators that are left, constants aside.
  std::string after(bool (*pass)(Rewriter&, PassContext&), ValueId y, const Shape& shape) {
    rw.add_output(rw.emit("Identity", {y}, {}, "y"));
    const Tensor x = f32(shape, 3);
    const Tensor before = make_eager_executor(graph, {})->run(std::span(&x, 1)).at(0);
    PassContext context;
    changed = pass(rw, context);
    verify_graph(*graph);
    EXPECT_TRUE(make_eager_executor(graph, {})->run(std::span(&x, 1)).at(0).equal_bits(before)) << print_graph(*graph);
    std::string list;
    for (NodeId id : graph->order()) {
      const Node& n = graph->node(id);
      if (graph->value(n.inputs[0]).is_constant() || n.is("Identity")) continue;
      if (n.inputs.size() == 1 && graph->value(n.inputs[0]).producer != kNone && graph->node(graph->value(n.inputs[0]).producer).is("Reshape") &&
          graph->value(graph->node(graph->value(n.inputs[0]).producer).inputs[0]).is_constant())
        continue;  // of a constant
      list += (list.empty() ? "" : " ") + n.op;
    }
    return list;
  }
  bool changed = false;
};

TEST_F(MoveShapes, TwoTransposesAreOneOrNone) {
  const ValueId x = input({2, 3, 4});
  EXPECT_EQ(after(move_transposes, transpose(transpose(x, {2, 0, 1}), {1, 2, 0}), {2, 3, 4}), "");
}

TEST_F(MoveShapes, TwoTransposesCompose) {
  const ValueId x = input({2, 3, 4, 5});
  EXPECT_EQ(after(move_transposes, transpose(transpose(x, {0, 2, 3, 1}), {3, 1, 0, 2}), {2, 3, 4, 5}), "Transpose");
}

TEST_F(MoveShapes, TransposesMeetBehindElementwiseNodes) {
  const ValueId x = input({2, 3, 4, 5});
  ValueId y = transpose(x, {0, 2, 3, 1});
  y = rw.emit("Add", {constant({3}), rw.emit("Relu", {y})});             // along the last axis, then the second
  y = rw.emit("Div", {rw.emit("Mul", {y, number(2)}), constant({4, 5, 3})});
  y = rw.emit("Clip", {y, number(0.2f), number(3)});
  EXPECT_EQ(after(move_transposes, transpose(y, {0, 3, 1, 2}), {2, 3, 4, 5}), "Relu Add Mul Div Clip");
}

TEST_F(MoveShapes, TwoOperandsLoseTheSameTranspose) {
  const ValueId x = input({2, 3, 4});
  const ValueId a = rw.emit("Sqrt", {x}), b = rw.emit("Neg", {x});
  const ValueId y = rw.emit("Sub", {transpose(a, {1, 2, 0}), transpose(b, {1, 2, 0})});
  EXPECT_EQ(after(move_transposes, transpose(y, {2, 0, 1}), {2, 3, 4}), "Sqrt Neg Sub");
}

TEST_F(MoveShapes, TransposesThatNeverMeetStay) {
  const ValueId x = input({2, 3, 4});
  const ValueId t = transpose(x, {0, 2, 1});
  const ValueId y = rw.emit("Softmax", {rw.emit("Relu", {t})}, {{"axis", int64_t{-1}}});
  EXPECT_EQ(after(move_transposes, transpose(y, {0, 2, 1}), {2, 3, 4}), "Transpose Relu Softmax Transpose");
  EXPECT_FALSE(changed);
}

TEST_F(MoveShapes, ATransposeThatOthersReadStays) {
  const ValueId x = input({2, 3, 3});
  const ValueId t = transpose(x, {0, 2, 1});
  const ValueId y = rw.emit("Add", {transpose(rw.emit("Relu", {t}), {0, 2, 1}), t});
  EXPECT_EQ(after(move_transposes, y, {2, 3, 3}), "Transpose Relu Transpose Add");
}

TEST_F(MoveShapes, ViewsInARowAreOneOrNone) {
  const ValueId x = input({graph->symbol("batch"), 6, 4});
  const ValueId there = reshape(x, {0, 3, 2, 4});
  EXPECT_EQ(after(merge_views, rw.emit("Abs", {reshape(there, {0, 6, -1})}), {5, 6, 4}), "Abs");
}

TEST_F(MoveShapes, SizesThatAViewCopiesFromTheOneBeforeAreKnown) {
  const ValueId x = input({graph->symbol("batch"), 6, 4});
  const ValueId axes = rw.add_constant("axes", Tensor::of<int64_t>({1}, {0}));
  const ValueId there = reshape(rw.emit("Unsqueeze", {x, axes}), {1, -1, 8, 3});
  EXPECT_EQ(after(merge_views, rw.emit("Abs", {reshape(there, {-1, 0, 4, 2, 3})}), {5, 6, 4}), "Reshape Abs");
}

TEST_F(MoveShapes, OneUnknownSizeIsInferred) {
  const ValueId x = input({graph->symbol("batch"), graph->symbol("length"), 4});
  const ValueId y = rw.emit("Flatten", {reshape(x, {-1, 2, 2})}, {{"axis", int64_t{1}}});
  EXPECT_EQ(after(merge_views, rw.emit("Abs", {y}), {3, 5, 4}), "Reshape Abs");
}

TEST_F(MoveShapes, NoSizesAreNotInferred) {
  const ValueId x = input({graph->symbol("batch"), 4});
  EXPECT_EQ(after(merge_views, rw.emit("Abs", {reshape(reshape(x, {0, 2, 2}), {0, 4, 1})}), {0, 4}), "Reshape Abs");
}

}  // namespace
}  // namespace ds
