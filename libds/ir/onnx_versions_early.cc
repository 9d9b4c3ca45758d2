#include "libds/ir/onnx_versions_early.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "libds/ir/op_def.h"

namespace ds::versions {
namespace {

constexpr std::string_view kBroadcasting[] = {"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"};

bool one_of(std::string_view op, std::initializer_list<std::string_view> ops) {
  return std::find(ops.begin(), ops.end(), op) != ops.end();
}

const Value* input_value(const Graph& g, NodeId id, size_t i) {
  const ValueId v = g.node(id).input(i);
  return v == kNone ? nullptr : &g.value(v);
}

int64_t rank_of(const Graph& g, NodeId id, size_t i) {
  const Value* v = input_value(g, id, i);
  if (v == nullptr) bad_data("input {} is left out, but required", i);
  if (!v->dims) fail(ExitCode::kUnsupported, "its meaning before opset 7 depends on the rank of '{}', which is not known", v->name);
  return static_cast<int64_t>(v->dims->size());
}

const Tensor& constant_of(const Graph& g, NodeId id, size_t i) {
  const Value* v = input_value(g, id, i);
  if (v == nullptr) bad_data("input {} is left out, but required", i);
  if (v->constant == nullptr) fail(ExitCode::kUnsupported, "input '{}' is not constant, which this operator needs before opset 6", v->name);
  return *v->constant;
}

// Gives input `i`, whose first axis stands at `axis` of input 0, trailing axes of size one, so that
// numpy's rule, which counts from the back, puts it there.
void align_at(Rewriter& rw, NodeId id, size_t i, int64_t axis) {
  const Graph& g = rw.graph();
  const int64_t whole = rank_of(g, id, 0), part = rank_of(g, id, i);
  if (axis < 0) axis += whole;
  const int64_t behind = whole - axis - part;
  if (axis < 0 || behind < 0) bad_data("an operand of rank {} does not fit at axis {} of rank {}", part, axis, whole);
  if (behind == 0) return;
  std::vector<int64_t> axes(static_cast<size_t>(behind));
  std::iota(axes.begin(), axes.end(), part);
  const std::string name = g.node(id).name;
  const ValueId constant = rw.add_constant(name + ".axes", Tensor::vector<int64_t>(axes));
  rw.set_input(id, i, rw.emit("Unsqueeze", {g.node(id).inputs[i], constant}, {}, name + "/aligned"));
}

void upgrade_broadcast(Rewriter& rw, NodeId id) {
  const Node& n = rw.graph().node(id);
  const bool aligned = n.attr_int("broadcast", 0) != 0 && n.has_attr("axis");
  if (aligned) align_at(rw, id, 1, n.attr_int("axis", 0));
  rw.erase_attr(id, "broadcast");
  rw.erase_attr(id, "axis");
}

// One slope per channel, whatever follows the channels.
void upgrade_prelu(Rewriter& rw, NodeId id) {
  const Value* slope = input_value(rw.graph(), id, 1);
  if (slope == nullptr) return;  // the arity check will tell
  const bool shared = slope->dims && (slope->dims->empty() || (slope->dims->size() == 1 && slope->dims->front() == Dim(1)));
  if (!shared && rank_of(rw.graph(), id, 1) == 1 && rank_of(rw.graph(), id, 0) > 1) align_at(rw, id, 1, 1);
}

void upgrade_batch_normalization(Rewriter& rw, NodeId id) {
  const Graph& g = rw.graph();
  const Node& n = g.node(id);
  const bool test = n.attr_int("is_test", 0) != 0;
  for (size_t i = 1; test && i < n.outputs.size(); ++i) {
    const ValueId out = n.outputs[i];
    if (out != kNone && (!g.value(out).users.empty() || g.is_output(out)))
      fail(ExitCode::kUnsupported, "statistics of a normalization in test mode are not supported");
  }
  if (test) rw.truncate_outputs(id, 1);
  // Else the outputs say it, as in versions 7 to 13. That Y alone is test mode is the specification's rule, and
  // is_test = 0 is only the default beside it.
  rw.erase_attr(id, "is_test");
}

// Norms of a real exponent became those of an integer one.
void upgrade_exponent(Rewriter& rw, NodeId id) {
  const Node& n = rw.graph().node(id);
  const auto it = n.attrs.find("p");
  if (it == n.attrs.end() || std::holds_alternative<int64_t>(it->second)) return;
  const float p = n.attr_float("p", 2);
  if (std::floor(p) != p || std::abs(p) > 1e6f) fail(ExitCode::kUnsupported, "a norm of exponent {} is not supported", p);
  rw.set_attr(id, "p", static_cast<int64_t>(p));
}

void upgrade_cast(Rewriter& rw, NodeId id) {
  const Node& n = rw.graph().node(id);
  const auto it = n.attrs.find("to");
  if (it == n.attrs.end() || !std::holds_alternative<std::string>(it->second)) return;
  struct Row {
    std::string_view name;
    DType dtype;
  };
  static constexpr Row kRows[] = {{"FLOAT", DType::kF32},  {"UINT8", DType::kU8},   {"INT8", DType::kI8},     {"UINT16", DType::kU16},
                                  {"INT16", DType::kI16},  {"INT32", DType::kI32},  {"INT64", DType::kI64},   {"STRING", DType::kString},
                                  {"BOOL", DType::kBool},  {"FLOAT16", DType::kF16}, {"DOUBLE", DType::kF64}, {"UINT32", DType::kU32},
                                  {"UINT64", DType::kU64}};
  const std::string& name = std::get<std::string>(it->second);
  const auto row = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.name == name; });
  if (row == std::end(kRows)) bad_data("target type '{}' is not known", name);
  rw.set_attr(id, "to", static_cast<int64_t>(row->dtype));
}

