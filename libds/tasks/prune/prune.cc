#include "libds/tasks/prune/prune.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "libds/base/log.h"
#include "libds/passes/select_channels.h"
#include "libds/passes/shrink_channels.h"
#include "libds/run/executor.h"
#include "libds/run/input_shapes.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

struct Totals {
  int64_t parameters = 0;
  size_t bytes = 0;
};

Totals totals_of(const Graph& graph) {
  Totals t;
  for (ValueId id : graph.initializers()) {
    const Tensor& content = *graph.value(id).constant;
    t.bytes += content.bytes();
    if (is_float(content.dtype())) t.parameters += content.numel();
  }
  return t;
}

std::vector<PrunedLayer> layers_of(const Graph& graph) {
  std::vector<PrunedLayer> layers;
  for (const WeightOperand& w : weight_operands(graph)) {
    const Node& n = graph.node(w.node);
    const Tensor& content = *graph.value(w.weight).constant;
    PrunedLayer layer;
    layer.node = n.name;
    layer.op = n.op;
    layer.weight = graph.value(w.weight).name;
    layer.shape_before = layer.shape_after = content.shape();
    layer.zeros_before = layer.zeros_after = count_zeros(content);
    layer.bytes_before = layer.bytes_after = content.bytes();
    layers.push_back(std::move(layer));
  }
  return layers;
}

// Axis of a layer's output that holds its channels.
size_t channel_axis(const Graph& graph, const Node& n) {
  const auto& dims = graph.value(n.outputs[0]).dims;
  const bool conv = n.op == "Conv" || n.op == "ConvTranspose";
  return conv || !dims || dims->empty() ? 1 : dims->size() - 1;
}

int64_t channels_of(const Graph& graph, const Node& n) {
  const auto& dims = graph.value(n.outputs[0]).dims;
  const size_t axis = channel_axis(graph, n);
  return dims && axis < dims->size() && (*dims)[axis].known() ? (*dims)[axis].raw : 0;
}

void sparsify(Graph& graph, PruneReport& report) {
  const std::vector<WeightOperand> weights = prunable_weights(graph, report.options.exclude);
  if (weights.empty()) fail(ExitCode::kUnsupported, "there are no weights to prune (of Conv, ConvTranspose, Gemm or MatMul, not excluded)");
  std::vector<Tensor> contents;
  for (const WeightOperand& w : weights) contents.push_back(*graph.value(w.weight).constant);
  const std::vector<Tensor> masks = magnitude_masks(contents, report.options.target_sparsity, report.options.scope);
  Rewriter rw(graph);
  std::map<std::string, const WeightOperand*> pruned;
  for (size_t i = 0; i < weights.size(); ++i) {
    rw.set_constant(weights[i].weight, std::make_shared<const Tensor>(masked(contents[i], masks[i])));
    const Tensor& now = *graph.value(weights[i].weight).constant;
    report.prunable += now.numel();
    report.zeros += count_zeros(now);
    pruned.emplace(graph.value(weights[i].weight).name, &weights[i]);
  }
  for (PrunedLayer& layer : report.layers) {
    const auto it = pruned.find(layer.weight);
    if (it == pruned.end()) layer.kept_because = "excluded, or no float weight of a layer";
    else layer.zeros_after = count_zeros(*graph.value(it->second->weight).constant);
  }
}

// Why the output channels of a layer stay; empty when they may go.
std::string pinned_reason(const Graph& graph, const ChannelGroups& groups, const Node& n) {
  const ChannelAxis* a = groups.find(n.outputs[0], channel_axis(graph, n));
  if (a == nullptr) return "its output has no channels that can be followed";
  for (int32_t c : a->channels)
    if (groups.pinned[static_cast<size_t>(c)].empty()) return {};
  return groups.pinned[static_cast<size_t>(a->channels[0])];
}

void shrink(Graph& graph, PruneReport& report) {
  const InputShapes shapes = resolve_input_shapes(graph, report.options.shapes);
  report.shapes_assumed = shapes.assumed;
  const auto specialised = [&] {
    auto copy = std::make_unique<Graph>(graph);
    Rewriter rw(*copy);
    specialize(rw, shapes.shapes, evaluate_node);
    return copy;
  };
  const auto concrete_graph = specialised();
  const ChannelGroups groups = find_channel_groups(graph, *concrete_graph, report.options.exclude);
  if (groups.classes.empty()) fail(ExitCode::kUnsupported, "no layer has channels that can be removed");
  const ChannelTarget target{report.options.target_flops, report.options.channel_multiple};
  const ChannelSelection selection = select_channels(graph, *concrete_graph, groups, target);
  const std::vector<WeightOperand> weights = weight_operands(graph);
  for (size_t i = 0; i < weights.size(); ++i) {
    report.layers[i].channels_before = channels_of(*concrete_graph, graph.node(weights[i].node));
    report.layers[i].kept_because = pinned_reason(graph, groups, graph.node(weights[i].node));
  }
  Rewriter rw(graph);
  shrink_channels(rw, groups, selection.removed);
  const auto after = specialised();
  report.flops_before = selection.flops_before;
  report.flops_after = count_flops(*after);
  DS_CHECK(report.flops_after == selection.flops_after);
  for (size_t i = 0; i < weights.size(); ++i) {
    PrunedLayer& layer = report.layers[i];
    const Tensor& now = *graph.value(weights[i].weight).constant;
    layer.channels_after = channels_of(*after, graph.node(weights[i].node));
    layer.shape_after = now.shape();
    layer.zeros_after = count_zeros(now);
    layer.bytes_after = now.bytes();
    report.prunable += now.numel();
    report.zeros += layer.zeros_after;
  }
}

