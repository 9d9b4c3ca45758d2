// Tensors of random numbers, each a pure function of (key, stream, element): libds/base/random.h.
// Threads: parallel_for; the numbers do not depend on how the work is split.
#pragma once

#include <cstdint>

namespace ds::kernels {

// T: f32, f64. Uniform in [low, high).
template <typename T>
void random_uniform(int64_t n, double low, double high, uint64_t key, uint64_t stream, T* out);
template <typename T>
void random_normal(int64_t n, double mean, double scale, uint64_t key, uint64_t stream, T* out);

// For each row of log_weights [rows, classes] (not normalized), `samples` classes drawn with replacement.
// T: f32, f64; I: i32, i64.
template <typename T, typename I>
void multinomial(int64_t rows, int64_t classes, int64_t samples, const T* log_weights, uint64_t key, uint64_t stream, I* out);

}  // namespace ds::kernels
