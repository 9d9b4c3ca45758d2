// Device mapper: where and how a model runs, from what was asked for and what the machine has.
//
// Nothing is measured: the same request on the same machine gives the same choice. DS_LOG=dispatch tells what was chosen
// and why; DS_LOG=precision what each product is computed in.
#pragma once

#include <string>
#include <vector>

#include "libds/run/session.h"

namespace ds {

struct DeviceRequest {
  std::string device = "auto";     // auto, cpu, cuda:N
  bool fallback = true;            // a device that is not there is replaced by the CPU, with a warning; else kUnsupported
  std::string precision = "fp32";  // one of precision_names()
  int threads = 0;                 // 0: all that the machine offers
  std::string costs = {};          // a file of measured costs (base/cost_file.h); empty: for "auto" the one in DS_COSTS, if any
};

struct DeviceChoice {
  Device device = Device::kCpu;
  Isa isa = Isa::kPortable;
  int threads = 1;
  Precision precision = Precision::kF32;
  std::shared_ptr<const CostTable> costs;  // null: the built-in table
  std::string why;  // one line
};

// Throws kUsage for words that mean nothing, kUnsupported for what cannot be had, and what read_cost_file() does.
DeviceChoice map_device(const DeviceRequest& request);
void apply(const DeviceChoice& choice, SessionOptions& options);

// What --precision takes: fp32 (exact), auto (bf16 or fp16 where the CPU's products in it are faster), bf16 and fp16
// (everywhere, though the CPU may have to do it in f32).
std::vector<std::string> precision_names();
Precision parse_precision(const std::string& name);

}  // namespace ds
