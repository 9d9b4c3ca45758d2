// Quantized graphs rewritten to 8-bit operators: the same results, and nothing left in float in between.
#include "libds/passes/fuse_qdq.h"

#include <gtest/gtest.h>

#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

// Builds graphs of Q/DQ pairs.
struct Builder {
  std::shared_ptr<Graph> g = std::make_shared<Graph>();
  Rewriter rw{*g};
  uint64_t seed = 1;

  ValueId scalar(float x) { return rw.add_constant("scale", Tensor::scalar<float>(x)); }
  ValueId zero(int z) { return rw.add_constant("zero", Tensor::scalar<uint8_t>(static_cast<uint8_t>(z))); }
  ValueId quantize(ValueId x, float scale, int z) { return rw.emit("QuantizeLinear", {x, scalar(scale), zero(z)}); }
  ValueId dequantize(ValueId x, float scale, int z) { return rw.emit("DequantizeLinear", {x, scalar(scale), zero(z)}); }
  ValueId pair(ValueId x, float scale, int z) { return dequantize(quantize(x, scale, z), scale, z); }
  ValueId bytes(Shape shape) {
    const Tensor t = random_tensor(std::move(shape), ++seed, -127, 127).cast(DType::kI8);
    return rw.add_constant("w", t);
  }
  // Per-channel 8-bit weights behind a DequantizeLinear.
  ValueId weights(Shape shape, int64_t axis, float step) {
    const int64_t channels = shape[static_cast<size_t>(axis)];
    const ValueId scale = rw.add_constant("w_scale", random_tensor({channels}, ++seed, step / 2, step).cast(DType::kF32));
    return rw.emit("DequantizeLinear", {bytes(std::move(shape)), scale}, {{"axis", axis}});
  }
  ValueId real_bias(int64_t channels) { return rw.add_constant("bias", random_tensor({channels}, ++seed).cast(DType::kF32)); }
};

std::vector<Tensor> run(const std::shared_ptr<Graph>& g, const std::vector<Tensor>& inputs) {
  CompileOptions options;
  return make_eager_executor(g, options)->run(inputs);
}

std::shared_ptr<Graph> fused(const std::shared_ptr<Graph>& g) {
  auto copy = std::make_shared<Graph>(*g);
  Rewriter rw(*copy);
  PassContext context{evaluate_node};
  EXPECT_TRUE(fuse_qdq(rw, context));
  dequantize_weights(rw, context);
  verify_graph(*copy);
  return copy;
}

std::map<std::string, int> count_ops(const Graph& g) {
  std::map<std::string, int> counts;
  for (NodeId id : g.order()) ++counts[g.node(id).op];
  return counts;
}

TEST(FuseQdq, QLinearChainIsBitForBitTheSame) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {2, 3, 9, 7});
  const ValueId q = b.quantize(x, 0.02f, 120);
  const auto w_scale = [&](int64_t m) { return b.rw.add_constant("ws", random_tensor({m}, ++b.seed, 0.001, 0.01).cast(DType::kF32)); };
  const ValueId w_zero = b.rw.add_constant("wz", Tensor::scalar<int8_t>(0));
  const ValueId bias = b.rw.add_constant("b", random_tensor({10}, 77, -3000, 3000).cast(DType::kI32));
  const ValueId y = b.rw.emit("QLinearConv", {q, b.scalar(0.02f), b.zero(120), b.bytes({10, 3, 3, 3}), w_scale(10), w_zero, b.scalar(0.04f), b.zero(90), bias},
                              {{"pads", Ints{1, 1, 1, 1}}, {"strides", Ints{2, 1}}});
  const ValueId z = b.rw.emit("QLinearConv", {y, b.scalar(0.04f), b.zero(90), b.bytes({6, 5, 2, 2}), w_scale(6), w_zero, b.scalar(0.1f), b.zero(128)},
                              {{"group", int64_t{2}}});
  b.rw.add_output(z);
  const std::vector<Tensor> input = {random_tensor({2, 3, 9, 7}, 5, -2.5, 2.5).cast(DType::kF32)};
  const auto f = fused(b.g);
  EXPECT_TRUE(run(f, input)[0].equal_bits(run(b.g, input)[0]));
  const auto ops = count_ops(*f);
  EXPECT_EQ(ops.at("QConv"), 2);
  EXPECT_EQ(ops.at("Transpose"), 2);
  EXPECT_EQ(ops.count("QLinearConv"), 0u);
}

