// Operators that reshape, move, index and build tensors.
#include "libds/ir/rewriter.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

Tensor ints(const Ints& v) { return Tensor::vector<int64_t>(v); }
Tensor int_tensor(Shape shape, const Ints& v) { return Tensor::of<int64_t>(std::move(shape), v); }

const bool added = add_cases({
    {"Reshape", {random_tensor({2, 6}, 1), ints({3, -1})}},
    {"Flatten", {random_tensor({2, 3, 2}, 1)}, {{"axis", int64_t{2}}}},
    {"Squeeze", {random_tensor({2, 1, 3}, 1), ints({1})}},
    {"Unsqueeze", {random_tensor({2, 3}, 1), ints({0, -1})}},
    {"Transpose", {random_tensor({3, 5}, 1)}},
    {"Transpose", {random_tensor({2, 9, 6, 7}, 2)}, {{"perm", Ints{0, 2, 3, 1}}}, 1, {}, 1e-5, "to_nhwc"},
    {"Transpose", {random_tensor({2, 3, 4, 5}, 2)}, {{"perm", Ints{0, 2, 1, 3}}}, 1, {}, 1e-5, "heads"},
    {"Concat", {random_tensor({2, 3, 2}, 1), random_tensor({2, 1, 2}, 2), random_tensor({2, 4, 2}, 3)}, {{"axis", int64_t{1}}}},
    {"Split", {random_tensor({2, 7}, 1), ints({3, 0, 4})}, {{"axis", int64_t{1}}}, 3},
    {"Split", {random_tensor({5, 2}, 1)}, {{"num_outputs", int64_t{3}}}, 3, {}, 1e-5, "uneven"},
    {"Expand", {random_tensor({3, 1}, 1), ints({2, 1, 4})}},
    {"Tile", {random_tensor({2, 3}, 1), ints({2, 3})}},
    {"Slice", {random_tensor({5, 6}, 1), ints({1, -1}), ints({4, -6}), ints({0, 1}), ints({1, -2})}},
    {"Slice", {random_tensor({5, 6}, 1), ints({2}), ints({1000}), ints({-1})}, {}, 1, {}, 1e-5, "open_end"},
    {"Pad", {random_tensor({2, 3}, 1), ints({1, 2, 0, 1})}},
    {"Pad", {random_tensor({2, 4}, 1), ints({-1, 2}), Tensor(), ints({1})}, {}, 1, {}, 1e-5, "crop"},
    {"Pad", {random_tensor({2, 4}, 1), ints({1, 2, 1, 3})}, {{"mode", std::string("edge")}}, 1, {}, 1e-5, "edge"},
    {"Pad", {random_tensor({3, 4}, 1), ints({2, 2, 2, 3})}, {{"mode", std::string("reflect")}}, 1, {}, 1e-5, "reflect"},
    {"Pad", {random_tensor({3, 4}, 1), ints({2, 2, 2, 7})}, {{"mode", std::string("wrap")}}, 1, {}, 1e-5, "wrap"},
    {"Trilu", {random_tensor({2, 4, 5}, 1), Tensor::scalar<int64_t>(1)}},
    {"Trilu", {random_tensor({4, 3}, 1), Tensor::scalar<int64_t>(-1)}, {{"upper", int64_t{0}}}, 1, {}, 1e-5, "lower"},
    {"DepthToSpace", {random_tensor({2, 8, 2, 3}, 1)}, {{"blocksize", int64_t{2}}}},
    {"DepthToSpace", {random_tensor({1, 8, 2, 3}, 1)}, {{"blocksize", int64_t{2}}, {"mode", std::string("CRD")}}, 1, {}, 1e-5, "crd"},
    {"SpaceToDepth", {random_tensor({1, 2, 4, 6}, 1)}, {{"blocksize", int64_t{2}}}},
    {"Gather", {random_tensor({5, 3}, 1), int_tensor({2, 2}, {0, -1, 3, 3})}},
    {"Gather", {random_tensor({2, 5, 40}, 1), ints({4, 4, -5})}, {{"axis", int64_t{1}}}, 1, {}, 1e-5, "middle"},
    {"GatherElements", {random_tensor({3, 4}, 1), int_tensor({2, 3}, {0, -1, 2, 1, 1, 0})}},
    {"GatherElements", {random_tensor({3, 4}, 1), int_tensor({3, 2}, {0, -1, 2, 2, 1, 0})}, {{"axis", int64_t{1}}}, 1, {}, 1e-5, "last"},
    {"ScatterElements", {random_tensor({4, 3}, 1), int_tensor({2, 3}, {0, -1, 2, 1, 0, 0}), random_tensor({2, 3}, 2)}},
    {"ScatterElements", {random_tensor({4, 3}, 1), int_tensor({2, 3}, {0, 1, 1, 0, 1, 1}), random_tensor({2, 3}, 2)},
     {{"reduction", std::string("add")}}, 1, {}, 1e-5, "add"},
    {"GatherND", {random_tensor({3, 4, 2}, 1), int_tensor({3, 2}, {0, 1, -1, 3, 0, 1})}},
    {"GatherND", {random_tensor({2, 3, 2}, 1), int_tensor({2, 1}, {2, -3})}, {{"batch_dims", int64_t{1}}}, 1, {}, 1e-5, "batch"},
    {"GatherND", {random_tensor({2, 3, 4, 2}, 1), int_tensor({2, 3, 2, 1}, {2, -3, 0, 0, 1, 3, -1, 3, 2, 0, 1, 1})}, {{"batch_dims", int64_t{2}}}, 1, {}, 1e-5, "batches"},
    {"ScatterND", {random_tensor({4, 3}, 1), int_tensor({2, 1}, {1, -1}), random_tensor({2, 3}, 2)}},
    {"ScatterND", {random_tensor({4, 3}, 1), int_tensor({4, 1}, {1, 0, 1, -3}), random_tensor({4, 3}, 2)}, {{"reduction", std::string("mul")}}, 1, {}, 1e-5, "mul"},
    {"ScatterND", {Tensor::of<double>({3}, {2, 0, -3}), int_tensor({5, 1}, {0, 0, 0, 1, 2}), Tensor::of<double>({5}, {0, 4, 0.5, 3, 0})},
     {{"reduction", std::string("mul")}}, 1, {}, 1e-5, "mul_one_zero"},
    {"ScatterND", {Tensor::of<double>({2}, {2, -1}), int_tensor({5, 1}, {0, 0, 0, 1, 1}), Tensor::of<double>({5}, {0, 4, 0, 3, 5})},
     {{"reduction", std::string("mul")}}, 1, {}, 1e-5, "mul_two_zeros"},
    {"ScatterND", {random_tensor({4, 3}, 1), int_tensor({4, 1}, {1, 0, 1, -3}), random_tensor({4, 3}, 2)}, {{"reduction", std::string("max")}}, 1, {}, 1e-5, "max"},
    {"ScatterElements", {random_tensor({4, 3}, 1), int_tensor({2, 4}, {0, 2, 2, 0, 1, -1, -2, 1}), random_tensor({2, 4}, 2)},
     {{"axis", int64_t{1}}, {"reduction", std::string("min")}}, 1, {}, 1e-5, "min"},
    {"ScatterElements", {random_tensor({4, 3}, 1), int_tensor({2, 3}, {0, 1, 1, 0, 1, 1}), random_tensor({2, 3}, 2)},
     {{"reduction", std::string("mul")}}, 1, {}, 1e-5, "mul"},
    // A tie is shared out; so differences on both sides see it.
    {"ScatterElements", {Tensor::of<double>({3}, {1, 5, 2}), int_tensor({3}, {0, 2, 1}), Tensor::of<double>({3}, {1, 3, 4})},
     {{"reduction", std::string("max")}}, 1, {}, 1e-5, "max_tie"},
    {"ScatterND", {random_tensor({4, 3}, 1), int_tensor({3, 1}, {1, 0, 1}), random_tensor({3, 3}, 2)},
     {{"reduction", std::string("add")}}, 1, {}, 1e-5, "add"},
    {"SliceGrad", {random_tensor({2, 3}, 1)}, {{"dims", Ints{5, 6}}, {"starts", Ints{1, 5}}, {"steps", Ints{2, -2}}, {"counts", Ints{2, 3}}}},
    {"PadGrad", {random_tensor({5, 4}, 1)}, {{"dims", Ints{3, 2}}, {"begin", Ints{1, 1}}, {"mode", std::string("edge")}}},
    {"GatherGrad", {random_tensor({2, 3, 33}, 1), ints({1, 1, -1})}, {{"dims", Ints{2, 4, 33}}, {"axis", int64_t{1}}}},
});

