#include "libds/ir/onnx_versions.h"

#include <algorithm>
#include <unordered_map>

#include "libds/ir/onnx_versions_early.h"
#include "libds/ir/onnx_versions_table.h"
#include "libds/ir/op_def.h"

namespace ds {
namespace {

using namespace versions;

constexpr int64_t kSoftmaxPerAxis = 13;  // before it, all axes from `axis` on were one

bool is_softmax(const Node& n) { return n.op == "Softmax" || n.op == "LogSoftmax" || n.op == "Hardmax"; }
bool is_reduce(const Node& n) { return n.op.rfind("Reduce", 0) == 0; }

const Value* input_value(const Graph& g, const Node& n, size_t i) {
  return n.input(i) == kNone ? nullptr : &g.value(n.inputs[i]);
}

const Tensor* constant_input(const Graph& g, const Node& n, size_t i) {
  const Value* v = input_value(g, n, i);
  return v ? v->constant.get() : nullptr;
}

std::optional<size_t> input_rank(const Graph& g, const Node& n, size_t i) {
  const Value* v = input_value(g, n, i);
  return v && v->dims ? std::optional(v->dims->size()) : std::nullopt;
}

bool is_one(Dim d) { return d.known() && d.raw == 1; }

// --- up: moved attributes ----------------------------------------------------------------------

Tensor moved_content(const Graph& g, const Node& n, const Moved& row) {
  switch (row.kind) {
    case MovedKind::kInts: return Tensor::vector<int64_t>(n.attr_ints(row.attr));
    case MovedKind::kInt: return Tensor::vector<int64_t>(std::vector<int64_t>{n.attr_int(row.attr, 0)});
    case MovedKind::kIntScalar: return Tensor::scalar(n.attr_int(row.attr, 0));
    case MovedKind::kFloats: return Tensor::vector<float>(n.attr_floats(row.attr));
    case MovedKind::kFloat: return Tensor::scalar(n.attr_float(row.attr, 0));
    case MovedKind::kLikeInput: break;
  }
  const Value* data = input_value(g, n, 0);
  if (data == nullptr || data->dtype == DType::kUndefined) bad_data("the type of its input is not known");
  return Tensor::scalar(n.attr_float(row.attr, 0)).cast(data->dtype);
}

void move_attributes_to_inputs(Rewriter& rw, NodeId id, int64_t opset) {
  for (const Moved& row : kMoved) {
    const Node& n = rw.graph().node(id);
    if (n.op != row.op || opset >= row.since || !n.has_attr(row.attr)) continue;
    if (n.input(row.input) != kNone) bad_data("has both an attribute and an input '{}'", row.attr);
    const ValueId constant = rw.add_constant(fmt::format("{}.{}", n.name, row.attr), moved_content(rw.graph(), n, row));
    rw.set_input(id, row.input, constant);
    rw.erase_attr(id, row.attr);
  }
}

// --- up: operators whose meaning changed -------------------------------------------------------

void upgrade_softmax(Rewriter& rw, NodeId id, int64_t opset) {
  if (opset >= kSoftmaxPerAxis) return;
  const Graph& g = rw.graph();
  const Node& n = g.node(id);
  const Value* x = input_value(g, n, 0);
  if (x == nullptr) return;  // the arity check will tell
  int64_t axis = n.attr_int("axis", 1);
  if (!x->dims) fail(ExitCode::kUnsupported, "its meaning in opset {} depends on the rank of '{}', which is not known", opset, x->name);
  const auto rank = static_cast<int64_t>(x->dims->size());
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) bad_data("axis {} is outside rank {}", n.attr_int("axis", 1), rank);
  int64_t wide = rank - 1, wide_count = 0;  // axes that are not known to be 1
  for (int64_t i = axis; i < rank; ++i) {
    if (is_one((*x->dims)[static_cast<size_t>(i)])) continue;
    wide = i;
    ++wide_count;
  }
  if (wide_count <= 1) {
    rw.set_attr(id, "axis", wide);
    return;
  }
  // Over several axes at once: flatten, one axis, and back. The node itself becomes the Reshape, so
  // that its output keeps its name.
  const std::string op = n.op, name = n.name;
  const ValueId input = n.inputs[0];
  const ValueId flat = rw.emit("Flatten", {input}, {{"axis", axis}}, name + "/flatten");
  const ValueId result = rw.emit(op, {flat}, {{"axis", int64_t{1}}}, name + "/" + op);
  const ValueId shape = rw.emit("Shape", {input}, {}, name + "/shape");
  rw.set_op(id, "Reshape");
  rw.erase_attr(id, "axis");
  rw.set_input(id, 0, result);
  rw.set_input(id, 1, shape);
}

bool output_used(const Graph& g, const Node& n, size_t i) {
  const ValueId id = n.output(i);
  return id != kNone && (!g.value(id).users.empty() || g.is_output(id));
}

void upgrade_batch_normalization(Rewriter& rw, NodeId id, int64_t opset) {
  if (opset >= 14) return;
  const Graph& g = rw.graph();
  const Node& n = g.node(id);
  if (n.attr_int("spatial", 1) != 1) fail(ExitCode::kUnsupported, "spatial = 0 is not supported");
  rw.erase_attr(id, "spatial");
  if (output_used(g, n, 3) || output_used(g, n, 4))
    fail(ExitCode::kUnsupported, "saved statistics are not supported; they went with opset 14");
  // More than one output meant training.
  const bool training = output_used(g, n, 1) || output_used(g, n, 2);
  rw.truncate_outputs(id, training ? 3 : 1);
  if (training) rw.set_attr(id, "training_mode", int64_t{1});
}

// Scale and bias were one number a group; each now goes to every channel of its group.
void upgrade_group_normalization(Rewriter& rw, NodeId id) {
  const std::string name = rw.graph().node(id).name;
  const ValueId x = rw.graph().node(id).input(0);
  if (x == kNone) return;  // the arity check will tell
  const auto list = [&](int64_t value) { return rw.add_constant(name + ".ints", Tensor::vector<int64_t>(std::vector<int64_t>{value})); };
  const int64_t groups = rw.graph().node(id).attr_int("num_groups", 0);
  if (groups < 1) bad_data("num_groups is {}", groups);
  const ValueId channels = rw.emit("Shape", {x}, {{"start", int64_t{1}}, {"end", int64_t{2}}}, name + "/channels");
  const ValueId each = rw.emit("Div", {channels, list(groups)}, {}, name + "/channels_per_group");
  const ValueId square = rw.emit("Concat", {list(groups), each}, {{"axis", int64_t{0}}}, name + "/groups");
  for (size_t i : {1, 2}) {
    const ValueId per_group = rw.graph().node(id).input(i);
    if (per_group == kNone) return;
    const ValueId column = rw.emit("Unsqueeze", {per_group, list(1)}, {}, name + "/column");
    const ValueId spread = rw.emit("Expand", {column, square}, {}, name + "/spread");
    rw.set_input(id, i, rw.emit("Reshape", {spread, list(-1)}, {}, name + "/per_channel"));
  }
}

void upgrade_resize(Rewriter& rw, NodeId id, int64_t opset, bool was_upsample) {
  if (was_upsample || opset <= 10) {  // (X, scales) became (X, roi, scales, sizes)
    const ValueId scales = rw.graph().node(id).input(1);
    rw.set_input(id, 1, kNone);
    rw.set_input(id, 2, scales);
    rw.set_attr(id, "coordinate_transformation_mode", std::string("asymmetric"));
    rw.set_attr(id, "nearest_mode", std::string("floor"));
  }
  // Versions 11 and 12 had no way to omit an input but to make it empty.
  for (size_t i : {3, 2, 1}) {
    const Tensor* t = constant_input(rw.graph(), rw.graph().node(id), i);
    if (t == nullptr || t->numel() != 0) continue;
    const ValueId empty = rw.graph().node(id).inputs[i];
    rw.set_input(id, i, kNone);
    rw.forget_unused_constant(empty);
  }
}

// Names of GridSample's modes: linear and cubic said how many axes they meant.
constexpr int64_t kGridModesSince = 20;
constexpr std::pair<std::string_view, std::string_view> kGridModes[] = {{"bilinear", "linear"}, {"bicubic", "cubic"}};

void upgrade_grid_sample(Rewriter& rw, NodeId id) {
  const std::string mode = rw.graph().node(id).attr_string("mode", "bilinear");
  for (const auto& [old, now] : kGridModes)
    if (mode == old) rw.set_attr(id, "mode", std::string(now));
}

// --- down --------------------------------------------------------------------------------------

bool attribute_is(const Attribute& a, const Without& without) {
  if (const auto* number = std::get_if<int64_t>(&without)) {
    if (const auto* v = std::get_if<int64_t>(&a)) return *v == *number;
    if (const auto* v = std::get_if<std::vector<int64_t>>(&a))
      return std::all_of(v->begin(), v->end(), [&](int64_t x) { return x == *number; });
    return false;
  }
  const auto* text = std::get_if<std::string_view>(&without);
  const auto* v = std::get_if<std::string>(&a);
  return text && v && *v == *text;
}

// Whether the content of an input can be said by the attribute it once was.
bool movable(const Node& n, const Tensor* t, const Moved& row) {
  if (t == nullptr) return false;
  switch (row.kind) {
    case MovedKind::kInts: return is_int(t->dtype()) && (t->numel() > 0 || is_reduce(n));
    case MovedKind::kInt:
    case MovedKind::kIntScalar: return is_int(t->dtype()) && t->numel() == 1;
    case MovedKind::kFloats: return t->dtype() == DType::kF32;
    case MovedKind::kFloat:
    case MovedKind::kLikeInput: break;
  }
  if (t->numel() != 1 || !is_float(t->dtype())) return false;
  const double x = t->to_doubles()[0];
  return static_cast<double>(static_cast<float>(x)) == x;
}

// A Resize that Upsample and version 10 had: by scales, from the corner, rounding down.
bool is_simple_resize(const Graph& g, const Node& n) {
  const std::string mode = n.attr_string("mode", "nearest");
  if (n.input(2) == kNone || n.input(1) != kNone || n.input(3) != kNone) return false;
  if (n.attr_string("coordinate_transformation_mode", "half_pixel") != "asymmetric") return false;
  if (mode == "nearest" ? n.attr_string("nearest_mode", "round_prefer_floor") != "floor" : mode != "linear") return false;
  const Value* scales = input_value(g, n, 2);
  return scales->dtype == DType::kF32;
}

int64_t resize_needs(const Graph& g, const Node& n) {
  if (!is_simple_resize(g, n)) return 11;
  const Tensor* scales = constant_input(g, n, 2);
  if (scales == nullptr) return 10;
  const auto s = scales->span<float>();
  return std::all_of(s.begin(), s.end(), [](float x) { return x >= 1; }) ? kOldestOpset : 10;
}

// The axis an old Softmax must name, if it can.
std::optional<int64_t> flattened_softmax_axis(const Graph& g, const Node& n) {
  const Value* x = input_value(g, n, 0);
  if (x == nullptr || !x->dims) return std::nullopt;
  const auto rank = static_cast<int64_t>(x->dims->size());
  int64_t axis = n.attr_int("axis", -1);
  if (axis < 0) axis += rank;
  for (int64_t i = axis + 1; i < rank; ++i)
    if (!is_one((*x->dims)[static_cast<size_t>(i)])) return std::nullopt;
  return axis;
}

int64_t type_needs(const Graph& g, const Node& n) {
  int64_t need = kOldestOpset;
  const Value* first = input_value(g, n, 0);
  if (first == nullptr) return need;
  for (const Began& row : kIntegersSince)
    if (n.op == row.op && is_int(first->dtype)) need = std::max(need, row.since);
  for (const Began& row : kFloatsSince)
    if (n.op == row.op && is_float(first->dtype)) need = std::max(need, row.since);
  if (const Value* second = input_value(g, n, 1); n.op == "Pow" && second && second->dtype != first->dtype)
    need = std::max<int64_t>(need, 12);
  for (ValueId in : n.inputs)
    if (in != kNone && g.value(in).dtype == DType::kBF16) need = std::max<int64_t>(need, 13);
  return need;
}

int64_t node_needs(const Graph& g, const Node& n) {
  int64_t need = type_needs(g, n);
  const auto at_least = [&](int64_t opset) { need = std::max(need, opset); };
  for (const Began& row : kBegan)
    if (n.op == row.op) at_least(row.since);
  for (const Moved& row : kMoved)
    if (n.op == row.op && n.input(row.input) != kNone && !movable(n, constant_input(g, n, row.input), row)) at_least(row.since);
  for (const Added& row : kAdded) {
    if (n.op != row.op) continue;
    const auto it = n.attrs.find(row.attr);
    if (it != n.attrs.end() && !attribute_is(it->second, row.without)) at_least(row.since);
  }
  for (const AddedInput& row : kAddedInputs) {
    if (n.op != row.op || n.input(row.input) == kNone) continue;
    const Tensor* t = constant_input(g, n, row.input);
    const bool plain = t && (is_int(t->dtype()) || t->dtype() == DType::kBool);
    const std::vector<int64_t> content = plain ? t->to_ints() : std::vector<int64_t>{};
    const bool removable = row.removable && plain &&
                           std::all_of(content.begin(), content.end(), [&](int64_t x) { return x == row.without; });
    if (!removable) at_least(row.since);
  }
  for (const Required& row : kRequired)
    if (n.op == row.op && n.input(row.input) == kNone) at_least(row.since);
  if (is_softmax(n) && !flattened_softmax_axis(g, n)) at_least(kSoftmaxPerAxis);
  if (n.op == "Resize") at_least(resize_needs(g, n));
  if (n.op == "Scan") at_least(9);  // that of 8 had a batch axis (onnx_batched_scan.h)
  if (n.op == "RoiAlign" && !n.has_attr("coordinate_transformation_mode")) at_least(16);
  if (n.op == "GridSample" && input_rank(g, n, 0) != std::optional<size_t>(4)) at_least(kGridModesSince);
  if ((n.op == "QuantizeLinear" || n.op == "DequantizeLinear") && input_rank(g, n, 1) != std::optional<size_t>(0)) at_least(13);
  return need;
}

void downgrade_split(Rewriter& rw, NodeId id) {
  const Graph& g = rw.graph();
  const Node& n = g.node(id);
  const int64_t parts = n.attr_int("num_outputs", 0);
  if (parts <= 0) return;
  rw.erase_attr(id, "num_outputs");
  const Value* x = input_value(g, n, 0);
  if (x == nullptr || !x->dims || n.input(1) != kNone) return;
  const auto rank = static_cast<int64_t>(x->dims->size());
  int64_t axis = n.attr_int("axis", 0);
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) return;
  const Dim size = (*x->dims)[static_cast<size_t>(axis)];
  if (!size.known() || size.raw % parts == 0) return;  // equal parts need no saying
  const int64_t part = (size.raw + parts - 1) / parts;
  std::vector<int64_t> sizes(static_cast<size_t>(parts), part);
  sizes.back() = std::max<int64_t>(0, size.raw - part * (parts - 1));
  rw.set_input(id, 1, rw.add_constant(n.name + ".split", Tensor::vector<int64_t>(sizes)));
}

