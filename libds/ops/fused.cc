// Internal operators of the run-time pipeline: FusedConv and Reorder. Neither is ever exported.
//
// FusedConv (x, w, b?, addend?) -> scale * activation(Conv(x, w, b) + addend) + shift, with Conv's attributes and
// `activation` ("", relu, clip, sigmoid, hardswish, silu), `low` and `high` for clip, `scale` and `shift` (1 and 0).
// The addend has the output's shape.
// w in bf16 means products in bf16, whatever the other operands are stored in; w in f16 with `half_sums` products and short
// sums in f16 (else both are done in f32); `to`: type of the result, else x's.
// Reorder (x) -> the same values in another memory layout: those that the plan gives input and output.
#include "kernels/epilogue.h"

#include <cstring>

#include "kernels/interleave.h"
#include "libds/base/parallel.h"
#include "libds/ops/conv.h"
#include "libds/ops/depthwise.h"
#include "libds/ops/epilogue.h"
#include "libds/ops/onednn_kernel.h"
#include "libds/ops/register.h"
#include "libds/ops/tile_product.h"
#include "libds/ops/window.h"
#include "libds/ops/winograd_conv.h"

namespace ds {
namespace {

void infer_fused_conv(InferContext& c) {
  ops::infer_conv(c);
  if (const auto to = static_cast<DType>(c.node().attr_int("to", 0)); to != DType::kUndefined)
    c.set_output(0, to, c.graph().value(c.node().outputs[0]).dims);
  if (!c.has_input(3)) return;
  const Value& y = c.graph().value(c.node().outputs[0]);
  if (y.dims && c.has_dims(3) && all_known(*y.dims) && all_known(c.dims(3)) && *y.dims != c.dims(3))
    c.error("addend {} differs from the output {}", c.graph().dims_string(c.dims(3)), c.graph().dims_string(*y.dims));
}

KernelDef portable_fused_conv() {
  KernelDef k;
  k.name = "portable/fused_conv";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = ops::conv_forward_shape(q), e = ops::epilogue_of(q.node)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        T* y = c.output(0).mutable_data<T>();
        kernels::conv_forward<T>(s, c.input(0).data<T>(), c.input(1).data<T>(), c.has_input(2) ? c.input(2).data<T>() : nullptr, y);
        kernels::apply_epilogue<T>(e, c.output(0).numel(), c.has_input(3) ? c.input(3).data<T>() : nullptr, y);
      });
    });
  };
  return k;
}

KernelDef onednn_fused_conv(const char* name, int addend) {
  const auto request = [](const KernelQuery& q) {
    kernels::onednn::ConvRequest r = ops::conv_request(q);
    r.epilogue = ops::epilogue_of(q.node);
    return r;
  };
  KernelDef k = ops::onednn_kernel(name, [request, addend](const KernelQuery& q, std::string& why) {
    if (q.in(3).defined() != (addend >= 0)) why = addend >= 0 ? "no addend" : "an addend";
    return why.empty() ? kernels::onednn::conv_forward(request(q), why) : nullptr;
  }, addend);
  k.preferred_layouts = [request](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    ops::conv_layouts(request(q), inputs, outputs);
  };
  return k;
}

// Copies [N, C, plane] between memory layouts given as blocks (kernels/onednn.h), zeros in the padding channels.
template <typename T>
void reorder(const Shape& shape, int from, int to, const T* x, T* y) {
  const int64_t batch = shape[0], channels = shape[1];
  const int64_t plane = checked_numel(std::span(shape).subspan(2));
  constexpr int kLast = kernels::onednn::kChannelsLast;
  const auto padded = [&](int64_t block) { return block == kLast ? channels : (channels + block - 1) / block * block; };
  const auto at = [&](int64_t block, int64_t n, int64_t c, int64_t i) {
    if (block == kLast) return (n * plane + i) * channels + c;
    return ((n * (padded(block) / block) + c / block) * plane + i) * block + c % block;
  };
  parallel_for(batch * padded(to), (1 << 14) / std::max<int64_t>(1, plane) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      const int64_t n = j / padded(to), c = j % padded(to);
      for (int64_t i = 0; i < plane; ++i) y[at(to, n, c, i)] = c < channels ? x[at(from, n, c, i)] : T{};
    }
  });
}

KernelDef portable_reorder() {
  KernelDef k;
  k.name = "portable/reorder";
  k.decline = [](const KernelQuery& q) { return ops::require(q.in(0).rank() >= 3 && dtype_size(q.in(0).dtype) % 2 == 0, "not [N, C, ...] of floats"); };
  k.create = [](const KernelQuery& q) {
    const Shape shape = q.in(0).shape;
    const int from = ops::block_of(q.in(0).layout), to = ops::block_of(q.out(0).layout);
    return make_kernel([=](const KernelContext& c) {
      if (dtype_size(c.input(0).dtype()) == 2)
        reorder(shape, from, to, static_cast<const uint16_t*>(c.input(0).raw()), static_cast<uint16_t*>(c.output(0).mutable_raw()));
      else
        reorder(shape, from, to, static_cast<const uint32_t*>(c.input(0).raw()), static_cast<uint32_t*>(c.output(0).mutable_raw()));
    });
  };
  return k;
}

// Images on their way in.
KernelDef interleaving_reorder() {
  KernelDef k;
  k.name = "avx512/interleave";
  k.isa = Isa::kAvx512;
  k.decline = [](const KernelQuery& q) {
    const bool image = q.in(0).dtype == DType::kF32 && q.in(0).rank() >= 3 && q.in(0).dim(1) == 3;
    return ops::require(image && q.in(0).layout == Layout::kPlain && q.out(0).layout == Layout::kChannelsLast, "not three planes to pixels");
  };
  k.create = [](const KernelQuery& q) {
    const int64_t batch = q.in(0).dim(0), plane = checked_numel(std::span(q.in(0).shape).subspan(2));
    return make_kernel([=](const KernelContext& c) { kernels::interleave3_avx512(batch, plane, c.input(0).data<float>(), c.output(0).mutable_data<float>()); });
  };
  return k;
}

KernelDef onednn_reorder() {
  return ops::onednn_kernel("onednn/reorder", [](const KernelQuery& q, std::string& why) -> std::unique_ptr<kernels::onednn::Program> {
    if (q.in(0).rank() < 3 || q.in(0).rank() > 5) return why = "not [N, C, 1 to 3 axes]", nullptr;
    return kernels::onednn::reorder(q.in(0).shape, ops::block_of(q.in(0).layout), ops::block_of(q.out(0).layout));
  });
}

}  // namespace

void register_fused_ops(OpRegistry& registry) {
  OpDef conv;
  conv.domain = Graph::kInternalDomain;
  conv.name = "FusedConv";
  conv.min_inputs = 2;
  conv.max_inputs = 4;
  conv.infer = infer_fused_conv;
  conv.cost = ops::conv_cost;
  conv.widens_halves = true;
  conv.kernels = {ops::depthwise_conv_avx512(), ops::depthwise_conv_avx2(), ops::winograd_conv(2), ops::winograd_conv(4), ops::tile_conv(), onednn_fused_conv("onednn/conv_add", 3), onednn_fused_conv("onednn/conv_act", -1), portable_fused_conv()};
  registry.add(std::move(conv));

  OpDef order;
  order.domain = Graph::kInternalDomain;
  order.name = "Reorder";
  order.min_inputs = order.max_inputs = 1;
  order.infer = ops::infer_same_as_input;
  order.kernels = {interleaving_reorder(), onednn_reorder(), portable_reorder()};
  registry.add(std::move(order));
}

}  // namespace ds
