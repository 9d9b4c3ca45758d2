// Shape arithmetic: what is known about the elements of short integer tensors (Value::ints) is carried
// through elementwise operators, so that Shape -> Gather -> Mul -> Reshape infers without running.
#pragma once

#include <functional>
#include <span>

#include "libds/ops/common.h"

namespace ds::ops {

// One element: a number, or a dimension that is only named (then it is >= 0 and `value` means nothing).
struct IntElement {
  int64_t value = 0;
  Dim symbol;
  bool known = true;

  static IntElement of(int64_t v) { return {v, Dim(0), true}; }
  static IntElement of(Dim d) { return d.known() ? of(d.raw) : IntElement{0, d, false}; }
  bool is(int64_t v) const { return known && value == v; }
  bool same(const IntElement& o) const { return known == o.known && (known ? value == o.value : symbol == o.symbol); }
};

// Result for one element of each input; nullopt: nothing can be said (the whole output is unknown).
using IntRule = std::function<std::optional<IntElement>(InferContext&, std::span<const IntElement>)>;

// Called after set_output: broadcasts scalars over vectors and records output 0's elements. Does nothing
// for other ranks, long tensors, unknown operands, or results that are not dimensions (negative ones).
void propagate_ints(InferContext& context, const IntRule& rule);

}  // namespace ds::ops
