// Which channels to remove: importance, FLOPs, and the choice that meets a FLOPs target.
//
// Importance of a channel is the L2 norm of the weights that make it and read it, every layer's
// squared norms divided by their mean, averaged over the layers it runs through (Fang et al., CVPR
// 2023); a convolution followed by batch normalisation counts its weights as scaled by it. Channels leave in blocks,
// smallest first: at each step the class goes on whose loss, as a share of all its importance, is the
// least afterwards, until the target is met; then blocks that still fit return. Layers of even
// importance thus shrink by about the same ratio. A model of few blocks is searched whole instead.
#pragma once

#include <vector>

#include "libds/passes/channel_groups.h"

namespace ds {

struct ChannelTarget {
  double flops = 0.5;    // fraction of the FLOPs to keep, at most
  int64_t multiple = 0;  // channel counts stay multiples of this; 0: automatic_multiple()
};

struct ChannelSelection {
  std::vector<char> removed;  // by channel
  int64_t flops_before = 0, flops_after = 0;
};

// 8 for layers of fewer than 64 channels, else 16: the blocks of the AVX2 and the AVX-512 kernels. It
// depends on the model alone, so that the same command gives the same file on every machine.
int64_t automatic_multiple(int64_t channels);

// By channel; 0 for channels without weights.
std::vector<double> channel_importance(const Graph& graph, const ChannelGroups& groups);

// `shapes` as for find_channel_groups. Throws kUnsupported when the target cannot be met, saying how
// far one can go. A class never falls below one multiple.
ChannelSelection select_channels(const Graph& graph, const Graph& shapes, const ChannelGroups& groups, const ChannelTarget& target);

// FLOPs of one run at concrete shapes.
int64_t count_flops(const Graph& shapes);

}  // namespace ds
