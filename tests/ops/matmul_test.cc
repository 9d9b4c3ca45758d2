#include "libds/ir/rewriter.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

Attributes flags(int64_t a, int64_t b) { return {{"trans_a", a}, {"trans_b", b}}; }

const bool added = add_cases({
    {"MatMul", {random_tensor({5, 7}, 1), random_tensor({7, 9}, 2)}},
    {"MatMul", {random_tensor({67, 131}, 1), random_tensor({131, 71}, 2)}, {}, 1, {-1}, 1e-5, "several_blocks"},
    {"MatMul", {random_tensor({2, 3, 4}, 1), random_tensor({4, 5}, 2)}, {}, 1, {}, 1e-5, "one_on_the_right"},
    {"MatMul", {random_tensor({2, 1, 3, 4}, 1), random_tensor({3, 4, 5}, 2)}, {}, 1, {}, 1e-5, "broadcast"},
    {"MatMul", {random_tensor({3, 4}, 1), random_tensor({2, 4, 5}, 2)}, {}, 1, {}, 1e-5, "one_on_the_left"},
    {"MatMul", {random_tensor({2, 3, 4, 5}, 1), random_tensor({2, 3, 5, 6}, 2)}, {}, 1, {}, 1e-5, "batched"},
    {"MatMul", {random_tensor({4}, 1), random_tensor({4, 5}, 2)}, {}, 1, {}, 1e-5, "row"},
    {"MatMul", {random_tensor({3, 4}, 1), random_tensor({4}, 2)}, {}, 1, {}, 1e-5, "column"},
    {"MatMul", {random_tensor({4}, 1), random_tensor({4}, 2)}, {}, 1, {}, 1e-5, "dot"},
    {"MatMul", {random_tensor({4}, 1), random_tensor({2, 4, 3}, 2)}, {}, 1, {}, 1e-5, "row_batched"},
    {"MatMul", {random_tensor({2, 3, 4}, 1), random_tensor({4}, 2)}, {}, 1, {}, 1e-5, "column_batched"},
    {"BatchMatMul", {random_tensor({2, 4, 3}, 1), random_tensor({2, 4, 5}, 2)}, flags(1, 0)},
    {"BatchMatMul", {random_tensor({2, 3, 4}, 1), random_tensor({2, 5, 4}, 2)}, flags(0, 1), 1, {}, 1e-5, "right"},
    {"BatchMatMul", {random_tensor({1, 4, 3}, 1), random_tensor({2, 5, 4}, 2)}, flags(1, 1), 1, {}, 1e-5, "both"},
    {"BatchMatMul", {random_tensor({3, 2, 4}, 1), random_tensor({5, 4}, 2)}, flags(0, 1), 1, {}, 1e-5, "one_on_the_right"},
    {"BatchMatMul", {random_tensor({3, 4, 2}, 1), random_tensor({4, 5}, 2)}, flags(1, 0), 1, {}, 1e-5, "one_for_all"},
    {"Gemm", {random_tensor({5, 7}, 1), random_tensor({7, 9}, 2), random_tensor({9}, 3)}},
    {"Gemm", {random_tensor({7, 5}, 1), random_tensor({9, 7}, 2), random_tensor({5, 9}, 3)},
     {{"transA", int64_t{1}}, {"transB", int64_t{1}}, {"alpha", 0.5f}, {"beta", -2.0f}}, 1, {}, 1e-5, "scaled"},
    {"Gemm", {random_tensor({5, 7}, 1), random_tensor({9, 7}, 2), random_tensor({5, 1}, 3)}, {{"transB", int64_t{1}}}, 1, {}, 1e-5, "column"},
    {"Gemm", {random_tensor({7, 5}, 1), random_tensor({7, 9}, 2), random_tensor({}, 3)}, {{"transA", int64_t{1}}}, 1, {}, 1e-5, "scalar"},
    {"Gemm", {random_tensor({1, 33}, 1), random_tensor({10, 33}, 2), random_tensor({1, 10}, 3)}, {{"transB", int64_t{1}}}, 1, {}, 1e-5, "one_row"},
    {"Gemm", {random_tensor({5, 7}, 1), random_tensor({7, 9}, 2), random_tensor({9}, 3)}, {{"beta", 0.0f}}, 1, {0, 1}, 1e-5, "ignored_c"},
});

std::string type_of(Dims a, Dims b) {
  Graph g;
  Rewriter rw(g);
  for (Dims* dims : {&a, &b})
    for (Dim& d : *dims)
      if (!d.known()) d = g.symbol(d == Dim::symbol(0) ? "a" : "b");
  const ValueId y = rw.emit("MatMul", {rw.add_input("x", DType::kF32, a), rw.add_input("z", DType::kF32, b)}, {}, "y");
  rw.add_output(y);
  return g.type_string(y);
}

TEST(MatMul, GemmOfIntegers) {
  const std::vector<int64_t> a = {1, -2, 3, 4, 0, -6}, b = {7, 8, -9, 1, 2, 3}, bias = {5, -1};  // [2, 3] [3, 2] [2]
  const Attributes whole = {{"alpha", 2.0f}, {"beta", -3.0f}};
  for (DType dtype : {DType::kI32, DType::kI64, DType::kU32, DType::kU64}) {
    const auto given = [&](Shape shape, const std::vector<int64_t>& x) {
      Tensor t = Tensor::empty(DType::kI64, std::move(shape));
      std::copy(x.begin(), x.end(), t.mutable_data<int64_t>());
      return t.cast(dtype);
    };
    const Tensor left = given({2, 3}, a), right = given({3, 2}, b), row = given({2}, bias);
    EXPECT_EQ(run_op({"Gemm", {left, right}})[0].cast(DType::kI64).to_ints(), given({4}, {31, 15, 16, 14}).cast(DType::kI64).to_ints());
    EXPECT_EQ(run_op({"Gemm", {left, right, row}, whole})[0].cast(DType::kI64).to_ints(), given({4}, {47, 33, 17, 31}).cast(DType::kI64).to_ints());
    EXPECT_THROW(run_op({"Gemm", {left, right}, {{"alpha", 0.5f}}}), Error);
  }
}

TEST(MatMulInference, FollowsNumpy) {
  EXPECT_EQ(type_of({Dim::symbol(0), 5, Dim::symbol(1)}, {Dim::symbol(1), 3}), "f32[a,5,3]");
  EXPECT_EQ(type_of({4}, {2, 4, 3}), "f32[2,3]");
  EXPECT_EQ(type_of({4}, {4}), "f32[]");
  EXPECT_THROW(type_of({2, 3}, {4, 5}), Error);
  EXPECT_THROW(type_of({2, 3, 4}, {3, 4, 5}), Error);
}

TEST(MatMul, EmptyInnerDimensionGivesZeros) {
  const OpCase c{"MatMul", {Tensor::zeros(DType::kF64, {3, 0}), Tensor::zeros(DType::kF64, {0, 2})}};
  const Tensor y = run_op(c, DType::kF32).at(0);
  EXPECT_EQ(y.shape(), (Shape{3, 2}));
  for (double v : y.to_doubles()) EXPECT_EQ(v, 0.0);
}

}  // namespace
}  // namespace ds::test
