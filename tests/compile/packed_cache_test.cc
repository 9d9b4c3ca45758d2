// What plans of one session share: packed weights, kernels, the arena.
#include "libds/ir/packed_cache.h"

#include <gtest/gtest.h>

#include "libds/ir/rewriter.h"
#include "libds/run/session.h"

namespace ds {
namespace {

Tensor counted(Shape shape, float start = 0) {
  Tensor t = Tensor::empty(DType::kF32, std::move(shape));
  for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<float>()[i] = start + 0.01f * static_cast<float>(i % 97);
  return t;
}

// A cache, and how often it had to ask.
struct Asked {
  PackedCache cache;
  int times = 0;
  std::shared_ptr<const void> get(const Tensor& t, std::string_view form) {
    bool made = false;
    const int before = times;
    auto packing = cache.get(t, form, [&] { return ++times, std::make_shared<int>(times); }, made);
    EXPECT_EQ(made, times > before);
    return packing;
  }
};

TEST(PackedCache, EqualContentAndFormArePackedOnce) {
  Asked asked;
  const Tensor w = counted({4, 4}), other = counted({4, 4}), copy = w;
  const auto a = asked.get(w, "a"), again = asked.get(copy, "a"), b = asked.get(w, "b"), c = asked.get(other, "a");
  EXPECT_EQ(a, again);
  EXPECT_NE(a, b);
  EXPECT_NE(a, c);  // equal numbers elsewhere
  EXPECT_NE(a, asked.get(w.reshaped({16}), "a"));
  EXPECT_NE(asked.get(w.rows(0, 2), "a"), asked.get(w.rows(2, 4), "a"));
  EXPECT_EQ(asked.cache.size(), 3u);  // the last ones went at once
}

TEST(PackedCache, APackingKeepsItsContentAndGoesWithItsLastHolder) {
  Asked asked;
  Tensor w = counted({4, 4});
  const std::weak_ptr<Buffer> buffer = w.buffer();
  auto packing = asked.get(w, "a");
  w = Tensor();
  // Memory that is still referred to is given to nobody else, so no other weights are taken for these.
  EXPECT_FALSE(buffer.expired());
  for (int i = 0; i < 100; ++i) EXPECT_NE(asked.get(counted({4, 4}), "a"), packing);
  packing.reset();
  EXPECT_TRUE(buffer.expired());
  EXPECT_EQ(asked.cache.size(), 0u);
}

TEST(PackedCache, PendingContentIsNotAskedFor) {
  Asked asked;
  int filled = 0;
  const Tensor w = Tensor::deferred(DType::kF32, {512, 512}, [&](std::byte*) { ++filled; });
  const auto pending = asked.get(w, "a"), part = asked.get(w.rows(1, 2), "a");
  EXPECT_EQ(asked.get(w, "a"), pending);
  EXPECT_NE(part, asked.get(w.rows(1, 2), "a"));  // where it lies is not known yet
  EXPECT_EQ(filled, 0);
  w.raw();
  EXPECT_EQ(asked.get(w, "a"), pending);
}

TEST(PackedCache, AFailureLeavesNothing) {
  Asked asked;
  const Tensor w = counted({4});
  bool made = false;
  EXPECT_THROW(asked.cache.get(w, "a", []() -> std::shared_ptr<const void> { throw std::runtime_error("no"); }, made), std::runtime_error);
  EXPECT_NE(asked.get(w, "a"), nullptr);
}

// x [n, 64] and z [2, 64]: products with constant weights; what comes from z sees no n until the end.
std::shared_ptr<Graph> two_branches() {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("n"), 64}), z = rw.add_input("z", DType::kF32, {2, 64});
  const ValueId w = rw.add_constant("w", counted({64, 48})), v = rw.add_constant("v", counted({64, 48}, -1));
  const ValueId a = rw.emit("Tanh", {rw.emit("MatMul", {x, w}, {}, "a")});
  const ValueId b = rw.emit("Sigmoid", {rw.emit("MatMul", {z, v}, {}, "b")}, {}, "sigmoid");
  rw.add_output(a);
  rw.add_output(rw.emit("ReduceMax", {b}));
  return g;
}

TEST(Session, ShapesShareWeightsAndMemory) {
  Session session(two_branches());
  size_t packings = 0;
  for (int64_t n : {1, 5, 200, 5, 3, 1}) {  // also back to arenas that have moved
    const std::vector<Tensor> in = {counted({n, 64}), counted({2, 64}, 3)};
    const std::vector<Tensor> results = session.run(in), expected = Session(two_branches()).run(in);
    for (size_t i = 0; i < results.size(); ++i) EXPECT_TRUE(results[i].equal_bits(expected[i])) << n;
    if (packings == 0) packings = session.packed_weights().size();
    EXPECT_EQ(session.packed_weights().size(), packings);
  }
  EXPECT_EQ(packings, cpu_isa() >= Isa::kAvx2 ? 2u : 0u);  // at the portable level products take weights as they are
  // Counted once, by the plan that packed.
  size_t bytes = 0;
  for (int64_t n : {1, 5, 200, 3}) bytes += session.plan(std::vector<Shape>{{n, 64}, {2, 64}})->packed_bytes;
  EXPECT_EQ(bytes, session.plan(std::vector<Shape>{{1, 64}, {2, 64}})->packed_bytes);
}

TEST(Session, NodesThatSeeTheSameKeepTheirKernels) {
  Session session(two_branches());
  const auto first = session.plan(std::vector<Shape>{{1, 64}, {2, 64}}), second = session.plan(std::vector<Shape>{{7, 64}, {2, 64}});
  ASSERT_NE(second, nullptr);
  size_t kept = 0, anew = 0;
  for (const Step& s : second->steps) {
    const std::string& name = second->graph->node(s.node).name;
    for (const Step& t : first->steps) {
      if (first->graph->node(t.node).name != name) continue;
      (s.kernel == t.kernel ? kept : anew) += 1;
      EXPECT_EQ(s.kernel == t.kernel, second->slots[static_cast<size_t>(s.outputs[0])].desc.shape == first->slots[static_cast<size_t>(t.outputs[0])].desc.shape) << name;
    }
  }
  EXPECT_GE(kept, 2u);
  EXPECT_GE(anew, 1u);
}

// Results of shape arithmetic differ from shape to shape: a kernel bound to the old content must not stay.
TEST(Session, ConstantsOfShapeArithmeticAreCompared) {
  auto g = std::make_shared<Graph>();
  Rewriter rw(*g);
  const ValueId x = rw.add_input("x", DType::kF32, {g->symbol("n"), 2}), z = rw.add_input("z", DType::kI64, {3});
  const ValueId n = rw.emit("Slice", {rw.emit("Shape", {x}), rw.add_constant("from", Tensor::vector<int64_t>(std::vector<int64_t>{0})),
                                      rw.add_constant("to", Tensor::vector<int64_t>(std::vector<int64_t>{1}))});
  rw.add_output(rw.emit("Add", {z, n}));
  Session session(g);
  for (int64_t rows : {1, 4, 9}) {
    const std::vector<Tensor> out = session.run(std::vector<Tensor>{counted({rows, 2}), Tensor::vector<int64_t>(std::vector<int64_t>{1, 2, 3})});
    EXPECT_EQ(out[0].to_ints(), (std::vector<int64_t>{1 + rows, 2 + rows, 3 + rows}));
  }
}

}  // namespace
}  // namespace ds
