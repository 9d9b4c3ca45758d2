// What the passes over QuantizeLinear and DequantizeLinear share: looking at quantized values, tables, layouts.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernels/quant.h"
#include "libds/passes/pass.h"

namespace ds {

// Scale and zero point of one tensor.
struct TensorParams {
  float scale = 1;
  int32_t zero = 0;
  DType dtype = DType::kU8;
  bool operator==(const TensorParams&) const = default;
};

class QdqGraph {
 protected:
  QdqGraph(Rewriter& rw, const Evaluate& evaluate) : rw_(rw), g_(rw.graph()), evaluate_(evaluate) {}

  // --- looking at the graph ---

  const Node* producer(ValueId id, std::string_view op) const {
    if (id == kNone || g_.value(id).producer == kNone) return nullptr;
    const Node& n = g_.node(g_.value(id).producer);
    return n.is(op) ? &n : nullptr;
  }
  const Tensor* constant(ValueId id) const { return id == kNone ? nullptr : g_.value(id).constant.get(); }

  // Parameters given by constant inputs `scale` and `zero` (kNone: 0) of one element each.
  std::optional<TensorParams> params(ValueId scale, ValueId zero, DType dtype) const {
    const Tensor *s = constant(scale), *z = constant(zero);
    if (s == nullptr || s->numel() != 1 || s->dtype() != DType::kF32) return std::nullopt;
    if (zero != kNone && (z == nullptr || z->numel() != 1)) return std::nullopt;
    if (dtype != DType::kU8 && dtype != DType::kI8) return std::nullopt;
    const float step = s->data<float>()[0];
    if (!(step > 0) || !std::isfinite(step)) return std::nullopt;
    return TensorParams{step, z == nullptr ? 0 : static_cast<int32_t>(z->to_ints()[0]), dtype};
  }

  // The DequantizeLinear behind a value, unless it works in blocks or in 16-bit floats.
  const Node* plain_dequantize(ValueId id) const {
    const Node* dq = producer(id, "DequantizeLinear");
    if (dq == nullptr || dq->attr_int("block_size", 0) != 0 || g_.value(id).dtype != DType::kF32) return nullptr;
    return dq;
  }
  // The like of a QuantizeLinear.
  static bool is_plain_quantize(const Node& q) {
    constexpr auto kF32 = static_cast<int64_t>(DType::kF32);
    return q.is("QuantizeLinear") && q.attr_int("block_size", 0) == 0 && (q.attr_int("precision", 0) == 0 || q.attr_int("precision", 0) == kF32);
  }

  struct Operand {
    ValueId bytes = kNone;
    TensorParams params;
  };
  // The 8-bit tensor behind a dequantized one, per tensor.
  std::optional<Operand> operand(ValueId id) const {
    const Node* dq = plain_dequantize(id);
    if (dq == nullptr) return std::nullopt;
    const auto p = params(dq->input(1), dq->input(2), g_.value(dq->inputs[0]).dtype);
    if (!p) return std::nullopt;
    return Operand{dq->inputs[0], *p};
  }

  // The only user of a value that is no output of the graph.
  std::optional<NodeId> only_user(ValueId id) const {
    const Value& v = g_.value(id);
    if (v.users.size() != 1 || g_.is_output(id)) return std::nullopt;
    for (const State& s : g_.states())
      if (s.update == id) return std::nullopt;
    return v.users[0];
  }

  static int64_t quantize_float(float real, const TensorParams& p) {
    if (p.dtype == DType::kI8) {
      const auto zero = static_cast<int8_t>(p.zero);
      int8_t y;
      kernels::quantize<float, int8_t>({}, &real, &p.scale, &zero, &y);
      return y;
    }
    const auto zero = static_cast<uint8_t>(p.zero);
    uint8_t y;
    kernels::quantize<float, uint8_t>({}, &real, &p.scale, &zero, &y);
    return y;
  }

  bool has_rank(ValueId id, size_t rank) const { return g_.value(id).dims && g_.value(id).dims->size() == rank; }

  // --- layouts ---

  // The value with channels last.
  ValueId nhwc(ValueId id) {
    if (const auto it = nhwc_.find(id); it != nhwc_.end()) return it->second;
    const ValueId turned = rw_.emit("Transpose", {id}, {{"perm", std::vector<int64_t>{0, 2, 3, 1}}}, g_.value(id).name + "/nhwc");
    nhwc_[id] = turned;
    return turned;
  }
  bool is_nhwc(ValueId id) const { return nhwc_.count(id) != 0; }

  // Puts `made` in place of `old`.
  void replace(ValueId old, ValueId made) { rw_.replace_uses(old, made); }
  // The same for a value with channels last.
  void replace_nhwc(ValueId old, ValueId made) {
    const ValueId back = rw_.emit("Transpose", {made}, {{"perm", std::vector<int64_t>{0, 3, 1, 2}}}, g_.value(made).name + "/nchw");
    nhwc_[back] = made;
    replace(old, back);
  }

  static void set_params(Attributes& attrs, const std::string& prefix, const TensorParams& p) {
    attrs[prefix + "_scale"] = p.scale;
    attrs[prefix + "_zero"] = static_cast<int64_t>(p.zero);
  }

  // --- tables ---

  // `bytes` under other parameters (a table when they differ).
  ValueId requantized(ValueId bytes, const TensorParams& from, const TensorParams& to, int64_t lo, int64_t hi) {
    const bool is_signed = to.dtype == DType::kI8;
    if (from == to && lo <= (is_signed ? -128 : 0) && hi >= (is_signed ? 127 : 255)) return bytes;
    std::vector<float> reals(256);
    for (int i = 0; i < 256; ++i) reals[static_cast<size_t>(i)] = real_of(static_cast<uint8_t>(i), from);
    return table(bytes, reals, to, lo, hi);
  }

  static float real_of(uint8_t bits, const TensorParams& p) {
    const int32_t stored = p.dtype == DType::kI8 ? static_cast<int8_t>(bits) : bits;
    return static_cast<float>(stored - p.zero) * p.scale;
  }

  // Maps each byte to the quantized `reals` entry of its bits.
  ValueId table(ValueId bytes, const std::vector<float>& reals, const TensorParams& to, int64_t lo, int64_t hi) {
    Tensor entries = Tensor::empty(DType::kU8, {256});
    for (size_t i = 0; i < 256; ++i)
      entries.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(std::clamp(quantize_float(reals[i], to), lo, hi));
    const ValueId content = rw_.add_constant(g_.value(bytes).name + "/table", std::move(entries));
    return rw_.emit("QTable", {bytes, content}, {{"output", static_cast<int64_t>(to.dtype)}}, g_.value(bytes).name + "/q");
  }

  Rewriter& rw_;
  Graph& g_;
  const Evaluate& evaluate_;
  std::map<ValueId, ValueId> nhwc_;  // 8-bit value -> the same with channels last
};

}  // namespace ds
