#include "libds/tasks/inspect/layout.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ds {
namespace {

// What lies in a layer: a box, or the place where a long line passes.
struct Item {
  int layer = 0;
  double width = 0, height = 0;
  double x = 0;
  bool bend = false;
  std::vector<int> above, below;  // items of the neighbouring layers it is joined with
};

class Layered {
 public:
  Layered(std::span<const LayoutBox> boxes, std::span<const LayoutEdge> edges, const LayoutOptions& options)
      : boxes_(boxes), edges_(edges), options_(options) {}

  Layout run() {
    assign_layers();
    make_items();
    order_layers();
    place_across();
    straighten();
    return finish();
  }

 private:
  // Every edge goes down between layers, whichever way it is drawn.
  int upper(const LayoutEdge& e) const { return std::min(e.from, e.to); }
  int lower(const LayoutEdge& e) const { return std::max(e.from, e.to); }

  void assign_layers() {
    layer_.assign(boxes_.size(), 0);
    std::vector<std::vector<int>> in(boxes_.size()), out(boxes_.size());
    for (const LayoutEdge& e : edges_) {
      in[static_cast<size_t>(lower(e))].push_back(upper(e));
      out[static_cast<size_t>(upper(e))].push_back(lower(e));
    }
    for (size_t v = 0; v < boxes_.size(); ++v)
      for (int u : in[v]) layer_[v] = std::max(layer_[v], layer_[static_cast<size_t>(u)] + 1);
    // Boxes that feed more than they are fed come down to where they are needed: shorter lines.
    for (size_t v = boxes_.size(); v-- > 0;) {
      if (out[v].empty() || in[v].size() >= out[v].size()) continue;
      int nearest = layer_[static_cast<size_t>(out[v][0])];
      for (int w : out[v]) nearest = std::min(nearest, layer_[static_cast<size_t>(w)]);
      layer_[v] = nearest - 1;
    }
  }

  void join(int a, int b) {
    items_[static_cast<size_t>(a)].below.push_back(b);
    items_[static_cast<size_t>(b)].above.push_back(a);
  }

  void make_items() {
    for (size_t v = 0; v < boxes_.size(); ++v) {
      Item item;
      item.layer = layer_[v];
      item.width = boxes_[v].width;
      item.height = boxes_[v].height;
      items_.push_back(std::move(item));
    }
    for (const LayoutEdge& e : edges_) {
      std::vector<int> chain{upper(e)};
      const int first = layer_[static_cast<size_t>(upper(e))], last = layer_[static_cast<size_t>(lower(e))];
      if (last - first > e.longest) {
        chains_.emplace_back();
        continue;
      }
      for (int l = first + 1; l < last; ++l) {
        Item bend;
        bend.layer = l;
        bend.bend = true;
        items_.push_back(std::move(bend));
        chain.push_back(static_cast<int>(items_.size()) - 1);
      }
      chain.push_back(lower(e));
      for (size_t i = 1; i < chain.size(); ++i) join(chain[i - 1], chain[i]);
      chains_.push_back(std::move(chain));
    }
    int count = 0;
    for (const Item& item : items_) count = std::max(count, item.layer + 1);
    layers_.resize(static_cast<size_t>(count));
    for (size_t i = 0; i < items_.size(); ++i) layers_[static_cast<size_t>(items_[i].layer)].push_back(static_cast<int>(i));
  }

  std::vector<int> places() const {
    std::vector<int> place(items_.size());
    for (const auto& layer : layers_)
      for (size_t i = 0; i < layer.size(); ++i) place[static_cast<size_t>(layer[i])] = static_cast<int>(i);
    return place;
  }