// --- values against definitions ---------------------------------------------------------------------

std::vector<double> values(const Tensor& t) { return t.to_doubles(); }

// One node on exact inputs (all constant), by the kernel that is selected.
Tensor run1(const std::string& op, std::vector<Tensor> inputs, Attributes attrs = {}) {
  return run_op({op, std::move(inputs), std::move(attrs)})[0];
}

TEST(Movement, TransposeOfEveryElementSizeAndPermutation) {
  const Shape shape = {2, 17, 5, 19};
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  std::vector<int64_t> content(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) content[static_cast<size_t>(i)] = i % 120;
  for (DType dtype : {DType::kU8, DType::kI16, DType::kI32, DType::kI64}) {
    const Tensor x = int_tensor(shape, content).cast(dtype);
    Ints perm = {0, 1, 2, 3};
    do {
      const Tensor y = run1("Transpose", {x}, {{"perm", perm}});
      Shape out;
      for (int64_t p : perm) out.push_back(shape[static_cast<size_t>(p)]);
      ASSERT_EQ(y.shape(), out);
      const Ints got = y.to_ints();
      for (int64_t i = 0; i < n; ++i) {
        int64_t index[4], rest = i;
        for (int d = 3; d >= 0; --d) {
          index[perm[static_cast<size_t>(d)]] = rest % out[static_cast<size_t>(d)];
          rest /= out[static_cast<size_t>(d)];
        }
        const int64_t from = ((index[0] * 17 + index[1]) * 5 + index[2]) * 19 + index[3];
        ASSERT_EQ(got[static_cast<size_t>(i)], content[static_cast<size_t>(from)]);
      }
    } while (std::next_permutation(perm.begin(), perm.end()));
  }
}