// Constants that say "no such input" in versions 11 and 12, by name.
using EmptyConstants = std::unordered_map<std::string, ValueId>;

EmptyConstants empty_constants(const Graph& graph) {
  EmptyConstants found;
  for (size_t i = 0; i < graph.value_capacity(); ++i) {
    const Value& v = graph.value(static_cast<ValueId>(i));
    if (v.is_constant() && v.dtype == DType::kF32 && v.constant->numel() == 0) found.emplace(v.name, static_cast<ValueId>(i));
  }
  return found;
}

void downgrade_resize(Rewriter& rw, NodeId id, int64_t opset, EmptyConstants& empty) {
  if (opset >= 13) return;
  if (opset >= 11) {
    for (size_t i : {1, 2}) {
      const Node& n = rw.graph().node(id);
      if (n.input(i) != kNone) continue;
      const std::string name = fmt::format("{}.{}", n.name, i == 1 ? "roi" : "scales");
      // A file that had one keeps its name, so that saving twice gives the same bytes.
      auto kept = empty.find(name);
      if (kept == empty.end()) kept = empty.emplace(name, rw.add_constant(name, Tensor::zeros(DType::kF32, {0}))).first;
      rw.set_input(id, i, kept->second);
    }
    return;
  }
  const ValueId scales = rw.graph().node(id).input(2);
  rw.set_input(id, 2, kNone);
  rw.set_input(id, 1, scales);
  for (const char* key : {"coordinate_transformation_mode", "nearest_mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value"})
    rw.erase_attr(id, key);
  if (opset < 10) rw.set_op(id, "Upsample");
}

