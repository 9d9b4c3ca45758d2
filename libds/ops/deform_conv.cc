// DeformConv: the columns it reads (internal operator DeformColumns) times the weight. 2-D only, as in
// the ONNX reference and onnxruntime.
//
// Legend: x [N, C, H, W], w [M, C/G, kernel...], offset [N, OG*K*2, out...], mask [N, OG*K, out...],
// columns [N, C*K, P]; K taps, P output positions.
#include "kernels/deform.h"
#include "libds/ops/lowering.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::DeformShape;
using ops::Lowering;

std::string whole_float(const KernelQuery& q) { return ops::require(!is_half(q.in(0).dtype), "16-bit float"); }

// --- DeformColumns (x, offset, mask?) ---------------------------------------------------------------

DeformShape deform_shape(const Node& n, const Shape& x, const Shape& offset) {
  const std::vector<int64_t> kernel = n.attr_ints("kernel_shape"), stride = n.attr_ints("strides"), dilation = n.attr_ints("dilations"),
                             pads = n.attr_ints("pads");
  DeformShape s;
  s.batch = x[0];
  s.channels = x[1];
  s.height = x[2];
  s.width = x[3];
  s.out_h = offset[2];
  s.out_w = offset[3];
  s.kernel_h = kernel[0];
  s.kernel_w = kernel[1];
  s.stride_h = stride[0];
  s.stride_w = stride[1];
  s.dilation_h = dilation[0];
  s.dilation_w = dilation[1];
  s.pad_top = pads[0];
  s.pad_left = pads[1];
  s.offset_groups = n.attr_int("offset_group", 1);
  return s;
}

void infer_columns(InferContext& c) {
  if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, c.dtype(0));
  const Dims x = c.dims(0), offset = c.dims(1);
  const std::vector<int64_t> kernel = c.node().attr_ints("kernel_shape");
  const Dim rows = x[1].known() ? Dim(x[1].raw * kernel[0] * kernel[1]) : c.fresh_dim();
  const Dim points = offset[2].known() && offset[3].known() ? Dim(checked_mul(offset[2].raw, offset[3].raw)) : c.fresh_dim();
  c.set_output(0, c.dtype(0), Dims{x[0], rows, points});
}

enum class Wanted { kX, kOffset, kMask };
constexpr const char* kGradNames[] = {"DeformColumnsGradX", "DeformColumnsGradOffset", "DeformColumnsGradMask"};

