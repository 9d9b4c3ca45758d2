#include "libds/passes/channel_rules.h"

#include <algorithm>
#include <set>
#include <unordered_map>

namespace ds {
namespace {

using Numbers = ChannelTracer::Numbers;

struct Site {
  ChannelTracer& t;
  const Node& n;
  NodeId id;

  ValueId in(size_t i) const { return n.input(i); }
  ValueId out(size_t i = 0) const { return n.output(i); }
  size_t rank(ValueId v) const { return t.shape(v)->size(); }  // trace_node has checked that shapes are known
  size_t axis_attr(const char* key, int64_t otherwise, size_t rank) const {
    const int64_t a = n.attr_int(key, otherwise);
    return static_cast<size_t>(a < 0 ? a + static_cast<int64_t>(rank) : a);
  }
  std::string because(const char* what) const { return fmt::format("{} {}", n.label(), what); }
  std::optional<std::vector<int64_t>> ints(size_t i) const {
    if (in(i) == kNone || !t.graph().value(in(i)).is_constant()) return std::nullopt;
    const Tensor& c = *t.graph().value(in(i)).constant;
    return is_int(c.dtype()) ? std::optional(c.to_ints()) : std::nullopt;
  }
  void pass_all_but(ValueId from, ValueId to, size_t skipped) const {
    for (size_t a = 0; a < rank(from); ++a)
      if (a != skipped) t.pass(from, a, to, a);
  }
};
constexpr size_t kNoAxis = static_cast<size_t>(-1);

// --- elementwise -------------------------------------------------------------------------------

// Output axis `axis` of an operator that broadcasts `operands` (value, its axis; kNoAxis: it has none).
void broadcast_axis(const Site& s, const std::vector<std::pair<ValueId, size_t>>& operands, size_t axis) {
  const Numbers* first = nullptr;
  std::string fixed;
  std::vector<const Numbers*> found;
  for (const auto& [v, a] : operands) {
    if (a == kNoAxis) continue;
    if (const Numbers* n = s.t.numbers(v, a)) found.push_back(n);
    else if (!s.t.always_one(v, a)) fixed = fmt::format("coupled with '{}', whose size is fixed", s.t.graph().value(v).name);
  }
  for (const Numbers* n : found) {
    if (first == nullptr) first = n;
    for (size_t i = 0; i < n->size() && i < first->size(); ++i) s.t.join((*first)[i], (*n)[i]);
    if (!fixed.empty())
      for (int32_t x : *n) s.t.pin(x, fixed);
  }
  if (first != nullptr) s.t.set(s.out(), axis, *first);
}

void elementwise_over(const Site& s, const std::vector<ValueId>& operands) {
  const size_t rank = s.rank(s.out());
  for (size_t a = 0; a < rank; ++a) {
    std::vector<std::pair<ValueId, size_t>> axes;
    for (ValueId v : operands) {
      if (v == kNone) continue;
      const size_t lead = rank - s.rank(v);
      axes.emplace_back(v, a < lead ? kNoAxis : a - lead);
    }
    broadcast_axis(s, axes, a);
  }
}

void elementwise(const Site& s) { elementwise_over(s, s.n.inputs); }
void unary(const Site& s) {  // further operands are scalars or nothing that has channels
  elementwise_over(s, {s.in(0)});
  if (s.out(1) != kNone) s.pass_all_but(s.in(0), s.out(1), kNoAxis);  // Dropout's mask
}

// --- layers with weights -----------------------------------------------------------------------

// Couples position j of every one of `groups` equal parts of an axis.
void tie_parts(const Site& s, ValueId v, size_t axis, int64_t groups) {
  const Numbers* n = s.t.numbers(v, axis);
  if (n == nullptr) return;
  const size_t per = n->size() / static_cast<size_t>(groups);
  for (size_t i = per; i < n->size(); ++i) s.t.join((*n)[i % per], (*n)[i]);
}

void conv(const Site& s) {
  const ValueId x = s.in(0), w = s.in(1);
  const int64_t groups = s.n.attr_int("group", 1), in = s.t.size(x, 1), out = s.t.size(w, 0);
  s.t.pin_from(x, 2, s.because("slides over this axis"));
  s.t.pin_from(w, 2, s.because("uses this axis as its kernel"));
  if (groups == 1) {
    s.t.tie(x, 1, w, 1);
  } else if (groups == in && out % in == 0) {  // depthwise: outputs live and die with their input
    const Numbers *nx = s.t.numbers(x, 1), *nw = s.t.numbers(w, 0);
    if (nx == nullptr || nw == nullptr) {
      s.t.pin(x, 1, s.because("has computed weights"));
      s.t.pin(w, 0, s.because("reads each channel of a tensor whose size is fixed"));
    } else {
      const size_t per = nw->size() / nx->size();
      for (size_t i = 0; i < nw->size(); ++i) s.t.join((*nx)[i / per], (*nw)[i]);
    }
  } else {  // grouped: the same position leaves every group
    tie_parts(s, x, 1, groups);
    tie_parts(s, w, 0, groups);
    const Numbers *nx = s.t.numbers(x, 1), *nw = s.t.numbers(w, 1);
    if (nx != nullptr && nw != nullptr) {
      for (size_t i = 0; i < nw->size(); ++i) s.t.join((*nx)[i], (*nw)[i]);
    } else {
      s.t.pin(x, 1, s.because("has computed weights or one channel a group"));
      s.t.pin(w, 1, s.because("reads a tensor whose size is fixed"));
    }
  }
  if (s.in(2) != kNone) s.t.tie(w, 0, s.in(2), 0);
  s.t.pass(x, 0, s.out(), 0);
  s.t.pass(w, 0, s.out(), 1);
}

void conv_transpose(const Site& s) {
  const ValueId x = s.in(0), w = s.in(1);
  s.t.pin_from(x, 2, s.because("slides over this axis"));
  s.t.pin_from(w, 2, s.because("uses this axis as its kernel"));
  if (s.n.attr_int("group", 1) != 1) {
    for (ValueId v : {x, w, s.in(2)}) s.t.freeze(v, s.because("has groups"));
    return;
  }
  s.t.tie(x, 1, w, 0);
  if (s.in(2) != kNone) s.t.tie(w, 1, s.in(2), 0);
  s.t.pass(x, 0, s.out(), 0);
  s.t.pass(w, 1, s.out(), 1);
}

void gemm(const Site& s) {
  const size_t ta = s.n.attr_int("transA", 0) != 0, tb = s.n.attr_int("transB", 0) != 0;
  s.t.tie(s.in(0), 1 - ta, s.in(1), tb);
  s.t.pass(s.in(0), ta, s.out(), 0);
  s.t.pass(s.in(1), 1 - tb, s.out(), 1);
  if (s.in(2) != kNone) elementwise_over(s, {s.out(), s.in(2)});
}

void matmul(const Site& s) {
  const size_t ra = s.rank(s.in(0)), rb = s.rank(s.in(1));
  if (ra < 2 || rb < 2) {
    for (ValueId v : s.n.inputs) s.t.freeze(v, s.because("multiplies a vector"));
    return;
  }
  s.t.tie(s.in(0), ra - 1, s.in(1), rb - 2);
  const size_t rank = s.rank(s.out());
  s.t.pass(s.in(0), ra - 2, s.out(), rank - 2);
  s.t.pass(s.in(1), rb - 1, s.out(), rank - 1);
  for (size_t a = 0; a + 2 < rank; ++a) {
    const size_t lead_a = rank - ra, lead_b = rank - rb;
    broadcast_axis(s, {{s.in(0), a < lead_a ? kNoAxis : a - lead_a}, {s.in(1), a < lead_b ? kNoAxis : a - lead_b}}, a);
  }
}

// --- normalisation, pooling, reduction ---------------------------------------------------------

void batch_norm(const Site& s) {
  for (size_t i = 1; i < s.n.inputs.size(); ++i) s.t.tie(s.in(0), 1, s.in(i), 0);
  for (size_t i = 1; i < s.n.outputs.size(); ++i)
    if (s.out(i) != kNone) s.t.pin(s.in(0), 1, s.because("updates its statistics"));
  s.pass_all_but(s.in(0), s.out(), kNoAxis);
}

void instance_norm(const Site& s) {
  s.t.pin_from(s.in(0), 2, s.because("takes a mean over this axis"));
  batch_norm(s);
}

void layer_norm(const Site& s) {
  const size_t axis = s.axis_attr("axis", -1, s.rank(s.in(0)));
  s.t.pin_from(s.in(0), axis, s.because("normalises over these channels together"));
  for (size_t i = 1; i < s.n.inputs.size(); ++i) s.t.freeze(s.in(i), s.because("normalises over these channels together"));
  for (size_t i = 1; i < s.n.outputs.size(); ++i)
    if (s.out(i) != kNone) s.t.freeze(s.in(0), s.because("returns its statistics"));
  s.pass_all_but(s.in(0), s.out(), kNoAxis);
}

void mixes_axis_one(const Site& s) {  // GroupNormalization, LRN
  for (size_t i = 1; i < s.n.inputs.size(); ++i) s.t.freeze(s.in(i), s.because("mixes these channels"));
  s.t.pin_from(s.in(0), 1, s.because("mixes these channels"));
  s.pass_all_but(s.in(0), s.out(), kNoAxis);
}

void mixes_axis(const Site& s) {  // Softmax, LogSoftmax, Hardmax, LpNormalization
  s.t.pin(s.in(0), s.axis_attr("axis", -1, s.rank(s.in(0))), s.because("mixes these channels"));
  s.pass_all_but(s.in(0), s.out(), kNoAxis);
}

void pool(const Site& s) {
  s.t.pin_from(s.in(0), 2, s.because("slides over this axis"));
  if (s.out(1) != kNone) s.t.freeze(s.in(0), s.because("returns positions"));
  s.t.pass(s.in(0), 0, s.out(), 0);
  s.t.pass(s.in(0), 1, s.out(), 1);
}

void reduce_axes(const Site& s, const std::vector<int64_t>& axes, bool keep) {
  const size_t rank = s.rank(s.in(0));
  std::set<size_t> reduced;
  for (int64_t a : axes) reduced.insert(static_cast<size_t>(a < 0 ? a + static_cast<int64_t>(rank) : a));
  size_t to = 0;
  for (size_t a = 0; a < rank; ++a) {
    if (reduced.count(a)) s.t.pin(s.in(0), a, s.because("reduces over these channels"));
    else s.t.pass(s.in(0), a, s.out(), to);
    to += keep || !reduced.count(a);
  }
}

void reduce(const Site& s) {
  std::vector<int64_t> axes;
  if (s.in(1) != kNone) {
    const auto given = s.ints(1);
    if (!given) return s.t.freeze(s.in(0), s.because("computes its axes"));
    axes = *given;
  }
  if (axes.empty() && s.n.attr_int("noop_with_empty_axes", 0) == 0)
    for (size_t a = 0; a < s.rank(s.in(0)); ++a) axes.push_back(static_cast<int64_t>(a));
  reduce_axes(s, axes, s.n.attr_int("keepdims", 1) != 0);
}

void arg_reduce(const Site& s) { reduce_axes(s, {s.n.attr_int("axis", 0)}, s.n.attr_int("keepdims", 1) != 0); }

// --- moving positions --------------------------------------------------------------------------

void transpose(const Site& s) {
  const size_t rank = s.rank(s.in(0));
  std::vector<int64_t> perm;
  for (size_t i = rank; i-- > 0;) perm.push_back(static_cast<int64_t>(i));
  perm = s.n.attr_ints("perm", perm);
  for (size_t a = 0; a < rank; ++a) s.t.pass(s.in(0), static_cast<size_t>(perm[a]), s.out(), a);
}

void concat(const Site& s) {
  const size_t rank = s.rank(s.out()), axis = s.axis_attr("axis", 0, rank);
  for (size_t a = 0; a < rank; ++a) {
    std::vector<std::pair<ValueId, size_t>> operands;
    for (ValueId v : s.n.inputs) operands.emplace_back(v, a);
    if (a != axis) {
      broadcast_axis(s, operands, a);
      continue;
    }
    Numbers joined;
    bool followed = false;
    for (ValueId v : s.n.inputs) followed |= s.t.numbers(v, axis) != nullptr;
    for (ValueId v : s.n.inputs) {
      if (!followed) break;
      const Numbers* n = s.t.numbers(v, axis);
      const Numbers part = n != nullptr ? *n
                                        : s.t.fixed_numbers(static_cast<size_t>(s.t.size(v, axis)),
                                                            fmt::format("'{}' has a fixed size", s.t.graph().value(v).name));
      joined.insert(joined.end(), part.begin(), part.end());
    }
    s.t.set(s.out(), axis, std::move(joined));
  }
}

void split(const Site& s) {
  const size_t axis = s.axis_attr("axis", 0, s.rank(s.in(0)));
  const auto parts = split_parts(s.t.graph(), s.n, s.t.size(s.in(0), axis));
  const Numbers* n = s.t.numbers(s.in(0), axis);
  if (!parts && n != nullptr) s.t.pin(s.in(0), axis, s.because("computes where it splits"));
  int64_t at = 0;
  for (size_t i = 0; i < s.n.outputs.size(); ++i) {
    if (s.out(i) != kNone) s.pass_all_but(s.in(0), s.out(i), axis);
    if (!parts) continue;
    if (n != nullptr) s.t.set(s.out(i), axis, Numbers(n->begin() + at, n->begin() + at + (*parts)[i]));
    at += (*parts)[i];
  }
}

void slice(const Site& s) {
  const auto shape = *s.t.shape(s.in(0));
  for (size_t a = 0; a < shape.size(); ++a) {
    const Numbers* n = s.t.numbers(s.in(0), a);
    if (n == nullptr) continue;
    const auto range = slice_range(s.t.graph(), s.n, shape.size(), a, shape[a]);
    if (!range || range->step != 1) {
      s.t.pin(s.in(0), a, s.because("slices this axis by steps or by computed bounds"));
      continue;
    }
    s.t.set(s.out(), a, Numbers(n->begin() + range->begin, n->begin() + range->end));
  }
}

void pad(const Site& s) {
  const size_t rank = s.rank(s.in(0));
  const auto pads = s.ints(1);
  std::vector<int64_t> before(rank, 0), after(rank, 0);
  const auto given = s.in(3) == kNone ? std::nullopt : s.ints(3);
  if (!pads || (s.in(3) != kNone && !given)) return s.t.freeze(s.in(0), s.because("computes its padding"));
  const size_t count = pads->size() / 2;
  for (size_t i = 0; i < count; ++i) {
    const int64_t a = given ? (*given)[i] : static_cast<int64_t>(i);
    const auto axis = static_cast<size_t>(a < 0 ? a + static_cast<int64_t>(rank) : a);
    before[axis] = (*pads)[i];
    after[axis] = (*pads)[count + i];
  }
  const bool constant = s.n.attr_string("mode", "constant") == "constant";
  for (size_t a = 0; a < rank; ++a) {
    const Numbers* n = s.t.numbers(s.in(0), a);
    if (n == nullptr) continue;
    if (before[a] == 0 && after[a] == 0) {
      s.t.pass(s.in(0), a, s.out(), a);
    } else if (!constant || before[a] < 0 || after[a] < 0) {
      s.t.pin(s.in(0), a, s.because("copies or crops these channels"));
    } else {
      Numbers padded = s.t.fixed_numbers(static_cast<size_t>(before[a]), s.because("adds this channel"));
      padded.insert(padded.end(), n->begin(), n->end());
      const Numbers tail = s.t.fixed_numbers(static_cast<size_t>(after[a]), s.because("adds this channel"));
      padded.insert(padded.end(), tail.begin(), tail.end());
      s.t.set(s.out(), a, std::move(padded));
    }
  }
}

void gather(const Site& s) {
  const size_t rank = s.rank(s.in(0)), indices = s.rank(s.in(1)), axis = s.axis_attr("axis", 0, rank);
  s.t.pin(s.in(0), axis, s.because("picks positions of this axis by number"));
  for (size_t a = 0; a < rank; ++a)
    if (a != axis) s.t.pass(s.in(0), a, s.out(), a < axis ? a : a - 1 + indices);
}

// --- shapes ------------------------------------------------------------------------------------

// Whether element `index` of a shape operand can follow a removal: it is written down somewhere, or
// says "whatever fits" (-1).
bool adjustable(const Site& s, size_t operand, size_t index) {
  return locate_shape_element(s.t.graph(), s.id, operand, index).has_value();
}

// Axes [in_begin, in_end) become [out_begin, out_end): the same number of positions in the same order.
void reshape_segment(const Site& s, const Shape& in, size_t in_begin, size_t in_end, const Shape& out, size_t out_begin,
                     size_t out_end) {
  std::vector<size_t> followed;
  size_t large_in = 0;
  for (size_t a = in_begin; a < in_end; ++a) {
    if (s.t.numbers(s.in(0), a) != nullptr) followed.push_back(a);
    large_in += in[a] > 1;
  }
  if (followed.empty()) return;
  const auto give_up = [&](const char* why) {
    for (size_t a : followed) s.t.pin(s.in(0), a, s.because(why));
  };
  if (followed.size() > 1) return give_up("merges several axes that have channels");
  // Number of every position of the segment in row-major order.
  int64_t inner = 1, total = 1;
  for (size_t a = in_begin; a < in_end; ++a) {
    total *= in[a];
    if (a > followed[0]) inner *= in[a];
  }
  const Numbers& n = *s.t.numbers(s.in(0), followed[0]);
  const auto number_at = [&](int64_t position) { return n[static_cast<size_t>(position / inner) % n.size()]; };
  // An output axis may carry the channels when the number depends on the index along it alone.
  for (size_t o = out_begin; o < out_end; ++o) {
    if (out[o] < 2) continue;
    int64_t stride = 1;
    for (size_t a = o + 1; a < out_end; ++a) stride *= out[a];
    Numbers along(static_cast<size_t>(out[o]));
    for (int64_t i = 0; i < out[o]; ++i) along[static_cast<size_t>(i)] = number_at(i * stride);
    bool depends_on_this_alone = true;
    for (int64_t p = 0; p < total && depends_on_this_alone; ++p)
      depends_on_this_alone = s.t.root(number_at(p)) == s.t.root(along[static_cast<size_t>(p / stride % out[o])]);
    if (!depends_on_this_alone) continue;
    if (s.n.op == "Reshape") {
      const auto element = locate_shape_element(s.t.graph(), s.id, 1, o);
      if (!element) return give_up("computes its shape");
      if (element->content == 0 && (large_in != 1 || followed[0] != o)) return give_up("copies a size from another axis");
    }
    s.t.set(s.out(), o, std::move(along));
    return;
  }
  give_up("splits these channels over several axes");
}

void reshape(const Site& s) {
  const Shape in = *s.t.shape(s.in(0)), out = *s.t.shape(s.out());
  if (std::count(in.begin(), in.end(), 0) > 0 || std::count(out.begin(), out.end(), 0) > 0)
    return s.t.freeze(s.in(0), s.because("reshapes an empty tensor"));
  // Cut both shapes into the shortest runs of axes with equal products.
  size_t i = 0, o = 0;
  while (i < in.size() || o < out.size()) {
    const size_t in_begin = i, out_begin = o;
    int64_t p = i < in.size() ? in[i++] : 1, q = o < out.size() ? out[o++] : 1;
    while (p != q) {
      if (p < q) {
        DS_CHECK(i < in.size());
        p *= in[i++];
      } else {
        DS_CHECK(o < out.size());
        q *= out[o++];
      }
    }
    // Trailing axes of size 1 belong to the run before them.
    if (o == out.size())
      while (i < in.size() && in[i] == 1) ++i;
    if (i == in.size())
      while (o < out.size() && out[o] == 1) ++o;
    reshape_segment(s, in, in_begin, i, out, out_begin, o);
  }
}

void expand(const Site& s) {
  const size_t lead = s.rank(s.out()) - s.rank(s.in(0));
  for (size_t a = 0; a < s.rank(s.in(0)); ++a) {
    if (s.t.numbers(s.in(0), a) == nullptr) continue;
    const auto operand = s.t.shape(s.in(1));
    const size_t elements = operand && operand->size() == 1 ? static_cast<size_t>((*operand)[0]) : 0;
    const size_t missing = s.rank(s.out()) - elements;  // axes the shape operand does not mention
    if (lead + a >= missing && !adjustable(s, 1, lead + a - missing)) s.t.pin(s.in(0), a, s.because("computes its shape"));
    s.t.pass(s.in(0), a, s.out(), lead + a);
  }
}

void resize(const Site& s) {
  const size_t rank = s.rank(s.in(0));
  std::vector<int64_t> every;
  for (size_t a = 0; a < rank; ++a) every.push_back(static_cast<int64_t>(a));
  const std::vector<int64_t> axes = s.n.attr_ints("axes", every);
  for (size_t a = 0; a < rank; ++a) {
    if (s.t.numbers(s.in(0), a) == nullptr) continue;
    size_t at = axes.size();
    for (size_t i = 0; i < axes.size(); ++i)
      if (axes[i] == static_cast<int64_t>(a) || axes[i] + static_cast<int64_t>(rank) == static_cast<int64_t>(a)) at = i;
    const bool same = s.t.size(s.in(0), a) == s.t.size(s.out(), a);
    bool follows = at == axes.size();
    if (!follows && s.in(3) != kNone) {
      follows = same && adjustable(s, 3, at) && s.n.attr_string("keep_aspect_ratio_policy", "stretch") == "stretch";
    } else if (!follows && s.in(2) != kNone && s.t.graph().value(s.in(2)).is_constant()) {
      const std::vector<double> scales = s.t.graph().value(s.in(2)).constant->to_doubles();
      follows = same && at < scales.size() && scales[at] == 1.0;
    }
    if (!follows) s.t.pin(s.in(0), a, s.because("resizes this axis"));
    else s.t.pass(s.in(0), a, s.out(), a);
  }
}

// The content of Shape is the sizes themselves. Whoever reads the size of an axis that has channels
// may compute with it, so those channels stay; reading the batch size is harmless.
void shape_of(const Site& s) {
  const Graph& g = s.t.graph();
  const int64_t rank = static_cast<int64_t>(s.rank(s.in(0)));
  const auto clamp = [&](int64_t a) { return std::clamp<int64_t>(a < 0 ? a + rank : a, 0, rank); };
  const int64_t start = clamp(s.n.attr_int("start", 0)), end = clamp(s.n.attr_int("end", rank));
  std::vector<char> read(static_cast<size_t>(rank), 0);
  const auto read_all = [&] { std::fill(read.begin(), read.end(), 1); };
  if (g.is_output(s.out())) read_all();
  for (NodeId user : g.value(s.out()).users) {
    const Node& u = g.node(user);
    const ValueId indices = u.input(1);
    if (u.is("Gather") && u.input(0) == s.out() && indices != kNone && g.value(indices).is_constant()) {
      for (int64_t i : g.value(indices).constant->to_ints()) {
        const int64_t axis = start + (i < 0 ? i + end - start : i);
        if (axis >= 0 && axis < rank) read[static_cast<size_t>(axis)] = 1;
      }
    } else if (u.is("Slice") && u.input(0) == s.out()) {
      const auto range = slice_range(g, u, 1, 0, end - start);
      if (!range || range->step != 1) {
        read_all();
        continue;
      }
      for (int64_t a = range->begin; a < range->end; ++a) read[static_cast<size_t>(start + a)] = 1;
    } else {
      read_all();
    }
  }
  for (int64_t a = start; a < end; ++a)
    if (read[static_cast<size_t>(a)]) s.t.pin(s.in(0), static_cast<size_t>(a), s.because("reads the number of these channels"));
}

// --- quantization ------------------------------------------------------------------------------

void quantize_linear(const Site& s) {
  if (s.n.attr_int("block_size", 0) != 0) {
    for (ValueId v : s.n.inputs) s.t.freeze(v, s.because("quantizes in blocks"));
    return;
  }
  if (s.rank(s.in(1)) == 1 && s.rank(s.in(0)) > 0) {
    const size_t axis = s.axis_attr("axis", 1, s.rank(s.in(0)));
    if (s.t.size(s.in(1), 0) > 1) {
      s.t.tie(s.in(0), axis, s.in(1), 0);
      if (s.in(2) != kNone) s.t.tie(s.in(1), 0, s.in(2), 0);
    }
  }
  s.pass_all_but(s.in(0), s.out(), kNoAxis);
}

// --- table -------------------------------------------------------------------------------------

struct Rule {
  void (*trace)(const Site&);
  uint32_t operands;  // bit i: input i is data the rule looks at; the others are frozen
};
constexpr uint32_t kAll = ~0u;

const std::unordered_map<std::string, Rule>& rules() {
  static const auto* table = [] {
    auto* t = new std::unordered_map<std::string, Rule>{
        {"Conv", {conv, kAll}},
        {"ConvTranspose", {conv_transpose, kAll}},
        {"Gemm", {gemm, kAll}},
        {"MatMul", {matmul, kAll}},
        {"BatchNormalization", {batch_norm, kAll}},
        {"InstanceNormalization", {instance_norm, kAll}},
        {"LayerNormalization", {layer_norm, kAll}},
        {"RMSNormalization", {layer_norm, kAll}},
        {"GroupNormalization", {mixes_axis_one, kAll}},
        {"LRN", {mixes_axis_one, kAll}},
        {"ArgMax", {arg_reduce, 1}},
        {"ArgMin", {arg_reduce, 1}},
        {"Transpose", {transpose, 1}},
        {"Concat", {concat, kAll}},
        {"Split", {split, 1}},
        {"Slice", {slice, 1}},
        {"Pad", {pad, 1}},
        {"Gather", {gather, 1}},
        {"Reshape", {reshape, 1}},
        {"Flatten", {reshape, 1}},
        {"Squeeze", {reshape, 1}},
        {"Unsqueeze", {reshape, 1}},
        {"Expand", {expand, 1}},
        {"Resize", {resize, 1}},
        {"Shape", {shape_of, 1}},
        {"QuantizeLinear", {quantize_linear, kAll}},
        {"DequantizeLinear", {quantize_linear, kAll}},
    };
    for (const char* op : {"Softmax", "LogSoftmax", "Hardmax", "LpNormalization"}) t->insert({op, {mixes_axis, 1}});
    for (const char* op : {"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})
      t->insert({op, {pool, 1}});
    for (const char* op : {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                           "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"})
      t->insert({op, {reduce, 1}});
    for (const char* op : {"Abs", "Acos", "Asin", "Atan", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp",
                           "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish",
                           "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softplus",
                           "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"})
      t->insert({op, {unary, 1}});
    for (const char* op : {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min",
                           "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"})
      t->insert({op, {elementwise, kAll}});
    return t;
  }();
  return *table;
}

}  // namespace

void trace_node(ChannelTracer& tracer, const Node& node, NodeId id) {
  const auto known = [&](ValueId v) { return v == kNone || tracer.shape(v).has_value(); };
  const auto rule = node.domain.empty() ? rules().find(node.op) : rules().end();
  std::string why;
  if (rule == rules().end()) why = fmt::format("reaches {}, through which channels are not followed", node.label());
  else if (!std::all_of(node.inputs.begin(), node.inputs.end(), known) || !std::all_of(node.outputs.begin(), node.outputs.end(), known))
    why = fmt::format("{} has a shape that is not known", node.label());
  if (!why.empty()) {
    for (ValueId v : node.inputs) tracer.freeze(v, why);
    return;
  }
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const bool data = rule->second.operands == kAll || (i < 32 && ((rule->second.operands >> i) & 1) != 0);
    if (!data) tracer.freeze(node.inputs[i], fmt::format("decides how {} works", node.label()));
  }
  rule->second.trace(Site{tracer, node, id});
}

}  // namespace ds
