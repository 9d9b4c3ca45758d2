// Which channels of a network belong together.
//
// To remove one output channel of a convolution, the same position must go from its bias, from the
// batch normalisation behind it, from every tensor it is added to, and from the input side of every
// layer that reads it. This follows the graph and finds those couplings exactly, position by
// position: each axis of a tensor that can shrink gets a channel number for each of its positions
// (a flattened axis of C·H·W positions holds each of its C numbers H·W times, a concatenation
// holds its parts' numbers one after another), and positions that an operator couples share a number.
// All positions of one channel go, or none.
//
// The idea of coupled groups is that of DepGraph (Fang et al., CVPR 2023); the numbering makes
// concatenation, splitting and flattening ordinary cases. What an operator couples is one rule per
// operator (channel_rules.cc). A channel that reaches an operator without rule, an input or output of
// the model, or an operator that mixes channels without weights (Softmax, LayerNormalization over
// them) is pinned, with the reason. For every other channel, removing it gives exactly what the
// network gives when the weights that read it are zero.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

// An axis of a value, and the channel at each of its positions.
struct ChannelAxis {
  ValueId value = kNone;
  size_t axis = 0;
  std::vector<int32_t> channels;
};

// Channels that occur in exactly the same axes: what one usually calls the channels of a layer (or
// of all layers joined by additions).
struct ChannelClass {
  std::vector<int32_t> channels;
  // Positions per channel in the activations where they are rarest: above 1 for grouped convolutions.
  int64_t width = 1;
  // Constants that hold weights of these channels, by name: the first one names the class.
  std::string name;
};

struct ChannelGroups {
  std::vector<ChannelAxis> axes;
  std::vector<std::string> pinned;         // by channel: why it must stay; empty: it may go
  std::vector<ChannelClass> classes;       // of channels that may go, in graph order
  std::map<std::pair<ValueId, size_t>, size_t> index;  // (value, axis) -> position in axes

  // Null when that axis never shrinks.
  const ChannelAxis* find(ValueId value, size_t axis) const;
};

// `shapes` is the same graph with concrete shapes (a specialised copy: same ids). Layers with a node or weight
// name that matches a pattern of `exclude` (shell wildcards) keep all their channels.
ChannelGroups find_channel_groups(const Graph& graph, const Graph& shapes, const std::vector<std::string>& exclude = {});

// Whether any of the patterns (shell wildcards: * ? [abc]) matches the whole name.
bool matches_any(const std::vector<std::string>& patterns, const std::string& name);

}  // namespace ds
