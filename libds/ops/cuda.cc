#include "libds/ops/cuda.h"

#ifdef DS_HAS_CUDA
#include "kernels/cuda/elementwise.h"
#include "libds/ops/common.h"
#endif

namespace ds::ops {

#ifdef DS_HAS_CUDA

namespace {

void check(int status) {
  if (status != 0) fail(ExitCode::kOsError, "CUDA: {}", kernels::cuda::error_text(status));
}

// f32, plain layout, all operands of one shape.
std::string decline_elementwise(const KernelQuery& q) {
  for (const TensorDesc& d : q.inputs) {
    if (d.dtype != DType::kF32) return "not f32";
    if (d.layout != Layout::kPlain) return "not a plain layout";
    if (d.shape != q.out(0).shape) return "shapes differ";
  }
  return {};
}

KernelDef elementwise(std::string name, std::function<int(const KernelContext&)> launch) {
  KernelDef k;
  k.name = std::move(name);
  k.device = Device::kCuda;
  k.decline = decline_elementwise;
  k.create = [launch = std::move(launch)](const KernelQuery&) {
    return make_kernel([launch](const KernelContext& c) { check(launch(c)); });
  };
  return k;
}

}  // namespace

std::vector<KernelDef> cuda_kernels(std::string_view op) {
  if (op == "Relu") {
    KernelDef k = elementwise("cuda/relu", [](const KernelContext& c) {
      return kernels::cuda::relu(c.output(0).numel(), c.input(0).data<float>(), c.output(0).mutable_data<float>(), nullptr);
    });
    k.in_place = {{0, 0}};
    return {k};
  }
  if (op == "Add") {
    KernelDef k = elementwise("cuda/add", [](const KernelContext& c) {
      return kernels::cuda::add(c.output(0).numel(), c.input(0).data<float>(), c.input(1).data<float>(),
                                c.output(0).mutable_data<float>(), nullptr);
    });
    k.in_place = {{0, 0}, {1, 0}};
    return {k};
  }
  return {};
}

#else

std::vector<KernelDef> cuda_kernels(std::string_view) { return {}; }

#endif

}  // namespace ds::ops