TEST(Movement, SmallResults) {
  const Tensor x = int_tensor({2, 3}, {0, 1, 2, 3, 4, 5});
  EXPECT_EQ(run1("Slice", {x, ints({-1}), ints({-1000}), ints({1}), ints({-1})}).to_ints(), (Ints{2, 1, 0, 5, 4, 3}));
  EXPECT_EQ(run1("Slice", {x, ints({1}), ints({1}), ints({1})}).shape(), (Shape{2, 0}));
  EXPECT_EQ(run1("Expand", {ints({7, 8}), ints({2, 1, 2})}).to_ints(), (Ints{7, 8, 7, 8}));
  EXPECT_EQ(run1("Tile", {x, ints({1, 2})}).to_ints(), (Ints{0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5}));
  EXPECT_EQ(run1("Pad", {x, ints({0, 1, 0, 0}), Tensor::scalar<int64_t>(9)}).to_ints(), (Ints{9, 0, 1, 2, 9, 3, 4, 5}));
  EXPECT_EQ(run1("Pad", {x, ints({0, 2, 0, 1})}, {{"mode", std::string("reflect")}}).to_ints(), (Ints{2, 1, 0, 1, 2, 1, 5, 4, 3, 4, 5, 4}));
  EXPECT_EQ(run1("Trilu", {x}).to_ints(), (Ints{0, 1, 2, 0, 4, 5}));
  EXPECT_EQ(run1("Shape", {x}, {{"start", int64_t{-1}}}).to_ints(), (Ints{3}));
  EXPECT_EQ(run1("Size", {x}).to_ints(), (Ints{6}));
  EXPECT_EQ(run1("DepthToSpace", {int_tensor({1, 4, 1, 2}, {0, 1, 2, 3, 4, 5, 6, 7})}, {{"blocksize", int64_t{2}}}).to_ints(),
            (Ints{0, 2, 1, 3, 4, 6, 5, 7}));
  EXPECT_EQ(run1("Range", {Tensor::scalar<int64_t>(5), Tensor::scalar<int64_t>(-1), Tensor::scalar<int64_t>(-2)}).to_ints(), (Ints{5, 3, 1}));
  EXPECT_EQ(values(run1("ConstantOfShape", {ints({2})}, {{"value", Tensor::of<float>({1}, {1.5f})}})), (std::vector<double>{1.5, 1.5}));
  EXPECT_EQ(run1("Constant", {}, {{"value_ints", Ints{3, -4}}}).to_ints(), (Ints{3, -4}));
  EXPECT_EQ(run1("Reshape", {x, ints({0, -1, 1})}).shape(), (Shape{2, 3, 1}));
  EXPECT_EQ(run1("Reshape", {int_tensor({0, 3}, {}), ints({3, 0})}, {{"allowzero", int64_t{1}}}).shape(), (Shape{3, 0}));
}

