// Internal 8-bit operators that passes/fuse_qdq.h puts in place of DequantizeLinear -> op -> QuantizeLinear.
//
// Activations with spatial axes are [N, H, W, C]. Scales and zero points of activations are attributes
// (x_scale, x_zero, y_scale, y_zero; QAdd: a_scale, ...), those of weights constant inputs. `output` is the
// dtype of the result: u8 or i8 (rescaled, kept within lo..hi), or f32 for QConv and QMatMul (dequantized,
// cut at zero when `relu`).
//
//   QConv, QMatMul  x, w, w_scale, w_zero?, bias i32?, bias f32?, addend?    -> y
//   QAdd            a, b -> y       QTable  x, table u8[256] -> y
//   QMaxPool        x -> y          QGlobalAveragePool  x -> y [N, 1, 1, C]
//
// An 8-bit addend has y's type and shape and is added to the quantized result as QAdd does it: a_scale is the scale of
// the result (its zero point is y_zero), b_scale and b_zero are the addend's, sum_scale, sum_zero, sum_lo, sum_hi of the
// sum. With an attribute `activation` (ops/epilogue.h; may be empty) an f32 addend and the activation are applied in float,
// before the result is quantized if it is.
#include <algorithm>

#include "kernels/packed_product.h"
#include "kernels/qgemm.h"
#include "kernels/quant.h"
#include "libds/base/parallel.h"
#include "libds/ir/packed_cache.h"
#include "libds/ops/epilogue.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::QBytes;
using kernels::NhwcConv;
using kernels::QOutput;
using kernels::QRescale;
using ops::Window;

constexpr std::initializer_list<DType> kBytes = {DType::kU8, DType::kI8};

DType output_dtype(const Node& node) { return static_cast<DType>(node.attr_int("output", static_cast<int64_t>(DType::kU8))); }
int32_t attr_i32(const Node& node, const char* key) { return static_cast<int32_t>(node.attr_int(key, 0)); }
kernels::QParams params(const Node& node, const std::string& prefix) {
  return {node.attr_float(prefix + "_scale", 1.0f), attr_i32(node, (prefix + "_zero").c_str())};
}

// Bounds of an 8-bit result: its type's, narrowed by attributes lo and hi (a Relu or Clip that was folded in).
std::pair<int32_t, int32_t> bounds(const Node& node, const char* low = "lo", const char* high = "hi") {
  const bool is_signed = output_dtype(node) == DType::kI8;
  const int64_t lo = is_signed ? -128 : 0, hi = is_signed ? 127 : 255;
  return {static_cast<int32_t>(std::max(lo, node.attr_int(low, lo))), static_cast<int32_t>(std::min(hi, node.attr_int(high, hi)))};
}

// --- QConv, QMatMul -------------------------------------------------------------------------------

