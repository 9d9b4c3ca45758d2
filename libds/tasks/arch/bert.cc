// Transformer encoder with a classification head: Devlin et al., "BERT", 2018; layer norm after each
// residual addition. No segment embeddings: a sequence is one segment.
//
// Legend: N batch, L sequence, D hidden, A heads, K = D / A.
// Inputs input_ids i64 [N, L] and attention_mask i64 [N, L] (1: look at it, 0: padding).
#include <cmath>

#include "libds/tasks/arch/net_builder.h"

namespace ds::arch {
namespace {

constexpr double kDeviation = 0.02;
constexpr float kEpsilon = 1e-12f;

struct Sizes {
  int64_t hidden, layers, heads, ffn, vocab, max_length, classes;
};

// Token plus position embeddings, normalised: [N, L, D].
ValueId embed(NetBuilder& net, ValueId ids, const Sizes& s) {
  const std::string name = "embeddings";
  const ValueId words = net.parameter(name + ".word_embeddings.weight", {s.vocab, s.hidden}, normal(kDeviation));
  const ValueId positions = net.parameter(name + ".position_embeddings.weight", {s.max_length, s.hidden}, normal(kDeviation));
  const ValueId tokens = net.emit("Gather", {words, ids}, name + ".word", {{"axis", int64_t{0}}});
  // The first L rows of the position table.
  const ValueId shape = net.emit("Shape", {ids}, name + ".shape");
  const ValueId length = net.emit("Gather", {shape, net.ints(name + ".one", {1})}, name + ".length", {{"axis", int64_t{0}}});
  const ValueId rows = net.emit("Slice", {positions, net.ints(name + ".begin", {0}), length, net.ints(name + ".axis", {0})}, name + ".position");
  return net.layer_norm(net.emit("Add", {tokens, rows}, name + ".sum"), name + ".LayerNorm", s.hidden, kEpsilon);
}

// 0 where attention_mask is 1, a large negative number where it is 0: [N, 1, 1, L].
ValueId additive_mask(NetBuilder& net, ValueId mask) {
  const ValueId wide = net.emit("Unsqueeze", {mask, net.ints("mask.axes", {1, 2})}, "mask.unsqueeze");
  const ValueId keep = net.emit("Cast", {wide}, "mask.cast", {{"to", static_cast<int64_t>(DType::kF32)}});
  const ValueId drop = net.emit("Sub", {net.scalar("mask.one", 1.0f), keep}, "mask.sub");
  return net.emit("Mul", {drop, net.scalar("mask.low", -10000.0f)}, "mask");
}

ValueId attention(NetBuilder& net, ValueId x, ValueId mask, const std::string& name, const Sizes& s) {
  const int64_t k = s.hidden / s.heads;
  const auto heads = [&](const char* which, std::vector<int64_t> perm) {  // [N, L, D] to [N, A, L, K] or [N, A, K, L]
    const std::string n = name + ".self." + which;
    const ValueId y = net.dense(x, n, s.hidden, s.hidden, normal(kDeviation));
    const ValueId split = net.emit("Reshape", {y, net.ints(n + ".shape", {0, 0, s.heads, k})}, n + ".split");
    return net.emit("Transpose", {split}, n + ".heads", {{"perm", std::move(perm)}});
  };
  const ValueId q = heads("query", {0, 2, 1, 3}), keys = heads("key", {0, 2, 3, 1}), v = heads("value", {0, 2, 1, 3});
  const ValueId scores = net.emit("MatMul", {q, keys}, name + ".self.scores");
  const ValueId scaled = net.emit("Div", {scores, net.scalar(name + ".self.root", std::sqrt(static_cast<float>(k)))}, name + ".self.scaled");
  const ValueId weights = net.emit("Softmax", {net.emit("Add", {scaled, mask}, name + ".self.masked")}, name + ".self.softmax", {{"axis", int64_t{-1}}});
  const ValueId mixed = net.emit("Transpose", {net.emit("MatMul", {weights, v}, name + ".self.context")}, name + ".self.back",
                                 {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
  const ValueId joined = net.emit("Reshape", {mixed, net.ints(name + ".self.shape", {0, 0, s.hidden})}, name + ".self.join");
  const ValueId out = net.dense(joined, name + ".output.dense", s.hidden, s.hidden, normal(kDeviation));
  return net.layer_norm(net.emit("Add", {out, x}, name + ".output.sum"), name + ".output.LayerNorm", s.hidden, kEpsilon);
}

}  // namespace

void build_bert(NetBuilder& net, const ArchOptions& o) {
  Sizes s;
  s.hidden = size_or(o.hidden, 768, "--hidden");
  s.layers = size_or(o.layers, 12, "--layers");
  s.heads = size_or(o.heads, std::max<int64_t>(1, s.hidden / 64), "--heads");
  s.ffn = size_or(o.ffn, 4 * s.hidden, "--ffn");
  s.vocab = size_or(o.vocab, 30522, "--vocab");
  s.max_length = size_or(o.max_length, 512, "--max-length");
  s.classes = size_or(o.classes, 2, "--classes");
  if (s.hidden % s.heads != 0) fail(ExitCode::kUsage, "bert: --hidden {} is not divisible by --heads {}", s.hidden, s.heads);
  if (o.attention != "full") fail(ExitCode::kUsage, "bert: attention '{}' is not known (known: full)", o.attention);

  Graph& g = net.graph();
  const Dims dims{g.symbol("batch"), g.symbol("sequence")};
  const ValueId ids = net.rewriter().add_input("input_ids", DType::kI64, dims);
  const ValueId mask_input = net.rewriter().add_input("attention_mask", DType::kI64, dims);
  const ValueId mask = additive_mask(net, mask_input);
  ValueId x = embed(net, ids, s);
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string name = fmt::format("encoder.layer.{}", i);
    x = attention(net, x, mask, name + ".attention", s);
    const ValueId up = net.gelu(net.dense(x, name + ".intermediate.dense", s.hidden, s.ffn, normal(kDeviation)), name + ".intermediate.gelu");
    const ValueId down = net.dense(up, name + ".output.dense", s.ffn, s.hidden, normal(kDeviation));
    x = net.layer_norm(net.emit("Add", {down, x}, name + ".output.sum"), name + ".output.LayerNorm", s.hidden, kEpsilon);
  }
  // The first token stands for the sequence.
  const ValueId first = net.emit("Gather", {x, net.rewriter().add_constant("pooler.index", Tensor::scalar<int64_t>(0))}, "pooler.first", {{"axis", int64_t{1}}});
  const ValueId pooled = net.emit("Tanh", {net.linear(first, "pooler.dense", s.hidden, s.hidden, normal(kDeviation))}, "pooler");
  net.output(net.linear(pooled, "classifier", s.hidden, s.classes, normal(kDeviation)));
}

}  // namespace ds::arch
