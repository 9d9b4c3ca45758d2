// ONNX quantization operators: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, and the integer products
// MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv. Their portable kernels are the definition in plain
// loops; graphs run fast through the fused operators of passes/fuse_qdq.h.
#include <algorithm>

#include "kernels/integer.h"
#include "kernels/quant.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::QuantSpace;
using kernels::ZeroPoints;
using ops::Window;

// Calls f with a value of the stored type.
template <typename F>
void dispatch_stored(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kU8: return f(uint8_t{});
    case DType::kI8: return f(int8_t{});
    case DType::kU16: return f(uint16_t{});
    case DType::kI16: return f(int16_t{});
    case DType::kI32: return f(int32_t{});
    default: bad_data("quantized type {} is not supported", dtype_name(dtype));
  }
}

QuantSpace quant_space(const Node& node, const Shape& x, const Shape& scale) {
  QuantSpace s;
  s.inner = checked_numel(x);
  s.block = node.attr_int("block_size", 0);
  if (s.block == 0 && checked_numel(scale) == 1) return s;
  const auto axis = static_cast<size_t>(ops::normalize_axis(node.attr_int("axis", 1), static_cast<int64_t>(x.size())));
  s.axis = x[axis];
  s.inner = 1;
  for (size_t i = 0; i < x.size(); ++i) (i < axis ? s.outer : i == axis ? s.axis : s.inner) *= i == axis ? 1 : x[i];
  return s;
}

// Scale (input 1) must be a scalar, one per position of the axis, or one per block; the zero point (input 2) alike.
void check_scale(InferContext& c) {
  c.require_dtype(1, {DType::kF32});
  const int64_t block = c.node().attr_int("block_size", 0);
  if (block < 0) c.error("block_size is {}", block);
  if (c.has_input(2) && c.has_dims(1) && c.has_dims(2) && all_known(c.dims(1)) && all_known(c.dims(2)) && c.dims(1) != c.dims(2) &&
      checked_numel(concrete(c.dims(1))) != checked_numel(concrete(c.dims(2))))
    c.error("scale is {}, zero point {}", shape_string(concrete(c.dims(1))), shape_string(concrete(c.dims(2))));
  if (!c.has_dims(0) || !c.has_dims(1) || !all_known(c.dims(1))) return;
  const Dims x = c.dims(0);
  const Shape scale = concrete(c.dims(1));
  if (block == 0 && checked_numel(scale) == 1) return;
  const auto axis = static_cast<size_t>(ops::normalize_axis(c.node().attr_int("axis", 1), static_cast<int64_t>(x.size())));
  if (block == 0) {
    if (scale.size() != 1) c.error("scale is {}, expected a scalar or a vector", shape_string(scale));
    if (x[axis].known() && x[axis].raw != scale[0]) c.error("{} scales for axis {} of size {}", scale[0], axis, x[axis].raw);
    return;
  }
  if (scale.size() != x.size()) c.error("blocked scale has rank {}, the data {}", scale.size(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    if (!x[i].known()) continue;
    const int64_t expected = i == axis ? (x[i].raw + block - 1) / block : x[i].raw;
    if (scale[i] != expected) c.error("blocked scale has size {} on axis {}, expected {}", scale[i], i, expected);
  }
}

void register_quantize(OpRegistry& registry) {
  OpDef def;
  def.name = "QuantizeLinear";
  def.min_inputs = 2;
  def.max_inputs = 3;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kF32, DType::kI32});
    check_scale(c);
    const auto attr = static_cast<DType>(c.node().attr_int("output_dtype", 0));
    const DType dtype = c.has_input(2) ? c.dtype(2) : attr != DType::kUndefined ? attr : DType::kU8;
    if (dtype != DType::kU8 && dtype != DType::kI8 && dtype != DType::kU16 && dtype != DType::kI16)
      c.error("quantized type {} is not supported", dtype_known(static_cast<int32_t>(dtype)) ? dtype_name(dtype) : "of this number");
    c.set_output(0, dtype, c.input(0).dims);
  };
  KernelDef k;
  k.name = "portable/quantize";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = quant_space(q.node, q.in(0).shape, q.in(1).shape)](const KernelContext& c) {
      dispatch_stored(c.output(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const T* zero = c.has_input(2) ? c.input(2).data<T>() : nullptr;
        const float* scale = c.input(1).data<float>();
        T* y = c.output(0).mutable_data<T>();
        if (c.input(0).dtype() == DType::kF32) kernels::quantize(s, c.input(0).data<float>(), scale, zero, y);
        else kernels::quantize(s, c.input(0).data<int32_t>(), scale, zero, y);
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef inverse;
  inverse.name = "DequantizeLinear";
  inverse.min_inputs = 2;
  inverse.max_inputs = 3;
  inverse.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kU8, DType::kI8, DType::kU16, DType::kI16, DType::kI32});
    check_scale(c);
    if (c.has_input(2) && c.dtype(2) != c.dtype(0))
      c.error("the zero point has type {}, the data {}", dtype_name(c.dtype(2)), dtype_name(c.dtype(0)));
    c.set_output(0, DType::kF32, c.input(0).dims);
  };
  KernelDef d;
  d.name = "portable/dequantize";
  d.create = [](const KernelQuery& q) {
    return make_kernel([s = quant_space(q.node, q.in(0).shape, q.in(1).shape)](const KernelContext& c) {
      dispatch_stored(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::dequantize(s, c.input(0).data<T>(), c.input(1).data<float>(), c.has_input(2) ? c.input(2).data<T>() : nullptr,
                            c.output(0).mutable_data<float>());
      });
    });
  };
  inverse.kernels = {d};
  registry.add(std::move(inverse));

  OpDef dynamic;
  dynamic.name = "DynamicQuantizeLinear";  // x -> y, scale, zero point
  dynamic.min_inputs = dynamic.max_inputs = 1;
  dynamic.min_outputs = dynamic.max_outputs = 3;
  dynamic.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kF32});
    c.set_output(0, DType::kU8, c.input(0).dims);
    c.set_output(1, DType::kF32, Dims{});
    c.set_output(2, DType::kU8, Dims{});
  };
  KernelDef y;
  y.name = "portable/dynamic_quantize";
  y.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      kernels::dynamic_quantize(c.input(0).numel(), c.input(0).data<float>(), c.output(0).mutable_data<uint8_t>(),
                                c.output(1).mutable_data<float>(), c.output(2).mutable_data<uint8_t>());
    });
  };
  dynamic.kernels = {y};
  registry.add(std::move(dynamic));
}

