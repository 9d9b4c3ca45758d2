// The part of fuse-qdq that makes one operator on bytes of what stands between DequantizeLinear and a QuantizeLinear:
//
//   QTable   any pointwise function of one 8-bit tensor: activations, arithmetic with constants of one value, several of them
//            in a row, with QuantizeLinear and DequantizeLinear between them or not, and where paths from that tensor meet
//            again (x * sigmoid(x), Gelu spelled out). The same bits.
//   QAffine  arithmetic with a constant per channel (BatchNormalization, a bias, a scale) and bounds (Relu, Clip,
//            HardSigmoid) after it. The same bits for one step; several are composed, which may move a result by one.
//   QBinary  Add, Sub, Mul, Div of two 8-bit tensors, with broadcasting. The same bits.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "libds/passes/qdq_graph.h"

namespace ds {

class QPointwiseFuser : protected QdqGraph {
 protected:
  using QdqGraph::QdqGraph;

  // Of a QuantizeLinear; whether an operator took its place.
  bool fuse_quantize(NodeId id);

 private:
  // Where a value comes from: bytes, in the layout they have (`last`: channels last, of a value that has them second).
  struct Root {
    ValueId bytes = kNone;
    bool last = false;
    bool operator==(const Root&) const = default;
  };
  Root root_of(ValueId bytes) const;
  void replace_at(const Root& root, ValueId old, ValueId made) { root.last ? replace_nhwc(old, made) : replace(old, made); }
  // Content of a constant, dequantized if need be.
  std::optional<Tensor> known(ValueId id) const;

  // A value as a function of bytes: one real number per bit pattern.
  struct Function {
    Root root;
    std::vector<float> reals;
  };
  const std::optional<Function>& function_of(ValueId id, int depth);
  std::optional<Function> function_made_by(ValueId id, int depth);

  // bounded(x * scale[c] + shift[c]) of an 8-bit tensor.
  struct Affine {
    Root root;
    TensorParams params;
    std::vector<double> scale, shift;
    double low = -INFINITY, high = INFINITY;
    bool bounded() const { return low > -INFINITY || high < INFINITY; }
  };
  std::optional<Affine> affine_of(ValueId id, int depth) const;
  bool take_batch_norm(const Node& n, Affine& a) const;
  bool take_constant(const Node& n, size_t side, Affine& a) const;
  bool take_bounds(const Node& n, Affine& a) const;
  // The values of a constant per channel of a: one, or as many as a has.
  std::optional<std::vector<double>> per_channel(ValueId id, const Affine& a, size_t rank) const;

  bool requantize(const Node& q, const TensorParams& to);
  bool by_table(const Node& q, const TensorParams& to);
  bool by_affine(const Node& q, const TensorParams& to);
  bool by_binary(const Node& q, const TensorParams& to);

  std::map<ValueId, std::optional<Function>> functions_;
};

}  // namespace ds
