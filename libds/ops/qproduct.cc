// Integer products of ONNX: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv.
#include <algorithm>

#include "kernels/integer.h"
#include "kernels/quant_any.h"
#include "libds/ir/packed_cache.h"
#include "libds/ops/qtile.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::ZeroPoints;
using ops::Window;

constexpr std::initializer_list<DType> kBytes = {DType::kU8, DType::kI8};

ZeroPoints zero_points(const KernelContext& c, size_t i) {
  if (!c.has_input(i)) return {};
  return {c.input(i).raw(), c.input(i).dtype() == DType::kI8, c.input(i).numel()};
}

// numpy matmul of a and b.
void infer_product(InferContext& c, size_t a, size_t b, DType dtype) {
  if (!c.has_dims(a) || !c.has_dims(b)) return c.set_output(0, dtype);
  const Dims x = c.dims(a), y = c.dims(b);
  if (x.size() < 2 || y.size() < 2) fail(ExitCode::kUnsupported, "operands of less than two axes are not supported");
  const Dim inner = x.back(), other = y[y.size() - 2];
  if (inner.known() && other.known() && inner != other) c.error("inner sizes differ: {} and {}", inner.raw, other.raw);
  Dims out = ops::broadcast_dims(c, Dims(x.begin(), x.end() - 2), Dims(y.begin(), y.end() - 2));
  out.push_back(x[x.size() - 2]);
  out.push_back(y.back());
  c.set_output(0, dtype, std::move(out));
}

// Products of a batch: which matrix of a and of b output matrix i is made of.
struct ProductShape {
  int64_t rows, columns, depth, matrices;
  std::vector<int64_t> a_matrix, b_matrix;
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
    s.a_matrix.push_back(at);
    s.b_matrix.push_back(bt);
  }
  return s;
}

// A scale or zero point of an operand: one value, `per` of them (its rows or columns) for all of its matrices, or for
// each. The place of the values of matrix `i`, and how many it has.
struct Values {
  int64_t first, count;
};
Values values_of(int64_t numel, int64_t per, int64_t matrix) {
  if (numel == 1) return {0, 1};
  return {numel == per ? 0 : matrix * per, per};
}

// Everything a product needs of one matrix, by input positions.
struct Operands {
  size_t a, a_zero, b, b_zero;
};

struct Matrices {
  kernels::QBytes a, b;  // zero points unset
  ZeroPoints a_zero, b_zero;
};

ZeroPoints zeros_of(const KernelContext& c, size_t i, int64_t per, int64_t matrix) {
  if (!c.has_input(i)) return {};
  const Values v = values_of(c.input(i).numel(), per, matrix);
  return {static_cast<const std::byte*>(c.input(i).raw()) + v.first, c.input(i).dtype() == DType::kI8, v.count};
}

Matrices matrices_of(const KernelContext& c, const ProductShape& s, const Operands& o, int64_t i) {
  const int64_t am = s.a_matrix[static_cast<size_t>(i)], bm = s.b_matrix[static_cast<size_t>(i)];
  const auto bytes = [&](size_t operand, int64_t offset) {
    return kernels::QBytes{static_cast<const std::byte*>(c.input(operand).raw()) + offset, c.input(operand).dtype() == DType::kI8, 0};
  };
  return {bytes(o.a, am * s.rows * s.depth), bytes(o.b, bm * s.depth * s.columns), zeros_of(c, o.a_zero, s.rows, am), zeros_of(c, o.b_zero, s.columns, bm)};
}

// The sums of one matrix, in plain loops.
void plain_sums(const ProductShape& s, const Matrices& m, int32_t* sums) {
  kernels::integer_matmul(s.rows, s.columns, s.depth, m.a.data, m.a.is_signed, m.a_zero, m.b.data, m.b.is_signed, m.b_zero, sums);
}

