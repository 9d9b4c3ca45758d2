// Removing channels must give what the network gives when the same channels are masked: every
// network below is pruned both ways and compared.
#include <gtest/gtest.h>

#include <cstring>

#include "libds/ir/op_def.h"
#include "libds/passes/select_channels.h"
#include "libds/passes/shrink_channels.h"
#include "libds/run/session.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

// Builds networks layer by layer with random weights.
class Net {
 public:
  Graph graph;
  Rewriter rw{graph};

  ValueId input(Dims dims) { return rw.add_input("x", DType::kF32, std::move(dims)); }
  ValueId weight(const std::string& name, Shape shape, double scale = 0.5) {
    Tensor t = test::random_tensor(std::move(shape), ++seed_).cast(DType::kF32);
    for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<float>()[i] *= static_cast<float>(scale);
    return rw.add_constant(name, std::move(t));
  }
  int64_t channels(ValueId v, size_t axis = 1) const { return (*graph.value(v).dims)[axis].raw; }
  ValueId conv(ValueId x, int64_t out, int64_t kernel, const std::string& name, int64_t group = 1) {
    const int64_t pad = kernel / 2;
    return rw.emit("Conv", {x, weight(name + ".w", {out, channels(x) / group, kernel, kernel}), weight(name + ".b", {out})},
                   {{"pads", std::vector<int64_t>{pad, pad, pad, pad}}, {"group", group}}, name);
  }
  ValueId op(const char* type, std::vector<ValueId> in, Attributes attrs = {}) { return rw.emit(type, std::move(in), std::move(attrs)); }
  ValueId relu(ValueId x) { return op("Relu", {x}); }
  ValueId ints(std::vector<int64_t> v) { return rw.add_constant("ints", Tensor::vector<int64_t>(v)); }
  ValueId gemm(ValueId x, int64_t out, const std::string& name) {
    return rw.emit("Gemm", {x, weight(name + ".w", {out, channels(x)}), weight(name + ".b", {out})}, {{"transB", int64_t{1}}}, name);
  }
  ValueId linear(ValueId x, int64_t out, const std::string& name) {
    const size_t last = graph.value(x).dims->size() - 1;
    return op("Add", {rw.emit("MatMul", {x, weight(name + ".w", {channels(x, last), out})}, {}, name), weight(name + ".b", {out})});
  }
  ValueId maxpool(ValueId x) {
    return op("MaxPool", {x}, {{"kernel_shape", std::vector<int64_t>{2, 2}}, {"strides", std::vector<int64_t>{2, 2}}});
  }
  ValueId flatten(ValueId x) { return op("Flatten", {x}, {{"axis", int64_t{1}}}); }
  void finish(ValueId y) { rw.add_output(y); }

 private:
  uint64_t seed_ = 100;
};

std::unique_ptr<Graph> specialised(const Graph& g, const Shape& shape) {
  auto copy = std::make_unique<Graph>(g);
  Rewriter rw(*copy);
  const std::vector<Shape> shapes = {shape};
  specialize(rw, shapes, evaluate_node);
  return copy;
}

std::vector<Tensor> run(const Graph& g, const Tensor& x) {
  const std::vector<Tensor> inputs = {x};
  return Session(std::make_shared<Graph>(g)).run(inputs);
}

// The same graph with zeros in every constant where a channel is removed.
Graph with_masks(const Graph& graph, const ChannelGroups& groups, const std::vector<char>& removed) {
  Graph g = graph;
  Rewriter rw(g);
  for (const ChannelAxis& a : groups.axes) {
    if (!g.value(a.value).is_constant()) continue;
    Tensor t = g.value(a.value).constant->clone();
    const size_t size = dtype_size(t.dtype());
    size_t inner = 1;
    for (size_t i = a.axis + 1; i < t.shape().size(); ++i) inner *= static_cast<size_t>(t.shape()[i]);
    for (int64_t i = 0; i < t.numel(); ++i)
      if (removed[static_cast<size_t>(a.channels[static_cast<size_t>(i) / inner % a.channels.size()])])
        std::memset(static_cast<std::byte*>(t.mutable_raw()) + static_cast<size_t>(i) * size, 0, size);
    rw.set_constant(a.value, std::make_shared<const Tensor>(std::move(t)));
  }
  return g;
}

