// Operators between convolutions keep channels last, and give what they give in plain layout.
#include <gtest/gtest.h>

#include <functional>

#include "libds/base/parallel.h"
#include "libds/compile/compile.h"
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

using Ints = std::vector<int64_t>;

Tensor f32(Shape shape, uint64_t seed, double low = -1, double high = 1) { return test::random_tensor(std::move(shape), seed, low, high).cast(DType::kF32); }

constexpr int64_t kChannels = 20;

// Convolution to [2, 20, 9, 11] -> `middle` -> convolution of what comes out.
struct Between {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Rewriter rw{*graph};

  ValueId ints(const Ints& v) { return rw.add_constant("ints", Tensor::vector<int64_t>(std::span<const int64_t>(v))); }
  ValueId vector(int64_t n, uint64_t seed, double low = -1, double high = 1) { return rw.add_constant("c", f32({n}, seed, low, high)); }
  ValueId conv(ValueId x, int64_t channels, uint64_t seed) {
    const Dims& d = *graph->value(x).dims;
    return rw.emit("Conv", {x, rw.add_constant("w", f32({channels, d[1].raw, 3, 3}, seed))}, {{"pads", Ints{1, 1, 1, 1}}});
  }
};
using Middle = std::function<ValueId(Between&, ValueId)>;

size_t reorders(const Plan& plan) {
  size_t n = 0;
  for (NodeId id : plan.graph->order()) n += plan.graph->node(id).op == "Reorder";
  return n;
}

// Input and output are the reorders that there are; `more` of them are allowed.
void check(const char* what, const Middle& middle, size_t more = 0) {
  Between b;
  const ValueId x = b.rw.add_input("x", DType::kF32, {2, 16, 9, 11});
  const ValueId y = middle(b, b.conv(x, kChannels, 1));
  b.rw.add_output(b.conv(y, 16, 2));
  const Tensor input = f32({2, 16, 9, 11}, 3);
  std::vector<Tensor> results;
  for (const bool layouts : {false, true})
    for (const int threads : {1, 2}) {
      CompileOptions options;
      options.layouts = layouts;
      options.threads = threads;
      const auto plan = compile(b.graph, options);
      if (layouts && options.isa >= Isa::kAvx2) { EXPECT_LE(reorders(*plan), 2 + more) << what; }
      const auto executor = make_plan_executor(plan);
      executor->run(std::span(&input, 1));
      results.push_back(executor->run(std::span(&input, 1)).at(0));  // a second run: scratch has been used
    }
  for (size_t i = 1; i < results.size(); ++i) EXPECT_LE(test::relative_error(results[i], results[0]), 1e-5) << what << " " << i;
}

TEST(ChannelsLast, Normalizations) {
  check("InstanceNormalization", [](Between& b, ValueId x) { return b.rw.emit("InstanceNormalization", {x, b.vector(kChannels, 4), b.vector(kChannels, 5)}); });
  check("GroupNormalization", [](Between& b, ValueId x) {
    return b.rw.emit("GroupNormalization", {x, b.vector(kChannels, 4), b.vector(kChannels, 5)}, {{"num_groups", int64_t{5}}});
  });
  check("BatchNormalization", [](Between& b, ValueId x) {
    return b.rw.emit("BatchNormalization", {x, b.vector(kChannels, 4), b.vector(kChannels, 5), b.vector(kChannels, 6), b.vector(kChannels, 7, 0.5, 2)});
  });
}

TEST(ChannelsLast, Softmax) {
  for (const char* op : {"Softmax", "LogSoftmax"})
    for (const int64_t axis : {0, 1, 2, 3}) check(op, [&](Between& b, ValueId x) { return b.rw.emit(op, {x}, {{"axis", axis}}); });
}

TEST(ChannelsLast, PadsInEveryModeAndAxis) {
  for (const char* mode : {"constant", "reflect", "edge", "wrap"})
    for (const Ints& pads : {Ints{0, 0, 1, 2, 0, 0, 3, 0}, Ints{0, 0, 0, 2, 0, 0, 0, 1}, Ints{0, 1, 0, 0, 0, 2, 0, 0}, Ints{1, 1, 1, 1, 0, 2, 3, 4}, Ints{0, 0, -1, 2, 0, -3, 1, -2}})
      check(mode, [&](Between& b, ValueId x) { return b.rw.emit("Pad", {x, b.ints(pads)}, {{"mode", std::string(mode)}}); });
}

TEST(ChannelsLast, SlicesAndSplits) {
  check("channels", [](Between& b, ValueId x) { return b.rw.emit("Slice", {x, b.ints({3}), b.ints({17}), b.ints({1}), b.ints({2})}); });
  check("rows and columns", [](Between& b, ValueId x) { return b.rw.emit("Slice", {x, b.ints({1, -1}), b.ints({8, -20}), b.ints({2, 3}), b.ints({1, -2})}); });
  for (const int64_t axis : {1, 3}) {
    check("Split", [&](Between& b, ValueId x) {
      const Ints sizes = axis == 1 ? Ints{7, 13} : Ints{4, 7};
      const NodeId split = b.rw.add_node("Split", {x, b.ints(sizes)}, {{"axis", axis}}, "split", 2);
      const std::vector<ValueId> parts = b.graph->node(split).outputs;
      return b.rw.emit("Concat", {parts[1], b.rw.emit("Relu", {parts[0]})}, {{"axis", axis}});
    });
  }
}

