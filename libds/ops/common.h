// What operator families share: broadcasting, axes, usual inference functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"

namespace ds::ops {

// Result of numpy broadcasting, symbols included: equal symbols stay, a symbol against a concrete
// size > 1 becomes that size, two different symbols become a fresh one. Throws on 3 against 4.
Dims broadcast_dims(InferContext& context, const Dims& a, const Dims& b);
// Broadcasts all inputs that are present, from `first` on; nullopt when a rank is unknown.
std::optional<Dims> broadcast_inputs(InferContext& context, size_t first = 0);

inline constexpr std::initializer_list<DType> kFloats = {DType::kF32, DType::kF64, DType::kF16, DType::kBF16};
// Whether operands of both float types may meet in one node: they are of the same, or f32 and 16 bits, which
// the widened kernel brings together.
inline bool mixes(DType a, DType b) { return a == b || (is_float(a) && is_float(b) && a != DType::kF64 && b != DType::kF64); }

// Axis in [-rank, rank) to [0, rank); throws with the node's context otherwise.
int64_t normalize_axis(int64_t axis, int64_t rank);
std::vector<int64_t> normalize_axes(std::vector<int64_t> axes, int64_t rank);

// Output 0 has input 0's dtype and dims.
void infer_same_as_input(InferContext& context);

// Row-major strides in elements.
Shape strides_of(const Shape& shape);

// `decline` pieces for KernelDef: empty string when the condition holds.
std::string require(bool condition, const char* reason);

}  // namespace ds::ops
