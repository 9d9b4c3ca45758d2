// What follows 8-bit products, taken into them: the same bits for bytes that are added, one step at most for activations.
#include "libds/passes/fuse_qepilogue.h"

#include <gtest/gtest.h>

#include <map>

#include "libds/run/executor.h"
#include "libds/run/session.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

using Ints = std::vector<int64_t>;

struct Builder {
  std::shared_ptr<Graph> g = std::make_shared<Graph>();
  Rewriter rw{*g};
  uint64_t seed = 1;

  ValueId scalar(float x) { return rw.add_constant("scale", Tensor::scalar<float>(x)); }
  ValueId zero(int z) { return rw.add_constant("zero", Tensor::scalar<uint8_t>(static_cast<uint8_t>(z))); }
  ValueId quantize(ValueId x, float scale, int z) { return rw.emit("QuantizeLinear", {x, scalar(scale), zero(z)}); }
  ValueId constant(Shape shape, double low, double high, DType dtype) {
    return rw.add_constant("c", random_tensor(std::move(shape), ++seed, low, high).cast(dtype));
  }
  ValueId conv(ValueId x, int64_t channels, float y_scale, int64_t y_zero) {
    return rw.emit("QConv", {x, constant({channels, 8, 3, 3}, -127, 127, DType::kI8), constant({channels}, 0.001, 0.004, DType::kF32)},
                   {{"pads", Ints{1, 1, 1, 1}}, {"x_scale", 0.05f}, {"x_zero", int64_t{100}}, {"y_scale", y_scale}, {"y_zero", y_zero}, {"hi", int64_t{250}}});
  }
  ValueId add(ValueId a, ValueId b, float a_scale, int64_t a_zero, float b_scale, int64_t b_zero) {
    return rw.emit("QAdd", {a, b}, {{"a_scale", a_scale}, {"a_zero", a_zero}, {"b_scale", b_scale}, {"b_zero", b_zero}, {"y_scale", 0.4f}, {"y_zero", int64_t{20}}, {"lo", int64_t{20}}});
  }
  // x [..., 24] quantized with 0.02 and 128.
  ValueId product(ValueId x, int64_t columns, bool relu = false) {
    return rw.emit("QMatMul", {x, constant({24, columns}, -127, 127, DType::kI8), constant({columns}, 0.001, 0.01, DType::kF32), kNone, kNone,
                               constant({columns}, -1, 1, DType::kF32)},
                   {{"x_scale", 0.02f}, {"x_zero", int64_t{128}}, {"output", static_cast<int64_t>(DType::kF32)}, {"relu", static_cast<int64_t>(relu)}});
  }
};

std::shared_ptr<Graph> fused(const std::shared_ptr<Graph>& g, bool changes = true) {
  auto copy = std::make_shared<Graph>(*g);
  Rewriter rw(*copy);
  PassContext context{evaluate_node};
  EXPECT_EQ(fuse_qepilogue(rw, context), changes);
  verify_graph(*copy);
  return copy;
}

Tensor eager(const std::shared_ptr<Graph>& g, const std::vector<Tensor>& inputs) { return make_eager_executor(g, CompileOptions{})->run(inputs)[0]; }

std::map<std::string, int> count_ops(const Graph& g) {
  std::map<std::string, int> counts;
  for (NodeId id : g.order()) ++counts[g.node(id).op];
  return counts;
}