TEST(ChannelsLast, DepthAndSpace) {
  for (const char* mode : {"DCR", "CRD"}) {
    check("DepthToSpace", [&](Between& b, ValueId x) { return b.rw.emit("DepthToSpace", {x}, {{"blocksize", int64_t{2}}, {"mode", std::string(mode)}}); });
    check("SpaceToDepth", [&](Between& b, ValueId x) {
      const ValueId even = b.rw.emit("Slice", {x, b.ints({1, 1}), b.ints({9, 11}), b.ints({2, 3})});
      return b.rw.emit("SpaceToDepth", {even}, {{"blocksize", int64_t{2}}, {"mode", std::string(mode)}});
    });
  }
}

TEST(ChannelsLast, TransposesThatUndoTheLayout) {
  check("there and back", [](Between& b, ValueId x) {
    const ValueId last = b.rw.emit("Transpose", {x}, {{"perm", Ints{0, 2, 3, 1}}});
    return b.rw.emit("Transpose", {b.rw.emit("Mul", {last, b.vector(kChannels, 8)})}, {{"perm", Ints{0, 3, 1, 2}}});
  });
  check("another order", [](Between& b, ValueId x) { return b.rw.emit("Transpose", {x}, {{"perm", Ints{0, 3, 2, 1}}}); }, 1);
}

TEST(ChannelsLast, Views) {
  check("Identity", [](Between& b, ValueId x) { return b.rw.emit("Identity", {x}); });
  check("pixels in a row", [](Between& b, ValueId x) {
    const ValueId flat = b.rw.emit("Reshape", {x, b.ints({0, 0, -1})});
    return b.rw.emit("Reshape", {b.rw.emit("Softmax", {flat}, {{"axis", int64_t{1}}}), b.ints({2, kChannels, 9, 11})});
  });
  check("an axis more", [](Between& b, ValueId x) {
    const ValueId more = b.rw.emit("Relu", {b.rw.emit("Unsqueeze", {x, b.ints({3})})});
    return b.rw.emit("Squeeze", {more, b.ints({3})});
  });
  check("other channels", [](Between& b, ValueId x) { return b.rw.emit("Reshape", {x, b.ints({2, 10, 18, 11})}); }, 2);
  check("one pixel", [](Between& b, ValueId x) {
    const ValueId rows = b.rw.emit("Reshape", {b.rw.emit("GlobalAveragePool", {x}), b.ints({2, kChannels})});
    return b.rw.emit("Mul", {x, b.rw.emit("Reshape", {b.rw.emit("Sigmoid", {rows}), b.ints({2, kChannels, 1, 1})})});
  }, 1);
}

TEST(ChannelsLast, Reductions) {
  for (const char* op : {"ReduceMean", "ReduceSum", "ReduceSumSquare"})
    for (const Ints& axes : {Ints{2, 3}, Ints{1}, Ints{3}, Ints{0}, Ints{1, 2}, Ints{0, 1, 2, 3}}) {
      check(op, [&](Between& b, ValueId x) { return b.rw.emit("Mul", {x, b.rw.emit(op, {x, b.ints(axes)})}); }, 1);
      check(op, [&](Between& b, ValueId x) {  // axes dropped, and put back
        const ValueId y = b.rw.emit(op, {x, b.ints(axes)}, {{"keepdims", int64_t{0}}});
        return b.rw.emit("Mul", {x, b.rw.emit("Unsqueeze", {y, b.ints(axes)})});
      }, 2);
    }
}

TEST(ChannelsLast, ConcatOfHalf) {
  check("Concat", [](Between& b, ValueId x) {
    const ValueId plain = b.rw.emit("Reshape", {b.rw.emit("Reshape", {x, b.ints({-1})}), b.ints({2, kChannels, 9, 11})});
    return b.rw.emit("Concat", {b.rw.emit("Neg", {plain}), x}, {{"axis", int64_t{1}}});
  }, 2);
}

TEST(ChannelsLast, Elementwise) {
  for (const char* op : {"Elu", "Celu", "Selu", "Softplus", "Softsign", "Floor", "Round"}) check(op, [&](Between& b, ValueId x) { return b.rw.emit(op, {x}); });
  check("Clip", [](Between& b, ValueId x) {
    return b.rw.emit("Clip", {x, b.rw.add_constant("low", Tensor::scalar<float>(-0.5f)), b.rw.add_constant("high", Tensor::scalar<float>(0.75f))});
  });
}

TEST(ChannelsLast, Resizes) {
  for (const char* mode : {"nearest", "linear", "cubic"})
    check(mode, [&](Between& b, ValueId x) { return b.rw.emit("Resize", {x, kNone, kNone, b.ints({2, kChannels, 13, 8})}, {{"mode", std::string(mode)}}); });
}

}  // namespace
}  // namespace ds
