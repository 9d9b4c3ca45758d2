#include "libds/passes/fuse_attention.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "libds/passes/pattern.h"

namespace ds {
namespace {

using Perm = std::vector<int64_t>;
constexpr size_t kHeadAxis = 1, kLengthAxis = 2, kSizeAxis = 3;  // of [batch, heads, length, size]

// Where heads come from.
struct Heads {
  ValueId heads = kNone;   // [batch, heads, length, size]; kNone: only `tokens` is there
  ValueId tokens = kNone;  // [batch, length, heads, size]; kNone: unknown
  ValueId packed = kNone;  // [batch, length, parts, heads, size], of which it is part `part`
  int64_t part = 0;
  ValueId plain = kNone;  // [batch, length, heads * size], when it is to be read in place of the tokens
  Dims dims;              // of the heads
  bool unfolds() const { return tokens != kNone || packed != kNone; }
};

// A step from the scores to the softmax: an addend, or Where, which puts `low` in place of the scores.
struct MaskStep {
  ValueId addend = kNone, condition = kNone, low = kNone;
  bool hides = false;  // the scores are replaced where the condition is true
};

struct Match {
  NodeId softmax = kNone;
  ValueId q = kNone, k = kNone, v = kNone;  // k: as the product takes it, transposed
  ValueId y = kNone;                        // [batch, heads, length, size]
  double scale = 1, softcap = 0;
  std::vector<MaskStep> masks;  // the innermost last
  Dims scores;
};

struct Operands {
  Heads q, k, v;
  ValueId past_k = kNone, past_v = kNone;  // [batch, groups, past, size]
  ValueId joined_k = kNone, joined_v = kNone;
  bool unfold() const { return q.unfolds() && k.unfolds() && v.unfolds(); }
};

class AttentionFinder {
 public:
  explicit AttentionFinder(Rewriter& rewriter) : graph_(rewriter.graph()), rw_(rewriter), pattern_(graph_) {}

  bool run() {
    bool changed = false;
    for (NodeId id : graph_.order()) {
      if (!graph_.node(id).alive || !graph_.node(id).is("Softmax")) continue;
      auto m = match(id);
      if (!m) continue;
      const auto operands = resolve(*m);
      if (!operands || !mask_fits(*m)) continue;
      replace(*m, *operands);
      changed = true;
    }
    return changed;
  }

 private:
  // --- from the softmax to both products -------------------------------------------------------

  std::optional<Match> match(NodeId id) const {
    const Node& n = graph_.node(id);
    const Dims* dims = pattern_.dims(n.input(0));
    if (dims == nullptr || dims->size() != 4 || !pattern_.is_f32(n.input(0))) return std::nullopt;
    const int64_t axis = n.attr_int("axis", -1);
    if (axis != -1 && axis != 3) return std::nullopt;
    Match m;
    m.softmax = id;
    const ValueId p = without_nan(n.output(0));
    const NodeId product = pattern_.only_user(p);
    if (product == kNone || !graph_.node(product).is("MatMul") || graph_.node(product).input(0) != p) return std::nullopt;
    m.v = graph_.node(product).input(1);
    m.y = graph_.node(product).output(0);
    if (!scores_behind(n.input(0), m)) return std::nullopt;
    return m;
  }

  // Where(IsNaN(p), 0, p), which newer exports put behind the softmax: Attention gives zeros for such rows.
  ValueId without_nan(ValueId p) const {
    const auto& users = graph_.value(p).users;
    if (users.size() != 2 || pattern_.visible(p)) return p;
    for (NodeId user : users) {
      const Node& where = graph_.node(user);
      if (!where.is("Where") || where.input(2) != p || pattern_.scalar(where.input(1)) != 0.0) continue;
      const Node* nan = pattern_.made_by(where.input(0), "IsNaN");
      if (nan != nullptr && nan->input(0) == p && pattern_.only_user(where.input(0)) != kNone) return where.output(0);
    }
    return p;
  }

  // The operand of a node that the scores come through; kNone: neither.
  bool leads_to_scores(ValueId id, int depth = 0) const {
    constexpr int kMostDepth = 6;
    const Node* n = pattern_.producer(id);
    if (n == nullptr || depth > kMostDepth || pattern_.only_user(id) == kNone) return false;
    if (n->is("MatMul")) return true;
    if (n->is("Mul") || n->is("Div")) return pattern_.scalar(n->input(1)) ? leads_to_scores(n->input(0), depth + 1)
                                            : n->is("Mul") && pattern_.scalar(n->input(0)) && leads_to_scores(n->input(1), depth + 1);
    if (n->is("Tanh")) return leads_to_scores(n->input(0), depth + 1);
    if (n->is("Add")) return leads_to_scores(n->input(0), depth + 1) || leads_to_scores(n->input(1), depth + 1);
    return n->is("Where") && (leads_to_scores(n->input(1), depth + 1) || leads_to_scores(n->input(2), depth + 1));
  }

