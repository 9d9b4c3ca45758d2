#include "libds/tasks/train/check.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "libds/autodiff/autodiff.h"
#include "libds/ir/lower.h"
#include "libds/ir/onnx_import.h"
#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"
#include "libds/passes/train_mode.h"
#include "libds/tasks/train/train_graph.h"

namespace ds {
namespace {

std::string full_name(const Node& n) { return n.domain.empty() ? n.op : n.domain + "." + n.op; }

std::vector<TrainCheck::Operator> listed(const std::map<std::string, TrainCheck::Operator>& ops) {
  std::vector<TrainCheck::Operator> list;
  for (const auto& [name, op] : ops) list.push_back(op);
  // What stands in the way first.
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.needed.size() > b.needed.size(); });
  return list;
}

using OperatorsByName = std::map<std::string, TrainCheck::Operator>;

// `in_the_way`: nodes of the graph that a gradient would have to pass and cannot. Bodies of control flow are gone
// through as well; no gradient goes into them, so that nothing in there is in the way itself.
void list_operators(const Graph& graph, const std::set<NodeId>& in_the_way, OperatorsByName& unsupported, OperatorsByName& no_gradient) {
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    for (const auto& [name, body] : bodies_of(n)) list_operators(*body, {}, unsupported, no_gradient);
    const bool unknown = n.def == nullptr, needed = in_the_way.count(id) > 0;
    if (!unknown && !needed && (n.def->grad || n.def->lower || n.def->stops_gradient)) continue;
    TrainCheck::Operator& op = (unknown ? unsupported : no_gradient)[full_name(n)];
    op.op = full_name(n);
    ++op.nodes;
    if (needed) op.needed.push_back(n.label());
  }
}

std::string names(const std::vector<TrainCheck::Operator>& ops, bool only_needed) {
  std::vector<std::string> list;
  for (const auto& op : ops)
    if (!only_needed || !op.needed.empty()) list.push_back(op.op);
  return fmt::format("{}", fmt::join(list, ", "));
}

std::string why_not(const TrainCheck& check, const Graph& graph) {
  if (!check.unsupported.empty()) return "not supported: " + names(check.unsupported, false);
  if (graph.outputs().empty()) return "it has no output to learn from";
  if (check.parameters == 0) return "it has no trainable parameters";
  if (const std::string missing = names(check.no_gradient, true); !missing.empty()) return "no gradient for " + missing;
  if (static_cast<size_t>(check.parameters) == check.unreached.size()) return "the loss depends on no trainable parameter";
  return {};
}

}  // namespace

TrainCheck check_trainable(const std::string& path, std::span<const std::string> freeze) {
  ImportOptions import;
  import.allow_unknown_ops = true;
  const std::shared_ptr<Graph> model = load_model(path, import);
  return with_context([&] { return path; }, [&] {
    TrainCheck check;
    check.model = path;
    check.nodes = static_cast<int64_t>(model->node_count());
    const std::vector<ValueId> parameters = trainable_parameters(*model, freeze);
    for (ValueId id : parameters) {
      ++check.parameters;
      check.parameter_elements += model->value(id).constant->numel();
    }
    Graph graph = *model;
    Rewriter rw(graph);
    std::set<NodeId> in_the_way;
    if (!graph.outputs().empty()) {
      // As in training: lowered, and BatchNormalization and Dropout in forms of their own.
      const std::vector<NodeId> origin = lower_nodes_with_origins(rw);
      try {
        to_training_mode(rw, rw.add_input("step", DType::kI64, {}), 0);
      } catch (const Error& error) {
        if (error.code() != ExitCode::kUnsupported) throw;
        check.reason = error.what();
      }
      const GradientPath path_to_loss = gradient_path(graph, std::span(graph.outputs().data(), 1), parameters);
      for (NodeId id : path_to_loss.missing) in_the_way.insert(static_cast<size_t>(id) < origin.size() ? origin[static_cast<size_t>(id)] : id);
      for (size_t i = 0; i < parameters.size(); ++i)
        if (!path_to_loss.reached[i]) check.unreached.push_back(graph.value(parameters[i]).name);
    }
    OperatorsByName unsupported, no_gradient;
    list_operators(*model, in_the_way, unsupported, no_gradient);
    check.unsupported = listed(unsupported);
    check.no_gradient = listed(no_gradient);
    if (check.reason.empty()) check.reason = why_not(check, *model);
    check.trainable = check.reason.empty();
    return check;
  });
}

std::string train_check_text(const TrainCheck& c) {
  std::string text = c.trainable ? fmt::format("{}: can be trained: {} parameters, {} elements\n", c.model, c.parameters, c.parameter_elements)
                                 : fmt::format("{}: cannot be trained: {}\n", c.model, c.reason);
  for (const TrainCheck::Operator& op : c.unsupported) text += fmt::format("  {}: not supported, {} node{}\n", op.op, op.nodes, op.nodes == 1 ? "" : "s");
  for (const TrainCheck::Operator& op : c.no_gradient) {
    text += fmt::format("  {}: no gradient, {} node{}", op.op, op.nodes, op.nodes == 1 ? "" : "s");
    text += op.needed.empty() ? "; none is needed\n" : fmt::format("; needed at {}\n", fmt::join(op.needed, ", "));
  }
  for (const std::string& name : c.unreached) text += fmt::format("  '{}': stays as it is, the loss does not depend on it\n", name);
  return text;
}

std::string train_check_json(const TrainCheck& c) {
  using Json = nlohmann::ordered_json;
  const auto operators = [](const std::vector<TrainCheck::Operator>& list, bool with_needed) {
    Json out = Json::array();
    for (const TrainCheck::Operator& op : list) {
      Json o{{"op", op.op}, {"nodes", op.nodes}};
      if (with_needed) o["needed"] = op.needed;
      out.push_back(std::move(o));
    }
    return out;
  };
  Json json;
  json["schema"] = "ds-train-check/1";
  json["model"] = c.model;
  json["trainable"] = c.trainable;
  json["reason"] = c.trainable ? Json(nullptr) : Json(c.reason);
  json["nodes"] = c.nodes;
  json["parameters"] = c.parameters;
  json["parameter_elements"] = c.parameter_elements;
  json["unreached_parameters"] = c.unreached;
  json["unsupported_ops"] = operators(c.unsupported, false);
  json["ops_without_gradient"] = operators(c.no_gradient, true);
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace ds