struct Pruned {
  Graph graph;
  ChannelGroups groups;
  ChannelSelection selection;
  double ratio = 1;
  // Size of an initializer's axis after the removal.
  int64_t size(const std::string& name, int64_t axis) const { return graph.value(graph.find_value(name)).constant->dim(axis); }
};

Pruned check(const Graph& graph, const Shape& shape, double flops, int64_t multiple = 1, double within = 0.03) {
  const auto concrete_graph = specialised(graph, shape);
  Pruned p;
  p.groups = find_channel_groups(graph, *concrete_graph);
  p.selection = select_channels(graph, *concrete_graph, p.groups, {flops, multiple});
  EXPECT_EQ(p.selection.flops_before, count_flops(*concrete_graph));
  p.graph = graph;
  Rewriter rw(p.graph);
  shrink_channels(rw, p.groups, p.selection.removed);
  verify_graph(p.graph);
  EXPECT_EQ(p.selection.flops_after, count_flops(*specialised(p.graph, shape)));
  p.ratio = static_cast<double>(p.selection.flops_after) / static_cast<double>(p.selection.flops_before);
  EXPECT_LE(p.ratio, flops);
  EXPECT_GE(p.ratio, flops - within);
  const Tensor x = test::random_tensor(shape, 5).cast(DType::kF32);
  const std::vector<Tensor> small = run(p.graph, x), full = run(with_masks(graph, p.groups, p.selection.removed), x);
  EXPECT_EQ(small.size(), full.size());
  for (size_t i = 0; i < small.size(); ++i) {
    EXPECT_EQ(small[i].shape(), full[i].shape());
    EXPECT_LE(test::relative_error(small[i], full[i]), 1e-5) << "output " << i;
  }
  // Something is left to compare.
  double largest = 0;
  for (double v : small[0].to_doubles()) largest = std::max(largest, std::abs(v));
  EXPECT_GT(largest, 1e-3);
  return p;
}

TEST(Channels, PlainCnnWithFlattenIntoGemm) {
  Net n;
  ValueId x = n.input({n.graph.symbol("batch"), 1, 12, 12});
  x = n.maxpool(n.relu(n.conv(x, 16, 3, "c1")));
  x = n.maxpool(n.relu(n.conv(x, 32, 3, "c2")));
  x = n.relu(n.gemm(n.flatten(x), 48, "f1"));
  n.finish(n.gemm(x, 10, "f2"));
  const Pruned p = check(n.graph, {3, 1, 12, 12}, 0.5);
  EXPECT_EQ(p.size("f1.w", 1), p.size("c2.w", 0) * 9);
  EXPECT_EQ(p.size("c1.w", 1), 1);
  EXPECT_EQ(p.size("f2.w", 0), 10);
}

TEST(Channels, CountsStayMultiplesOfTheBlock) {
  Net n;
  ValueId x = n.input({2, 3, 8, 8});
  x = n.relu(n.conv(x, 40, 3, "c1"));
  x = n.relu(n.conv(x, 100, 3, "c2"));
  x = n.relu(n.conv(x, 6, 3, "c3"));
  n.finish(n.gemm(n.flatten(x), 10, "f"));
  const Pruned p = check(n.graph, {2, 3, 8, 8}, 0.45, 0, 0.1);
  EXPECT_EQ(p.size("c1.w", 0) % 8, 0);
  EXPECT_TRUE(p.size("c2.w", 0) % 16 == 0) << p.size("c2.w", 0);
  EXPECT_EQ(p.size("c3.w", 0), 6);  // below one block: left alone
}

TEST(Channels, ResidualAdditionsCoupleTheTrunk) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 8, 8}), 32, 3, "stem"));
  for (const char* block : {"a", "b"}) {
    const std::string name = block;
    ValueId y = n.relu(n.conv(x, 24, 3, name + "1"));
    y = n.conv(y, 32, 3, name + "2");
    x = n.relu(n.op("Add", {x, y}));
  }
  x = n.flatten(n.op("GlobalAveragePool", {x}));
  n.finish(n.gemm(x, 7, "f"));
  const Pruned p = check(n.graph, {1, 3, 8, 8}, 0.4);
  EXPECT_LT(p.size("stem.w", 0), 32);
  EXPECT_EQ(p.size("stem.w", 0), p.size("a2.w", 0));
  EXPECT_EQ(p.size("stem.w", 0), p.size("b2.w", 0));
  EXPECT_EQ(p.size("stem.w", 0), p.size("f.w", 1));
}

