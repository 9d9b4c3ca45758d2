// Attention, RotaryEmbedding, TensorScatter and CacheAppend (internal): the operators of transformer decoders.
#include "libds/ops/attention.h"

#include <cstring>
#include <numeric>

#include "kernels/attention.h"
#include "libds/base/parallel.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::Attention;
using kernels::HeadLayout;
using kernels::ScoreStage;

enum Input : size_t { kQ, kK, kV, kMask, kPastKey, kPastValue, kLengths };
enum Output : size_t { kY, kPresentKey, kPresentValue, kScores };

// --- inference ---------------------------------------------------------------------------------

Dim sum_of(InferContext& c, Dim a, Dim b) {
  if (a.known() && b.known()) return checked_add(a.raw, b.raw);
  if (b == Dim(0)) return a;
  return a == Dim(0) ? b : c.fresh_dim();
}

// Elements a head of a dimension that holds `heads` of them.
Dim part_of(InferContext& c, Dim hidden, int64_t heads, const char* what) {
  return hidden.known() ? Dim(ops::divided(hidden.raw, heads, what)) : c.fresh_dim();
}

ops::AttentionSizes<Dim> infer_sizes(InferContext& c) {
  ops::AttentionSizes<Dim> s;
  const Dims q = c.dims(kQ), k = c.dims(kK), v = c.dims(kV);
  s.split = q.size() == 3;
  s.B = q[0];
  if (s.split) {
    const int64_t heads = ops::heads_of(c.node(), "q_num_heads"), groups = ops::heads_of(c.node(), "kv_num_heads");
    s.H = heads;
    s.G = groups;
    s.L = q[1];
    s.S = k[1];
    s.D = part_of(c, q[2], heads, "the query");
    s.E = part_of(c, v[2], groups, "the value");
  } else {
    s.H = q[1];
    s.G = k[1];
    s.L = q[2];
    s.S = k[2];
    s.D = q[3];
    s.E = v[3];
  }
  s.past = 0;
  if (c.has_input(kPastKey)) s.past = c.has_dims(kPastKey) ? c.dims(kPastKey)[2] : c.fresh_dim();
  s.S = sum_of(c, s.S, s.past);
  return s;
}

void check_attributes(InferContext& c) {
  const Node& n = c.node();
  const int64_t mode = n.attr_int("qk_matmul_output_mode", 0);
  if (mode < 0 || mode > 3) c.error("qk_matmul_output_mode is {}", mode);
  for (const char* side : {"left_window_size", "right_window_size"})
    if (n.attr_int(side, -1) < -1) c.error("{} is {}", side, n.attr_int(side, -1));
  if (!(n.attr_float("softcap", 0) >= 0)) c.error("softcap is {}", n.attr_float("softcap", 0));
  if (n.has_attr("softmax_precision") && !is_float(static_cast<DType>(n.attr_int("softmax_precision", 1))))
    c.error("softmax_precision {} is not a type of real numbers", n.attr_int("softmax_precision", 1));
}

