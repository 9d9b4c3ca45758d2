#include "libds/ops/epilogue.h"

#include <map>

namespace ds::ops {

kernels::Epilogue epilogue_of(const Node& node) {
  using kernels::Activation;
  static const std::map<std::string, Activation, std::less<>> kNames = {
      {"", Activation::kNone},           {"relu", Activation::kRelu}, {"clip", Activation::kClip},
      {"sigmoid", Activation::kSigmoid}, {"silu", Activation::kSilu}, {"hardswish", Activation::kHardSwish},
      {"gelu", Activation::kGelu},       {"tanh", Activation::kTanh}, {"gelu_tanh", Activation::kGeluTanh}};
  const std::string name = node.attr_string("activation", "");
  const auto it = kNames.find(name);
  if (it == kNames.end()) fail(ExitCode::kInternal, "activation '{}' is unknown", name);
  return {it->second, node.attr_float("low", 0),   node.attr_float("high", 0),
          node.input(3) != kNone, node.attr_float("scale", 1), node.attr_float("shift", 0)};
}

}  // namespace ds::ops