constexpr size_t kAddend = 6;

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
  bool matrix = false;  // w is [K, N] instead of [M, C/G, KH, KW]

  const int32_t* zeros() const { return w_zero.empty() ? nullptr : w_zero.data(); }
  bool w_signed() const { return w.dtype() == DType::kI8; }
  QBytes bytes(const Tensor& x) const { return {x.raw(), x.dtype() == DType::kI8, x_zero}; }
  QRescale rescale_of(const KernelContext& c) const {
    QRescale q = rescale;
    if (c.has_input(kAddend)) q.addend = c.input(kAddend).raw();
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
  const float x_scale = q.node.attr_float("x_scale", 1.0f), y_scale = q.node.attr_float("y_scale", 1.0f);
  const DType output = output_dtype(q.node);
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
  const auto [lo, hi] = bounds(q.node);
  r.lo = lo;
  r.hi = hi;
  r.addend_stride = shape.out_channels;
  if (is_real(q.node)) {
    r.real = true;
    r.epilogue = ops::epilogue_of(q.node);
    r.inverse_scale = 1.0f / y_scale;
  } else {
    const auto a = params(q.node, "a"), b = params(q.node, "b"), sum = params(q.node, "sum");
    const auto [least, most] = bounds(q.node, "sum_lo", "sum_hi");
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
  size_t workspace_bytes() const override { return kernels::qconv_workspace(p_->shape, threads_); }
  size_t packed_bytes() const override { return packed_.made ? packed_->bytes() : 0; }
  void run(const KernelContext& c) override {
    kernels::qconv(isa_, p_->shape, p_->bytes(c.input(0)), *packed_, p_->rescale_of(c), c.output(0).mutable_raw(), threads_, c.workspace());
  }

 private:
  std::shared_ptr<Prepared> p_;
  const kernels::QGemmIsa& isa_;
  int threads_;
  Packing<kernels::QPackedWeights> packed_;
};

// Hands the sums of tiles to the rescaling.
class RescaleSink final : public kernels::ProductSink {
 public:
  RescaleSink(Isa level, const QRescale& q, int64_t channels, void* y)
      : level_(level), q_(q), row_bytes_(channels * static_cast<int64_t>(kernels::output_size(q.output))), y_(static_cast<std::byte*>(y)) {}

  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    const auto element = static_cast<int64_t>(kernels::output_size(q_.output));
    const auto* from = static_cast<const int32_t*>(sums);
    std::byte* to = y_ + row * row_bytes_;
    if (level_ >= Isa::kAvx512)
      return kernels::qrescale_avx512(rows, columns, from, stride, kernels::at_block(q_, row, column), to + column * element, row_bytes_);
    for (int64_t c = 0; c < columns; c += kernels::kPanelColumns)
      kernels::avx2_qgemm().rescale(rows, std::min(kernels::kPanelColumns, columns - c), from + c, stride, kernels::at_block(q_, row, column + c),
                                    to + (column + c) * element, row_bytes_);
  }

 private:
  Isa level_;
  const QRescale& q_;
  int64_t row_bytes_;
  std::byte* y_;
};

// Tiles of 8-bit products (kernels/tile.h). They multiply unsigned by signed: a signed activation is shifted by 128, and
// what zero points add to the sums is taken from the bias.
class TileKernel final : public Kernel {
 public:
  TileKernel(const KernelQuery& q, std::shared_ptr<Prepared> p, const kernels::TileIsa& isa)
      : p_(std::move(p)), level_(q.isa), isa_(isa), threads_(q.threads) {
    packed_ = pack_once(q, 1, kernels::packing_form(isa_, p_->shape, p_->matrix), [&] {
      return kernels::pack_product(kernels::TileType::kU8S8, isa_, p_->shape, p_->matrix, q.for_sizes ? nullptr : p_->w.raw(),
                                   p_->w_signed() ? kernels::WeightType::kS8 : kernels::WeightType::kU8Shifted);
    });
    p_->w = Tensor();
    const DType x = q.in(0).dtype;
    type_ = x == DType::kI8 ? kernels::ActivationType::kS8 : kernels::ActivationType::kU8;
    zero_ = p_->x_zero + (x == DType::kI8 ? 128 : 0);
    p_->bias.resize(packed_->column_sums.size());
    for (size_t m = 0; m < p_->bias.size(); ++m)
      p_->bias[m] = static_cast<int32_t>(static_cast<uint32_t>(p_->bias[m]) -
                                         static_cast<uint32_t>(zero_) * static_cast<uint32_t>(packed_->column_sums[m]));
    p_->rescale.bias = p_->bias.data();
  }
  size_t workspace_bytes() const override { return kernels::product_workspace(isa_, p_->shape, *packed_, type_, threads_); }
  size_t packed_bytes() const override { return packed_.made ? packed_->bytes() : 0; }
  void run(const KernelContext& c) override {
    const QRescale rescale = p_->rescale_of(c);
    const RescaleSink sink(level_, rescale, p_->shape.out_channels, c.output(0).mutable_raw());
    kernels::packed_product(isa_, p_->shape, {c.input(0).raw(), type_, static_cast<uint8_t>(zero_)}, *packed_, sink, threads_, c.workspace());
  }