void infer_attention(InferContext& c) {
  c.require_dtype(kQ, ops::kFloats);
  for (size_t i : {kK, kV, kPastKey, kPastValue})
    if (c.has_input(i) && !ops::mixes(c.dtype(i), c.dtype(kQ))) c.error("input {} has type {}, the query {}", i, dtype_name(c.dtype(i)), dtype_name(c.dtype(kQ)));
  if (c.has_input(kMask) && c.dtype(kMask) != DType::kBool && !ops::mixes(c.dtype(kMask), c.dtype(kQ)))
    c.error("the mask has type {}, expected bool or {}", dtype_name(c.dtype(kMask)), dtype_name(c.dtype(kQ)));
  c.require_dtype(kLengths, {DType::kI64});
  c.require_rank(kLengths, 1);
  check_attributes(c);
  if (c.has_input(kPastKey) != c.has_input(kPastValue)) c.error("past_key and past_value go together");
  if (c.has_input(kLengths) && c.has_input(kPastKey)) c.error("nonpad_kv_seqlen and past keys exclude each other");
  for (size_t i : {kPastKey, kPastValue}) c.require_rank(i, 4);
  c.set_output(kY, c.dtype(kQ));
  c.set_output(kPresentKey, c.dtype(kK));
  c.set_output(kPresentValue, c.dtype(kV));
  c.set_output(kScores, c.dtype(kQ));
  if (!c.has_dims(kQ) || !c.has_dims(kK) || !c.has_dims(kV)) return;
  const size_t rank = c.dims(kQ).size();
  if (rank != 3 && rank != 4) c.error("the query has rank {}, expected 3 or 4", rank);
  for (size_t i : {kK, kV}) c.require_rank(i, rank);
  bool known = true;
  for (size_t i : {kQ, kK, kV}) known = known && all_known(c.dims(i));
  if (known) ops::attention_sizes(c.node(), concrete(c.dims(kQ)), concrete(c.dims(kK)), concrete(c.dims(kV)), {});
  const ops::AttentionSizes<Dim> s = infer_sizes(c);
  if (c.has_dims(kMask)) {
    const Dims& mask = c.dims(kMask);
    const Dims full = {s.B, s.H, s.L, s.S};
    bool fits = !mask.empty() && mask.size() <= 4;
    for (size_t i = 0; fits && i < mask.size(); ++i) {
      const Dim most = full[4 - mask.size() + i];
      if (!mask[i].known() || !most.known()) continue;
      fits = i + 1 == mask.size() ? mask[i].raw <= most.raw : mask[i] == Dim(1) || mask[i] == most;
    }
    if (!fits) c.error("the mask is {}, the scores are {}", c.graph().dims_string(mask), c.graph().dims_string(full));
  }
  Dims y = s.split ? Dims{s.B, s.L, s.H.known() && s.E.known() ? Dim(checked_mul(s.H.raw, s.E.raw)) : c.fresh_dim()} : Dims{s.B, s.H, s.L, s.E};
  c.set_output(kY, c.dtype(kQ), std::move(y));
  c.set_output(kPresentKey, c.dtype(kK), Dims{s.B, s.G, s.S, s.D});
  c.set_output(kPresentValue, c.dtype(kV), Dims{s.B, s.G, s.S, s.E});
  c.set_output(kScores, c.dtype(kQ), Dims{s.B, s.H, s.L, s.S});
}

// --- kernels -----------------------------------------------------------------------------------

HeadLayout layout_of(bool split, int64_t heads, int64_t length, int64_t size) {
  if (split) return {length * heads * size, size, heads * size};
  return {heads * length * size, length * size, size};
}

HeadLayout mask_layout(const Shape& mask, const ops::AttentionSizes<int64_t>& s) {
  Shape full(4 - mask.size(), 1);
  full.insert(full.end(), mask.begin(), mask.end());
  const Shape most = {s.B, s.H, s.L};
  int64_t steps[3], step = full[3];
  for (size_t i = 3; i-- > 0;) {
    if (full[i] != 1 && full[i] != most[i]) bad_data("the mask is {}, there are {} samples, {} heads, {} queries", shape_string(mask), s.B, s.H, s.L);
    steps[i] = full[i] == 1 ? 0 : step;
    step *= full[i];
  }
  if (full[3] > s.S) bad_data("the mask has {} columns, there are {} keys", full[3], s.S);
  return {steps[0], steps[1], steps[2]};
}

struct Bound {
  ops::AttentionSizes<int64_t> sizes;
  Attention a;
  HeadLayout new_k, new_v;  // of inputs 1 and 2
  bool past = false;
};

