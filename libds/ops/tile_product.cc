#include "libds/ops/tile_product.h"

#include <algorithm>
#include <atomic>

#include "kernels/packed_product.h"
#include "libds/base/log.h"
#include "libds/ir/packed_cache.h"
#include "libds/ops/conv.h"
#include "libds/ops/epilogue.h"
#include "libds/ops/finish_sink.h"

namespace ds::ops {
namespace {

using kernels::NhwcConv;
using kernels::TileIsa;
using kernels::TileType;

// What is multiplied in: the weights say it.
TileType tile_type(DType w) { return w == DType::kBF16 ? TileType::kBf16 : w == DType::kF16 ? TileType::kF16 : TileType::kF32; }
kernels::ActivationType given_type(DType t) {
  using A = kernels::ActivationType;
  return t == DType::kBF16 ? A::kBf16 : t == DType::kF16 ? A::kF16 : A::kF32;
}
kernels::WeightType weight_type(DType t) {
  using W = kernels::WeightType;
  return t == DType::kBF16 ? W::kBf16 : t == DType::kF16 ? W::kF16 : W::kF32;
}

// Weights in panels; inputs x, w, bias?, addend?.
class TileKernel final : public Kernel {
 public:
  TileKernel(const KernelQuery& q, const NhwcConv& shape, bool matrix)
      : shape_(shape), level_(q.isa), isa_(*kernels::tile_isa(tile_type(q.in(1).dtype), q.isa)), threads_(q.threads), epilogue_(epilogue_of(q.node)),
        given_(given_type(q.in(0).dtype)), label_(q.node.label()) {
    const DType type = q.in(1).dtype;
    packed_ = pack_once(q, 1, kernels::packing_form(isa_, shape_, matrix), [&] {
      const Tensor w = q.for_sizes ? Tensor() : q.constant(1)->transient();
      return kernels::pack_product(tile_type(type), isa_, shape_, matrix, w.defined() ? w.raw() : nullptr, weight_type(type));
    });
    if (q.in(2).defined() && is_half(q.in(2).dtype)) bias_ = q.constant(2)->cast(DType::kF32);
  }
  size_t workspace_bytes() const override { return kernels::product_workspace(isa_, shape_, *packed_, given_, threads_); }
  size_t packed_bytes() const override { return packed_.made ? packed_->bytes() : 0; }

  void run(const KernelContext& c) override {
    kernels::Finish finish = finish_of(c, epilogue_, shape_.out_channels);
    if (bias_.defined()) finish.bias = bias_.data<float>();
    if (!packed_->column_scales.empty()) finish.column_scale = packed_->column_scales.data();
    finish.beyond = &beyond_;
    kernels::packed_product(isa_, shape_, {c.input(0).raw(), given_, 0, &beyond_}, *packed_, FinishSink(level_, finish), threads_, c.workspace());
    if (beyond_) tell_of_saturation();
  }

 private:
  // Once in the life of the process: where one number is beyond, many are.
  void tell_of_saturation() {
    static std::atomic<bool> told{false};
    beyond_ = false;
    if (!told.exchange(true)) warn("{}: numbers beyond 65504 saturate in f16; --precision fp32 and bf16 have room for them", label_);
  }

  NhwcConv shape_;
  Isa level_;
  const TileIsa& isa_;
  int threads_;
  kernels::Epilogue epilogue_;
  kernels::ActivationType given_;
  Packing<kernels::PackedWeights> packed_;
  Tensor bias_;  // widened
  std::string label_;
  bool beyond_ = false;
};

// Rows of sums are input pixels, columns [KH, KW, M]: KW * M values that follow one another in y for each kernel row.
class ScatterSink final : public kernels::ProductSink {
 public:
  ScatterSink(const NhwcConv& s, const float* bias, float* y) : s_(s), run_(s.kernel_w * s.out_channels), bias_(bias), y_(y) {}
  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    const auto* from = static_cast<const float*>(sums);
    for (int64_t r = row; r < row + rows;) {  // line by line of x, of the whole batch
      const int64_t ix = r % s_.width, iy = r / s_.width, count = std::min(s_.width - ix, row + rows - r);
      for (int64_t c = column; c < column + columns;) {
        const int64_t ky = c / run_, at = c % run_, n = std::min(run_ - at, column + columns - c);
        float* to = y_ + ((iy * s_.kernel_h + ky) * s_.width + ix) * run_ + at;
        const float* sum = from + (r - row) * stride + (c - column);
        if (n == 2) scatter<2>(n, count, sum, stride, bias_ + c, to);
        else if (n == 4) scatter<4>(n, count, sum, stride, bias_ + c, to);
        else scatter<0>(n, count, sum, stride, bias_ + c, to);
        c += n;
      }
      r += count;
    }
  }

