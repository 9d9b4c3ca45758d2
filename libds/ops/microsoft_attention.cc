// The attention operators of domain com.microsoft, lowered into ONNX's Attention.
//
// Legend: B samples, H query heads, G heads of keys, L new tokens, P past ones, T = P + L, D and E elements
// in a head of keys and of values. Masks become a tensor added to the scores, as onnxruntime does it:
// mask_filter_value where a key is not to be seen.
#include <algorithm>
#include <limits>

#include "libds/ops/lowering.h"
#include "libds/ops/microsoft.h"

namespace ds::ops {
namespace {

[[noreturn]] void unsupported(const char* what) { fail(ExitCode::kUnsupported, "{} is not supported", what); }

int64_t head_count(const Node& n, const char* attr = "num_heads") {
  const int64_t heads = n.attr_int(attr, 0);
  if (heads < 1) bad_data("{} is {}", attr, heads);
  return heads;
}

Dim sum_of(InferContext& c, Dim a, Dim b) {
  if (a.known() && b.known()) return checked_add(a.raw, b.raw);
  return c.fresh_dim();
}
Dim times(InferContext& c, Dim a, int64_t b) { return a.known() ? Dim(checked_mul(a.raw, b)) : c.fresh_dim(); }
Dim over(InferContext& c, Dim a, int64_t b) {
  if (a.known() && a.raw % b != 0) c.error("{} elements do not divide into {} heads", a.raw, b);
  return a.known() ? Dim(a.raw / b) : c.fresh_dim();
}

// [B, length, heads * size] to [B, heads, length, size], and back.
ValueId heads(Lowering& l, ValueId x, int64_t count) {
  return l.emit("Transpose", {l.emit("Reshape", {x, l.ints({0, 0, count, -1})})}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
}
ValueId tokens(Lowering& l, ValueId x) {
  return l.emit("Reshape", {l.emit("Transpose", {x}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}}), l.ints({0, 0, -1})});
}
ValueId size_of(Lowering& l, ValueId x, int64_t axis) { return l.emit("Shape", {x}, {{"start", axis}, {"end", axis + 1}}); }
// 0 .. n-1, where n has one element.
ValueId count_to(Lowering& l, ValueId n) {
  return l.emit("Range", {l.scalar(0, DType::kI64), l.emit("Squeeze", {n}), l.scalar(1, DType::kI64)});
}
ValueId either(Lowering& l, ValueId a, ValueId b) { return a == kNone ? b : b == kNone ? a : l.emit("Add", {a, b}); }

Attributes attention_attributes(const Node& n) {
  Attributes attrs;
  if (const float scale = n.attr_float("scale", 0); scale != 0) attrs["scale"] = scale;
  return attrs;
}

// What a mask of integers adds to the scores. By rank: how many keys of each sample are seen (and, in twice
// as many numbers, from which on), [B, T], [B, L, T]. kNone: cannot be told yet.
ValueId mask_bias(Lowering& l, ValueId mask, Dim batch, ValueId total, DType dtype) {
  const Dims shape = *l.dims(mask);
  const DType given = l.dtype(mask);
  ValueId seen;
  if (shape.size() == 1) {
    const bool pairs = shape[0].known() && batch.known() && shape[0].raw == 2 * batch.raw;
    if (!(shape[0] == batch) && !pairs) {
      if (shape[0].known() && batch.known()) unsupported("a mask of this length");
      return kNone;
    }
    const ValueId key = l.cast(count_to(l, total), given);
    const auto column = [&](ValueId x) { return l.emit("Unsqueeze", {x, l.ints({1})}); };
    if (pairs) {
      const auto parts = l.emit_all("Split", {mask}, {{"num_outputs", int64_t{2}}}, 2);
      seen = l.emit("And", {l.emit("Less", {key, column(parts[0])}), l.emit("GreaterOrEqual", {key, column(parts[1])})});
    } else {
      seen = l.emit("Less", {key, column(mask)});
    }
  } else {
    seen = l.emit("Greater", {mask, l.scalar(0, given)});
  }
  seen = l.emit("Unsqueeze", {seen, shape.size() == 3 ? l.ints({1}) : l.ints({1, 2})});
  const auto filter = static_cast<double>(l.node().attr_float("mask_filter_value", -10000.0f));
  return l.emit("Where", {seen, l.scalar(0, dtype), l.scalar(filter, dtype)});
}

// --- Attention -----------------------------------------------------------------------------------

enum Packed : size_t { kInput, kWeights, kBias, kMaskIndex, kPast, kScoreBias, kPastLength };

void infer_attention(InferContext& c) {
  c.require_dtype(kInput, kFloats);
  const Node& n = c.node();
  if (n.attr_int("do_rotary", 0) != 0) unsupported("do_rotary");
  if (n.attr_int("past_present_share_buffer", 0) != 0 || c.has_input(kPastLength)) unsupported("a cache shared by past and present");
  c.require_dtype(kMaskIndex, {DType::kI32, DType::kI64});
  c.require_rank(kInput, 3);
  c.require_rank(kWeights, 2);
  c.require_rank(kPast, 5);
  if (c.has_dims(kMaskIndex) && (c.dims(kMaskIndex).empty() || c.dims(kMaskIndex).size() > 3)) unsupported("a mask of this rank");
  const int64_t H = head_count(n);
  const std::vector<int64_t> sizes = n.attr_ints("qkv_hidden_sizes");
  if (!sizes.empty() && (sizes.size() != 3 || sizes[0] != sizes[1])) c.error("qkv_hidden_sizes must be three, the first two equal");
  for (int64_t size : sizes)
    if (size < H || size % H != 0) c.error("{} elements do not divide into {} heads", size, H);
  c.set_output(0, c.dtype(kInput));
  c.set_output(1, c.dtype(kInput));
  if (!c.has_dims(kInput) || !c.has_dims(kWeights)) return;
  const Dims x = c.dims(kInput);
  const Dim hidden = sizes.empty() ? over(c, c.dims(kWeights)[1], 3) : Dim(sizes[2]);
  const Dim D = over(c, sizes.empty() ? hidden : Dim(sizes[0]), H);
  c.set_output(0, c.dtype(kInput), Dims{x[0], x[1], hidden});
  Dim total = x[1];
  if (c.has_input(kPast)) total = c.has_dims(kPast) ? sum_of(c, x[1], c.dims(kPast)[3]) : c.fresh_dim();
  c.set_output(1, c.dtype(kInput), Dims{Dim(2), x[0], Dim(H), total, D});
}

bool lower_attention(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  const Node& n = l.node();
  if (!l.dims(l.in(kInput)) || !l.dims(l.in(kWeights)) || (l.has(kMaskIndex) && !l.dims(l.in(kMaskIndex)))) return false;
  const Dim columns = (*l.dims(l.in(kWeights)))[1];
  std::vector<int64_t> sizes = n.attr_ints("qkv_hidden_sizes");
  if (sizes.empty() && !columns.known()) return false;
  if (sizes.empty()) sizes.assign(3, columns.raw / 3);
  const DType dtype = l.dtype(l.in(kInput));
  ValueId total = size_of(l, l.in(kInput), 1);
  if (l.has(kPast)) total = l.emit("Add", {total, size_of(l, l.in(kPast), 3)});
  ValueId bias = l.has(kScoreBias) ? l.in(kScoreBias) : kNone;
  if (l.has(kMaskIndex)) {
    const ValueId mask = mask_bias(l, l.in(kMaskIndex), (*l.dims(l.in(kInput)))[0], total, dtype);
    if (mask == kNone) return false;
    bias = either(l, bias, mask);
  }
  ValueId qkv = l.emit("MatMul", {l.in(kInput), l.in(kWeights)});
  if (l.has(kBias)) qkv = l.emit("Add", {qkv, l.in(kBias)});
  const auto parts = l.emit_all("Split", {qkv, l.ints(sizes)}, {{"axis", int64_t{-1}}}, 3);
  std::vector<ValueId> inputs = {parts[0], parts[1], parts[2], bias};
  if (l.has(kPast))
    for (int64_t i : {0, 1}) inputs.push_back(l.emit("Gather", {l.in(kPast), l.scalar(static_cast<double>(i), DType::kI64)}));
  Attributes attrs = attention_attributes(n);
  attrs["q_num_heads"] = attrs["kv_num_heads"] = head_count(n);
  attrs["is_causal"] = n.attr_int("unidirectional", 0);
  while (inputs.back() == kNone) inputs.pop_back();
  const auto y = l.emit_all("Attention", inputs, attrs, l.wants(1) ? 3 : 1);
  l.set(0, y[0]);
  if (l.wants(1)) {
    const auto first = [&](ValueId x) { return l.emit("Unsqueeze", {x, l.ints({0})}); };
    l.set(1, l.emit("Concat", {first(y[1]), first(y[2])}, {{"axis", int64_t{0}}}));
  }
  return true;
}

// --- MultiHeadAttention, DecoderMaskedMultiHeadAttention -----------------------------------------

constexpr size_t kQuery = 0, kKey = 1, kValue = 2;

// Where the other inputs of the two are. With a past_length the cache has room for more: its first past_length
// rows are read, the new ones written behind them, and what is present has its size. An indirection [samples,
// beams, rows] names for each sample's beams whose row of the cache they follow; batches hold beam after beam.
struct Multi {
  size_t all_bias, padding, score_bias, past_key, past_value, past_length, indirection;
};
constexpr Multi kMultiHead = {3, 4, 5, 6, 7, 8, 9}, kDecoder = {10, 3, 4, 5, 6, 7, 9};

// Layouts: query [B, L, H D] with key and value alike, or [B, H, S, D] (from a cache), or keys and values in
// one [B, S, H, 2, D]; or all three in [B, L, H, 3, D].
void infer_multi_head(InferContext& c, const Multi& at) {
  c.require_dtype(kQuery, kFloats);
  for (size_t i : {at.past_length, at.indirection}) c.require_dtype(i, {DType::kI32});
  c.require_rank(at.indirection, 3);
  if (c.has_input(at.past_length) && !c.has_input(at.past_key)) c.error("past_sequence_length comes without past keys");
  if (c.has_input(at.indirection) && !c.has_input(at.past_length)) c.error("cache_indirection comes without past_sequence_length");
  if (c.node().output(3) != kNone && c.has_input(at.past_length)) unsupported("output 3 (qk) beside past_sequence_length");
  c.require_dtype(at.padding, {DType::kI32, DType::kI64});
  if (c.has_dims(at.padding) && (c.dims(at.padding).empty() || c.dims(at.padding).size() > 3)) unsupported("a mask of this rank");
  for (size_t i : {at.past_key, at.past_value}) c.require_rank(i, 4);
  if (c.has_input(at.past_key) != c.has_input(at.past_value)) c.error("past_key and past_value go together");
  const int64_t H = head_count(c.node());
  for (size_t i : {0, 1, 2, 3}) c.set_output(i, c.dtype(kQuery));
  if (!c.has_dims(kQuery) || (c.has_input(kKey) && !c.has_dims(kKey)) || (c.has_input(kValue) && !c.has_dims(kValue))) return;
  const Dims q = c.dims(kQuery);
  if (q.size() != 3 && q.size() != 5) c.error("the query has rank {}, expected 3 or 5", q.size());
  Dim D, S, E;
  if (q.size() == 5) {
    if (c.has_input(kKey)) c.error("a query that holds keys and values comes with none");
    D = E = q[4];
    S = q[1];
  } else if (!c.has_input(kKey)) {
    c.error("there is no key");
  } else {
    D = over(c, q[2], H);
    const Dims k = c.dims(kKey);
    if (k.size() == 5 ? c.has_input(kValue) : !c.has_input(kValue)) c.error("key of rank {} and value do not go together", k.size());
    if (k.size() < 3 || k.size() > 5 || (k.size() != 5 && c.dims(kValue).size() != k.size())) c.error("the key has rank {}", k.size());
    if (k.size() == 4 && (c.has_input(at.all_bias) || c.has_input(at.past_key))) unsupported("a bias or past keys beside keys from a cache");
    S = k[k.size() == 4 ? 2 : 1];
    E = k.size() == 5 ? k[4] : k.size() == 4 ? c.dims(kValue)[3] : over(c, c.dims(kValue)[2], H);
  }
  if (c.has_input(at.past_key)) {
    const Dim past = c.has_dims(at.past_key) ? c.dims(at.past_key)[2] : c.fresh_dim();
    S = c.has_input(at.past_length) ? past : sum_of(c, S, past);
  }
  c.set_output(0, c.dtype(kQuery), Dims{q[0], q[1], times(c, E, H)});
  c.set_output(1, c.dtype(kQuery), Dims{q[0], Dim(H), S, D});
  c.set_output(2, c.dtype(kQuery), Dims{q[0], Dim(H), S, E});
  c.set_output(3, c.dtype(kQuery), Dims{q[0], Dim(H), q[1], S});
}

// The rows of a cache [samples * beams, H, rows, size] that each beam follows.
ValueId followed(Lowering& l, ValueId cache, ValueId indirection) {
  const auto part = [&](int64_t axis) { return size_of(l, indirection, axis); };
  const auto joined = [&](std::vector<ValueId> sizes) { return l.emit("Concat", std::move(sizes), {{"axis", int64_t{0}}}); };
  const ValueId rest = l.emit("Shape", {cache}, {{"start", int64_t{1}}}), rows = size_of(l, cache, 2);
  const ValueId all = joined({part(0), part(1), rest});
  const ValueId from = l.emit("Slice", {l.cast(indirection, DType::kI64), l.ints({0}), rows, l.ints({2})});
  const ValueId index = l.emit("Expand", {l.emit("Unsqueeze", {from, l.ints({2, 4})}), all});
  return l.emit("Reshape", {l.emit("GatherElements", {l.emit("Reshape", {cache, all}), index}, {{"axis", int64_t{1}}}), l.emit("Shape", {cache})});
}

bool lower_multi_head(Rewriter& rw, NodeId id, const Multi& at) {
  Lowering l(rw, id);
  const Node& n = l.node();
  const int64_t H = head_count(n);
  for (size_t i : {kQuery, kKey, kValue, at.all_bias, at.padding})
    if (l.has(i) && !l.dims(l.in(i))) return false;
  const Dims shape = *l.dims(l.in(kQuery));
  const DType dtype = l.dtype(l.in(kQuery));
  ValueId q = l.in(kQuery), k = l.in(kKey), v = l.in(kValue);
  const auto unpack = [&](ValueId x, int64_t count) {
    auto parts = l.emit_all("Split", {x}, {{"axis", int64_t{3}}, {"num_outputs", count}}, static_cast<size_t>(count));
    for (ValueId& part : parts) part = l.emit("Reshape", {part, l.ints({0, 0, -1})});
    return parts;
  };
  std::array<Dim, 3> hidden;
  if (l.has(at.all_bias)) {  // its parts are as long as the rows they go to
    const auto last = [&](ValueId x) { return x == kNone ? Dim::symbol(0) : l.dims(x)->back(); };
    const Dim bias = last(l.in(at.all_bias)), row = shape.size() == 5 ? shape[4] : last(q);
    if (!bias.known() || !row.known()) return false;
    hidden[0] = hidden[1] = shape.size() == 5 ? row.raw * H : row.raw;
    hidden[2] = bias.raw - 2 * hidden[0].raw;
    if (hidden[2].raw <= 0) bad_data("the bias has {} elements, a query {}", bias.raw, hidden[0].raw);
  }
  if (shape.size() == 5) {
    const auto parts = unpack(q, 3);
    q = parts[0], k = parts[1], v = parts[2];
  } else if (l.dims(k)->size() == 5) {
    const auto parts = unpack(k, 2);
    k = parts[0], v = parts[1];
  }
  if (l.has(at.all_bias)) {
    const auto parts = l.emit_all("Split", {l.in(at.all_bias), l.ints({hidden[0].raw, hidden[1].raw, hidden[2].raw})}, {{"axis", int64_t{0}}}, 3);
    q = l.emit("Add", {q, parts[0]});
    k = l.emit("Add", {k, parts[1]});
    v = l.emit("Add", {v, parts[2]});
  }
  const bool cached = l.dims(k)->size() == 4;
  ValueId total = size_of(l, k, cached ? 2 : 1);
  const bool roomy = l.has(at.past_length);
  const ValueId past_length = roomy ? l.emit("Reshape", {l.cast(l.in(at.past_length), DType::kI64), l.ints({1})}) : kNone;
  if (roomy) total = l.emit("Add", {total, past_length});
  else if (l.has(at.past_key)) total = l.emit("Add", {total, size_of(l, l.in(at.past_key), 2)});
  ValueId bias = l.has(at.score_bias) ? l.in(at.score_bias) : kNone;
  if (l.has(at.padding)) {
    const ValueId mask = mask_bias(l, l.in(at.padding), shape[0], total, dtype);
    if (mask == kNone) return false;
    bias = either(l, bias, mask);
  }
  Attributes attrs = attention_attributes(n);
  attrs["is_causal"] = n.attr_int("unidirectional", 0);
  if (roomy) {
    const ValueId batch = size_of(l, q, 0), start = l.emit("Expand", {past_length, batch});
    const auto write = [&](size_t past, ValueId& x, size_t output) {
      const ValueId fresh = heads(l, x, H);
      if (l.wants(output) || !l.has(at.indirection)) x = l.emit("TensorScatter", {l.in(past), fresh, start});
      l.set(output, x);
      if (l.has(at.indirection)) x = l.emit("TensorScatter", {followed(l, l.in(past), l.in(at.indirection)), fresh, start});
    };
    write(at.past_key, k, 1);
    write(at.past_value, v, 2);
    std::vector<ValueId> inputs = {heads(l, q, H), k, v, bias, kNone, kNone, l.emit("Expand", {total, batch})};
    l.set(0, tokens(l, l.emit("Attention", inputs, attrs)));
    return true;
  }
  if (cached) q = heads(l, q, H);
  else attrs["q_num_heads"] = attrs["kv_num_heads"] = H;
  std::vector<ValueId> inputs = {q, k, v, bias};
  if (l.has(at.past_key)) inputs.insert(inputs.end(), {l.in(at.past_key), l.in(at.past_value)});
  while (inputs.back() == kNone) inputs.pop_back();
  if (l.wants(3)) attrs["qk_matmul_output_mode"] = int64_t{2};  // with mask and bias
  const size_t outputs = l.wants(3) ? 4 : l.wants(1) || l.wants(2) ? 3 : 1;
  const auto y = l.emit_all("Attention", inputs, attrs, outputs);
  l.set(0, cached ? tokens(l, y[0]) : y[0]);
  for (size_t i = 1; i < outputs; ++i) l.set(i, y[i]);
  return true;
}

// --- GroupQueryAttention -------------------------------------------------------------------------

enum Group : size_t {
  kGroupQuery, kGroupKey, kGroupValue, kCacheKey, kCacheValue, kLastKey, kTotal, kCos, kSin, kPositionIds, kGroupBias, kSink, kFirstUnsupported
};

void infer_group_query(InferContext& c) {
  c.require_dtype(kGroupQuery, kFloats);
  const Node& n = c.node();
  for (size_t i = kFirstUnsupported; i < c.input_count(); ++i)
    if (c.has_input(i)) unsupported("an input behind head_sink");
  for (const char* attr : {"kv_cache_bit_width", "qk_output", "sliding_window_cache"})
    if (n.attr_int(attr, 0) > 0) unsupported(attr);
  if (n.output(3) != kNone) unsupported("output 3 (qk)");
  for (size_t i : {kLastKey, kTotal}) {
    if (!c.has_input(i)) c.error("input {} is left out, but required", i);
    c.require_dtype(i, {DType::kI32});
  }
  c.require_dtype(kPositionIds, {DType::kI64});
  c.require_rank(kGroupQuery, 3);
  if (c.has_input(kGroupKey) != c.has_input(kGroupValue)) c.error("key and value go together");
  if (c.has_input(kCacheKey) != c.has_input(kCacheValue)) c.error("past_key and past_value go together");
  for (size_t i : {kCacheKey, kCacheValue}) {
    c.require_rank(i, 4);
    if (c.has_input(i) && c.dtype(i) != c.dtype(kGroupQuery)) unsupported("a cache of another type than the query");
  }
  if (n.attr_int("do_rotary", 0) != 0 && (!c.has_input(kCos) || !c.has_input(kSin))) c.error("do_rotary needs cos_cache and sin_cache");
  const int64_t H = head_count(n), G = head_count(n, "kv_num_heads");
  if (H % G != 0) c.error("{} query heads do not divide into {} groups", H, G);
  for (size_t i : {0, 1, 2}) c.set_output(i, c.dtype(kGroupQuery));
  if (!c.has_dims(kGroupQuery)) return;
  const Dims q = c.dims(kGroupQuery);
  const Dim D = over(c, q[2], c.has_input(kGroupKey) ? H : H + 2 * G);
  c.set_output(0, c.dtype(kGroupQuery), Dims{q[0], q[1], times(c, D, H)});
  Dim present = q[1];
  if (c.has_input(kCacheKey)) {  // as long as the cache, or as the longest sample when that is longer
    const auto total = c.concrete_ints(kTotal);
    const bool known = total && total->size() == 1 && c.has_dims(kCacheKey) && c.dims(kCacheKey)[2].known();
    present = known ? Dim(std::max((*total)[0], c.dims(kCacheKey)[2].raw)) : c.fresh_dim();
  }
  for (size_t i : {1, 2}) c.set_output(i, c.dtype(kGroupQuery), Dims{q[0], Dim(G), present, D});
}

// Each sample has len = seqlens_k + 1 keys, the rest is padding behind them. As onnxruntime decides it, a node
// whose `total` is the number of new tokens reads a prompt: what the cache holds does not count then, and the
// padding is among the new tokens. Otherwise the new tokens are the last ones of the len.
bool lower_group_query(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  const Node& n = l.node();
  const int64_t H = head_count(n), G = head_count(n, "kv_num_heads");
  const DType dtype = l.dtype(l.in(kGroupQuery));
  ValueId q = l.in(kGroupQuery), k = l.in(kGroupKey), v = l.in(kGroupValue);
  if (k == kNone) {
    if (!l.dims(q) || !l.dims(q)->back().known()) return false;
    const int64_t D = l.dims(q)->back().raw / (H + 2 * G);
    const auto parts = l.emit_all("Split", {q, l.ints({H * D, G * D, G * D})}, {{"axis", int64_t{-1}}}, 3);
    q = parts[0], k = parts[1], v = parts[2];
  }
  const auto unsqueezed = [&](ValueId x, std::vector<int64_t> axes) { return l.emit("Unsqueeze", {x, l.ints(axes)}); };
  const ValueId fresh = size_of(l, q, 1), total = l.emit("Reshape", {l.cast(l.in(kTotal), DType::kI64), l.ints({1})});
  const ValueId len = l.emit("Add", {l.emit("Reshape", {l.cast(l.in(kLastKey), DType::kI64), l.ints({-1})}), l.ints({1})});
  const ValueId prompt = l.emit("Equal", {total, fresh}), steps = unsqueezed(count_to(l, fresh), {0});  // [1], [1, L]
  const ValueId start = l.emit("Where", {prompt, l.ints({0}), l.emit("Sub", {len, fresh})});
  const ValueId positions = l.emit("Add", {unsqueezed(start, {1}), steps});  // [B, L]
  if (n.attr_int("do_rotary", 0) != 0) {
    ValueId angles = positions;
    if (l.has(kPositionIds)) {  // of a prompt's only the first counts: the others follow it
      const ValueId first = l.emit("Gather", {l.emit("Reshape", {l.in(kPositionIds), l.ints({-1})}), l.scalar(0, DType::kI64)});
      angles = l.emit("Where", {prompt, l.emit("Add", {first, steps}), l.in(kPositionIds)});
    }
    const auto rotated = [&](ValueId x, int64_t count) {
      Attributes attrs = {{"num_heads", count}, {"interleaved", n.attr_int("rotary_interleaved", 0)}};
      const auto& table = l.dims(l.in(kCos));
      if (table && table->back().known()) attrs["rotary_embedding_dim"] = 2 * table->back().raw;
      return l.emit("RotaryEmbedding", {x, l.in(kCos), l.in(kSin), angles}, attrs);
    };
    q = rotated(q, H);
    k = rotated(k, G);
  }
  k = heads(l, k, G);
  v = heads(l, v, G);
  ValueId seen = fresh;
  if (l.has(kCacheKey)) {
    const ValueId present = l.emit("Max", {total, size_of(l, l.in(kCacheKey), 2)});
    k = l.emit("CacheAppend", {l.in(kCacheKey), k, start, present});
    v = l.emit("CacheAppend", {l.in(kCacheValue), v, start, present});
    seen = total;  // a mask with fewer columns than there are keys hides the rest
  }
  const ValueId key = count_to(l, seen), query = unsqueezed(positions, {1, 3});  // [T], [B, 1, L, 1]
  ValueId mask = l.emit("Less", {key, unsqueezed(len, {1, 2, 3})});
  if (n.attr_int("causal", 1) != 0) mask = l.emit("And", {mask, l.emit("LessOrEqual", {key, query})});
  if (const int64_t window = n.attr_int("local_window_size", -1); window >= 0)
    mask = l.emit("And", {mask, l.emit("Greater", {key, l.emit("Sub", {query, l.ints({window})})})});
  const ValueId hidden = l.scalar(-std::numeric_limits<double>::infinity(), dtype);
  if (l.has(kGroupBias)) mask = l.emit("Where", {mask, l.in(kGroupBias), hidden});
  l.set(1, k);
  l.set(2, v);
  // A sink is one more score of the softmax that belongs to no value: of a key in front that is zero, as its value.
  if (l.has(kSink) || n.attr_int("smooth_softmax", 0) > 0) {
    for (ValueId* x : {&k, &v}) *x = l.emit("Pad", {*x, l.ints({0, 0, 1, 0, 0, 0, 0, 0})});
    const ValueId score = l.has(kSink) ? l.emit("Reshape", {l.in(kSink), l.ints({1, -1, 1, 1})}) : l.scalar(0, dtype);
    if (!l.has(kGroupBias)) mask = l.emit("Where", {mask, l.scalar(0, dtype), hidden});
    const auto spread = [&](ValueId x, ValueId columns) {
      return l.emit("Expand", {x, l.emit("Concat", {size_of(l, q, 0), l.ints({H}), fresh, columns}, {{"axis", int64_t{0}}})});
    };
    mask = l.emit("Concat", {spread(score, l.ints({1})), spread(mask, seen)}, {{"axis", int64_t{3}}});
  }
  Attributes attrs = attention_attributes(n);
  attrs["softcap"] = n.attr_float("softcap", 0);
  l.set(0, tokens(l, l.emit("Attention", {heads(l, q, H), k, v, mask}, attrs)));
  return true;
}

// --- RotaryEmbedding -----------------------------------------------------------------------------

void infer_rotary(InferContext& c) {  // (x, position_ids, cos, sin)
  c.require_dtype(0, kFloats);
  c.require_dtype(1, {DType::kI64});
  for (size_t i : {2, 3}) c.require_rank(i, 2);
  if (c.node().attr_int("is_packed_batching", 0) != 0) unsupported("is_packed_batching");
  if (c.node().attr_float("scale", 1.0f) != 1.0f) unsupported("a scale");
  if (c.has_dims(0) && c.dims(0).size() != 3 && c.dims(0).size() != 4) c.error("the input has rank {}, expected 3 or 4", c.dims(0).size());
  if (c.has_dims(1) && (c.dims(1).empty() || c.dims(1).size() > 2)) c.error("position_ids have rank {}", c.dims(1).size());
  infer_same_as_input(c);
}

bool lower_rotary(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  const auto &x = l.dims(l.in(0)), &positions = l.dims(l.in(1)), &table = l.dims(l.in(2));
  if (!x || !positions) return false;
  const bool split = x->size() == 3, offset = positions->size() == 1;
  int64_t count = l.node().attr_int("num_heads", 0);
  if (split && count == 0) {  // the tables tell the size of a head
    if (!table || !table->back().known() || !x->back().known() || table->back().raw == 0) return false;
    count = x->back().raw / (2 * table->back().raw);
  }
  Attributes attrs = {{"interleaved", l.node().attr_int("interleaved", 0)}, {"rotary_embedding_dim", l.node().attr_int("rotary_embedding_dim", 0)}};
  if (split) attrs["num_heads"] = count;
  ValueId rows = l.in(1);
  if (offset) {
    const ValueId length = size_of(l, l.in(0), split ? 1 : 2), batch = size_of(l, l.in(0), 0);
    const ValueId each = l.emit("Unsqueeze", {l.emit("Add", {count_to(l, length), l.in(1)}), l.ints({0})});
    rows = l.emit("Expand", {each, l.emit("Concat", {batch, length}, {{"axis", int64_t{0}}})});
  }
  l.set(0, l.emit("RotaryEmbedding", {l.in(0), l.in(2), l.in(3), rows}, attrs));
  return true;
}

}  // namespace

void register_microsoft_attention(OpRegistry& registry) {
  add_microsoft(registry, "Attention", {2, 7}, 2, infer_attention, lower_attention);
  const auto multi_head = [&](const char* name, std::array<int, 2> inputs, const Multi& at) {
    add_microsoft(registry, name, inputs, 4, [at](InferContext& c) { infer_multi_head(c, at); },
                  [at](Rewriter& rw, NodeId id) { return lower_multi_head(rw, id, at); });
  };
  multi_head("MultiHeadAttention", {1, 10}, kMultiHead);
  multi_head("DecoderMaskedMultiHeadAttention", {1, 11}, kDecoder);
  add_microsoft(registry, "GroupQueryAttention", {1, 17}, 4, infer_group_query, lower_group_query);
  add_microsoft(registry, "RotaryEmbedding", {4, 4}, 1, infer_rotary, lower_rotary);
}

}  // namespace ds::ops