Bound bind(const KernelQuery& q) {
  Bound r;
  r.past = q.in(kPastKey).defined();
  r.sizes = ops::attention_sizes(q.node, q.in(kQ).shape, q.in(kK).shape, q.in(kV).shape, r.past ? q.in(kPastKey).shape : Shape{});
  const auto& s = r.sizes;
  if (r.past && (q.in(kPastKey).shape != Shape{s.B, s.G, s.past, s.D} || q.in(kPastValue).shape != Shape{s.B, s.G, s.past, s.E}))
    bad_data("past keys and values are {} and {}, expected {} and {}", shape_string(q.in(kPastKey).shape), shape_string(q.in(kPastValue).shape),
             shape_string(Shape{s.B, s.G, s.past, s.D}), shape_string(Shape{s.B, s.G, s.past, s.E}));
  if (q.in(kLengths).defined() && q.in(kLengths).shape != Shape{s.B}) bad_data("nonpad_kv_seqlen is {}, there are {} samples", shape_string(q.in(kLengths).shape), s.B);
  Attention& a = r.a;
  a.B = s.B;
  a.H = s.H;
  a.G = s.G;
  a.L = s.L;
  a.S = s.S;
  a.D = s.D;
  a.E = s.E;
  a.q = layout_of(s.split, s.H, s.L, s.D);
  a.y = layout_of(s.split, s.H, s.L, s.E);
  r.new_k = layout_of(s.split, s.G, s.S - s.past, s.D);
  r.new_v = layout_of(s.split, s.G, s.S - s.past, s.E);
  a.k = r.past ? layout_of(false, s.G, s.S, s.D) : r.new_k;
  a.v = r.past ? layout_of(false, s.G, s.S, s.E) : r.new_v;
  a.scale = static_cast<double>(ops::attention_scale(q.node, s.D));
  a.softcap = static_cast<double>(q.node.attr_float("softcap", 0));
  a.causal = q.node.attr_int("is_causal", 0) != 0;
  a.left = q.node.attr_int("left_window_size", -1);
  a.right = q.node.attr_int("right_window_size", -1);
  a.stage = static_cast<ScoreStage>(q.node.attr_int("qk_matmul_output_mode", 0));
  if (q.in(kMask).defined()) {
    a.mask = mask_layout(q.in(kMask).shape, s);
    a.mask_columns = q.in(kMask).dim(-1);
  }
  return r;
}

// [B, G, S, size] of past and new rows, one after the other.
template <typename T>
void join(const ops::AttentionSizes<int64_t>& s, int64_t size, const T* past, const T* fresh, const HeadLayout& layout, T* to) {
  parallel_for(s.B * s.G, (1 << 14) / (s.S * size + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* at = to + i * s.S * size;
      if (s.past > 0) std::memcpy(at, past + i * s.past * size, static_cast<size_t>(s.past * size) * sizeof(T));
      for (int64_t row = s.past; row < s.S; ++row)
        std::memcpy(at + row * size, fresh + i / s.G * layout.sample + i % s.G * layout.head + (row - s.past) * layout.row,
                    static_cast<size_t>(size) * sizeof(T));
    }
  });
}

