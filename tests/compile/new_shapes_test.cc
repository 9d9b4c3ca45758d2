// Sessions whose every call brings another shape: when they stop compiling plans, and that nobody can tell.
#include <gtest/gtest.h>

#include <cstdlib>

#include "libds/ir/compact.h"
#include "libds/ir/rewriter.h"
#include "libds/run/session.h"

namespace ds {
namespace {

Tensor counted(Shape shape, float start = 0) {
  Tensor t = Tensor::empty(DType::kF32, std::move(shape));
  for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<float>()[i] = start + 0.01f * static_cast<float>(i % 97);
  return t;
}

// A cache [past, 16] that grows by x [1, 16]; products, a softmax and some arithmetic of shapes behind it.
std::shared_ptr<Graph> growing(int64_t width = 16) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {1, width}), past = rw.add_input("past", DType::kF32, {g->symbol("past"), width});
  const ValueId w = rw.add_constant("w", counted({width, width}, -0.4f));
  const ValueId present = rw.emit("Concat", {past, rw.emit("MatMul", {x, w})}, {{"axis", int64_t{0}}}, "present");
  const ValueId scores = rw.emit("MatMul", {x, rw.emit("Transpose", {present}, {{"perm", std::vector<int64_t>{1, 0}}})}, {}, "scores");
  const ValueId length = rw.emit("Shape", {scores});
  const ValueId flat = rw.emit("Reshape", {rw.emit("Softmax", {scores}, {{"axis", int64_t{-1}}}), length}, {}, "weights");
  rw.add_output(rw.emit("MatMul", {flat, present}, {}, "result"));
  rw.add_output(present);
  return g;
}

std::vector<Tensor> inputs(int64_t past, int64_t width = 16) { return {counted({1, width}, 0.1f), counted({past, width}, -0.3f)}; }

std::string reason_at(Session& session, int64_t past) {
  const std::vector<Tensor> results = session.run(inputs(past));
  Session planned(growing(), {.new_in_a_row = 0});
  const std::vector<Tensor> expected = planned.run(inputs(past));
  EXPECT_EQ(planned.eager_reason(), "");
  for (size_t i = 0; i < results.size(); ++i) EXPECT_TRUE(results[i].equal_bits(expected[i])) << past;
  return session.eager_reason();
}

TEST(NewShapes, AStreamOfThemRunsEagerlyWithTheSameBits) {
  Session session(growing());
  for (int64_t past : {0, 1}) EXPECT_EQ(reason_at(session, past), "");
  for (int64_t past = 2; past < 8; ++past) EXPECT_NE(reason_at(session, past), "") << past;
  // A plan for what comes again; only a return to earlier shapes ends the stream.
  EXPECT_EQ(reason_at(session, 7), "");
  EXPECT_EQ(reason_at(session, 7), "");
  EXPECT_NE(reason_at(session, 8), "");
  EXPECT_EQ(reason_at(session, 5), "");
  EXPECT_EQ(reason_at(session, 1), "");
  for (int64_t past : {20, 21}) EXPECT_EQ(reason_at(session, past), "");
  EXPECT_NE(reason_at(session, 22), "");
  // Who asks for a plan gets it.
  EXPECT_NE(session.plan(std::vector<Shape>{{1, 16}, {23, 16}}), nullptr);
  EXPECT_EQ(reason_at(session, 22), "");
}

TEST(NewShapes, OptionsSayWhen) {
  Session early(growing(), {.new_in_a_row = 1}), never(growing(), {.new_in_a_row = 0}), profiled(growing());
  profiled.enable_profile();  // plans only can be profiled
  EXPECT_EQ(reason_at(early, 1), "");
  EXPECT_NE(reason_at(early, 2), "");
  for (int64_t past = 0; past < 6; ++past) {
    EXPECT_EQ(reason_at(never, past), "");
    EXPECT_EQ(reason_at(profiled, past), "");
  }
  EXPECT_FALSE(profiled.profile().empty());
}

TEST(NewShapes, MuchArithmeticIsWorthItsPlan) {
  Session session(growing(4000));
  for (int64_t past = 0; past < 5; ++past) {
    session.run(inputs(past, 4000));
    EXPECT_EQ(session.eager_reason(), "") << past;
  }
}

TEST(NewShapes, RandomNumbersAndStatesStayWithThePlans) {
  for (bool random : {true, false}) {
    auto g = std::make_shared<Graph>();
    Rewriter rw(*g);
    const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("n")});
    const ValueId total = rw.add_constant("total", Tensor::zeros(DType::kF32, {}));
    if (random) {
      rw.add_output(rw.emit("RandomUniformLike", {x}, {{"seed", 3.0f}}));
    } else {
      const ValueId next = rw.emit("Add", {total, rw.emit("ReduceSum", {x}, {{"keepdims", int64_t{0}}})});
      rw.add_state({total, next});
      rw.add_output(next);
    }
    Session session(g);
    for (int64_t n = 1; n < 6; ++n) {
      session.run(std::vector<Tensor>{counted({n})});
      EXPECT_EQ(session.eager_reason(), "") << n;
    }
  }
}

