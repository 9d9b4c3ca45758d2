// A view of a graph as SVG. Colours and fonts are the page's style.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "libds/tasks/inspect/html.h"
#include "libds/tasks/inspect/layout.h"

namespace ds::page {
namespace {

constexpr double kMargin = 24;
constexpr double kCharWidth = 7.9, kSmallCharWidth = 6.6;  // of the fonts in the style, on average
// A value that goes to this many places (an attention mask) is led no farther than this many layers.
constexpr int kMany = 5, kFarForMany = 3;
constexpr size_t kMostTitle = 30, kMostSubtitle = 34;

// At most `most` characters (not bytes), the end left out.
std::string shortened(std::string_view text, size_t most) {
  size_t characters = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) continue;
    if (++characters == most) return std::string(text.substr(0, i)) + "…";
  }
  return std::string(text);
}

size_t length_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// Numbers with at most one decimal: half a pixel is exact enough.
std::string px(double x) {
  std::string text = fmt::format("{:.1f}", x);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

struct Label {
  std::string title, subtitle;
};

Label label_of(const Inspection& inspection, const GraphViews& views, const GraphView& view, const ViewBox& box) {
  if (box.kind == ViewBox::Kind::kGroup) return {shortened(box.title, kMostTitle), fmt::format("{} nodes", box.nodes)};
  if (box.kind != ViewBox::Kind::kNode) return {shortened(box.title, kMostTitle), shape_text(inspection, *view.graph, box.value)};
  const ListedNode& listed = views.nodes[static_cast<size_t>(box.node)];
  const Node& n = listed.graph->node(listed.id);
  Label label{shortened(n.op, kMostTitle), ""};
  for (ValueId out : n.outputs) {
    if (out == kNone) continue;
    label.subtitle = shape_text(inspection, *listed.graph, out);
    break;
  }
  if (!listed.bodies.empty()) label.subtitle = fmt::format("{} bod{}", listed.bodies.size(), listed.bodies.size() == 1 ? "y" : "ies");
  return label;
}

std::string box_svg(const GraphViews& views, const ViewBox& box, const Label& label, LayoutPoint at, LayoutBox size, size_t index, int value) {
  std::string classes = "b", data, strip;
  std::string aria = label.title;
  switch (box.kind) {
    case ViewBox::Kind::kGroup:
      classes += " g";
      data = fmt::format(" data-g=\"{}\"", box.view);
      break;
    case ViewBox::Kind::kInput:
    case ViewBox::Kind::kOutput:
      classes += " t";
      data = fmt::format(" data-v=\"{}\"", value);
      break;
    case ViewBox::Kind::kNode: {
      const ListedNode& listed = views.nodes[static_cast<size_t>(box.node)];
      const Node& n = listed.graph->node(listed.id);
      if (n.def == nullptr) classes += " x";
      data = fmt::format(" data-n=\"{}\"", box.node);
      strip = fmt::format("<rect class=\"k-{}\" x=\"{}\" y=\"{}\" width=\"4\" height=\"{}\" rx=\"2\"/>", kind_of(n), px(-size.width / 2 + 5),
                          px(-size.height / 2 + 6), px(size.height - 12));
      aria += " " + n.name;
      break;
    }
  }
  const double radius = box.kind == ViewBox::Kind::kInput || box.kind == ViewBox::Kind::kOutput ? size.height / 2 : 7;
  std::string text = fmt::format(
      "<g class=\"{}\" data-i=\"{}\"{} tabindex=\"0\" role=\"button\" aria-label=\"{}\" transform=\"translate({} {})\">"
      "<rect class=\"f\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{}\"/>",
      classes, index, data, escaped(aria), px(at.x), px(at.y), px(-size.width / 2), px(-size.height / 2), px(size.width), px(size.height), px(radius));
  text += strip;
  const char* x = strip.empty() ? "0" : "4";  // beside the strip
  text += fmt::format("<text class=\"o\" x=\"{}\" y=\"{}\">{}</text>", x, label.subtitle.empty() ? "4.5" : "-2", escaped(label.title));
  if (!label.subtitle.empty()) text += fmt::format("<text class=\"s\" x=\"{}\" y=\"13\">{}</text>", x, escaped(shortened(label.subtitle, kMostSubtitle)));
  return text + "</g>\n";
}

// A smooth line: straight along layers, curves that begin and end vertically in between.
std::string path_of(const std::vector<LayoutPoint>& points) {
  std::string d = fmt::format("M{} {}", px(points[0].x), px(points[0].y));
  for (size_t i = 1; i < points.size(); ++i) {
    const LayoutPoint a = points[i - 1], b = points[i];
    if (i % 2 == 0 || std::abs(a.x - b.x) < 0.5) {
      d += fmt::format("L{} {}", px(b.x), px(b.y));
      continue;
    }
    const double half = (b.y - a.y) / 2;
    d += fmt::format("C{} {} {} {} {} {}", px(a.x), px(a.y + half), px(b.x), px(b.y - half), px(b.x), px(b.y));
  }
  return d;
}

}  // namespace