template <typename T, typename Fn>
void run_attention(const Bound& r, const KernelContext& c, int parts, const Fn& fn) {
  const auto& s = r.sizes;
  T* scratch = reinterpret_cast<T*>(c.workspace());
  std::vector<int64_t> keys(static_cast<size_t>(s.B), s.S), offset(static_cast<size_t>(s.B), s.past);
  for (int64_t b = 0; c.has_input(kLengths) && b < s.B; ++b) {
    const int64_t length = c.input(kLengths).data<int64_t>()[b];
    if (length < 0 || length > s.S) bad_data("nonpad_kv_seqlen of sample {} is {}, there are {} keys", b, length, s.S);
    keys[static_cast<size_t>(b)] = length;
    offset[static_cast<size_t>(b)] = length - s.L;
  }
  const T *k = c.input(kK).data<T>(), *v = c.input(kV).data<T>();
  T* rest = scratch + fn.scratch(r.a, parts);
  const auto present = [&](size_t past, size_t output, int64_t size, const HeadLayout& layout, const T* fresh) -> const T* {
    if (!r.past && !c.has_output(output)) return fresh;
    T* to = c.has_output(output) ? c.output(output).mutable_data<T>() : rest;
    if (!c.has_output(output)) rest += s.B * s.G * s.S * size;
    join(s, size, r.past ? c.input(past).data<T>() : nullptr, fresh, layout, to);
    return r.past ? to : fresh;
  };
  k = present(kPastKey, kPresentKey, s.D, r.new_k, k);
  v = present(kPastValue, kPresentValue, s.E, r.new_v, v);
  kernels::AttentionOperands<T> o{c.input(kQ).data<T>(), k, v, nullptr, nullptr, keys.data(), offset.data(), c.output(kY).mutable_data<T>(), nullptr};
  if (c.has_input(kMask)) {
    if (c.input(kMask).dtype() == DType::kBool) o.seen = c.input(kMask).data<bool>();
    else o.bias = c.input(kMask).data<T>();
  }
  if (c.has_output(kScores)) o.scores = c.output(kScores).mutable_data<T>();
  fn.run(r.a, o, parts, scratch);
}

// What one instruction set offers for elements of type T.
template <typename T>
struct AttentionFn {
  int64_t (*scratch)(const Attention&, int parts) = kernels::attention_scratch;
  void (*run)(const Attention&, const kernels::AttentionOperands<T>&, int parts, T* scratch) = kernels::attention<T>;
};

template <typename T>
std::unique_ptr<Kernel> make_attention(const KernelQuery& q, const AttentionFn<T>& fn) {
  const Bound r = bind(q);
  const int parts = q.threads;
  const auto& s = r.sizes;
  const int64_t joined = r.past ? checked_mul(s.B * s.G * s.S, s.D + s.E) : 0;
  const size_t workspace = static_cast<size_t>(fn.scratch(r.a, parts) + joined) * sizeof(T);
  return make_kernel([r, parts, fn](const KernelContext& c) { run_attention<T>(r, c, parts, fn); }, workspace);
}

// `gains`: of kernels that round to bf16, whether that pays.
KernelDef attention_kernel(const char* name, Isa isa, AttentionFn<float> fn, bool (*gains)(const Attention&) = nullptr) {
  KernelDef k;
  k.name = name;
  k.isa = isa;
  k.decline = [gains](const KernelQuery& q) -> std::string {
    if (q.in(kQ).dtype != DType::kF32) return "needs f32";
    if (gains != nullptr && q.node.attr_int(ops::kProductsAttr, 0) != static_cast<int64_t>(DType::kBF16)) return "its products are exact";
    return ops::require(gains == nullptr || gains(bind(q).a), "few rows share keys, so memory is the bound");
  };
  k.create = [fn](const KernelQuery& q) { return make_attention<float>(q, fn); };
  return k;
}

KernelDef portable_attention_kernel() {
  KernelDef k;
  k.name = "portable/attention";
  k.create = [](const KernelQuery& q) {
    std::unique_ptr<Kernel> kernel;
    dispatch_float(q.in(kQ).dtype, [&](auto tag) { kernel = make_attention<decltype(tag)>(q, {}); });
    return kernel;
  };
  return k;
}