TEST(Indexing, SmallResults) {
  const Tensor x = int_tensor({2, 3}, {0, 1, 2, 3, 4, 5});
  EXPECT_EQ(run1("Gather", {x, Tensor::scalar<int64_t>(-1)}, {{"axis", int64_t{1}}}).to_ints(), (Ints{2, 5}));
  EXPECT_EQ(run1("ScatterElements", {ints({1, 2, 3}), ints({0, 0, -1}), ints({5, 6, 7})}).to_ints(), (Ints{6, 2, 7}));
  EXPECT_EQ(run1("ScatterElements", {ints({1, 2, 3}), ints({0, 0, -1}), ints({5, 6, 1})}, {{"reduction", std::string("max")}}).to_ints(),
            (Ints{6, 2, 3}));
  EXPECT_EQ(run1("ScatterND", {ints({1, 2, 3}), int_tensor({2, 1}, {1, 1}), ints({5, 6})}, {{"reduction", std::string("mul")}}).to_ints(),
            (Ints{1, 60, 3}));
  EXPECT_EQ(run1("OneHot", {ints({1, -1, 9}), Tensor::scalar<int64_t>(3), ints({0, 1})}).to_ints(), (Ints{0, 1, 0, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(run1("OneHot", {ints({1, 0}), Tensor::scalar<int64_t>(2), ints({0, 1})}, {{"axis", int64_t{0}}}).to_ints(), (Ints{0, 1, 1, 0}));
  EXPECT_EQ(run1("NonZero", {int_tensor({2, 2}, {0, 3, 4, 0})}).to_ints(), (Ints{0, 1, 1, 0}));
  EXPECT_EQ(run1("NonZero", {int_tensor({2}, {0, 0})}).shape(), (Shape{1, 0}));
}

// --- inference -----------------------------------------------------------------------------------------

TEST(ShapeArithmetic, SymbolsFlowThroughShapeGatherConcatReshape) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("batch"), g.symbol("time"), 8});
  const ValueId shape = rw.emit("Shape", {x});
  const ValueId batch = rw.emit("Gather", {shape, rw.add_constant("zero", Tensor::scalar<int64_t>(0))});
  const ValueId row = rw.emit("Unsqueeze", {batch, rw.add_constant("axes", ints({0}))});
  const ValueId tail = rw.add_constant("tail", ints({-1, 4, 2}));
  const ValueId target = rw.emit("Concat", {row, tail}, {{"axis", int64_t{0}}});
  EXPECT_EQ(g.type_string(rw.emit("Reshape", {x, target})), "f32[batch,time,4,2]");
  const ValueId two = rw.emit("Slice", {shape, rw.add_constant("s", ints({0})), rw.add_constant("e", ints({-1}))});
  const ValueId flat = rw.emit("ConstantOfShape", {two});
  EXPECT_EQ(g.type_string(flat), "f32[batch,time]");
  EXPECT_EQ(g.type_string(rw.emit("Expand", {rw.add_constant("one", Tensor::scalar<float>(1)), two})), "f32[batch,time]");
  const ValueId count = rw.emit("Range", {rw.add_constant("r0", Tensor::scalar<int64_t>(0)), batch, rw.add_constant("r1", Tensor::scalar<int64_t>(1))});
  EXPECT_EQ(g.type_string(count), "i64[batch]");
  EXPECT_EQ(g.type_string(rw.emit("Flatten", {x}, {{"axis", int64_t{2}}})), "f32[?,8]");
  verify_graph(g);
}

