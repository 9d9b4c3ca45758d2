// Pieces of a graph small enough to look at.
//
// A graph of a few hundred nodes is one view. A larger one is collapsed by the scopes in its nodes' names
// ("encoder/layer.3/attention/MatMul"), or where names say nothing into runs of nodes in order of execution; each
// collapsed part is a view of its own, and so on. The bodies of control flow are views as well.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

// A node of the graph or of a body inside.
struct ListedNode {
  const Graph* graph = nullptr;
  NodeId id = kNone;
  int view = 0;                // where it is drawn
  std::vector<int> bodies;     // views of its subgraphs
};

struct ViewBox {
  enum class Kind { kNode, kGroup, kInput, kOutput };
  Kind kind = Kind::kNode;
  int node = -1;               // kNode: index into GraphViews::nodes
  int view = -1;               // kGroup: what it opens
  ValueId value = kNone;       // kInput, kOutput: of the view's graph; a value that comes from or goes to the outside
  std::string title;           // kGroup, kInput, kOutput
  int nodes = 0;               // kGroup: how many are inside, all levels
};

struct ViewEdge {
  int from = 0, to = 0;        // boxes
  ValueId value = kNone;
};

struct GraphView {
  std::string title;
  int parent = -1;             // -1: the whole graph
  const Graph* graph = nullptr;
  std::vector<ViewBox> boxes;  // in order of execution; inputs first, outputs last
  std::vector<ViewEdge> edges;
};

struct GraphViews {
  std::vector<ListedNode> nodes;  // in order of execution, a body's nodes behind the node it belongs to
  std::vector<GraphView> views;   // 0 is the whole graph
};

struct ViewOptions {
  size_t largest = 220;        // boxes of a view that collapses nothing
  size_t filled = 90;          // a view that collapses opens groups up to this many boxes
};

// The views point into `graph`, which must outlive them.
GraphViews split_into_views(const Graph& graph, const ViewOptions& options = {});

}  // namespace ds
