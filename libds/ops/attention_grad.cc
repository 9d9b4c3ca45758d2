// The gradient of Attention, written with ordinary nodes: the probabilities are computed again, with all
// scores in memory. Shapes are known here.
#include <limits>

#include "libds/ops/attention.h"

namespace ds::ops {
namespace {

class AttentionGradient {
 public:
  explicit AttentionGradient(GradContext& g) : g_(g), node_(g.node()), dtype_(g.dtype(g.input(0))) {
    const ValueId past = g.input(4);
    s_ = attention_sizes(node_, g.shape(g.input(0)), g.shape(g.input(1)), g.shape(g.input(2)), past == kNone ? Shape{} : g.shape(past));
    scale_ = attention_scale(node_, s_.D);
  }

  void run() {
    if (g_.d_output(3) != kNone) fail(ExitCode::kUnsupported, "no gradient flows through the scores");
    ValueId d_k = g_.d_output(1), d_v = g_.d_output(2);  // of all keys, past ones too
    if (g_.d_output(0) != kNone) {
      const ValueId q = heads(g_.input(0), s_.H, s_.D);
      const ValueId k = repeated(joined(4, g_.input(1), s_.D), s_.D), v = repeated(joined(5, g_.input(2), s_.E), s_.E);
      const ValueId d_y = heads(g_.d_output(0), s_.H, s_.E);
      ValueId slope = kNone;  // of the soft cap
      const ValueId p = probabilities(q, k, slope);
      d_v = plus(d_v, summed_heads(product(p, true, d_y, false), s_.E));
      const ValueId d_p = product(d_y, false, v, true);
      const ValueId d_s = g_.emit("SoftmaxGrad", {p, d_p}, {{"axis", int64_t{-1}}});
      if (g_.needs(3)) g_.set_d_input(3, of_mask(d_s));
      ValueId d_raw = scaled(d_s);
      if (slope != kNone) d_raw = g_.emit("Mul", {d_raw, slope});
      if (g_.needs(0)) g_.set_d_input(0, tokens(product(d_raw, false, k, false), s_.H, s_.D));
      d_k = plus(d_k, summed_heads(product(d_raw, true, q, false), s_.D));
    }
    if (d_k != kNone) hand_out(d_k, 1, 4, s_.D);
    if (d_v != kNone) hand_out(d_v, 2, 5, s_.E);
  }

 private:
  ValueId number(double x) { return g_.scalar(x, dtype_); }
  ValueId plus(ValueId a, ValueId b) { return a == kNone ? b : g_.emit("Add", {a, b}); }
  ValueId scaled(ValueId x) { return g_.emit("Mul", {x, number(static_cast<double>(scale_))}); }
  ValueId reshaped(ValueId x, const Shape& shape) { return g_.emit("Reshape", {x, g_.ints(shape)}); }
  ValueId product(ValueId a, bool trans_a, ValueId b, bool trans_b) {
    return g_.emit("BatchMatMul", {a, b}, {{"trans_a", int64_t{trans_a}}, {"trans_b", int64_t{trans_b}}});
  }

  // [B, heads, length, size], whatever the layout of the inputs, and back.
  ValueId heads(ValueId x, int64_t count, int64_t size) {
    if (!s_.split) return x;
    const int64_t length = g_.shape(x)[1];
    return g_.emit("Transpose", {reshaped(x, {s_.B, length, count, size})}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
  }
  ValueId tokens(ValueId x, int64_t count, int64_t size) {
    if (!s_.split) return x;
    const int64_t length = g_.shape(x)[2];
    return reshaped(g_.emit("Transpose", {x}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}}), {s_.B, length, count * size});
  }

  ValueId joined(size_t past, ValueId x, int64_t size) {
    const ValueId fresh = heads(x, s_.G, size);
    return g_.input(past) == kNone ? fresh : g_.emit("Concat", {g_.input(past), fresh}, {{"axis", int64_t{2}}});
  }

  // Every head of keys once for each query head that reads it, and back.
  ValueId repeated(ValueId x, int64_t size) {
    if (s_.H == s_.G) return x;
    const ValueId one = reshaped(x, {s_.B, s_.G, 1, s_.S, size});
    return reshaped(g_.emit("Expand", {one, g_.ints({s_.B, s_.G, s_.H / s_.G, s_.S, size})}), {s_.B, s_.H, s_.S, size});
  }
  ValueId summed_heads(ValueId x, int64_t size) {
    if (s_.H == s_.G) return x;
    return g_.emit("ReduceSum", {reshaped(x, {s_.B, s_.G, s_.H / s_.G, s_.S, size}), g_.ints({2})}, {{"keepdims", int64_t{0}}});
  }