// A matrix by the blocked kernels; b is reordered now, which pays for itself from a few rows on.
void blocked_product(const ProductShape& s, const Matrices& m, const kernels::QRescale& rescale, void* y, int threads, std::byte* workspace) {
  std::vector<int32_t> zero(static_cast<size_t>(s.columns));
  for (int64_t n = 0; n < s.columns; ++n) zero[static_cast<size_t>(n)] = m.b_zero.at(n);
  const auto packed = kernels::pack_matrix(s.depth, s.columns, m.b.data, m.b.is_signed, zero.data());
  const kernels::QBytes a = {m.a.data, m.a.is_signed, m.a_zero.at(0)};
  kernels::qconv(kernels::avx2_qgemm(), kernels::matmul_shape(s.rows, s.depth, s.columns), a, packed, rescale, y, threads, workspace);
}

// Why the blocked kernels do not take the product; `zero` is a's zero point.
std::string not_blocked(const KernelQuery& q, size_t a, size_t zero, size_t b) {
  constexpr int64_t kLeastRows = 4;
  if (q.in(zero).defined() && q.in(zero).numel() != 1) return "a has a zero point per row";
  return ops::require(q.in(a).dim(-2) >= kLeastRows && q.in(a).numel() > 0 && q.in(b).numel() > 0, "too few rows");
}

// Checks a scale or zero point (input i) of operand `of`, whose rows or columns lie on `axis` (-2, -1).
void check_values(InferContext& c, size_t i, size_t of, int axis, const char* what) {
  if (!c.has_dims(i) || !all_known(c.dims(i)) || !c.has_dims(of) || c.dims(of).size() < 2) return;
  Dims each = c.dims(of);
  const Dim per = axis == -1 ? each.back() : each[each.size() - 2];
  each[each.size() - (axis == -1 ? 2 : 1)] = Dim(1);
  const int64_t n = checked_numel(concrete(c.dims(i)));
  if (n == 1 || c.dims(i) == each || !per.known() || n == per.raw) return;
  if (all_known(each)) c.error("{} has {} values, expected one or {}", what, n, per.raw);
}

void check_zero_length(InferContext& c, size_t i, Dim expected, const char* what) {
  if (!c.has_dims(i) || !all_known(c.dims(i)) || !expected.known()) return;
  const int64_t n = checked_numel(concrete(c.dims(i)));
  if (n != 1 && n != expected.raw) c.error("{} has {} values, expected one or {}", what, n, expected.raw);
}

kernels::NhwcConv matrix_shape(const KernelQuery& q) {
  const int64_t depth = q.in(1).dim(0);
  return kernels::matmul_shape(depth == 0 ? 0 : q.in(0).numel() / depth, depth, q.in(1).dim(1));
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
    shape_ = matrix_shape(q);
    packed_ = pack_once(q, 1, fmt::format("qgemm matrix {}", fmt::join(zero, ",")), [&] {
      return kernels::pack_matrix(b.dim(0), b.dim(1), b.raw(), b.dtype() == DType::kI8, zero.empty() ? nullptr : zero.data());
    });
    rescale_.output = kernels::QOutput::kI32;
  }
  size_t workspace_bytes() const override { return kernels::qconv_workspace(shape_, threads_); }
  size_t packed_bytes() const override { return packed_.made ? packed_->bytes() : 0; }
  void run(const KernelContext& c) override {
    const kernels::QBytes a = {c.input(0).raw(), c.input(0).dtype() == DType::kI8, zero_points(c, 2).at(0)};
    kernels::qconv(kernels::avx2_qgemm(), shape_, a, *packed_, rescale_, c.output(0).mutable_raw(), threads_, c.workspace());
  }

 private:
  int threads_;
  kernels::NhwcConv shape_;
  Packing<kernels::QPackedWeights> packed_;
  kernels::QRescale rescale_;
};

