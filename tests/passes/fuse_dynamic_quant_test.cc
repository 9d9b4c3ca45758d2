// Products of dynamically quantized tensors in one operator: the same bits.
#include "libds/passes/fuse_dynamic_quant.h"

#include <gtest/gtest.h>

#include <map>

#include "libds/passes/fuse_qepilogue.h"
#include "libds/passes/pipeline.h"
#include "libds/run/executor.h"
#include "libds/run/session.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

struct Builder {
  std::shared_ptr<Graph> g = std::make_shared<Graph>();
  Rewriter rw{*g};
  uint64_t seed = 1;

  ValueId constant(Shape shape, double low, double high, DType dtype) {
    return rw.add_constant("c", random_tensor(std::move(shape), ++seed, low, high).cast(dtype));
  }
  struct Quantized {
    ValueId bytes, scale, zero;
  };
  Quantized quantize(ValueId x) {
    const NodeId n = rw.add_node("DynamicQuantizeLinear", {x}, {}, "q", 3);
    return {g->node(n).outputs[0], g->node(n).outputs[1], g->node(n).outputs[2]};
  }
  ValueId sums(const Quantized& q, ValueId w, ValueId zero = kNone) {
    std::vector<ValueId> inputs = {q.bytes, w, q.zero};
    if (zero != kNone) inputs.push_back(zero);
    return rw.emit("Cast", {rw.emit("MatMulInteger", inputs)}, {{"to", int64_t{1}}});
  }
  // As onnxruntime's quantize_dynamic writes it.
  ValueId product(const Quantized& q, int64_t depth, int64_t columns, bool per_channel, DType w = DType::kI8) {
    const Shape each = per_channel ? Shape{columns} : Shape{};
    const ValueId weights = constant({depth, columns}, w == DType::kI8 ? -64 : 64, w == DType::kI8 ? 64 : 192, w);
    const ValueId zero = rw.add_constant("z", Tensor::scalar<int64_t>(w == DType::kI8 ? 0 : 131).cast(w));
    return rw.emit("Mul", {sums(q, weights, zero), rw.emit("Mul", {q.scale, constant(each, 0.001, 0.01, DType::kF32)})});
  }
};

std::map<std::string, int> count_ops(const Graph& g) {
  std::map<std::string, int> counts;
  for (NodeId id : g.order()) ++counts[g.node(id).op];
  return counts;
}

std::shared_ptr<Graph> fused(const std::shared_ptr<Graph>& g, bool changes = true) {
  auto copy = std::make_shared<Graph>(*g);
  Rewriter rw(*copy);
  PassContext context{evaluate_node};
  EXPECT_EQ(fuse_dynamic_quant(rw, context), changes);
  verify_graph(*copy);
  return copy;
}

std::vector<Tensor> eager(const std::shared_ptr<Graph>& g, const std::vector<Tensor>& inputs) { return make_eager_executor(g, CompileOptions{})->run(inputs); }

TEST(FuseDynamicQuant, SharedOperandIsQuantizedOnce) {
  for (DType w : {DType::kI8, DType::kU8})
    for (bool per_channel : {false, true}) {
      Builder b;
      const ValueId x = b.rw.add_input("x", DType::kF32, {2, 7, 33});
      const auto q = b.quantize(x);
      b.rw.add_output(b.rw.emit("Add", {b.constant({19}, -1, 1, DType::kF32), b.product(q, 33, 19, per_channel, w)}));
      b.rw.add_output(b.rw.emit("Add", {b.product(q, 33, 5, per_channel, w), b.constant({1, 5}, -1, 1, DType::kF32)}));
      b.rw.add_output(b.product(q, 33, 11, per_channel, w));
      const auto f = fused(b.g);
      EXPECT_EQ(count_ops(*f), (std::map<std::string, int>{{"DynamicQuantizeLinear", 1}, {"QMatMul", 3}}));
      for (uint64_t seed : {5, 6}) {  // another range, another scale
        const std::vector<Tensor> input = {random_tensor({2, 7, 33}, seed, -4, seed == 5 ? 4 : 1).cast(DType::kF32)};
        const auto want = eager(b.g, input), got = eager(f, input);
        for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(got[i].equal_bits(want[i])) << i;
        for (int threads : {1, 2}) {
          SessionOptions options;
          options.threads = threads;
          Session session(b.g, options);
          const auto planned = session.run(input);
          for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(planned[i].equal_bits(want[i])) << i << " " << threads << " threads";
        }
      }
    }
}