// --- integer products ---------------------------------------------------------------------------

constexpr std::initializer_list<DType> kBytes = {DType::kU8, DType::kI8};

ZeroPoints zero_points(const KernelContext& c, size_t i) {
  if (!c.has_input(i)) return {};
  return {c.input(i).raw(), c.input(i).dtype() == DType::kI8, c.input(i).numel()};
}

// numpy matmul of a and b.
void infer_product(InferContext& c, size_t a, size_t b, DType dtype) {
  if (!c.has_dims(a) || !c.has_dims(b)) return c.set_output(0, dtype);
  const Dims x = c.dims(a), y = c.dims(b);
  if (x.size() < 2 || y.size() < 2) c.error("operands need at least two axes");
  const Dim inner = x.back(), other = y[y.size() - 2];
  if (inner.known() && other.known() && inner != other) c.error("inner sizes differ: {} and {}", inner.raw, other.raw);
  Dims out = ops::broadcast_dims(c, Dims(x.begin(), x.end() - 2), Dims(y.begin(), y.end() - 2));
  out.push_back(x[x.size() - 2]);
  out.push_back(y.back());
  c.set_output(0, dtype, std::move(out));
}

// Products of a batch: element offsets of a and b for output matrix i.
struct ProductShape {
  int64_t rows, columns, depth, matrices;
  std::vector<int64_t> a_offset, b_offset;
};