constexpr Operands kMatMulInteger = {0, 2, 1, 3}, kQLinearMatMul = {0, 2, 3, 5};

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
    check_values(c, 2, 0, -2, "the zero point of a");
    check_values(c, 3, 1, -1, "the zero point of b");
    infer_product(c, 0, 1, DType::kI32);
  };
  def.cost = [](const KernelQuery& q) {
    return Cost{2 * checked_mul(q.out(0).numel(), q.in(0).dim(-1)), ops::operand_bytes(q)};
  };
  KernelDef k;
  k.name = "portable/matmul_integer";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = product_shape(q.in(0).shape, q.in(1).shape, q.out(0).shape)](const KernelContext& c) {
      for (int64_t i = 0; i < s.matrices; ++i)
        plain_sums(s, matrices_of(c, s, kMatMulInteger, i), c.output(0).mutable_data<int32_t>() + i * s.rows * s.columns);
    });
  };
  KernelDef packed;
  packed.name = "avx2/matmul_integer";
  packed.isa = Isa::kAvx2;
  packed.decline = [](const KernelQuery& q) {
    if (q.constant(1) == nullptr || q.constant(1)->rank() != 2 || q.constant(1)->numel() == 0) return std::string("b is not a constant matrix");
    if (q.in(3).defined() && q.constant(3) == nullptr) return std::string("the zero point of b is not constant");
    if (q.in(0).shape.size() < 2) return std::string("a is no matrix");
    return ops::require(!q.in(2).defined() || q.in(2).numel() == 1, "a has a zero point per row");
  };
  packed.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> { return std::make_unique<PackedMatMulInteger>(q); };
  KernelDef tiles = packed;
  tiles.name = "tile/matmul_integer";
  tiles.decline = [packed = packed.decline](const KernelQuery& q) {
    const std::string why = packed(q);
    return why.empty() ? ops::not_for_tiles(q, 1, 3, matrix_shape(q), true) : why;
  };
  tiles.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> { return ops::tile_matmul_integer(q, matrix_shape(q)); };
  KernelDef blocked;
  blocked.name = "avx2/matmul_integer_blocked";
  blocked.isa = Isa::kAvx2;
  blocked.decline = [](const KernelQuery& q) { return not_blocked(q, 0, 2, 1); };
  blocked.create = [](const KernelQuery& q) {
    const ProductShape s = product_shape(q.in(0).shape, q.in(1).shape, q.out(0).shape);
    const size_t workspace = kernels::qconv_workspace(kernels::matmul_shape(s.rows, s.depth, s.columns), q.threads);
    return make_kernel([s, threads = q.threads](const KernelContext& c) {
      kernels::QRescale rescale;
      rescale.output = kernels::QOutput::kI32;
      for (int64_t i = 0; i < s.matrices; ++i)
        blocked_product(s, matrices_of(c, s, kMatMulInteger, i), rescale, c.output(0).mutable_data<int32_t>() + i * s.rows * s.columns, threads, c.workspace());
    }, workspace);
  };
  def.kernels = {tiles, packed, blocked, k};
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

