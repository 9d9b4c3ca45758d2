// Instance and group normalization (Ulyanov et al., 2016; Wu and He, 2018) by vectors, channels first or last in memory.
//
// y = (x - m) / sqrt(v + epsilon) scale + bias, with mean m and variance v of each group of C / G channels of a sample.
// Legend: x, y [N, C, S] or, channels_last, [N, S, C]; scale, bias [C]. y may equal x.
// Sums are of x - x0 and its square, x0 a first element, in double, in an order that does not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ds::kernels {

struct GroupNormShape {
  int64_t N, C, S, G;
  bool channels_last;
};

// The channels-last form takes the pixels of a sample in rows: one where there are many channels, else as many as fill
// whole vectors. Rows are summed in chunks, which are what threads share.
struct GroupNormRows {
  int64_t pixels;      // of a row
  int64_t length;      // pixels * C
  int64_t per_sample;  // rows, the last of which may be short
  int64_t per_chunk, chunks;
};
GroupNormRows groupnorm_rows(const GroupNormShape& shape);

// Bytes that `scratch` must have; 8-byte aligned.
size_t groupnorm_scratch(const GroupNormShape& shape);

using GroupNormFn = void(const GroupNormShape& shape, const float* x, const float* scale, const float* bias, double epsilon,
                         void* scratch, float* y);
GroupNormFn groupnorm_avx2;
GroupNormFn groupnorm_avx512;  // call only where the CPU has AVX-512

}  // namespace ds::kernels
