// Internal 8-bit operators that passes/fuse_qdq.h puts in place of DequantizeLinear -> op -> QuantizeLinear.
//
// Activations with spatial axes are [N, H, W, C]. Scales and zero points of activations are attributes
// (x_scale, x_zero, y_scale, y_zero; of two operands a_scale, ...), those of weights constant inputs. `output` is the
// dtype of the result: u8 or i8 (rescaled, kept within lo..hi), or f32 for QConv and QMatMul (dequantized,
// cut at zero when `relu`).
//
//   QConv, QMatMul  x, w, w_scale, w_zero?, bias i32?, bias f32?, addend?    -> y
//
// The operators that look at single elements or windows: ops/qpointwise.cc.
//
// An 8-bit addend has y's type and shape and is added to the quantized result as QAdd does it: a_scale is the scale of
// the result (its zero point is y_zero), b_scale and b_zero are the addend's, sum_scale, sum_zero, sum_lo, sum_hi of the
// sum. With an attribute `activation` (ops/epilogue.h; may be empty) an f32 addend and the activation are applied in float,
// before the result is quantized if it is.
//
// Where x was quantized by what it holds (DynamicQuantizeLinear; passes/fuse_dynamic_quant.h), its scale and zero point
// are operands: x_scale f32 (input 7) and x_zero of x's type (input 8). The rescaled sums are floats then.
#include <algorithm>

#include "kernels/qgemm.h"
#include "libds/ir/packed_cache.h"
#include "libds/ops/epilogue.h"
#include "libds/ops/qparams.h"
#include "libds/ops/qtile.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::QBytes;
using kernels::NhwcConv;
using kernels::QOutput;
using kernels::QRescale;
using ops::attr_i32;
using ops::kQuantized;
using ops::quant_bounds;
using ops::quant_params;
using ops::quantized_output;
using ops::Window;

constexpr size_t kAddend = 6, kScale = 7, kZero = 8;

// Whether what follows the product is computed in float.
bool is_real(const Node& node) { return node.has_attr("activation"); }

// Constant operands in the form that the kernels want; lives as long as the kernel.
struct Prepared {
  NhwcConv shape;
  Tensor w;
  std::vector<int32_t> w_zero, bias;
  std::vector<float> multiplier, float_bias;
  int32_t x_zero = 0;
  QRescale rescale;
  bool matrix = false;   // w is [K, N] instead of [M, C/G, KH, KW]
  bool dynamic = false;  // x's scale and zero point are operands; `multiplier` lacks the scale

  const int32_t* zeros() const { return w_zero.empty() ? nullptr : w_zero.data(); }
  bool w_signed() const { return w.dtype() == DType::kI8; }
  int32_t zero_of(const KernelContext& c) const {
    if (!dynamic || !c.has_input(kZero)) return x_zero;
    const Tensor& zero = c.input(kZero);
    return zero.dtype() == DType::kI8 ? *zero.data<int8_t>() : *zero.data<uint8_t>();
  }
  QBytes bytes(const KernelContext& c) const { return {c.input(0).raw(), c.input(0).dtype() == DType::kI8, zero_of(c)}; }
  // What rescale_of() needs of the workspace, in whole lines.
  size_t rescale_bytes() const { return dynamic ? (multiplier.size() * sizeof(float) + 63) / 64 * 64 : 0; }
  QRescale rescale_of(const KernelContext& c, std::byte* workspace) const {
    QRescale q = rescale;
    if (c.has_input(kAddend)) q.addend = c.input(kAddend).raw();
    if (dynamic) {
      const float scale = *c.input(kScale).data<float>();
      auto* scaled = reinterpret_cast<float*>(workspace);
      for (size_t m = 0; m < multiplier.size(); ++m) scaled[m] = scale * multiplier[m];
      q.multiplier = scaled;
    }
    return q;
  }
};