// Constant weights over one or two spatial axes, by the blocked kernels on a channels-last copy of x.
class BlockedConvInteger final : public Kernel {
 public:
  explicit BlockedConvInteger(const KernelQuery& q) : threads_(q.threads) {
    const kernels::ConvShape s = conv_shape(q.node, q.in(0).shape, q.in(1).shape, q.out(0).shape);
    shape_.batch = s.batch;
    shape_.channels = s.in_channels;
    shape_.out_channels = s.out_channels;
    shape_.groups = s.groups;
    shape_.height = s.in[1];
    shape_.width = s.in[2];
    shape_.out_height = s.out[1];
    shape_.out_width = s.out[2];
    shape_.kernel_h = s.kernel[1];
    shape_.kernel_w = s.kernel[2];
    shape_.stride_h = s.stride[1];
    shape_.stride_w = s.stride[2];
    shape_.dilation_h = s.dilation[1];
    shape_.dilation_w = s.dilation[2];
    shape_.pad_top = s.pad_begin[1];
    shape_.pad_left = s.pad_begin[2];
    const Tensor w = q.constant(1)->transient();
    std::vector<int32_t> zero;
    if (const Tensor* z = q.constant(3)) {
      for (int64_t v : z->to_ints()) zero.push_back(static_cast<int32_t>(v));
      if (zero.size() == 1) zero.assign(static_cast<size_t>(s.out_channels), zero[0]);
    }
    packed_ = pack_once(q, 1, fmt::format("qgemm conv {} {}", shape_.groups, fmt::join(zero, ",")), [&] {
      return kernels::pack_weights(shape_, w.raw(), w.dtype() == DType::kI8, zero.empty() ? nullptr : zero.data());
    });
    rescale_.output = kernels::QOutput::kI32;
    blocked_bytes_ = (kernels::qconv_workspace(shape_, threads_) + 63) / 64 * 64;
    sums_bytes_ = static_cast<size_t>(checked_mul(q.out(0).numel(), 4));
    x_bytes_ = q.in(0).bytes();
  }
  size_t workspace_bytes() const override { return blocked_bytes_ + sums_bytes_ + x_bytes_; }
  size_t packed_bytes() const override { return packed_.made ? packed_->bytes() : 0; }
  void run(const KernelContext& c) override {
    auto* sums = reinterpret_cast<int32_t*>(c.workspace() + blocked_bytes_);
    auto* x = reinterpret_cast<uint8_t*>(c.workspace() + blocked_bytes_ + sums_bytes_);
    kernels::turn_bytes(shape_.batch, shape_.channels, shape_.height * shape_.width, static_cast<const uint8_t*>(c.input(0).raw()), x);
    const kernels::QBytes bytes = {x, c.input(0).dtype() == DType::kI8, zero_points(c, 2).at(0)};
    kernels::qconv(kernels::avx2_qgemm(), shape_, bytes, *packed_, rescale_, sums, threads_, c.workspace());
    kernels::turn_sums(shape_.batch, shape_.out_height * shape_.out_width, shape_.out_channels, sums, c.output(0).mutable_data<int32_t>());
  }

 private:
  int threads_;
  kernels::NhwcConv shape_;
  Packing<kernels::QPackedWeights> packed_;
  kernels::QRescale rescale_;
  size_t blocked_bytes_ = 0, sums_bytes_ = 0, x_bytes_ = 0;
};

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
  KernelDef blocked;
  blocked.name = "avx2/conv_integer_blocked";
  blocked.isa = Isa::kAvx2;
  blocked.decline = [](const KernelQuery& q) {
    if (q.constant(1) == nullptr || (q.in(3).defined() && q.constant(3) == nullptr)) return std::string("the weights are not constant");
    if (q.in(0).rank() > 4) return std::string("three spatial axes");
    return ops::require(q.out(0).numel() > 0 && q.in(0).numel() > 0, "empty");
  };
  blocked.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> { return std::make_unique<BlockedConvInteger>(q); };
  def.kernels = {blocked, k};
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

void check_qlinear(InferContext& c, std::initializer_list<DType> stored, std::initializer_list<DType> scales) {
  for (size_t i : {0, 3, 7}) c.require_dtype(i, stored);
  for (size_t i : {1, 4, 6}) c.require_dtype(i, scales);
  for (size_t i : {0, 3})
    if (c.dtype(i + 2) != c.dtype(i)) c.error("the zero point of input {} has type {}, the input {}", i, dtype_name(c.dtype(i + 2)), dtype_name(c.dtype(i)));
  check_zero_length(c, 6, 1, "the scale of y");
  check_zero_length(c, 7, 1, "the zero point of y");
}

// multiplier[n] = scale of row m of a * scale of column n of b / scale of y, for output matrix i.
void fill_multipliers(const KernelContext& c, const ProductShape& s, int64_t i, int64_t m, float* multiplier) {
  const auto u = static_cast<size_t>(i);
  const Values a = values_of(c.input(1).numel(), s.rows, s.a_matrix[u]), b = values_of(c.input(4).numel(), s.columns, s.b_matrix[u]);
  const float row = c.input(1).data<float>()[a.first + (a.count == 1 ? 0 : m)];
  const float* columns = c.input(4).data<float>() + b.first;
  for (int64_t n = 0; n < s.columns; ++n) multiplier[n] = row * columns[b.count == 1 ? 0 : n] / c.input(6).data<float>()[0];
}

