#include "libds/ops/int_arith.h"

namespace ds::ops {
namespace {

constexpr int64_t kMostElements = 64;

std::optional<std::vector<IntElement>> elements_of(InferContext& c, size_t i) {
  if (!c.has_dims(i) || c.dims(i).size() > 1) return std::nullopt;
  std::vector<IntElement> list;
  if (const Tensor* t = c.constant(i)) {
    if ((!is_int(t->dtype()) && t->dtype() != DType::kBool) || t->numel() > kMostElements) return std::nullopt;
    for (int64_t v : t->to_ints()) list.push_back(IntElement::of(v));
    return list;
  }
  if (!c.input(i).ints || static_cast<int64_t>(c.input(i).ints->size()) > kMostElements) return std::nullopt;
  for (Dim d : *c.input(i).ints) list.push_back(IntElement::of(d));
  return list;
}

}  // namespace

void propagate_ints(InferContext& c, const IntRule& rule) {
  const ValueId out = c.node().output(0);
  if (out == kNone || c.input_count() == 0) return;
  const DType dtype = c.graph().value(out).dtype;
  if (!is_int(dtype) && dtype != DType::kBool) return;
  std::vector<std::vector<IntElement>> operands;
  size_t count = 1;
  for (size_t i = 0; i < c.input_count(); ++i) {
    auto list = elements_of(c, i);
    if (!list) return;
    if (list->size() != 1) count = list->size();
    operands.push_back(std::move(*list));
  }
  Dims ints;
  for (size_t e = 0; e < count; ++e) {
    std::vector<IntElement> at;
    for (const auto& list : operands) {
      if (list.size() != 1 && list.size() != count) return;
      at.push_back(list[list.size() == 1 ? 0 : e]);
    }
    const std::optional<IntElement> result = rule(c, at);
    if (!result || (result->known && result->value < 0)) return;
    ints.push_back(result->known ? Dim(result->value) : result->symbol);
  }
  c.set_output_ints(0, std::move(ints));
}

}  // namespace ds::ops
