#include "libds/run/input_shapes.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

namespace ds {
namespace {

struct Given {
  std::string name;
  Shape shape;
};

Given parse(const std::string& text) {
  const auto wrong = [&] { fail(ExitCode::kUsage, "'{}' is no shape; expected name:1x3x224x224 or dim:8", text); };
  const size_t colon = text.rfind(':');  // names may hold colons ("input:0:1x3")
  if (colon == std::string::npos || colon == 0) wrong();
  Given g;
  g.name = text.substr(0, colon);
  std::string sizes = text.substr(colon + 1);
  char separator = 'x';
  if (sizes.size() >= 2 && sizes.front() == '[' && sizes.back() == ']') {
    sizes = sizes.substr(1, sizes.size() - 2);
    separator = ',';
    if (sizes.empty()) return g;  // a scalar
  }
  for (size_t begin = 0; begin <= sizes.size();) {
    const size_t end = std::min(sizes.find(separator, begin), sizes.size());
    int64_t size = -1;
    const auto [stop, error] = std::from_chars(sizes.data() + begin, sizes.data() + end, size);
    if (error != std::errc() || stop != sizes.data() + end || size < 0) wrong();
    g.shape.push_back(size);
    begin = end + 1;
  }
  return g;
}

}  // namespace

InputShapes resolve_input_shapes(const Graph& graph, std::span<const std::string> given) {
  std::map<std::string, Shape> of_inputs;
  std::map<std::string, int64_t> of_dims;
  std::set<std::string> dim_names;
  for (ValueId id : graph.inputs())
    if (graph.value(id).dims)
      for (Dim d : *graph.value(id).dims)
        if (!d.known()) dim_names.insert(graph.symbol_name(d.symbol_id()));
  for (const std::string& text : given) {
    Given g = parse(text);
    const ValueId id = graph.find_value(g.name);
    if (id != kNone && graph.is_input(id)) of_inputs[g.name] = std::move(g.shape);
    else if (dim_names.count(g.name) && g.shape.size() == 1) of_dims[g.name] = g.shape[0];
    else fail(ExitCode::kUsage, "the model has no input{} '{}'", g.shape.size() == 1 ? " and no dimension" : "", g.name);
  }
  InputShapes out;
  for (ValueId id : graph.inputs()) {
    const Value& v = graph.value(id);
    if (const auto it = of_inputs.find(v.name); it != of_inputs.end()) {
      out.shapes.push_back(it->second);
      continue;
    }
    if (!v.dims) fail(ExitCode::kUsage, "the rank of input '{}' is not known: give its shape", v.name);
    Shape shape;
    for (Dim d : *v.dims) {
      if (d.known()) {
        shape.push_back(d.raw);
        continue;
      }
      const auto it = of_dims.find(graph.symbol_name(d.symbol_id()));
      if (it == of_dims.end()) out.assumed = true;
      shape.push_back(it == of_dims.end() ? 1 : it->second);
    }
    out.shapes.push_back(std::move(shape));
  }
  return out;
}

std::vector<std::vector<std::string>> shape_rounds(std::span<const std::string> given) {
  std::vector<std::string> names;  // in the order of first mention
  std::map<std::string, std::vector<std::string>> texts;
  size_t rounds = 1;
  for (const std::string& text : given) {
    const std::string name = parse(text).name;
    std::vector<std::string>& list = texts[name];
    if (list.empty()) names.push_back(name);
    list.push_back(text);
    rounds = std::max(rounds, list.size());
  }
  std::vector<std::vector<std::string>> all(rounds);
  for (size_t r = 0; r < rounds; ++r)
    for (const std::string& name : names) all[r].push_back(texts[name][std::min(r, texts[name].size() - 1)]);
  return all;
}

}  // namespace ds
