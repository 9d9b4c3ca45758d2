// What the internal 8-bit operators (ops/qfused.cc, ops/qpointwise.cc) say in attributes.
#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/quant.h"
#include "libds/ir/graph.h"

namespace ds::ops {

inline constexpr std::initializer_list<DType> kQuantized = {DType::kU8, DType::kI8};

inline DType quantized_output(const Node& node) { return static_cast<DType>(node.attr_int("output", static_cast<int64_t>(DType::kU8))); }
inline int32_t attr_i32(const Node& node, const char* key) { return static_cast<int32_t>(node.attr_int(key, 0)); }
// Scale and zero point of an operand: `prefix`_scale, `prefix`_zero.
inline kernels::QParams quant_params(const Node& node, const std::string& prefix) {
  return {node.attr_float(prefix + "_scale", 1.0f), attr_i32(node, (prefix + "_zero").c_str())};
}

// Bounds of an 8-bit result: its type's, narrowed by attributes lo and hi (a Relu or Clip that was folded in).
inline std::pair<int32_t, int32_t> quant_bounds(const Node& node, const char* low = "lo", const char* high = "hi") {
  const bool is_signed = quantized_output(node) == DType::kI8;
  const int64_t lo = is_signed ? -128 : 0, hi = is_signed ? 127 : 255;
  return {static_cast<int32_t>(std::max(lo, node.attr_int(low, lo))), static_cast<int32_t>(std::min(hi, node.attr_int(high, hi)))};
}

}  // namespace ds::ops