ProductShape product_shape(const Shape& a, const Shape& b, const Shape& out) {
  ProductShape s;
  s.rows = a[a.size() - 2];
  s.depth = a.back();
  s.columns = b.back();
  const Shape batch(out.begin(), out.end() - 2);
  s.matrices = checked_numel(batch);
  for (int64_t i = 0; i < s.matrices; ++i) {
    int64_t rest = i, at = 0, bt = 0, as = 1, bs = 1;
    for (size_t d = 0; d < batch.size(); ++d) {  // from the innermost batch axis out
      const int64_t index = rest % batch[batch.size() - 1 - d];
      rest /= batch[batch.size() - 1 - d];
      if (d + 2 < a.size()) {
        const int64_t n = a[a.size() - 3 - d];
        at += n == 1 ? 0 : index * as;
        as *= n;
      }
      if (d + 2 < b.size()) {
        const int64_t n = b[b.size() - 3 - d];
        bt += n == 1 ? 0 : index * bs;
        bs *= n;
      }
    }
    s.a_offset.push_back(at * s.rows * s.depth);
    s.b_offset.push_back(bt * s.depth * s.columns);
  }
  return s;
}

const void* bytes_at(const Tensor& t, int64_t offset) { return static_cast<const std::byte*>(t.raw()) + offset; }

void check_zero_length(InferContext& c, size_t i, Dim expected, const char* what) {
  if (!c.has_dims(i) || !all_known(c.dims(i)) || !expected.known()) return;
  const int64_t n = checked_numel(concrete(c.dims(i)));
  if (n != 1 && n != expected.raw) c.error("{} has {} values, expected one or {}", what, n, expected.raw);
}

// Constant right operand, widened and reordered once; the left zero point is read in every run.
class PackedMatMulInteger final : public Kernel {
 public:
  explicit PackedMatMulInteger(const KernelQuery& q) : threads_(q.threads) {
    const Tensor b = q.constant(1)->transient();
    std::vector<int32_t> zero;
    if (const Tensor* z = q.constant(3)) {
      for (int64_t v : z->to_ints()) zero.push_back(static_cast<int32_t>(v));
      if (zero.size() == 1) zero.assign(static_cast<size_t>(b.dim(1)), zero[0]);
    }
    const int64_t depth = b.dim(0), rows = depth == 0 ? 0 : q.in(0).numel() / depth;
    shape_ = kernels::matmul_shape(rows, depth, b.dim(1));
    packed_ = kernels::pack_matrix(depth, b.dim(1), b.raw(), b.dtype() == DType::kI8, zero.empty() ? nullptr : zero.data());
    rescale_.output = kernels::QOutput::kI32;
  }
  size_t workspace_bytes() const override { return kernels::qconv_workspace(shape_, threads_); }
  size_t packed_bytes() const override { return packed_.bytes(); }
  void run(const KernelContext& c) override {
    const kernels::QBytes a = {c.input(0).raw(), c.input(0).dtype() == DType::kI8, zero_points(c, 2).at(0)};
    kernels::qconv(kernels::avx2_qgemm(), shape_, a, packed_, rescale_, c.output(0).mutable_raw(), threads_, c.workspace());
  }

 private:
  int threads_;
  kernels::QConvShape shape_;
  kernels::QPackedWeights packed_;
  kernels::QRescale rescale_;
};

void register_matmul_integer(OpRegistry& registry) {
  OpDef def;
  def.name = "MatMulInteger";  // a, b, a zero point, b zero point
  def.min_inputs = 2;
  def.max_inputs = 4;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, kBytes);
    c.require_dtype(1, kBytes);
    for (size_t i : {0, 1})
      if (c.has_input(i + 2) && c.dtype(i + 2) != c.dtype(i)) c.error("zero point {} has type {}, its operand {}", i, dtype_name(c.dtype(i + 2)), dtype_name(c.dtype(i)));
    if (c.has_dims(0) && c.dims(0).size() >= 2) check_zero_length(c, 2, c.dims(0)[c.dims(0).size() - 2], "the zero point of a");
    if (c.has_dims(1) && !c.dims(1).empty()) check_zero_length(c, 3, c.dims(1).back(), "the zero point of b");
    infer_product(c, 0, 1, DType::kI32);
  };
  def.cost = [](const KernelQuery& q) {
    return Cost{2 * checked_mul(q.out(0).numel(), q.in(0).dim(-1)), ops::operand_bytes(q)};
  };
  KernelDef k;
  k.name = "portable/matmul_integer";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = product_shape(q.in(0).shape, q.in(1).shape, q.out(0).shape)](const KernelContext& c) {
      for (int64_t i = 0; i < s.matrices; ++i) {
        const auto u = static_cast<size_t>(i);
        kernels::integer_matmul(s.rows, s.columns, s.depth, bytes_at(c.input(0), s.a_offset[u]), c.input(0).dtype() == DType::kI8,
                                zero_points(c, 2), bytes_at(c.input(1), s.b_offset[u]), c.input(1).dtype() == DType::kI8,
                                zero_points(c, 3), c.output(0).mutable_data<int32_t>() + i * s.rows * s.columns);
      }
    });
  };
  KernelDef packed;
  packed.name = "avx2/matmul_integer";
  packed.isa = Isa::kAvx2;
  packed.decline = [](const KernelQuery& q) {
    if (q.constant(1) == nullptr || q.constant(1)->rank() != 2 || q.constant(1)->numel() == 0) return std::string("b is not a constant matrix");
    if (q.in(3).defined() && q.constant(3) == nullptr) return std::string("the zero point of b is not constant");
    return ops::require(!q.in(2).defined() || q.in(2).numel() == 1, "a has a zero point per row");
  };
  packed.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> { return std::make_unique<PackedMatMulInteger>(q); };
  def.kernels = {packed, k};
  registry.add(std::move(def));
}

