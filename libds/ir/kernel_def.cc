#include "libds/ir/kernel_def.h"

#include "libds/base/log.h"
#include "libds/ir/op_def.h"

namespace ds {

size_t TensorDesc::bytes() const {
  if (!defined()) return 0;
  Shape padded = shape;
  if (layout == Layout::kBlocked8 || layout == Layout::kBlocked16) {
    DS_CHECK(padded.size() >= 2);
    const int64_t block = layout == Layout::kBlocked8 ? 8 : 16;
    padded[1] = (padded[1] + block - 1) / block * block;
  }
  const int64_t numel = checked_numel(padded);
  checked_mul(numel, static_cast<int64_t>(dtype_bits(dtype)));
  return Tensor::packed_bytes(dtype, numel);
}

Shape TensorDesc::memory_shape() const {
  Shape order = shape;
  if (layout == Layout::kChannelsLast) {
    DS_CHECK(order.size() >= 2);
    order.erase(order.begin() + 1);
    order.push_back(shape[1]);
  } else {
    DS_CHECK(layout == Layout::kPlain);
  }
  return order;
}

namespace {
const TensorDesc kAbsent;
}

const TensorDesc& KernelQuery::in(size_t i) const { return i < inputs.size() ? inputs[i] : kAbsent; }
const TensorDesc& KernelQuery::out(size_t i) const { return i < outputs.size() ? outputs[i] : kAbsent; }

std::unique_ptr<Kernel> make_kernel(std::function<void(const KernelContext&)> run, size_t workspace_bytes) {
  class FunctionKernel final : public Kernel {
   public:
    FunctionKernel(std::function<void(const KernelContext&)> run, size_t workspace)
        : run_(std::move(run)), workspace_(workspace) {}
    size_t workspace_bytes() const override { return workspace_; }
    void run(const KernelContext& context) override { run_(context); }

   private:
    std::function<void(const KernelContext&)> run_;
    size_t workspace_;
  };
  return std::make_unique<FunctionKernel>(std::move(run), workspace_bytes);
}

namespace {

// An operand of a kind that kernels must ask for.
std::string unusual_operand(const KernelDef& kernel, const KernelQuery& query) {
  for (const auto* list : {&query.inputs, &query.outputs}) {
    for (const TensorDesc& d : *list) {
      const bool taken = is_object(d.dtype)                         ? kernel.takes_objects
                         : is_packed(d.dtype) || is_float8(d.dtype) ? kernel.takes_packed
                                                                    : !is_half(d.dtype) || kernel.takes_halves;
      if (!taken) return fmt::format("{} operands", dtype_name(d.dtype));
    }
  }
  return {};
}

}  // namespace

std::string why_declined(const KernelDef& kernel, const KernelQuery& query) {
  if (kernel.device != query.device) return kernel.device == Device::kCuda ? "no CUDA device" : "operands are on a CUDA device";
  if (kernel.isa > query.isa) return fmt::format("needs {}", isa_name(kernel.isa));
  if (std::string reason = unusual_operand(kernel, query); !reason.empty()) return reason;
  return kernel.decline ? kernel.decline(query) : std::string();
}

Selection select_kernel(const OpDef& def, const KernelQuery& query) {
  Selection selection;
  for (const KernelDef& kernel : def.kernels) {
    const std::string reason = why_declined(kernel, query);
    if (reason.empty()) {
      selection.def = &kernel;
      if (log_enabled("dispatch"))
        log_line("dispatch", fmt::format("{}: {}{}{}", query.node.label(), kernel.name,
                                         selection.declined.empty() ? "" : "  passed over ", selection.declined));
      return selection;
    }
    if (!selection.declined.empty()) selection.declined += "; ";
    selection.declined.append(kernel.name).append(": ").append(reason);
  }
  fail(ExitCode::kUnsupported, "{}: no kernel takes it ({})", query.node.label(),
       selection.declined.empty() ? "none is registered" : selection.declined);
}

}  // namespace ds