TEST(Channels, ConcatenationKeepsEveryPartApart) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 8, 8}), 16, 3, "stem"));
  for (int i = 0; i < 3; ++i) {  // DenseNet: everything before is concatenated
    const ValueId y = n.relu(n.conv(x, 12, 3, fmt::format("d{}", i)));
    x = n.op("Concat", {x, y}, {{"axis", int64_t{1}}});
  }
  n.finish(n.conv(x, 5, 1, "head"));
  const Pruned p = check(n.graph, {1, 3, 8, 8}, 0.5);
  EXPECT_EQ(p.size("head.w", 1), p.size("stem.w", 0) + p.size("d0.w", 0) + p.size("d1.w", 0) + p.size("d2.w", 0));
}

TEST(Channels, ConcatenationWithAModelInputKeepsThatInput) {
  Net n;
  const ValueId in = n.input({1, 3, 6, 6});
  const ValueId y = n.op("Concat", {in, n.relu(n.conv(in, 20, 3, "c"))}, {{"axis", int64_t{1}}});
  n.finish(n.conv(y, 4, 3, "head"));
  const Pruned p = check(n.graph, {1, 3, 6, 6}, 0.6);
  EXPECT_EQ(p.size("head.w", 1), 3 + p.size("c.w", 0));
}

TEST(Channels, DepthwiseConvolutionsFollowTheirInput) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 8, 8}), 16, 3, "stem"));
  for (int i = 0; i < 2; ++i) {  // MobileNet: expand, depthwise, project, add
    const std::string b = fmt::format("b{}", i);
    ValueId y = n.relu(n.conv(x, 64, 1, b + ".expand"));
    y = n.relu(n.conv(y, 64, 3, b + ".depthwise", 64));
    y = n.conv(y, 16, 1, b + ".project");
    x = n.op("Add", {x, y});
  }
  n.finish(n.gemm(n.flatten(n.op("GlobalAveragePool", {x})), 5, "f"));
  const Pruned p = check(n.graph, {1, 3, 8, 8}, 0.5);
  EXPECT_LT(p.size("b0.depthwise.w", 0), 64);
  EXPECT_EQ(p.size("b0.depthwise.w", 0), p.size("b0.expand.w", 0));
  for (NodeId id : p.graph.order())
    if (p.graph.node(id).name == "b0.depthwise") {
      EXPECT_EQ(p.graph.node(id).attr_int("group", 1), p.size("b0.depthwise.w", 0));
    }
}

TEST(Channels, DepthwiseWithMultiplierRemovesAllOutputsOfAnInput) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 6, 6}), 12, 3, "c1"));
  x = n.relu(n.conv(x, 24, 3, "dw", 12));
  n.finish(n.conv(x, 4, 1, "head"));
  const Pruned p = check(n.graph, {1, 3, 6, 6}, 0.6, 1, 0.06);
  EXPECT_EQ(p.size("dw.w", 0), 2 * p.size("c1.w", 0));
}

TEST(Channels, GroupedConvolutionsLoseTheSamePositionsInEveryGroup) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 6, 6}), 32, 3, "c1"));
  x = n.relu(n.conv(x, 48, 3, "grouped", 4));
  n.finish(n.conv(x, 4, 1, "head"));
  const Pruned p = check(n.graph, {1, 3, 6, 6}, 0.5, 1, 0.1);
  EXPECT_EQ(p.size("c1.w", 0) % 4, 0);
  EXPECT_EQ(p.size("grouped.w", 0) % 4, 0);
  EXPECT_EQ(p.size("grouped.w", 1), p.size("c1.w", 0) / 4);
}

