// Sliding windows: what Conv, ConvTranspose and the pools share.
//
// Legend: an operand is [N, C, spatial...] with 1 to 3 spatial axes. A window has, per spatial axis,
// kernel (elements), stride, dilation and padding before and after. ONNX: Conv, MaxPool, AveragePool.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "libds/ops/common.h"

namespace ds::ops {

// Attributes of a node, defaults filled in and checked; auto_pad not yet resolved.
struct Window {
  std::vector<int64_t> kernel, stride, dilation, pad_begin, pad_end;
  std::string auto_pad;  // NOTSET, VALID, SAME_UPPER, SAME_LOWER
  bool ceil_mode = false;
  // A pool's window may be larger than the whole axis, padding included: what it sees of it counts.
  bool may_overhang = false;

  size_t spatial() const { return kernel.size(); }
  // Elements that the dilated kernel spans along an axis.
  int64_t extent(size_t axis) const { return checked_add(checked_mul(kernel[axis] - 1, dilation[axis]), 1); }
};

// Reads strides, dilations, pads, auto_pad and ceil_mode for a kernel of the given size. Throws bad
// data on wrong counts, on values below one (pads: below zero), and on an unknown auto_pad.
Window window_of(const Node& node, std::vector<int64_t> kernel);

// Replaces auto_pad by explicit padding for this input (spatial axes only).
Window resolve_padding(Window window, std::span<const int64_t> in);

// Output size along an axis; throws when the window does not fit even once.
int64_t output_size(const Window& window, size_t axis, int64_t in);
// The same for a dimension that may be a symbol: the symbol itself when the size is preserved.
Dim output_dim(InferContext& context, const Window& window, size_t axis, Dim in);

// Bytes of all operands of a query, each once.
int64_t operand_bytes(const KernelQuery& query);

}  // namespace ds::ops
