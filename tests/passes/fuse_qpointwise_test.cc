// What stands between DequantizeLinear and QuantizeLinear, on bytes: the same bits, and nothing left in float.
#include "libds/passes/fuse_qpointwise.h"

#include <gtest/gtest.h>

#include <map>

#include "libds/passes/fuse_qdq.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Counts = std::map<std::string, int>;

struct Builder {
  std::shared_ptr<Graph> g = std::make_shared<Graph>();
  Rewriter rw{*g};
  uint64_t seed = 1;

  ValueId scalar(float x) { return rw.add_constant("scale", Tensor::scalar<float>(x)); }
  ValueId zero(int z) { return rw.add_constant("zero", Tensor::scalar<uint8_t>(static_cast<uint8_t>(z))); }
  ValueId quantize(ValueId x, float scale, int z) { return rw.emit("QuantizeLinear", {x, scalar(scale), zero(z)}); }
  ValueId dequantize(ValueId x, float scale, int z) { return rw.emit("DequantizeLinear", {x, scalar(scale), zero(z)}); }
  ValueId pair(ValueId x, float scale, int z) { return dequantize(quantize(x, scale, z), scale, z); }
  ValueId constant(Shape shape, double low, double high) { return rw.add_constant("c", random_tensor(std::move(shape), ++seed, low, high).cast(DType::kF32)); }
  // A constant that is stored in 8 bits.
  ValueId stored(Shape shape) {
    const Tensor t = random_tensor(std::move(shape), ++seed, 0, 255).cast(DType::kU8);
    return dequantize(rw.add_constant("c", t), 0.01f, 77);
  }
  ValueId conv(ValueId x, int64_t channels, int64_t in) {
    const ValueId w = rw.add_constant("w", random_tensor({channels, in, 1, 1}, ++seed, -127, 127).cast(DType::kI8));
    return rw.emit("Conv", {x, rw.emit("DequantizeLinear", {w, scalar(0.004f)})});
  }
  ValueId batch_norm(ValueId x, int64_t n) {
    return rw.emit("BatchNormalization", {x, constant({n}, 0.5, 2), constant({n}, -1, 1), constant({n}, -1, 1), constant({n}, 0.5, 2)});
  }
};

std::shared_ptr<Graph> fused(const std::shared_ptr<Graph>& g) {
  auto copy = std::make_shared<Graph>(*g);
  Rewriter rw(*copy);
  PassContext context{evaluate_node};
  EXPECT_TRUE(fuse_qdq(rw, context));
  verify_graph(*copy);
  return copy;
}

// Without what stands at the edges.
Counts count_ops(const Graph& g) {
  Counts counts;
  for (NodeId id : g.order())
    if (const std::string& op = g.node(id).op; op != "QuantizeLinear" && op != "DequantizeLinear" && op != "Transpose") ++counts[op];
  return counts;
}

std::vector<Tensor> run(const std::shared_ptr<Graph>& g, const std::vector<Tensor>& inputs) { return make_eager_executor(g, CompileOptions{})->run(inputs); }

// Both give the same, but for `steps` of the last quantization.
void expect_same(const std::shared_ptr<Graph>& a, const std::shared_ptr<Graph>& b, const std::vector<Tensor>& inputs, double steps = 0, double step = 0) {
  const auto x = run(a, inputs), y = run(b, inputs);
  for (size_t i = 0; i < x.size(); ++i) {
    if (steps == 0) {
      EXPECT_TRUE(x[i].equal_bits(y[i])) << i;
      continue;
    }
    const auto u = x[i].to_doubles(), v = y[i].to_doubles();
    double different = 0;
    for (size_t k = 0; k < u.size(); ++k) {
      ASSERT_NEAR(u[k], v[k], steps * step * 1.0001);
      different += u[k] != v[k];
    }
    EXPECT_LE(different, 0.02 * static_cast<double>(u.size()));
  }
}

TEST(FuseQPointwise, ChainsAndGatesAreOneTable) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {3, 5, 21});
  const ValueId h = b.pair(x, 0.05f, 120);
  // Gelu as exporters spell it, quantized at most steps.
  ValueId e = b.pair(b.rw.emit("Erf", {b.rw.emit("Div", {h, b.scalar(1.41421356f)})}), 0.008f, 127);
  e = b.pair(b.rw.emit("Add", {e, b.stored({})}), 0.009f, 3);
  const ValueId y = b.pair(b.rw.emit("Mul", {b.pair(b.rw.emit("Mul", {h, e}), 0.05f, 20), b.scalar(0.5f)}), 0.026f, 11);
  b.rw.add_output(y);
  const auto f = fused(b.g);
  EXPECT_EQ(count_ops(*f), (Counts{{"QTable", 1}}));
  expect_same(b.g, f, {random_tensor({3, 5, 21}, 5, -6, 6).cast(DType::kF32)});
}

