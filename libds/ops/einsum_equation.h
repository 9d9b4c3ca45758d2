// The equation of an Einsum, and the ways to compute it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/einsum.h"
#include "libds/ir/kernel_def.h"

namespace ds::ops {

// A letter, or one of the axes an ellipsis stands for: kEllipsis + its place counted from the last.
using Label = int;
inline constexpr Label kEllipsis = 256;
using Labels = std::vector<Label>;

struct Equation {
  std::vector<Labels> operands;
  Labels output;  // each label once
};

// "bij,bjk->bik" over operands of these ranks; throws bad data where it does not fit them.
Equation parse_equation(std::string_view text, const std::vector<size_t>& ranks);

// The labels of an equation at shapes: output first, then summed ones, with their sizes.
struct LabelSizes {
  Labels labels;
  std::vector<int64_t> size;
  int64_t of(Label label) const;
};
LabelSizes label_sizes(const Equation& e, const std::vector<Shape>& shapes);

// The whole sum as one space.
kernels::EinsumSpace whole_space(const Equation& e, const std::vector<Shape>& shapes);

// Operands two at a time, each pair as a (batched) matrix product where it is one: f32 and f64.
std::unique_ptr<Kernel> make_contraction(const Equation& e, const KernelQuery& query);

}  // namespace ds::ops