  // Goes back from the softmax to the product of queries and keys. Masks come after the scale.
  bool scores_behind(ValueId id, Match& m) const {
    bool scaled = false;
    while (true) {
      const Node* n = pattern_.producer(id);
      if (n == nullptr || pattern_.only_user(id) == kNone) return false;
      if (n->is("MatMul")) break;
      if (const auto capped = capped_by(*n); capped && !scaled && m.softcap == 0) {
        m.softcap = capped->first;
        id = capped->second;
      } else if (const auto factor = factor_of(*n)) {
        m.scale *= factor->first;
        id = factor->second;
        scaled = true;
      } else if (n->is("Add") && !scaled && m.softcap == 0) {
        const bool left = leads_to_scores(n->input(0));
        if (!left && !leads_to_scores(n->input(1))) return false;
        m.masks.push_back({n->input(left ? 1 : 0)});
        id = n->input(left ? 0 : 1);
      } else if (n->is("Where") && !scaled && m.softcap == 0) {
        // Where the scores are replaced it is the same as an addend so low that they do not matter.
        constexpr double kLow = -1e30;
        const bool hides = pattern_.scalar(n->input(1)).has_value();
        const auto low = pattern_.scalar(n->input(hides ? 1 : 2));
        if (!low || !(*low <= kLow)) return false;
        m.masks.push_back({kNone, n->input(0), n->input(hides ? 1 : 2), hides});
        id = n->input(hides ? 2 : 1);
      } else {
        return false;
      }
    }
    const Node& product = graph_.node(graph_.value(id).producer);
    m.q = product.input(0);
    m.k = product.input(1);
    const Dims* dims = pattern_.dims(id);
    if (dims == nullptr || dims->size() != 4) return false;
    m.scores = *dims;
    return true;
  }

  // c tanh(s / c): c and s.
  std::optional<std::pair<double, ValueId>> capped_by(const Node& n) const {
    const auto outer = n.is("Mul") ? factor_of(n) : std::nullopt;
    const Node* tanh = outer ? pattern_.made_by(outer->second, "Tanh") : nullptr;
    if (tanh == nullptr || outer->first <= 0 || pattern_.only_user(outer->second) == kNone || pattern_.only_user(tanh->input(0)) == kNone) return std::nullopt;
    const Node* inner = pattern_.producer(tanh->input(0));
    const auto factor = inner == nullptr ? std::nullopt : factor_of(*inner);
    if (!factor || std::abs(factor->first * outer->first - 1) > 1e-6) return std::nullopt;
    return std::pair(outer->first, factor->second);
  }

  // Mul or Div by a constant number: the factor and the other operand.
  std::optional<std::pair<double, ValueId>> factor_of(const Node& n) const {
    for (size_t side : {1, 0}) {
      if (!(n.is("Mul") || (n.is("Div") && side == 1))) continue;
      const auto c = pattern_.scalar(n.input(side));
      const Dims *of = pattern_.dims(n.input(1 - side)), *out = pattern_.dims(n.output(0));
      if (!c || *c == 0 || of == nullptr || out == nullptr || of->size() != out->size()) continue;
      return std::pair(n.is("Mul") ? *c : 1 / *c, n.input(1 - side));
    }
    return std::nullopt;
  }

  // Whether the masks broadcast to the scores, and not the scores to the masks, as far as dimensions say.
  bool mask_fits(const Match& m) const {
    for (const MaskStep& step : m.masks) {
      const Dims* dims = pattern_.dims(step.condition != kNone ? step.condition : step.addend);
      if (dims == nullptr || dims->empty() || dims->size() > 4) return false;
      if (step.addend != kNone && !pattern_.is_f32(step.addend)) return false;
      const size_t lead = 4 - dims->size();
      for (size_t i = 0; i < dims->size(); ++i) {
        const Dim d = (*dims)[i], of = m.scores[lead + i];
        if (d != of && d != Dim(1) && (of == Dim(1) || (d.known() && of.known()))) return false;
      }
    }
    return true;
  }

  // --- what queries, keys and values are made of -----------------------------------------------

  ValueId without_scale(ValueId id, double& scale) const {
    while (const Node* n = pattern_.producer(id)) {
      const auto factor = factor_of(*n);
      if (!factor) break;
      scale *= factor->first;
      id = factor->second;
    }
    return id;
  }