 private:
  std::shared_ptr<Prepared> p_;
  Isa level_;
  const kernels::TileIsa& isa_;
  int threads_;
  Packing<kernels::PackedWeights> packed_;
  kernels::ActivationType type_;
  int32_t zero_ = 0;
};

class DepthwiseKernel final : public Kernel {
 public:
  DepthwiseKernel(const KernelQuery& q, std::shared_ptr<Prepared> p)
      : p_(std::move(p)), threads_(q.threads), taps_(pack_once(q, 1, form_of("qdepthwise", *p_), [&] {
          return kernels::pack_depthwise(p_->shape, p_->w.raw(), p_->w_signed(), p_->zeros());
        })) {
    p_->w = Tensor();
  }
  size_t workspace_bytes() const override { return kernels::qdepthwise_workspace(p_->shape, threads_); }
  size_t packed_bytes() const override { return taps_.made ? taps_->size() * sizeof(int16_t) : 0; }
  void run(const KernelContext& c) override {
    kernels::qconv_depthwise(kernels::avx2_qdepthwise(), kernels::avx2_qgemm(), p_->shape, p_->bytes(c.input(0)), *taps_, p_->rescale_of(c),
                             c.output(0).mutable_raw(), threads_, c.workspace());
  }

 private:
  std::shared_ptr<Prepared> p_;
  int threads_;
  Packing<std::vector<int16_t>> taps_;
};

// Whether w is [K, N] instead of one row per output channel.
bool is_matrix(const Node& node) { return node.op == "QMatMul" && node.attr_int("trans_b", 0) == 0; }

using ShapeOf = std::function<NhwcConv(const KernelQuery&)>;

// Weights have zero point 0, or 128 when they are unsigned.
std::string needs_symmetric_weights(const KernelQuery& q) {
  const double wanted = q.in(1).dtype == DType::kI8 ? 0 : 128;
  if (q.constant(3) == nullptr) return ops::require(wanted == 0, "unsigned weights without a zero point");
  const std::vector<double> zeros = q.constant(3)->to_doubles();
  return ops::require(std::all_of(zeros.begin(), zeros.end(), [&](double z) { return z == wanted; }), "weights have a zero point");
}

// Each result is written after its addend was read.
const std::vector<InPlace> kOntoAddend = {{static_cast<int>(kAddend), 0}};

KernelDef tile_kernel(const char* name, ShapeOf shape_of) {
  KernelDef k;
  k.name = name;
  k.isa = Isa::kAvx2;
  k.in_place = kOntoAddend;
  k.decline = [shape_of](const KernelQuery& q) {
    std::string why = needs_constants(q);
    if (why.empty()) why = needs_symmetric_weights(q);
    const kernels::TileIsa& isa = *kernels::tile_isa(kernels::TileType::kU8S8, q.isa);
    if (!why.empty() || !isa.saturates) return why;
    const auto given = q.in(1).dtype == DType::kI8 ? kernels::WeightType::kS8 : kernels::WeightType::kU8Shifted;
    return ops::require(kernels::pairs_fit(isa, shape_of(q), is_matrix(q.node), q.constant(1)->transient().raw(), given), "pairs of products do not fit 16 bits");
  };
  k.create = [shape_of](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    auto p = prepare(q, shape_of(q));
    p->matrix = is_matrix(q.node);
    return std::make_unique<TileKernel>(q, std::move(p), *kernels::tile_isa(kernels::TileType::kU8S8, q.isa));
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
      kernels::qconv_reference(p->shape, p->bytes(c.input(0)), p->w.raw(), p->w_signed(), p->zeros(), p->rescale_of(c), c.output(0).mutable_raw());
    });
  };
  return k;
}

void check_result(InferContext& c) {
  c.require_dtype(0, kBytes);
  c.require_dtype(1, kBytes);
  const DType out = output_dtype(c.node());
  if (out != DType::kU8 && out != DType::kI8 && out != DType::kF32) c.error("output type {} is not supported", dtype_name(out));
}