TEST(Channels, SplitSizesFollow) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 6, 6}), 40, 3, "c1"));
  const NodeId split = n.rw.add_node("Split", {x, n.ints({24, 16})}, {{"axis", int64_t{1}}}, "split", 2);
  const ValueId a = n.graph.node(split).outputs[0], b = n.graph.node(split).outputs[1];
  const ValueId y = n.op("Add", {n.conv(a, 16, 3, "a"), b});
  n.finish(n.conv(n.relu(y), 4, 1, "head"));
  const Pruned p = check(n.graph, {1, 3, 6, 6}, 0.5);
  EXPECT_EQ(p.size("a.w", 0), p.size("head.w", 1));
  EXPECT_EQ(p.size("c1.w", 0), p.size("a.w", 1) + p.size("a.w", 0));
}

TEST(Channels, EqualSplitWithoutSizesGetsThem) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 6, 6}), 32, 3, "c1"));
  const NodeId split = n.rw.add_node("Split", {x}, {{"axis", int64_t{1}}, {"num_outputs", int64_t{2}}}, "split", 2);
  const ValueId a = n.graph.node(split).outputs[0], b = n.graph.node(split).outputs[1];
  n.finish(n.op("Add", {n.conv(a, 4, 3, "a"), n.conv(b, 4, 1, "b")}));
  check(n.graph, {1, 3, 6, 6}, 0.5);
}

TEST(Channels, SlicesOfChannelsFollow) {
  Net n;
  const ValueId x = n.relu(n.conv(n.input({1, 3, 6, 6}), 32, 3, "c1"));
  const ValueId head = n.op("Slice", {x, n.ints({0}), n.ints({12}), n.ints({1})});
  const ValueId tail = n.op("Slice", {x, n.ints({-20}), n.ints({1 << 30}), n.ints({1})});
  n.finish(n.op("Add", {n.conv(head, 4, 3, "a"), n.conv(tail, 4, 3, "b")}));
  const Pruned p = check(n.graph, {1, 3, 6, 6}, 0.5);
  EXPECT_EQ(p.size("c1.w", 0), p.size("a.w", 1) + p.size("b.w", 1));
}

TEST(Channels, ReshapesThatSpellChannelsOutAreRewritten) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({n.graph.symbol("batch"), 3, 6, 6}), 40, 3, "c1"));
  x = n.op("Reshape", {x, n.ints({-1, 40 * 36})});
  x = n.op("Reshape", {x, n.ints({-1, 40, 6, 6})});  // and back
  x = n.relu(n.conv(x, 24, 3, "c2"));
  x = n.op("Reshape", {x, n.ints({0, 24, 36})});
  x = n.op("Transpose", {x}, {{"perm", std::vector<int64_t>{0, 2, 1}}});
  n.finish(n.linear(x, 6, "f"));
  const Pruned p = check(n.graph, {2, 3, 6, 6}, 0.5);
  EXPECT_LT(p.size("c2.w", 0), 24);
}

TEST(Channels, ReshapeToComputedBatchAndWrittenChannels) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({n.graph.symbol("batch"), 3, 4, 4}), 24, 3, "c1"));
  const ValueId batch = n.op("Gather", {n.op("Shape", {x}), n.ints({0})});
  const ValueId shape = n.op("Concat", {batch, n.ints({24 * 16})}, {{"axis", int64_t{0}}});
  n.finish(n.gemm(n.relu(n.op("Reshape", {x, shape})), 5, "f"));
  const Pruned p = check(n.graph, {2, 3, 4, 4}, 0.5);
  EXPECT_EQ(p.size("f.w", 1), 16 * p.size("c1.w", 0));
}

TEST(Channels, ReadingTheNumberOfChannelsPinsThem) {
  Net n;
  const ValueId x = n.relu(n.conv(n.input({1, 3, 4, 4}), 24, 3, "c1"));
  const ValueId count = n.op("Gather", {n.op("Shape", {x}), n.ints({1})});
  n.finish(n.conv(x, 4, 1, "head"));
  n.rw.add_output(count);
  const auto concrete_graph = specialised(n.graph, {1, 3, 4, 4});
  EXPECT_TRUE(find_channel_groups(n.graph, *concrete_graph).classes.empty());
}

TEST(Channels, TransformerFeedForwardShrinksAndTheTrunkStays) {
  Net n;
  ValueId x = n.input({n.graph.symbol("batch"), n.graph.symbol("time"), 16});
  const ValueId hidden = n.relu(n.linear(x, 64, "up"));
  x = n.op("Add", {x, n.linear(hidden, 16, "down")});
  n.finish(x);
  const Pruned p = check(n.graph, {2, 5, 16}, 0.5);
  EXPECT_EQ(p.size("up.w", 1), 32);
  EXPECT_EQ(p.size("down.w", 0), 32);
  EXPECT_EQ(p.size("down.w", 1), 16);
}