// Before version 11 axes counted from the front only.
void count_axes_from_front(Rewriter& rw, NodeId id) {
  const Graph& g = rw.graph();
  const Node& n = g.node(id);
  std::optional<size_t> rank = input_rank(g, n, 0);
  if (n.op == "Unsqueeze" || n.op == "OneHot") {
    const ValueId out = n.output(0);
    rank = out != kNone && g.value(out).dims ? std::optional(g.value(out).dims->size()) : std::nullopt;
  }
  if (!rank) return;
  const auto r = static_cast<int64_t>(*rank);
  if (const auto it = n.attrs.find("axis"); it != n.attrs.end())
    if (const auto* axis = std::get_if<int64_t>(&it->second); axis && *axis < 0) rw.set_attr(id, "axis", *axis + r);
  if (const auto it = n.attrs.find("axes"); it != n.attrs.end()) {
    if (const auto* axes = std::get_if<std::vector<int64_t>>(&it->second)) {
      std::vector<int64_t> positive = *axes;
      for (int64_t& axis : positive)
        if (axis < 0) axis += r;
      rw.set_attr(id, "axes", std::move(positive));
    }
  }
}

void move_inputs_to_attributes(Rewriter& rw, NodeId id, int64_t opset) {
  for (const Moved& row : kMoved) {
    const Graph& g = rw.graph();
    const Node& n = g.node(id);
    if (n.op != row.op || opset >= row.since || n.input(row.input) == kNone) continue;
    const Tensor* t = constant_input(g, n, row.input);
    DS_CHECK(t != nullptr);  // least_opset() said so
    Attribute content;
    switch (row.kind) {
      case MovedKind::kInts: content = t->to_ints(); break;
      case MovedKind::kInt:
      case MovedKind::kIntScalar: content = t->to_ints()[0]; break;
      case MovedKind::kFloats: content = std::vector<float>(t->span<float>().begin(), t->span<float>().end()); break;
      case MovedKind::kFloat:
      case MovedKind::kLikeInput: content = static_cast<float>(t->to_doubles()[0]); break;
    }
    if (t->numel() > 0) rw.set_attr(id, row.attr, std::move(content));  // no axes: all, said by leaving it out
    rw.set_input(id, row.input, kNone);
  }
}

