#include "libds/ir/widened_kernel.h"

#include <algorithm>

#include "libds/base/half.h"
#include "libds/ir/packed_cache.h"

namespace ds {
namespace {

// The query with f32 for every 16-bit float. The widened constants are kept in `held`.
KernelQuery widen(const KernelQuery& query, std::vector<Packing<Tensor>>& held) {
  KernelQuery wide = query;
  for (auto* list : {&wide.inputs, &wide.outputs})
    for (TensorDesc& d : *list)
      if (is_half(d.dtype)) d.dtype = DType::kF32;
  held.assign(wide.constants.size(), {});
  for (size_t i = 0; i < wide.constants.size(); ++i) {
    if (wide.constants[i] == nullptr || !is_half(wide.constants[i]->dtype())) continue;
    held[i] = pack_once(query, i, "widened", [&] { return wide.constants[i]->cast(DType::kF32); });
    wide.constants[i] = held[i].weights.get();
  }
  return wide;
}

bool has_half(const KernelQuery& query) {
  const auto half = [](const TensorDesc& d) { return is_half(d.dtype); };
  return std::any_of(query.inputs.begin(), query.inputs.end(), half) || std::any_of(query.outputs.begin(), query.outputs.end(), half);
}

class WidenedKernel final : public Kernel {
 public:
  WidenedKernel(const KernelQuery& query, const OpDef& op)
      : data_dependent_(op.data_dependent), saturates_(query.node.attr_int("half_sums", 0) != 0) {
    const KernelQuery wide = widen(query, constants_);
    inner_ = select_kernel(op, wide).def->create(wide);
    for (const TensorDesc& d : query.outputs) outputs_.push_back(d.dtype);
  }

  size_t workspace_bytes() const override { return inner_->workspace_bytes(); }
  size_t packed_bytes() const override {
    size_t bytes = inner_->packed_bytes();
    for (const auto& t : constants_) bytes += t.weights && t.made ? t->bytes() : 0;
    return bytes;
  }

  void run(const KernelContext& context) override {
    std::vector<Tensor> inputs(context.input_count()), outputs(context.output_count());
    std::vector<const Tensor*> in(inputs.size(), nullptr);
    std::vector<Tensor*> out(outputs.size(), nullptr);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!context.has_input(i)) continue;
      in[i] = &context.input(i);
      if (!is_half(in[i]->dtype())) continue;
      if (i < constants_.size() && constants_[i].weights) {
        in[i] = constants_[i].weights.get();
      } else {
        inputs[i] = in[i]->cast(DType::kF32);
        in[i] = &inputs[i];
      }
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!context.has_output(i)) continue;
      if (!is_half(outputs_[i])) {
        out[i] = &context.output(i);
        continue;
      }
      if (!data_dependent_) outputs[i] = Tensor::empty(DType::kF32, context.output(i).shape(), Tier::kActivations);
      out[i] = &outputs[i];
    }
    inner_->run(KernelContext(in, out, context.workspace()));
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!context.has_output(i) || !is_half(outputs_[i])) continue;
      if (data_dependent_) context.allocate(i, outputs_[i], outputs[i].shape());
      if (saturates_ && outputs_[i] == DType::kF16) {
        auto* y = outputs[i].mutable_data<float>();
        for (int64_t j = 0; j < outputs[i].numel(); ++j) y[j] = y[j] > kLargestF16 ? kLargestF16 : y[j] < -kLargestF16 ? -kLargestF16 : y[j];
      }
      outputs[i].cast_into(context.output(i));
    }
  }

 private:
  const bool data_dependent_;
  const bool saturates_;  // as the kernels do that compute such nodes in f16
  std::vector<Packing<Tensor>> constants_;  // widened; null where the input is not one
  std::unique_ptr<Kernel> inner_;
  std::vector<DType> outputs_;
};

}  // namespace

void add_widened_kernel(OpDef& op) {
  if (op.kernels.empty()) return;  // lowered
  if (op.widens_halves)
    for (KernelDef& kernel : op.kernels) kernel.takes_halves = kernel.native_halves;
  const OpDef* self = &op;
  KernelDef k;
  k.name = "widened";
  k.decline = [self](const KernelQuery& query) -> std::string {
    if (!has_half(query)) return "no 16-bit float among the operands";
    std::vector<Packing<Tensor>> held;
    const KernelQuery wide = widen(query, held);
    for (const KernelDef& kernel : self->kernels)
      if (why_declined(kernel, wide).empty()) return {};
    return "no kernel takes it in f32 either";
  };
  k.create = [self](const KernelQuery& query) { return std::make_unique<WidenedKernel>(query, *self); };
  k.takes_objects = k.takes_packed = true;  // if the other kernel does
  op.kernels.push_back(std::move(k));
}

}  // namespace ds
