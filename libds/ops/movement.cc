// Operators that move whole tensors by a fixed pattern: Transpose, Concat, Split, Expand, Tile, Trilu,
// DepthToSpace, SpaceToDepth.
#include <algorithm>
#include <cstring>

#include "libds/ops/layouts.h"
#include "libds/ops/register.h"
#include "libds/ops/strided.h"

namespace ds {
namespace {

using kernels::StridedCopy;
using ops::copy;
using ops::copy_of;
using ops::rank_fits;
using ops::strides_of;

// --- Transpose ----------------------------------------------------------------------------------

std::vector<int64_t> permutation(const Node& node, size_t rank) {
  std::vector<int64_t> perm = node.attr_ints("perm");
  if (!node.has_attr("perm"))
    for (size_t i = rank; i-- > 0;) perm.push_back(static_cast<int64_t>(i));
  std::vector<char> seen(rank, 0);
  if (perm.size() != rank) bad_data("perm has {} entries for rank {}", perm.size(), rank);
  for (int64_t& p : perm) {
    p = ops::normalize_axis(p, static_cast<int64_t>(rank));
    if (seen[static_cast<size_t>(p)]++) bad_data("perm names axis {} twice", p);
  }
  return perm;
}

// In the order of the result's memory.
StridedCopy transposing(const KernelQuery& q) {
  const TensorDesc &x = q.in(0), &y = q.out(0);
  const Shape strides = strides_of(x.memory_shape());
  Shape from;
  for (int64_t p : permutation(q.node, x.shape.size())) from.push_back(strides[static_cast<size_t>(ops::memory_axis(x, p))]);
  const Shape to = y.memory_shape();
  return copy_of(to, ops::in_memory_order(y, from), strides_of(to));
}

// Nothing moves: axes of one element, or channels that are last already.
KernelDef same_order_kernel() {
  KernelDef k;
  k.name = "portable/same_order";
  k.in_place = {{0, 0}};
  k.decline = [](const KernelQuery& q) -> std::string {
    if (std::string why = rank_fits(q); !why.empty()) return why;
    const StridedCopy space = transposing(q);
    const bool one_run = space.rank == 0 || (space.rank == 1 && space.src_stride[0] == 1 && space.dst_stride[0] == 1);
    return ops::require(one_run, "elements move");
  };
  // From channels-first to channels-last axes, or back.
  k.preferred_layouts = [](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    const size_t rank = q.in(0).shape.size();
    if (rank < 3) return;
    const std::vector<int64_t> perm = permutation(q.node, rank);
    const auto moves_channels = [&](bool to_end) {
      for (size_t i = 1; i < rank; ++i) {
        const size_t from = to_end ? (i + 1 == rank ? 1 : i + 1) : (i == 1 ? rank - 1 : i - 1);
        if (perm[i] != static_cast<int64_t>(from)) return false;
      }
      return perm[0] == 0;
    };
    if (q.in(0).layout == Layout::kChannelsLast && moves_channels(true)) inputs[0] = Layout::kChannelsLast;
    if (q.in(0).layout == Layout::kPlain && moves_channels(false)) outputs[0] = Layout::kChannelsLast;
  };
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      const Tensor &x = c.input(0), &y = c.output(0);
      if (x.raw() != y.raw() && x.bytes() > 0) std::memcpy(y.mutable_raw(), x.raw(), x.bytes());
    });
  };
  return k;
}

void register_transpose(OpRegistry& registry) {
  OpDef def;
  def.name = "Transpose";
  def.moves_elements = true;
  def.min_inputs = def.max_inputs = 1;
  def.infer = [](InferContext& c) {
    if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
    const Dims& in = c.dims(0);
    Dims out;
    for (int64_t p : permutation(c.node(), in.size())) out.push_back(in[static_cast<size_t>(p)]);
    c.set_output(0, c.dtype(0), std::move(out));
  };
  def.grad = [](GradContext& g) {
    const std::vector<int64_t> perm = permutation(g.node(), g.shape(g.input(0)).size());
    std::vector<int64_t> inverse(perm.size());
    for (size_t i = 0; i < perm.size(); ++i) inverse[static_cast<size_t>(perm[i])] = static_cast<int64_t>(i);
    g.set_d_input(0, g.emit("Transpose", {g.d_output(0)}, {{"perm", inverse}}));
  };
  KernelDef k;
  k.name = "portable/transpose";
  k.decline = rank_fits;
  k.preferred_layouts = [](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>&) {
    if (q.in(0).layout == Layout::kChannelsLast) inputs[0] = Layout::kChannelsLast;
  };
  k.create = [](const KernelQuery& q) {
    const StridedCopy space = transposing(q);
    return make_kernel([space](const KernelContext& c) { copy(space, c.input(0), 0, c.output(0), 0); });
  };
  def.kernels = {same_order_kernel(), k};
  registry.add(std::move(def));
}