// Geometry of the channels-first convolution x, w -> y.
kernels::ConvShape conv_shape(const Node& node, const Shape& x, const Shape& w, const Shape& y) {
  const Shape in(x.begin() + 2, x.end());
  const Window window = ops::resolve_padding(ops::window_of(node, Shape(w.begin() + 2, w.end())), in);
  kernels::ConvShape s;
  s.spatial = static_cast<int>(in.size());
  s.batch = x[0];
  s.groups = node.attr_int("group", 1);
  s.in_channels = x[1];
  s.out_channels = w[0];
  for (size_t i = 0; i < in.size(); ++i) {
    const size_t d = i + 3 - in.size();
    s.in[d] = in[i];
    s.out[d] = y[i + 2];
    s.kernel[d] = window.kernel[i];
    s.stride[d] = window.stride[i];
    s.dilation[d] = window.dilation[i];
    s.pad_begin[d] = window.pad_begin[i];
    s.pad_end[d] = window.pad_end[i];
  }
  return s;
}

// Output of the convolution of input `x` with weight `w` (positions in the input list).
void infer_convolution(InferContext& c, size_t xi, size_t wi, DType dtype) {
  c.require_dtype(xi, kBytes);
  c.require_dtype(wi, kBytes);
  const int64_t groups = c.node().attr_int("group", 1);
  if (groups < 1) c.error("group is {}", groups);
  if (!c.has_dims(xi) || !c.has_dims(wi)) return c.set_output(0, dtype);
  const Dims x = c.dims(xi), w = c.dims(wi);
  if (x.size() < 3 || x.size() > 5) c.error("input has rank {}, expected 3 to 5", x.size());
  if (w.size() != x.size()) c.error("input has rank {}, the weight {}", x.size(), w.size());
  if (x[1].known() && w[1].known() && x[1].raw != checked_mul(w[1].raw, groups))
    c.error("weight expects {} channels, input has {}", w[1].raw * groups, x[1].raw);
  if (w[0].known() && w[0].raw % groups != 0) c.error("{} output channels do not divide into {} groups", w[0].raw, groups);
  Dims y = {x[0], w[0]};
  std::vector<int64_t> kernel;
  for (size_t i = 2; i < w.size(); ++i)
    if (w[i].known()) kernel.push_back(w[i].raw);
  const std::vector<int64_t> declared = c.node().attr_ints("kernel_shape");
  if (kernel.size() + 2 < w.size()) kernel = declared;
  if (!declared.empty() && declared != kernel) c.error("kernel_shape and the weight's shape differ");
  if (kernel.size() + 2 != w.size()) {
    for (size_t i = 2; i < x.size(); ++i) y.push_back(c.fresh_dim());
  } else {
    const Window window = ops::window_of(c.node(), kernel);
    for (size_t i = 0; i < kernel.size(); ++i) y.push_back(ops::output_dim(c, window, i, x[i + 2]));
  }
  c.set_output(0, dtype, std::move(y));
}

Cost convolution_cost(const KernelQuery& q, size_t w) {
  const Shape& weight = q.in(w).shape;
  int64_t per_output = 1;
  for (size_t i = 1; i < weight.size(); ++i) per_output = checked_mul(per_output, weight[i]);
  return Cost{2 * checked_mul(q.out(0).numel(), per_output), ops::operand_bytes(q)};
}

