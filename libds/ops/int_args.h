// Integer arguments that decide shapes (Slice's starts, Pad's pads) for kernels: read once when they are
// constant, else from the operands of each run.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "libds/ir/kernel_def.h"

namespace ds::ops {

// Per input; nullopt where the input is absent or was not asked for.
using IntArgs = std::vector<std::optional<std::vector<int64_t>>>;
using RunFn = std::function<void(const KernelContext&)>;

// `plan` turns arguments into the code to run; bit i of `mask` asks for input i. It is called once
// when all of them are constant, else at every run.
inline std::unique_ptr<Kernel> planned_kernel(const KernelQuery& q, uint32_t mask,
                                              std::function<RunFn(const IntArgs&)> plan) {
  IntArgs args(q.inputs.size());
  bool known = true;
  for (size_t i = 0; i < q.inputs.size(); ++i) {
    if (!(mask >> i & 1u) || !q.inputs[i].defined()) continue;
    if (const Tensor* t = q.constant(i)) args[i] = t->to_ints();
    else known = false;
  }
  if (known) return make_kernel(plan(args));
  return make_kernel([mask, plan = std::move(plan)](const KernelContext& c) {
    IntArgs args(c.input_count());
    for (size_t i = 0; i < args.size(); ++i)
      if ((mask >> i & 1u) && c.has_input(i)) args[i] = c.input(i).to_ints();
    plan(args)(c);
  });
}

inline std::vector<int64_t> int_arg(const IntArgs& args, size_t i, std::vector<int64_t> otherwise = {}) {
  return i < args.size() && args[i] ? *args[i] : std::move(otherwise);
}

}  // namespace ds::ops