void downgrade_node(Rewriter& rw, NodeId id, int64_t opset, EmptyConstants& empty) {
  const std::string op = rw.graph().node(id).op;
  for (const AddedInput& row : kAddedInputs)
    if (op == row.op && opset < row.since && rw.graph().node(id).input(row.input) != kNone) rw.set_input(id, row.input, kNone);
  if (op == "Split" && opset < 18) downgrade_split(rw, id);
  if (op == "Resize") downgrade_resize(rw, id, opset, empty);
  if (op == "DFT" && opset < 20 && rw.graph().node(id).input(2) == kNone) rw.set_attr(id, "axis", int64_t{-2});
  if (op == "ScatterElements" && opset < 11) rw.set_op(id, "Scatter");
  if (op == "GridSample" && opset < kGridModesSince) {
    const std::string mode = rw.graph().node(id).attr_string("mode", "linear");
    for (const auto& [old, now] : kGridModes)
      if (mode == now) rw.set_attr(id, "mode", std::string(old));
  }
  if (is_softmax(rw.graph().node(id)) && opset < kSoftmaxPerAxis) {
    const std::optional<int64_t> axis = flattened_softmax_axis(rw.graph(), rw.graph().node(id));
    DS_CHECK(axis.has_value());
    rw.set_attr(id, "axis", *axis);
  }
  move_inputs_to_attributes(rw, id, opset);
  for (const Added& row : kAdded)
    if (op == row.op && opset < row.since) rw.erase_attr(id, row.attr);
  if (opset < 11) count_axes_from_front(rw, id);
}

}  // namespace

