#include "libds/tasks/verify/verify.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libds/ir/onnx_import.h"

namespace ds {
namespace {

const Tensor* find(const NamedTensors& arrays, const std::string& name) {
  for (const auto& [key, tensor] : arrays)
    if (key == name) return &tensor;
  return nullptr;
}

std::string names_of(const NamedTensors& arrays) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : arrays) names.push_back("'" + name + "'");
  return fmt::format("{}", fmt::join(names, ", "));
}

void one_standard_input(std::initializer_list<const std::string*> paths) {
  if (std::count_if(paths.begin(), paths.end(), [](const std::string* p) { return *p == "-"; }) > 1)
    fail(ExitCode::kUsage, "only one file can be standard input");
}

NamedTensors run_model_file(const std::string& model, const std::string& input, const SessionOptions& options) {
  Session session(load_model(model), options);
  const NamedTensors inputs = read_npz(input);
  return with_context([&] { return model; }, [&] { return run_named(session, inputs); });
}

}  // namespace

NamedTensors run_named(Session& session, const NamedTensors& inputs) {
  const Graph& graph = session.graph();
  std::vector<Tensor> ordered;
  for (ValueId id : graph.inputs()) {
    const std::string& name = graph.value(id).name;
    const Tensor* tensor = find(inputs, name);
    if (tensor == nullptr) bad_data("input '{}' is missing; there are {}", name, inputs.empty() ? "none" : names_of(inputs));
    ordered.push_back(*tensor);
  }
  for (const auto& [name, tensor] : inputs) {
    const ValueId id = graph.find_value(name);
    if (id == kNone || !graph.is_input(id)) bad_data("the model has no input '{}'", name);
  }
  std::vector<Tensor> results = session.run(ordered);
  NamedTensors named;
  for (size_t i = 0; i < results.size(); ++i) named.emplace_back(graph.value(graph.outputs()[i]).name, std::move(results[i]));
  return named;
}

void run_file(const std::string& model, const std::string& input, const std::string& output, const SessionOptions& options) {
  one_standard_input({&model, &input});
  write_npz(output, run_model_file(model, input, options));
}

OutputDifference compare_output(const std::string& name, const Tensor& got, const Tensor& expected, Tolerance tolerance) {
  OutputDifference d;
  d.name = name;
  d.shape = got.shape();
  d.elements = got.numel();
  if (got.shape() != expected.shape()) {
    d.problem = fmt::format("has shape {}, the reference {}", shape_string(got.shape()), shape_string(expected.shape()));
    return d;
  }
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  double dot = 0, aa = 0, bb = 0, worst_excess = -1;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool finite = std::isfinite(a[i]) && std::isfinite(b[i]);
    double excess = -1;  // how far beyond what is allowed
    if (finite) {
      const double error = std::fabs(a[i] - b[i]);
      d.max_abs = std::max(d.max_abs, error);
      if (b[i] != 0) d.max_rel = std::max(d.max_rel, error / std::fabs(b[i]));
      dot += a[i] * b[i];
      aa += a[i] * a[i];
      bb += b[i] * b[i];
      const double allowed = tolerance.atol + tolerance.rtol * std::fabs(b[i]);
      if (error > allowed) excess = error - allowed;
    } else if (!(std::isnan(a[i]) && std::isnan(b[i])) && a[i] != b[i]) {
      excess = HUGE_VAL;
    }
    if (excess < 0) continue;
    ++d.mismatches;
    if (excess <= worst_excess) continue;
    worst_excess = excess;
    d.worst = static_cast<int64_t>(i);
    d.got = a[i];
    d.expected = b[i];
  }
  if (aa > 0 || bb > 0) d.cosine = aa > 0 && bb > 0 ? dot / std::sqrt(aa) / std::sqrt(bb) : 0;
  return d;
}

std::vector<OutputDifference> compare_outputs(const NamedTensors& got, const NamedTensors& reference, Tolerance tolerance) {
  if (reference.empty()) bad_data("the reference holds no arrays");
  std::vector<OutputDifference> all;
  for (const auto& [name, expected] : reference) {
    const Tensor* tensor = find(got, name);
    if (tensor == nullptr) bad_data("the model has no output '{}' as the reference does; it has {}", name, names_of(got));
    all.push_back(compare_output(name, *tensor, expected, tolerance));
  }
  return all;
}

std::vector<OutputDifference> verify_file(const std::string& model, const std::string& input, const std::string& reference,
                                          Tolerance tolerance, const SessionOptions& options) {
  one_standard_input({&model, &input, &reference});
  const NamedTensors expected = read_npz(reference);
  const NamedTensors got = run_model_file(model, input, options);
  return with_context([&] { return reference; }, [&] { return compare_outputs(got, expected, tolerance); });
}

bool all_ok(const std::vector<OutputDifference>& outputs) {
  return std::all_of(outputs.begin(), outputs.end(), [](const OutputDifference& d) { return d.ok(); });
}

std::string verify_text(const std::vector<OutputDifference>& outputs) {
  size_t name_width = 6, shape_width = 5;
  for (const OutputDifference& d : outputs) {
    name_width = std::max(name_width, d.name.size());
    shape_width = std::max(shape_width, shape_string(d.shape).size());
  }
  std::string text = fmt::format("{:<{}}  {:<{}}  {:>10}  {:>10}  {:>10}  result\n", "output", name_width, "shape", shape_width,
                                 "max abs", "max rel", "cosine");
  for (const OutputDifference& d : outputs) {
    text += fmt::format("{:<{}}  {:<{}}  ", d.name, name_width, shape_string(d.shape), shape_width);
    if (!d.problem.empty()) {
      text += fmt::format("{:>10}  {:>10}  {:>10}  FAILED: {}\n", "-", "-", "-", d.problem);
      continue;
    }
    text += fmt::format("{:>10.3g}  {:>10.3g}  {:>10.8f}  ", d.max_abs, d.max_rel, d.cosine);
    text += d.ok() ? "ok\n"
                   : fmt::format("FAILED: {} of {} elements; element {} is {:.9g}, expected {:.9g}\n", d.mismatches, d.elements,
                                 d.worst, d.got, d.expected);
  }
  return text;
}

std::string verify_json(const std::vector<OutputDifference>& outputs, Tolerance tolerance) {
  // JSON has no NaN and no infinity: such numbers are null.
  const auto number = [](double x) { return std::isfinite(x) ? nlohmann::ordered_json(x) : nlohmann::ordered_json(nullptr); };
  nlohmann::ordered_json json;
  json["ok"] = all_ok(outputs);
  json["rtol"] = tolerance.rtol;
  json["atol"] = tolerance.atol;
  json["outputs"] = nlohmann::ordered_json::array();
  for (const OutputDifference& d : outputs) {
    nlohmann::ordered_json o;
    o["name"] = d.name;
    o["shape"] = d.shape;
    o["ok"] = d.ok();
    if (!d.problem.empty()) {
      o["problem"] = d.problem;
    } else {
      o["elements"] = d.elements;
      o["mismatches"] = d.mismatches;
      o["max_abs"] = d.max_abs;
      o["max_rel"] = d.max_rel;
      o["cosine"] = d.cosine;
      if (d.mismatches > 0) o["worst"] = {{"index", d.worst}, {"got", number(d.got)}, {"expected", number(d.expected)}};
    }
    json["outputs"].push_back(std::move(o));
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace ds
