// Conv, ConvTranspose and their gradients.
//
// Legend: x [N, C, in...], w [M, C/G, kernel...], y [N, M, out...], b [M]. ConvTranspose is the input
// gradient of the convolution that maps its output to its input: its w is [C, M/G, kernel...].
#include "libds/ops/conv.h"

#include "libds/ops/depthwise.h"
#include "libds/ops/onednn_kernel.h"
#include "libds/ops/register.h"
#include "libds/ops/tile_product.h"
#include "libds/ops/window.h"
#include "libds/ops/winograd_conv.h"

namespace ds {
namespace {

using kernels::ConvShape;
using ops::Window;

constexpr size_t kMostSpatial = 3;

Shape spatial_of(const Shape& shape) { return Shape(shape.begin() + 2, shape.end()); }

// Geometry of the convolution x, w -> y (all concrete, already inferred).
ConvShape conv_shape(const Node& node, const Shape& x, const Shape& w, const Shape& y, const Window& window) {
  ConvShape s;
  s.spatial = static_cast<int>(x.size()) - 2;
  s.batch = x[0];
  s.groups = node.attr_int("group", 1);
  s.in_channels = x[1];
  s.out_channels = w[0];
  for (size_t i = 0; i < window.spatial(); ++i) {
    const size_t d = i + 3 - window.spatial();
    s.in[d] = x[i + 2];
    s.out[d] = y[i + 2];
    s.kernel[d] = window.kernel[i];
    s.stride[d] = window.stride[i];
    s.dilation[d] = window.dilation[i];
    s.pad_begin[d] = window.pad_begin[i];
    s.pad_end[d] = window.pad_end[i];
  }
  return s;
}

Cost cost_of(const ConvShape& s, const KernelQuery& q) {
  const int64_t macs = checked_mul(checked_mul(s.batch * s.out_channels, s.out_plane()),
                                   s.in_channels / s.groups * s.kernel_size());
  return {2 * macs, ops::operand_bytes(q)};
}

// Explicit attributes of the same convolution, for gradients: auto_pad is resolved.
Attributes explicit_attrs(const Node& node, const Window& w) {
  std::vector<int64_t> pads = w.pad_begin;
  pads.insert(pads.end(), w.pad_end.begin(), w.pad_end.end());
  return {{"strides", w.stride}, {"dilations", w.dilation}, {"pads", pads}, {"group", node.attr_int("group", 1)}};
}

// --- inference ---------------------------------------------------------------------------------

// Checks shared by all: types, ranks, groups. Returns false when shapes are not known enough.
bool check_operands(InferContext& c, int64_t& groups) {
  c.require_dtype(0, ops::kFloats);
  const bool fused = c.node().is_internal("FusedConv");  // may mix f32 and bf16
  for (size_t i = 1; i < c.input_count(); ++i)
    if (c.has_input(i) && !(fused ? ops::mixes(c.dtype(i), c.dtype(0)) : c.dtype(i) == c.dtype(0)))
      c.error("input {} has type {}, the first {}", i, dtype_name(c.dtype(i)), dtype_name(c.dtype(0)));
  groups = c.node().attr_int("group", 1);
  if (groups < 1) c.error("group is {}", groups);
  if (!c.has_dims(0) || !c.has_dims(1)) return false;
  const size_t rank = c.dims(0).size();
  if (rank < 3 || rank > 2 + kMostSpatial) c.error("input has rank {}, expected 3 to {}", rank, 2 + kMostSpatial);
  c.require_rank(1, rank);
  return true;
}

// Kernel size from the weight, checked against the attribute; nullopt while unknown.
std::optional<std::vector<int64_t>> kernel_of(InferContext& c) {
  const Dims& w = c.dims(1);
  std::vector<int64_t> kernel = c.node().attr_ints("kernel_shape");
  if (!kernel.empty() && kernel.size() != w.size() - 2)
    c.error("kernel_shape has {} values, the weight {} spatial axes", kernel.size(), w.size() - 2);
  if (kernel.empty()) {
    for (size_t i = 2; i < w.size(); ++i) {
      if (!w[i].known()) return std::nullopt;
      kernel.push_back(w[i].raw);
    }
  }
  for (size_t i = 2; i < w.size(); ++i)
    if (w[i].known() && w[i].raw != kernel[i - 2]) c.error("kernel_shape says {}, the weight has {}", kernel[i - 2], w[i].raw);
  return kernel;
}

void check_bias(InferContext& c, Dim channels) {
  c.require_rank(2, 1);
  if (c.has_dims(2) && c.dims(2)[0].known() && channels.known() && !(c.dims(2)[0] == channels))
    c.error("bias has {} elements, expected {}", c.dims(2)[0].raw, channels.raw);
}

Dim channels_of(Dim per_group, int64_t groups) { return per_group.known() ? Dim(checked_mul(per_group.raw, groups)) : per_group; }

// Padding and output size of ConvTranspose for one concrete input.
struct Transposed {
  Window window;  // explicit padding
  Shape out;      // spatial
};
Transposed transposed_of(const Node& node, std::vector<int64_t> kernel, const Shape& in) {
  Transposed t;
  t.window = ops::window_of(node, std::move(kernel));
  Window& w = t.window;
  const size_t n = w.spatial();
  std::vector<int64_t> extra = node.attr_ints("output_padding"), wanted = node.attr_ints("output_shape");
  if (extra.empty()) extra.assign(n, 0);
  if (extra.size() != n) bad_data("output_padding has {} values, expected {}", extra.size(), n);
  if (wanted.size() > n) wanted.erase(wanted.begin(), wanted.end() - static_cast<std::ptrdiff_t>(n));
  if (!wanted.empty() && wanted.size() != n) bad_data("output_shape has {} values, expected {}", wanted.size(), n);
  for (size_t i = 0; i < n; ++i) {
    if (extra[i] < 0 || extra[i] >= std::max(w.stride[i], w.dilation[i]))
      bad_data("output_padding {} must be smaller than stride or dilation", extra[i]);
    const int64_t full = checked_add(checked_mul(in[i] - 1, w.stride[i]), checked_add(extra[i], w.extent(i)));
    const bool same = w.auto_pad == "SAME_UPPER" || w.auto_pad == "SAME_LOWER";
    if (wanted.empty() && !same) {
      t.out.push_back(full - w.pad_begin[i] - w.pad_end[i]);
    } else {
      t.out.push_back(wanted.empty() ? checked_mul(in[i], w.stride[i]) : wanted[i]);
      const int64_t total = std::max<int64_t>(0, full - t.out[i]);
      w.pad_begin[i] = w.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.pad_end[i] = total - w.pad_begin[i];
    }
    if (t.out[i] < 1) bad_data("spatial axis {} would get the size {}", i, t.out[i]);
  }
  w.auto_pad = "NOTSET";
  return t;
}

void infer_conv_transpose(InferContext& c) {
  int64_t groups;
  if (!check_operands(c, groups)) return c.set_output(0, c.dtype(0));
  const Dims x = c.dims(0), w = c.dims(1);
  if (x[1].known() && w[0].known() && !(x[1] == w[0])) c.error("weight expects {} channels, input has {}", w[0].raw, x[1].raw);
  if (w[0].known() && w[0].raw % groups != 0) c.error("{} input channels do not divide into {} groups", w[0].raw, groups);
  const Dim channels = groups == 1 ? w[1] : w[1].known() ? channels_of(w[1], groups) : c.fresh_dim();
  check_bias(c, channels);
  Dims y = {x[0], channels};
  const auto kernel = kernel_of(c);
  Shape in;
  for (size_t i = 2; i < x.size() && kernel; ++i) in.push_back(x[i].known() ? x[i].raw : 1);
  if (kernel) {
    const Transposed t = transposed_of(c.node(), *kernel, in);
    for (size_t i = 0; i < kernel->size(); ++i) y.push_back(x[i + 2].known() ? Dim(t.out[i]) : c.fresh_dim());
  } else {
    for (size_t i = 2; i < x.size(); ++i) y.push_back(c.fresh_dim());
  }
  c.set_output(0, c.dtype(0), y);
}

// The convolution whose input gradient a ConvTranspose is.
ConvShape transposed_shape(const KernelQuery& q) {
  const Shape &x = q.in(0).shape, &w = q.in(1).shape;
  const Transposed t = transposed_of(q.node, spatial_of(w), spatial_of(x));
  return conv_shape(q.node, q.out(0).shape, w, x, t.window);
}

// ConvGradInput (d_y, w): attribute `shape` is x's. ConvGradWeight (x, d_y): attribute `shape` is w's.
void infer_shape_attr(InferContext& c) { c.set_output(0, c.dtype(0), to_dims(c.node().attr_ints("shape"))); }

// --- gradients ---------------------------------------------------------------------------------

ValueId bias_gradient(GradContext& g, ValueId d_y) {
  std::vector<int64_t> axes = {0};
  for (size_t i = 2; i < g.shape(d_y).size(); ++i) axes.push_back(static_cast<int64_t>(i));
  return g.emit("ReduceSum", {d_y, g.ints(axes)}, {{"keepdims", int64_t{0}}});
}

void grad_conv(GradContext& g) {
  const ValueId x = g.input(0), w = g.input(1), d_y = g.d_output(0);
  const Shape xs = g.shape(x), ws = g.shape(w);
  const Attributes attrs =
      explicit_attrs(g.node(), ops::resolve_padding(ops::window_of(g.node(), spatial_of(ws)), spatial_of(xs)));
  const auto with_shape = [&](const Shape& shape) {
    Attributes a = attrs;
    a["shape"] = shape;
    return a;
  };
  if (g.needs(0)) g.set_d_input(0, g.emit("ConvGradInput", {d_y, w}, with_shape(xs)));
  if (g.needs(1)) g.set_d_input(1, g.emit("ConvGradWeight", {x, d_y}, with_shape(ws)));
  if (g.needs(2)) g.set_d_input(2, bias_gradient(g, d_y));
}

// d_x is the convolution itself; d_w is the weight gradient with the operands' roles exchanged.
void grad_conv_transpose(GradContext& g) {
  const ValueId x = g.input(0), w = g.input(1), d_y = g.d_output(0);
  const Shape ws = g.shape(w);
  Attributes attrs = explicit_attrs(g.node(), transposed_of(g.node(), spatial_of(ws), spatial_of(g.shape(x))).window);
  if (g.needs(0)) {
    const ValueId d_x = g.emit("Conv", {d_y, w}, attrs);
    if (g.shape(d_x) != g.shape(x)) fail(ExitCode::kUnsupported, "gradient of a ConvTranspose whose output_padding reaches its stride");
    g.set_d_input(0, d_x);
  }
  attrs["shape"] = ws;
  if (g.needs(1)) g.set_d_input(1, g.emit("ConvGradWeight", {d_y, x}, attrs));
  if (g.needs(2)) g.set_d_input(2, bias_gradient(g, d_y));
}

// --- kernels -----------------------------------------------------------------------------------

using GeometryFn = ConvShape (*)(const KernelQuery&);

ConvShape grad_input_geometry(const KernelQuery& q) { return ops::conv_shape(q.node, q.out(0).shape, q.in(1).shape, q.in(0).shape); }
ConvShape grad_weight_geometry(const KernelQuery& q) { return ops::conv_shape(q.node, q.in(0).shape, q.out(0).shape, q.in(1).shape); }

template <typename T>
const T* bias_of(const KernelContext& c) {
  return c.has_input(2) ? c.input(2).data<T>() : nullptr;
}

// `body(shape, context, tag)` with the geometry worked out once.
template <typename Body>
KernelDef portable(const char* name, GeometryFn geometry, Body body) {
  KernelDef k;
  k.name = name;
  k.create = [geometry, body](const KernelQuery& q) {
    return make_kernel([s = geometry(q), body](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) { body(s, c, tag); });
    });
  };
  return k;
}

