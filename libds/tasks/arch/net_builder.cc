#include "libds/tasks/arch/net_builder.h"

#include <algorithm>
#include <cmath>

#include "libds/base/random.h"

namespace ds::arch {
namespace {

Tensor fill(const std::string& name, const Shape& shape, Init init, uint64_t seed) {
  Tensor t = Tensor::empty(DType::kF32, shape, Tier::kParameters);
  float* p = t.mutable_data<float>();
  Random random(seed, stream_of(name));
  for (int64_t i = 0; i < t.numel(); ++i) {
    switch (init.kind) {
      case Init::Kind::kZeros: p[i] = 0.0f; break;
      case Init::Kind::kOnes: p[i] = 1.0f; break;
      case Init::Kind::kNormal: p[i] = static_cast<float>(init.spread * random.normal()); break;
      case Init::Kind::kUniform: p[i] = static_cast<float>(init.spread * (2 * random.uniform() - 1)); break;
    }
  }
  return t;
}

}  // namespace

Init he_normal(int64_t fan) { return normal(std::sqrt(2.0 / static_cast<double>(fan))); }

Init xavier_uniform(int64_t fan_in, int64_t fan_out) {
  return {Init::Kind::kUniform, std::sqrt(6.0 / static_cast<double>(fan_in + fan_out))};
}

int64_t size_or(const std::optional<int64_t>& given, int64_t otherwise, std::string_view option) {
  const int64_t size = given.value_or(otherwise);
  if (size < 1 || size > 1 << 24) fail(ExitCode::kUsage, "{} {} is not in 1 to {}", option, size, 1 << 24);
  return size;
}

NetBuilder::NetBuilder(Graph& graph, const ArchOptions& options) : options_(options), rw_(graph) {}

ValueId NetBuilder::parameter(const std::string& name, Shape shape, Init init) {
  return rw_.add_constant(name, fill(name, shape, init, options_.seed));
}

ValueId NetBuilder::scalar(const std::string& name, float value) { return rw_.add_constant(name, Tensor::scalar<float>(value)); }

ValueId NetBuilder::ints(const std::string& name, std::vector<int64_t> values) {
  return rw_.add_constant(name, Tensor::vector<int64_t>(values));
}

ValueId NetBuilder::preprocess(ValueId x, int64_t channels, const Shape& channel_shape) {
  if (options_.input_dtype != DType::kF32) x = emit("Cast", {x}, "input.cast", {{"to", static_cast<int64_t>(DType::kF32)}});
  const double scale = options_.scale.value_or(1.0);
  if (!std::isfinite(scale) || scale == 0) fail(ExitCode::kUsage, "--scale {} is not a number other than 0", scale);
  const auto per_channel = [&](const std::vector<double>& given, double otherwise, const char* option) {
    if (given.empty()) return std::vector<double>(1, otherwise);
    if (given.size() != 1 && static_cast<int64_t>(given.size()) != channels)
      fail(ExitCode::kUsage, "{} has {} values, the input {} channels", option, given.size(), channels);
    return given;
  };
  const std::vector<double> mean = per_channel(options_.mean, 0.0, "--mean"), deviation = per_channel(options_.std, 1.0, "--std");
  for (double d : deviation)
    if (!(d > 0)) fail(ExitCode::kUsage, "--std {} is not above 0", d);
  // (x * scale - mean) / std as one subtraction and one multiplication: (x - mean/scale) * (scale/std).
  const auto constant = [&](const std::string& name, const std::vector<double>& values) {
    std::vector<float> f;
    for (double v : values) f.push_back(static_cast<float>(v));
    Shape shape = channel_shape;
    if (f.size() == 1) shape.assign(channel_shape.size(), 1);
    return rw_.add_constant(name, Tensor::of<float>(shape, f));
  };
  if (std::any_of(mean.begin(), mean.end(), [](double m) { return m != 0; })) {
    std::vector<double> offset = mean;
    for (double& m : offset) m /= scale;
    x = emit("Sub", {x, constant("input.mean", offset)}, "input.centered");
  }
  std::vector<double> factor = deviation;
  for (double& d : factor) d = scale / d;
  if (std::any_of(factor.begin(), factor.end(), [](double f) { return f != 1; }))
    x = emit("Mul", {x, constant("input.scale", factor)}, "input.scaled");
  return x;
}

ValueId NetBuilder::picture_input(int64_t channels, int64_t size) {
  const ValueId x = rw_.add_input("input", options_.input_dtype, {graph().symbol("batch"), channels, size, size});
  return preprocess(x, channels, {1, channels, 1, 1});
}

ValueId NetBuilder::vector_input(int64_t features) {
  const ValueId x = rw_.add_input("input", options_.input_dtype, {graph().symbol("batch"), features});
  return preprocess(x, features, {1, features});
}

ValueId NetBuilder::conv(ValueId x, const std::string& name, const ConvShape& s, Init init) {
  const ValueId weight = parameter(name + ".weight", {s.out, s.in, s.kernel, s.kernel}, init);
  return emit("Conv", {x, weight}, name,
              {{"kernel_shape", std::vector<int64_t>{s.kernel, s.kernel}},
               {"strides", std::vector<int64_t>{s.stride, s.stride}},
               {"pads", std::vector<int64_t>{s.pad, s.pad, s.pad, s.pad}}});
}

ValueId NetBuilder::batch_norm(ValueId x, const std::string& name, int64_t channels) {
  const Shape shape{channels};
  const ValueId weight = parameter(name + ".weight", shape, ones()), bias = parameter(name + ".bias", shape, zeros());
  const ValueId mean = parameter(name + ".running_mean", shape, zeros()), var = parameter(name + ".running_var", shape, ones());
  return emit("BatchNormalization", {x, weight, bias, mean, var}, name, {{"epsilon", 1e-5f}, {"momentum", 0.9f}});
}

ValueId NetBuilder::max_pool(ValueId x, const std::string& name, int64_t kernel, int64_t stride, int64_t pad) {
  return emit("MaxPool", {x}, name,
              {{"kernel_shape", std::vector<int64_t>{kernel, kernel}},
               {"strides", std::vector<int64_t>{stride, stride}},
               {"pads", std::vector<int64_t>{pad, pad, pad, pad}}});
}

ValueId NetBuilder::global_average(ValueId x, const std::string& name) {
  return emit("Flatten", {emit("GlobalAveragePool", {x}, name)}, name + ".flat", {{"axis", int64_t{1}}});
}

ValueId NetBuilder::linear(ValueId x, const std::string& name, int64_t in, int64_t out, Init init) {
  const ValueId weight = parameter(name + ".weight", {out, in}, init), bias = parameter(name + ".bias", {out}, zeros());
  return emit("Gemm", {x, weight, bias}, name, {{"transB", int64_t{1}}});
}

ValueId NetBuilder::dense(ValueId x, const std::string& name, int64_t in, int64_t out, Init init) {
  const ValueId weight = parameter(name + ".weight", {in, out}, init), bias = parameter(name + ".bias", {out}, zeros());
  return emit("Add", {emit("MatMul", {x, weight}, name + ".matmul"), bias}, name);
}

ValueId NetBuilder::layer_norm(ValueId x, const std::string& name, int64_t size, float epsilon) {
  const ValueId weight = parameter(name + ".weight", {size}, ones()), bias = parameter(name + ".bias", {size}, zeros());
  return emit("LayerNormalization", {x, weight, bias}, name, {{"axis", int64_t{-1}}, {"epsilon", epsilon}});
}

ValueId NetBuilder::gelu(ValueId x, const std::string& name) {
  // x/2 * (1 + erf(x / sqrt 2)), the exact form; the operator Gelu came only with opset 20.
  const ValueId erf = emit("Erf", {emit("Div", {x, scalar(name + ".sqrt2", 1.41421356237309515f)}, name + ".div")}, name + ".erf");
  const ValueId gate = emit("Add", {erf, scalar(name + ".one", 1.0f)}, name + ".add");
  return emit("Mul", {emit("Mul", {x, gate}, name + ".mul"), scalar(name + ".half", 0.5f)}, name);
}

void NetBuilder::output(ValueId x) {
  rw_.rename_value(x, "logits");
  rw_.add_output(x);
}

}  // namespace ds::arch