std::string_view current_op_name(std::string_view op) {
  if (op == "Upsample") return "Resize";
  if (op == "Scatter") return "ScatterElements";
  return op;
}

int64_t first_opset(std::string_view op) {
  for (const versions::Began& began : versions::kBegan)
    if (began.op == op) return began.since;
  return kOldestOpset;
}

void upgrade_node(Rewriter& rw, NodeId id, int64_t opset) {
  if (!rw.graph().node(id).domain.empty()) return;
  with_context([&] { return rw.graph().node(id).label(); }, [&] {
    rw.insert_before(id);
    // The first axis after the batch was the default, now it is the last one.
    if (rw.graph().node(id).op == "DFT" && opset < 20 && !rw.graph().node(id).has_attr("axis")) rw.set_attr(id, "axis", int64_t{1});
    if (opset < kOldestOpset) upgrade_to_seven(rw, id, opset);
    move_attributes_to_inputs(rw, id, opset);
    const std::string op = rw.graph().node(id).op;
    if (is_softmax(rw.graph().node(id))) upgrade_softmax(rw, id, opset);
    else if (op == "BatchNormalization") upgrade_batch_normalization(rw, id, opset);
    else if (op == "Resize") upgrade_resize(rw, id, opset, false);
    else if (op == "GroupNormalization" && opset < 21) upgrade_group_normalization(rw, id);
    else if (op == "Dropout" && opset < 10 && output_used(rw.graph(), rw.graph().node(id), 1))
      fail(ExitCode::kUnsupported, "a mask of numbers (opset below 10) is not supported");
    else if (op == "Split" && opset < 18) {
      const Node& n = rw.graph().node(id);
      if (n.input(1) == kNone && !n.has_attr("num_outputs")) rw.set_attr(id, "num_outputs", static_cast<int64_t>(n.outputs.size()));
    } else if (op == "Upsample") {
      rw.set_op(id, "Resize");
      upgrade_resize(rw, id, opset, true);
    } else if (op == "Scatter") {
      rw.set_op(id, "ScatterElements");
    } else if (op == "GridSample" && opset < kGridModesSince) {
      upgrade_grid_sample(rw, id);
    } else if (op == "RoiAlign" && opset < 16) {
      rw.set_attr(id, "coordinate_transformation_mode", std::string("output_half_pixel"));
    }
    rw.insert_at_end();
  });
}

