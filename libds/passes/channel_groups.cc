#include "libds/passes/channel_groups.h"

#include <fnmatch.h>

#include <algorithm>

#include "libds/passes/channel_rules.h"
#include "libds/passes/pass.h"

namespace ds {
namespace {

// Nodes whose second operand holds weights that pruning is about.
bool has_weights(const Node& n) { return n.is("Conv") || n.is("ConvTranspose") || n.is("Gemm") || n.is("MatMul"); }

void pin_excluded(const Graph& graph, const std::vector<std::string>& exclude, ChannelTracer& tracer) {
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    for (ValueId in : n.inputs) {
      if (in == kNone || !graph.value(in).is_constant()) continue;
      if (!matches_any(exclude, graph.value(in).name) && !(has_weights(n) && matches_any(exclude, n.name))) continue;
      tracer.freeze(in, "excluded");
    }
  }
}

// Number of positions of each channel along an axis.
std::map<int32_t, int64_t> occurrences(const ChannelAxis& axis) {
  std::map<int32_t, int64_t> count;
  for (int32_t c : axis.channels) ++count[c];
  return count;
}

std::vector<ChannelClass> make_classes(const Graph& graph, const ChannelGroups& groups) {
  // The axes each channel occurs in, in order: channels with equal lists are one class.
  std::vector<std::vector<size_t>> where(groups.pinned.size());
  std::vector<int64_t> width(groups.pinned.size(), 0);
  for (size_t i = 0; i < groups.axes.size(); ++i) {
    const bool activation = !graph.value(groups.axes[i].value).is_constant();
    for (const auto& [channel, count] : occurrences(groups.axes[i])) {
      const auto c = static_cast<size_t>(channel);
      where[c].push_back(i);
      if (activation) width[c] = width[c] == 0 ? count : std::min(width[c], count);
    }
  }
  std::map<std::vector<size_t>, size_t> known;
  std::vector<ChannelClass> classes;
  for (size_t c = 0; c < where.size(); ++c) {
    if (!groups.pinned[c].empty()) continue;
    const auto [it, fresh] = known.emplace(where[c], classes.size());
    if (fresh) {
      ChannelClass made;
      made.width = std::max<int64_t>(1, width[c]);
      for (size_t axis : where[c]) {
        const Value& v = graph.value(groups.axes[axis].value);
        if (made.name.empty() && v.is_constant()) made.name = v.name;
      }
      classes.push_back(std::move(made));
    }
    classes[it->second].channels.push_back(static_cast<int32_t>(c));
  }
  return classes;
}

}  // namespace

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& p) { return fnmatch(p.c_str(), name.c_str(), 0) == 0; });
}

const ChannelAxis* ChannelGroups::find(ValueId value, size_t axis) const {
  const auto it = index.find({value, axis});
  return it == index.end() ? nullptr : &axes[it->second];
}

ChannelGroups find_channel_groups(const Graph& graph, const Graph& shapes, const std::vector<std::string>& exclude) {
  ChannelTracer tracer(graph, shapes);
  for (const State& s : graph.states()) tracer.freeze(s.value, "is a state");
  pin_excluded(graph, exclude, tracer);
  for (NodeId id : graph.order()) trace_node(tracer, graph.node(id), id);
  for (ValueId out : graph.outputs()) tracer.freeze(out, "is an output of the model");

  // Roots become dense channel numbers in order of first appearance.
  ChannelGroups groups;
  std::vector<int32_t> dense(tracer.count(), -1);
  for (const auto& [key, numbers] : tracer.all()) {
    ChannelAxis axis{key.first, key.second, {}};
    axis.channels.reserve(numbers.size());
    for (int32_t number : numbers) {
      const int32_t root = tracer.root(number);
      int32_t& channel = dense[static_cast<size_t>(root)];
      if (channel < 0) {
        channel = static_cast<int32_t>(groups.pinned.size());
        groups.pinned.push_back(tracer.reason(root));
      }
      axis.channels.push_back(channel);
    }
    groups.index.emplace(key, groups.axes.size());
    groups.axes.push_back(std::move(axis));
  }
  groups.classes = make_classes(graph, groups);
  return groups;
}

}  // namespace ds