void register_columns(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "DeformColumns";
  def.min_inputs = 2;
  def.max_inputs = 3;
  def.infer = infer_columns;
  def.grad = [](GradContext& g) {
    if (g.d_output(0) == kNone) return;
    const Attributes attrs = g.node().attrs;
    const ValueId x = g.input(0), offset = g.input(1), mask = g.input(2), d = g.d_output(0);
    for (size_t i = 0; i < 3; ++i)
      if (g.needs(i) && g.input(i) != kNone) g.set_d_input(i, g.emit(kGradNames[i], {d, x, offset, mask}, attrs));
  };
  KernelDef k;
  k.name = "portable/deform_columns";
  k.decline = whole_float;
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = deform_shape(q.node, q.in(0).shape, q.in(1).shape)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::deform_columns<T>(s, c.input(0).data<T>(), c.input(1).data<T>(), c.has_input(2) ? c.input(2).data<T>() : nullptr,
                                   c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  for (const Wanted wanted : {Wanted::kX, Wanted::kOffset, Wanted::kMask}) {  // (d_columns, x, offset, mask?)
    OpDef grad;
    grad.domain = Graph::kInternalDomain;
    grad.name = kGradNames[static_cast<int>(wanted)];
    grad.min_inputs = 3;
    grad.max_inputs = 4;
    grad.infer = [wanted](InferContext& c) { c.set_output(0, c.dtype(0), c.input(1 + static_cast<size_t>(wanted)).dims); };
    KernelDef gk;
    gk.name = "portable/" + grad.name;
    gk.decline = whole_float;
    gk.create = [wanted](const KernelQuery& q) {
      return make_kernel([s = deform_shape(q.node, q.in(1).shape, q.in(2).shape), wanted](const KernelContext& c) {
        dispatch_float(c.input(0).dtype(), [&](auto tag) {
          using T = decltype(tag);
          const T *d = c.input(0).data<T>(), *x = c.input(1).data<T>(), *offset = c.input(2).data<T>();
          const T* mask = c.has_input(3) ? c.input(3).data<T>() : nullptr;
          T* out = c.output(0).mutable_data<T>();
          if (wanted == Wanted::kX) kernels::deform_columns_grad_x<T>(s, offset, mask, d, out);
          else if (wanted == Wanted::kOffset) kernels::deform_columns_grad_offset<T>(s, x, offset, mask, d, out);
          else kernels::deform_columns_grad_mask<T>(s, x, offset, d, out);
        });
      });
    };
    grad.kernels = {gk};
    registry.add(std::move(grad));
  }
}

// --- DeformConv (x, w, offset, bias?, mask?) --------------------------------------------------------

// Kernel size, from the attribute or the weight; nullopt while unknown.
std::optional<std::vector<int64_t>> kernel_of(const Node& n, const std::optional<Dims>& w) {
  std::vector<int64_t> kernel = n.attr_ints("kernel_shape");
  if (kernel.empty() && w && w->size() == 4 && (*w)[2].known() && (*w)[3].known()) kernel = {(*w)[2].raw, (*w)[3].raw};
  if (kernel.empty()) return std::nullopt;
  if (kernel.size() != 2) fail(ExitCode::kUnsupported, "only two spatial axes are supported");
  return kernel;
}

void infer_deform_conv(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
  for (size_t i = 1; i < c.input_count(); ++i)
    if (c.has_input(i) && c.dtype(i) != c.dtype(0)) c.error("input {} has type {}, the first {}", i, dtype_name(c.dtype(i)), dtype_name(c.dtype(0)));
  const int64_t groups = c.node().attr_int("group", 1), offset_groups = c.node().attr_int("offset_group", 1);
  if (groups < 1 || offset_groups < 1) c.error("group is {}, offset_group {}", groups, offset_groups);
  if (!c.has_dims(0) || !c.has_dims(1) || !c.has_dims(2)) return c.set_output(0, c.dtype(0));
  const Dims x = c.dims(0), w = c.dims(1), offset = c.dims(2);
  if (x.size() != 4) fail(ExitCode::kUnsupported, "{}: only two spatial axes are supported", c.node().label());
  c.require_rank(1, 4);
  c.require_rank(2, 4);
  if (x[1].known() && w[1].known() && x[1].raw != checked_mul(w[1].raw, groups)) c.error("weight expects {} channels, input has {}", w[1].raw * groups, x[1].raw);
  if (w[0].known() && w[0].raw % groups != 0) c.error("{} output channels do not divide into {} groups", w[0].raw, groups);
  if (x[1].known() && x[1].raw % offset_groups != 0) c.error("{} channels do not divide into {} offset groups", x[1].raw, offset_groups);
  if (x[0].known() && offset[0].known() && x[0] != offset[0]) c.error("batch sizes are {} and {}", x[0].raw, offset[0].raw);
  Dims y = {x[0], w[0], offset[2], offset[3]};
  if (const auto kernel = kernel_of(c.node(), w)) {
    const int64_t taps = checked_mul(checked_mul((*kernel)[0], (*kernel)[1]), offset_groups);
    for (size_t i = 0; i < 2; ++i)
      if (w[i + 2].known() && w[i + 2].raw != (*kernel)[i]) c.error("kernel_shape says {}, the weight has {}", (*kernel)[i], w[i + 2].raw);
    if (offset[1].known() && offset[1].raw != checked_mul(2, taps)) c.error("offset has {} channels, expected {}", offset[1].raw, 2 * taps);
    const ops::Window window = ops::window_of(c.node(), *kernel);
    for (size_t i = 0; i < 2; ++i) {
      const Dim expected = ops::output_dim(c, window, i, x[i + 2]);
      if (expected.known() && offset[i + 2].known() && expected != offset[i + 2]) c.error("offset has {} positions on spatial axis {}, expected {}", offset[i + 2].raw, i, expected.raw);
      if (expected.known()) y[i + 2] = expected;
    }
    if (c.has_dims(4)) {
      c.require_rank(4, 4);
      if (c.dims(4)[1].known() && c.dims(4)[1].raw != taps) c.error("mask has {} channels, expected {}", c.dims(4)[1].raw, taps);
      for (size_t i : {0, 2, 3})
        if (c.dims(4)[i].known() && offset[i].known() && c.dims(4)[i] != offset[i]) c.error("mask and offset differ on axis {}", i);
    }
  }
  if (c.has_dims(3)) c.require_rank(3, 1);
  c.set_output(0, c.dtype(0), y);
}

bool lower_deform_conv(Rewriter& rw, NodeId id) {
  Lowering l(rw, id);
  const ValueId x = l.in(0), w = l.in(1), offset = l.in(2);
  const std::optional<Dims> wd = l.dims(w);
  if (!wd || !all_known(*wd) || !l.dims(x) || !l.dims(offset)) return false;
  const Shape ws = concrete(*wd);
  const int64_t groups = l.node().attr_int("group", 1), m = ws[0], rows = ws[1] * ws[2] * ws[3];
  const ops::Window window = ops::window_of(l.node(), *kernel_of(l.node(), wd));
  std::vector<int64_t> pads = window.pad_begin;
  pads.insert(pads.end(), window.pad_end.begin(), window.pad_end.end());
  std::vector<ValueId> operands = {x, offset};
  if (l.has(4)) operands.push_back(l.in(4));
  ValueId columns = l.emit("DeformColumns", operands,
                           {{"kernel_shape", window.kernel}, {"strides", window.stride}, {"dilations", window.dilation}, {"pads", pads},
                            {"offset_group", l.node().attr_int("offset_group", 1)}});
  columns = l.emit("Reshape", {columns, l.ints({0, groups, rows, -1})});
  const ValueId weight = l.emit("Reshape", {w, l.ints({groups, m / groups, rows})});
  const ValueId product = l.emit("MatMul", {weight, columns});  // [N, G, M/G, P]
  const ValueId batch = l.emit("Shape", {x}, {{"start", int64_t{0}}, {"end", int64_t{1}}});
  const ValueId plane = l.emit("Shape", {offset}, {{"start", int64_t{2}}, {"end", int64_t{4}}});
  ValueId y = l.emit("Reshape", {product, l.emit("Concat", {batch, l.ints({m}), plane}, {{"axis", int64_t{0}}})});
  if (l.has(3)) y = l.emit("Add", {y, l.emit("Reshape", {l.in(3), l.ints({m, 1, 1})})});
  l.set(0, y);
  return true;
}

}  // namespace

void register_deform_conv_ops(OpRegistry& registry) {
  register_columns(registry);
  OpDef def;
  def.name = "DeformConv";
  def.min_inputs = 3;
  def.max_inputs = 5;
  def.infer = infer_deform_conv;
  def.lower = lower_deform_conv;
  registry.add(std::move(def));
}

}  // namespace ds