OpsetNeed least_opset(const Graph& graph) {
  OpsetNeed most;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    int64_t need = n.domain.empty() ? node_needs(graph, n) : kOldestOpset;
    for (const auto& [attr, body] : bodies_of(n)) need = std::max(need, least_opset(*body).opset);
    if (need > most.opset) most = {need, id};
  }
  return most;
}

void downgrade_graph(Graph& graph, int64_t opset) {
  Rewriter rw(graph);
  EmptyConstants empty = empty_constants(graph);
  for (NodeId id : graph.order()) {
    for (const auto& [attr, body] : bodies_of(graph.node(id))) {
      auto lowered = std::make_shared<Graph>(*body);
      downgrade_graph(*lowered, opset);
      rw.set_attr(id, attr, std::shared_ptr<const Graph>(std::move(lowered)));
    }
    if (graph.node(id).domain.empty()) downgrade_node(rw, id, opset, empty);
  }
}

int64_t ir_version_of_opset(int64_t opset) {
  struct Row {
    int64_t opset, ir;
  };
  static constexpr Row kRows[] = {{28, 14}, {25, 13}, {24, 12}, {23, 11}, {21, 10}, {19, 9}, {15, 8}, {12, 7}, {11, 6}, {10, 5}, {9, 4}};
  for (const Row& row : kRows)
    if (opset >= row.opset) return row.ir;
  return 3;
}

}  // namespace ds