TEST(FuseQdq, ResidualNetworkStaysInBytes) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {2, 3, 13, 12});
  ValueId h = b.pair(x, 0.03f, 128);
  h = b.rw.emit("Conv", {h, b.weights({16, 3, 3, 3}, 0, 0.01f), b.real_bias(16)}, {{"pads", Ints{1, 1, 1, 1}}});
  h = b.pair(b.rw.emit("Relu", {h}), 0.1f, 0);
  h = b.pair(b.rw.emit("MaxPool", {h}, {{"kernel_shape", Ints{3, 3}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}}), 0.1f, 0);
  const ValueId skip = h;
  h = b.rw.emit("Conv", {h, b.weights({16, 16, 3, 3}, 0, 0.004f)}, {{"auto_pad", std::string("SAME_UPPER")}});
  h = b.pair(h, 0.2f, 130);
  h = b.pair(b.rw.emit("Relu", {b.rw.emit("Add", {h, skip})}), 0.2f, 3);
  h = b.pair(b.rw.emit("Concat", {h, skip}, {{"axis", int64_t{1}}}), 0.2f, 0);
  h = b.pair(b.rw.emit("GlobalAveragePool", {h}), 0.1f, 0);
  h = b.pair(b.rw.emit("Flatten", {h}), 0.1f, 0);
  h = b.rw.emit("Gemm", {h, b.weights({10, 32}, 0, 0.01f), b.real_bias(10)}, {{"transB", int64_t{1}}});
  b.rw.add_output(h);
  const std::vector<Tensor> input = {random_tensor({2, 3, 13, 12}, 5, -3.5, 3.5).cast(DType::kF32)};
  const auto f = fused(b.g);
  const auto ops = count_ops(*f);
  for (const char* op : {"Conv", "Gemm", "Relu", "Add", "MaxPool", "GlobalAveragePool", "DequantizeLinear"}) EXPECT_EQ(ops.count(op), 0u) << op;
  EXPECT_EQ(ops.at("QuantizeLinear"), 1);
  EXPECT_EQ(ops.at("Transpose"), 2);  // the input's, and that of the 1x1 result of the pool
  // Both round at the same places; a tie that float arithmetic resolves otherwise moves a byte by one.
  EXPECT_LE(relative_error(run(f, input)[0], run(b.g, input)[0]), 0.01);
}

TEST(FuseQdq, MatMulWithBiasAddAndClip) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {2, 5, 24});
  const ValueId h = b.rw.emit("MatMul", {b.pair(x, 0.02f, 128), b.weights({24, 11}, 1, 0.01f)});
  const ValueId sum = b.rw.emit("Add", {b.real_bias(11), h});
  const ValueId y = b.pair(b.rw.emit("Relu", {sum}), 0.03f, 7);
  b.rw.add_output(y);
  const std::vector<Tensor> input = {random_tensor({2, 5, 24}, 5, -2.5, 2.5).cast(DType::kF32)};
  const auto f = fused(b.g);
  EXPECT_EQ(count_ops(*f), (std::map<std::string, int>{{"QuantizeLinear", 1}, {"QMatMul", 1}, {"DequantizeLinear", 1}}));
  const Tensor expected = run(b.g, input)[0];
  const std::vector<double> got = run(f, input)[0].to_doubles(), want = expected.to_doubles();
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 0.0301);
}

TEST(FuseQdq, WhatItCannotTakeStaysAsItIs) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {1, 3, 5, 5});
  const ValueId float_weights = b.rw.add_constant("w", random_tensor({4, 3, 3, 3}, 3).cast(DType::kF32));
  b.rw.add_output(b.rw.emit("Conv", {b.pair(x, 0.03f, 128), float_weights}));
  Rewriter rw(*b.g);
  PassContext context{evaluate_node};
  EXPECT_FALSE(fuse_qdq(rw, context));
  EXPECT_EQ(count_ops(*b.g).at("Conv"), 1);
}

