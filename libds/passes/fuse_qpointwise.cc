#include "libds/passes/fuse_qpointwise.h"

#include <string_view>

namespace ds {
namespace {

constexpr int kDeepest = 32;  // nodes in a row that are looked through

template <size_t N>
bool is_one_of(const Node& n, const std::string_view (&names)[N]) {
  return n.domain.empty() && std::find(std::begin(names), std::end(names), n.op) != std::end(names);
}

bool is_unary(const Node& n) {
  static constexpr std::string_view kOps[] = {"Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu", "Softplus", "Softsign",
                                              "Erf", "Gelu", "Mish", "Clip", "Abs", "Neg", "Sqrt", "Exp"};
  return is_one_of(n, kOps);
}
bool is_binary(const Node& n) {
  static constexpr std::string_view kOps[] = {"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"};
  return is_one_of(n, kOps) && n.inputs.size() == 2;
}
bool is_arithmetic(const Node& n) {
  static constexpr std::string_view kOps[] = {"Add", "Sub", "Mul", "Div"};
  return is_one_of(n, kOps);
}

constexpr int64_t least(DType t) { return t == DType::kI8 ? -128 : 0; }
constexpr int64_t most(DType t) { return t == DType::kI8 ? 127 : 255; }

}  // namespace

QPointwiseFuser::Root QPointwiseFuser::root_of(ValueId bytes) const {
  const auto it = nhwc_.find(bytes);
  return it == nhwc_.end() ? Root{bytes, false} : Root{it->second, true};
}

std::optional<Tensor> QPointwiseFuser::known(ValueId id) const {
  if (const Tensor* t = constant(id)) return *t;
  const Node* dq = producer(id, "DequantizeLinear");
  if (dq == nullptr || !evaluate_ || is_packed(g_.value(dq->inputs[0]).dtype)) return std::nullopt;
  std::vector<Tensor> inputs;
  for (ValueId in : dq->inputs) {
    if (in != kNone && constant(in) == nullptr) return std::nullopt;
    inputs.push_back(in == kNone ? Tensor() : *constant(in));
  }
  return evaluate_(g_, g_.value(id).producer, inputs)[0];
}

// --- tables ---

const std::optional<QPointwiseFuser::Function>& QPointwiseFuser::function_of(ValueId id, int depth) {
  if (const auto it = functions_.find(id); it != functions_.end()) return it->second;
  auto made = function_made_by(id, depth);
  return functions_[id] = std::move(made);
}

std::optional<QPointwiseFuser::Function> QPointwiseFuser::function_made_by(ValueId id, int depth) {
  if (depth > kDeepest || id == kNone || g_.value(id).dtype != DType::kF32) return std::nullopt;
  if (const auto x = operand(id)) {
    if (constant(x->bytes) != nullptr) return std::nullopt;
    Function f{root_of(x->bytes), std::vector<float>(256)};
    for (size_t i = 0; i < 256; ++i) f.reals[i] = real_of(static_cast<uint8_t>(i), x->params);
    // Through tables that made these bytes.
    for (int step = 0; step < kDeepest; ++step) {
      const NodeId made = g_.value(f.root.bytes).producer;
      if (made == kNone || !g_.node(made).is_internal("QTable")) break;
      const Tensor& table = *constant(g_.node(made).inputs[1]);
      std::vector<float> reals(256);
      for (size_t i = 0; i < 256; ++i) reals[i] = f.reals[table.data<uint8_t>()[i]];
      f = {{g_.node(made).inputs[0], f.root.last}, std::move(reals)};
    }
    return f;
  }
  const NodeId made = g_.value(id).producer;
  if (made == kNone || !evaluate_) return std::nullopt;
  const Node n = g_.node(made);
  if (!is_unary(n) && !is_binary(n)) return std::nullopt;
  std::optional<Root> root;
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    const ValueId in = n.inputs[i];
    if (in == kNone) {
      inputs.emplace_back();
      continue;
    }
    if (const auto content = known(in)) {
      if (content->numel() != 1 || content->dtype() != DType::kF32) return std::nullopt;
      inputs.push_back(content->reshaped({}));
      continue;
    }
    if (is_unary(n) && i > 0) return std::nullopt;
    const auto& f = function_of(in, depth + 1);
    if (!f || (root && !(*root == f->root))) return std::nullopt;
    if (!g_.value(in).dims || !g_.value(id).dims || *g_.value(in).dims != *g_.value(id).dims) return std::nullopt;  // a constant of higher rank
    root = f->root;
    inputs.push_back(Tensor::empty(DType::kF32, {256}));
    std::copy(f->reals.begin(), f->reals.end(), inputs.back().mutable_data<float>());
  }
  if (!root) return std::nullopt;
  const Tensor y = evaluate_(g_, made, inputs)[0];
  return Function{*root, std::vector<float>(y.data<float>(), y.data<float>() + 256)};
}

