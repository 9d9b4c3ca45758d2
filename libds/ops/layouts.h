// Channels last (Layout::kChannelsLast) for kernels that walk memory axis by axis: where a logical axis lies, and the
// wish to stay in the layout that the input has.
#pragma once

#include <vector>

#include "libds/ir/kernel_def.h"

namespace ds::ops {

// Place in memory of a logical axis (0 <= axis < rank).
inline int64_t memory_axis(const TensorDesc& d, int64_t axis) {
  if (d.layout != Layout::kChannelsLast || axis == 0) return axis;
  return axis == 1 ? d.rank() - 1 : axis - 1;
}

// Per-axis numbers (sizes, pads, ...) in the order that the axes have in memory.
template <typename T>
std::vector<T> in_memory_order(const TensorDesc& d, const std::vector<T>& by_axis) {
  std::vector<T> placed(by_axis.size());
  for (size_t i = 0; i < by_axis.size(); ++i) placed[static_cast<size_t>(memory_axis(d, static_cast<int64_t>(i)))] = by_axis[i];
  return placed;
}

// A KernelDef::preferred_layouts: operand 0 and the outputs keep its channels last.
inline void stay_channels_last(const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
  if (q.in(0).layout != Layout::kChannelsLast) return;
  inputs[0] = Layout::kChannelsLast;
  for (size_t i = 0; i < outputs.size(); ++i)
    if (q.out(i).defined()) outputs[i] = Layout::kChannelsLast;
}

}  // namespace ds::ops