void register_attention(OpRegistry& registry) {
  OpDef def;
  def.name = "Attention";  // (q, k, v, mask?, past_key?, past_value?, lengths?) -> y, present_key?, present_value?, scores?
  def.min_inputs = 3;
  def.max_inputs = 7;
  def.max_outputs = 4;
  def.infer = infer_attention;
  def.grad = ops::grad_attention;
  def.cost = [](const KernelQuery& q) {
    const Attention a = bind(q).a;
    Cost cost;
    cost.flops = checked_mul(checked_mul(2 * a.B, a.H), checked_mul(checked_mul(a.L, a.S), a.D + a.E));
    for (const auto* list : {&q.inputs, &q.outputs})
      for (const TensorDesc& d : *list) cost.bytes += static_cast<int64_t>(d.bytes());
    return cost;
  };
  def.widens_halves = true;
  namespace k = kernels;
  def.kernels = {attention_kernel("amx/attention", Isa::kAmx, {k::amx::attention_scratch, k::amx::attention}, k::amx::attention_gains),
                 attention_kernel("avx512/attention", Isa::kAvx512, {k::avx512::attention_scratch, k::avx512::attention}),
                 attention_kernel("avx2/attention", Isa::kAvx2, {k::avx2::attention_scratch, k::avx2::attention}), portable_attention_kernel()};
  registry.add(std::move(def));
}

// --- RotaryEmbedding ---------------------------------------------------------------------------

int64_t rotary_width(const Node& n, int64_t head_size) {
  const int64_t width = n.attr_int("rotary_embedding_dim", 0);
  return width == 0 ? head_size : width;
}

void infer_rotary(InferContext& c) {
  c.require_dtype(0, ops::kFloats);
  for (size_t i : {1, 2})
    if (!ops::mixes(c.dtype(i), c.dtype(0))) c.error("input {} has type {}, input 0 {}", i, dtype_name(c.dtype(i)), dtype_name(c.dtype(0)));
  c.require_dtype(3, {DType::kI64});
  c.require_rank(3, 2);
  for (size_t i : {1, 2}) c.require_rank(i, c.has_input(3) ? 2 : 3);
  ops::infer_same_as_input(c);
  if (!c.has_dims(0)) return;
  const Dims& x = c.dims(0);
  if (x.size() != 3 && x.size() != 4) c.error("the input has rank {}, expected 3 or 4", x.size());
  const Dim head = x.size() == 4 ? x[3] : part_of(c, x[2], ops::heads_of(c.node(), "num_heads"), "the input");
  if (!head.known()) return;
  const int64_t width = rotary_width(c.node(), head.raw);
  if (width < 0 || width > head.raw || width % 2 != 0) c.error("{} of {} elements cannot be rotated in pairs", width, head.raw);
  for (size_t i : {1, 2})
    if (c.has_dims(i) && c.dims(i).back().known() && c.dims(i).back().raw != width / 2)
      c.error("input {} has {} angles, {} are needed", i, c.dims(i).back().raw, width / 2);
}

std::unique_ptr<Kernel> rotary_kernel(const KernelQuery& q) {
  const Shape& x = q.in(0).shape;
  const bool split = x.size() == 3;
  kernels::Rotary r{};
  r.B = x[0];
  r.L = x[split ? 1 : 2];
  r.H = split ? ops::heads_of(q.node, "num_heads") : x[1];
  r.D = split ? ops::divided(x[2], r.H, "the input") : x[3];
  r.R = rotary_width(q.node, r.D);
  r.interleaved = q.node.attr_int("interleaved", 0) != 0;
  r.layout = layout_of(split, r.H, r.L, r.D);
  const Shape tokens = {r.B, r.L};
  for (size_t i : {1, 2}) {
    const Shape& table = q.in(i).shape;
    if (table != q.in(1).shape || table.back() != r.R / 2) bad_data("input {} is {}, {} angles a row are needed", i, shape_string(table), r.R / 2);
    if (!q.in(3).defined() && table != Shape{r.B, r.L, r.R / 2}) bad_data("input {} is {}, there are {} tokens", i, shape_string(table), shape_string(tokens));
  }
  if (q.in(3).defined() && q.in(3).shape != tokens) bad_data("position_ids are {}, there are {} tokens", shape_string(q.in(3).shape), shape_string(tokens));
  return make_kernel(
      [r](const KernelContext& c) {
        auto* rows = reinterpret_cast<int64_t*>(c.workspace());
        for (int64_t i = 0; i < r.B * r.L; ++i) {
          rows[i] = c.has_input(3) ? c.input(3).data<int64_t>()[i] : i;
          if (c.has_input(3) && (rows[i] < 0 || rows[i] >= c.input(1).dim(0)))
            bad_data("position {} is outside the tables of {} rows", rows[i], c.input(1).dim(0));
        }
        dispatch_float(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          kernels::rotary_embedding<T>(r, c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(), rows, c.output(0).mutable_data<T>());
        });
      },
      static_cast<size_t>(r.B * r.L) * sizeof(int64_t));
}

