#include "libds/tasks/inspect/html.h"

#include <algorithm>
#include <array>

namespace ds {
namespace page {

std::string_view kind_of(const Node& node) {
  const std::string_view op = node.op;
  const auto has = [&](std::string_view part) { return op.find(part) != std::string_view::npos; };
  const auto is_one = [&](auto&& list) { return std::find(std::begin(list), std::end(list), op) != std::end(list); };
  static constexpr std::string_view kControl[] = {"If", "Loop", "Scan", "SequenceMap"};
  static constexpr std::string_view kRecurrent[] = {"RNN", "GRU", "LSTM"};
  static constexpr std::string_view kActivations[] = {
      "Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Mish", "Tanh",
      "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Softplus", "Softsign", "Softmax", "LogSoftmax", "Hardmax", "Clip", "SwiGLU"};
  static constexpr std::string_view kMoves[] = {
      "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND",
      "ScatterElements", "ScatterND", "Expand", "Tile", "Pad", "Shape", "Size", "Identity", "Cast", "CastLike", "Resize", "DepthToSpace",
      "SpaceToDepth", "Constant", "ConstantOfShape", "Range", "NonZero", "TopK", "Compress", "OneHot", "EyeLike", "Reverse",
      "ReverseSequence", "CenterCropPad", "Trilu", "Col2Im"};
  if (is_one(kControl)) return "ctl";
  if (is_one(kRecurrent)) return "rnn";
  if (has("Quantize")) return "quant";
  if (has("Normalization") || op == "LRN") return "norm";
  if (has("Conv")) return "conv";
  if (has("MatMul") || has("Attention") || op == "Gemm" || op == "Einsum") return "mat";
  if (has("Pool")) return "pool";
  if (is_one(kActivations)) return "act";
  if (is_one(kMoves)) return "move";
  return "math";
}

std::string shape_text(const Inspection& r, const Graph& graph, ValueId id) {
  const Value& v = graph.value(id);
  std::vector<std::string> dims;
  const auto at = &graph == r.graph.get() ? r.shapes.find(id) : r.shapes.end();
  if (at != r.shapes.end())
    for (int64_t d : at->second) dims.push_back(fmt::format("{}", d));
  else if (v.dims)
    for (Dim d : *v.dims) dims.push_back(graph.dim_string(d));
  else
    return {};
  return dims.empty() ? "scalar" : fmt::format("{}", fmt::join(dims, "×"));
}

}  // namespace page

namespace {

using page::escaped;

std::string bytes_text(int64_t bytes) { return scaled_number(static_cast<double>(bytes), "B"); }

std::string card(const std::string& value, const std::string& label) {
  return fmt::format("<div class=\"card\"><b>{}</b><span>{}</span></div>\n", escaped(value), escaped(label));
}

std::string cards(const Inspection& r) {
  std::string html = "<div class=\"cards\">\n";
  html += card(scaled_number(static_cast<double>(r.parameters), ""), fmt::format("parameters, {}", bytes_text(r.parameter_bytes)));
  html += card(fmt::format("{}", r.nodes), fmt::format("nodes, {} kinds of operators", r.ops.size()));
  if (r.cost) {
    std::vector<std::string> at;
    for (const auto& i : r.inputs) at.push_back(fmt::format("{}:{}", i.name, shape_string(i.measured)));
    html += card(scaled_number(static_cast<double>(r.cost->flops), "FLOP"), fmt::format("at {}", fmt::join(at, " ")));
    html += card(bytes_text(r.cost->planned_bytes), "planned memory beside the parameters");
  }
  if (r.file_bytes > 0) html += card(bytes_text(r.file_bytes), r.external_files.empty() ? "file" : "file, without external data");
  if (r.parameters > r.nonzero_parameters)
    html += card(fmt::format("{:.1f} %", 100.0 * static_cast<double>(r.parameters - r.nonzero_parameters) / static_cast<double>(r.parameters)), "of the parameters are zero");
  return html + "</div>\n";
}

std::string notes(const Inspection& r) {
  std::string html;
  const auto note = [&](const char* classes, const std::string& text) { html += fmt::format("<div class=\"{}\">{}</div>\n", classes, escaped(text)); };
  if (!r.unsupported.empty()) note("note bad", fmt::format("Not supported by ds: {}", fmt::join(r.unsupported, ", ")));
  else if (!r.cost) note("note", "Compute and memory are not known: " + r.why_no_cost);
  if (r.assumed_dims) note("note", "Dimensions that were not given are taken as 1.");
  if (!r.no_gradient.empty()) note("note", fmt::format("Without a gradient: {}", fmt::join(r.no_gradient, ", ")));
  return html;
}

// A table from rows of cells that are HTML already. A heading that begins with '>' is that of numbers.
std::string table(const std::string& title, const std::vector<std::string>& headings, const std::vector<std::vector<std::string>>& rows,
                  const std::vector<std::string>& row_attributes = {}) {
  if (rows.empty()) return {};
  const auto number = [&](size_t i) { return headings[i].starts_with(">"); };
  std::string html = fmt::format("<section><h2>{}</h2><div class=\"panel scroll\"><table>", escaped(title));
  if (std::any_of(headings.begin(), headings.end(), [](const std::string& h) { return !h.empty(); })) {
    html += "<thead><tr>";
    for (size_t i = 0; i < headings.size(); ++i)
      html += fmt::format("<th scope=\"col\"{}>{}</th>", number(i) ? " class=\"n\"" : "", escaped(headings[i].substr(number(i) ? 1 : 0)));
    html += "</tr></thead>";
  }
  html += "<tbody>\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    html += fmt::format("<tr{}>", row_attributes.empty() ? "" : row_attributes[r]);
    for (size_t i = 0; i < rows[r].size(); ++i) html += fmt::format("<td{}>{}</td>", number(i) ? " class=\"n\"" : "", rows[r][i]);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div></section>\n";
}

std::string mono(const std::string& text) { return fmt::format("<code>{}</code>", escaped(text)); }

std::string operators_table(const Inspection& r) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> attributes;
  // Colours by name: any node of that operator has the same.
  for (const auto& op : r.ops) {
    Node sample;
    sample.op = op.op.substr(op.op.rfind('.') + 1);
    std::string name = fmt::format("<span class=\"m\" style=\"background:var(--{})\"></span>{}", page::kind_of(sample), escaped(op.op));
    if (!op.supported) name += " <span class=\"tag bad\">not supported</span>";
    else if (!op.gradient) name += " <span class=\"tag\">no gradient</span>";
    std::vector<std::string> row{name, fmt::format("{}", op.nodes), scaled_number(static_cast<double>(op.parameters), "")};
    if (r.cost) {
      const double share = r.cost->flops > 0 ? 100.0 * static_cast<double>(op.flops) / static_cast<double>(r.cost->flops) : 0;
      row.push_back(scaled_number(static_cast<double>(op.flops), ""));
      row.push_back(fmt::format("<span class=\"share\" title=\"{0:.1f} %\"><i style=\"width:{0:.1f}%\"></i></span>", share));
    }
    rows.push_back(std::move(row));
    attributes.push_back(fmt::format(" class=\"go\" data-op=\"{}\"", escaped(op.op)));
  }
  std::vector<std::string> headings{"Operator", ">Nodes", ">Parameters"};
  if (r.cost) headings.insert(headings.end(), {">FLOPs", "Share"});
  return table("Operators", headings, rows, attributes);
}

std::string interface_table(const Inspection& r) {
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const char* kind, const Inspection::Interface& i) {
    const std::string dims = i.rank_known ? fmt::format("[{}]", fmt::join(i.dims, ",")) : "[...]";
    rows.push_back({kind, mono(i.name), mono(fmt::format("{}{}", dtype_name(i.dtype), dims))});
  };
  for (const auto& i : r.inputs) add("input", i);
  for (const auto& o : r.outputs) add("output", o);
  return table("Interface", {"", "Name", "Type"}, rows);
}

