#include "libds/tasks/verify/run_model.h"

#include <algorithm>

#include "libds/ir/onnx_import.h"
#include "libds/tasks/verify/compare.h"

namespace ds {

std::vector<Tensor> order_inputs(const Graph& graph, const NamedTensors& inputs) {
  std::vector<Tensor> ordered;
  for (ValueId id : graph.inputs()) {
    const std::string& name = graph.value(id).name;
    const Tensor* tensor = find_tensor(inputs, name);
    if (tensor == nullptr) bad_data("input '{}' is missing; there are {}", name, names_of(inputs));
    ordered.push_back(*tensor);
  }
  for (const auto& [name, tensor] : inputs) {
    const ValueId id = graph.find_value(name);
    if (id == kNone || !graph.is_input(id)) bad_data("the model has no input '{}'", name);
  }
  return ordered;
}

NamedTensors name_outputs(const Graph& graph, std::vector<Tensor> results) {
  NamedTensors named;
  for (size_t i = 0; i < results.size(); ++i) named.emplace_back(graph.value(graph.outputs()[i]).name, std::move(results[i]));
  return named;
}

NamedTensors run_named(Session& session, const NamedTensors& inputs) {
  return name_outputs(session.graph(), session.run(order_inputs(session.graph(), inputs)));
}

void run_file(const std::string& model, const std::string& input, const std::string& output, const SessionOptions& options) {
  one_standard_input({&model, &input});
  Session session(load_model(model), options);
  const NamedTensors inputs = read_npz(input);
  write_npz(output, with_context([&] { return model; }, [&] { return run_named(session, inputs); }));
}

void one_standard_input(std::initializer_list<const std::string*> paths) {
  if (std::count_if(paths.begin(), paths.end(), [](const std::string* p) { return *p == "-"; }) > 1)
    fail(ExitCode::kUsage, "only one file can be standard input");
}

}  // namespace ds
