// Einstein summation by its definition: one product per index tuple. For what is not a matrix product
// (elementwise products, diagonals, plain sums), for integers, and as the reference.
//
// Legend: labels are numbered, those of the output first and in its order, then those that are summed.
// An operand lacks a label, or repeats along it, where its stride is 0; a label that stands twice in an
// operand (a diagonal) has the sum of both strides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ds::kernels {

struct EinsumSpace {
  std::vector<int64_t> size;                 // per label
  size_t out_rank = 0;                       // so many labels belong to the output
  std::vector<std::vector<int64_t>> stride;  // operand, label: elements
};

// y (contiguous) = sum of products. T: float (summed in double), double, and unsigned integers, which
// stand for signed ones of their size too: both wrap around. Threads: parallel_for over outputs.
template <typename T>
void einsum(const EinsumSpace& space, const T* const* operands, T* y);

}  // namespace ds::kernels
