#include "kernels/cuda/elementwise.h"

#include <cuda_runtime.h>

namespace ds::kernels::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int64_t kMaxBlocks = 65535;

// Grid-stride loop: any n with a bounded grid. Loads are coalesced, one element a thread and turn.
template <typename Op>
__global__ void apply(int64_t n, float* out, Op op) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) out[i] = op(i);
}

template <typename Op>
int launch(int64_t n, float* out, void* stream, Op op) {
  if (n <= 0) return 0;
  const int64_t needed = (n + kBlock - 1) / kBlock;
  const int blocks = static_cast<int>(needed < kMaxBlocks ? needed : kMaxBlocks);
  apply<<<blocks, kBlock, 0, static_cast<cudaStream_t>(stream)>>>(n, out, op);
  return static_cast<int>(cudaGetLastError());
}

struct Relu {
  const float* x;
  __device__ float operator()(int64_t i) const { return x[i] < 0.0f ? 0.0f : x[i]; }
};

struct Add {
  const float* a;
  const float* b;
  __device__ float operator()(int64_t i) const { return a[i] + b[i]; }
};

}  // namespace

int relu(int64_t n, const float* x, float* out, void* stream) { return launch(n, out, stream, Relu{x}); }

int add(int64_t n, const float* a, const float* b, float* out, void* stream) { return launch(n, out, stream, Add{a, b}); }

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

const char* error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace ds::kernels::cuda