// What executors recycle is nothing that anybody still holds.
TEST(NewShapes, ResultsStayAsTheyAre) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("n"), 4});
  const ValueId a = rw.emit("Exp", {rw.emit("Add", {x, x})});
  const ValueId flat = rw.emit("Reshape", {a, rw.add_constant("flat", Tensor::of<int64_t>({1}, {-1}))});
  const ValueId unread = rw.emit("Reshape", {x, rw.add_constant("pairs", Tensor::of<int64_t>({2}, {-1, 2}))});
  for (ValueId out : {rw.emit("Neg", {rw.emit("Tanh", {a})}), flat, rw.emit("Relu", {rw.emit("Neg", {flat})}), unread, x}) rw.add_output(out);
  std::vector<std::vector<Tensor>> kept, copies;
  Session eager(g, {.pipeline = "", .static_plan = false}), planned(g, {.pipeline = ""});
  for (int64_t n : {3, 3, 1, 200, 2, 3, 200, -3, -3, -3, -1, -2, -200, -3}) {
    Session& session = n > 0 ? eager : planned;
    n = std::abs(n);
    for (int i = 0; i < 3; ++i) session.run(std::vector<Tensor>{counted({n, 4}, 9)});  // results that nobody keeps
    kept.push_back(session.run(std::vector<Tensor>{counted({n, 4}, static_cast<float>(kept.size()))}));
    copies.emplace_back();
    for (const Tensor& t : kept.back()) copies.back().push_back(t.clone());
    const Tensor wrong = counted({n, 5});
    EXPECT_THROW(session.run(std::vector<Tensor>{wrong}), Error);
  }
  for (size_t i = 0; i < kept.size(); ++i)
    for (size_t k = 0; k < kept[i].size(); ++k) EXPECT_TRUE(kept[i][k].equal_bits(copies[i][k])) << i << " " << k;
}

TEST(Compacted, SaysTheSameInFewerValues) {
  auto g = growing();
  Rewriter rw(*g);
  const ValueId old = g->outputs()[0], added = rw.emit("Relu", {old}, {}, "result/relu");
  rw.set_outputs({added, g->outputs()[1]});
  const ValueId total = rw.add_constant("total", Tensor::zeros(DType::kF32, {}));
  rw.add_state({total, rw.emit("ReduceMax", {added}, {{"keepdims", int64_t{0}}})});
  rw.emit("Neg", {old});  // dead
  rw.remove_dead_nodes();
  const Graph small = compacted(*g);
  verify_graph(small);
  EXPECT_LT(small.value_capacity(), g->value_capacity());
  EXPECT_EQ(small.node_capacity(), g->node_count());
  EXPECT_EQ(print_graph(small), print_graph(*g));
  ASSERT_EQ(small.states().size(), 1u);
  EXPECT_EQ(small.value(small.states()[0].value).name, "total");
}

// Contents put in place of nodes take over their names without asking who else has them.
TEST(NewShapes, SpecialisedGraphsKeepTheirInvariants) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("n"), 4});
  const ValueId shape = rw.emit("Shape", {x}, {}, "shape");
  const NodeId split = rw.add_node("Split", {shape}, {{"num_outputs", int64_t{2}}}, "split", 2);
  const ValueId rows = g->node(split).outputs[0], columns = g->node(split).outputs[1];
  const ValueId turned = rw.emit("Concat", {columns, rows}, {{"axis", int64_t{0}}}, "turned");
  rw.add_output(rw.emit("Reshape", {x, turned}, {}, "y"));
  rw.add_output(turned);
  specialize(rw, std::vector<Shape>{{3, 4}}, evaluate_node);
  verify_graph(*g);
  EXPECT_EQ(g->node_count(), 1u) << print_graph(*g);
  const Value& constant = g->value(g->outputs()[1]);
  EXPECT_EQ(constant.name, "turned");
  ASSERT_TRUE(constant.is_constant());
  EXPECT_EQ(constant.constant->to_ints(), (std::vector<int64_t>{4, 3}));
  // Names made afterwards are others.
  rw.add_output(rw.emit("Relu", {g->outputs()[0]}, {}, "turned"));
  EXPECT_NE(g->value(g->outputs()[2]).name, "turned");
  verify_graph(*g);
}

}  // namespace
}  // namespace ds
