// Operators of domain com.microsoft: their gradients, and forms that onnxruntime's CPU kernels do not run; the
// others are compared with onnxruntime by tests/python/ops_vs_ort.py and tests/python/decoder_vs_ort.py.
#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "tests/support/op_check.h"

namespace ds::test {
namespace {

std::vector<Tensor> run_microsoft(const char* op, const std::vector<Tensor>& inputs, Attributes attrs, size_t outputs = 1) {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  Node n;
  n.domain = "com.microsoft";
  n.op = n.name = op;
  n.def = OpRegistry::instance().find(n.domain, op);
  n.attrs = std::move(attrs);
  std::vector<Tensor> given;
  for (const Tensor& t : inputs) {
    n.inputs.push_back(t.defined() ? rw.add_input("in", t.dtype(), to_dims(t.shape())) : kNone);
    if (t.defined()) given.push_back(t);
  }
  for (size_t i = 0; i < outputs; ++i) n.outputs.push_back(rw.add_value(rw.unique_name("out")));
  const std::vector<ValueId> results = n.outputs;
  rw.infer(rw.add_raw_node(std::move(n)));
  for (ValueId id : results) rw.add_output(id);
  return make_eager_executor(graph, CompileOptions{})->run(given);
}

constexpr int64_t B = 2, L = 3, H = 2, D = 4;
const Attributes kHeads = {{"num_heads", H}};

// [B, L, H, n, D] of n tensors [B, L, H D].
Tensor packed(const std::vector<Tensor>& parts) {
  const auto n = static_cast<int64_t>(parts.size());
  Tensor all = Tensor::empty(DType::kF64, {B, L, H, n, D});
  for (int64_t i = 0; i < B * L * H; ++i)
    for (int64_t p = 0; p < n; ++p)
      for (int64_t d = 0; d < D; ++d) all.mutable_data<double>()[(i * n + p) * D + d] = parts[static_cast<size_t>(p)].data<double>()[i * D + d];
  return all;
}

OpCase microsoft(const char* op, std::vector<Tensor> inputs, Attributes attrs = {}, const char* name = "", size_t outputs = 1) {
  OpCase c{op, std::move(inputs), std::move(attrs), outputs};
  c.domain = "com.microsoft";
  c.name = name;
  return c;
}

Tensor whole(Shape shape, const std::vector<int64_t>& values) {
  Tensor t = Tensor::empty(DType::kI64, std::move(shape));
  std::copy(values.begin(), values.end(), t.mutable_data<int64_t>());
  return t;
}
Tensor i32(const std::vector<int32_t>& values) { return Tensor::vector<int32_t>(values); }

std::vector<OpCase> float_cases() {
  const Tensor x = random_tensor({2, 3, 8}, 1), y = random_tensor({2, 3, 8}, 2), row = random_tensor({8}, 3), other = random_tensor({8}, 4), third = random_tensor({8}, 5);
  const Tensor image = random_tensor({2, 3, 5, 4}, 1), filter = random_tensor({4, 3, 3, 3}, 2), filter_bias = random_tensor({4}, 3);
  const Tensor words = random_tensor({6, 8}, 1), places = random_tensor({5, 8}, 2), kinds = random_tensor({2, 8}, 3);
  const Tensor ids = whole({2, 3}, {0, 5, 2, 2, 1, 0}), kind = whole({2, 3}, {0, 1, 1, 0, 0, 1}), at = whole({2, 3}, {4, 0, 1, 1, 3, 2});
  const auto one = int64_t{1};
  return {
      microsoft("Gelu", {x}),
      microsoft("BiasGelu", {x, row}),
      microsoft("FastGelu", {x, row}),
      microsoft("QuickGelu", {x}),
      microsoft("FusedMatMul", {random_tensor({2, 4, 3}, 1), random_tensor({5, 4}, 2)}, {{"transA", one}, {"transB", one}, {"alpha", 0.5f}}),
      microsoft("FusedMatMul", {random_tensor({3, 2, 4}, 1), random_tensor({2, 4, 5}, 2)}, {{"transBatchA", one}}, "batch"),
      microsoft("TransposeMatMul", {random_tensor({2, 3, 4}, 1), random_tensor({2, 3, 5}, 2)}, {{"transA", one}}),
      microsoft("FusedGemm", {random_tensor({3, 4}, 1), random_tensor({4, 5}, 2), random_tensor({5}, 3)}, {{"activation", std::string("LeakyRelu")}, {"activation_alpha", 0.2f}}),
      microsoft("FusedConv", {image, filter, filter_bias}, {{"activation", std::string("Tanh")}, {"pads", std::vector<int64_t>{1, 1, 1, 1}}}),
      microsoft("FusedConv", {image, filter, filter_bias, random_tensor({2, 4, 3, 2}, 4)}, {{"activation", std::string("Relu")}}, "sum"),
      microsoft("SkipLayerNormalization", {x, y, row, other, third}),
      microsoft("SkipSimplifiedLayerNormalization", {x, y, row, other}),
      microsoft("EmbedLayerNormalization", {ids, kind, words, places, kinds, row, other}),
      microsoft("EmbedLayerNormalization", {ids, kind, words, places, kinds, row, other, Tensor(), at}, {}, "positions"),
  };
}

std::vector<OpCase> attention_cases() {
  const Tensor x = random_tensor({B, L, 5}, 1), w = random_tensor({5, 3 * H * D}, 2), w_bias = random_tensor({3 * H * D}, 3);
  const Tensor q = random_tensor({B, L, H * D}, 1), k = random_tensor({B, L, H * D}, 2), v = random_tensor({B, L, H * D}, 3);
  const Tensor past_k = random_tensor({B, H, 2, D}, 4), past_v = random_tensor({B, H, 2, D}, 5);
  const Tensor cos = random_tensor({9, D / 2}, 6), sin = random_tensor({9, D / 2}, 7);
  const Attributes group = {{"num_heads", H}, {"kv_num_heads", int64_t{1}}};
  Attributes rotated = group;
  rotated["do_rotary"] = int64_t{1};
  const Tensor gk = random_tensor({B, L, D}, 8), gv = random_tensor({B, L, D}, 9), cache_k = random_tensor({B, 1, 6, D}, 10), cache_v = random_tensor({B, 1, 6, D}, 11);
  const Tensor roomy_k = random_tensor({B, H, 6, D}, 12), roomy_v = random_tensor({B, H, 6, D}, 13);
  const Tensor one_q = random_tensor({B, 1, H * D}, 14), one_k = random_tensor({B, 1, H * D}, 15), one_v = random_tensor({B, 1, H * D}, 16);
  const Tensor beams = Tensor::of<int32_t>({1, 2, 6}, {1, 0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0});
  // Tables of cosines and sines are no parameters.
  const auto by = [](OpCase c, std::vector<int> wrt) {
    c.wrt = std::move(wrt);
    return c;
  };
  return {
      microsoft("Attention", {x, w, w_bias}, {{"num_heads", H}, {"unidirectional", int64_t{1}}}),
      microsoft("Attention", {x, w, w_bias, i32({3, 2}), random_tensor({2, B, H, 2, D}, 4), random_tensor({B, H, L, L + 2}, 5)}, kHeads, "past", 2),
      microsoft("MultiHeadAttention", {q, k, v, random_tensor({3 * H * D}, 4)}, kHeads),
      microsoft("MultiHeadAttention", {q, k, v, Tensor(), Tensor(), Tensor(), past_k, past_v}, {{"num_heads", H}, {"unidirectional", int64_t{1}}}, "past", 3),
      by(microsoft("MultiHeadAttention", {q, k, v, Tensor(), Tensor(), random_tensor({1, H, L, L}, 5)}, kHeads, "scores", 4), {-1}),
      microsoft("MultiHeadAttention", {q, k, v, Tensor(), Tensor(), Tensor(), roomy_k, roomy_v, i32({2})}, {{"num_heads", H}, {"unidirectional", int64_t{1}}}, "room", 3),
      microsoft("DecoderMaskedMultiHeadAttention", {one_q, one_k, one_v, Tensor(), random_tensor({B, H, 1, 4}, 5), roomy_k, roomy_v, i32({3})}, kHeads, "", 3),
      microsoft("DecoderMaskedMultiHeadAttention", {one_q, one_k, one_v, Tensor(), Tensor(), roomy_k, roomy_v, i32({3}), i32({2}), beams}, kHeads, "beams", 3),
      microsoft("GroupQueryAttention", {q, gk, gv, Tensor(), Tensor(), i32({2, 1}), i32({3})}, group, "prompt", 3),
      microsoft("GroupQueryAttention", {q, gk, gv, Tensor(), Tensor(), i32({2, 2}), i32({3}), Tensor(), Tensor(), Tensor(), random_tensor({1, H, L, L}, 7), random_tensor({H}, 6)},
                group, "sink", 3),
      by(microsoft("GroupQueryAttention", {q, gk, gv, cache_k, cache_v, i32({4, 5}), i32({6}), cos, sin}, rotated, "cache", 3), {0, 1, 2, 3, 4}),
      by(microsoft("GroupQueryAttention", {q, gk, gv, cache_k, cache_v, i32({4, 7}), i32({8})}, group, "growing", 3), {0, 1, 2, 3, 4}),
      by(microsoft("RotaryEmbedding", {q, whole({1}, {4}), cos, sin}), {0}),
      by(microsoft("RotaryEmbedding", {random_tensor({B, H, L, D}, 1), whole({B, L}, {0, 8, 3, 4, 4, 1}), cos, sin}, {{"interleaved", int64_t{1}}}, "positions"), {0}),
  };
}

const bool added = add_cases(float_cases()) && add_cases(attention_cases()) && add_cases({{"SimplifiedLayerNormalization", {random_tensor({2, 3, 8}, 1), random_tensor({8}, 2)}}});

TEST(Microsoft, MultiHeadAttentionTakesPackedOperands) {
  const Tensor q = random_tensor({B, L, H * D}, 1), k = random_tensor({B, L, H * D}, 2), v = random_tensor({B, L, H * D}, 3);
  const Tensor bias = random_tensor({3 * H * D}, 4);
  for (const Tensor& b : {Tensor(), bias}) {
    const Tensor expected = run_microsoft("MultiHeadAttention", {q, k, v, b}, kHeads)[0];
    EXPECT_EQ(relative_error(run_microsoft("MultiHeadAttention", {packed({q, k, v}), Tensor(), Tensor(), b}, kHeads)[0], expected), 0);
    EXPECT_EQ(relative_error(run_microsoft("MultiHeadAttention", {q, packed({k, v}), Tensor(), b}, kHeads)[0], expected), 0);
  }
}

TEST(Microsoft, CachesAreNotWrittenBesideTheirRows) {
  const Tensor q = random_tensor({B, 1, H * D}, 1), k = random_tensor({B, 1, D}, 2), cache = random_tensor({B, 1, 6, D}, 3);
  const auto step = [&](const std::vector<int32_t>& last, int32_t total) {
    return run_microsoft("GroupQueryAttention", {q, k, k, cache, cache, i32(last), i32({total})}, {{"num_heads", H}, {"kv_num_heads", int64_t{1}}}, 3);
  };
  EXPECT_EQ(step({4, 5}, 6)[1].shape(), (Shape{B, 1, 6, D}));
  EXPECT_EQ(step({4, 6}, 7)[1].shape(), (Shape{B, 1, 7, D}));
  EXPECT_THROW(step({4, 6}, 6), Error);
  EXPECT_THROW(step({4, -1}, 6), Error);
  EXPECT_THROW(step({4}, 6), Error);
}

TEST(Microsoft, WhatIsNotSupportedIsSaid) {
  const Tensor x = random_tensor({B, L, 5}, 1), w = random_tensor({5, 3 * H * D}, 2);
  const auto code = [](auto&& run) {
    try {
      run();
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::kOk;
  };
  EXPECT_EQ(code([&] { run_microsoft("Attention", {x, w}, {{"num_heads", H}, {"do_rotary", int64_t{1}}}); }), ExitCode::kUnsupported);
  EXPECT_EQ(code([&] { run_microsoft("Attention", {x, w}, {{"num_heads", int64_t{5}}}); }), ExitCode::kBadData);
  EXPECT_EQ(code([&] { run_microsoft("Attention", {x, w, Tensor(), Tensor::vector<int32_t>(std::vector<int32_t>(8, 1))}, kHeads); }), ExitCode::kUnsupported);
}

}  // namespace
}  // namespace ds::test
