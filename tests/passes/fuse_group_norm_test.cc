#include "libds/passes/fuse_group_norm.h"

#include <gtest/gtest.h>

#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

Tensor f32(Shape shape, uint64_t seed, double low = -1, double high = 1) { return test::random_tensor(std::move(shape), seed, low, high).cast(DType::kF32); }

// x [batch, 12, 5, 7] as the instances of `groups`.
struct Instances {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Rewriter rw{*graph};
  ValueId x = rw.add_input("x", DType::kF32, {graph->symbol("batch"), 12, 5, 7});

  ValueId ints(std::vector<int64_t> v) { return rw.add_constant("shape", Tensor::vector<int64_t>(std::span<const int64_t>(v))); }
  ValueId numbers(Shape shape, uint64_t seed) { return rw.add_constant("numbers", f32(std::move(shape), seed)); }
  ValueId normalized(int64_t groups) {
    const ValueId split = rw.emit("Reshape", {x, ints({0, groups, -1})});
    const ValueId y = rw.emit("InstanceNormalization", {split, numbers({groups}, 2), numbers({groups}, 3)}, {{"epsilon", 1e-3f}});
    return rw.emit("Reshape", {y, rw.emit("Shape", {x})});
  }
  Tensor run() const {
    const Tensor in = f32({3, 12, 5, 7}, 1, -2, 4);
    return make_eager_executor(graph, {})->run(std::span(&in, 1)).at(0);
  }
  bool fuse() {
    PassContext context;
    return fuse_group_norm(rw, context);
  }
};

void becomes_one(Instances& g, ValueId y, size_t nodes, const char* what) {
  g.rw.add_output(g.rw.emit("Identity", {y}, {}, "y"));
  const Tensor before = g.run();
  EXPECT_TRUE(g.fuse()) << what;
  verify_graph(*g.graph);
  EXPECT_EQ(g.graph->node_count(), nodes) << what << "\n" << print_graph(*g.graph);
  EXPECT_EQ(g.graph->node(g.graph->first()).op, "GroupNormalization") << what;
  EXPECT_LE(test::relative_error(g.run(), before), 2e-6) << what;
}

TEST(FuseGroupNorm, TakesScaleAndBiasOfChannels) {
  for (const Shape& shape : {Shape{12, 1, 1}, Shape{1, 12, 1, 1}}) {
    Instances g;
    const ValueId scaled = g.rw.emit("Mul", {g.normalized(4), g.numbers(shape, 4)});
    becomes_one(g, g.rw.emit("Add", {g.numbers(shape, 5), scaled}), 2, "scale and bias");
  }
  {
    Instances g;
    becomes_one(g, g.normalized(3), 2, "neither");
  }
  {
    Instances g;
    becomes_one(g, g.rw.emit("Add", {g.normalized(12), g.numbers({12, 1, 1}, 4)}), 2, "bias");
  }
}

TEST(FuseGroupNorm, OtherConstantsStayBehind) {
  Instances g;
  becomes_one(g, g.rw.emit("Mul", {g.normalized(4), g.numbers({5, 7}, 4)}), 3, "one number per pixel");
  Instances h;
  becomes_one(h, h.rw.emit("Mul", {h.normalized(4), h.numbers({1}, 4)}), 3, "a number");
}

TEST(FuseGroupNorm, OtherShapesStay) {
  Instances g;  // samples are mixed
  const ValueId split = g.rw.emit("Reshape", {g.x, g.ints({-1, 6, 35})});
  const ValueId y = g.rw.emit("InstanceNormalization", {split, g.numbers({6}, 2), g.numbers({6}, 3)});
  g.rw.add_output(g.rw.emit("Reshape", {y, g.ints({-1, 12, 5, 7})}));
  EXPECT_FALSE(g.fuse()) << print_graph(*g.graph);
  Instances h;  // the result has another shape
  const ValueId other = h.rw.emit("InstanceNormalization", {h.rw.emit("Reshape", {h.x, h.ints({0, 4, -1})}), h.numbers({4}, 2), h.numbers({4}, 3)});
  h.rw.add_output(h.rw.emit("Reshape", {other, h.ints({0, 12, 7, 5})}));
  EXPECT_FALSE(h.fuse()) << print_graph(*h.graph);
}

}  // namespace
}  // namespace ds
