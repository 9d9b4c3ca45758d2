#include "libds/tasks/inspect/views.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <unordered_map>

namespace ds {
namespace {

// Nodes of one part of a graph, as places in the order of execution, below a common scope.
struct Part {
  std::string title;
  std::vector<int> members;
  size_t depth = 0;  // components of the path that all members share
  bool leaf = false; // a node drawn as itself
};

std::vector<std::string> scope_path(const Graph& graph, const Node& n) {
  std::string name = n.name;
  if (name.empty() && n.output(0) != kNone) name = graph.value(n.outputs[0]).name;
  const char separator = name.find('/') != std::string::npos ? '/' : '.';
  std::vector<std::string> path;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find(separator, begin), name.size());
    if (end > begin) path.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return path;
}

class Splitter {
 public:
  Splitter(GraphViews& out, const ViewOptions& options) : out_(out), options_(options) {}

  // Makes the view of a graph and of everything inside; returns its index.
  int add_graph(const Graph& graph, const std::string& title, int parent) {
    const int view = static_cast<int>(out_.views.size());
    const size_t first = out_.nodes.size();
    const std::vector<NodeId> order = graph.order();
    for (NodeId id : order) out_.nodes.push_back({&graph, id, view, {}});
    std::vector<std::vector<std::string>> paths;
    for (NodeId id : order) paths.push_back(scope_path(graph, graph.node(id)));
    std::vector<int> all(order.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    graph_ = &graph;
    first_ = first;
    paths_ = std::move(paths);
    add_view({title, std::move(all), 0}, parent);
    for (size_t i = 0; i < order.size(); ++i) add_bodies(graph, order[i], first + i);
    return view;
  }

 private:
  void add_bodies(const Graph& graph, NodeId id, size_t listed) {
    const Node& n = graph.node(id);
    for (const auto& [name, body] : bodies_of(n)) {
      const int parent = out_.nodes[listed].view;
      const int view = add_graph(*body, fmt::format("{} of {}", name, n.name.empty() ? n.op : n.name), parent);
      out_.nodes[listed].bodies.push_back(view);
    }
  }

  // The parts that one level of scopes divides `part` into.
  std::vector<Part> divide(const Part& part) const {
    size_t depth = part.depth;
    std::vector<Part> parts;
    for (;; ++depth) {
      parts.clear();
      std::map<std::string, size_t> known;
      bool deeper = false;
      for (int i : part.members) {
        const std::vector<std::string>& path = paths_[static_cast<size_t>(i)];
        if (path.size() <= depth + 1) {  // its own name is not a scope
          parts.push_back({"", {i}, depth, true});
          continue;
        }
        deeper = true;
        const auto [it, fresh] = known.emplace(path[depth], parts.size());
        if (fresh) parts.push_back({path[depth], {}, depth + 1});
        parts[it->second].members.push_back(i);
      }
      if (parts.size() > 1 || !deeper) break;
    }
    for (Part& p : parts)
      if (p.members.size() == 1) p.leaf = true;
    if (parts.size() > options_.largest) return in_runs(part);
    return parts;
  }

  // Names do not help: as many runs in order of execution as a view takes, or fewer.
  std::vector<Part> in_runs(const Part& part) const {
    constexpr size_t kRun = 100;
    const size_t runs = std::min(options_.filled, (part.members.size() + kRun - 1) / kRun);
    std::vector<Part> parts;
    for (size_t r = 0; r < runs; ++r) {
      const size_t begin = part.members.size() * r / runs, end = part.members.size() * (r + 1) / runs;
      parts.push_back({fmt::format("nodes {} to {}", part.members[begin] + 1, part.members[end - 1] + 1),
                       {part.members.begin() + static_cast<ptrdiff_t>(begin), part.members.begin() + static_cast<ptrdiff_t>(end)}, part.depth});
    }
    return parts;
  }

  // Divides level by level as long as the view takes it: all groups of the upper level at once, so that like stays
  // beside like, or the one that holds most of the nodes.
  std::vector<Part> parts_of(const Part& whole) const {
    std::vector<Part> parts;
    if (whole.members.size() <= options_.largest) {
      for (int i : whole.members) parts.push_back({"", {i}, 0, true});
      return parts;
    }
    parts = divide(whole);
    for (;;) {
      size_t upper = SIZE_MAX, largest = 0;
      for (const Part& p : parts) {
        if (p.leaf) continue;
        upper = std::min(upper, p.depth);
        largest = std::max(largest, p.members.size());
      }
      if (largest == 0) break;
      std::vector<Part> next = opened(parts, [&](const Part& p) { return p.depth == upper; });
      if (next.size() > options_.filled || next.size() == parts.size())
        next = opened(parts, [&](const Part& p) { return 2 * p.members.size() > whole.members.size(); });
      if (next.size() > options_.filled || next.size() == parts.size()) break;
      parts = std::move(next);
    }
    std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.members[0] < b.members[0]; });
    return parts;
  }