 private:
  // n values of each of `count` pixels; kRun: n where it is known.
  template <int kRun>
  void scatter(int64_t n, int64_t count, const float* sum, int64_t stride, const float* bias, float* to) const {
    if constexpr (kRun > 0) n = kRun;
    for (int64_t i = 0; i < count; ++i, sum += stride, to += run_)
      for (int64_t j = 0; j < n; ++j) to[j] = sum[j] + bias[j];
  }

  const NhwcConv& s_;  // of the input; kernel; out_channels
  int64_t run_;
  const float* bias_;  // [KH, KW, M]
  float* y_;
};

// Inputs x, w [C, M, KH, KW], bias?.
class TransposeKernel final : public Kernel {
 public:
  explicit TransposeKernel(const KernelQuery& q) : isa_(*kernels::tile_isa(TileType::kF32, q.isa)), threads_(q.threads) {
    const Shape &x = q.in(0).shape, &w = q.in(1).shape;
    const size_t plane = x.size() - 1;  // a convolution of one axis is one of two whose first has size one
    s_.batch = x[0];
    s_.channels = x[1];
    s_.height = plane == 3 ? x[2] : 1;
    s_.width = x[plane];
    s_.out_channels = w[1];
    s_.kernel_h = plane == 3 ? w[2] : 1;
    s_.kernel_w = w[plane];
    const int64_t positions = s_.kernel_h * s_.kernel_w, columns = positions * s_.out_channels;
    product_ = kernels::matmul_shape(s_.batch * s_.height * s_.width, s_.channels, columns);
    std::vector<float> matrix;
    if (!q.for_sizes) {
      const Tensor given = q.constant(1)->transient();
      matrix.resize(static_cast<size_t>(s_.channels * columns));
      for (int64_t c = 0; c < s_.channels; ++c)
        for (int64_t m = 0; m < s_.out_channels; ++m)
          for (int64_t k = 0; k < positions; ++k)
            matrix[static_cast<size_t>(c * columns + k * s_.out_channels + m)] = given.data<float>()[(c * s_.out_channels + m) * positions + k];
    }
    packed_ = kernels::pack_product(TileType::kF32, isa_, product_, true, matrix.empty() ? nullptr : matrix.data(), kernels::WeightType::kF32);
    bias_.assign(static_cast<size_t>(columns), 0.0f);
  }
  size_t workspace_bytes() const override {
    return kernels::product_workspace(isa_, product_, packed_, kernels::ActivationType::kF32, threads_);
  }
  size_t packed_bytes() const override { return packed_.bytes() + bias_.size() * sizeof(float); }

  void run(const KernelContext& c) override {
    if (c.has_input(2))
      for (size_t i = 0; i < bias_.size(); ++i) bias_[i] = c.input(2).data<float>()[static_cast<int64_t>(i) % s_.out_channels];
    const ScatterSink sink(s_, bias_.data(), c.output(0).mutable_data<float>());
    kernels::packed_product(isa_, product_, {c.input(0).raw(), kernels::ActivationType::kF32, 0}, packed_, sink, threads_, c.workspace());
  }

 private:
  NhwcConv s_, product_;
  const TileIsa& isa_;
  int threads_;
  kernels::PackedWeights packed_;
  std::vector<float> bias_;  // for every column
};

// Why no tile takes these operands; empty when one does.
std::string declines_operands(const KernelQuery& q) {
  const DType type = q.in(1).dtype;  // others are f32 or of the weights' type
  if (type != DType::kF32 && !is_half(type)) return "not f32, bf16 or f16";
  if (type == DType::kF16 && q.node.attr_int("half_sums", 0) == 0) return "sums in f16 are not exact enough";
  const auto taken = [type](const TensorDesc& d) { return !d.defined() || d.dtype == DType::kF32 || d.dtype == type; };
  for (size_t i = 0; i < q.inputs.size(); ++i)
    if (!taken(q.in(i))) return "weights of another type";
  if (!taken(q.out(0))) return "result of another type";
  if (q.constant(1) == nullptr) return "weights are not constant";
  if (q.in(2).defined() && is_half(q.in(2).dtype) && q.constant(2) == nullptr) return "bias is not constant";
  if (kernels::tile_isa(tile_type(q.in(1).dtype), q.isa) == nullptr) return "no tile for this type";
  return {};
}

// Fewer channels of a group leave most of a panel empty.
constexpr int64_t kLeastGroupChannels = 8;

}  // namespace