TEST(Channels, GatedBranchesAndActivationsThatDoNotKeepZero) {
  Net n;
  ValueId x = n.op("Sigmoid", {n.conv(n.input({1, 3, 8, 8}), 24, 3, "c1")});
  ValueId gate = n.op("GlobalAveragePool", {x});  // squeeze and excitation
  gate = n.relu(n.conv(gate, 8, 1, "squeeze"));
  gate = n.op("Sigmoid", {n.conv(gate, 24, 1, "excite")});
  x = n.op("Exp", {n.op("Mul", {x, gate})});
  n.finish(n.conv(x, 6, 3, "head"));
  const Pruned p = check(n.graph, {1, 3, 8, 8}, 0.5);
  EXPECT_EQ(p.size("excite.w", 0), p.size("c1.w", 0));
  EXPECT_EQ(p.size("squeeze.w", 1), p.size("c1.w", 0));
}

TEST(Channels, BatchNormalizationFollows) {
  Net n;
  const auto norm = [&](ValueId x, const std::string& name) {
    const int64_t c = n.channels(x);
    Tensor variance = Tensor::empty(DType::kF32, {c});
    for (int64_t i = 0; i < c; ++i) variance.mutable_data<float>()[i] = 0.5f + 0.1f * static_cast<float>(i);
    return n.op("BatchNormalization", {x, n.weight(name + ".scale", {c}), n.weight(name + ".bias", {c}), n.weight(name + ".mean", {c}),
                                       n.rw.add_constant(name + ".var", variance)});
  };
  ValueId x = n.relu(norm(n.conv(n.input({2, 3, 8, 8}), 24, 3, "c1"), "n1"));
  x = n.relu(norm(n.conv(x, 32, 3, "c2"), "n2"));
  n.finish(n.gemm(n.flatten(x), 5, "f"));
  const Pruned p = check(n.graph, {2, 3, 8, 8}, 0.5);
  EXPECT_EQ(p.size("n1.var", 0), p.size("c1.w", 0));
  EXPECT_EQ(p.size("n2.scale", 0), p.size("c2.w", 0));
}

TEST(Channels, LayerNormalizationPinsTheTrunk) {
  Net n;
  ValueId x = n.linear(n.input({n.graph.symbol("batch"), n.graph.symbol("time"), 12}), 24, "embed");
  for (const char* block : {"a", "b"}) {
    const std::string name = block;
    ValueId h = n.op("LayerNormalization", {x, n.weight(name + ".scale", {24}), n.weight(name + ".bias", {24})}, {{"axis", int64_t{-1}}});
    h = n.op("Erf", {n.linear(h, 96, name + ".up")});
    x = n.op("Add", {x, n.linear(h, 24, name + ".down")});
  }
  n.finish(n.linear(x, 7, "head"));
  const Pruned p = check(n.graph, {2, 5, 12}, 0.5);
  EXPECT_EQ(p.size("embed.w", 1), 24);
  EXPECT_LT(p.size("a.up.w", 1), 96);
  EXPECT_EQ(p.size("b.up.w", 1), p.size("b.down.w", 0));
}

TEST(Channels, EncoderAndDecoderWithSkipAndTransposedConvolution) {
  Net n;
  const ValueId skip = n.relu(n.conv(n.input({1, 3, 8, 8}), 20, 3, "c1"));
  ValueId x = n.relu(n.conv(n.maxpool(skip), 40, 3, "c2"));
  x = n.relu(n.rw.emit("ConvTranspose", {x, n.weight("up.w", {40, 24, 2, 2}), n.weight("up.b", {24})},
                       {{"strides", std::vector<int64_t>{2, 2}}}, "up"));
  x = n.op("Concat", {x, skip}, {{"axis", int64_t{1}}});
  n.finish(n.conv(x, 3, 3, "head"));
  const Pruned p = check(n.graph, {1, 3, 8, 8}, 0.5);
  EXPECT_EQ(p.size("up.w", 0), p.size("c2.w", 0));
  EXPECT_EQ(p.size("up.w", 1), p.size("up.b", 0));
  EXPECT_EQ(p.size("head.w", 1), p.size("up.w", 1) + p.size("c1.w", 0));
}

