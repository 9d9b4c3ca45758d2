#include "libds/ir/rewriter.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

Attributes eq(const char* text) { return {{"equation", std::string(text)}}; }

const bool added = add_cases({
    {"Einsum", {random_tensor({5, 7}, 1), random_tensor({7, 9}, 2)}, eq("ij,jk->ik"), 1, {}, 1e-5, "matmul"},
    {"Einsum", {random_tensor({5, 7}, 1), random_tensor({9, 7}, 2)}, eq("ij,kj->ki"), 1, {}, 1e-5, "swapped"},
    {"Einsum", {random_tensor({2, 5, 3, 7}, 1), random_tensor({2, 6, 3, 7}, 2)}, eq("bqhd,bkhd->bhqk"), 1, {}, 1e-5, "heads"},
    {"Einsum", {random_tensor({2, 3, 5, 6}, 1), random_tensor({2, 6, 3, 7}, 2)}, eq("bhqk,bkhd->bqhd"), 1, {}, 1e-5, "heads_back"},
    {"Einsum", {random_tensor({4, 5, 3}, 1)}, eq("... j k -> k...j"), 1, {}, 1e-5, "transpose"},
    {"Einsum", {random_tensor({4, 5, 3}, 1)}, eq("bij->b"), 1, {}, 1e-5, "sum"},
    {"Einsum", {random_tensor({2, 4, 4}, 1)}, eq("...ii->...i"), 1, {}, 1e-5, "diagonal"},
    {"Einsum", {random_tensor({4, 4}, 1)}, eq("ii"), 1, {}, 1e-5, "trace"},
    {"Einsum", {random_tensor({4}, 1), random_tensor({4}, 2)}, eq("i,i"), 1, {}, 1e-5, "dot"},
    {"Einsum", {random_tensor({4}, 1), random_tensor({3}, 2)}, eq("i,j"), 1, {}, 1e-5, "outer"},
    {"Einsum", {random_tensor({5, 2, 3}, 1), random_tensor({5, 4, 3}, 2)}, eq("bn...,bm...->...bnm"), 1, {}, 1e-5, "ellipsis"},
    {"Einsum", {random_tensor({2, 1, 4, 6}, 1), random_tensor({1, 3, 6, 5}, 2)}, eq("...ij,...jk"), 1, {}, 1e-5, "broadcast"},
    {"Einsum", {random_tensor({5, 7}, 1), random_tensor({7, 6, 3}, 2)}, eq("ij,jkl->ik"), 1, {}, 1e-5, "summed_in_one"},
    {"Einsum", {random_tensor({3, 4}, 1), random_tensor({4, 5}, 2), random_tensor({5, 6}, 3)}, eq("ab,bc,cd->ad"), 1, {}, 1e-5, "chain"},
    {"Einsum", {random_tensor({3, 4, 5}, 1), random_tensor({6, 4}, 2), random_tensor({6, 5}, 3)}, eq("bij,oi,oj->bo"), 1, {}, 1e-5, "bilinear"},
    {"Einsum", {random_tensor({1, 4}, 1), random_tensor({5, 4}, 2)}, eq("ij,ij->j"), 1, {}, 1e-5, "one_is_repeated"},
    {"Einsum", {random_tensor({}, 1), random_tensor({2, 3}, 2)}, eq(",ij->ji"), 1, {}, 1e-5, "scalar"},
    {"Einsum", {random_tensor({33, 65}, 1), random_tensor({65, 17, 9}, 2)}, eq("ab,bcd->dca"), 1, {-1}, 1e-5, "result_transposed"},
});

Tensor run1(std::vector<Tensor> inputs, const char* text) { return run_op({"Einsum", std::move(inputs), eq(text)})[0]; }

TEST(Einsum, IntegersWrapAround) {
  const Tensor a = Tensor::of<int32_t>({2, 2}, {1, -2, 3, 4}), b = Tensor::of<int32_t>({2}, {1 << 30, 1});
  const std::vector<int64_t> y = run1({a, b}, "ij,j->i").to_ints();
  EXPECT_EQ(y, (std::vector<int64_t>{(1 << 30) - 2, -(int64_t{1} << 30) + 4}));
  const Tensor small = Tensor::of<int8_t>({3}, {100, 27, 1});
  EXPECT_EQ(run1({small}, "i->").to_ints()[0], -128);
}

TEST(Einsum, EmptySumIsZero) {
  const Tensor y = run1({Tensor::zeros(DType::kF64, {2, 0}), Tensor::zeros(DType::kF64, {0, 3})}, "ij,jk->ik");
  EXPECT_EQ(y.shape(), (Shape{2, 3}));
  for (double v : y.to_doubles()) EXPECT_EQ(v, 0.0);
}

TEST(Einsum, WrongEquationsAreBadData) {
  const Tensor m = random_tensor({2, 3}, 1);
  for (const char* text : {"ijk->i", "ij->k", "ij->ii", "i.j->ij", "ij,jk->ik", "...->", "ij...,->i", "i j-", "......->..."})
    EXPECT_THROW(run1({m}, text), Error) << text;
  EXPECT_THROW(run1({m, m}, "ij,jk->ik"), Error);      // 3 against 2
  EXPECT_THROW(run1({m, m}, "...,...j->..."), Error);  // two axes and one
}

TEST(Einsum, SymbolsAreKept) {
  Graph g;
  Rewriter rw(g);
  const Dim b = g.symbol("b");
  const ValueId x = rw.add_input("x", DType::kF32, {b, 5, 7}), z = rw.add_input("z", DType::kF32, {1, 7, g.symbol("n")});
  const ValueId y = rw.emit("Einsum", {x, z}, eq("...ij,...jk->...ik"), "y");
  rw.add_output(y);
  EXPECT_EQ(g.type_string(y), "f32[b,5,n]");
}

}  // namespace
}  // namespace ds::test
