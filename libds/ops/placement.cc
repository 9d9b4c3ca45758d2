// MaxUnpool, the inverse of MaxPool with indices, written in terms of other operators.
#include <algorithm>

#include "libds/ops/lowering.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using ops::Lowering;

// --- MaxUnpool (x, indices, output_shape?) --------------------------------------------------------

// By how much and with what step each axis of x grows: size = (x - 1) * step + more; 1 and 1 leave it.
struct Growth {
  std::vector<int64_t> step, more;
};

Growth growth_of(const Node& n, size_t rank) {
  const std::vector<int64_t> kernel = n.attr_ints("kernel_shape");
  if (kernel.empty() || kernel.size() + 2 != rank) bad_data("kernel_shape has {} values, the input rank {}", kernel.size(), rank);
  const ops::Window w = ops::window_of(n, kernel);
  Growth g{{1, 1}, {1, 1}};
  for (size_t i = 0; i < kernel.size(); ++i) {
    g.step.push_back(w.stride[i]);
    g.more.push_back(w.kernel[i] - w.pad_begin[i] - w.pad_end[i]);
  }
  return g;
}

void infer_max_unpool(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
  c.require_dtype(1, {DType::kI64});
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  const Dims x = c.dims(0);
  if (x.size() < 3) c.error("input has rank {}, expected 3 or more", x.size());
  if (c.has_dims(1)) {
    const Dims& indices = c.dims(1);
    bool fits = indices.size() == x.size();
    for (size_t i = 0; fits && i < x.size(); ++i) fits = !indices[i].known() || !x[i].known() || indices[i] == x[i];
    if (!fits) c.error("indices are {}, the input {}", c.graph().dims_string(indices), c.graph().dims_string(x));
  }
  const Growth g = growth_of(c.node(), x.size());
  Dims y = x;
  for (size_t i = 2; i < x.size(); ++i) {
    if (!x[i].known()) {
      y[i] = c.fresh_dim();
      continue;
    }
    const int64_t size = checked_add(checked_mul(x[i].raw - 1, g.step[i]), g.more[i]);
    if (size < 0) c.error("spatial axis {} would get the size {}", i - 2, size);
    y[i] = size;
  }
  if (c.has_input(2)) {
    const auto wanted = c.ints(2);
    if (wanted && wanted->size() != x.size()) c.error("output_shape has {} numbers, expected {}", wanted->size(), x.size());
    if (wanted) y = *wanted;
    else
      for (Dim& d : y) d = c.fresh_dim();
  }
  c.set_output(0, c.dtype(0), y);
}

// Elements of x go to their indices in zeros of the size that the pool had; output_shape then adds zeros behind.
bool lower_max_unpool(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  const ValueId x = l.in(0);
  if (!l.dims(x)) return false;
  const DType dtype = l.dtype(x);
  const size_t rank = l.dims(x)->size();
  const Growth g = growth_of(l.node(), rank);
  const ValueId less = l.emit("Sub", {l.emit("Shape", {x}), l.ints({1})});
  const ValueId shape = l.emit("Add", {l.emit("Mul", {less, l.ints(g.step)}), l.ints(g.more)});
  const ValueId count = l.emit("ReduceProd", {shape}, {{"keepdims", int64_t{1}}});
  const ValueId zeros = l.emit("ConstantOfShape", {count}, {{"value", Tensor::of<double>({1}, {0}).cast(dtype)}});
  const ValueId flat = l.emit("Reshape", {x, l.ints({-1})}), indices = l.emit("Reshape", {l.in(1), l.ints({-1})});
  ValueId y = l.emit("Reshape", {l.emit("ScatterElements", {zeros, indices, flat}, {{"axis", int64_t{0}}}), shape});
  if (l.has(2)) {
    const ValueId behind = l.emit("Sub", {l.in(2), shape});
    const ValueId pads = l.emit("Concat", {l.ints(std::vector<int64_t>(rank, 0)), behind}, {{"axis", int64_t{0}}});
    y = l.emit("Pad", {y, pads});
  }
  l.set(0, y);
  return true;
}

}  // namespace

void register_placement_ops(OpRegistry& registry) {
  OpDef unpool;
  unpool.name = "MaxUnpool";
  unpool.min_inputs = 2;
  unpool.max_inputs = 3;
  unpool.shape_inputs = 0b100;
  unpool.infer = infer_max_unpool;
  unpool.lower = lower_max_unpool;
  registry.add(std::move(unpool));
}

}  // namespace ds
