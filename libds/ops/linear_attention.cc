// LinearAttention. See kernels/linear_attention.h for the legend.
#include "kernels/linear_attention.h"

#include <cmath>

#include "libds/ops/operands.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::LinearAttention;

// (query, key, value, past_state?, decay?, beta?) -> output, present_state
enum Input : size_t { kQuery, kKey, kValue, kPast, kDecay, kBeta };

struct Heads {
  int64_t query, key;
  explicit Heads(const Node& n) : query(n.attr_int("q_num_heads", 0)), key(n.attr_int("kv_num_heads", 0)) {
    if (key < 1 || query < 1 || query % key != 0) bad_data("{} query heads for {} key heads", query, key);
  }
};

// "linear", "gated", "delta" or "gated_delta": whether there is a decay, and a beta.
struct Rule {
  bool gated, delta;
  explicit Rule(const Node& n) {
    const std::string rule = n.attr_string("update_rule", "gated_delta");
    gated = rule == "gated" || rule == "gated_delta";
    delta = rule == "delta" || rule == "gated_delta";
    if (!gated && !delta && rule != "linear") bad_data("update_rule '{}' is unknown", rule);
  }
};

void infer_linear_attention(InferContext& c) {
  const Heads heads(c.node());
  const Rule rule(c.node());
  for (size_t i = 0; i < c.input_count(); ++i) ops::require_float(c, i);
  for (size_t i : {kKey, kValue, kDecay, kBeta}) ops::require_type(c, i, c.dtype(kQuery));
  if (c.has_input(kDecay) != rule.gated)
    c.error("its update rule {} decay", rule.gated ? "needs a" : "has no");
  if (c.has_input(kBeta) != rule.delta) c.error("its update rule {} beta", rule.delta ? "needs a" : "has no");
  const DType state = c.has_input(kPast) ? c.dtype(kPast) : c.dtype(kQuery);
  // Elements of one head, when known; throws where the heads do not divide them.
  const auto per_head = [&](size_t i, int64_t count) -> Dim {
    if (!c.has_dims(i)) return c.fresh_dim();
    c.require_rank(i, 3);
    const Dim last = c.dims(i)[2];
    if (last.known() && last.raw % count != 0)
      c.error("input {} has {} elements for {} heads", i, last.raw, count);
    return last.known() ? Dim(last.raw / count) : c.fresh_dim();
  };
  Dim K = per_head(kQuery, heads.query);
  const Dim V = per_head(kValue, heads.key);
  if (!K.known()) K = per_head(kKey, heads.key);
  Dim B = c.fresh_dim(), T = c.fresh_dim();
  if (c.has_dims(kQuery)) {
    B = c.dims(kQuery)[0];
    T = c.dims(kQuery)[1];
  }
  const auto times = [&](Dim d, int64_t n) { return d.known() ? Dim(checked_mul(d.raw, n)) : c.fresh_dim(); };
  ops::require_dims(c, kKey, {B, T, times(K, heads.key)});
  ops::require_dims(c, kValue, {B, T, c.fresh_dim()});
  ops::require_dims(c, kPast, {B, heads.key, K, V});
  ops::require_dims(c, kDecay, {B, T, c.fresh_dim()});
  ops::require_dims(c, kBeta, {B, T, c.fresh_dim()});
  if (c.has_dims(kDecay) && K.known() && c.dims(kDecay)[2].known())
    if (const int64_t n = c.dims(kDecay)[2].raw; n != heads.key && n != heads.key * K.raw)
      c.error("decay has {} elements for {} heads", n, heads.key);
  if (c.has_dims(kBeta) && c.dims(kBeta)[2].known())
    if (const int64_t n = c.dims(kBeta)[2].raw; n != heads.key && n != 1)
      c.error("beta has {} elements for {} heads", n, heads.key);
  c.set_output(0, c.dtype(kQuery), Dims{B, T, times(V, heads.query)});
  if (c.node().outputs.size() > 1) c.set_output(1, state, Dims{B, heads.key, K, V});
}

LinearAttention attention_of(const KernelQuery& q) {
  const Heads heads(q.node);
  LinearAttention s;
  s.B = q.in(kQuery).dim(0);
  s.T = q.in(kQuery).dim(1);
  s.H = heads.key;
  s.group = heads.query / heads.key;
  s.K = q.in(kQuery).dim(2) / heads.query;
  s.V = q.in(kValue).dim(2) / heads.key;
  const float scale = q.node.attr_float("scale", 0);
  s.scale = scale != 0 ? static_cast<double>(scale) : 1 / std::sqrt(static_cast<double>(s.K));
  if (q.in(kDecay).defined()) s.decay_width = q.in(kDecay).dim(2) / s.H;
  if (q.in(kBeta).defined()) s.beta_width = q.in(kBeta).dim(2);
  return s;
}

}  // namespace

void register_linear_attention_ops(OpRegistry& registry) {
  OpDef def;
  def.name = "LinearAttention";
  def.min_inputs = 3;
  def.max_inputs = 6;
  def.max_outputs = 2;
  def.infer = infer_linear_attention;
  def.cost = [](const KernelQuery& q) {
    const LinearAttention s = attention_of(q);
    const int64_t states = checked_mul(checked_mul(s.B, s.T), checked_mul(s.H, s.K * s.V));
    return Cost{
        checked_mul(states, 2 * (1 + s.group) + (s.decay_width > 0 ? 1 : 0) + (s.beta_width > 0 ? 2 : 0)),
        ops::operand_bytes(q)};
  };
  KernelDef k;
  k.name = "portable/linear_attention";
  k.decline = [](const KernelQuery& q) -> std::string {
    for (const auto* list : {&q.inputs, &q.outputs})
      for (const TensorDesc& d : *list)
        if (d.defined() && d.dtype != q.in(0).dtype) return "operands of different types";
    return ops::require(!is_half(q.in(0).dtype), "16-bit floats");
  };
  k.create = [](const KernelQuery& q) {
    const LinearAttention s = attention_of(q);
    const size_t state_bytes = static_cast<size_t>(s.B * s.H * s.K * s.V) * dtype_size(q.in(0).dtype);
    const auto run = [s](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const auto in = [&](size_t i) { return c.has_input(i) ? c.input(i).data<T>() : nullptr; };
        T* state = c.has_output(1) ? c.output(1).mutable_data<T>() : reinterpret_cast<T*>(c.workspace());
        kernels::linear_attention<T>(s, in(kQuery), in(kKey), in(kValue), in(kPast), in(kDecay), in(kBeta),
                                     c.output(0).mutable_data<T>(), state);
      });
    };
    return make_kernel(run, q.out(1).defined() ? 0 : state_bytes);
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace ds
