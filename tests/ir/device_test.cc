// Kernels of another device are passed over, and the reason says so.
#include <gtest/gtest.h>

#include "libds/ir/op_def.h"

namespace ds {
namespace {

KernelDef kernel(const char* name, Device device) {
  KernelDef k;
  k.name = name;
  k.device = device;
  return k;
}

TEST(Device, SelectionPassesOverKernelsOfAnother) {
  OpDef def;
  def.kernels = {kernel("cuda/x", Device::kCuda), kernel("portable/x", Device::kCpu)};
  const Node node{};
  KernelQuery query{node, {}, {}, {}};
  const Selection on_cpu = select_kernel(def, query);
  EXPECT_EQ(on_cpu.def->name, "portable/x");
  EXPECT_EQ(on_cpu.declined, "cuda/x: no CUDA device");
  query.device = Device::kCuda;
  EXPECT_EQ(select_kernel(def, query).def->name, "cuda/x");
}

TEST(Device, AllReasonsAreListedWhenNoneIsLeft) {
  OpDef def;
  def.kernels = {kernel("cuda/x", Device::kCuda)};
  const Node node{};
  try {
    select_kernel(def, KernelQuery{node, {}, {}, {}});
    FAIL() << "a CUDA kernel was chosen on the CPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("cuda/x: no CUDA device"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace ds
