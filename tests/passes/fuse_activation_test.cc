#include "libds/passes/fuse_activation.h"

#include <gtest/gtest.h>

#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

// The ways files write HardSwish; 0 to 3.
std::shared_ptr<Graph> spelled(int form, float offset = 3) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const auto number = [&](float v) { return rw.add_constant("c", Tensor::scalar<float>(v)); };
  const ValueId x = rw.add_input("x", DType::kF32, {3, 50});
  const auto gate = [&] { return rw.emit("Clip", {rw.emit("Add", {x, number(offset)}), number(0), number(6)}); };
  ValueId y = kNone;
  switch (form) {
    case 0: y = rw.emit("Div", {rw.emit("Mul", {x, gate()}), number(6)}, {}, "y"); break;
    case 1: y = rw.emit("Mul", {rw.emit("Mul", {gate(), x}), number(1.0f / 6)}, {}, "y"); break;
    case 2: y = rw.emit("Mul", {x, rw.emit("Div", {gate(), number(6)})}, {}, "y"); break;
    default: y = rw.emit("Mul", {x, rw.emit("HardSigmoid", {x}, {{"alpha", 1.0f / 6}, {"beta", 0.5f}})}, {}, "y"); break;
  }
  rw.add_output(y);
  return g;
}

bool fuse(Graph& g) {
  Rewriter rw(g);
  PassContext context;
  return fuse_activation(rw, context);
}

Tensor run(const std::shared_ptr<Graph>& g) {
  const Tensor x = test::random_tensor({3, 50}, 1, -6, 6).cast(DType::kF32);
  return make_eager_executor(g, {})->run(std::span(&x, 1)).at(0);
}

TEST(FuseActivation, EverySpellingOfHardSwish) {
  for (int form = 0; form < 4; ++form) {
    const auto g = spelled(form);
    const Tensor before = run(g);
    EXPECT_TRUE(fuse(*g)) << form;
    verify_graph(*g);
    ASSERT_EQ(g->node_count(), 1u) << print_graph(*g);
    EXPECT_TRUE(g->node(g->first()).is("HardSwish"));
    EXPECT_LE(test::relative_error(run(g), before), 1e-6) << form;
  }
}

TEST(FuseActivation, OtherNumbersAndVisibleValuesStay) {
  EXPECT_FALSE(fuse(*spelled(0, 2.5f)));
  const auto g = spelled(2);
  Rewriter rw(*g);
  for (NodeId id : g->order())
    if (g->node(id).is("Clip")) rw.add_output(g->node(id).outputs[0]);
  EXPECT_FALSE(fuse(*g));
}

}  // namespace
}  // namespace ds
