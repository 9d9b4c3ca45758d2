// The CUDA kernels through the kernel interface. On a machine without a device: compiled, linked,
// passed over with a reason, and a clean error when called all the same.
#include "kernels/cuda/elementwise.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"
#include "libds/ops/cuda.h"

namespace ds {
namespace {

const KernelDef& first_kernel(const char* op) { return OpRegistry::instance().find("", op)->kernels.front(); }

KernelQuery query_for(const Node& node, size_t inputs, int64_t n) {
  const TensorDesc desc{DType::kF32, {n}, Layout::kPlain};
  return {node, std::vector<TensorDesc>(inputs, desc), {desc}, {}, Isa::kPortable, 1};
}

TEST(CudaKernels, ComeFirstAndArePassedOverOnTheCpu) {
  const Node node{};
  for (const char* op : {"Relu", "Add"}) {
    EXPECT_EQ(first_kernel(op).device, Device::kCuda) << op;
    KernelQuery query = query_for(node, op[0] == 'A' ? 2 : 1, 8);
    EXPECT_EQ(why_declined(first_kernel(op), query), "no CUDA device");
    query.device = Device::kCuda;
    EXPECT_EQ(why_declined(first_kernel(op), query), "");
    query.inputs[0].dtype = DType::kF64;
    EXPECT_EQ(why_declined(first_kernel(op), query), "not f32");
  }
}

TEST(CudaKernels, WithoutADeviceALaunchIsAnErrorNotACrash) {
  if (kernels::cuda::device_count() > 0) GTEST_SKIP() << "a CUDA device is present";
  const Tensor x = Tensor::of<float>({3}, {-1, 0, 1});
  const Tensor* in[] = {&x};
  Tensor y = Tensor::zeros(DType::kF32, {3});
  Tensor* out[] = {&y};
  const Node node{};
  const auto kernel = first_kernel("Relu").create(query_for(node, 1, 3));
  try {
    kernel->run(KernelContext(in, out, nullptr));
    FAIL() << "ran without a device";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kOsError);
    EXPECT_EQ(std::string(error.what()).rfind("CUDA: ", 0), 0u) << error.what();
  }
}

class CudaDevice : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    if (kernels::cuda::device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
  // Memory that both sides see.
  Tensor managed(int64_t n) {
    void* data = nullptr;
    EXPECT_EQ(cudaMallocManaged(&data, static_cast<size_t>(n) * sizeof(float)), cudaSuccess);
    allocated_.push_back(data);
    return Tensor::wrap(DType::kF32, {n}, data);
  }
  void TearDown() override {
    for (void* data : allocated_) cudaFree(data);
  }
  std::vector<void*> allocated_;
};

// Runs the first kernel of `op`, a CUDA one, and returns its result on the host.
void run_first(const char* op, std::vector<const Tensor*> in, Tensor& y) {
  const Node node{};
  Tensor* out[] = {&y};
  first_kernel(op).create(query_for(node, in.size(), y.numel()))->run(KernelContext(in, out, nullptr));
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

TEST_P(CudaDevice, SameBitsAsTheCpu) {
  const int64_t n = GetParam();
  Tensor a = managed(n), b = managed(n), y = managed(n);
  for (int64_t i = 0; i < n; ++i) {
    a.mutable_data<float>()[i] = std::sin(static_cast<float>(i)) * 3.0f;
    b.mutable_data<float>()[i] = std::cos(static_cast<float>(i)) / 7.0f;
  }
  if (n > 2) a.mutable_data<float>()[2] = std::nanf("");
  run_first("Relu", {&a}, y);
  for (int64_t i = 0; i < n; ++i) {
    const float x = a.data<float>()[i], expected = x < 0 ? 0 : x;
    ASSERT_EQ(std::memcmp(&y.data<float>()[i], &expected, sizeof expected), 0) << i;
  }
  run_first("Add", {&a, &b}, y);
  for (int64_t i = 0; i < n; ++i) {
    const float expected = a.data<float>()[i] + b.data<float>()[i], got = y.data<float>()[i];
    ASSERT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected))) << i;
  }
}

// One element, around a block, more than one turn of the grid.
INSTANTIATE_TEST_SUITE_P(Sizes, CudaDevice, ::testing::Values(1, 255, 257, 65535 * 256 + 3));

}  // namespace
}  // namespace ds