std::string drawing(const Inspection& inspection, const GraphViews& views, int index, ValueIndex& values) {
  const GraphView& view = views.views[static_cast<size_t>(index)];
  std::vector<Label> labels;
  std::vector<LayoutBox> boxes;
  for (const ViewBox& box : view.boxes) {
    Label label = label_of(inspection, views, view, box);
    const double subtitle = kSmallCharWidth * static_cast<double>(std::min(length_of(label.subtitle), kMostSubtitle));
    const double width = std::max({72.0, kCharWidth * static_cast<double>(length_of(label.title)) + 32, subtitle + 32});
    boxes.push_back({std::ceil(width), label.subtitle.empty() ? 30.0 : 42.0});
    labels.push_back(std::move(label));
  }
  std::vector<LayoutEdge> edges;
  std::map<ValueId, int> readers;
  for (const ViewEdge& e : view.edges) ++readers[e.value];
  for (const ViewEdge& e : view.edges) {
    LayoutEdge edge{e.from, e.to};
    if (readers[e.value] >= kMany) edge.longest = kFarForMany;
    edges.push_back(edge);
  }
  const Layout layout = layered_layout(boxes, edges);

  const double width = layout.width + 2 * kMargin, height = layout.height + 2 * kMargin;
  std::string svg = fmt::format(
      "<svg class=\"view\" id=\"view{0}\" data-w=\"{1}\" data-h=\"{2}\" width=\"{1}\" height=\"{2}\" viewBox=\"{3} {3} {1} {2}\"{4}>\n", index,
      px(width), px(height), px(-kMargin), index == 0 ? "" : " hidden");
  std::vector<int> long_edges_of(view.boxes.size(), 0);
  for (size_t e = 0; e < view.edges.size(); ++e) {
    const ViewEdge& edge = view.edges[e];
    const std::vector<LayoutPoint>& line = layout.edges[e];
    const int value = values.of(view.graph, edge.value);
    const auto attributes = fmt::format("data-v=\"{}\" data-a=\"{}\" data-b=\"{}\"", value, edge.from, edge.to);
    if (!line.empty()) {
      svg += fmt::format("<path class=\"e\" {} marker-end=\"url(#arrow)\" d=\"{}\"/>\n", attributes, path_of(line));
      continue;
    }
    // Too long to follow by eye: a stub at its end that names where it comes from.
    const auto to = static_cast<size_t>(edge.to);
    const double x = layout.boxes[to].x + boxes[to].width / 2, y = layout.boxes[to].y - 8 + 13 * long_edges_of[to]++;
    svg += fmt::format("<path class=\"e\" {} d=\"M{} {}h12\"/><text class=\"stub\" style=\"text-anchor:start\" x=\"{}\" y=\"{}\">{}</text>\n", attributes,
                       px(x), px(y), px(x + 15), px(y + 3.5), escaped(shortened(view.graph->value(edge.value).name, 18)));
  }
  for (size_t b = 0; b < view.boxes.size(); ++b) {
    const int value = view.boxes[b].value == kNone ? -1 : values.of(view.graph, view.boxes[b].value);
    svg += box_svg(views, view.boxes[b], labels[b], layout.boxes[b], boxes[b], b, value);
  }
  return svg + "</svg>\n";
}

}  // namespace ds::page