const char* scope_name(SparsityScope scope) { return scope == SparsityScope::kGlobal ? "global" : "layer"; }

Json request_json(const PruneOptions& o) {
  Json j;
  if (o.structured) {
    j["structured"] = "channels";
    j["target_flops"] = o.target_flops;
    if (o.channel_multiple > 0) j["channel_multiple"] = o.channel_multiple;
    else j["channel_multiple"] = "auto";
  } else {
    j["method"] = "magnitude";
    j["target_sparsity"] = o.target_sparsity;
    j["scope"] = scope_name(o.scope);
  }
  j["exclude"] = o.exclude;
  return j;
}

// Replaces what JSON cannot hold: names in ONNX files are bytes.
std::string dump(const Json& j, int indent) { return j.dump(indent, ' ', false, Json::error_handler_t::replace); }

}  // namespace

PruneReport prune(Graph& graph, const PruneOptions& options) {
  PruneReport report;
  report.options = options;
  report.layers = layers_of(graph);
  const Totals before = totals_of(graph);
  if (options.structured) shrink(graph, report);
  else sparsify(graph, report);
  const Totals after = totals_of(graph);
  report.parameters_before = before.parameters;
  report.parameters_after = after.parameters;
  report.bytes_before = before.bytes;
  report.bytes_after = after.bytes;
  Json manifest = request_json(options);
  if (options.structured) manifest["flops_ratio"] = report.flops_ratio();
  else manifest["sparsity"] = report.sparsity();
  graph.metadata["ds.prune"] = dump(manifest, -1);
  return report;
}

std::string prune_report_json(const PruneReport& r) {
  Json j;
  j["schema"] = "ds-prune/1";
  j["request"] = request_json(r.options);
  j["parameters"] = {{"before", r.parameters_before}, {"after", r.parameters_after}};
  j["bytes"] = {{"before", r.bytes_before}, {"after", r.bytes_after}};
  j["sparsity"] = r.sparsity();
  if (r.options.structured) {
    j["flops"] = {{"before", r.flops_before}, {"after", r.flops_after}, {"ratio", r.flops_ratio()}};
    j["shapes_assumed"] = r.shapes_assumed;
  }
  if (r.gate) {
    j["accuracy"] = {{"before", r.gate->before}, {"after", r.gate->after}, {"samples", r.gate->samples},
                     {"max_drop", r.gate->max_drop}, {"passed", r.gate->passed()}};
  }
  j["layers"] = Json::array();
  for (const PrunedLayer& l : r.layers) {
    Json row;
    row["node"] = l.node;
    row["op"] = l.op;
    row["weight"] = l.weight;
    row["shape"] = {{"before", l.shape_before}, {"after", l.shape_after}};
    row["zeros"] = {{"before", l.zeros_before}, {"after", l.zeros_after}};
    row["bytes"] = {{"before", l.bytes_before}, {"after", l.bytes_after}};
    if (r.options.structured) row["channels"] = {{"before", l.channels_before}, {"after", l.channels_after}};
    if (!l.kept_because.empty()) row["kept_because"] = l.kept_because;
    j["layers"].push_back(std::move(row));
  }
  return dump(j, 2) + "\n";
}

std::string prune_report_text(const PruneReport& r) {
  size_t width = 5;
  for (const PrunedLayer& l : r.layers) width = std::max(width, l.node.size());
  std::string text = fmt::format("{:<{}}  {:<13}  {:>16}  {:>9}  {:>10}", "layer", width, "operator", "shape", "zeros", "bytes");
  text += r.options.structured ? "  channels\n" : "\n";
  for (const PrunedLayer& l : r.layers) {
    const int64_t n = std::max<int64_t>(1, checked_numel(l.shape_after));
    text += fmt::format("{:<{}}  {:<13}  {:>16}  {:>7.2f} %  {:>10}", l.node, width, l.op, shape_string(l.shape_after),
                        100.0 * static_cast<double>(l.zeros_after) / static_cast<double>(n), l.bytes_after);
    if (r.options.structured) text += fmt::format("  {} -> {}", l.channels_before, l.channels_after);
    if (!l.kept_because.empty()) text += fmt::format("  ({})", l.kept_because);
    text += "\n";
  }
  const auto percent = [](double a, double b) { return b > 0 ? 100.0 * a / b : 100.0; };
  text += fmt::format("parameters {} -> {} ({:.1f} %), {} -> {} bytes\n", r.parameters_before, r.parameters_after,
                      percent(static_cast<double>(r.parameters_after), static_cast<double>(r.parameters_before)), r.bytes_before, r.bytes_after);
  if (r.options.structured) {
    text += fmt::format("FLOPs {} -> {} ({:.2f} %, target {:.2f} %){}\n", r.flops_before, r.flops_after, 100.0 * r.flops_ratio(),
                        100.0 * r.options.target_flops, r.shapes_assumed ? ", sizes that the model leaves open counted as 1" : "");
  } else {
    text += fmt::format("zeros {} of {} prunable weights ({:.4f} %)\n", r.zeros, r.prunable, 100.0 * r.sparsity());
  }
  if (r.gate) {
    text += fmt::format("accuracy {:.2f} % -> {:.2f} % on {} samples ({:+.2f} points)\n", 100 * r.gate->before, 100 * r.gate->after,
                        r.gate->samples, -r.gate->drop());
  }
  return text;
}

}  // namespace ds