// Sets a result that an addend, if there is one, must be like.
void set_result(InferContext& c, Dims dims) {
  if (c.node().input(kAddend) != kNone) {
    if (c.dtype(kAddend) != (is_real(c.node()) ? DType::kF32 : output_dtype(c.node()))) c.error("the addend has another type than the result");
    if (c.has_dims(kAddend) && all_known(c.dims(kAddend)) && all_known(dims) && c.dims(kAddend) != dims) c.error("the addend has another shape than the result");
  }
  c.set_output(0, output_dtype(c.node()), std::move(dims));
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
  def.max_inputs = 7;
  def.infer = [](InferContext& c) {
    check_result(c);
    c.require_rank(0, 4);
    c.require_rank(1, 4);
    if (!c.has_dims(0) || !c.has_dims(1) || !all_known(c.dims(1))) return c.set_output(0, output_dtype(c.node()));
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
  def.max_inputs = 7;
  def.infer = [](InferContext& c) {
    check_result(c);
    c.require_rank(1, 2);
    if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, output_dtype(c.node()));
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

// --- pointwise and pooling ------------------------------------------------------------------------------

// Calls f with a byte of the right signedness.
template <typename F>
void dispatch_bytes(DType dtype, F&& f) {
  if (dtype == DType::kI8) f(int8_t{});
  else f(uint8_t{});
}

void register_qadd(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "QAdd";
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, kBytes);
    if (c.dtype(1) != c.dtype(0) || output_dtype(c.node()) != c.dtype(0)) c.error("operands and result differ in type");
    if (c.has_dims(0) && c.has_dims(1) && all_known(c.dims(0)) && all_known(c.dims(1)) && c.dims(0) != c.dims(1)) c.error("operands differ in shape");
    ops::infer_same_as_input(c);
  };
  KernelDef k;
  k.name = "portable/qadd";
  k.in_place = {{0, 0}, {1, 0}};
  k.create = [](const KernelQuery& q) {
    const auto a = params(q.node, "a"), b = params(q.node, "b"), y = params(q.node, "y");
    return make_kernel([a, b, y, bounds = bounds(q.node)](const KernelContext& c) {
      dispatch_bytes(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::quant_add(c.input(0).numel(), c.input(0).data<T>(), a, c.input(1).data<T>(), b, y, bounds.first, bounds.second, c.output(0).mutable_data<T>());
      });
    });
  };
  KernelDef vectors = k;
  vectors.name = "avx2/qadd";
  vectors.isa = Isa::kAvx2;
  vectors.create = [](const KernelQuery& q) {
    const auto a = params(q.node, "a"), b = params(q.node, "b"), y = params(q.node, "y");
    return make_kernel([a, b, y, bounds = bounds(q.node)](const KernelContext& c) {
      parallel_for(c.input(0).numel(), 1 << 15, [&](int64_t begin, int64_t end) {
        if (c.input(0).dtype() == DType::kI8)
          kernels::quant_add_i8_avx2(end - begin, c.input(0).data<int8_t>() + begin, a, c.input(1).data<int8_t>() + begin, b, y,
                                     bounds.first, bounds.second, c.output(0).mutable_data<int8_t>() + begin);
        else
          kernels::quant_add_u8_avx2(end - begin, c.input(0).data<uint8_t>() + begin, a, c.input(1).data<uint8_t>() + begin, b, y,
                                     bounds.first, bounds.second, c.output(0).mutable_data<uint8_t>() + begin);
      });
    });
  };
  def.kernels = {vectors, k};
  registry.add(std::move(def));
}

void register_qtable(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "QTable";
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, kBytes);
    c.require_dtype(1, {DType::kU8});
    if (c.has_dims(1) && c.dims(1) != Dims{256}) c.error("the table must have 256 entries");
    c.set_output(0, output_dtype(c.node()), c.input(0).dims);
  };
  KernelDef k;
  k.name = "portable/qtable";
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      kernels::byte_table(c.input(0).numel(), static_cast<const uint8_t*>(c.input(0).raw()), c.input(1).data<uint8_t>(),
                          static_cast<uint8_t*>(c.output(0).mutable_raw()));
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