std::string tensors_table(const std::string& title, const std::vector<Inspection::LargeTensor>& list) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& t : list) rows.push_back({mono(t.name), mono(fmt::format("{}[{}]", dtype_name(t.dtype), fmt::join(t.shape, ","))), escaped(bytes_text(t.bytes))});
  return table(title, {"Name", "Type", ">Size"}, rows);
}

std::string file_table(const Inspection& r) {
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const std::string& key, const std::string& value) { rows.push_back({escaped(key), mono(value)}); };
  add("IR version", fmt::format("{}", r.ir_version));
  for (const auto& [domain, version] : r.opsets) add("Operator set " + (domain.empty() ? std::string("ai.onnx") : domain), fmt::format("{}", version));
  if (!r.producer.empty()) add("Producer", r.producer);
  for (const auto& f : r.external_files) add("External data " + f.location, fmt::format("{} tensors in {}", f.tensors, bytes_text(f.bytes)));
  for (const auto& t : r.parameter_types)
    add(fmt::format("Parameters in {}", dtype_name(t.dtype)), fmt::format("{} tensors, {} elements, {}", t.tensors, t.elements, bytes_text(t.bytes)));
  for (const auto& d : r.dynamic_dims) add(d.name.empty() ? "Dynamic dimension" : "Dynamic dimension " + d.name, fmt::format("{}", fmt::join(d.where, ", ")));
  for (const auto& [key, value] : r.metadata) add("Metadata " + key, value.size() > 500 ? value.substr(0, 500) + "..." : value);
  return table("File", {"", ""}, rows);
}

