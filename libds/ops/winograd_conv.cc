#include "libds/ops/winograd_conv.h"

#include "kernels/winograd.h"
#include "libds/ir/packed_cache.h"
#include "libds/ops/conv.h"
#include "libds/ops/epilogue.h"
#include "libds/ops/finish_sink.h"
#include "libds/ops/tile_product.h"

namespace ds::ops {
namespace {

// Inputs x, w, bias?, addend?.
class WinogradKernel final : public Kernel {
 public:
  WinogradKernel(const KernelQuery& q, int64_t out_tile)
      : shape_(nhwc_of(conv_forward_shape(q))), level_(q.isa), isa_(kernels::winograd_isa(out_tile, q.isa)), threads_(q.threads), epilogue_(epilogue_of(q.node)) {
    packed_ = pack_once(q, 1, kernels::winograd_form(isa_), [&] {
      const Tensor w = q.for_sizes ? Tensor() : q.constant(1)->transient();
      return kernels::pack_winograd(isa_, shape_, w.defined() ? w.data<float>() : nullptr);
    });
  }
  size_t workspace_bytes() const override { return kernels::winograd_workspace(shape_, *packed_, threads_); }
  size_t packed_bytes() const override { return packed_.made ? packed_->data.size() : 0; }

  void run(const KernelContext& c) override {
    const kernels::Finish finish = finish_of(c, epilogue_, shape_.out_channels);
    kernels::winograd_conv(isa_, shape_, c.input(0).data<float>(), *packed_, FinishSink(level_, finish), threads_, c.workspace());
  }

 private:
  kernels::NhwcConv shape_;
  Isa level_;
  kernels::WinogradIsa isa_;
  int threads_;
  kernels::Epilogue epilogue_;
  Packing<kernels::WinogradWeights> packed_;
};

}  // namespace

KernelDef winograd_conv(int64_t out_tile) {
  KernelDef k;
  k.name = out_tile == 2 ? "winograd2x2/conv" : "winograd4x4/conv";
  k.isa = Isa::kAvx2;
  k.decline = [out_tile](const KernelQuery& q) -> std::string {
    for (const TensorDesc& d : q.inputs)
      if (d.defined() && d.dtype != DType::kF32) return "not f32";
    if (q.out(0).dtype != DType::kF32) return "result is not f32";
    if (q.constant(1) == nullptr) return "weights are not constant";
    if (q.in(0).rank() != 4) return "not two spatial axes";
    if (q.in(0).layout != Layout::kChannelsLast || q.out(0).layout != Layout::kChannelsLast) return "channels are not last";
    if (q.in(3).defined() && q.in(3).layout != Layout::kChannelsLast) return "channels of the addend are not last";
    const int64_t best = kernels::winograd_out_tile(nhwc_of(conv_forward_shape(q)));
    if (best == 0) return "direct sums cost less";
    return best == out_tile ? "" : "another tile costs less";
  };
  k.in_place = {{3, 0}};
  k.create = [out_tile](const KernelQuery& q) -> std::unique_ptr<Kernel> { return std::make_unique<WinogradKernel>(q, out_tile); };
  k.preferred_layouts = [](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    inputs[0] = outputs[0] = Layout::kChannelsLast;
    if (q.in(3).defined()) inputs[3] = Layout::kChannelsLast;
  };
  return k;
}

}  // namespace ds::ops
