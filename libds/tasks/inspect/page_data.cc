// What the page's script works on: nodes, values and views as JSON.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "libds/ir/op_def.h"
#include "libds/tasks/inspect/html.h"

namespace ds::page {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMostElements = 16;  // of a list or tensor shown in full

template <typename T>
std::string list_text(const std::vector<T>& list) {
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min(list.size(), kMostElements); ++i) shown.push_back(fmt::format("{}", list[i]));
  if (list.size() > kMostElements) shown.push_back(fmt::format("… {} in all", list.size()));
  return fmt::format("[{}]", fmt::join(shown, ", "));
}

std::string tensor_text(const Tensor& t) {
  std::string text = fmt::format("{}[{}]", dtype_name(t.dtype()), fmt::join(t.shape(), ","));
  if (t.numel() > static_cast<int64_t>(kMostElements) || is_object(t.dtype())) return text;
  return text + " " + list_text(t.to_doubles());
}

struct AttributeText {
  std::string operator()(int64_t x) const { return fmt::format("{}", x); }
  std::string operator()(float x) const { return fmt::format("{}", x); }
  std::string operator()(const std::string& x) const { return x.size() > 200 ? fmt::format("{}… ({} bytes)", x.substr(0, 200), x.size()) : x; }
  std::string operator()(const Tensor& x) const { return tensor_text(x); }
  std::string operator()(const std::shared_ptr<const Graph>& x) const { return x == nullptr ? "" : fmt::format("graph of {} nodes", x->node_count()); }
  template <typename T>
  std::string operator()(const std::vector<T>& x) const {
    if constexpr (fmt::is_formattable<T>::value) return list_text(x);
    else return fmt::format("{} of them", x.size());
  }
  // Whatever kinds of attribute there will be.
  template <typename T>
  std::string operator()(const T&) const { return "(not shown)"; }
};

Json value_json(const Inspection& r, const Graph& g, ValueId id) {
  const Value& v = g.value(id);
  Json o{{"name", v.name}, {"type", v.dtype == DType::kUndefined ? std::string("unknown type") : g.type_string(id)}};
  if (v.is_constant()) o["constant"] = true;
  const bool open = !v.dims || !all_known(*v.dims);
  if (open && &g == r.graph.get() && r.shapes.count(id)) o["at"] = shape_text(r, g, id);
  return o;
}

Json node_json(const Inspection& r, const ListedNode& listed, ValueIndex& values, std::set<const Tensor*>& counted) {
  const Graph& g = *listed.graph;
  const Node& n = g.node(listed.id);
  Json o{{"op", full_op_name(n)}, {"name", n.name}, {"kind", kind_of(n)}, {"view", listed.view}};
  int64_t parameters = 0;
  o["in"] = Json::array();
  for (ValueId in : n.inputs) {
    o["in"].push_back(values.of(&g, in));
    if (in != kNone && g.value(in).is_constant() && counted.insert(g.value(in).constant.get()).second) parameters += g.value(in).constant->numel();
  }
  o["out"] = Json::array();
  for (ValueId out : n.outputs) o["out"].push_back(values.of(&g, out));
  o["parameters"] = parameters;
  o["flops"] = nullptr;
  if (r.cost && &g == r.graph.get()) {
    const auto at = r.cost->node_flops.find(listed.id);
    o["flops"] = at == r.cost->node_flops.end() ? 0 : at->second;
  }
  o["attributes"] = Json::array();
  for (const auto& [key, attribute] : n.attrs) o["attributes"].push_back({key, std::visit(AttributeText(), attribute)});
  if (!listed.bodies.empty()) o["bodies"] = listed.bodies;
  if (!n.doc.empty()) o["doc"] = n.doc;
  if (n.def == nullptr) o["unsupported"] = true;
  else if (!n.def->grad && !n.def->lower && !n.def->stops_gradient) o["noGradient"] = true;
  return o;
}

}  // namespace

int ValueIndex::of(const Graph* graph, ValueId id) {
  if (id == kNone) return -1;
  const auto [it, fresh] = known_.emplace(std::make_pair(graph, id), static_cast<int>(all_.size()));
  if (fresh) all_.emplace_back(graph, id);
  return it->second;
}

std::string page_data(const Inspection& r, const GraphViews& views, ValueIndex& values) {
  Json data;
  data["flops"] = r.cost ? Json(r.cost->flops) : Json(nullptr);
  data["views"] = Json::array();
  for (const GraphView& v : views.views) data["views"].push_back({{"title", v.title}, {"parent", v.parent}});
  data["nodes"] = Json::array();
  std::set<const Tensor*> counted;
  for (const ListedNode& n : views.nodes) data["nodes"].push_back(node_json(r, n, values, counted));
  data["values"] = Json::array();
  for (const auto& [graph, id] : values.all()) data["values"].push_back(value_json(r, *graph, id));
  // Inside <script> nothing may look like a tag.
  std::string text = data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string safe;
  for (char c : text) safe += c == '<' ? "\\u003c" : c == '>' ? "\\u003e" : c == '&' ? "\\u0026" : std::string(1, c);
  return safe;
}

}  // namespace ds::page