std::string not_bytes(const KernelQuery& q) {
  for (size_t i : {0, 3, 7})
    if (is_float8(q.in(i).dtype)) return "8-bit floats";
  return ops::require(!is_half(q.in(1).dtype) && !is_half(q.in(4).dtype) && !is_half(q.in(6).dtype), "16-bit scales");
}

KernelDef blocked_qlinear_matmul() {
  KernelDef k;
  k.name = "avx2/qlinear_matmul_blocked";
  k.isa = Isa::kAvx2;
  k.decline = [](const KernelQuery& q) {
    if (std::string reason = not_bytes(q); !reason.empty()) return reason;
    if (q.in(1).numel() != 1) return std::string("a has a scale per row");
    return not_blocked(q, 0, 2, 3);
  };
  k.create = [](const KernelQuery& q) {
    const ProductShape s = product_shape(q.in(0).shape, q.in(3).shape, q.out(0).shape);
    const size_t blocked = kernels::qconv_workspace(kernels::matmul_shape(s.rows, s.depth, s.columns), q.threads);
    return make_kernel([s, blocked, threads = q.threads](const KernelContext& c) {
      auto* multiplier = reinterpret_cast<float*>(c.workspace() + blocked);
      kernels::QRescale rescale = rescale_to(c.output(0), zeros_of(c, 7, 1, 0).at(0));
      rescale.multiplier = multiplier;
      for (int64_t i = 0; i < s.matrices; ++i) {
        fill_multipliers(c, s, i, 0, multiplier);
        blocked_product(s, matrices_of(c, s, kQLinearMatMul, i), rescale, static_cast<std::byte*>(c.output(0).mutable_raw()) + i * s.rows * s.columns,
                        threads, c.workspace());
      }
    }, blocked + static_cast<size_t>(s.columns) * sizeof(float));
  };
  return k;
}

KernelDef plain_qlinear_matmul() {
  KernelDef k;
  k.name = "portable/qlinear_matmul";
  k.decline = not_bytes;
  k.create = [](const KernelQuery& q) {
    const ProductShape s = product_shape(q.in(0).shape, q.in(3).shape, q.out(0).shape);
    // Workspace: the sums, then a multiplier per column.
    const size_t sums_bytes = static_cast<size_t>(checked_mul(checked_mul(s.rows, s.columns), 4));
    return make_kernel([s, sums_bytes](const KernelContext& c) {
      auto* sums = reinterpret_cast<int32_t*>(c.workspace());
      auto* multiplier = reinterpret_cast<float*>(c.workspace() + sums_bytes);
      kernels::QRescale rescale = rescale_to(c.output(0), zeros_of(c, 7, 1, 0).at(0));
      rescale.multiplier = multiplier;
      const int64_t step = c.input(1).numel() == 1 ? s.rows : 1;  // rows of one scale
      for (int64_t i = 0; i < s.matrices; ++i) {
        plain_sums(s, matrices_of(c, s, kQLinearMatMul, i), sums);
        auto* y = static_cast<std::byte*>(c.output(0).mutable_raw()) + i * s.rows * s.columns;
        for (int64_t m = 0; m < s.rows; m += step) {
          fill_multipliers(c, s, i, m, multiplier);
          kernels::portable_qgemm().rescale(step, s.columns, sums + m * s.columns, s.columns, rescale, y + m * s.columns, s.columns);
        }
      }
    }, sums_bytes + static_cast<size_t>(s.columns) * sizeof(float));
  };
  return k;
}

// One operand's matrix as floats, without its zero points, which lie along rows or columns.
std::vector<float> real_matrix(const Tensor& t, int64_t matrix, int64_t rows, int64_t columns, const Tensor& zero, bool by_row) {
  std::vector<float> x(static_cast<size_t>(rows * columns)), z(static_cast<size_t>(by_row ? rows : columns));
  kernels::load_floats(t.dtype(), t.raw(), matrix * rows * columns, rows * columns, x.data());
  const Values v = values_of(zero.numel(), static_cast<int64_t>(z.size()), matrix);
  kernels::load_floats(zero.dtype(), zero.raw(), v.first, v.count, z.data());
  if (v.count == 1) std::fill(z.begin(), z.end(), z.empty() ? 0.0f : z[0]);
  for (int64_t i = 0; i < rows * columns; ++i) x[static_cast<size_t>(i)] -= z[static_cast<size_t>(by_row ? i / columns : i % columns)];
  return x;
}