  std::optional<Heads> heads_of(ValueId id) const {
    const Dims* dims = pattern_.dims(id);
    if (dims == nullptr || dims->size() != 4 || !(*dims)[kHeadAxis].known() || !(*dims)[kSizeAxis].known() || !pattern_.is_f32(id)) return std::nullopt;
    Heads h;
    h.heads = id;
    h.dims = *dims;
    if (const Node* n = pattern_.made_by(id, "Transpose"); n != nullptr && pattern_.permutation(*n) == Perm{0, 2, 1, 3}) h.tokens = n->input(0);
    else unpack(h);
    return h;
  }

  // Part of Transpose([batch, length, parts, heads, size]) along its first axis, taken by Gather, or by Split and Squeeze.
  void unpack(Heads& h) const {
    const Node* n = pattern_.producer(h.heads);
    ValueId all = kNone;
    int64_t part = 0;
    if (n != nullptr && n->is("Gather") && n->attr_int("axis", 0) == 0) {
      const auto index = pattern_.ints(n->input(1));
      if (!index || !pattern_.dims(n->input(1))->empty()) return;
      part = (*index)[0];
      all = n->input(0);
    } else if (n != nullptr && (n->is("Squeeze") || n->is("Reshape"))) {
      const Node* split = pattern_.made_by(n->input(0), "Split");
      const Dims* piece = pattern_.dims(n->input(0));
      if (split == nullptr || split->attr_int("axis", 0) != 0 || piece == nullptr || piece->size() != 5 || (*piece)[0] != Dim(1)) return;
      if (!std::equal(h.dims.begin(), h.dims.end(), piece->begin() + 1)) return;
      part = graph_.value(n->input(0)).producer_index;
      all = split->input(0);
    }
    const Node* transpose = pattern_.made_by(all, "Transpose");
    if (transpose == nullptr || pattern_.permutation(*transpose) != Perm{2, 0, 3, 1, 4}) return;
    const Dim parts = (*pattern_.dims(all))[0];
    if (!parts.known()) return;
    if (part < 0) part += parts.raw;
    if (part < 0 || part >= parts.raw) return;
    h.packed = transpose->input(0);
    h.part = part;
  }

  // Keys as the product takes them, [batch, heads, size, length].
  std::optional<Heads> keys_of(ValueId id, double& scale) const {
    id = without_scale(id, scale);
    const Node* n = pattern_.made_by(id, "Transpose");
    if (n == nullptr) return std::nullopt;
    const Perm perm = pattern_.permutation(*n);
    if (perm == Perm{0, 1, 3, 2}) return heads_of(ungrouped(without_scale(n->input(0), scale)));
    if (perm != Perm{0, 2, 3, 1} || !pattern_.is_f32(id)) return std::nullopt;
    const ValueId tokens = without_scale(n->input(0), scale);
    const Dims& d = *pattern_.dims(tokens);
    if (!d[2].known() || !d[3].known()) return std::nullopt;
    Heads h;
    h.tokens = tokens;
    h.dims = {d[0], d[2], d[1], d[3]};
    return h;
  }

  // Reshape(Expand(Unsqueeze(x, 2))) that repeats each head of x for a group of queries: x.
  ValueId ungrouped(ValueId id) const {
    const Node* reshape = pattern_.made_by(id, "Reshape");
    const Node* expand = reshape == nullptr ? nullptr : pattern_.made_by(reshape->input(0), "Expand");
    const Node* unsqueeze = expand == nullptr ? nullptr : pattern_.producer(expand->input(0));
    if (unsqueeze == nullptr || !(unsqueeze->is("Unsqueeze") || unsqueeze->is("Reshape"))) return id;
    const ValueId x = unsqueeze->input(0);
    const Dims *in = pattern_.dims(x), *one = pattern_.dims(expand->input(0)), *many = pattern_.dims(reshape->input(0)), *out = pattern_.dims(id);
    if (in == nullptr || one == nullptr || many == nullptr || out == nullptr) return id;
    if (in->size() != 4 || *one != Dims{(*in)[0], (*in)[1], 1, (*in)[2], (*in)[3]} || many->size() != 5 || out->size() != 4) return id;
    const Dim groups = (*in)[1], repeats = (*many)[2], heads = (*out)[1];
    if (!groups.known() || !repeats.known() || !heads.known() || heads.raw != groups.raw * repeats.raw) return id;
    if ((*many)[1] != groups || (*many)[4] != (*in)[3] || (*out)[3] != (*in)[3] || (*out)[0] != (*in)[0]) return id;
    return x;
  }