  // `parts` with the chosen groups replaced by what is in them.
  template <typename Choose>
  std::vector<Part> opened(const std::vector<Part>& parts, Choose choose) const {
    std::vector<Part> next;
    for (const Part& p : parts) {
      if (p.leaf || !choose(p)) {
        next.push_back(p);
        continue;
      }
      for (Part& inside : divide(p)) {
        if (!inside.leaf) inside.title = p.title + "/" + inside.title;
        next.push_back(std::move(inside));
      }
    }
    return next;
  }

  void add_view(const Part& whole, int parent) {
    const int index = static_cast<int>(out_.views.size());
    out_.views.push_back({whole.title, parent, graph_, {}, {}});
    const std::vector<Part> parts = parts_of(whole);
    std::unordered_map<int, int> box_of;  // place in the order -> box
    std::vector<ViewBox> boxes;
    for (const Part& part : parts) {
      ViewBox box;
      if (part.leaf) {
        box.node = static_cast<int>(first_) + part.members[0];
        out_.nodes[static_cast<size_t>(box.node)].view = index;
      } else {
        box.kind = ViewBox::Kind::kGroup;
        box.title = part.title;
        box.nodes = static_cast<int>(part.members.size());
      }
      for (int i : part.members) box_of[i] = static_cast<int>(boxes.size());
      boxes.push_back(std::move(box));
    }
    connect(whole, boxes, box_of, index);
    const size_t inputs = static_cast<size_t>(std::count_if(out_.views[static_cast<size_t>(index)].boxes.begin(), out_.views[static_cast<size_t>(index)].boxes.end(),
                                                            [](const ViewBox& b) { return b.kind == ViewBox::Kind::kInput; }));
    for (size_t p = 0; p < parts.size(); ++p) {
      if (parts[p].leaf) continue;
      out_.views[static_cast<size_t>(index)].boxes[inputs + p].view = static_cast<int>(out_.views.size());
      add_view(parts[p], index);
    }
  }

  // Draws the values between boxes, and those that come in from or go out to the rest.
  void connect(const Part& whole, const std::vector<ViewBox>& inside, const std::unordered_map<int, int>& box_of, int index) {
    const Graph& g = *graph_;
    std::unordered_map<NodeId, int> place;  // of the members
    for (int i : whole.members) place.emplace(out_.nodes[first_ + static_cast<size_t>(i)].id, i);
    std::vector<ValueId> inputs, outputs;
    std::unordered_map<ValueId, int> input_of;
    struct Use {
      ValueId value;
      int from, to;  // boxes of `inside`; from < 0: input -1 - from
    };
    std::vector<Use> uses;
    std::set<std::pair<ValueId, int>> seen;
    for (int i : whole.members) {
      const Node& n = g.node(out_.nodes[first_ + static_cast<size_t>(i)].id);
      const int box = box_of.at(i);
      for (ValueId in : n.inputs) {
        if (in == kNone || g.value(in).is_constant() || !seen.emplace(in, box).second) continue;
        const NodeId producer = g.value(in).producer;
        const auto made = producer == kNone ? place.end() : place.find(producer);
        if (made != place.end()) {
          if (box_of.at(made->second) != box) uses.push_back({in, box_of.at(made->second), box});
          continue;
        }
        const auto [it, fresh] = input_of.emplace(in, static_cast<int>(inputs.size()));
        if (fresh) inputs.push_back(in);
        uses.push_back({in, -1 - it->second, box});
      }
      for (ValueId out : n.outputs) {
        if (out == kNone) continue;
        const auto& users = g.value(out).users;
        const bool outside = g.is_output(out) || std::any_of(users.begin(), users.end(), [&](NodeId user) { return !place.count(user); });
        if (outside) outputs.push_back(out);
      }
    }
    GraphView& view = out_.views[static_cast<size_t>(index)];
    const bool root = whole.members.size() == paths_.size();
    if (root)  // inputs nobody reads are part of the interface as well
      for (ValueId in : g.inputs())
        if (!input_of.count(in)) inputs.push_back(in);
    const int shift = static_cast<int>(inputs.size());
    for (ValueId in : inputs) view.boxes.push_back({ViewBox::Kind::kInput, -1, -1, in, g.value(in).name, 0});
    view.boxes.insert(view.boxes.end(), inside.begin(), inside.end());
    for (const Use& u : uses) view.edges.push_back({u.from < 0 ? -1 - u.from : u.from + shift, u.to + shift, u.value});
    for (ValueId out : outputs) {
      const int box = static_cast<int>(view.boxes.size());
      view.boxes.push_back({ViewBox::Kind::kOutput, -1, -1, out, g.value(out).name, 0});
      view.edges.push_back({box_of.at(place.at(g.value(out).producer)) + shift, box, out});
    }
  }

  GraphViews& out_;
  const ViewOptions options_;
  // Of the graph being split:
  const Graph* graph_ = nullptr;
  size_t first_ = 0;  // its first entry in out_.nodes
  std::vector<std::vector<std::string>> paths_;
};

}  // namespace

GraphViews split_into_views(const Graph& graph, const ViewOptions& options) {
  GraphViews out;
  Splitter(out, options).add_graph(graph, graph.name, -1);
  return out;
}

}  // namespace ds