// Weights in blocks, of four or of sixteen bits, and 16-bit floats: the float operators compute.
TEST(FuseQdq, OtherFormatsStayAsTheyAre) {
  const auto check = [](const std::function<ValueId(Builder&, ValueId)>& weights, bool folds) {
    Builder b;
    const ValueId x = b.rw.add_input("x", DType::kF32, {3, 8});
    b.rw.add_output(b.rw.emit("MatMul", {b.pair(x, 0.02f, 128), weights(b, x)}));
    const std::vector<Tensor> input = {random_tensor({3, 8}, 5, -2.5, 2.5).cast(DType::kF32)};
    const Tensor expected = run(b.g, input)[0];
    Rewriter rw(*b.g);
    PassContext context{evaluate_node};
    EXPECT_FALSE(fuse_qdq(rw, context));
    EXPECT_EQ(dequantize_weights(rw, context), folds);
    EXPECT_EQ(count_ops(*b.g).count("QMatMul"), 0u);
    EXPECT_LE(relative_error(run(b.g, input)[0], expected), 1e-6);
  };
  const auto scale = [](Builder& b, Shape shape) { return b.rw.add_constant("s", random_tensor(std::move(shape), 9, 0.001, 0.01).cast(DType::kF32)); };
  const Attributes blocks = {{"axis", int64_t{0}}, {"block_size", int64_t{4}}};
  check([&](Builder& b, ValueId) { return b.rw.emit("DequantizeLinear", {b.bytes({8, 6}), scale(b, {2, 6})}, blocks); }, true);
  const Tensor nibbles = random_tensor({8, 6}, 4, -8, 7).cast(DType::kI8).pack_as(DType::kI4);
  check([&](Builder& b, ValueId) { return b.rw.emit("DequantizeLinear", {b.rw.add_constant("w", nibbles), scale(b, {2, 6})}, blocks); }, false);
  check([&](Builder& b, ValueId) { return b.rw.emit("DequantizeLinear", {b.rw.add_constant("w", nibbles), scale(b, {6})}); }, false);
  const Tensor words = random_tensor({8, 6}, 4, -30000, 30000).cast(DType::kI16);
  check([&](Builder& b, ValueId) { return b.rw.emit("DequantizeLinear", {b.rw.add_constant("w", words), scale(b, {6})}); }, true);
}

TEST(FuseQdq, SixteenBitFloatsStayAsTheyAre) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF16, {3, 8});
  const ValueId step = b.rw.add_constant("s", Tensor::scalar<float>(0.02f).cast(DType::kF16));
  const ValueId real = b.rw.emit("DequantizeLinear", {b.rw.emit("QuantizeLinear", {x, step, b.zero(128)}), step, b.zero(128)});
  const ValueId w = b.rw.emit("DequantizeLinear", {b.bytes({8, 6}), step});
  b.rw.add_output(b.rw.emit("MatMul", {real, w}));
  // A wide result of narrow scales, and a division in 16 bits.
  const ValueId wide = b.rw.emit("DequantizeLinear", {b.bytes({8, 6}), step}, {{"output_dtype", static_cast<int64_t>(DType::kF32)}});
  b.rw.add_output(b.rw.emit("QuantizeLinear", {b.rw.emit("Relu", {wide}), b.scalar(0.1f), b.zero(3)}, {{"precision", static_cast<int64_t>(DType::kF16)}}));
  const std::vector<Tensor> input = {random_tensor({3, 8}, 5, -2.5, 2.5).cast(DType::kF16)};
  const std::vector<Tensor> expected = run(b.g, input);
  Rewriter rw(*b.g);
  PassContext context{evaluate_node};
  fuse_qdq(rw, context);
  EXPECT_EQ(count_ops(*b.g).count("QMatMul"), 0u);
  EXPECT_EQ(count_ops(*b.g).count("QTable"), 0u);
  const std::vector<Tensor> got = run(b.g, input);
  EXPECT_LE(relative_error(got[0], expected[0]), 1e-3);
  EXPECT_TRUE(got[1].equal_bits(expected[1]));
}

}  // namespace
}  // namespace ds::test