TEST(Channels, ExpandThatSpellsChannelsOut) {
  Net n;
  const ValueId x = n.relu(n.conv(n.input({2, 3, 6, 6}), 24, 3, "c1"));
  const ValueId wide = n.op("Expand", {n.op("GlobalAveragePool", {x}), n.ints({2, 24, 6, 6})});
  const ValueId same = n.op("Expand", {n.op("GlobalAveragePool", {x}), n.ints({1, 6, 6})});
  n.finish(n.conv(n.op("Add", {n.op("Mul", {x, wide}), same}), 4, 3, "head"));
  check(n.graph, {2, 3, 6, 6}, 0.5);
}

TEST(Channels, AttentionHeadsStayAndTheFeedForwardShrinks) {
  Net n;
  const ValueId x = n.input({n.graph.symbol("batch"), n.graph.symbol("time"), 16});
  const auto heads = [&](const char* name, std::vector<int64_t> perm) {
    return n.op("Transpose", {n.op("Reshape", {n.linear(x, 16, name), n.ints({0, 0, 4, 4})})}, {{"perm", std::move(perm)}});
  };
  const ValueId scores = n.op("MatMul", {heads("q", {0, 2, 1, 3}), heads("k", {0, 2, 3, 1})});
  ValueId y = n.op("MatMul", {n.op("Softmax", {scores}, {{"axis", int64_t{-1}}}), heads("v", {0, 2, 1, 3})});
  y = n.op("Reshape", {n.op("Transpose", {y}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}}), n.ints({0, 0, 16})});
  y = n.op("Add", {x, n.linear(y, 16, "o")});
  n.finish(n.op("Add", {y, n.linear(n.relu(n.linear(y, 64, "up")), 16, "down")}));
  const Pruned p = check(n.graph, {2, 5, 16}, 0.6);
  for (const char* name : {"q.w", "k.w", "v.w", "o.w"}) EXPECT_EQ(p.size(name, 1), 16) << name;
  EXPECT_LT(p.size("up.w", 1), 64);
}

TEST(Channels, QuantizedWeightsLoseTheirScales) {
  Net n;
  const auto quantized = [&](const std::string& name, Shape shape) {
    Tensor w = Tensor::empty(DType::kI8, shape);
    const Tensor values = test::random_tensor(shape, 77, -90, 90);
    for (int64_t i = 0; i < w.numel(); ++i) w.mutable_data<int8_t>()[i] = static_cast<int8_t>(values.data<double>()[i]);
    Tensor scale = test::random_tensor({shape[0]}, 78, 0.001, 0.004).cast(DType::kF32);
    return n.op("DequantizeLinear", {n.rw.add_constant(name + ".q", w), n.rw.add_constant(name + ".scale", scale)}, {{"axis", int64_t{0}}});
  };
  const Attributes same = {{"pads", std::vector<int64_t>{1, 1, 1, 1}}};
  ValueId x = n.input({1, 3, 8, 8});
  x = n.relu(n.rw.emit("Conv", {x, quantized("c1", {24, 3, 3, 3}), n.weight("c1.b", {24})}, same, "c1"));
  x = n.relu(n.rw.emit("Conv", {x, quantized("c2", {16, 24, 3, 3})}, same, "c2"));
  n.finish(n.conv(x, 4, 1, "head"));
  const Pruned p = check(n.graph, {1, 3, 8, 8}, 0.5);
  EXPECT_EQ(p.size("c1.scale", 0), p.size("c1.q", 0));
  EXPECT_EQ(p.size("c2.q", 1), p.size("c1.q", 0));
}

