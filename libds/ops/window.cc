#include "libds/ops/window.h"

#include <algorithm>

namespace ds::ops {
namespace {

constexpr int64_t kMostInAttribute = int64_t{1} << 31;  // keeps sums of a few of them far from overflow

std::vector<int64_t> read(const Node& node, const char* key, size_t count, int64_t otherwise, int64_t least) {
  std::vector<int64_t> values = node.attr_ints(key);
  if (values.empty()) values.assign(count, otherwise);
  if (values.size() != count) bad_data("attribute '{}' has {} values, expected {}", key, values.size(), count);
  for (int64_t v : values)
    if (v < least || v >= kMostInAttribute) bad_data("attribute '{}' has the value {}", key, v);
  return values;
}

bool same_padding(const Window& w) { return w.auto_pad == "SAME_UPPER" || w.auto_pad == "SAME_LOWER"; }

}  // namespace

Window window_of(const Node& node, std::vector<int64_t> kernel) {
  Window w;
  const size_t n = kernel.size();
  for (int64_t k : kernel)
    if (k < 1 || k >= kMostInAttribute) bad_data("kernel size {} is not possible", k);
  w.kernel = std::move(kernel);
  w.stride = read(node, "strides", n, 1, 1);
  w.dilation = read(node, "dilations", n, 1, 1);
  w.auto_pad = node.attr_string("auto_pad", "NOTSET");
  if (w.auto_pad.empty()) w.auto_pad = "NOTSET";
  if (w.auto_pad != "NOTSET" && w.auto_pad != "VALID" && !same_padding(w)) bad_data("auto_pad '{}' is unknown", w.auto_pad);
  std::vector<int64_t> pads(2 * n, 0);
  if (w.auto_pad == "NOTSET") pads = read(node, "pads", 2 * n, 0, 0);
  w.pad_begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(n));
  w.pad_end.assign(pads.begin() + static_cast<std::ptrdiff_t>(n), pads.end());
  w.ceil_mode = node.attr_int("ceil_mode", 0) != 0;
  for (size_t i = 0; i < n; ++i) w.extent(i);  // overflow is found here
  return w;
}

Window resolve_padding(Window w, std::span<const int64_t> in) {
  if (same_padding(w)) {
    for (size_t i = 0; i < w.spatial(); ++i) {
      const int64_t out = (in[i] + w.stride[i] - 1) / w.stride[i];
      const int64_t covered = checked_add(checked_mul(std::max<int64_t>(out - 1, 0), w.stride[i]), w.extent(i));
      const int64_t total = std::max<int64_t>(covered - in[i], 0);
      w.pad_begin[i] = w.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.pad_end[i] = total - w.pad_begin[i];
    }
  }
  w.auto_pad = "NOTSET";
  return w;
}

int64_t output_size(const Window& w, size_t i, int64_t in) {
  if (same_padding(w)) return (in + w.stride[i] - 1) / w.stride[i];
  const int64_t room = checked_add(in, w.pad_begin[i] + w.pad_end[i]) - w.extent(i);
  if (room < 0 && w.may_overhang && -room / w.stride[i] <= 1) return room / w.stride[i] + 1;  // as onnxruntime rounds: towards zero
  if (room < 0)
    bad_data("spatial axis {} has size {}, too small for a window of {} with padding {}", i, in, w.extent(i),
             w.pad_begin[i] + w.pad_end[i]);
  if (!w.ceil_mode) return room / w.stride[i] + 1;
  int64_t out = (room + w.stride[i] - 1) / w.stride[i] + 1;
  // A last window that starts beyond the input and its leading padding sees nothing: it is dropped.
  if ((out - 1) * w.stride[i] >= in + w.pad_begin[i]) --out;
  return out;
}

Dim output_dim(InferContext& context, const Window& w, size_t i, Dim in) {
  if (in.known()) return output_size(w, i, in.raw);
  if (w.stride[i] == 1 && (same_padding(w) || w.pad_begin[i] + w.pad_end[i] == w.extent(i) - 1)) return in;
  return context.fresh_dim();
}

int64_t operand_bytes(const KernelQuery& query) {
  int64_t bytes = 0;
  for (const TensorDesc& d : query.inputs) bytes += static_cast<int64_t>(d.bytes());
  for (const TensorDesc& d : query.outputs) bytes += static_cast<int64_t>(d.bytes());
  return bytes;
}

}  // namespace ds::ops