  std::optional<Operands> resolve(Match& m) const {
    double scale = m.scale;
    const auto q = heads_of(without_scale(m.q, scale));
    const auto k = keys_of(m.k, scale);
    const auto v = heads_of(ungrouped(m.v));
    if (!q || !k || !v) return std::nullopt;
    const int64_t heads = q->dims[kHeadAxis].raw, groups = k->dims[kHeadAxis].raw;
    if (groups < 1 || heads % groups != 0 || v->dims[kHeadAxis].raw != groups || q->dims[kSizeAxis] != k->dims[kSizeAxis]) return std::nullopt;
    if (q->dims[0] != k->dims[0] || q->dims[0] != v->dims[0]) return std::nullopt;
    if (m.scores[kHeadAxis] != q->dims[kHeadAxis]) return std::nullopt;
    Operands o{*q, *k, *v};
    take_cache(o);
    for (Heads* h : {&o.q, &o.k})
      if (o.unfold()) take_scale(*h, scale);
    m.scale = scale;
    return o;
  }

  // A scale applied before the heads were split.
  void take_scale(Heads& h, double& scale) const {
    const Node* reshape = pattern_.made_by(h.tokens, "Reshape");
    if (h.packed != kNone || reshape == nullptr) return;
    const Dims *in = pattern_.dims(reshape->input(0)), &d = h.dims;
    if (in == nullptr || *in != Dims{d[0], d[kLengthAxis], checked_mul(d[kHeadAxis].raw, d[kSizeAxis].raw)}) return;
    h.plain = without_scale(reshape->input(0), scale);
  }

  // Keys and values that are appended to a cache become its past and new ones, where transposes go by that.
  void take_cache(Operands& o) const {
    if (!o.q.unfolds() || o.k.unfolds() || o.v.unfolds()) return;
    const auto split = [&](const Heads& h, ValueId& past) -> std::optional<Heads> {
      const Node* n = pattern_.made_by(h.heads, "Concat");
      if (n == nullptr || n->inputs.size() != 2) return std::nullopt;
      const int64_t axis = n->attr_int("axis", 0);
      if (axis != 2 && axis != -2) return std::nullopt;
      // Another reader of the whole cache may come before Attention, which makes it now.
      if (graph_.value(h.heads).users.size() != 1) return std::nullopt;
      const auto fresh = heads_of(n->input(1));
      const Dims* before = pattern_.dims(n->input(0));
      if (!fresh || !fresh->unfolds() || before == nullptr || (*before)[0] != h.dims[0] || fresh->dims[0] != h.dims[0]) return std::nullopt;
      past = n->input(0);
      return fresh;
    };
    ValueId past_k = kNone, past_v = kNone;
    const auto k = split(o.k, past_k), v = split(o.v, past_v);
    if (!k || !v) return;
    o.joined_k = o.k.heads;
    o.joined_v = o.v.heads;
    o.past_k = past_k;
    o.past_v = past_v;
    o.k = *k;
    o.v = *v;
  }

  // --- the new node ----------------------------------------------------------------------------

  ValueId ints(std::vector<int64_t> list) { return rw_.add_constant("attention/ints", Tensor::vector<int64_t>(std::span<const int64_t>(list))); }

  // [batch, length, heads * size], for free where it was of that shape before it was taken apart.
  ValueId flat(ValueId tokens, size_t rank) {
    const Dims d = *pattern_.dims(tokens);
    int64_t width = 1;
    for (size_t i = 2; i < rank; ++i) width = checked_mul(width, d[i].raw);
    if (const Node* n = pattern_.made_by(tokens, "Reshape")) {
      const Dims* in = pattern_.dims(n->input(0));
      if (in != nullptr && *in == Dims{d[0], d[1], width}) return n->input(0);
    }
    return rw_.emit("Reshape", {tokens, ints({0, 0, width})});
  }

  ValueId unfolded(const Heads& h) {
    if (h.plain != kNone) return h.plain;
    if (h.packed == kNone) return flat(h.tokens, 4);
    auto& parts = parts_[h.packed];
    if (parts.empty()) {
      const Dims d = *pattern_.dims(h.packed);
      const std::vector<int64_t> sizes(static_cast<size_t>(d[2].raw), d[3].raw * d[4].raw);
      const NodeId split = rw_.add_node("Split", {flat(h.packed, 5), ints(sizes)}, {{"axis", int64_t{2}}}, {}, sizes.size());
      parts = graph_.node(split).outputs;
    }
    return parts[static_cast<size_t>(h.part)];
  }