void register_rotary(OpRegistry& registry) {
  OpDef def;
  def.name = "RotaryEmbedding";  // (x, cos, sin, positions?)
  def.min_inputs = 3;
  def.max_inputs = 4;
  def.infer = infer_rotary;
  // The other way round: the sines change sign. Tables are not parameters.
  def.grad = [](GradContext& g) {
    if (g.needs(1) || g.needs(2)) fail(ExitCode::kUnsupported, "no gradient for the tables of cosines and sines");
    if (!g.needs(0)) return;
    std::vector<ValueId> inputs = {g.d_output(0), g.input(1), g.emit("Neg", {g.input(2)})};
    if (g.input(3) != kNone) inputs.push_back(g.input(3));
    const Attributes attrs = g.node().attrs;
    g.set_d_input(0, g.emit("RotaryEmbedding", inputs, attrs));
  };
  KernelDef k;
  k.name = "portable/rotary_embedding";
  k.in_place = {{0, 0}};
  k.create = rotary_kernel;
  def.widens_halves = true;
  def.kernels = {k};
  registry.add(std::move(def));
}

// --- TensorScatter -----------------------------------------------------------------------------

int64_t scatter_axis(const Node& n, size_t rank) {
  const int64_t axis = ops::normalize_axis(n.attr_int("axis", -2), static_cast<int64_t>(rank));
  if (axis == 0) bad_data("axis 0 is that of the samples");
  return axis;
}

bool is_circular(const Node& n) {
  const std::string mode = n.attr_string("mode", "linear");
  if (mode != "linear" && mode != "circular") bad_data("mode is '{}', expected linear or circular", mode);
  return mode == "circular";
}