// Operands or results of 8-bit floats: products of floats, summed in double.
KernelDef float_qlinear_matmul() {
  KernelDef k;
  k.name = "portable/qlinear_matmul_float";
  k.takes_packed = true;
  k.decline = [](const KernelQuery& q) {
    return ops::require(!is_half(q.in(1).dtype) && !is_half(q.in(4).dtype) && !is_half(q.in(6).dtype), "16-bit scales");
  };
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = product_shape(q.in(0).shape, q.in(3).shape, q.out(0).shape)](const KernelContext& c) {
      const float one = 1;
      std::vector<float> multiplier(static_cast<size_t>(s.columns)), row(multiplier.size());
      for (int64_t i = 0; i < s.matrices; ++i) {
        const auto u = static_cast<size_t>(i);
        const std::vector<float> a = real_matrix(c.input(0), s.a_matrix[u], s.rows, s.depth, c.input(2), true);
        const std::vector<float> b = real_matrix(c.input(3), s.b_matrix[u], s.depth, s.columns, c.input(5), false);
        for (int64_t m = 0; m < s.rows; ++m) {
          fill_multipliers(c, s, i, m, multiplier.data());
          std::vector<double> sums(multiplier.size(), 0.0);
          for (int64_t d = 0; d < s.depth; ++d) {
            const auto x = static_cast<double>(a[static_cast<size_t>(m * s.depth + d)]);
            for (size_t n = 0; n < sums.size(); ++n) sums[n] += x * static_cast<double>(b[static_cast<size_t>(d * s.columns) + n]);
          }
          for (size_t n = 0; n < sums.size(); ++n) row[n] = static_cast<float>(sums[n]) * multiplier[n];
          kernels::quantize_any({1, 1, s.columns, 0}, DType::kF32, row.data(), DType::kF32, &one, c.input(7).raw(), DType::kF32, true,
                                c.output(0).dtype(), static_cast<std::byte*>(c.output(0).mutable_raw()) + (i * s.rows + m) * s.columns);
        }
      }
    });
  };
  return k;
}

void register_qlinear_matmul(OpRegistry& registry) {
  OpDef def;
  def.name = "QLinearMatMul";  // a, scale, zero, b, scale, zero, y scale, y zero
  def.min_inputs = def.max_inputs = 8;
  def.infer = [](InferContext& c) {
    check_qlinear(c, {DType::kU8, DType::kI8, DType::kF8E4M3FN, DType::kF8E4M3FNUZ, DType::kF8E5M2, DType::kF8E5M2FNUZ},
                  {DType::kF32, DType::kF16, DType::kBF16});
    for (size_t i : {1, 2}) check_values(c, i, 0, -2, "a scale or zero point of a");
    for (size_t i : {4, 5}) check_values(c, i, 3, -1, "a scale or zero point of b");
    infer_product(c, 0, 3, c.dtype(7));
  };
  def.cost = [](const KernelQuery& q) {
    return Cost{2 * checked_mul(q.out(0).numel(), q.in(0).dim(-1)), ops::operand_bytes(q)};
  };
  def.kernels = {blocked_qlinear_matmul(), plain_qlinear_matmul(), float_qlinear_matmul()};
  registry.add(std::move(def));
}

void register_qlinear_conv(OpRegistry& registry) {
  OpDef def;
  def.name = "QLinearConv";  // x, scale, zero, w, scale, zero, y scale, y zero, bias
  def.min_inputs = 8;
  def.max_inputs = 9;
  def.infer = [](InferContext& c) {
    check_qlinear(c, kBytes, {DType::kF32});
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

void register_qproduct_ops(OpRegistry& registry) {
  register_matmul_integer(registry);
  register_conv_integer(registry);
  register_qlinear_matmul(registry);
  register_qlinear_conv(registry);
}

}  // namespace ds