  // Pairs of lines that cross between neighbouring layers: inversions, counted with a binary indexed tree.
  int64_t crossings() const {
    const std::vector<int> place = places();
    int64_t total = 0;
    for (size_t l = 1; l < layers_.size(); ++l) {
      std::vector<int64_t> tree(layers_[l].size() + 1, 0);
      int64_t seen = 0;
      for (int u : layers_[l - 1]) {
        std::vector<int> ends;
        for (int w : items_[static_cast<size_t>(u)].below) ends.push_back(place[static_cast<size_t>(w)]);
        for (int end : ends) {
          int64_t not_right = 0;
          for (int i = end + 1; i > 0; i -= i & -i) not_right += tree[static_cast<size_t>(i)];
          total += seen - not_right;
        }
        for (int end : ends) {
          for (int i = end + 1; i < static_cast<int>(tree.size()); i += i & -i) ++tree[static_cast<size_t>(i)];
          ++seen;
        }
      }
    }
    return total;
  }

  void sort_layer(size_t l, bool by_above, std::vector<int>& place) {
    std::vector<double> key(layers_[l].size());
    for (size_t i = 0; i < layers_[l].size(); ++i) {
      const Item& item = items_[static_cast<size_t>(layers_[l][i])];
      const std::vector<int>& near = by_above ? item.above : item.below;
      double sum = 0;
      for (int n : near) sum += place[static_cast<size_t>(n)];
      key[i] = near.empty() ? static_cast<double>(i) : sum / static_cast<double>(near.size());
    }
    std::vector<size_t> index(layers_[l].size());
    std::iota(index.begin(), index.end(), size_t{0});
    std::stable_sort(index.begin(), index.end(), [&](size_t a, size_t b) { return key[a] < key[b]; });
    std::vector<int> sorted;
    for (size_t i : index) sorted.push_back(layers_[l][i]);
    layers_[l] = std::move(sorted);
    for (size_t i = 0; i < layers_[l].size(); ++i) place[static_cast<size_t>(layers_[l][i])] = static_cast<int>(i);
  }

  void order_layers() {
    constexpr int kSweeps = 12;
    std::vector<std::vector<int>> best = layers_;
    int64_t fewest = crossings();
    std::vector<int> place = places();
    for (int sweep = 0; sweep < kSweeps && fewest > 0; ++sweep) {
      if (sweep % 2 == 0)
        for (size_t l = 1; l < layers_.size(); ++l) sort_layer(l, true, place);
      else
        for (size_t l = layers_.size() - 1; l-- > 0;) sort_layer(l, false, place);
      const int64_t now = crossings();
      if (now >= fewest) continue;
      fewest = now;
      best = layers_;
    }
    layers_ = std::move(best);
  }

  // Straight long lines count more than boxes in line.
  double pull(const Item& a, const Item& b) const { return a.bend && b.bend ? 8 : a.bend || b.bend ? 2 : 1; }

  double gap(const Item& a, const Item& b) const {
    const double space = a.bend && b.bend ? options_.gap_x / 2 : options_.gap_x;
    return (a.width + b.width) / 2 + space;
  }

  void place_layer(const std::vector<int>& layer, bool above, bool below) {
    std::vector<double> wanted, weight, gaps;
    for (size_t i = 0; i < layer.size(); ++i) {
      const Item& item = items_[static_cast<size_t>(layer[i])];
      double sum = 0, total = 0;
      const auto add = [&](const std::vector<int>& near) {
        for (int n : near) {
          const Item& other = items_[static_cast<size_t>(n)];
          sum += pull(item, other) * other.x;
          total += pull(item, other);
        }
      };
      if (above) add(item.above);
      if (below) add(item.below);
      wanted.push_back(total > 0 ? sum / total : item.x);
      weight.push_back(total > 0 ? total : 0.05);
      gaps.push_back(i == 0 ? 0 : gap(items_[static_cast<size_t>(layer[i - 1])], item));
    }
    const std::vector<double> x = spread(wanted, weight, gaps);
    for (size_t i = 0; i < layer.size(); ++i) items_[static_cast<size_t>(layer[i])].x = x[i];
  }