TEST(Channels, ChannelShuffleStaysWithItsReason) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 4, 4}), 24, 3, "c1"));
  x = n.op("Reshape", {x, n.ints({1, 2, 12, 4, 4})});
  x = n.op("Transpose", {x}, {{"perm", std::vector<int64_t>{0, 2, 1, 3, 4}}});
  x = n.op("Reshape", {x, n.ints({1, 24, 4, 4})});
  n.finish(n.conv(x, 4, 1, "head"));
  const auto concrete_graph = specialised(n.graph, {1, 3, 4, 4});
  const ChannelGroups groups = find_channel_groups(n.graph, *concrete_graph);
  EXPECT_TRUE(groups.classes.empty());
  const ChannelAxis* a = groups.find(n.graph.find_value("c1.w"), 0);
  ASSERT_NE(a, nullptr);
  EXPECT_NE(groups.pinned[static_cast<size_t>(a->channels[0])].find("splits these channels"), std::string::npos);
}

TEST(Channels, PaddedChannelsAreKept) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 4, 4}), 40, 3, "c1"));
  x = n.op("Pad", {x, n.ints({0, 2, 0, 0, 0, 3, 0, 0})});
  n.finish(n.conv(x, 4, 1, "head"));
  const Pruned p = check(n.graph, {1, 3, 4, 4}, 0.6);
  EXPECT_EQ(p.size("head.w", 1), p.size("c1.w", 0) + 5);
}

TEST(Channels, SharedWeightsCoupleTheirUses) {
  Net n;
  const ValueId x = n.input({2, 8});
  const ValueId w = n.weight("shared", {8, 8});
  const ValueId up = n.weight("up", {8, 24});
  const ValueId a = n.relu(n.op("MatMul", {x, up})), b = n.relu(n.op("MatMul", {n.op("MatMul", {x, w}), up}));
  n.finish(n.op("MatMul", {n.op("Mul", {a, b}), n.weight("down", {24, 8})}));
  const Pruned p = check(n.graph, {2, 8}, 0.5);
  EXPECT_EQ(p.size("shared", 0), 8);
  EXPECT_EQ(p.size("up", 1), p.size("down", 0));
}

TEST(Channels, ExcludedLayersKeepTheirShapes) {
  Net n;
  ValueId x = n.relu(n.conv(n.input({1, 3, 6, 6}), 16, 3, "c1"));
  x = n.relu(n.conv(x, 16, 3, "c2"));
  n.finish(n.conv(x, 4, 1, "head"));
  const auto concrete_graph = specialised(n.graph, {1, 3, 6, 6});
  const ChannelGroups groups = find_channel_groups(n.graph, *concrete_graph, {"c2"});
  for (const ChannelClass& c : groups.classes) FAIL() << c.name << " is coupled with an excluded layer";
  EXPECT_FALSE(find_channel_groups(n.graph, *concrete_graph, {"nothing*"}).classes.empty());
}

TEST(Channels, TheWeakestChannelsGo) {
  Net n;
  const ValueId x = n.relu(n.conv(n.input({1, 3, 4, 4}), 8, 3, "c1"));
  n.finish(n.conv(x, 4, 1, "head"));
  Tensor w = n.graph.value(n.graph.find_value("c1.w")).constant->clone();
  for (int64_t c : {1, 4, 5, 6})  // four channels of small weights
    for (int64_t i = 0; i < 27; ++i) w.mutable_data<float>()[c * 27 + i] *= 0.01f;
  n.rw.set_constant(n.graph.find_value("c1.w"), std::make_shared<const Tensor>(w));
  const Pruned p = check(n.graph, {1, 3, 4, 4}, 0.5);
  const ChannelAxis* a = p.groups.find(n.graph.find_value("c1.w"), 0);
  std::vector<int64_t> gone;
  for (size_t i = 0; i < a->channels.size(); ++i)
    if (p.selection.removed[static_cast<size_t>(a->channels[i])]) gone.push_back(static_cast<int64_t>(i));
  EXPECT_EQ(gone, (std::vector<int64_t>{1, 4, 5, 6}));
}

TEST(Channels, ATargetOutOfReachSaysHowFarOneCanGo) {
  Net n;
  const ValueId x = n.relu(n.conv(n.input({1, 3, 4, 4}), 16, 3, "c1"));
  n.finish(n.conv(x, 4, 1, "head"));
  const auto concrete_graph = specialised(n.graph, {1, 3, 4, 4});
  const ChannelGroups groups = find_channel_groups(n.graph, *concrete_graph);
  try {
    select_channels(n.graph, *concrete_graph, groups, {0.3, 8});
    FAIL() << "an impossible target was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("50.0 %"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace ds