  ValueId folded(const Heads& h) {
    return h.heads != kNone ? h.heads : rw_.emit("Transpose", {h.tokens}, {{"perm", Perm{0, 2, 1, 3}}});
  }

  // One addend for all masks, with a column for every key; `k` is the operand made for keys, its length along `axis`.
  ValueId mask(const Match& m, ValueId past, ValueId k, int64_t axis) {
    ValueId sum = kNone;
    for (auto step = m.masks.rbegin(); step != m.masks.rend(); ++step) {
      if (step->condition == kNone) {
        sum = sum == kNone ? step->addend : rw_.emit("Add", {sum, step->addend});
        continue;
      }
      if (sum == kNone) sum = rw_.add_constant("attention/seen", Tensor::scalar<float>(0));
      sum = rw_.emit("Where", {step->condition, step->hides ? step->low : sum, step->hides ? sum : step->low});
    }
    if (sum == kNone || pattern_.dims(sum)->back() == m.scores[3]) return sum;
    return rw_.emit("Expand", {sum, key_count(m.scores[3], past, k, axis)});
  }

  // How many keys there are, [1].
  ValueId key_count(Dim known, ValueId past, ValueId k, int64_t axis) {
    if (known.known()) return ints({known.raw});
    const auto length = [&](ValueId of, int64_t along) { return rw_.emit("Shape", {of}, {{"start", along}, {"end", along + 1}}); };
    const ValueId fresh = length(k, axis);
    return past == kNone ? fresh : rw_.emit("Add", {length(past, static_cast<int64_t>(kLengthAxis)), fresh});
  }

  void replace(const Match& m, const Operands& o) {
    parts_.clear();
    const std::string name = graph_.node(graph_.value(m.y).producer).name;
    const bool split = o.unfold();
    const auto operand = [&](const Heads& h) { return split ? unfolded(h) : folded(h); };
    rw_.insert_before(graph_.value(m.y).producer);
    const ValueId q = operand(o.q), k = operand(o.k), v = operand(o.v);
    std::vector<ValueId> inputs = {q, k, v, mask(m, o.past_k, k, split ? 1 : static_cast<int64_t>(kLengthAxis)), o.past_k, o.past_v};
    while (inputs.back() == kNone) inputs.pop_back();
    Attributes attrs = {{"scale", static_cast<float>(m.scale)}};
    if (m.softcap > 0) attrs["softcap"] = static_cast<float>(m.softcap);
    const int64_t heads = o.q.dims[kHeadAxis].raw;
    if (split) {
      attrs["q_num_heads"] = heads;
      attrs["kv_num_heads"] = o.k.dims[kHeadAxis].raw;
    }
    const NodeId node = rw_.add_node("Attention", inputs, std::move(attrs), name, o.past_k == kNone ? 1 : 3);
    const std::vector<ValueId> made = graph_.node(node).outputs;
    if (split) unfold_result(m, made[0], heads, o.v.dims[kSizeAxis].raw);
    else rw_.replace_uses(m.y, made[0]);
    rw_.remove_dead_nodes();
    if (o.past_k == kNone) return;
    rw_.replace_uses(o.joined_k, made[1]);
    rw_.replace_uses(o.joined_v, made[2]);
    rw_.remove_dead_nodes();
  }

  // The result in the form the old one had; where that was transposed back the transpose goes.
  void unfold_result(const Match& m, ValueId y, int64_t heads, int64_t size) {
    const NodeId back = pattern_.only_user(m.y);
    ValueId old = m.y;
    bool transposed = false;
    if (back != kNone && pattern_.permutation(graph_.node(back)) == Perm{0, 2, 1, 3}) {
      old = graph_.node(back).output(0);
      transposed = true;
      const NodeId reshape = pattern_.only_user(old);
      if (reshape != kNone && graph_.node(reshape).is("Reshape") && *pattern_.dims(graph_.node(reshape).output(0)) == *pattern_.dims(y))
        return rw_.replace_uses(graph_.node(reshape).output(0), y);
    }
    ValueId four = rw_.emit("Reshape", {y, ints({0, 0, heads, size})});
    if (!transposed) four = rw_.emit("Transpose", {four}, {{"perm", Perm{0, 2, 1, 3}}});
    rw_.replace_uses(old, four);
  }

  Graph& graph_;
  Rewriter& rw_;
  Pattern pattern_;
  std::map<ValueId, std::vector<ValueId>> parts_;  // of a packed value, while one node is made
};

}  // namespace

bool fuse_attention(Rewriter& rewriter, PassContext&) { return AttentionFinder(rewriter).run(); }

}  // namespace ds
