// Products with weights of 4 and 8 bits behind a DequantizeLinear: one operator that reads them packed, with the result
// of the separate nodes, which is computed in f64 here.
#include "libds/passes/fuse_weight_only.h"

#include <gtest/gtest.h>

#include "libds/passes/fuse_qdq.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

std::map<std::string, int> count_ops(const Graph& g) {
  std::map<std::string, int> counts;
  for (NodeId id : g.order()) ++counts[g.node(id).op];
  return counts;
}

struct Format {
  DType dtype = DType::kI8;
  int64_t block = 0;    // 0: a scale a column, -1: one scale
  bool zero = false;
  enum Form { kMatMul, kGemm, kGemmTurned, kTransposed } form = kMatMul;
  bool add = false;     // of a bias, behind a MatMul
};

bool turned(Format::Form form) { return form == Format::kGemmTurned || form == Format::kTransposed; }

struct Case {
  std::shared_ptr<Graph> g = std::make_shared<Graph>();
  Tensor x;
  std::vector<double> expected;
};

Case make(const Format& f, int64_t rows, int64_t depth, int64_t columns) {
  Case c;
  Rewriter rw(*c.g);
  const bool turn = turned(f.form), is_signed = f.dtype == DType::kI8 || f.dtype == DType::kI4, four = is_packed(f.dtype);
  const double low = is_signed ? (four ? -8 : -128) : 0, high = low + (four ? 15 : 255);
  const Shape shape = turn ? Shape{columns, depth} : Shape{depth, columns};
  const int64_t depth_axis = turn ? 1 : 0, blocks = f.block > 0 ? (depth + f.block - 1) / f.block : 1;
  const Shape scale_shape = f.block < 0 ? Shape{} : f.block == 0 ? Shape{columns} : turn ? Shape{columns, blocks} : Shape{blocks, columns};
  const DType byte = is_signed ? DType::kI8 : DType::kU8;
  const auto stored = [&](Shape s, uint64_t seed) {
    const Tensor t = random_tensor(std::move(s), seed, low, high).cast(byte);
    return four ? t.pack_as(f.dtype) : t;
  };
  const Tensor w = stored(shape, 11), scale = random_tensor(scale_shape, 12, 0.01, 0.1).cast(DType::kF32), zero = stored(scale_shape, 13);
  const Tensor bias = random_tensor({columns}, 14).cast(DType::kF32);
  c.x = random_tensor({rows, depth}, 15).cast(DType::kF32);

  const ValueId x = rw.add_input("x", DType::kF32, {rows, depth});
  const ValueId packed = rw.add_constant("w", w), step = rw.add_constant("s", scale);
  std::vector<ValueId> inputs = {packed, step};
  if (f.zero) inputs.push_back(rw.add_constant("z", zero));
  Attributes attrs = {{"axis", f.block > 0 ? depth_axis : 1 - depth_axis}};
  if (f.block > 0) attrs["block_size"] = f.block;
  ValueId real = rw.emit("DequantizeLinear", inputs, attrs);
  if (f.form == Format::kTransposed) real = rw.emit("Transpose", {real}, {{"perm", std::vector<int64_t>{1, 0}}});
  const bool gemm = f.form == Format::kGemm || f.form == Format::kGemmTurned;
  ValueId y = gemm ? rw.emit("Gemm", {x, real, rw.add_constant("b", bias)}, {{"transB", static_cast<int64_t>(f.form == Format::kGemmTurned)}})
                   : rw.emit("MatMul", {x, real});
  if (f.add) y = rw.emit("Add", {rw.add_constant("b", bias), y});
  rw.add_output(y);

  const std::vector<double> xv = c.x.to_doubles(), wv = w.unpacked().to_doubles(), sv = scale.to_doubles(), zv = zero.unpacked().to_doubles(), bv = bias.to_doubles();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t n = 0; n < columns; ++n) {
      double sum = gemm || f.add ? bv[static_cast<size_t>(n)] : 0;
      for (int64_t k = 0; k < depth; ++k) {
        const int64_t b = f.block > 0 ? k / f.block : 0;
        const auto at = static_cast<size_t>(f.block < 0 ? 0 : f.block == 0 ? n : turn ? n * blocks + b : b * columns + n);
        sum += xv[static_cast<size_t>(r * depth + k)] * (wv[static_cast<size_t>(turn ? n * depth + k : k * columns + n)] - (f.zero ? zv[at] : 0)) * sv[at];
      }
      c.expected.push_back(sum);
    }
  return c;
}

