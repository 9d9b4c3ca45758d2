#include "libds/compile/compile.h"

#include <gtest/gtest.h>

#include "libds/base/random.h"
#include "libds/compile/memory_plan.h"
#include "libds/ir/rewriter.h"
#include "libds/run/session.h"

namespace ds {
namespace {

Tensor counted(Shape shape, float start = 0) {
  Tensor t = Tensor::empty(DType::kF32, std::move(shape));
  for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<float>()[i] = start + static_cast<float>(i);
  return t;
}

TEST(MemoryPlan, NoTwoLiveBuffersOverlap) {
  Random random(7);
  for (int round = 0; round < 20; ++round) {
    std::vector<Lifetime> l;
    for (int i = 0; i < 200; ++i) {
      const int first = static_cast<int>(random.below(100));
      l.push_back({random.below(5000), first, first + static_cast<int>(random.below(20)), 0});
    }
    const size_t arena = assign_offsets(l);
    EXPECT_GE(arena, live_peak(l));
    for (size_t i = 0; i < l.size(); ++i) {
      EXPECT_EQ(l[i].offset % kArenaAlignment, 0u);
      EXPECT_LE(l[i].offset + l[i].bytes, arena);
      for (size_t j = 0; j < i; ++j) {
        const bool in_time = l[i].first <= l[j].last && l[j].first <= l[i].last;
        const bool in_space = l[i].offset < l[j].offset + l[j].bytes && l[j].offset < l[i].offset + l[i].bytes;
        EXPECT_FALSE(in_time && in_space && l[i].bytes > 0 && l[j].bytes > 0);
      }
    }
  }
}

TEST(Compile, ChainRunsInPlaceAndEqualsEager) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("n"), 4});
  const ValueId b = rw.add_constant("b", counted({4}, -2));
  ValueId y = x;
  for (int i = 0; i < 5; ++i) y = rw.emit("Relu", {rw.emit("Add", {y, b})});
  rw.add_output(y);
  Session planned(g), eager(g, {.static_plan = false});
  for (int64_t n : {1, 3, 1}) {
    const std::vector<Tensor> in = {counted({n, 4}, -3)};
    EXPECT_TRUE(planned.run(in)[0].equal_bits(eager.run(in)[0]));
  }
  EXPECT_EQ(planned.eager_reason(), "");
  const std::vector<Shape> shapes = {{3, 4}};
  const auto plan = planned.plan(shapes);
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(plan->arena_bytes, 0u);  // all ten steps share the output's memory
}

TEST(Compile, StatesAreUpdatedInPlaceAndKeptAcrossRuns) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {2});
  const ValueId total = rw.add_constant("total", Tensor::zeros(DType::kF32, {2}));
  const ValueId swapped = rw.add_constant("previous", Tensor::zeros(DType::kF32, {2}));
  const ValueId next = rw.emit("Add", {total, x});
  rw.add_state({total, next});
  rw.add_state({swapped, total});  // the content before this run
  rw.add_output(next);
  CompileOptions options;
  for (bool planned : {true, false}) {
    const auto executor = planned ? make_plan_executor(compile(g, options)) : make_eager_executor(g, options);
    const std::vector<Tensor> in = {Tensor::of<float>({2}, {1, 2})};
    for (int i = 1; i <= 3; ++i) EXPECT_EQ(executor->run(in)[0].data<float>()[1], 2.0f * static_cast<float>(i));
    EXPECT_EQ(executor->states()[0].data<float>()[0], 3.0f);
    EXPECT_EQ(executor->states()[1].data<float>()[0], 2.0f);
  }
  EXPECT_EQ(g->value(total).constant->data<float>()[0], 0.0f);  // the graph itself is untouched
}

TEST(Compile, WrongShapeIsNamed) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("n"), 4});
  rw.add_output(rw.emit("Relu", {x}));
  Session s(g);
  const std::vector<Tensor> in = {counted({2, 5})};
  try {
    s.run(in);
    FAIL() << "a wrong shape was accepted";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "input 'x' has shape 2x5, the model expects [n,4]");
  }
}

TEST(Compile, AFailingNodeIsNamedOnce) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("n")});
  const ValueId y = rw.add_input("y", DType::kF32, {g->symbol("m")});
  rw.add_output(rw.emit("Add", {x, y}, {}, "sum"));
  const std::vector<Tensor> in = {counted({2}), counted({3})};
  for (const bool planned : {true, false}) {
    Session s(g, {.static_plan = planned});
    try {
      s.run(in);
      FAIL() << "shapes that do not fit were accepted";
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), "node 'sum' (Add): cannot broadcast [2] with [3]");
    }
  }
}

}  // namespace
}  // namespace ds