void infer_tensor_scatter(InferContext& c) {
  if (c.dtype(1) != c.dtype(0)) c.error("cache and update differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(1)));
  c.require_dtype(2, {DType::kI64});
  c.require_rank(2, 1);
  is_circular(c.node());
  ops::infer_same_as_input(c);
  if (!c.has_dims(0)) return;
  const size_t rank = c.dims(0).size();
  c.require_rank(1, rank);
  const auto axis = static_cast<size_t>(scatter_axis(c.node(), rank));
  if (!c.has_dims(1) || !all_known(c.dims(0)) || !all_known(c.dims(1))) return;
  const Shape cache = concrete(c.dims(0)), update = concrete(c.dims(1));
  for (size_t i = 0; i < rank; ++i)
    if (i == axis ? update[i] > cache[i] : update[i] != cache[i]) c.error("the update is {}, the cache {}", shape_string(update), shape_string(cache));
}

std::unique_ptr<Kernel> tensor_scatter_kernel(const KernelQuery& q) {
  const Shape cache = q.in(0).shape, update = q.in(1).shape;
  const auto axis = static_cast<size_t>(scatter_axis(q.node, cache.size()));
  int64_t prefixes = 1;  // within a sample
  for (size_t i = 1; i < axis; ++i) prefixes *= cache[i];
  auto row = static_cast<int64_t>(dtype_size(q.in(0).dtype));
  for (size_t i = axis + 1; i < cache.size(); ++i) row *= cache[i];
  if (q.in(2).defined() && q.in(2).dim(0) != cache[0]) bad_data("there are {} write indices for {} samples", q.in(2).dim(0), cache[0]);
  return make_kernel([=, samples = cache[0], most = cache[axis], n = update[axis], circular = is_circular(q.node)](const KernelContext& c) {
    const auto* from = static_cast<const std::byte*>(c.input(1).raw());
    auto* to = static_cast<std::byte*>(c.output(0).mutable_raw());
    if (to != c.input(0).raw() && c.input(0).bytes() > 0) std::memcpy(to, c.input(0).raw(), c.input(0).bytes());
    if (n == 0) return;
    for (int64_t b = 0; b < samples; ++b) {
      const int64_t start = c.has_input(2) ? c.input(2).data<int64_t>()[b] : 0;
      if (start < 0 || (!circular && start > most - n)) bad_data("{} rows from {} on do not fit a cache of {}", n, start, most);
      for (int64_t p = b * prefixes; p < (b + 1) * prefixes; ++p)
        for (int64_t i = 0; i < n; ++i)
          std::memcpy(to + (p * most + (start % most + i) % most) * row, from + (p * n + i) * row, static_cast<size_t>(row));
    }
  });
}

// Of `x` the rows along `axis` where `start` (kNone: 0), per sample, puts an update of this shape. `circle` rows
// make a circle; 0: none does.
ValueId rows_of(GradContext& g, ValueId x, const Shape& update, size_t axis, ValueId start, int64_t circle) {
  std::vector<int64_t> steps(static_cast<size_t>(update[axis]));
  std::iota(steps.begin(), steps.end(), int64_t{0});
  Shape along(update.size(), 1), each(update.size(), 1);
  along[axis] = update[axis];
  each[0] = update[0];
  ValueId rows = g.emit("Reshape", {g.ints(steps), g.ints(along)});
  if (start != kNone) rows = g.emit("Add", {rows, g.emit("Reshape", {start, g.ints(each)})});
  if (circle > 0) rows = g.emit("Mod", {rows, g.ints({circle})});
  return g.emit("GatherElements", {x, g.emit("Expand", {rows, g.ints(update)})}, {{"axis", static_cast<int64_t>(axis)}});
}

// Where the update went no gradient reaches the cache, and all of it the update.
void grad_tensor_scatter(GradContext& g) {
  const Shape cache = g.shape(g.input(0)), update = g.shape(g.input(1));
  const auto axis = static_cast<size_t>(scatter_axis(g.node(), cache.size()));
  const Attributes attrs = g.node().attrs;
  const DType dtype = g.dtype(g.input(0));
  if (g.needs(0)) {
    std::vector<ValueId> inputs = {g.d_output(0), g.emit("Expand", {g.scalar(0, dtype), g.ints(update)})};
    if (g.input(2) != kNone) inputs.push_back(g.input(2));
    g.set_d_input(0, g.emit("TensorScatter", inputs, attrs));
  }
  if (!g.needs(1)) return;
  g.set_d_input(1, rows_of(g, g.d_output(0), update, axis, g.input(2), is_circular(g.node()) ? cache[axis] : 0));
}

void register_tensor_scatter(OpRegistry& registry) {
  OpDef def;
  def.name = "TensorScatter";  // (cache, update, write_indices?) -> cache
  def.moves_elements = true;
  def.min_inputs = 2;
  def.max_inputs = 3;
  def.infer = infer_tensor_scatter;
  def.grad = grad_tensor_scatter;
  KernelDef k;
  k.name = "portable/tensor_scatter";
  k.in_place = {{0, 0}};
  k.create = tensor_scatter_kernel;
  def.kernels = {k};
  registry.add(std::move(def));
}

// --- CacheAppend -------------------------------------------------------------------------------

// What a decoder's step makes of its cache: (past [B, G, P, D], fresh [B, G, L, D], start [B], rows [1]) ->
// [B, G, rows, D]: the first start rows of each sample's past, the fresh ones, zeros.
void infer_cache_append(InferContext& c) {
  if (c.dtype(1) != c.dtype(0)) c.error("cache and new rows differ in type: {} and {}", dtype_name(c.dtype(0)), dtype_name(c.dtype(1)));
  for (size_t i : {0, 1}) c.require_rank(i, 4);
  for (size_t i : {2, 3}) c.require_dtype(i, {DType::kI64});
  if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, c.dtype(0));
  const Dims past = c.dims(0), fresh = c.dims(1);
  for (size_t i : {0, 1, 3})
    if (past[i].known() && fresh[i].known() && past[i] != fresh[i]) c.error("the cache is {}, new rows {}", c.graph().dims_string(past), c.graph().dims_string(fresh));
  const auto rows = c.ints(3);
  c.set_output(0, c.dtype(0), Dims{past[0], past[1], rows && rows->size() == 1 ? (*rows)[0] : c.fresh_dim(), past[3]});
}