// --- Concat, Split --------------------------------------------------------------------------------

void infer_concat(InferContext& c) {
  if (c.input_count() == 0) c.error("has no inputs");
  if (!c.node().has_attr("axis")) c.error("attribute axis is missing");
  const DType dtype = c.dtype(0);
  std::optional<Dims> out;
  Dims ints;
  bool all_dims = true, all_ints = is_int(dtype);
  int64_t axis = c.node().attr_int("axis", 0);
  for (size_t i = 0; i < c.input_count(); ++i) {
    if (c.dtype(i) != dtype) c.error("inputs differ in type: {} and {}", dtype_name(dtype), dtype_name(c.dtype(i)));
    if (const auto part = c.ints(i)) ints.insert(ints.end(), part->begin(), part->end());
    else all_ints = false;
    if (!c.has_dims(i)) {
      all_dims = false;
      continue;
    }
    const Dims& d = c.dims(i);
    if (d.empty()) c.error("input {} ('{}') is a scalar", i, c.input(i).name);
    axis = ops::normalize_axis(axis, static_cast<int64_t>(d.size()));
    if (!out) {
      out = d;
      continue;
    }
    if (d.size() != out->size()) c.error("inputs differ in rank: {} and {}", out->size(), d.size());
    for (size_t a = 0; a < d.size(); ++a) {
      Dim& o = (*out)[a];
      if (a == static_cast<size_t>(axis)) {
        if (o.known() && d[a].known()) o = checked_add(o.raw, d[a].raw);
        else o = c.fresh_dim();
      } else if (o.known() && d[a].known() && o != d[a]) {
        c.error("input {} ('{}') has size {} on axis {}, the others {}", i, c.input(i).name, d[a].raw, a, o.raw);
      } else if (!o.known()) {
        o = d[a];
      }
    }
  }
  if (!all_dims && out) (*out)[static_cast<size_t>(axis)] = c.fresh_dim();
  all_ints = all_ints && out && out->size() == 1;
  c.set_output(0, dtype, std::move(out));
  if (all_ints) c.set_output_ints(0, std::move(ints));
}