void register_conv_integer(OpRegistry& registry) {
  OpDef def;
  def.name = "ConvInteger";  // x, w, x zero point, w zero point
  def.min_inputs = 2;
  def.max_inputs = 4;
  def.infer = [](InferContext& c) {
    infer_convolution(c, 0, 1, DType::kI32);
    check_zero_length(c, 2, 1, "the zero point of x");
    if (c.has_dims(1)) check_zero_length(c, 3, c.dims(1)[0], "the zero point of w");
  };
  def.cost = [](const KernelQuery& q) { return convolution_cost(q, 1); };
  KernelDef k;
  k.name = "portable/conv_integer";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = conv_shape(q.node, q.in(0).shape, q.in(1).shape, q.out(0).shape)](const KernelContext& c) {
      kernels::integer_conv(s, c.input(0).raw(), c.input(0).dtype() == DType::kI8, zero_points(c, 2).at(0), c.input(1).raw(),
                            c.input(1).dtype() == DType::kI8, zero_points(c, 3), c.output(0).mutable_data<int32_t>());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// Rescaling into a quantized output: zero point and bounds of its type.
kernels::QRescale rescale_to(const Tensor& y, int32_t zero) {
  kernels::QRescale q;
  const bool is_signed = y.dtype() == DType::kI8;
  q.output = is_signed ? kernels::QOutput::kI8 : kernels::QOutput::kU8;
  q.zero = zero;
  q.lo = is_signed ? -128 : 0;
  q.hi = is_signed ? 127 : 255;
  return q;
}

float scale_at(const Tensor& t, int64_t i) { return t.data<float>()[t.numel() == 1 ? 0 : i]; }

void check_qlinear(InferContext& c, std::initializer_list<size_t> scales, size_t y_zero) {
  for (size_t i : scales) {
    c.require_dtype(i, {DType::kF32});
    if (c.dtype(i + 1) != c.dtype(i - 1) && i != y_zero - 1)
      c.error("the zero point of input {} has type {}, the input {}", i - 1, dtype_name(c.dtype(i + 1)), dtype_name(c.dtype(i - 1)));
  }
  c.require_dtype(y_zero, kBytes);
  check_zero_length(c, y_zero - 1, 1, "the scale of y");
  check_zero_length(c, y_zero, 1, "the zero point of y");
}

void register_qlinear_matmul(OpRegistry& registry) {
  OpDef def;
  def.name = "QLinearMatMul";  // a, scale, zero, b, scale, zero, y scale, y zero
  def.min_inputs = def.max_inputs = 8;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, kBytes);
    c.require_dtype(3, kBytes);
    check_qlinear(c, {1, 4, 6}, 7);
    for (size_t i : {1, 2}) check_zero_length(c, i, 1, "a scale or zero point of a");
    if (c.has_dims(3) && !c.dims(3).empty())
      for (size_t i : {4, 5}) check_zero_length(c, i, c.dims(3).back(), "a scale or zero point of b");
    infer_product(c, 0, 3, c.dtype(7));
  };
  def.cost = [](const KernelQuery& q) {
    return Cost{2 * checked_mul(q.out(0).numel(), q.in(0).dim(-1)), ops::operand_bytes(q)};
  };
  KernelDef k;
  k.name = "portable/qlinear_matmul";
  k.create = [](const KernelQuery& q) {
    const ProductShape s = product_shape(q.in(0).shape, q.in(3).shape, q.out(0).shape);
    // Workspace: the sums, then a multiplier per column.
    const size_t sums_bytes = static_cast<size_t>(checked_mul(checked_mul(s.rows, s.columns), 4));
    return make_kernel([s, sums_bytes](const KernelContext& c) {
      auto* sums = reinterpret_cast<int32_t*>(c.workspace());
      auto* multiplier = reinterpret_cast<float*>(c.workspace() + sums_bytes);
      for (int64_t n = 0; n < s.columns; ++n)
        multiplier[n] = c.input(1).data<float>()[0] * scale_at(c.input(4), n) / c.input(6).data<float>()[0];
      kernels::QRescale rescale = rescale_to(c.output(0), zero_points(c, 7).at(0));
      rescale.multiplier = multiplier;
      for (int64_t i = 0; i < s.matrices; ++i) {
        const auto u = static_cast<size_t>(i);
        kernels::integer_matmul(s.rows, s.columns, s.depth, bytes_at(c.input(0), s.a_offset[u]), c.input(0).dtype() == DType::kI8,
                                zero_points(c, 2), bytes_at(c.input(3), s.b_offset[u]), c.input(3).dtype() == DType::kI8,
                                zero_points(c, 5), sums);
        kernels::portable_qgemm().rescale(s.rows, s.columns, sums, s.columns, rescale,
                                          static_cast<std::byte*>(c.output(0).mutable_raw()) + i * s.rows * s.columns, s.columns);
      }
    }, sums_bytes + static_cast<size_t>(s.columns) * sizeof(float));
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

void register_qlinear_conv(OpRegistry& registry) {
  OpDef def;
  def.name = "QLinearConv";  // x, scale, zero, w, scale, zero, y scale, y zero, bias
  def.min_inputs = 8;
  def.max_inputs = 9;
  def.infer = [](InferContext& c) {
    check_qlinear(c, {1, 4, 6}, 7);
    for (size_t i : {1, 2}) check_zero_length(c, i, 1, "a scale or zero point of x");
    if (c.has_dims(3) && !c.dims(3).empty())
      for (size_t i : {4, 5}) check_zero_length(c, i, c.dims(3)[0], "a scale or zero point of w");
    c.require_dtype(8, {DType::kI32});
    if (c.has_input(8) && c.has_dims(8) && c.has_dims(3) && all_known(c.dims(8)) && c.dims(3)[0].known() && c.dims(8) != Dims{c.dims(3)[0]})
      c.error("bias is {}, expected {}", shape_string(concrete(c.dims(8))), c.dims(3)[0].raw);
    infer_convolution(c, 0, 3, c.dtype(7));
  };
  def.cost = [](const KernelQuery& q) { return convolution_cost(q, 3); };
  KernelDef k;
  k.name = "portable/qlinear_conv";
  k.create = [](const KernelQuery& q) {
    const kernels::ConvShape s = conv_shape(q.node, q.in(0).shape, q.in(3).shape, q.out(0).shape);
    const size_t sums_bytes = static_cast<size_t>(checked_mul(q.out(0).numel(), 4));
    const size_t plane_bytes = static_cast<size_t>(s.out_plane()) * sizeof(float);
    return make_kernel([s, sums_bytes](const KernelContext& c) {
      auto* sums = reinterpret_cast<int32_t*>(c.workspace());
      auto* multiplier = reinterpret_cast<float*>(c.workspace() + sums_bytes);
      kernels::integer_conv(s, c.input(0).raw(), c.input(0).dtype() == DType::kI8, zero_points(c, 2).at(0), c.input(3).raw(),
                            c.input(3).dtype() == DType::kI8, zero_points(c, 5), sums);
      kernels::QRescale rescale = rescale_to(c.output(0), zero_points(c, 7).at(0));
      rescale.multiplier = multiplier;
      const int64_t plane = s.out_plane();
      for (int64_t i = 0; i < s.batch * s.out_channels; ++i) {
        const int64_t m = i % s.out_channels;
        std::fill_n(multiplier, plane, c.input(1).data<float>()[0] * scale_at(c.input(4), m) / c.input(6).data<float>()[0]);
        if (c.has_input(8)) {
          const auto bias = static_cast<uint32_t>(c.input(8).data<int32_t>()[m]);
          for (int64_t p = 0; p < plane; ++p) sums[i * plane + p] = static_cast<int32_t>(static_cast<uint32_t>(sums[i * plane + p]) + bias);
        }
        kernels::portable_qgemm().rescale(1, plane, sums + i * plane, 0, rescale, static_cast<std::byte*>(c.output(0).mutable_raw()) + i * plane, 0);
      }
    }, sums_bytes + plane_bytes);
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_quant_ops(OpRegistry& registry) {
  register_quantize(registry);
  register_matmul_integer(registry);
  register_conv_integer(registry);
  register_qlinear_matmul(registry);
  register_qlinear_conv(registry);
}

}  // namespace ds