TEST(FuseDynamicQuant, ResidualAndActivationFollow) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {5, 33}), r = b.rw.add_input("r", DType::kF32, {5, 19});
  const ValueId h = b.rw.emit("Add", {b.product(b.quantize(x), 33, 19, true), b.constant({19}, -1, 1, DType::kF32)});
  b.rw.add_output(b.rw.emit("Gelu", {b.rw.emit("Add", {h, r})}));
  const auto f = fused(b.g);
  Rewriter rw(*f);
  PassContext context{evaluate_node};
  EXPECT_TRUE(fuse_qepilogue(rw, context));
  verify_graph(*f);
  EXPECT_EQ(count_ops(*f), (std::map<std::string, int>{{"DynamicQuantizeLinear", 1}, {"QMatMul", 1}}));
  const std::vector<Tensor> inputs = {random_tensor({5, 33}, 5, -2, 3).cast(DType::kF32), random_tensor({5, 19}, 6).cast(DType::kF32)};
  EXPECT_LT(relative_error(eager(f, inputs)[0], eager(b.g, inputs)[0]), 1e-6);
}

TEST(FuseDynamicQuant, ScalesOfAllForms) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {5, 33}), s = b.rw.add_input("s", DType::kF32, {1});
  const auto q = b.quantize(x);
  const auto w = [&] { return b.constant({33, 6}, -64, 64, DType::kI8); };
  b.rw.add_output(b.rw.emit("Mul", {b.sums(q, w()), s}));                                      // not taken apart
  b.rw.add_output(b.rw.emit("Mul", {b.constant({6}, 0.1, 1, DType::kF32), b.sums(q, w())}));   // known
  b.rw.add_output(b.rw.emit("Mul", {b.sums({q.bytes, q.scale, kNone}, w()), q.scale}));        // no zero point
  const auto f = fused(b.g);
  EXPECT_EQ(count_ops(*f), (std::map<std::string, int>{{"DynamicQuantizeLinear", 1}, {"QMatMul", 3}}));
  const std::vector<Tensor> inputs = {random_tensor({5, 33}, 5, -2, 3).cast(DType::kF32), Tensor::of<float>({1}, {0.37f})};
  const auto want = eager(b.g, inputs), got = eager(f, inputs);
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(got[i].equal_bits(want[i])) << i;
}

