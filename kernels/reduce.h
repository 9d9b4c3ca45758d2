// Reductions over any set of axes, running sums and selections along one axis, on raw pointers.
//
// Floats accumulate in double. Every result is summed in one fixed order, whatever the number of threads.
#pragma once

#include <cstdint>

namespace ds::kernels {

enum class Reduce { kSum, kMean, kMax, kMin, kProd, kL1, kL2, kSumSquare, kLogSum, kLogSumExp };

// Axes of the input, neighbours of one kind merged: kept ones (outer to inner) and reduced ones, with
// their strides in elements.
struct ReduceSpace {
  static constexpr int kMaxRank = 8;
  int kept = 0, reduced = 0;
  int64_t kept_size[kMaxRank], kept_stride[kMaxRank];
  int64_t reduced_size[kMaxRank], reduced_stride[kMaxRank];
  int64_t outputs = 1;  // elements of the result
  int64_t count = 1;    // elements behind each of them
};

// Bit i of `axes` reduces axis i; rank <= kMaxRank.
ReduceSpace make_reduce_space(int rank, const int64_t* dims, uint32_t axes);

// Over nothing: Sum 0, Prod 1, Max -inf or the lowest integer. NaN wins Max and Min. Integer sums wrap.
// T: float types, i8, u8, i32, i64, u32, u64; bool for Max and Min (any of, all of).
template <typename T>
void reduce(Reduce op, const ReduceSpace& space, const T* x, T* out);

// kSum, kMean and kSumSquare of f32, eight at a time.
namespace avx2 {
bool has_reduce(Reduce op);
void reduce(Reduce op, const ReduceSpace& space, const float* x, float* out);
}  // namespace avx2

// Legend for one axis: x is [outer, n, inner].

// Index of the largest (or smallest) along n; the first of equal ones, or the last. out [outer, inner].
template <typename T>
void arg_extreme(bool largest, bool last, int64_t outer, int64_t n, int64_t inner, const T* x, int64_t* out);
// The same by vectors, for inner > 1 and n <= 2^24.
using ArgExtremeFn = void(bool largest, bool last, int64_t outer, int64_t n, int64_t inner, const float* x, int64_t* out);
ArgExtremeFn arg_extreme_avx2;
ArgExtremeFn arg_extreme_avx512;  // call only where the CPU has AVX-512

// Running sum along n; exclusive leaves each element out of its own sum.
template <typename T>
void cumulative_sum(bool exclusive, bool reverse, int64_t outer, int64_t n, int64_t inner, const T* x, T* out);
// The same with products.
template <typename T>
void cumulative_product(bool exclusive, bool reverse, int64_t outer, int64_t n, int64_t inner, const T* x, T* out);
// d_x of cumulative_product, right where factors are zero too: n^2 steps a row. T: f32, f64.
template <typename T>
void cumulative_product_grad(bool exclusive, bool reverse, int64_t outer, int64_t n, int64_t inner, const T* x, const T* d_y, T* d_x);

// The k largest (smallest) along n in order, equal ones by index; NaN counts as largest.
// values, indices [outer, k, inner]; scratch: n indices.
template <typename T>
void top_k(bool largest, int64_t outer, int64_t n, int64_t inner, int64_t k, const T* x, T* values, int64_t* indices,
           int64_t* scratch);

}  // namespace ds::kernels