// Constants 1 to 5 of the query, per output channel.
std::shared_ptr<Prepared> prepare(const KernelQuery& q, const NhwcConv& shape) {
  auto p = std::make_shared<Prepared>();
  p->shape = shape;
  p->w = q.constant(1)->transient();  // most kernels pack it and let it go
  p->x_zero = attr_i32(q.node, "x_zero");
  const auto channels = static_cast<size_t>(shape.out_channels);
  const auto spread = [&](std::vector<double> values) {
    if (values.size() == 1) values.assign(channels, values[0]);
    DS_CHECK(values.size() == channels);
    return values;
  };
  p->dynamic = q.in(kScale).defined();
  const float x_scale = p->dynamic ? 1.0f : q.node.attr_float("x_scale", 1.0f), y_scale = q.node.attr_float("y_scale", 1.0f);
  const DType output = quantized_output(q.node);
  const bool real = output == DType::kF32 || is_real(q.node);  // the rescaled sums
  for (double s : spread(q.constant(2)->to_doubles())) {
    const float product = x_scale * static_cast<float>(s);
    p->multiplier.push_back(real ? product : product / y_scale);
  }
  if (q.constant(3) != nullptr) {
    for (double z : spread(q.constant(3)->to_doubles())) p->w_zero.push_back(static_cast<int32_t>(z));
    if (std::all_of(p->w_zero.begin(), p->w_zero.end(), [](int32_t z) { return z == 0; })) p->w_zero.clear();
  }
  if (q.constant(4) != nullptr)
    for (double b : spread(q.constant(4)->to_doubles())) p->bias.push_back(static_cast<int32_t>(b));
  if (q.constant(5) != nullptr)
    for (double b : spread(q.constant(5)->to_doubles()))
      p->float_bias.push_back(real ? static_cast<float>(b) : static_cast<float>(b) / y_scale);
  QRescale& r = p->rescale;
  r.bias = p->bias.empty() ? nullptr : p->bias.data();
  r.multiplier = p->multiplier.data();
  r.float_bias = p->float_bias.empty() ? nullptr : p->float_bias.data();
  r.relu = q.node.attr_int("relu", 0) != 0;
  r.zero = attr_i32(q.node, "y_zero");
  r.output = output == DType::kF32 ? QOutput::kF32 : output == DType::kI8 ? QOutput::kI8 : QOutput::kU8;
  const auto [lo, hi] = quant_bounds(q.node);
  r.lo = lo;
  r.hi = hi;
  r.addend_stride = shape.out_channels;
  if (is_real(q.node)) {
    r.real = true;
    r.epilogue = ops::epilogue_of(q.node);
    r.inverse_scale = 1.0f / y_scale;
  } else {
    const auto a = quant_params(q.node, "a"), b = quant_params(q.node, "b"), sum = quant_params(q.node, "sum");
    const auto [least, most] = quant_bounds(q.node, "sum_lo", "sum_hi");
    r.addition = {a.scale / sum.scale, b.scale / sum.scale, b.zero, sum.zero, least, most};
  }
  return p;
}

std::string needs_constants(const KernelQuery& q) {
  for (size_t i = 1; i < std::min(q.inputs.size(), kAddend); ++i)
    if (q.inputs[i].defined() && q.constant(i) == nullptr) return "weights and scales must be constant";
  return {};
}

// What the packing of a kernel depends on beside its weights; zero points are subtracted in it.
std::string form_of(const char* kernel, const Prepared& p) {
  const NhwcConv& s = p.shape;
  return fmt::format("{} {} {} {} {} {} {} {} {}", kernel, p.matrix, s.channels, s.out_channels, s.kernel_h, s.kernel_w, s.dilation_w, s.groups,
                     fmt::join(p.w_zero, ","));
}

// Widened, reordered weights and the blocked loop.
class PackedKernel final : public Kernel {
 public:
  PackedKernel(const KernelQuery& q, std::shared_ptr<Prepared> p, const kernels::QGemmIsa& isa)
      : p_(std::move(p)), isa_(isa), threads_(q.threads) {
    packed_ = pack_once(q, 1, form_of("qgemm", *p_), [&] {
      const void* w = p_->w.raw();
      return p_->matrix ? kernels::pack_matrix(p_->shape.channels, p_->shape.out_channels, w, p_->w_signed(), p_->zeros())
                        : kernels::pack_weights(p_->shape, w, p_->w_signed(), p_->zeros());
    });
    p_->w = Tensor();
  }
  size_t workspace_bytes() const override { return p_->rescale_bytes() + kernels::qconv_workspace(p_->shape, threads_); }
  size_t packed_bytes() const override { return packed_.made ? packed_->bytes() : 0; }
  void run(const KernelContext& c) override {
    kernels::qconv(isa_, p_->shape, p_->bytes(c), *packed_, p_->rescale_of(c, c.workspace()), c.output(0).mutable_raw(), threads_,
                   c.workspace() + p_->rescale_bytes());
  }

