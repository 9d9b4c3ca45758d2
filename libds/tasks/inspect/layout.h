// Drawing a directed graph in layers, top to bottom.
//
// The method of Sugiyama, Tagawa and Toda ("Methods for visual understanding of hierarchical system structures", 1981)
// in its usual steps: boxes are assigned to layers by longest paths, lines that span several layers get a bend in each,
// the order within layers is improved by barycentres, and positions are the least squares of the distances to the
// neighbours that keep the order and the gaps. Pure geometry, in the unit of the sizes given; no randomness.
#pragma once

#include <span>
#include <vector>

namespace ds {

struct LayoutBox {
  double width = 0, height = 0;
};

// Boxes are numbered so that most edges go from a lower number to a higher one (an order of execution); those that do
// not are drawn upwards. An edge from a box to itself is not allowed.
struct LayoutEdge {
  int from = 0, to = 0;
  int longest = 40;  // layers that its line may span; a longer one is not drawn
};

struct LayoutPoint {
  double x = 0, y = 0;
};

struct LayoutOptions {
  double gap_x = 26, gap_y = 34;  // between boxes of a layer, between layers
};

struct Layout {
  std::vector<LayoutPoint> boxes;               // their centres
  // By edge, the points that its line goes through, alternately across the space between two layers and along a
  // layer: end of one box, {top, bottom} at each layer in between, end of the other box. Empty: too long to be drawn.
  std::vector<std::vector<LayoutPoint>> edges;
  std::vector<int> layer;                       // by box, from 0 at the top
  double width = 0, height = 0;                 // all of it lies in [0, width] x [0, height]
};

Layout layered_layout(std::span<const LayoutBox> boxes, std::span<const LayoutEdge> edges, const LayoutOptions& options = {});

// Least squares: positions as near as possible to `wanted` (by `weight`, all positive), each at least `gap[i]` behind
// the one before (gap[0] is not used).
std::vector<double> spread(std::span<const double> wanted, std::span<const double> weight, std::span<const double> gap);

}  // namespace ds