bool QPointwiseFuser::by_table(const Node& q, const TensorParams& to) {
  const auto f = function_of(q.input(0), 0);
  if (!f) return false;
  replace_at(f->root, q.outputs[0], table(f->root.bytes, f->reals, to, least(to.dtype), most(to.dtype)));
  return true;
}

// DequantizeLinear -> QuantizeLinear.
bool QPointwiseFuser::requantize(const Node& q, const TensorParams& to) {
  const auto x = operand(q.input(0));
  if (!x || !(x->params == to)) return false;
  replace(q.outputs[0], x->bytes);
  return true;
}

// --- a scale and a shift per channel ---

std::optional<std::vector<double>> QPointwiseFuser::per_channel(ValueId id, const Affine& a, size_t rank) const {
  const auto t = known(id);
  if (!t || t->dtype() != DType::kF32 || t->shape().size() > rank) return std::nullopt;
  if (t->numel() == 1) return std::vector<double>(a.scale.size(), t->to_doubles()[0]);
  const size_t axis = a.root.last ? 3 : 1;  // from the end
  if (t->numel() != static_cast<int64_t>(a.scale.size()) || t->shape().size() < axis || t->shape()[t->shape().size() - axis] != t->numel()) return std::nullopt;
  return t->to_doubles();
}

bool QPointwiseFuser::take_batch_norm(const Node& n, Affine& a) const {
  if (!n.is("BatchNormalization") || n.attr_int("training_mode", 0) != 0 || n.outputs.size() != 1 || a.bounded()) return false;
  const auto& dims = g_.value(n.input(0)).dims;
  if (!a.root.last && dims->size() != 2) return false;
  std::vector<double> values[4];
  for (size_t i = 0; i < 4; ++i) {
    const auto t = known(n.input(i + 1));
    if (!t || t->numel() != static_cast<int64_t>(a.scale.size())) return false;
    values[i] = t->to_doubles();
  }
  const auto epsilon = static_cast<double>(n.attr_float("epsilon", 1e-5f));
  for (size_t c = 0; c < a.scale.size(); ++c) {
    const double factor = values[0][c] / std::sqrt(values[3][c] + epsilon);
    a.scale[c] *= factor;
    a.shift[c] = (a.shift[c] - values[2][c]) * factor + values[1][c];
  }
  return true;
}

// n's other operand is a constant.
bool QPointwiseFuser::take_constant(const Node& n, size_t side, Affine& a) const {
  if (!is_arithmetic(n) || a.bounded()) return false;
  const auto& dims = g_.value(n.inputs[side]).dims;
  if (!g_.value(n.outputs[0]).dims || *dims != *g_.value(n.outputs[0]).dims) return false;
  const auto values = per_channel(n.inputs[1 - side], a, dims->size());
  if (!values || (n.op == "Div" && side == 1)) return false;
  for (size_t c = 0; c < a.scale.size(); ++c) {
    const double v = (*values)[c];
    if (n.op == "Mul" || n.op == "Div") {
      const double factor = n.op == "Mul" ? v : 1 / v;
      a.scale[c] *= factor;
      a.shift[c] *= factor;
    } else {
      if (n.op == "Sub" && side == 1) {
        a.scale[c] = -a.scale[c];
        a.shift[c] = -a.shift[c];
      }
      a.shift[c] += n.op == "Sub" && side == 0 ? -v : v;
    }
  }
  return true;
}

bool QPointwiseFuser::take_bounds(const Node& n, Affine& a) const {
  double low = -INFINITY, high = INFINITY;
  if (n.is("Relu")) {
    low = 0;
  } else if (n.is("HardSigmoid")) {
    if (a.bounded()) return false;
    const auto alpha = static_cast<double>(n.attr_float("alpha", 0.2f)), beta = static_cast<double>(n.attr_float("beta", 0.5f));
    for (double& v : a.scale) v *= alpha;
    for (double& v : a.shift) v = v * alpha + beta;
    low = 0;
    high = 1;
  } else if (n.is("Clip")) {
    for (size_t i : {1, 2}) {
      if (n.input(i) == kNone) continue;
      const auto t = known(n.input(i));
      if (!t || t->numel() != 1) return false;
      (i == 1 ? low : high) = t->to_doubles()[0];
    }
    if (!(low <= high)) return false;
  } else {
    return false;
  }
  const auto within = [&](double v) { return std::min(std::max(v, low), high); };
  a.low = within(a.low);
  a.high = within(a.high);
  return true;
}

