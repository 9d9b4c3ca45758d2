// Col2Im, and Im2Col (internal), each the other's gradient.
#include "kernels/col2im.h"

#include <algorithm>

#include "libds/ops/common.h"
#include "libds/ops/int_args.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::BlockSpace;
using Ints = std::vector<int64_t>;

// The blocks of an image of this size.
BlockSpace blocks_of(const Node& node, const Ints& image, const Ints& block) {
  if (image.size() != block.size() || image.empty())
    bad_data("an image of {} axes and blocks of {}", image.size(), block.size());
  const ops::Window w = ops::window_of(node, block);
  BlockSpace s;
  s.size = image;
  s.block = block;
  s.stride = w.stride;
  s.dilation = w.dilation;
  s.pad_begin = w.pad_begin;
  for (size_t i = 0; i < image.size(); ++i) {
    if (image[i] < 1) bad_data("the image has size {} on axis {}", image[i], i);
    const int64_t room = checked_add(image[i], w.pad_begin[i] + w.pad_end[i]) - w.extent(i);
    if (room < 0)
      bad_data("a block spans {} elements on axis {}, the padded image has {}", w.extent(i), i,
               room + w.extent(i));
    s.count.push_back(room / w.stride[i] + 1);
  }
  return s;
}

// Checks columns [N, C * block, L] against the blocks; returns C.
int64_t channels_of(const BlockSpace& s, int64_t rows, int64_t columns) {
  const int64_t block = checked_numel(s.block), blocks = checked_numel(s.count);
  if (rows % block != 0) bad_data("{} rows are not a multiple of the {} elements of a block", rows, block);
  if (columns != blocks) bad_data("{} columns are given, the image has {} blocks", columns, blocks);
  return rows / block;
}

void infer_col2im(InferContext& c) {
  if (!is_int(c.dtype(0)) && !is_float(c.dtype(0))) c.error("does not add up {}", dtype_name(c.dtype(0)));
  const auto image = c.concrete_ints(1), block = c.concrete_ints(2);
  if (c.has_dims(0)) c.require_rank(0, 3);
  const size_t rank = image ? image->size() : block ? block->size() : 0;
  if (rank == 0 || !c.has_dims(0)) return c.set_output(0, c.dtype(0));
  const Dims& in = c.dims(0);
  Dims out = {in[0], c.fresh_dim()};
  for (size_t i = 0; i < rank; ++i) out.push_back(image ? Dim((*image)[i]) : c.fresh_dim());
  if (image && block) {
    const BlockSpace s = blocks_of(c.node(), *image, *block);
    if (in[1].known() && in[2].known()) out[1] = channels_of(s, in[1].raw, in[2].raw);
  }
  c.set_output(0, c.dtype(0), std::move(out));
}

template <typename T>
void run_col2im(const BlockSpace& s, const KernelContext& c) {
  kernels::col2im<T>(s, static_cast<const T*>(c.input(0).raw()), static_cast<T*>(c.output(0).mutable_raw()));
}

KernelDef col2im_kernel() {
  KernelDef k;
  k.name = "portable/col2im";
  k.decline = [](const KernelQuery& q) { return ops::require(!is_half(q.in(0).dtype), "16-bit floats"); };
  k.create = [](const KernelQuery& q) {
    const Node node = q.node;
    return ops::planned_kernel(q, 0b110, [node, in = q.in(0).shape](const ops::IntArgs& args) -> ops::RunFn {
      BlockSpace s = blocks_of(node, ops::int_arg(args, 1), ops::int_arg(args, 2));
      s.planes = checked_mul(in[0], channels_of(s, in[1], in[2]));
      return [s](const KernelContext& c) {
        const DType dtype = c.input(0).dtype();
        if (dispatch_float(dtype, [&](auto tag) { run_col2im<decltype(tag)>(s, c); })) return;
        switch (dtype_size(dtype)) {
          case 1:
            return run_col2im<uint8_t>(s, c);
          case 2:
            return run_col2im<uint16_t>(s, c);
          case 4:
            return run_col2im<uint32_t>(s, c);
          default:
            return run_col2im<uint64_t>(s, c);
        }
      };
    });
  };
  return k;
}

// The attributes that place blocks.
Attributes placing(const Node& n) {
  Attributes attrs;
  for (const char* key : {"strides", "pads", "dilations"})
    if (n.has_attr(key)) attrs[key] = n.attr_ints(key);
  return attrs;
}

void register_im2col(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "Im2Col";  // (image) -> columns; attribute block_shape, and those of Col2Im
  def.min_inputs = def.max_inputs = 1;
  const auto space = [](const Node& n, const Shape& image) {
    BlockSpace s = blocks_of(n, Ints(image.begin() + 2, image.end()), n.attr_ints("block_shape"));
    s.planes = checked_mul(image[0], image[1]);
    return s;
  };
  def.infer = [space](InferContext& c) {
    c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
    if (!c.has_dims(0) || !all_known(c.dims(0)) || c.dims(0).size() < 3) return c.set_output(0, c.dtype(0));
    const Shape image = concrete(c.dims(0));
    const BlockSpace s = space(c.node(), image);
    c.set_output(0, c.dtype(0),
                 to_dims({image[0], checked_mul(image[1], checked_numel(s.block)), checked_numel(s.count)}));
  };
  def.grad = [](GradContext& g) {
    const Shape image = g.shape(g.input(0));
    const ValueId size = g.ints(Ints(image.begin() + 2, image.end())),
                  block = g.ints(g.node().attr_ints("block_shape"));
    const Attributes attrs = placing(g.node());
    g.set_d_input(0, g.emit("Col2Im", {g.d_output(0), size, block}, attrs));
  };
  KernelDef k;
  k.name = "portable/im2col";
  k.decline = [](const KernelQuery& q) { return ops::require(!is_half(q.in(0).dtype), "16-bit floats"); };
  k.create = [space](const KernelQuery& q) {
    return make_kernel([s = space(q.node, q.in(0).shape)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::im2col<T>(s, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_col2im_ops(OpRegistry& registry) {
  OpDef def;
  def.name = "Col2Im";  // (columns, image_shape, block_shape) -> image
  def.min_inputs = def.max_inputs = 3;
  def.shape_inputs = 0b110;
  def.infer = infer_col2im;
  def.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    const Tensor* block = g.rewriter().graph().value(g.input(2)).constant.get();
    if (block == nullptr) fail(ExitCode::kUnsupported, "a block shape that is computed has no gradient");
    Attributes attrs = placing(g.node());
    attrs["block_shape"] = block->to_ints();
    g.set_d_input(0, g.emit("Im2Col", {g.d_output(0)}, attrs));
  };
  def.kernels = {col2im_kernel()};
  registry.add(std::move(def));
  register_im2col(registry);
}

}  // namespace ds
