// Dropout (Srivastava et al., 2014) with a counter-based mask, on raw pointers.
#pragma once

#include <cstdint>

namespace ds::kernels {

// out[i] = x[i] / (1 - ratio) with probability 1 - ratio, else 0. The mask is a pure function of
// (seed, stream, step, i): applying this to d_y gives d_x, and nothing need be kept. T: f32, f64.
template <typename T>
void dropout(int64_t n, const T* x, double ratio, uint64_t seed, uint64_t stream, uint64_t step, T* out);

// mask[i]: whether dropout() keeps element i.
void dropout_mask(int64_t n, double ratio, uint64_t seed, uint64_t stream, uint64_t step, bool* mask);

// A key for every step, so that elements can be counted from 0: element i is word i % 4 of
// philox(key, stream, i / 4).
uint64_t dropout_key(uint64_t seed, uint64_t stream, uint64_t step);

namespace avx2 {
void dropout(int64_t n, const float* x, double ratio, uint64_t seed, uint64_t stream, uint64_t step, float* out);
}  // namespace avx2

}  // namespace ds::kernels
