#include "libds/ops/common.h"

namespace ds::ops {

Dims broadcast_dims(InferContext& context, const Dims& a, const Dims& b) {
  const size_t rank = std::max(a.size(), b.size());
  Dims out(rank);
  for (size_t i = 0; i < rank; ++i) {
    const Dim x = i + a.size() < rank ? Dim(1) : a[i + a.size() - rank];
    const Dim y = i + b.size() < rank ? Dim(1) : b[i + b.size() - rank];
    if (x == y || y == Dim(1)) out[i] = x;
    else if (x == Dim(1)) out[i] = y;
    else if (x.known() && y.known()) context.error("cannot broadcast {} with {}", context.graph().dims_string(a), context.graph().dims_string(b));
    else if (x.known()) out[i] = x;
    else if (y.known()) out[i] = y;
    else out[i] = context.fresh_dim();
  }
  return out;
}

std::optional<Dims> broadcast_inputs(InferContext& context, size_t first) {
  std::optional<Dims> dims;
  for (size_t i = first; i < context.input_count(); ++i) {
    if (!context.has_input(i)) continue;
    if (!context.has_dims(i)) return std::nullopt;
    dims = dims ? broadcast_dims(context, *dims, context.dims(i)) : context.dims(i);
  }
  return dims;
}

int64_t normalize_axis(int64_t axis, int64_t rank) {
  if (axis < -rank || axis >= std::max<int64_t>(rank, 1)) bad_data("axis {} is outside rank {}", axis, rank);
  return axis < 0 ? axis + rank : axis;
}

std::vector<int64_t> normalize_axes(std::vector<int64_t> axes, int64_t rank) {
  for (int64_t& axis : axes) axis = normalize_axis(axis, rank);
  return axes;
}

void infer_same_as_input(InferContext& context) {
  context.set_output(0, context.dtype(0), context.has_input(0) ? context.input(0).dims : std::nullopt);
}

Shape strides_of(const Shape& shape) {
  Shape strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

std::string require(bool condition, const char* reason) { return condition ? std::string() : std::string(reason); }

}  // namespace ds::ops