  void place_across() {
    for (const auto& layer : layers_) {
      double x = 0;
      for (size_t i = 0; i < layer.size(); ++i) {
        Item& item = items_[static_cast<size_t>(layer[i])];
        if (i > 0) x += gap(items_[static_cast<size_t>(layer[i - 1])], item);
        item.x = x;
      }
      for (int i : layer) items_[static_cast<size_t>(i)].x -= x / 2;
    }
    constexpr int kRounds = 10;
    for (int round = 0; round < kRounds; ++round) {
      const bool both = round >= kRounds - 4;
      for (size_t l = 0; l < layers_.size(); ++l) place_layer(layers_[l], true, both);
      for (size_t l = layers_.size(); l-- > 0;) place_layer(layers_[l], both, true);
    }
  }

  // Long lines are made straight over as many layers as what lies beside them allows.
  void straighten() {
    const std::vector<int> place = places();
    const auto room = [&](int i) {
      const Item& item = items_[static_cast<size_t>(i)];
      const std::vector<int>& layer = layers_[static_cast<size_t>(item.layer)];
      const size_t at = static_cast<size_t>(place[static_cast<size_t>(i)]);
      double low = -HUGE_VAL, high = HUGE_VAL;
      if (at > 0) low = items_[static_cast<size_t>(layer[at - 1])].x + gap(items_[static_cast<size_t>(layer[at - 1])], item);
      if (at + 1 < layer.size()) high = items_[static_cast<size_t>(layer[at + 1])].x - gap(item, items_[static_cast<size_t>(layer[at + 1])]);
      return std::make_pair(low, high);
    };
    for (const std::vector<int>& chain : chains_) {
      for (size_t begin = 1; begin + 1 < chain.size();) {
        auto [low, high] = room(chain[begin]);
        double sum = 0;
        size_t end = begin;
        for (; end + 1 < chain.size(); ++end) {
          const auto [l, h] = room(chain[end]);
          if (std::max(low, l) > std::min(high, h)) break;
          low = std::max(low, l);
          high = std::min(high, h);
          sum += items_[static_cast<size_t>(chain[end])].x;
        }
        if (end == begin) ++end;  // no room at all: it stays
        else
          for (size_t i = begin; i < end; ++i) items_[static_cast<size_t>(chain[i])].x = std::clamp(sum / static_cast<double>(end - begin), low, high);
        begin = end;
      }
    }
  }

  Layout finish() {
    Layout out;
    out.layer = layer_;
    double left = 0, right = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      const Item& item = items_[i];
      left = i == 0 ? item.x - item.width / 2 : std::min(left, item.x - item.width / 2);
      right = i == 0 ? item.x + item.width / 2 : std::max(right, item.x + item.width / 2);
    }
    for (Item& item : items_) item.x -= left;
    out.width = right - left;
    std::vector<double> top, bottom;
    double y = 0;
    for (size_t l = 0; l < layers_.size(); ++l) {
      double height = 0, farthest = 0;
      for (int i : layers_[l]) {
        const Item& item = items_[static_cast<size_t>(i)];
        height = std::max(height, item.height);
        for (int n : item.above) farthest = std::max(farthest, std::abs(items_[static_cast<size_t>(n)].x - item.x));
      }
      // Lines that go far to the side need room to do so.
      if (l > 0) y += options_.gap_y + std::min(farthest / 10, 2 * options_.gap_y);
      top.push_back(y);
      y += height;
      bottom.push_back(y);
    }
    out.height = y;
    for (size_t v = 0; v < boxes_.size(); ++v) {
      const auto l = static_cast<size_t>(layer_[v]);
      out.boxes.push_back({items_[v].x, (top[l] + bottom[l]) / 2});
    }
    find_ports();
    for (size_t e = 0; e < edges_.size(); ++e) {
      std::vector<LayoutPoint> line;
      const std::vector<int>& chain = chains_[e];
      if (!chain.empty()) {
        const size_t a = static_cast<size_t>(chain.front()), b = static_cast<size_t>(chain.back());
        line.push_back({port_below_[e], out.boxes[a].y + boxes_[a].height / 2});
        for (size_t i = 1; i + 1 < chain.size(); ++i) {
          const Item& bend = items_[static_cast<size_t>(chain[i])];
          line.push_back({bend.x, top[static_cast<size_t>(bend.layer)]});
          line.push_back({bend.x, bottom[static_cast<size_t>(bend.layer)]});
        }
        line.push_back({port_above_[e], out.boxes[b].y - boxes_[b].height / 2});
        if (edges_[e].from > edges_[e].to) std::reverse(line.begin(), line.end());
      }
      out.edges.push_back(std::move(line));
    }
    return out;
  }