// (input, tiles, axis) -> (input, repeats): one count for one axis.
void upgrade_tile(Rewriter& rw, NodeId id) {
  const Graph& g = rw.graph();
  const int64_t rank = rank_of(g, id, 0);
  const Tensor &tiles = constant_of(g, id, 1), &axis = constant_of(g, id, 2);
  if (tiles.numel() != 1 || axis.numel() != 1) bad_data("tiles and axis must be one number each");
  const auto at = static_cast<int64_t>(axis.to_doubles()[0]);
  if (at < 0 || at >= rank) bad_data("axis {} is outside rank {}", at, rank);
  std::vector<int64_t> repeats(static_cast<size_t>(rank), 1);
  repeats[static_cast<size_t>(at)] = static_cast<int64_t>(tiles.to_doubles()[0]);
  rw.set_input(id, 2, kNone);
  rw.set_input(id, 1, rw.add_constant(g.node(id).name + ".repeats", Tensor::vector<int64_t>(repeats)));
}

// Lengths of Split could come as an input of the data's type.
void upgrade_split(Rewriter& rw, NodeId id) {
  const Graph& g = rw.graph();
  if (g.node(id).input(1) == kNone) return;
  const Tensor lengths = constant_of(g, id, 1).cast(DType::kI64);
  rw.set_input(id, 1, rw.add_constant(g.node(id).name + ".split", lengths));
}

void upgrade_upsample(Rewriter& rw, NodeId id) {
  const Node& n = rw.graph().node(id);
  if (!n.has_attr("height_scale") || !n.has_attr("width_scale")) return;
  const std::vector<float> scales = {1, 1, n.attr_float("height_scale", 1), n.attr_float("width_scale", 1)};
  if (n.attr_string("mode", "nearest") == "bilinear") rw.set_attr(id, "mode", std::string("linear"));
  rw.erase_attr(id, "height_scale");
  rw.erase_attr(id, "width_scale");
  rw.set_attr(id, "scales", scales);
}

void rename_attr(Rewriter& rw, NodeId id, const char* from, const char* to) {
  const auto it = rw.graph().node(id).attrs.find(from);
  if (it == rw.graph().node(id).attrs.end()) return;
  Attribute content = it->second;
  rw.erase_attr(id, from);
  rw.set_attr(id, to, std::move(content));
}

void set_default(Rewriter& rw, NodeId id, const char* key, Attribute value) {
  if (!rw.graph().node(id).has_attr(key)) rw.set_attr(id, key, std::move(value));
}

}  // namespace

void upgrade_to_seven(Rewriter& rw, NodeId id, int64_t opset) {
  const std::string op = rw.graph().node(id).op;
  rw.erase_attr(id, "consumed_inputs");  // a hint about memory
  if (std::find(std::begin(kBroadcasting), std::end(kBroadcasting), op) != std::end(kBroadcasting)) upgrade_broadcast(rw, id);
  else if (op == "PRelu") upgrade_prelu(rw, id);
  else if (op == "Gemm") rw.erase_attr(id, "broadcast");
  else if (op == "BatchNormalization") upgrade_batch_normalization(rw, id);
  else if (op == "Dropout") rw.erase_attr(id, "is_test");  // a model that is read is run, not trained
  else if (one_of(op, {"GRU", "LSTM", "RNN"})) {
    rw.erase_attr(id, "output_sequence");  // said by which outputs are named
    if (rw.graph().node(id).attr_string("direction", "forward") == "foward") rw.erase_attr(id, "direction");  // the old default, as it was spelt
  }
  if (opset < 6) {
    if (op == "Cast") upgrade_cast(rw, id);
    else if (op == "Tile") upgrade_tile(rw, id);
    else if (op == "Selu") {
      set_default(rw, id, "alpha", 1.6732f);
      set_default(rw, id, "gamma", 1.0507f);
    }
  }
  if (opset < 4 && op == "Concat") set_default(rw, id, "axis", int64_t{1});
  if (opset < 2) {
    if (one_of(op, {"LpPool", "GlobalLpPool", "LpNormalization"})) upgrade_exponent(rw, id);
    else if (op == "Pad") rename_attr(rw, id, "paddings", "pads");
    else if (op == "Split") upgrade_split(rw, id);
  }
  if (op == "Upsample") upgrade_upsample(rw, id);
}

}  // namespace ds::versions
