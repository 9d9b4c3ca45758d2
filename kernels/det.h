// Determinants of square matrices and their gradient, on raw pointers. T: f32, f64; computed in double by
// LU decomposition with row pivots. Threads: parallel_for over matrices.
#pragma once

#include <cstdint>

namespace ds::kernels {

// x [batch, m, m] -> out [batch]; an empty matrix has determinant 1.
template <typename T>
void det(int64_t batch, int64_t m, const T* x, T* out);

// d_x = d_y cofactor(x): from the inverse where x has one, else minor by minor.
template <typename T>
void det_grad(int64_t batch, int64_t m, const T* x, const T* d_y, T* d_x);

}  // namespace ds::kernels
