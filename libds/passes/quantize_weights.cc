#include "libds/passes/quantize_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "libds/ops/common.h"

namespace ds {
namespace {

// A matrix or convolution weight seen as [outer, channels, inner].
struct ChannelView {
  int64_t outer = 1, channels = 1, inner = 1;
};

ChannelView channel_view(const Tensor& w, int64_t axis) {
  ChannelView v;
  for (int64_t i = 0; i < w.rank(); ++i) (i < axis ? v.outer : i == axis ? v.channels : v.inner) *= w.dim(i);
  return v;
}

// One scale per channel for weights within [-limit, limit].
//
// Without reduce_range it is a little larger than the largest weight asks for: runtimes on CPUs without VNNI add products of
// u8 activations and two neighbouring weights in 16 bits (vpmaddubsw), which saturates above 255 * 128. The sum of two
// neighbours is therefore kept at 128 as well. Neighbours are pairs along the sum: kernel position, then
// channel for convolutions.
std::vector<float> channel_scales(const Tensor& w, const ChannelView& v, int64_t axis, int limit) {
  const bool convolution = w.rank() > 2;
  const int64_t channels_in = convolution ? w.dim(1) : v.outer * v.inner, depth = v.outer * v.inner;
  // Element k of channel c: c*channel + k / channels_in * far + k % channels_in * near.
  const int64_t far = 1, near = convolution ? depth / std::max<int64_t>(channels_in, 1) : axis == 0 ? 1 : v.channels;
  const int64_t channel = axis == 0 ? depth : 1;
  std::vector<float> scales;
  const float* p = w.data<float>();
  for (int64_t c = 0; c < v.channels; ++c) {
    float most = 0, pair = 0, previous = 0;
    for (int64_t k = 0; k < depth; ++k) {
      const float x = std::abs(p[c * channel + k / channels_in * far + k % channels_in * near]);
      most = std::max(most, x);
      if (k % 2 != 0) pair = std::max(pair, previous + x);
      previous = x;
    }
    // 127 and not 128: rounding may add a half to each of the two.
    const float scale = std::max(most / static_cast<float>(limit), pair / 127.0f);
    scales.push_back(scale >= std::numeric_limits<float>::min() ? scale : 1.0f);  // 1: a channel of zeros
  }
  return scales;
}

Tensor quantize_channels(const Tensor& w, const ChannelView& v, const std::vector<float>& scale, int limit) {
  Tensor q = Tensor::empty(DType::kI8, w.shape());
  const float* p = w.data<float>();
  auto* out = q.mutable_data<int8_t>();
  for (int64_t i = 0; i < w.numel(); ++i) {
    const auto c = static_cast<size_t>(i / v.inner % v.channels);
    out[i] = static_cast<int8_t>(std::clamp(std::nearbyint(p[i] / scale[c]), static_cast<float>(-limit), static_cast<float>(limit)));
  }
  return q;
}

}  // namespace

bool weights_finite(const Tensor& w) {
  const auto s = w.span<float>();
  return std::all_of(s.begin(), s.end(), [](float x) { return std::isfinite(x); });
}

TensorRange quantize_operands(Rewriter& rw, const QuantDecision& d, const ActivationParams& x, bool reduce_range) {
  Graph& g = rw.graph();
  const Tensor w = *g.value(d.weight).constant;
  const std::string name = g.value(d.weight).name;
  const ChannelView view = channel_view(w, d.weight_axis);
  const int limit = reduce_range ? 64 : 127;
  std::vector<float> scale = channel_scales(w, view, d.weight_axis, limit);
  const Tensor* bias = d.bias == kNone ? nullptr : g.value(d.bias).constant.get();
  if (bias != nullptr) {
    // The bias must fit 32 bits in the unit of the sums: a channel whose weights are next to nothing gets a coarser scale.
    constexpr double kMost = 1 << 30;
    for (size_t c = 0; c < scale.size(); ++c) {
      const double least = std::abs(static_cast<double>(bias->data<float>()[c])) / (kMost * static_cast<double>(x.scale));
      if (static_cast<double>(scale[c]) < least) scale[c] = static_cast<float>(least);
    }
  }
  rw.insert_before(d.node);
  const ValueId q = rw.add_constant(name + "_quantized", quantize_channels(w, view, scale, limit));
  const ValueId s = rw.add_constant(name + "_scale", Tensor::vector<float>(std::span<const float>(scale)));
  const ValueId z = rw.add_constant(name + "_zero_point", Tensor::zeros(DType::kI8, {view.channels}));
  const ValueId dq = rw.emit("DequantizeLinear", {q, s, z}, {{"axis", d.weight_axis}}, name + "_dequantized");
  rw.set_input(d.node, 1, dq);
  if (bias != nullptr) {
    std::vector<float> unit;
    std::vector<int32_t> stored;
    for (size_t c = 0; c < scale.size(); ++c) {
      unit.push_back(x.scale * scale[c]);
      stored.push_back(static_cast<int32_t>(std::nearbyint(static_cast<double>(bias->data<float>()[c]) / static_cast<double>(unit[c]))));
    }
    const std::string bias_name = g.value(d.bias).name;
    const ValueId bq = rw.add_constant(bias_name + "_quantized", Tensor::vector<int32_t>(std::span<const int32_t>(stored)));
    const ValueId bs = rw.add_constant(bias_name + "_scale", Tensor::vector<float>(std::span<const float>(unit)));
    const ValueId bz = rw.add_constant(bias_name + "_zero_point", Tensor::zeros(DType::kI32, {view.channels}));
    rw.set_input(d.node, 2, rw.emit("DequantizeLinear", {bq, bs, bz}, {{"axis", int64_t{0}}}, bias_name + "_dequantized"));
  }
  const auto [least, most] = std::minmax_element(scale.begin(), scale.end());
  return {*least, *most};
}

std::vector<QuantDecision> quantize_dynamic(Rewriter& rw, const QuantizeOptions& options) {
  Graph& g = rw.graph();
  std::vector<QuantDecision> decisions;
  for (NodeId id : g.order()) {
    const Node n = g.node(id);
    const bool gemm = n.is("Gemm");
    if (!gemm && !n.is("MatMul") && !n.is("Conv")) continue;
    QuantDecision d;
    d.node = id;
    d.name = n.name;
    d.op = n.op;
    const Tensor* w = n.input(1) == kNone ? nullptr : g.value(n.input(1)).constant.get();
    for (const std::string& p : options.exclude)
      if (d.reason.empty() && (matches_pattern(p, n.name) || matches_pattern(p, n.op))) d.reason = fmt::format("excluded by '{}'", p);
    if (d.reason.empty()) {
      if (n.is("Conv")) d.reason = "convolutions are quantized with calibration data only";
      else if (w == nullptr || w->dtype() != DType::kF32 || w->rank() != 2 || !weights_finite(*w)) d.reason = "its weights are not a constant f32 matrix";
      else if (g.value(n.input(0)).dtype != DType::kF32) d.reason = "its input is not f32";
      else if (gemm && (n.attr_int("transA", 0) != 0 || n.attr_float("alpha", 1) != 1 || n.attr_float("beta", 1) != 1)) d.reason = "it scales or transposes its operands";
    }
    d.quantized = d.reason.empty();
    if (d.quantized) {
      Tensor matrix = *w;  // [K, N]
      if (gemm && n.attr_int("transB", 0) != 0) {
        const int64_t rows = w->dim(0), depth = w->dim(1);
        matrix = Tensor::empty(DType::kF32, {depth, rows});
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t k = 0; k < depth; ++k) matrix.mutable_data<float>()[k * rows + i] = w->data<float>()[i * depth + k];
      }
      const ChannelView view = channel_view(matrix, 1);
      const int limit = options.reduce_range ? 64 : 127;
      const std::vector<float> scale = channel_scales(matrix, view, 1, limit);
      const std::string name = g.value(n.input(1)).name;
      rw.insert_before(id);
      const NodeId dynamic = rw.add_node("DynamicQuantizeLinear", {n.input(0)}, {}, n.name + "/input_quantized", 3);
      const std::vector<ValueId> x = g.node(dynamic).outputs;
      const ValueId q = rw.add_constant(name + "_quantized", quantize_channels(matrix, view, scale, limit));
      const ValueId s = rw.add_constant(name + "_scale", Tensor::vector<float>(std::span<const float>(scale)));
      const ValueId z = rw.add_constant(name + "_zero_point", Tensor::zeros(DType::kI8, {view.channels}));
      const ValueId sums = rw.emit("MatMulInteger", {x[0], q, x[2], z}, {}, n.name + "/sums");
      const ValueId reals = rw.emit("Cast", {sums}, {{"to", static_cast<int64_t>(DType::kF32)}}, n.name + "/cast");
      const ValueId unit = rw.emit("Mul", {x[1], s}, {}, n.name + "/unit");
      ValueId y = rw.emit("Mul", {reals, unit}, {}, n.name + "/scaled");
      if (n.input(2) != kNone) y = rw.emit("Add", {y, n.input(2)}, {}, n.name + "/biased");
      rw.replace_uses(n.outputs[0], y);
      d.input = n.input(0);
      d.weight = q;
      d.result = y;
    }
    decisions.push_back(std::move(d));
  }
  rw.insert_at_end();
  rw.remove_dead_nodes();
  return decisions;
}

}  // namespace ds