TEST(FuseQPointwise, GatesBehindConvolutions) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {2, 8, 5, 7});
  const ValueId h = b.pair(b.conv(b.pair(x, 0.02f, 128), 12, 8), 0.05f, 100);
  const ValueId gate = b.pair(b.rw.emit("HardSigmoid", {h}), 0.004f, 0);
  b.rw.add_output(b.pair(b.conv(b.pair(b.rw.emit("Mul", {h, gate}), 0.03f, 9), 4, 12), 0.1f, 128));
  const auto f = fused(b.g);
  EXPECT_EQ(count_ops(*f), (Counts{{"QConv", 2}, {"QTable", 1}}));
  expect_same(b.g, f, {random_tensor({2, 8, 5, 7}, 5, -2, 2).cast(DType::kF32)}, 1, 0.1);
}

TEST(FuseQPointwise, RowsAreAddedAndMultipliedInOneStep) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {3, 5, 21});
  ValueId h = b.pair(b.rw.emit("Add", {b.stored({21}), b.pair(x, 0.05f, 120)}), 0.05f, 118);
  h = b.pair(b.rw.emit("Mul", {h, b.constant({1, 21}, -2, 2)}), 0.07f, 128);
  h = b.pair(b.rw.emit("Relu", {b.rw.emit("Sub", {b.constant({21}, -1, 1), h})}), 0.03f, 10);
  b.rw.add_output(h);
  const auto f = fused(b.g);
  EXPECT_EQ(count_ops(*f), (Counts{{"QAffine", 3}}));
  expect_same(b.g, f, {random_tensor({3, 5, 21}, 5, -6, 6).cast(DType::kF32)});
}

TEST(FuseQPointwise, BatchNormBetweenConvolutions) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {2, 8, 5, 7});
  const ValueId n = b.batch_norm(b.pair(b.conv(b.pair(x, 0.02f, 128), 12, 8), 0.05f, 100), 12);
  // Read twice, as onnxruntime leaves HardSwish.
  const ValueId gate = b.pair(b.rw.emit("HardSigmoid", {n}), 0.004f, 0), plain = b.pair(n, 0.06f, 110);
  b.rw.add_output(b.pair(b.rw.emit("Mul", {gate, plain}), 0.04f, 20));
  b.rw.add_output(b.pair(b.rw.emit("Clip", {b.rw.emit("Mul", {b.batch_norm(plain, 12), b.constant({12, 1, 1}, 1, 2)}), b.scalar(-1.0f), b.scalar(2.0f)}), 0.02f, 100));
  const auto f = fused(b.g);
  EXPECT_EQ(count_ops(*f), (Counts{{"QConv", 1}, {"QAffine", 3}, {"QBinary", 1}}));
  expect_same(b.g, f, {random_tensor({2, 8, 5, 7}, 5, -2, 2).cast(DType::kF32)}, 3, 0.06);
}

TEST(FuseQPointwise, TwoTensorsBroadcast) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {2, 4, 5, 9}), m = b.rw.add_input("m", DType::kF32, {2, 1, 1, 9}), g = b.rw.add_input("g", DType::kF32, {2, 12, 1, 1});
  const ValueId mask = b.pair(m, 0.1f, 255);
  b.rw.add_output(b.pair(b.rw.emit("Add", {b.pair(x, 0.05f, 120), mask}), 0.12f, 250));
  b.rw.add_output(b.pair(b.rw.emit("Div", {mask, b.pair(x, 0.05f, 120)}), 0.12f, 120));
  // A gate per channel of a convolution's result.
  b.rw.add_output(b.pair(b.rw.emit("Mul", {b.pair(b.conv(b.pair(x, 0.02f, 128), 12, 4), 0.05f, 100), b.pair(g, 0.004f, 0)}), 0.03f, 90));
  const auto f = fused(b.g);
  EXPECT_EQ(count_ops(*f), (Counts{{"QConv", 1}, {"QBinary", 3}}));
  expect_same(b.g, f, {random_tensor({2, 4, 5, 9}, 5, -4, 4).cast(DType::kF32), random_tensor({2, 1, 1, 9}, 6, -20, 0).cast(DType::kF32),
                       random_tensor({2, 12, 1, 1}, 7, 0, 1).cast(DType::kF32)}, 1, 0.03);
}

TEST(FuseQPointwise, WhatIsNoneOfTheseStaysInFloat) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {2, 4, 5, 9});
  const ValueId h = b.pair(x, 0.05f, 120);
  b.rw.add_output(b.pair(b.batch_norm(h, 4), 0.05f, 120));                                          // channels are not last, nothing wants them there
  b.rw.add_output(b.pair(b.rw.emit("Add", {h, b.constant({4, 5, 9}, -1, 1)}), 0.05f, 120));         // a constant of many values
  b.rw.add_output(b.pair(b.rw.emit("Add", {h, b.constant({1, 1, 1, 1, 1}, -1, 1)}), 0.05f, 120));   // one that adds an axis
  b.rw.add_output(b.pair(b.rw.emit("Softmax", {h}), 0.004f, 0));
  auto copy = std::make_shared<Graph>(*b.g);
  Rewriter rw(*copy);
  PassContext context{evaluate_node};
  fuse_qdq(rw, context);
  verify_graph(*copy);
  EXPECT_EQ(count_ops(*copy), (Counts{{"BatchNormalization", 1}, {"Add", 2}, {"Softmax", 1}}));
  expect_same(b.g, copy, {random_tensor({2, 4, 5, 9}, 5, -4, 4).cast(DType::kF32)});
}

}  // namespace
}  // namespace ds::test