NhwcConv nhwc_of(const kernels::ConvShape& c) {
  NhwcConv s;
  s.batch = c.batch;
  s.height = c.in[1];
  s.width = c.in[2];
  s.channels = c.in_channels;
  s.out_height = c.out[1];
  s.out_width = c.out[2];
  s.out_channels = c.out_channels;
  s.kernel_h = c.kernel[1];
  s.kernel_w = c.kernel[2];
  s.stride_h = c.stride[1];
  s.stride_w = c.stride[2];
  s.dilation_h = c.dilation[1];
  s.dilation_w = c.dilation[2];
  s.pad_top = c.pad_begin[1];
  s.pad_left = c.pad_begin[2];
  s.groups = c.groups;
  return s;
}

KernelDef tile_conv() {
  KernelDef k;
  k.name = "tile/conv";
  k.isa = Isa::kAvx2;
  k.decline = [](const KernelQuery& q) -> std::string {
    if (std::string why = declines_operands(q); !why.empty()) return why;
    if (q.in(0).rank() > 4) return "three spatial axes";
    if (q.in(0).layout != Layout::kChannelsLast || q.out(0).layout != Layout::kChannelsLast) return "channels are not last";
    if (q.in(3).defined() && q.in(3).layout != Layout::kChannelsLast) return "channels of the addend are not last";
    const int64_t groups = q.node.attr_int("group", 1);
    if (groups > 1 && (q.in(0).dim(1) / groups < kLeastGroupChannels || q.out(0).dim(1) / groups < kLeastGroupChannels))
      return "groups of few channels";
    return {};
  };
  k.in_place = {{3, 0}};
  k.native_halves = true;
  k.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    return std::make_unique<TileKernel>(q, nhwc_of(conv_forward_shape(q)), false);
  };
  k.preferred_layouts = [](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    inputs[0] = outputs[0] = Layout::kChannelsLast;
    if (q.in(3).defined()) inputs[3] = Layout::kChannelsLast;
  };
  return k;
}

KernelDef tile_conv_transpose() {
  KernelDef k;
  k.name = "tile/conv_transpose";
  k.isa = Isa::kAvx2;
  k.decline = [](const KernelQuery& q) -> std::string {
    if (q.in(0).dtype != DType::kF32) return "not f32";
    if (q.constant(1) == nullptr) return "weights are not constant";
    if (q.in(0).rank() > 4) return "three spatial axes";
    if (q.node.attr_int("group", 1) != 1) return "groups";
    std::vector<int64_t> strides = q.node.attr_ints("strides");
    strides.resize(static_cast<size_t>(q.in(0).rank() - 2), 1);
    for (size_t i = 0; i < strides.size(); ++i) {
      const int64_t kernel = q.in(1).shape[i + 2];
      // The size says that nothing is cut off or added; with dilation it would be another one.
      if (kernel != strides[i] || q.out(0).shape[i + 2] != kernel * q.in(0).shape[i + 2]) return "windows overlap or are padded";
    }
    for (int64_t pad : q.node.attr_ints("pads"))
      if (pad != 0) return "padding";
    for (int64_t d : q.node.attr_ints("dilations"))
      if (d != 1) return "dilation";
    if (q.in(0).layout != Layout::kChannelsLast || q.out(0).layout != Layout::kChannelsLast) return "channels are not last";
    return {};
  };
  k.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> { return std::make_unique<TransposeKernel>(q); };
  k.preferred_layouts = [](const KernelQuery&, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    inputs[0] = outputs[0] = Layout::kChannelsLast;
  };
  return k;
}

KernelDef tile_matmul() {
  KernelDef k;
  k.name = "tile/matmul";
  k.isa = Isa::kAvx2;
  k.decline = [](const KernelQuery& q) -> std::string {
    if (std::string why = declines_operands(q); !why.empty()) return why;
    if (q.in(1).rank() != 2 || q.in(0).rank() < 1) return "the right operand is not a matrix";
    if (q.node.attr_int("trans_a", 0) != 0) return "the left operand is transposed";
    return {};
  };
  k.in_place = {{3, 0}};
  k.native_halves = true;
  k.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    const bool turned = q.node.attr_int("trans_b", 0) != 0;
    const int64_t depth = q.in(1).dim(turned ? 1 : 0), columns = q.in(1).dim(turned ? 0 : 1);
    const int64_t rows = depth == 0 ? 0 : q.in(0).numel() / depth;
    return std::make_unique<TileKernel>(q, kernels::matmul_shape(rows, depth, columns), !turned);
  };
  return k;
}

}  // namespace ds::ops
