// How fast this machine can compute and read memory at most: the yardstick of `ds_compute_efficiency` and of the
// roofline (Williams, Waterman, Patterson 2009).
//
// Measured by a short register-only loop of multiply-adds (kernels/peak.h) at the instruction set in
// force, on all `threads` at once, best of several tries; kept for the life of the process.
#pragma once

#include "libds/base/dtype.h"
#include "libds/ir/graph.h"

namespace ds {

// Operations per second (a multiply-add is two) of `threads` threads at `dtype`: kI8 and kU8 measure
// 8-bit dot products, kBF16 and kF16 those in 16 bits where the CPU has them, every other type
// f32. The first call for a pair takes about 50 ms.
double peak_flops(DType dtype, int threads);

// Bytes per second that `threads` threads together can read from a buffer of so many bytes: sums, best of several passes; kept for
// the life of the process. No cache holds the usual buffer whole; the first call takes about half a second then.
constexpr int64_t kBeyondCaches = int64_t{512} << 20;
double peak_bandwidth(int threads, int64_t bytes = kBeyondCaches);

// The type most of the model's arithmetic is done in: kI8 when it is quantized, else kF32.
DType compute_dtype(const Graph& graph);

// flops / seconds / peak, in 0..1; 0 when nothing was measured. Above 1 only by measurement noise,
// which is clipped.
double compute_efficiency(double flops, double seconds, DType dtype, int threads);

}  // namespace ds