using ConvMaker = std::unique_ptr<kernels::onednn::Program> (*)(const kernels::onednn::ConvRequest&, std::string&);

// `weight`: input that holds w, -1 when it is the output.
KernelDef onednn(const char* name, GeometryFn geometry, ConvMaker make, int weight) {
  return ops::onednn_kernel(name, [geometry, make, weight](const KernelQuery& q, std::string& why) {
    kernels::onednn::ConvRequest r;
    r.shape = geometry(q);
    r.bias = q.in(2).defined();
    if (weight >= 0) r.weights = ops::constant_content(q, static_cast<size_t>(weight));
    return make(r, why);
  });
}

CostFn cost_with(GeometryFn geometry) {
  return [geometry](const KernelQuery& q) { return cost_of(geometry(q), q); };
}

void register_conv(OpRegistry& registry) {
  OpDef def;
  def.name = "Conv";
  def.min_inputs = 2;
  def.max_inputs = 3;
  def.infer = ops::infer_conv;
  def.grad = grad_conv;
  def.cost = cost_with(ops::conv_forward_shape);
  KernelDef blocked = ops::onednn_kernel("onednn/conv", [](const KernelQuery& q, std::string& why) {
    return kernels::onednn::conv_forward(ops::conv_request(q), why);
  });
  blocked.preferred_layouts = [](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    ops::conv_layouts(ops::conv_request(q), inputs, outputs);
  };
  def.kernels = {ops::depthwise_conv_avx512(), ops::depthwise_conv_avx2(), ops::winograd_conv(2), ops::winograd_conv(4), ops::tile_conv(), blocked, portable("portable/conv", ops::conv_forward_shape, [](const ConvShape& s, const KernelContext& c, auto tag) {
    using T = decltype(tag);
    kernels::conv_forward<T>(s, c.input(0).data<T>(), c.input(1).data<T>(), bias_of<T>(c), c.output(0).mutable_data<T>());
  })};
  def.widens_halves = true;
  registry.add(std::move(def));
}

