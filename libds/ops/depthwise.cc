#include "libds/ops/depthwise.h"

#include "kernels/depthwise.h"
#include "libds/ops/conv.h"
#include "libds/ops/epilogue.h"
#include "libds/ops/tile_product.h"

namespace ds::ops {
namespace {

// Inputs x, w, bias?, addend?.
class DepthwiseKernel final : public Kernel {
 public:
  DepthwiseKernel(const KernelQuery& q, kernels::DepthwiseFn* function)
      : function_(function), shape_(nhwc_of(conv_forward_shape(q))), epilogue_(epilogue_of(q.node)) {
    packed_ = Tensor::empty(DType::kF32, {kernels::depthwise_panels(shape_), shape_.kernel_h * shape_.kernel_w, kernels::kDepthwisePanel});
    if (!q.for_sizes) kernels::pack_depthwise(shape_, q.constant(1)->transient().data<float>(), packed_.mutable_data<float>());
  }
  size_t packed_bytes() const override { return packed_.bytes(); }

  void run(const KernelContext& c) override {
    kernels::Finish finish;
    finish.epilogue = epilogue_;
    finish.bias = c.has_input(2) ? c.input(2).data<float>() : nullptr;
    finish.addend = c.has_input(3) ? c.input(3).raw() : nullptr;
    finish.y = c.output(0).mutable_raw();
    finish.channels = shape_.channels;
    function_(shape_, c.input(0).data<float>(), packed_.data<float>(), finish);
  }

 private:
  kernels::DepthwiseFn* function_;
  kernels::NhwcConv shape_;
  kernels::Epilogue epilogue_;
  Tensor packed_;
};

KernelDef kernel(const char* name, Isa isa, kernels::DepthwiseFn* function) {
  KernelDef k;
  k.name = name;
  k.isa = isa;
  k.decline = [](const KernelQuery& q) -> std::string {
    const int64_t groups = q.node.attr_int("group", 1);
    if (groups != q.in(0).dim(1) || groups != q.out(0).dim(1)) return "channels share filters";
    if (q.in(0).dtype != DType::kF32) return "not f32";
    if (q.constant(1) == nullptr) return "weights are not constant";
    if (q.in(0).rank() > 4) return "three spatial axes";
    if (q.in(0).layout != Layout::kChannelsLast || q.out(0).layout != Layout::kChannelsLast) return "channels are not last";
    if (q.in(3).defined() && q.in(3).layout != Layout::kChannelsLast) return "channels of the addend are not last";
    return {};
  };
  k.in_place = {{3, 0}};
  k.create = [function](const KernelQuery& q) -> std::unique_ptr<Kernel> { return std::make_unique<DepthwiseKernel>(q, function); };
  k.preferred_layouts = [](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    inputs[0] = outputs[0] = Layout::kChannelsLast;
    if (q.in(3).defined()) inputs[3] = Layout::kChannelsLast;
  };
  return k;
}

}  // namespace

KernelDef depthwise_conv_avx512() { return kernel("avx512/depthwise", Isa::kAvx512, kernels::depthwise_avx512); }
KernelDef depthwise_conv_avx2() { return kernel("avx2/depthwise", Isa::kAvx2, kernels::depthwise_avx2); }

}  // namespace ds::ops