std::unique_ptr<Kernel> cache_append_kernel(const KernelQuery& q) {
  const Shape past = q.in(0).shape, fresh = q.in(1).shape;
  const int64_t B = past[0], G = past[1], P = past[2], L = fresh[2], rows = q.out(0).dim(2);
  const int64_t row = past[3] * static_cast<int64_t>(dtype_size(q.in(0).dtype));
  if (q.in(2).numel() != B || fresh[0] != B || fresh[1] != G || fresh[3] != past[3])
    bad_data("the cache is {}, new rows are {}, for {} samples", shape_string(past), shape_string(fresh), q.in(2).numel());
  return make_kernel([=](const KernelContext& c) {
    const auto* start = c.input(2).data<int64_t>();
    for (int64_t b = 0; b < B; ++b)
      if (start[b] < 0 || start[b] > P || start[b] > rows - L) bad_data("{} rows from {} on do not follow {} in a cache of {}", L, start[b], P, rows);
    const auto *from = static_cast<const std::byte*>(c.input(0).raw()), *add = static_cast<const std::byte*>(c.input(1).raw());
    auto* to = static_cast<std::byte*>(c.output(0).mutable_raw());
    parallel_for(B * G, (1 << 16) / (rows * row + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = start[i / G];
        std::byte* y = to + i * rows * row;
        const auto copy = [&](int64_t first, const std::byte* x, int64_t n) {
          if (n > 0 && row > 0) std::memcpy(y + first * row, x, static_cast<size_t>(n * row));
        };
        if (to != from) copy(0, from + i * P * row, at);
        copy(at, add + i * L * row, L);
        if (at + L < rows && row > 0) std::memset(y + (at + L) * row, 0, static_cast<size_t>((rows - at - L) * row));
      }
    });
  });
}

void grad_cache_append(GradContext& g) {
  const Shape past = g.shape(g.input(0)), fresh = g.shape(g.input(1));
  const ValueId d = g.d_output(0);
  if (g.needs(0)) {  // the first start rows again
    const ValueId nothing = g.emit("Expand", {g.scalar(0, g.dtype(d)), g.ints({past[0], past[1], 0, past[3]})});
    g.set_d_input(0, g.emit("CacheAppend", {d, nothing, g.input(2), g.ints({past[2]})}));
  }
  if (g.needs(1)) g.set_d_input(1, rows_of(g, d, fresh, 2, g.input(2), 0));
}

void register_cache_append(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "CacheAppend";
  def.min_inputs = def.max_inputs = 4;
  def.shape_inputs = 0b1000;
  def.infer = infer_cache_append;
  def.grad = grad_cache_append;
  KernelDef k;
  k.name = "portable/cache_append";
  k.in_place = {{0, 0}};
  k.create = cache_append_kernel;
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_attention_ops(OpRegistry& registry) {
  register_attention(registry);
  register_rotary(registry);
  register_tensor_scatter(registry);
  register_cache_append(registry);
}

}  // namespace ds