void register_conv_transpose(OpRegistry& registry) {
  OpDef def;
  def.name = "ConvTranspose";
  def.min_inputs = 2;
  def.max_inputs = 3;
  def.infer = infer_conv_transpose;
  def.grad = grad_conv_transpose;
  def.cost = cost_with(transposed_shape);
  def.kernels = {ops::tile_conv_transpose(), onednn("onednn/conv_transpose", transposed_shape, kernels::onednn::conv_grad_input, 1), portable("portable/conv_transpose", transposed_shape, [](const ConvShape& s, const KernelContext& c, auto tag) {
    using T = decltype(tag);
    kernels::conv_grad_input<T>(s, c.input(0).data<T>(), c.input(1).data<T>(), bias_of<T>(c), c.output(0).mutable_data<T>());
  })};
  def.widens_halves = true;
  registry.add(std::move(def));
}

void register_conv_gradients(OpRegistry& registry) {
  OpDef input;
  input.domain = Graph::kInternalDomain;
  input.name = "ConvGradInput";  // (d_y, w) -> d_x
  input.min_inputs = input.max_inputs = 2;
  input.infer = infer_shape_attr;
  input.cost = cost_with(grad_input_geometry);
  input.kernels = {onednn("onednn/conv_grad_input", grad_input_geometry, kernels::onednn::conv_grad_input, 1), portable("portable/conv_grad_input", grad_input_geometry, [](const ConvShape& s, const KernelContext& c, auto tag) {
    using T = decltype(tag);
    kernels::conv_grad_input<T>(s, c.input(0).data<T>(), c.input(1).data<T>(), nullptr, c.output(0).mutable_data<T>());
  })};
  input.widens_halves = true;
  registry.add(std::move(input));

  OpDef weight;
  weight.domain = Graph::kInternalDomain;
  weight.name = "ConvGradWeight";  // (x, d_y) -> d_w
  weight.min_inputs = weight.max_inputs = 2;
  weight.infer = infer_shape_attr;
  weight.cost = cost_with(grad_weight_geometry);
  weight.kernels = {onednn("onednn/conv_grad_weight", grad_weight_geometry, kernels::onednn::conv_grad_weight, -1), portable("portable/conv_grad_weight", grad_weight_geometry, [](const ConvShape& s, const KernelContext& c, auto tag) {
    using T = decltype(tag);
    kernels::conv_grad_weight<T>(s, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>());
  })};
  weight.widens_halves = true;
  registry.add(std::move(weight));
}

}  // namespace

