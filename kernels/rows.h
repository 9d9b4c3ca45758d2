// Elementwise functions on a piece of a row: one thread, operands that either advance or stay.
//
// A step of 1 walks an operand along with the output, 0 repeats its one element. `out` may equal an operand that walks.
// Functions of floats round alike wherever they are called from: what runs a whole operator (kernels/unary.h, binary.h)
// and what runs many of them block by block (kernels/chain.h) share these loops, so that their results are the same bits.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernels/binary.h"
#include "kernels/compare.h"
#include "kernels/unary.h"
#include "libds/base/cpu.h"

namespace ds::kernels {

// T: float, double.
template <typename T>
struct RowFunctions {
  void (*unary)(Unary op, int64_t n, const T* x, T* out, double alpha, double beta);
  void (*binary)(Binary op, int64_t n, const T* a, int64_t step_a, const T* b, int64_t step_b, T* out);
  void (*clip)(int64_t n, const T* x, double low, double high, T* out);
  void (*compare)(Compare op, int64_t n, const T* a, int64_t step_a, const T* b, int64_t step_b, bool* out);
  void (*select)(int64_t n, const bool* condition, int64_t step_c, const T* a, int64_t step_a, const T* b, int64_t step_b, T* out);
};

// One row of n elements as an iteration space; a step an operand.
Broadcast row_space(int64_t n, std::initializer_list<int64_t> steps);

// Portable loops.
template <typename T>
const RowFunctions<T>& portable_rows();

// Vectors where the function has a vector form, else the portable loop. `isa` is at least kAvx2.
const RowFunctions<float>& vector_rows(Isa isa);

// The vector forms. unary_row and binary_row: for the functions that has_unary() and has_binary() name.
namespace avx2 {
void unary_row(Unary op, int64_t n, const float* x, float* out, float alpha, float beta);
void binary_row(Binary op, int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, float* out);
void clip_row(int64_t n, const float* x, double low, double high, float* out);
void compare_row(Compare op, int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, bool* out);
void select_row(int64_t n, const bool* condition, int64_t step_c, const float* a, int64_t step_a, const float* b, int64_t step_b, float* out);
}  // namespace avx2
namespace avx512 {
void unary_row(Unary op, int64_t n, const float* x, float* out, float alpha, float beta);
void binary_row(Binary op, int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, float* out);
void clip_row(int64_t n, const float* x, double low, double high, float* out);
void compare_row(Compare op, int64_t n, const float* a, int64_t step_a, const float* b, int64_t step_b, bool* out);
void select_row(int64_t n, const bool* condition, int64_t step_c, const float* a, int64_t step_a, const float* b, int64_t step_b, float* out);
}  // namespace avx512

}  // namespace ds::kernels