std::shared_ptr<Graph> fused(const Case& c) {
  auto copy = std::make_shared<Graph>(*c.g);
  Rewriter rw(*copy);
  PassContext context{evaluate_node};
  EXPECT_FALSE(fuse_qdq(rw, context));
  EXPECT_TRUE(fuse_weight_only(rw, context));
  EXPECT_FALSE(dequantize_weights(rw, context));
  verify_graph(*copy);
  return copy;
}

void check(const Format& f, int64_t rows, int64_t depth, int64_t columns) {
  const Case c = make(f, rows, depth, columns);
  const auto g = fused(c);
  EXPECT_EQ(count_ops(*g), (std::map<std::string, int>{{"WeightOnlyMatMul", 1}}));
  const std::vector<double> got = make_eager_executor(g, CompileOptions{})->run(std::vector<Tensor>{c.x})[0].to_doubles();
  ASSERT_EQ(got.size(), c.expected.size());
  double most = 1;
  for (double v : c.expected) most = std::max(most, std::abs(v));
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], c.expected[i], 2e-6 * most) << dtype_name(f.dtype) << " block " << f.block << " zero " << f.zero << " form " << f.form << " " << rows << "x" << depth << "x" << columns;
}

TEST(FuseWeightOnly, EveryFormat) {
  for (DType dtype : {DType::kI8, DType::kU8, DType::kI4, DType::kU4})
    for (int64_t block : {-1, 0, 6, 16, 32, 128})
      for (bool zero : {false, true})
        for (auto form : {Format::kMatMul, Format::kGemm, Format::kGemmTurned, Format::kTransposed})
          check({dtype, block, zero, form, form == Format::kTransposed}, 3, 75, 21);
}

// One row and up to the most that one sweep takes, one more, and pieces of depth and rows that tiles are cut into.
TEST(FuseWeightOnly, EveryNumberOfRows) {
  for (DType dtype : {DType::kI8, DType::kU4})
    for (int64_t block : {0, 20, 32}) {
      for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 31}) check({dtype, block, true, Format::kMatMul, true}, rows, 301, 37);
      check({dtype, block, true}, 300, 531, 150);
      check({dtype, block, false}, 1, 1, 1);
      check({dtype, block, false}, 12, 7, 17);
    }
}

TEST(FuseWeightOnly, WhatItCannotTakeStays) {
  const auto stays = [](const Format& f, const std::function<void(Case&)>& change) {
    Case c = make(f, 3, 32, 8);
    change(c);
    Rewriter rw(*c.g);
    PassContext context{evaluate_node};
    EXPECT_FALSE(fuse_weight_only(rw, context));
  };
  const auto node = [](Case& c, std::string_view op) {
    for (NodeId id : c.g->order())
      if (c.g->node(id).is(op)) return id;
    return kNone;
  };
  // Scales along the depth.
  stays({DType::kI4, 0}, [&](Case& c) {
    Rewriter rw(*c.g);
    const NodeId dq = node(c, "DequantizeLinear");
    rw.set_attr(dq, "axis", int64_t{0});
    rw.set_input(dq, 1, rw.add_constant("rows", random_tensor({32}, 3, 0.1, 1).cast(DType::kF32)));
  });
  // Factors of a Gemm.
  stays({DType::kI8, 0, false, Format::kGemm}, [&](Case& c) { Rewriter(*c.g).set_attr(node(c, "Gemm"), "alpha", 0.5f); });
  // Blocks of an odd number of nibbles.
  stays({DType::kU4, 5}, [](Case&) {});
}

// The Add stays where somebody else reads the product.
TEST(FuseWeightOnly, BiasOnlyWhereNobodyElseReads) {
  Case c = make({DType::kI8, 0, false, Format::kMatMul, true}, 3, 32, 8);
  Rewriter rw(*c.g);
  for (NodeId id : c.g->order())
    if (c.g->node(id).is("MatMul")) rw.add_output(c.g->node(id).outputs[0]);
  EXPECT_EQ(count_ops(*fused(c)), (std::map<std::string, int>{{"Add", 1}, {"WeightOnlyMatMul", 1}}));
}

}  // namespace
}  // namespace ds::test