// --- shared with fused convolutions ------------------------------------------------------------

kernels::ConvShape ops::conv_shape(const Node& node, const Shape& x, const Shape& w, const Shape& y) {
  return ds::conv_shape(node, x, w, y, resolve_padding(window_of(node, spatial_of(w)), spatial_of(x)));
}

kernels::ConvShape ops::conv_forward_shape(const KernelQuery& q) {
  return conv_shape(q.node, q.in(0).shape, q.in(1).shape, q.out(0).shape);
}

kernels::onednn::ConvRequest ops::conv_request(const KernelQuery& q) {
  kernels::onednn::ConvRequest r;
  r.shape = conv_forward_shape(q);
  r.src_block = block_of(q.in(0).layout);
  r.dst_block = block_of(q.out(0).layout);
  r.bias = q.in(2).defined();
  r.weights = constant_content(q, 1);
  return r;
}

void ops::conv_layouts(const kernels::onednn::ConvRequest& request, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
  const kernels::onednn::Blocks blocks = kernels::onednn::preferred_blocks(request);
  inputs[0] = layout_of(blocks.src);
  outputs[0] = layout_of(blocks.dst);
  if (inputs.size() > 3) inputs[3] = outputs[0];
}

Cost ops::conv_cost(const KernelQuery& q) { return cost_of(conv_forward_shape(q), q); }

void ops::infer_conv(InferContext& c) {
  int64_t groups;
  if (!check_operands(c, groups)) return c.set_output(0, c.dtype(0));
  const Dims x = c.dims(0), w = c.dims(1);
  if (x[1].known() && w[1].known() && x[1].raw != checked_mul(w[1].raw, groups))
    c.error("weight expects {} channels, input has {}", w[1].raw * groups, x[1].raw);
  if (w[0].known() && w[0].raw % groups != 0) c.error("{} output channels do not divide into {} groups", w[0].raw, groups);
  check_bias(c, w[0]);
  Dims y = {x[0], w[0]};
  const auto kernel = kernel_of(c);
  if (!kernel) {
    for (size_t i = 2; i < x.size(); ++i) y.push_back(c.fresh_dim());
  } else {
    const Window window = ops::window_of(c.node(), *kernel);
    for (size_t i = 0; i < kernel->size(); ++i) y.push_back(ops::output_dim(c, window, i, x[i + 2]));
  }
  c.set_output(0, c.dtype(0), y);
}

void register_conv_ops(OpRegistry& registry) {
  register_conv(registry);
  register_conv_transpose(registry);
  register_conv_gradients(registry);
}

}  // namespace ds