TEST(FuseQEpilogue, ResidualBytesAreTheSameBits) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {2, 9, 7, 8});
  ValueId h = b.quantize(x, 0.05f, 100);
  h = b.add(b.conv(h, 8, 0.3f, 110), h, 0.3f, 110, 0.05f, 100);  // the addend is the convolution's input as well
  const ValueId a = b.conv(h, 16, 0.2f, 120), c = b.conv(h, 16, 0.3f, 130);
  h = b.add(a, c, 0.2f, 120, 0.25f, 130);  // a projection beside; the result is read under another scale than it has
  b.rw.add_output(h);
  const auto f = fused(b.g);
  EXPECT_EQ(count_ops(*f), (std::map<std::string, int>{{"QuantizeLinear", 1}, {"QConv", 3}}));
  const std::vector<Tensor> input = {random_tensor({2, 9, 7, 8}, 5, -5, 5).cast(DType::kF32)};
  const Tensor expected = eager(b.g, input);
  EXPECT_TRUE(eager(f, input).equal_bits(expected));
  // The plan writes over residuals that die.
  for (int threads : {1, 2}) {
    SessionOptions options;
    options.threads = threads;
    Session session(b.g, options);
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(session.run(input)[0].equal_bits(expected)) << threads << " threads";
  }
}

TEST(FuseQEpilogue, ResidualThatOthersReadStays) {
  Builder b;
  const ValueId x = b.quantize(b.rw.add_input("x", DType::kF32, {1, 5, 5, 8}), 0.05f, 100);
  const ValueId twice = b.conv(x, 8, 0.3f, 110), shifted = b.conv(x, 8, 0.3f, 110), alone = b.conv(x, 8, 0.3f, 110);
  b.rw.add_output(b.add(twice, x, 0.3f, 110, 0.05f, 100));
  b.rw.add_output(twice);
  b.rw.add_output(b.add(shifted, x, 0.3f, 90, 0.05f, 100));  // read with another zero point
  b.rw.add_output(b.add(alone, alone, 0.3f, 110, 0.3f, 110));
  fused(b.g, false);
}

TEST(FuseQEpilogue, FloatResultsTakeResidualActivationAndQuantization) {
  for (const char* op : {"Gelu", "Tanh", "Relu", "Swish"})
    for (bool residual : {false, true})
      for (bool quantized : {false, true}) {
        SCOPED_TRACE(testing::Message() << op << residual << quantized);
        Builder b;
        const ValueId x = b.rw.add_input("x", DType::kF32, {2, 5, 24}), r = b.rw.add_input("r", DType::kF32, {2, 5, 11});
        ValueId h = b.product(b.quantize(x, 0.02f, 128), 11);
        if (residual) h = b.rw.emit("Add", {r, h});
        h = b.rw.emit(op, {h});
        if (quantized) h = b.quantize(h, 0.03f, 17);
        b.rw.add_output(h);
        const auto f = fused(b.g);
        EXPECT_EQ(count_ops(*f), (std::map<std::string, int>{{"QuantizeLinear", 1}, {"QMatMul", 1}}));
        const std::vector<Tensor> inputs = {random_tensor({2, 5, 24}, 5, -2.5, 2.5).cast(DType::kF32), random_tensor({2, 5, 11}, 6).cast(DType::kF32)};
        const std::vector<double> got = eager(f, inputs).to_doubles(), want = eager(b.g, inputs).to_doubles();
        for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], quantized ? 1 : 1e-6 * std::max(1.0, std::abs(want[i])));
      }
}

TEST(FuseQEpilogue, OrderIsKept) {
  Builder b;
  const ValueId x = b.quantize(b.rw.add_input("x", DType::kF32, {3, 24}), 0.02f, 128), r = b.rw.add_input("r", DType::kF32, {3, 11});
  const ValueId row = b.rw.add_input("row", DType::kF32, {1, 11});
  b.rw.add_output(b.rw.emit("Add", {b.rw.emit("Gelu", {b.product(x, 11)}), r}));      // an addition after the activation
  b.rw.add_output(b.rw.emit("Add", {b.product(x, 11, true), r}));                     // or after a Relu
  b.rw.add_output(b.rw.emit("Add", {b.product(x, 11), row}));                         // one that broadcasts
  b.rw.add_output(b.rw.emit("Tanh", {b.rw.emit("Gelu", {b.product(x, 11)})}));
  EXPECT_EQ(count_ops(*fused(b.g)), (std::map<std::string, int>{{"QuantizeLinear", 1}, {"QMatMul", 4}, {"Add", 3}, {"Tanh", 1}}));
}

}  // namespace
}  // namespace ds::test