void expect_bad(const std::string& op, std::vector<Tensor> inputs, Attributes attrs, const std::string& reason, size_t outputs = 1) {
  try {
    run_op({op, std::move(inputs), std::move(attrs), outputs});
    FAIL() << op << " was accepted; expected: " << reason;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kBadData) << e.what();
    EXPECT_NE(std::string(e.what()).find(reason), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find(op), std::string::npos) << e.what();
  }
}

TEST(BadInput, ShapesAndIndicesNameTheReason) {
  const Tensor x = int_tensor({2, 3}, {0, 1, 2, 3, 4, 5});
  expect_bad("Reshape", {x, ints({4, -1})}, {}, "6 elements do not divide by 4");
  expect_bad("Reshape", {x, ints({5})}, {}, "cannot reshape 2x3 into 5");
  expect_bad("Reshape", {x, ints({-1, -1})}, {}, "more than one -1");
  expect_bad("Reshape", {x, ints({-2})}, {}, "target shape holds -2");
  expect_bad("Squeeze", {x, ints({0})}, {}, "axis 0 has size 2");
  expect_bad("Transpose", {x}, {{"perm", Ints{0, 0}}}, "names axis 0 twice");
  expect_bad("Transpose", {x}, {{"perm", Ints{0}}}, "1 entries for rank 2");
  expect_bad("Concat", {x, ints({1})}, {{"axis", int64_t{0}}}, "differ in rank");
  expect_bad("Concat", {x, int_tensor({1, 2}, {1, 2})}, {{"axis", int64_t{0}}}, "has size 2 on axis 1");
  expect_bad("Split", {x, ints({1, 1})}, {{"axis", int64_t{1}}}, "parts add up to 2", 2);
  expect_bad("Slice", {x, ints({0}), ints({1}), ints({0}), ints({0})}, {}, "step is zero");
  expect_bad("Slice", {x, ints({0}), ints({1}), ints({7})}, {}, "axis 7");
  expect_bad("Expand", {x, ints({4, 3})}, {}, "cannot broadcast");
  expect_bad("Tile", {x, ints({2})}, {}, "1 repeats for rank 2");
  expect_bad("Tile", {x, Tensor::of<float>({2}, {1, 1})}, {}, "has type f32");
  expect_bad("DFT", {Tensor::of<float>({4}, {1, 2, 3, 4})}, {}, "the signal has rank 1");
  expect_bad("Pad", {x, ints({1, 1})}, {}, "2 pads for 2 axes");
  expect_bad("Pad", {x, ints({-2, 0, -1, 0})}, {}, "below zero");
  expect_bad("Gather", {x, ints({2})}, {}, "index 2 at position 0 is outside [-2, 2)");
  expect_bad("GatherElements", {x, int_tensor({1, 1}, {-3})}, {}, "outside [-2, 2)");
  expect_bad("GatherND", {x, int_tensor({1, 2}, {0, 3})}, {}, "index 3 of tuple 0");
  expect_bad("ScatterND", {x, int_tensor({1, 1}, {5}), int_tensor({1, 3}, {1, 2, 3})}, {}, "outside");
  expect_bad("ScatterElements", {x, int_tensor({1, 1}, {0}), int_tensor({1, 2}, {0, 0})}, {}, "updates are 1x2");
  expect_bad("Range", {Tensor::scalar<int64_t>(0), Tensor::scalar<int64_t>(1), Tensor::scalar<int64_t>(0)}, {}, "step is zero");
  expect_bad("ConstantOfShape", {ints({-1})}, {}, "negative dimension");
  expect_bad("DepthToSpace", {int_tensor({1, 3, 1, 1}, {1, 2, 3})}, {{"blocksize", int64_t{2}}}, "does not divide");
}

}  // namespace
}  // namespace ds::test