kernels::QPoolShape pool_shape(const KernelQuery& q) {
  const Shape &x = q.in(0).shape, &y = q.out(0).shape;
  const Window w = ops::resolve_padding(ops::window_of(q.node, q.node.attr_ints("kernel_shape")), Shape{x[1], x[2]});
  return {x[0], x[1], x[2], x[3], y[1], y[2], w.kernel[0], w.kernel[1], w.stride[0], w.stride[1], w.dilation[0], w.dilation[1], w.pad_begin[0], w.pad_begin[1]};
}

void register_qpool(OpRegistry& registry) {
  OpDef max;
  max.domain = Graph::kInternalDomain;
  max.name = "QMaxPool";
  max.min_inputs = max.max_inputs = 1;
  max.infer = [](InferContext& c) {
    c.require_dtype(0, kBytes);
    c.require_rank(0, 4);
    if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
    const Dims x = c.dims(0);
    const Window window = ops::window_of(c.node(), c.node().attr_ints("kernel_shape"));
    c.set_output(0, c.dtype(0), Dims{x[0], ops::output_dim(c, window, 0, x[1]), ops::output_dim(c, window, 1, x[2]), x[3]});
  };
  KernelDef k;
  k.name = "portable/qmax_pool";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = pool_shape(q)](const KernelContext& c) {
      dispatch_bytes(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::quant_max_pool(s, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  KernelDef vectors = k;
  vectors.name = "avx2/qmax_pool";
  vectors.isa = Isa::kAvx2;
  vectors.create = [](const KernelQuery& q) {
    return make_kernel([s = pool_shape(q)](const KernelContext& c) {
      kernels::quant_max_pool_avx2(s, c.input(0).dtype() == DType::kI8, static_cast<const uint8_t*>(c.input(0).raw()),
                                   static_cast<uint8_t*>(c.output(0).mutable_raw()));
    });
  };
  max.kernels = {vectors, k};
  registry.add(std::move(max));

  OpDef mean;
  mean.domain = Graph::kInternalDomain;
  mean.name = "QGlobalAveragePool";
  mean.min_inputs = mean.max_inputs = 1;
  mean.infer = [](InferContext& c) {
    c.require_dtype(0, kBytes);
    c.require_rank(0, 4);
    if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
    c.set_output(0, c.dtype(0), Dims{c.dims(0)[0], 1, 1, c.dims(0)[3]});
  };
  KernelDef m;
  m.name = "portable/qglobal_average_pool";
  m.create = [](const KernelQuery& q) {
    const Shape x = q.in(0).shape;
    return make_kernel([x, px = params(q.node, "x"), py = params(q.node, "y")](const KernelContext& c) {
      dispatch_bytes(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::quant_global_average(x[0], x[1] * x[2], x[3], c.input(0).data<T>(), px, py, c.output(0).mutable_data<T>());
      });
    });
  };
  KernelDef summed = m;
  summed.name = "avx2/qglobal_average_pool";
  summed.isa = Isa::kAvx2;
  summed.decline = [](const KernelQuery& q) {
    return ops::require(q.in(0).dim(1) * q.in(0).dim(2) < kernels::kMostAveragedPixels, "sums of more than 32 bits");
  };
  summed.create = [](const KernelQuery& q) {
    const Shape x = q.in(0).shape;
    return make_kernel([x, px = params(q.node, "x"), py = params(q.node, "y")](const KernelContext& c) {
      kernels::quant_global_average_avx2(x[0], x[1] * x[2], x[3], c.input(0).dtype() == DType::kI8, static_cast<const uint8_t*>(c.input(0).raw()),
                                         px, py, static_cast<uint8_t*>(c.output(0).mutable_raw()));
    });
  };
  mean.kernels = {summed, m};
  registry.add(std::move(mean));
}

}  // namespace

void register_qfused_ops(OpRegistry& registry) {
  register_qconv(registry);
  register_qmatmul(registry);
  register_qadd(registry);
  register_qtable(registry);
  register_qpool(registry);
}

}  // namespace ds
