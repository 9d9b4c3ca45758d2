// What the `lower` functions of operators share.
#pragma once

#include "libds/ops/common.h"

namespace ds::ops {

// The node being lowered. Copies what it needs of the node: references to it do not survive emit().
class Lowering {
 public:
  Lowering(Rewriter& rewriter, NodeId id) : rw_(rewriter), node_(rewriter.graph().node(id)) {}

  const Node& node() const { return node_; }
  bool has(size_t i) const { return node_.input(i) != kNone; }
  ValueId in(size_t i) const { return node_.input(i); }
  DType dtype(ValueId id) const { return rw_.graph().value(id).dtype; }
  const std::optional<Dims>& dims(ValueId id) const { return rw_.graph().value(id).dims; }
  bool wants(size_t i) const { return node_.output(i) != kNone; }

  ValueId emit(std::string_view op, std::vector<ValueId> inputs, Attributes attrs = {}) {
    return rw_.emit(op, std::move(inputs), std::move(attrs), node_.name.empty() ? node_.op : node_.name);
  }
  // All outputs of a node that has `outputs`.
  std::vector<ValueId> emit_all(std::string_view op, std::vector<ValueId> inputs, Attributes attrs, size_t outputs) {
    const NodeId id = rw_.add_node(op, std::move(inputs), std::move(attrs), node_.name.empty() ? node_.op : node_.name, outputs);
    return rw_.graph().node(id).outputs;
  }
  // A rank-0 constant.
  ValueId scalar(double x, DType dtype) { return constant(Tensor::scalar<double>(x).cast(dtype)); }
  ValueId ints(const std::vector<int64_t>& values) { return constant(Tensor::vector<int64_t>(values)); }
  ValueId constant(Tensor t) { return rw_.add_constant(node_.name.empty() ? node_.op : node_.name, std::move(t)); }
  ValueId cast(ValueId x, DType to) {
    return dtype(x) == to ? x : emit("Cast", {x}, {{"to", static_cast<int64_t>(to)}});
  }
  // `x` of the given content everywhere, in the shape of `like`.
  ValueId filled_like(ValueId like, double x, DType dtype) {
    return emit("ConstantOfShape", {emit("Shape", {like})}, {{"value", Tensor::of<double>({1}, {x}).cast(dtype)}});
  }
  // `value` becomes output i.
  void set(size_t i, ValueId value) {
    if (wants(i)) rw_.replace_uses(node_.outputs[i], value);
  }

 private:
  Rewriter& rw_;
  const Node node_;
};

// A LowerFn that always applies: body(Lowering&).
template <typename Body>
LowerFn lower_as(Body body) {
  return [body](Rewriter& rw, NodeId id) {
    Lowering l(rw, id);
    body(l);
    return true;
  };
}

}  // namespace ds::ops
