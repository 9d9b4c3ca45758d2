// Matrix products on raw pointers, portable: blocked, the innermost loop over columns.
//
// Legend: op(A) [m, k], op(B) [k, n], C [m, n], row-major; op() transposes when asked, so that A is
// stored [k, m] with trans_a. Threads: parallel_for over blocks of C; each element is summed in one
// fixed order, so that results do not depend on the number of threads. T: float, double; gemm also
// uint32_t, uint64_t.
#pragma once

#include <cstdint>

namespace ds::kernels {

struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  bool trans_a = false, trans_b = false;
};

// C_i = alpha * op(A_i) op(B_i) (+ C_i with accumulate) for i < batch. A_i starts at a + a_offset[i], B_i at
// b + b_offset[i] (elements; a null list: 0), C_i at c + i*m*n. C must not overlap A or B.
template <typename T>
void gemm(const GemmShape& s, int64_t batch, T alpha, const T* a, const int64_t* a_offset, const T* b,
          const int64_t* b_offset, bool accumulate, T* c);

// y[i, j] = beta * c[i * row_step + j * column_step]: prepares Gemm's output for accumulation.
template <typename T>
void broadcast_matrix(int64_t m, int64_t n, T beta, const T* c, int64_t row_step, int64_t column_step, T* y);

}  // namespace ds::kernels