  // Lines of one side of a box leave it side by side, in the order of where they go.
  void find_ports() {
    port_below_.assign(edges_.size(), 0);
    port_above_.assign(edges_.size(), 0);
    std::vector<std::vector<size_t>> leaving(boxes_.size()), arriving(boxes_.size());
    for (size_t e = 0; e < edges_.size(); ++e) {
      if (chains_[e].empty()) continue;
      leaving[static_cast<size_t>(chains_[e].front())].push_back(e);
      arriving[static_cast<size_t>(chains_[e].back())].push_back(e);
    }
    const auto next_x = [&](size_t e, bool down) {
      const std::vector<int>& chain = chains_[e];
      return items_[static_cast<size_t>(down ? chain[1] : chain[chain.size() - 2])].x;
    };
    for (size_t v = 0; v < boxes_.size(); ++v) {
      for (bool down : {true, false}) {
        std::vector<size_t>& list = down ? leaving[v] : arriving[v];
        std::stable_sort(list.begin(), list.end(), [&](size_t a, size_t b) { return next_x(a, down) < next_x(b, down); });
        const double room = std::max(0.0, boxes_[v].width - 24);
        const double step = list.size() > 1 ? std::min(22.0, room / static_cast<double>(list.size() - 1)) : 0;
        for (size_t i = 0; i < list.size(); ++i) {
          const double x = items_[v].x + step * (static_cast<double>(i) - static_cast<double>(list.size() - 1) / 2);
          (down ? port_below_ : port_above_)[list[i]] = x;
        }
      }
    }
  }

  std::span<const LayoutBox> boxes_;
  std::span<const LayoutEdge> edges_;
  const LayoutOptions options_;
  std::vector<int> layer_;                 // by box
  std::vector<Item> items_;                // the boxes, then the bends
  std::vector<std::vector<int>> layers_;   // items, left to right
  std::vector<std::vector<int>> chains_;   // by edge: items from its upper to its lower box; empty when too long
  std::vector<double> port_below_, port_above_;  // by edge
};

}  // namespace

std::vector<double> spread(std::span<const double> wanted, std::span<const double> weight, std::span<const double> gap) {
  // With the gaps taken off this is a regression by an ascending sequence: pool adjacent violators.
  struct Block {
    double sum = 0, weight = 0;
    size_t count = 0;
    double mean() const { return sum / weight; }
  };
  std::vector<Block> blocks;
  std::vector<double> offset(wanted.size(), 0);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (i > 0) offset[i] = offset[i - 1] + gap[i];
    blocks.push_back({weight[i] * (wanted[i] - offset[i]), weight[i], 1});
    while (blocks.size() > 1 && blocks[blocks.size() - 2].mean() > blocks.back().mean()) {
      const Block last = blocks.back();
      blocks.pop_back();
      blocks.back().sum += last.sum;
      blocks.back().weight += last.weight;
      blocks.back().count += last.count;
    }
  }
  std::vector<double> x;
  for (const Block& b : blocks)
    for (size_t i = 0; i < b.count; ++i) x.push_back(b.mean() + offset[x.size()]);
  return x;
}

Layout layered_layout(std::span<const LayoutBox> boxes, std::span<const LayoutEdge> edges, const LayoutOptions& options) {
  return Layered(boxes, edges, options).run();
}

}  // namespace ds
