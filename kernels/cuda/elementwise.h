// Elementwise arithmetic on a CUDA device.
//
// Legend: n elements; all pointers are device memory; `out` may equal an operand. `stream` is a
// cudaStream_t, null for the default one. Functions queue the work and return at once: 0, or the
// cudaError_t of a launch that failed, whose text is error_text(). Nothing here synchronises.
#pragma once

#include <cstdint>

namespace ds::kernels::cuda {

// out[i] = max(x[i], 0); NaN passes through, as on the CPU.
int relu(int64_t n, const float* x, float* out, void* stream);

// out[i] = a[i] + b[i].
int add(int64_t n, const float* a, const float* b, float* out, void* stream);

// Devices that can be used; 0 without a driver.
int device_count();
const char* error_text(int error);

}  // namespace ds::kernels::cuda