 private:
  std::shared_ptr<Prepared> p_;
  const kernels::QGemmIsa& isa_;
  int threads_;
  Packing<kernels::QPackedWeights> packed_;
};

// Tiles of 8-bit products (ops/qtile.h).
class TileKernel final : public Kernel {
 public:
  TileKernel(const KernelQuery& q, std::shared_ptr<Prepared> p) : p_(std::move(p)), tiles_(q, 1, 3, p_->w, p_->shape, p_->matrix) {
    p_->w = Tensor();
    if (p_->dynamic) return;
    const std::vector<int32_t> given = p_->bias;
    p_->bias.resize(tiles_.columns());
    tiles_.take_zero(p_->x_zero, given.empty() ? nullptr : given.data(), p_->bias.data());
    p_->rescale.bias = p_->bias.data();
  }
  size_t workspace_bytes() const override { return bias_bytes() + p_->rescale_bytes() + tiles_.workspace_bytes(); }
  size_t packed_bytes() const override { return tiles_.packed_bytes(); }
  void run(const KernelContext& c) override {
    std::byte* workspace = c.workspace();
    QRescale rescale = p_->rescale_of(c, workspace);
    workspace += p_->rescale_bytes();
    const int32_t zero = p_->zero_of(c);
    if (p_->dynamic) {
      auto* bias = reinterpret_cast<int32_t*>(workspace);
      tiles_.take_zero(zero, rescale.bias, bias);
      rescale.bias = bias;
      workspace += bias_bytes();
    }
    tiles_.run(c.input(0), zero, rescale, c.output(0).mutable_raw(), workspace);
  }

 private:
  size_t bias_bytes() const { return p_->dynamic ? (tiles_.columns() * sizeof(int32_t) + 63) / 64 * 64 : 0; }

  std::shared_ptr<Prepared> p_;
  ops::QTiles tiles_;
};

class DepthwiseKernel final : public Kernel {
 public:
  DepthwiseKernel(const KernelQuery& q, std::shared_ptr<Prepared> p)
      : p_(std::move(p)),
        rescale_(q.isa >= Isa::kAvx512 ? kernels::qrescale_avx512 : kernels::avx2_qgemm().rescale),
        threads_(q.threads),
        taps_(pack_once(q, 1, form_of("qdepthwise", *p_), [&] {
          return kernels::pack_depthwise(p_->shape, p_->w.raw(), p_->w_signed(), p_->zeros());
        })) {
    p_->w = Tensor();
  }
  size_t workspace_bytes() const override { return p_->rescale_bytes() + kernels::qdepthwise_workspace(p_->shape, threads_); }
  size_t packed_bytes() const override { return taps_.made ? taps_->size() * sizeof(int16_t) : 0; }
  void run(const KernelContext& c) override {
    kernels::qconv_depthwise(kernels::avx2_qdepthwise(), rescale_, p_->shape, p_->bytes(c), *taps_,
                             p_->rescale_of(c, c.workspace()), c.output(0).mutable_raw(), threads_, c.workspace() + p_->rescale_bytes());
  }

 private:
  std::shared_ptr<Prepared> p_;
  kernels::QRescaleFn* rescale_;
  int threads_;
  Packing<std::vector<int16_t>> taps_;
};

// Whether w is [K, N] instead of one row per output channel.
bool is_matrix(const Node& node) { return node.op == "QMatMul" && node.attr_int("trans_b", 0) == 0; }

using ShapeOf = std::function<NhwcConv(const KernelQuery&)>;

// Each result is written after its addend was read.
const std::vector<InPlace> kOntoAddend = {{static_cast<int>(kAddend), 0}};

