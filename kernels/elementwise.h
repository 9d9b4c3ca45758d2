// Elementwise arithmetic on raw pointers.
//
// Legend: n elements; all operands of one call have the same type. `out` may equal an input.
// Threads: every function splits its work with parallel_for.
#pragma once

#include <cstdint>

namespace ds::kernels {

enum class Binary { kAdd, kSub, kMul, kDiv };

// A broadcast iteration space with up to kMaxRank axes; stride 0 repeats an operand along an axis.
// Adjacent axes that can be walked as one are merged by make_broadcast().
struct Broadcast {
  static constexpr int kMaxRank = 8;
  int rank = 0;
  int64_t size[kMaxRank];
  int64_t stride_a[kMaxRank], stride_b[kMaxRank];
  int64_t total = 1;
};

// dims_a and dims_b are right-aligned to out_dims (rank `rank`), padded with ones by the caller.
Broadcast make_broadcast(int rank, const int64_t* out_dims, const int64_t* dims_a, const int64_t* dims_b);

// out[i] = a[i] op b[i] over the broadcast space. T: float, double, int32_t, int64_t.
template <typename T>
void binary(Binary op, const Broadcast& space, const T* a, const T* b, T* out);

// out[i] = max(x[i], 0).
template <typename T>
void relu(int64_t n, const T* x, T* out);

// d_x[i] = y[i] > 0 ? d_y[i] : 0, y being relu's output.
template <typename T>
void relu_grad(int64_t n, const T* y, const T* d_y, T* d_x);

}  // namespace ds::kernels