  // The part of the sequence before `past` and the part behind it go to different inputs.
  void hand_out(ValueId d, size_t input, size_t past, int64_t size) {
    ValueId fresh = d;
    if (g_.input(past) != kNone) {
      const auto slice = [&](int64_t begin, int64_t end) { return g_.emit("Slice", {d, g_.ints({begin}), g_.ints({end}), g_.ints({2})}); };
      if (g_.needs(past)) g_.set_d_input(past, slice(0, s_.past));
      if (g_.needs(input)) fresh = slice(s_.past, s_.S);
    }
    if (g_.needs(input)) g_.set_d_input(input, tokens(fresh, s_.G, size));
  }

  ValueId probabilities(ValueId q, ValueId k, ValueId& slope) {
    ValueId scores = scaled(product(q, false, k, true));
    if (const auto cap = static_cast<double>(node_.attr_float("softcap", 0)); cap > 0) {
      const ValueId bent = g_.emit("Tanh", {g_.emit("Div", {scores, number(cap)})});
      slope = g_.emit("Sub", {number(1), g_.emit("Mul", {bent, bent})});
      scores = g_.emit("Mul", {bent, number(cap)});
    }
    const ValueId never = number(-std::numeric_limits<double>::infinity());
    bool masked = false;
    if (const ValueId mask = full_mask(); mask != kNone) {
      masked = true;
      scores = g_.dtype(mask) == DType::kBool ? g_.emit("Where", {mask, scores, never}) : g_.emit("Add", {scores, mask});
    }
    if (const ValueId seen = places(); seen != kNone) {
      masked = true;
      scores = g_.emit("Where", {seen, scores, never});
    }
    const ValueId p = g_.emit("Softmax", {scores}, {{"axis", int64_t{-1}}});
    return masked ? g_.emit("Where", {g_.emit("IsNaN", {p}), number(0), p}) : p;  // rows that see nothing
  }

  // The mask with as many columns as there are keys.
  ValueId full_mask() {
    const ValueId mask = g_.input(3);
    if (mask == kNone) return mask;
    const Shape shape = g_.shape(mask);
    if (shape.back() == s_.S) return mask;
    std::vector<int64_t> pads(2 * shape.size(), 0);
    pads.back() = s_.S - shape.back();
    const bool truth = g_.dtype(mask) == DType::kBool;
    const ValueId filler = truth ? g_.scalar(0, DType::kBool) : g_.scalar(-std::numeric_limits<double>::infinity(), g_.dtype(mask));
    return g_.emit("Pad", {mask, g_.ints(pads), filler});
  }

  ValueId of_mask(ValueId d_s) {
    const Shape shape = g_.shape(g_.input(3));
    if (shape.back() != s_.S) d_s = g_.emit("Slice", {d_s, g_.ints({0}), g_.ints({shape.back()}), g_.ints({3})});
    return g_.sum_to(d_s, shape);
  }

  // Which keys position, windows and lengths let a query see: bool, broadcasts to the scores; kNone: all.
  ValueId places() {
    const bool causal = node_.attr_int("is_causal", 0) != 0;
    const int64_t left = node_.attr_int("left_window_size", -1);
    int64_t right = node_.attr_int("right_window_size", -1);
    if (causal) right = 0;
    const ValueId lengths = g_.input(6);
    std::vector<int64_t> rows, columns;
    for (int64_t i = 0; i < s_.L; ++i) rows.push_back(i + s_.past);
    for (int64_t j = 0; j < s_.S; ++j) columns.push_back(j);
    const ValueId key = g_.ints(columns);
    ValueId query = reshaped(g_.ints(rows), {s_.L, 1}), seen = kNone;
    const auto both = [&](ValueId a) { seen = seen == kNone ? a : g_.emit("And", {seen, a}); };
    if (lengths != kNone) {
      const ValueId length = reshaped(lengths, {s_.B, 1, 1, 1});
      query = g_.emit("Add", {query, g_.emit("Sub", {length, g_.ints({s_.L})})});
      both(g_.emit("Less", {key, length}));
    }
    if (right >= 0) both(g_.emit("LessOrEqual", {key, g_.emit("Add", {query, g_.ints({right})})}));
    if (left >= 0) both(g_.emit("GreaterOrEqual", {key, g_.emit("Sub", {query, g_.ints({left})})}));
    return seen;
  }

  GradContext& g_;
  const Node node_;
  const DType dtype_;
  AttentionSizes<int64_t> s_;
  float scale_;
};

}  // namespace

void grad_attention(GradContext& g) { AttentionGradient(g).run(); }

}  // namespace ds::ops