constexpr const char* kWorkspace = R"html(
<section id="graph"><h2>Graph</h2>
<div class="panel">
<div class="bar"><nav class="crumbs" id="crumbs" aria-label="Where in the graph"></nav>
<input type="search" id="search" placeholder="Find a node, Enter for the next" aria-label="Find a node"><span id="hits" class="hint" role="status"></span>
<button class="t" id="out" title="Smaller (Ctrl and wheel)">&#8722;</button><button class="t" id="in" title="Larger (Ctrl and wheel)">+</button>
<button class="t" id="one">1:1</button><button class="t" id="fit">Fit</button></div>
<div class="work"><div class="canvas" id="canvas">
<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerUnits="userSpaceOnUse" markerWidth="9" markerHeight="9" orient="auto"><path class="arrow" d="M0 0.5L8 4L0 7.5z"/></marker></defs></svg>
)html";

constexpr const char* kNodeTable = R"html(
<section><h2>Nodes</h2><div class="panel">
<div class="bar"><input type="search" id="filter" placeholder="Filter by operator or name" aria-label="Filter nodes"><span id="shown" role="status"></span>
<button class="more" id="all" hidden>Show all</button></div>
<div class="scroll"><table id="nodes"><thead></thead><tbody></tbody></table></div></div></section>
)html";

}  // namespace

std::string inspection_html(const Inspection& r) {
  const std::string file = r.path.substr(r.path.rfind('/') + 1);
  GraphViews views = split_into_views(*r.graph);
  views.views[0].title = file == "-" ? "model" : file;
  page::ValueIndex values;
  std::string drawings;
  for (size_t v = 0; v < views.views.size(); ++v) drawings += page::drawing(r, views, static_cast<int>(v), values);

  std::vector<std::string> opsets;
  for (const auto& [domain, version] : r.opsets) opsets.push_back(fmt::format("{}opset {}", domain.empty() ? "" : domain + " ", version));
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}</title>\n<style>{1}</style></head>\n<body><main>\n"
      "<h1>{0}</h1>\n<p class=\"sub\">ONNX IR {2}, {3}{4}</p>\n",
      escaped(views.views[0].title), page::kStyle, r.ir_version, escaped(fmt::format("{}", fmt::join(opsets, ", "))),
      r.producer.empty() ? "" : ", made by " + escaped(r.producer));
  html += cards(r) + notes(r) + kWorkspace + drawings;
  html += "</div><aside id=\"details\" aria-live=\"polite\"><h3>Details</h3><p class=\"hint\">Click a node for its attributes, shapes and cost; a "
          "dashed box opens the part of the graph inside. Drag or scroll to move, Ctrl and the wheel to zoom.</p></aside></div></div></section>\n";
  html += "<div class=\"grid\">\n" + operators_table(r) + "<div>" + interface_table(r) + file_table(r) + "</div>\n" +
          tensors_table("Largest parameters", r.largest_parameters) + tensors_table("Largest results", r.largest_results) + "</div>\n";
  html += kNodeTable;
  html += "<footer>Written by ds-bench inspect.</footer>\n</main>\n";
  html += fmt::format("<script type=\"application/json\" id=\"data\">{}</script>\n<script>{}</script>\n</body></html>\n",
                      page::page_data(r, views, values), page::kScript);
  return html;
}

}  // namespace ds