KernelDef tile_kernel(const char* name, ShapeOf shape_of) {
  KernelDef k;
  k.name = name;
  k.isa = Isa::kAvx2;
  k.in_place = kOntoAddend;
  k.decline = [shape_of](const KernelQuery& q) {
    const std::string why = needs_constants(q);
    return why.empty() ? ops::not_for_tiles(q, 1, 3, shape_of(q), is_matrix(q.node)) : why;
  };
  k.create = [shape_of](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    auto p = prepare(q, shape_of(q));
    p->matrix = is_matrix(q.node);
    return std::make_unique<TileKernel>(q, std::move(p));
  };
  return k;
}

KernelDef packed_kernel(const char* name, ShapeOf shape_of) {
  KernelDef k;
  k.name = name;
  k.isa = Isa::kAvx2;
  k.in_place = kOntoAddend;
  k.decline = needs_constants;
  k.create = [shape_of](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    auto p = prepare(q, shape_of(q));
    p->matrix = is_matrix(q.node);
    return std::make_unique<PackedKernel>(q, std::move(p), kernels::avx2_qgemm());
  };
  return k;
}

KernelDef reference_kernel(const char* name, ShapeOf shape_of) {
  KernelDef k;
  k.name = name;
  k.in_place = kOntoAddend;
  k.decline = needs_constants;
  k.create = [shape_of](const KernelQuery& q) {
    auto p = prepare(q, shape_of(q));
    if (is_matrix(q.node)) {
      // The reference wants one row per output.
      const int64_t depth = p->shape.channels, columns = p->shape.out_channels;
      Tensor turned = Tensor::empty(p->w.dtype(), {columns, depth});
      for (int64_t i = 0; i < depth; ++i)
        for (int64_t j = 0; j < columns; ++j)
          static_cast<std::byte*>(turned.mutable_raw())[j * depth + i] = static_cast<const std::byte*>(p->w.raw())[i * columns + j];
      p->w = turned;
    }
    return make_kernel([p](const KernelContext& c) {
      kernels::qconv_reference(p->shape, p->bytes(c), p->w.raw(), p->w_signed(), p->zeros(), p->rescale_of(c, c.workspace()), c.output(0).mutable_raw());
    }, p->rescale_bytes());
  };
  return k;
}

void check_result(InferContext& c) {
  c.require_dtype(0, kQuantized);
  c.require_dtype(1, kQuantized);
  const DType out = quantized_output(c.node());
  if (out != DType::kU8 && out != DType::kI8 && out != DType::kF32) c.error("output type {} is not supported", dtype_name(out));
}

// Operands kScale and kZero, of one value each.
void check_dynamic(InferContext& c) {
  if (!c.has_input(kScale)) {
    if (c.has_input(kZero)) c.error("a zero point of x without a scale");
    return;
  }
  c.require_dtype(kScale, {DType::kF32});
  c.require_dtype(kZero, {c.dtype(0)});
  for (size_t i : {kScale, kZero})
    if (c.has_input(i) && c.has_dims(i) && all_known(c.dims(i)) && checked_numel(concrete(c.dims(i))) != 1) c.error("x has several scales or zero points");
  if (quantized_output(c.node()) != DType::kF32 && !is_real(c.node())) c.error("x has a scale that is not known before, and the result is not in float");
}

// Sets a result that an addend, if there is one, must be like.
void set_result(InferContext& c, Dims dims) {
  if (c.node().input(kAddend) != kNone) {
    if (c.dtype(kAddend) != (is_real(c.node()) ? DType::kF32 : quantized_output(c.node()))) c.error("the addend has another type than the result");
    if (c.has_dims(kAddend) && all_known(c.dims(kAddend)) && all_known(dims) && c.dims(kAddend) != dims) c.error("the addend has another shape than the result");
  }
  c.set_output(0, quantized_output(c.node()), std::move(dims));
}

Window nhwc_window(const Node& node, int64_t kernel_h, int64_t kernel_w) { return ops::window_of(node, {kernel_h, kernel_w}); }

NhwcConv qconv_shape(const KernelQuery& q) {
  const Shape &x = q.in(0).shape, &w = q.in(1).shape, &y = q.out(0).shape;
  const Window window = ops::resolve_padding(nhwc_window(q.node, w[2], w[3]), Shape{x[1], x[2]});
  NhwcConv s;
  s.batch = x[0];
  s.height = x[1];
  s.width = x[2];
  s.channels = x[3];
  s.out_height = y[1];
  s.out_width = y[2];
  s.out_channels = y[3];
  s.kernel_h = w[2];
  s.kernel_w = w[3];
  s.stride_h = window.stride[0];
  s.stride_w = window.stride[1];
  s.dilation_h = window.dilation[0];
  s.dilation_w = window.dilation[1];
  s.pad_top = window.pad_begin[0];
  s.pad_left = window.pad_begin[1];
  s.groups = q.node.attr_int("group", 1);
  return s;
}