std::optional<QPointwiseFuser::Affine> QPointwiseFuser::affine_of(ValueId id, int depth) const {
  if (depth > kDeepest || id == kNone || g_.value(id).dtype != DType::kF32 || !g_.value(id).dims || g_.value(id).dims->empty()) return std::nullopt;
  if (const auto x = operand(id)) {
    if (constant(x->bytes) != nullptr) return std::nullopt;
    const Dims& dims = *g_.value(id).dims;
    Affine a;
    a.root = root_of(x->bytes);
    a.params = x->params;
    const Dim channels = a.root.last ? dims[1] : dims.back();
    if (!channels.known()) return std::nullopt;
    a.scale.assign(static_cast<size_t>(channels.raw), 1);
    a.shift.assign(static_cast<size_t>(channels.raw), 0);
    return a;
  }
  const NodeId made = g_.value(id).producer;
  if (made == kNone || g_.node(made).inputs.empty()) return std::nullopt;
  const Node& n = g_.node(made);
  if (!n.domain.empty() || n.outputs[0] != id) return std::nullopt;
  const size_t side = is_arithmetic(n) && known(n.inputs[0]) ? 1 : 0;
  auto a = affine_of(n.inputs[side], depth + 1);
  if (!a || !(take_batch_norm(n, *a) || take_constant(n, side, *a) || take_bounds(n, *a))) return std::nullopt;
  return a;
}

bool QPointwiseFuser::by_affine(const Node& q, const TensorParams& to) {
  if (plain_dequantize(q.input(0)) != nullptr) return false;
  const auto a = affine_of(q.input(0), 0);
  if (!a) return false;
  const auto n = static_cast<int64_t>(a->scale.size());
  Tensor scale = Tensor::empty(DType::kF32, {n}), shift = Tensor::empty(DType::kF32, {n});
  for (size_t c = 0; c < a->scale.size(); ++c) {
    const auto factor = static_cast<float>(a->scale[c]), offset = static_cast<float>(a->shift[c]);
    if (!std::isfinite(factor) || !std::isfinite(offset)) return false;
    scale.mutable_data<float>()[c] = factor;
    shift.mutable_data<float>()[c] = offset;
  }
  Attributes attrs = {{"output", static_cast<int64_t>(to.dtype)}};
  set_params(attrs, "x", a->params);
  set_params(attrs, "y", to);
  // Quantizing is monotonic: bounds are quantized, too.
  if (a->low > -INFINITY) attrs["lo"] = quantize_float(static_cast<float>(a->low), to);
  if (a->high < INFINITY) attrs["hi"] = quantize_float(static_cast<float>(a->high), to);
  const std::string& name = g_.value(q.outputs[0]).name;
  const ValueId factors = rw_.add_constant(name + "/scale", std::move(scale)), offsets = rw_.add_constant(name + "/shift", std::move(shift));
  replace_at(a->root, q.outputs[0], rw_.emit("QAffine", {a->root.bytes, factors, offsets}, std::move(attrs), q.name + "/q"));
  return true;
}

// --- two tensors ---

bool QPointwiseFuser::by_binary(const Node& q, const TensorParams& to) {
  const ValueId v = q.input(0);
  const NodeId made = g_.value(v).producer;
  if (made == kNone || !only_user(v)) return false;
  const Node n = g_.node(made);
  if (!is_arithmetic(n)) return false;
  const auto a = operand(n.inputs[0]), b = operand(n.inputs[1]);
  if (!a || !b || constant(a->bytes) != nullptr || constant(b->bytes) != nullptr) return false;
  const bool last = has_rank(a->bytes, 4) && has_rank(b->bytes, 4) && (is_nhwc(a->bytes) || is_nhwc(b->bytes));
  Attributes attrs = {{"function", n.op}, {"output", static_cast<int64_t>(to.dtype)}};
  set_params(attrs, "a", a->params);
  set_params(attrs, "b", b->params);
  set_params(attrs, "y", to);
  const ValueId x = last ? nhwc(a->bytes) : a->bytes, y = last ? nhwc(b->bytes) : b->bytes;
  replace_at({kNone, last}, q.outputs[0], rw_.emit("QBinary", {x, y}, std::move(attrs), q.name + "/q"));
  return true;
}

bool QPointwiseFuser::fuse_quantize(NodeId id) {
  const Node q = g_.node(id);
  if (!is_plain_quantize(q)) return false;
  const auto to = params(q.input(1), q.input(2), g_.value(q.outputs[0]).dtype);
  return to && (requantize(q, *to) || by_table(q, *to) || by_affine(q, *to) || by_binary(q, *to));
}

}  // namespace ds
