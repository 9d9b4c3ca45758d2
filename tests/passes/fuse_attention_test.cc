#include "libds/passes/fuse_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds {
namespace {

using Ints = std::vector<int64_t>;
constexpr int64_t kBatch = 2, kLength = 5, kHeads = 4, kSize = 6, kWidth = kHeads * kSize;

Tensor f32(Shape shape, uint64_t seed, double low = -1, double high = 1) { return test::random_tensor(std::move(shape), seed, low, high).cast(DType::kF32); }

// x [batch, length, width] with unnamed batch and length, and what is made of it.
struct Layer {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Rewriter rw{*graph};
  Dim batch = graph->symbol("batch"), length = graph->symbol("length");
  ValueId x = rw.add_input("x", DType::kF32, {batch, length, kWidth});
  std::vector<Tensor> feeds = {f32({kBatch, kLength, kWidth}, 1)};

  ValueId input(const char* name, Dims dims, Tensor feed) {
    feeds.push_back(std::move(feed));
    return rw.add_input(name, feeds.back().dtype(), std::move(dims));
  }
  ValueId ints(Ints v) { return rw.add_constant("i", Tensor::vector<int64_t>(std::span<const int64_t>(v))); }
  ValueId number(double v) { return rw.add_constant("c", Tensor::scalar<float>(static_cast<float>(v))); }
  ValueId op(std::string_view name, ValueId a, ValueId b) { return rw.emit(name, {a, b}); }
  ValueId linear(ValueId v, int64_t to, uint64_t seed) { return op("MatMul", v, rw.add_constant("w", f32({kWidth, to}, seed))); }
  ValueId transpose(ValueId v, Ints perm) { return rw.emit("Transpose", {v}, {{"perm", std::move(perm)}}); }
  ValueId tokens(ValueId v, int64_t heads = kHeads) { return op("Reshape", v, ints({0, -1, heads, kSize})); }
  ValueId heads(uint64_t seed, int64_t count = kHeads) { return transpose(tokens(linear(x, count * kSize, seed), count), {0, 2, 1, 3}); }
  ValueId softmax(ValueId v) { return rw.emit("Softmax", {v}, {{"axis", int64_t{-1}}}); }
  ValueId merged(ValueId v) { return op("Reshape", transpose(v, {0, 2, 1, 3}), ints({0, 0, kWidth})); }
  // Keys, values and queries of heads, [batch, heads, length, size].
  ValueId scores(ValueId q, ValueId k) { return op("MatMul", q, transpose(k, {0, 1, 3, 2})); }
  ValueId additive_mask() {
    Tensor m = Tensor::zeros(DType::kF32, {kBatch, 1, 1, kLength});
    m.mutable_data<float>()[3] = m.mutable_data<float>()[9] = std::numeric_limits<float>::lowest();
    return input("mask", {batch, 1, 1, length}, m);
  }
};

using Write = std::function<ValueId(Layer&)>;

std::vector<Tensor> run(const Layer& l) { return make_eager_executor(l.graph, {})->run(l.feeds); }

std::string ops_of(const Graph& g) {
  std::string list;
  for (NodeId id : g.order())
    if (!g.node(id).is("MatMul") && !g.node(id).is("Identity")) list += (list.empty() ? "" : " ") + g.node(id).op;
  return list;
}

// Fuses; the operators that are left beside the projections.
std::string fused(const Write& write, float* scale = nullptr) {
  Layer l;
  l.rw.add_output(l.rw.emit("Identity", {write(l)}, {}, "y"));
  const std::vector<Tensor> before = run(l);
  PassContext context;
  const bool changed = fuse_attention(l.rw, context);
  verify_graph(*l.graph);
  const std::vector<Tensor> now = run(l);
  for (size_t i = 0; i < now.size(); ++i) EXPECT_LE(test::relative_error(now[i], before[i]), 1e-5) << print_graph(*l.graph);
  for (NodeId id : l.graph->order())
    if (scale != nullptr && l.graph->node(id).is("Attention")) *scale = l.graph->node(id).attr_float("scale", -1);
  const std::string ops = ops_of(*l.graph);
  EXPECT_EQ(changed, ops.find("Attention") != std::string::npos);
  return ops;
}

TEST(FuseAttention, TransposesGo) {
  float scale = 0;
  const Write bert = [](Layer& l) {
    const ValueId q = l.heads(2), k = l.heads(3), v = l.heads(4);
    const ValueId s = l.op("Add", l.op("Div", l.scores(q, k), l.number(std::sqrt(6.0))), l.additive_mask());
    return l.merged(l.op("MatMul", l.softmax(s), v));
  };
  EXPECT_EQ(fused(bert, &scale), "Attention");
  EXPECT_FLOAT_EQ(scale, 1 / std::sqrt(6.0f));
}

TEST(FuseAttention, TheScaleMayStandAnywhere) {
  const double r = std::pow(6.0, -0.25);
  const std::vector<Write> list = {
      [&](Layer& l) { return l.op("MatMul", l.op("Mul", l.heads(2), l.number(r * r)), l.transpose(l.heads(3), {0, 1, 3, 2})); },
      [&](Layer& l) { return l.op("MatMul", l.op("Mul", l.heads(2), l.number(r)), l.op("Mul", l.number(r), l.transpose(l.heads(3), {0, 1, 3, 2}))); },
      [&](Layer& l) { return l.op("MatMul", l.op("Div", l.heads(2), l.number(1 / r)), l.transpose(l.op("Mul", l.heads(3), l.number(r)), {0, 1, 3, 2})); },
      [&](Layer& l) {
        const ValueId q = l.op("Reshape", l.op("Mul", l.linear(l.x, kWidth, 2), l.number(r * r)), l.ints({0, 0, kHeads, kSize}));
        return l.scores(l.transpose(q, {0, 2, 1, 3}), l.heads(3));
      },
      [&](Layer& l) { return l.op("Mul", l.number(r * r), l.op("MatMul", l.heads(2), l.transpose(l.tokens(l.linear(l.x, kWidth, 3)), {0, 2, 3, 1}))); },
  };
  for (const Write& scores : list) {
    float scale = 0;
    EXPECT_EQ(fused([&](Layer& l) { return l.merged(l.op("MatMul", l.softmax(scores(l)), l.heads(4))); }, &scale), "Attention");
    EXPECT_NEAR(scale, 1 / std::sqrt(6.0), 1e-7);
  }
}

TEST(FuseAttention, CappedScores) {
  const Write gemma = [](Layer& l) {
    const ValueId s = l.op("Mul", l.scores(l.heads(2), l.heads(3)), l.number(2));
    const ValueId capped = l.op("Mul", l.rw.emit("Tanh", {l.op("Div", s, l.number(3))}), l.number(3));
    return l.merged(l.op("MatMul", l.softmax(l.op("Add", capped, l.additive_mask())), l.heads(4)));
  };
  float scale = 0;
  EXPECT_EQ(fused(gemma, &scale), "Attention");
  EXPECT_FLOAT_EQ(scale, 2);
  EXPECT_EQ(fused([](Layer& l) {
    const ValueId capped = l.op("Mul", l.rw.emit("Tanh", {l.op("Div", l.scores(l.heads(2), l.heads(3)), l.number(3))}), l.number(4));
    return l.merged(l.op("MatMul", l.softmax(capped), l.heads(4)));
  }).find("Attention"), std::string::npos) << "two caps";
}

TEST(FuseAttention, OneTransposeForQueriesKeysAndValues) {
  for (int form = 0; form < 2; ++form) {
    const Write vit = [form](Layer& l) {
      const ValueId qkv = l.transpose(l.op("Reshape", l.linear(l.x, 3 * kWidth, 2), l.ints({0, -1, 3, kHeads, kSize})), {2, 0, 3, 1, 4});
      std::vector<ValueId> part;
      if (form == 0) {
        for (int64_t i = 0; i < 3; ++i) part.push_back(l.rw.emit("Gather", {qkv, l.rw.add_constant("i", Tensor::scalar<int64_t>(i))}));
      } else {
        part = l.graph->node(l.rw.add_node("Split", {qkv, l.ints({1, 1, 1})}, {{"axis", int64_t{0}}}, {}, 3)).outputs;
        for (ValueId& v : part) v = l.op("Squeeze", v, l.ints({0}));
      }
      const ValueId s = l.op("Mul", l.scores(part[0], part[1]), l.number(0.4));
      return l.merged(l.op("MatMul", l.softmax(s), part[2]));
    };
    EXPECT_EQ(fused(vit), "Split Attention") << form;
  }
}

TEST(FuseAttention, MasksByWhereAndSeveralOfThem) {
  const auto causal = [](Layer& l) {
    Tensor seen = Tensor::zeros(DType::kBool, {1, 1, kLength, kLength});
    for (int64_t i = 0; i < kLength; ++i)
      for (int64_t j = 0; j <= i; ++j) seen.mutable_data<bool>()[i * kLength + j] = true;
    return l.input("seen", {1, 1, l.length, l.length}, seen);
  };
  const double low = std::numeric_limits<float>::lowest();
  const Write gpt2 = [&](Layer& l) {
    const ValueId s = l.rw.emit("Where", {causal(l), l.scores(l.heads(2), l.heads(3)), l.number(low)});
    return l.merged(l.op("MatMul", l.softmax(l.op("Add", s, l.additive_mask())), l.heads(4)));
  };
  EXPECT_EQ(fused(gpt2), "Where Add Attention");
  const Write hidden = [&](Layer& l) {
    const ValueId s = l.op("Add", l.scores(l.heads(2), l.heads(3)), l.additive_mask());
    const ValueId p = l.softmax(l.rw.emit("Where", {l.rw.emit("Not", {causal(l)}), l.number(-1e30), s}));
    return l.merged(l.op("MatMul", p, l.heads(4)));
  };
  EXPECT_EQ(fused(hidden), "Not Where Attention");
  // Of a score and -10000 neither wins for certain.
  const Write mild = [&](Layer& l) {
    const ValueId s = l.rw.emit("Where", {causal(l), l.scores(l.heads(2), l.heads(3)), l.number(-1e4)});
    return l.merged(l.op("MatMul", l.softmax(s), l.heads(4)));
  };
  EXPECT_EQ(fused(mild).find("Attention"), std::string::npos);
}

// A mask of one column counts for every key; Attention would take it for the first key's.
TEST(FuseAttention, AMaskThatMayBroadcastAlongTheKeysIsExpanded) {
  for (int64_t columns : {int64_t{1}, kLength}) {
    const Write write = [&](Layer& l) {
      const ValueId mask = l.input("mask", {l.batch, 1, 1, l.graph->symbol("columns")}, f32({kBatch, 1, 1, columns}, 9));
      return l.merged(l.op("MatMul", l.softmax(l.op("Add", l.scores(l.heads(2), l.heads(3)), mask)), l.heads(4)));
    };
    EXPECT_EQ(fused(write), "Shape Expand Attention") << columns;
  }
}

TEST(FuseAttention, RowsThatSeeNothingGiveZerosWhereTheFileSaysSo) {
  const Write sdpa = [](Layer& l) {
    Tensor m = Tensor::zeros(DType::kF32, {kLength, kLength});
    for (int64_t i = 0; i < kLength; ++i) m.mutable_data<float>()[i] = -std::numeric_limits<float>::infinity();
    const ValueId p = l.softmax(l.op("Add", l.scores(l.heads(2), l.heads(3)), l.input("mask", {l.length, l.length}, m)));
    return l.merged(l.op("MatMul", l.rw.emit("Where", {l.rw.emit("IsNaN", {p}), l.number(0), p}), l.heads(4)));
  };
  EXPECT_EQ(fused(sdpa), "Attention");
}

TEST(FuseAttention, ACacheBecomesPastAndPresent) {
  const Write gpt2 = [](Layer& l) {
    const Dims past = {l.batch, kHeads, l.graph->symbol("past"), kSize};
    const auto append = [&](const char* name, ValueId fresh, uint64_t seed) {
      const ValueId whole = l.rw.emit("Concat", {l.input(name, past, f32({kBatch, kHeads, 3, kSize}, seed)), fresh}, {{"axis", int64_t{-2}}});
      l.rw.add_output(whole);
      return whole;
    };
    const ValueId k = append("past_k", l.heads(3), 7), v = append("past_v", l.heads(4), 8);
    const ValueId mask = l.input("mask", {l.batch, 1, 1, l.graph->symbol("total")}, f32({kBatch, 1, 1, kLength + 3}, 9));
    const ValueId s = l.op("Add", l.op("Mul", l.scores(l.heads(2), k), l.number(0.4)), mask);
    return l.merged(l.op("MatMul", l.softmax(s), v));
  };
  EXPECT_EQ(fused(gpt2), "Shape Shape Add Expand Attention");
}

TEST(FuseAttention, RepeatedHeadsAreReadOnce) {
  const Write llama = [](Layer& l) {
    const int64_t groups = 2;
    const auto repeat = [&](ValueId v) {
      const ValueId many = l.op("Expand", l.op("Unsqueeze", v, l.ints({2})), l.ints({1, 1, kHeads / groups, 1, 1}));
      return l.op("Reshape", many, l.ints({0, kHeads, -1, kSize}));
    };
    // Rotary positions keep the queries from being read untransposed.
    const ValueId q = l.rw.emit("Softsign", {l.heads(2)}), k = l.heads(3, groups), v = l.heads(4, groups);
    return l.merged(l.op("MatMul", l.softmax(l.op("Mul", l.scores(q, repeat(k)), l.number(0.4))), repeat(v)));
  };
  const std::string ops = fused(llama);
  EXPECT_NE(ops.find("Attention"), std::string::npos) << ops;
  EXPECT_EQ(ops.find("Expand"), std::string::npos) << ops;
}

TEST(FuseAttention, WhatCallersSeeOrDimensionsDoNotProveStays) {
  const auto plain = [](Layer& l, ValueId s) { return l.merged(l.op("MatMul", l.softmax(s), l.heads(4))); };
  EXPECT_EQ(fused([&](Layer& l) {
    const ValueId s = l.scores(l.heads(2), l.heads(3));
    l.rw.add_output(s);
    return plain(l, s);
  }).find("Attention"), std::string::npos) << "scores that callers see";
  EXPECT_EQ(fused([&](Layer& l) {
    const ValueId k = l.input("k", {l.graph->symbol("others"), kHeads, l.graph->symbol("keys"), kSize}, f32({kBatch, kHeads, kLength, kSize}, 7));
    return plain(l, l.scores(l.heads(2), k));
  }).find("Attention"), std::string::npos) << "a batch that may be another";
  EXPECT_EQ(fused([&](Layer& l) {
    const ValueId s = l.rw.emit("Softmax", {l.scores(l.heads(2), l.heads(3))}, {{"axis", int64_t{2}}});
    return l.merged(l.op("MatMul", s, l.heads(4)));
  }).find("Attention"), std::string::npos) << "a softmax over the queries";
}

}  // namespace
}  // namespace ds