void register_qconv(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "QConv";
  def.min_inputs = 3;
  def.max_inputs = 9;
  def.infer = [](InferContext& c) {
    check_result(c);
    check_dynamic(c);
    c.require_rank(0, 4);
    c.require_rank(1, 4);
    if (!c.has_dims(0) || !c.has_dims(1) || !all_known(c.dims(1))) return c.set_output(0, quantized_output(c.node()));
    const Dims x = c.dims(0);
    const Shape w = concrete(c.dims(1));
    const int64_t groups = c.node().attr_int("group", 1);
    if (x[3].known() && x[3].raw != checked_mul(w[1], groups)) c.error("weight expects {} channels, input has {}", w[1] * groups, x[3].raw);
    const Window window = nhwc_window(c.node(), w[2], w[3]);
    set_result(c, Dims{x[0], ops::output_dim(c, window, 0, x[1]), ops::output_dim(c, window, 1, x[2]), w[0]});
  };
  def.cost = [](const KernelQuery& q) {
    const Shape& w = q.in(1).shape;
    return Cost{2 * checked_mul(q.out(0).numel(), w[1] * w[2] * w[3]), ops::operand_bytes(q)};
  };
  KernelDef depthwise;
  depthwise.name = "avx2/qconv_depthwise";
  depthwise.isa = Isa::kAvx2;
  depthwise.in_place = kOntoAddend;
  depthwise.decline = [](const KernelQuery& q) {
    const std::string reason = needs_constants(q);
    if (!reason.empty()) return reason;
    return ops::require(q.in(1).dim(1) == 1 && q.in(1).dim(0) == q.in(0).dim(3), "not depthwise");
  };
  depthwise.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    return std::make_unique<DepthwiseKernel>(q, prepare(q, qconv_shape(q)));
  };
  def.kernels = {depthwise, tile_kernel("tile/qconv", qconv_shape), packed_kernel("avx2/qconv", qconv_shape), reference_kernel("portable/qconv", qconv_shape)};
  registry.add(std::move(def));
}

NhwcConv qmatmul_shape(const KernelQuery& q) {
  const int64_t depth = q.in(0).dim(-1), columns = q.out(0).dim(-1);
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < q.in(0).shape.size(); ++i) rows = checked_mul(rows, q.in(0).shape[i]);
  return kernels::matmul_shape(rows, depth, columns);
}

void register_qmatmul(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "QMatMul";  // x [..., K], w [K, N] (trans_b: [N, K])
  def.min_inputs = 3;
  def.max_inputs = 9;
  def.infer = [](InferContext& c) {
    check_result(c);
    check_dynamic(c);
    c.require_rank(1, 2);
    if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, quantized_output(c.node()));
    Dims out = c.dims(0);
    const bool turned = c.node().attr_int("trans_b", 0) != 0;
    if (out.empty()) c.error("a scalar has no rows");
    const Dim depth = c.dims(1)[turned ? 1 : 0];
    if (out.back().known() && depth.known() && out.back() != depth) c.error("inner sizes differ: {} and {}", out.back().raw, depth.raw);
    out.back() = c.dims(1)[turned ? 0 : 1];
    set_result(c, std::move(out));
  };
  def.cost = [](const KernelQuery& q) { return Cost{2 * checked_mul(q.out(0).numel(), q.in(0).dim(-1)), ops::operand_bytes(q)}; };
  def.kernels = {tile_kernel("tile/qmatmul", qmatmul_shape), packed_kernel("avx2/qmatmul", qmatmul_shape), reference_kernel("portable/qmatmul", qmatmul_shape)};
  registry.add(std::move(def));
}

}  // namespace

void register_qfused_ops(OpRegistry& registry) {
  register_qconv(registry);
  register_qmatmul(registry);
}

}  // namespace ds