TEST(FuseDynamicQuant, ConvolutionsMeetWithChannelsLast) {
  for (int64_t groups : {1, 12}) {
    Builder b;
    const auto conv = [&](ValueId x, int64_t channels, int64_t in, int64_t group, DType w) {
      const auto q = b.quantize(x);
      const ValueId weights = b.constant({channels, in / group, 3, 3}, w == DType::kI8 ? -64 : 64, w == DType::kI8 ? 64 : 192, w);
      const ValueId zero = b.rw.add_constant("z", Tensor::scalar<int64_t>(w == DType::kI8 ? 0 : 131).cast(w));
      const ValueId sums = b.rw.emit("Cast", {b.rw.emit("ConvInteger", {q.bytes, weights, q.zero, zero}, {{"pads", std::vector<int64_t>{1, 1, 1, 1}}, {"group", group}})},
                                     {{"to", int64_t{1}}});
      const ValueId y = b.rw.emit("Mul", {sums, b.rw.emit("Mul", {q.scale, b.constant({1, channels, 1, 1}, 0.001, 0.01, DType::kF32)})});
      return b.rw.emit("Relu", {b.rw.emit("Add", {y, b.constant({1, channels, 1, 1}, -1, 1, DType::kF32)})});
    };
    const ValueId x = b.rw.add_input("x", DType::kF32, {2, 5, 9, 7});
    b.rw.add_output(conv(conv(x, 12, 5, 1, DType::kI8), 12, 12, groups, DType::kU8));
    const auto f = fused(b.g);
    EXPECT_EQ(count_ops(*f), (std::map<std::string, int>{{"DynamicQuantizeLinear", 2}, {"QConv", 2}, {"Relu", 2}, {"Transpose", 4}}));
    const std::vector<Tensor> input = {random_tensor({2, 5, 9, 7}, 5, -2, 3).cast(DType::kF32)};
    const Tensor want = eager(b.g, input)[0];
    EXPECT_TRUE(eager(f, input)[0].equal_bits(want));
    auto whole = std::make_shared<Graph>(*b.g);
    PipelineOptions options;
    options.evaluate = evaluate_node;
    run_pipeline(*whole, "inference", options);
    // The last activation stands behind the transpose to the output.
    EXPECT_EQ(count_ops(*whole), (std::map<std::string, int>{{"DynamicQuantizeLinear", 2}, {"QConv", 2}, {"Relu", 1}, {"Transpose", 2}}));
    for (int threads : {1, 2}) {
      SessionOptions plan;
      plan.threads = threads;
      EXPECT_TRUE(Session(b.g, plan).run(input)[0].equal_bits(want)) << threads;
    }
  }
}

TEST(FuseDynamicQuant, BatchNormGoesIntoScales) {
  for (bool biased : {false, true}) {
    Builder b;
    const auto q = b.quantize(b.rw.add_input("x", DType::kF32, {2, 5, 9, 7}));
    const ValueId sums = b.rw.emit("Cast", {b.rw.emit("ConvInteger", {q.bytes, b.constant({11, 5, 3, 2}, -64, 64, DType::kI8), q.zero})}, {{"to", int64_t{1}}});
    ValueId y = b.rw.emit("Mul", {sums, b.rw.emit("Mul", {q.scale, b.constant({}, 0.001, 0.01, DType::kF32)})});
    if (biased) y = b.rw.emit("Add", {y, b.constant({11, 1, 1}, -1, 1, DType::kF32)});
    const auto each = [&](double low, double high) { return b.constant({11}, low, high, DType::kF32); };
    b.rw.add_output(b.rw.emit("BatchNormalization", {y, each(0.5, 2), each(-1, 1), each(-1, 1), each(0.5, 2)}));
    const auto f = fused(b.g);
    EXPECT_EQ(count_ops(*f), (std::map<std::string, int>{{"DynamicQuantizeLinear", 1}, {"QConv", 1}, {"Transpose", 2}}));
    const std::vector<Tensor> input = {random_tensor({2, 5, 9, 7}, 5, -2, 3).cast(DType::kF32)};
    EXPECT_LT(relative_error(eager(f, input)[0], eager(b.g, input)[0]), 1e-6);
  }
}

TEST(FuseDynamicQuant, WhatOthersReadStays) {
  Builder b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {5, 33}), rows = b.rw.add_input("rows", DType::kF32, {5, 1});
  const auto q = b.quantize(x);
  const ValueId read = b.sums(q, b.constant({33, 6}, -64, 64, DType::kI8));
  b.rw.add_output(read);
  b.rw.add_output(b.rw.emit("Mul", {read, q.scale}));
  b.rw.add_output(b.rw.emit("Mul", {b.sums(q, b.constant({33, 6}, -64, 64, DType::kI8)), rows}));                // a scale per row
  b.rw.add_output(b.rw.emit("Mul", {b.sums(q, b.rw.add_input("w", DType::kI8, {33, 6})), q.scale}));             // weights that are not constant
  b.rw.add_output(b.rw.emit("Mul", {b.sums(q, b.constant({33, 6}, -64, 64, DType::kI8)), b.constant({1, 1, 6}, 1, 2, DType::kF32)}));  // more axes
  fused(b.g, false);
}

}  // namespace
}  // namespace ds::test
