#include "libds/passes/sparsify.h"

#include <gtest/gtest.h>

#include "tests/support/op_check.h"

namespace ds {
namespace {

Tensor f32(Shape shape, std::initializer_list<float> values) { return Tensor::of<float>(std::move(shape), values); }
std::vector<float> floats(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.numel()}; }

TEST(Sparsify, ZeroesTheSmallestMagnitudesWhateverTheirSign) {
  const std::vector<Tensor> w = {f32({2, 3}, {-0.1f, 5.0f, 0.2f, -3.0f, 0.0f, 1.0f})};
  const std::vector<Tensor> m = magnitude_masks(w, 0.5, SparsityScope::kGlobal);
  EXPECT_EQ(floats(m[0]), (std::vector<float>{0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(floats(masked(w[0], m[0])), (std::vector<float>{0, 5, 0, -3, 0, 1}));
}

TEST(Sparsify, GlobalAndLayerScopeDiffer) {
  const std::vector<Tensor> w = {f32({1, 4}, {1, 2, 3, 4}), f32({1, 4}, {10, 20, 30, 40})};
  const std::vector<Tensor> global = magnitude_masks(w, 0.5, SparsityScope::kGlobal);
  EXPECT_EQ(floats(global[0]), (std::vector<float>{0, 0, 0, 0}));
  EXPECT_EQ(floats(global[1]), (std::vector<float>{1, 1, 1, 1}));
  const std::vector<Tensor> layer = magnitude_masks(w, 0.5, SparsityScope::kLayer);
  EXPECT_EQ(floats(layer[0]), (std::vector<float>{0, 0, 1, 1}));
  EXPECT_EQ(floats(layer[1]), (std::vector<float>{0, 0, 1, 1}));
}

TEST(Sparsify, TiesGoToTheLowerIndexAndTheCountIsExact) {
  const std::vector<Tensor> w = {f32({1, 3}, {1, -1, 1}), f32({1, 4}, {1, 0.5f, -1, 1})};
  const std::vector<Tensor> m = magnitude_masks(w, 4.0 / 7.0, SparsityScope::kGlobal);
  EXPECT_EQ(floats(m[0]), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(floats(m[1]), (std::vector<float>{1, 0, 1, 1}));
}

TEST(Sparsify, EveryTargetIsMetExactlyInEveryType) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kF16, DType::kBF16}) {
    const std::vector<Tensor> w = {test::random_tensor({7, 13}, 1).cast(dtype), test::random_tensor({5, 3, 3, 3}, 2).cast(dtype)};
    const int64_t n = 7 * 13 + 5 * 27;
    for (const double target : {0.0, 0.01, 0.3, 0.7, 0.999, 1.0}) {
      const std::vector<Tensor> m = magnitude_masks(w, target, SparsityScope::kGlobal);
      EXPECT_EQ(m[0].dtype(), dtype);
      EXPECT_EQ(count_zeros(m[0]) + count_zeros(m[1]), std::llround(target * n)) << dtype_name(dtype) << " " << target;
    }
  }
}

TEST(Sparsify, ZerosAreKeptByTheMasksOfAPrunedWeight) {
  const std::vector<Tensor> w = {f32({2, 2}, {0, 1, -0.0f, 2})};
  EXPECT_EQ(floats(zero_masks(w)[0]), (std::vector<float>{0, 1, 0, 1}));
}

TEST(Sparsify, NanAndSillyTargetsAreBadData) {
  const std::vector<Tensor> w = {f32({1, 2}, {1, std::nanf("")})};
  EXPECT_THROW(magnitude_masks(w, 0.5, SparsityScope::kGlobal), Error);
  const std::vector<Tensor> fine = {f32({1, 2}, {1, 2})};
  EXPECT_THROW(magnitude_masks(fine, 1.5, SparsityScope::kGlobal), Error);
}

TEST(Sparsify, OnlyWeightsOfLayersArePrunable) {
  Graph g;
  Rewriter rw(g);
  const ValueId x = rw.add_input("x", DType::kF32, {2, 3, 4, 4});
  const auto weight = [&](const char* name, Shape shape) { return rw.add_constant(name, test::random_tensor(std::move(shape), 3).cast(DType::kF32)); };
  const ValueId conv = rw.emit("Conv", {x, weight("conv.w", {8, 3, 3, 3}), weight("conv.b", {8})}, {}, "conv");
  const ValueId flat = rw.emit("Flatten", {conv}, {{"axis", int64_t{1}}});
  const ValueId transposed = rw.emit("Transpose", {weight("fc.w", {5, 32})}, {}, "t");
  const ValueId fc = rw.emit("MatMul", {flat, transposed}, {}, "fc");
  const ValueId table = weight("table", {9, 5});
  const ValueId row = rw.emit("Gather", {table, rw.add_constant("index", Tensor::of<int64_t>({1}, {4}))});
  const ValueId tied = rw.emit("MatMul", {rw.emit("Add", {fc, row}), rw.emit("Transpose", {table})}, {}, "tied");
  rw.add_output(tied);
  const auto names = [&](const std::vector<std::string>& exclude) {
    std::string list;
    for (const WeightOperand& w : prunable_weights(g, exclude)) list += g.value(w.weight).name + " ";
    return list;
  };
  EXPECT_EQ(names({}), "conv.w fc.w ");
  EXPECT_EQ(names({"conv*"}), "fc.w ");
  EXPECT_EQ(names({"fc"}), "conv.w ");  // by the node's name
}

}  // namespace
}  // namespace ds