void register_concat(OpRegistry& registry) {
  OpDef def;
  def.name = "Concat";
  def.moves_elements = true;
  def.min_inputs = 1;
  def.max_inputs = -1;
  def.infer = infer_concat;
  def.grad = [](GradContext& g) {
    const size_t n = g.node().inputs.size();
    const int64_t axis = ops::normalize_axis(g.node().attr_int("axis", 0), static_cast<int64_t>(g.shape(g.output(0)).size()));
    std::vector<int64_t> sizes;
    for (size_t i = 0; i < n; ++i) sizes.push_back(g.shape(g.input(i))[static_cast<size_t>(axis)]);
    const NodeId split = g.emit_node("Split", {g.d_output(0), g.ints(sizes)}, {{"axis", axis}}, n);
    for (size_t i = 0; i < n; ++i)
      if (g.needs(i)) g.set_d_input(i, g.rewriter().graph().node(split).outputs[i]);
  };
  KernelDef k;
  k.name = "portable/concat";
  k.decline = rank_fits;
  k.create = [](const KernelQuery& q) {
    // In memory the axis may lie elsewhere. Whole channel blocks follow one another as whole channels do.
    const auto axis = static_cast<size_t>(ops::memory_axis(q.out(0), ops::normalize_axis(q.node.attr_int("axis", 0), q.out(0).rank())));
    const bool last = q.out(0).layout == Layout::kChannelsLast;
    const auto in_memory = [last](const TensorDesc& d) { return last ? d.memory_shape() : d.shape; };
    const Shape dst = strides_of(in_memory(q.out(0)));
    struct Part {
      StridedCopy space;
      int64_t offset;
    };
    std::vector<Part> parts;
    int64_t at = 0;
    for (const TensorDesc& in : q.inputs) {
      const Shape shape = in_memory(in);
      parts.push_back({copy_of(shape, strides_of(shape), dst), at * dst[axis]});
      at += shape[axis];
    }
    return make_kernel([parts](const KernelContext& c) {
      for (size_t i = 0; i < parts.size(); ++i) copy(parts[i].space, c.input(i), 0, c.output(0), parts[i].offset);
    });
  };
  k.preferred_layouts = [](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    // With channels last as soon as half of the operands have them last: convolutions put them there, and want them back.
    size_t last = 0;
    for (const TensorDesc& in : q.inputs) last += in.layout == Layout::kChannelsLast;
    Layout layout = q.in(0).layout;
    if (last > 0 && 2 * last >= q.inputs.size()) {
      layout = Layout::kChannelsLast;
    } else {
      if (layout == Layout::kPlain || ops::normalize_axis(q.node.attr_int("axis", 0), q.out(0).rank()) != 1) return;
      for (const TensorDesc& in : q.inputs)
        if (in.layout != layout || in.bytes() != TensorDesc{in.dtype, in.shape}.bytes()) return;
    }
    inputs.assign(inputs.size(), layout);
    outputs[0] = layout;
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void infer_split(InferContext& c) {
  const size_t outputs = c.node().outputs.size();
  if (!c.has_dims(0)) {
    for (size_t i = 0; i < outputs; ++i) c.set_output(i, c.dtype(0));
    return;
  }
  const Dims in = c.dims(0);
  if (in.empty()) c.error("a scalar cannot be split");
  const auto axis = static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", 0), static_cast<int64_t>(in.size())));
  const Dim whole = in[axis];
  std::vector<Dim> sizes(outputs);
  if (c.has_input(1)) {
    const auto split = c.concrete_ints(1);
    if (split && split->size() != outputs) c.error("splits into {} parts but has {} outputs", split->size(), outputs);
    int64_t total = 0;
    for (size_t i = 0; i < outputs; ++i) {
      if (split && (*split)[i] < 0) c.error("negative part size {}", (*split)[i]);
      sizes[i] = split ? Dim((*split)[i]) : c.fresh_dim();
      if (split) total = checked_add(total, (*split)[i]);
    }
    if (split && whole.known() && total != whole.raw) c.error("parts add up to {}, axis {} has {}", total, axis, whole.raw);
  } else {
    const int64_t n = c.node().attr_int("num_outputs", static_cast<int64_t>(outputs));
    if (n != static_cast<int64_t>(outputs)) c.error("num_outputs is {} but there are {} outputs", n, outputs);
    const int64_t part = whole.known() ? (whole.raw + n - 1) / n : 0;
    for (size_t i = 0; i < outputs; ++i) {
      if (whole.known()) sizes[i] = std::max<int64_t>(0, std::min(part, whole.raw - part * static_cast<int64_t>(i)));
      else sizes[i] = outputs == 1 ? whole : c.fresh_dim();
    }
  }
  const std::optional<Dims> ints = in.size() == 1 && is_int(c.dtype(0)) ? c.ints(0) : std::nullopt;
  int64_t at = 0;
  for (size_t i = 0; i < outputs; ++i) {
    Dims out = in;
    out[axis] = sizes[i];
    c.set_output(i, c.dtype(0), std::move(out));
    if (!ints || !whole.known() || !sizes[i].known()) continue;
    c.set_output_ints(i, Dims(ints->begin() + at, ints->begin() + at + sizes[i].raw));
    at += sizes[i].raw;
  }
}

void register_split(OpRegistry& registry) {
  OpDef def;
  def.name = "Split";
  def.moves_elements = true;
  def.min_inputs = 1;
  def.max_inputs = 2;
  def.max_outputs = -1;
  def.shape_inputs = 0b10;
  def.infer = infer_split;
  def.grad = [](GradContext& g) {
    const int64_t axis = ops::normalize_axis(g.node().attr_int("axis", 0), static_cast<int64_t>(g.shape(g.input(0)).size()));
    std::vector<ValueId> parts;
    const size_t outputs = g.node().outputs.size();
    for (size_t i = 0; i < outputs; ++i) {
      ValueId d = g.d_output(i);
      if (d == kNone) {
        const Shape shape = g.shape(g.output(i));
        if (checked_numel(shape) == 0) continue;
        d = g.emit("Expand", {g.scalar(0, g.dtype(g.input(0))), g.ints(shape)});
      }
      parts.push_back(d);
    }
    g.set_d_input(0, g.emit("Concat", parts, {{"axis", axis}}));
  };
  KernelDef k;
  k.name = "portable/split";
  k.decline = rank_fits;
  k.preferred_layouts = ops::stay_channels_last;
  k.create = [](const KernelQuery& q) {
    const auto axis = static_cast<size_t>(ops::memory_axis(q.in(0), ops::normalize_axis(q.node.attr_int("axis", 0), q.in(0).rank())));
    const Shape src = strides_of(q.in(0).memory_shape());
    struct Part {
      StridedCopy space;
      int64_t offset;
    };
    std::vector<Part> parts;
    int64_t at = 0;
    for (const TensorDesc& out : q.outputs) {
      if (!out.defined()) bad_data("every output of Split needs a name");  // its size would be unknown
      const Shape shape = out.memory_shape();
      parts.push_back({copy_of(shape, src, strides_of(shape)), at * src[axis]});
      at += shape[axis];
    }
    return make_kernel([parts](const KernelContext& c) {
      for (size_t i = 0; i < parts.size(); ++i) copy(parts[i].space, c.input(0), parts[i].offset, c.output(i), 0);
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// --- Expand, Tile -----------------------------------------------------------------------------------

void register_expand(OpRegistry& registry) {
  OpDef def;
  def.name = "Expand";
  def.moves_elements = true;
  def.min_inputs = def.max_inputs = 2;
  def.shape_inputs = 0b10;
  def.infer = [](InferContext& c) {
    std::optional<Dims> target;
    if (const auto exact = c.concrete_ints(1)) {
      for (int64_t d : *exact)
        if (d < 0) c.error("target shape holds {}", d);
      target = to_dims(*exact);
    } else {
      target = c.ints(1);
    }
    if (!target || !c.has_dims(0)) return c.set_output(0, c.dtype(0));
    const std::optional<Dims> ints = is_int(c.dtype(0)) ? c.ints(0) : std::nullopt;
    Dims out = ops::broadcast_dims(c, c.dims(0), *target);
    const bool repeats = ints && ints->size() == 1 && out.size() <= 1 && all_known(out) && checked_numel(concrete(out)) <= 64;
    const int64_t n = repeats ? checked_numel(concrete(out)) : 0;
    c.set_output(0, c.dtype(0), std::move(out));
    if (repeats) c.set_output_ints(0, Dims(static_cast<size_t>(n), (*ints)[0]));
  };
  def.grad = [](GradContext& g) {
    if (g.needs(0)) g.set_d_input(0, g.sum_to(g.d_output(0), g.shape(g.input(0))));
  };
  KernelDef k;
  k.name = "portable/expand";
  k.decline = rank_fits;
  k.create = [](const KernelQuery& q) {
    const Shape& out = q.out(0).shape;
    const Shape in_strides = strides_of(q.in(0).shape);
    Shape src(out.size(), 0);
    const size_t lead = out.size() - in_strides.size();
    for (size_t i = lead; i < out.size(); ++i)
      if (q.in(0).shape[i - lead] != 1) src[i] = in_strides[i - lead];
    const StridedCopy space = copy_of(out, src, strides_of(out));
    return make_kernel([space](const KernelContext& c) { copy(space, c.input(0), 0, c.output(0), 0); });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void register_tile(OpRegistry& registry) {
  OpDef def;
  def.name = "Tile";
  def.moves_elements = true;
  def.min_inputs = def.max_inputs = 2;
  def.shape_inputs = 0b10;
  def.infer = [](InferContext& c) {
    c.require_dtype(1, {DType::kI64});
    if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
    const Dims in = c.dims(0);
    const auto exact = c.concrete_ints(1);
    const std::optional<Dims> repeats = exact ? std::nullopt : c.ints(1);
    const size_t n = exact ? exact->size() : repeats ? repeats->size() : in.size();
    if (n != in.size()) c.error("{} repeats for rank {}", n, in.size());
    Dims out;
    for (size_t i = 0; i < in.size(); ++i) {
      const std::optional<Dim> r = exact ? std::optional<Dim>((*exact)[i]) : repeats ? std::optional<Dim>((*repeats)[i]) : std::nullopt;
      if (exact && (*exact)[i] < 0) c.error("negative repeat {}", (*exact)[i]);
      if (r == Dim(1)) out.push_back(in[i]);
      else if (r && in[i] == Dim(1)) out.push_back(*r);
      else if (r && r->known() && in[i].known()) out.push_back(checked_mul(in[i].raw, r->raw));
      else out.push_back(c.fresh_dim());
    }
    c.set_output(0, c.dtype(0), std::move(out));
  };
  def.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    // [r0*d0, r1*d1, ...] seen as [r0, d0, r1, d1, ...], summed over the repeats.
    const Shape in = g.shape(g.input(0)), out = g.shape(g.output(0));
    std::vector<int64_t> split, axes;
    for (size_t i = 0; i < in.size(); ++i) {
      axes.push_back(static_cast<int64_t>(split.size()));
      split.push_back(in[i] == 0 ? 1 : out[i] / in[i]);
      split.push_back(in[i]);
    }
    const ValueId seen = g.emit("Reshape", {g.d_output(0), g.ints(split)}, {{"allowzero", int64_t{1}}});
    g.set_d_input(0, g.emit("ReduceSum", {seen, g.ints(axes)}, {{"keepdims", int64_t{0}}}));
  };
  KernelDef k;
  k.name = "portable/tile";
  k.decline = rank_fits;
  k.create = [](const KernelQuery& q) {
    const Shape &in = q.in(0).shape, &out = q.out(0).shape;
    const Shape in_strides = strides_of(in), out_strides = strides_of(out);
    Shape size, src, dst;
    for (size_t i = 0; i < in.size(); ++i) {
      size.insert(size.end(), {in[i] == 0 ? 1 : out[i] / in[i], in[i]});
      src.insert(src.end(), {0, in_strides[i]});
      dst.insert(dst.end(), {in[i] * out_strides[i], out_strides[i]});
    }
    const StridedCopy space = copy_of(size, src, dst);
    return make_kernel([space](const KernelContext& c) { copy(space, c.input(0), 0, c.output(0), 0); });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// --- Trilu, DepthToSpace, SpaceToDepth --------------------------------------------------------------------

void register_trilu(OpRegistry& registry) {
  OpDef def;
  def.name = "Trilu";
  def.moves_elements = true;
  def.min_inputs = 1;
  def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    if (c.has_dims(0) && c.dims(0).size() < 2) c.error("needs at least two axes");
    ops::infer_same_as_input(c);
  };
  def.grad = [](GradContext& g) {
    if (!g.needs(0)) return;
    std::vector<ValueId> inputs = {g.d_output(0)};
    if (g.input(1) != kNone) inputs.push_back(g.input(1));
    g.set_d_input(0, g.emit("Trilu", inputs, {{"upper", g.node().attr_int("upper", 1)}}));
  };
  KernelDef k;
  k.name = "portable/trilu";
  k.create = [](const KernelQuery& q) {
    const int64_t rows = q.in(0).dim(-2), cols = q.in(0).dim(-1);
    const int64_t batch = rows * cols == 0 ? 0 : q.in(0).numel() / (rows * cols);
    const bool upper = q.node.attr_int("upper", 1) != 0;
    return make_kernel([=](const KernelContext& c) {
      int64_t diagonal = c.has_input(1) ? c.input(1).to_ints().at(0) : 0;
      diagonal = std::clamp(diagonal, -rows - cols, rows + cols);
      kernels::trilu(batch, rows, cols, diagonal, upper, dtype_size(c.input(0).dtype()), c.input(0).raw(),
                     c.output(0).mutable_raw());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// [N, C, H, W] <-> [N, C/(b*b), H*b, W*b]. `deep` is the shape with many channels.
// Channels may be last in both.
StridedCopy block_moves(const TensorDesc& deep_desc, const TensorDesc& wide_desc, int64_t b, bool crd, bool to_space) {
  const auto strides = [](const TensorDesc& d) {  // by logical axis
    const Shape placed = strides_of(d.memory_shape());
    Shape s;
    for (int64_t axis = 0; axis < d.rank(); ++axis) s.push_back(placed[static_cast<size_t>(ops::memory_axis(d, axis))]);
    return s;
  };
  const Shape &deep = deep_desc.shape, &wide = wide_desc.shape;
  const Shape ds = strides(deep_desc), ws = strides(wide_desc);
  const int64_t channels = wide[1];
  // Axes: n, block row, block column, channel, h, w. In DCR the block index is the slow part of the channel.
  const int64_t row = crd ? b * ds[1] : b * channels * ds[1], column = crd ? ds[1] : channels * ds[1];
  const int64_t channel = crd ? b * b * ds[1] : ds[1];
  // In the order of the destination, so that its last axis is the contiguous one.
  if (wide_desc.layout == Layout::kChannelsLast) {
    if (to_space)
      return copy_of({deep[0], deep[2], b, deep[3], b, channels}, {ds[0], ds[2], row, ds[3], column, channel},
                     {ws[0], b * ws[2], ws[2], b * ws[3], ws[3], ws[1]});
    if (crd)
      return copy_of({deep[0], deep[2], deep[3], channels, b, b}, {ws[0], b * ws[2], b * ws[3], ws[1], ws[2], ws[3]},
                     {ds[0], ds[2], ds[3], channel, row, column});
    return copy_of({deep[0], deep[2], deep[3], b, b, channels}, {ws[0], b * ws[2], b * ws[3], ws[2], ws[3], ws[1]},
                   {ds[0], ds[2], ds[3], row, column, channel});
  }
  if (to_space)
    return copy_of({deep[0], channels, deep[2], b, deep[3], b}, {ds[0], channel, ds[2], row, ds[3], column},
                   {ws[0], ws[1], b * ws[2], ws[2], b * ws[3], ws[3]});
  return copy_of({deep[0], b, b, channels, deep[2], deep[3]}, {ws[0], ws[2], ws[3], ws[1], b * ws[2], b * ws[3]},
                 {ds[0], row, column, channel, ds[2], ds[3]});
}

void register_block(OpRegistry& registry, bool to_space) {
  OpDef def;
  def.name = to_space ? "DepthToSpace" : "SpaceToDepth";
  def.moves_elements = true;
  def.min_inputs = def.max_inputs = 1;
  def.infer = [to_space](InferContext& c) {
    const int64_t b = c.node().attr_int("blocksize", 0);
    if (b < 1 || b > 1 << 15) c.error("blocksize is {}", b);
    const std::string mode = c.node().attr_string("mode", "DCR");
    if (mode != "DCR" && mode != "CRD") c.error("unknown mode '{}'", mode);
    c.require_rank(0, 4);
    if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
    Dims d = c.dims(0);
    const auto multiply = [&](Dim x, int64_t by) { return x.known() ? Dim(checked_mul(x.raw, by)) : c.fresh_dim(); };
    const auto divide = [&](Dim x, int64_t by) {
      if (x.known() && x.raw % by != 0) c.error("{} does not divide by {}", x.raw, by);
      return x.known() ? Dim(x.raw / by) : c.fresh_dim();
    };
    if (to_space) d = {d[0], divide(d[1], b * b), multiply(d[2], b), multiply(d[3], b)};
    else d = {d[0], multiply(d[1], b * b), divide(d[2], b), divide(d[3], b)};
    c.set_output(0, c.dtype(0), std::move(d));
  };
  def.grad = [to_space](GradContext& g) {
    const int64_t b = g.node().attr_int("blocksize", 0);
    const std::string mode = g.node().attr_string("mode", "DCR");
    g.set_d_input(0, g.emit(to_space ? "SpaceToDepth" : "DepthToSpace", {g.d_output(0)}, {{"blocksize", b}, {"mode", mode}}));
  };
  KernelDef k;
  k.name = to_space ? "portable/depth_to_space" : "portable/space_to_depth";
  k.preferred_layouts = ops::stay_channels_last;
  k.create = [to_space](const KernelQuery& q) {
    const bool crd = q.node.attr_string("mode", "DCR") == "CRD";
    const TensorDesc &deep = to_space ? q.in(0) : q.out(0), &wide = to_space ? q.out(0) : q.in(0);
    const StridedCopy space = block_moves(deep, wide, q.node.attr_int("blocksize", 0), crd, to_space);
    return make_kernel([space](const KernelContext& c) { copy(space, c.input(0), 0, c.output(0), 0); });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_movement_ops(OpRegistry& registry) {
  register_transpose(registry);
  register_concat(registry);
  register_split(registry);
  register_expand(registry);
  register_tile(registry);
  register_trilu(registry);
  register_block(registry, true);
  register_block(registry, false);
}

}  // namespace ds
