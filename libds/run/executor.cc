#include "libds/run/executor.h"

#include <cstring>

namespace ds {

void Executor::init_states(const Graph& graph) {
  for (const State& s : graph.states()) states_.push_back(graph.value(s.value).constant->clone(Tier::kParameters));
}

void Executor::set_states(std::span<const Tensor> contents) {
  if (contents.size() != states_.size()) bad_data("{} states given, the graph has {}", contents.size(), states_.size());
  for (size_t i = 0; i < contents.size(); ++i) {
    const Tensor& from = contents[i];
    const Tensor& to = states_[i];
    if (from.dtype() != to.dtype() || from.shape() != to.shape())
      bad_data("state {} is {} {}, expected {} {}", i, dtype_name(from.dtype()), shape_string(from.shape()),
               dtype_name(to.dtype()), shape_string(to.shape()));
    if (to.bytes() > 0) std::memcpy(to.mutable_raw(), from.raw(), to.bytes());
  }
}

void check_inputs(const Graph& graph, std::span<const Tensor> inputs) {
  if (inputs.size() != graph.inputs().size())
    bad_data("the model has {} inputs, {} were given", graph.inputs().size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Value& v = graph.value(graph.inputs()[i]);
    if (!inputs[i].defined()) bad_data("input '{}' is missing", v.name);
    if (v.dtype != DType::kUndefined && inputs[i].dtype() != v.dtype)
      bad_data("input '{}' has type {}, the model expects {}", v.name, dtype_name(inputs[i].dtype()), dtype_name(v.dtype));
    if (is_container(v.dtype) && v.element && v.element->dtype != DType::kUndefined) {
      for (const Tensor& item : inputs[i].items())
        if (item.dtype() != v.element->dtype)
          bad_data("input '{}' holds {}, the model expects {}", v.name, dtype_name(item.dtype()), graph.type_string(v.type()));
    }
    if (!v.dims) continue;
    bool fits = v.dims->size() == inputs[i].shape().size();
    for (size_t d = 0; fits && d < v.dims->size(); ++d)
      fits = !(*v.dims)[d].known() || (*v.dims)[d].raw == inputs[i].shape()[d];
    if (!fits)
      bad_data("input '{}' has shape {}, the model expects {}", v.name, shape_string(inputs[i].shape()), graph.dims_string(*v.dims));
  }
}

}  // namespace ds
