// CUDA kernels of operators, to be put in front of the CPU kernels of the same operator.
#pragma once

#include <string_view>
#include <vector>

#include "libds/ir/kernel_def.h"

namespace ds::ops {

// Those of the operator `op`, best first; empty when there is none or in a build without CUDA.
std::vector<KernelDef> cuda_kernels(std::string_view op);

}  // namespace ds::ops
