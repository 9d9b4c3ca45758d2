#include "libds/run/device.h"

#include <algorithm>

#include "libds/base/cost_file.h"
#include "libds/base/log.h"
#include "libds/base/parallel.h"
#include "libds/passes/auto_cast.h"

namespace ds {
namespace {

bool is_cuda(const std::string& device) {
  return device.size() > 5 && device.compare(0, 5, "cuda:") == 0 && device.find_first_not_of("0123456789", 5) == std::string::npos;
}

std::string explain(const DeviceChoice& c) {
  const CostTable& costs = c.costs ? *c.costs : builtin_costs();
  const DType type = product_type(c.precision, c.isa, costs), of_one_row = product_type(c.precision, c.isa, costs, 1);
  std::string text = fmt::format("CPU, {}, {} threads, products in {}", isa_name(c.isa), c.threads, dtype_name(type));
  if (c.precision != Precision::kAuto) return text + (c.precision == Precision::kF32 ? ", exact" : ", as asked for");
  if (of_one_row != type) text += fmt::format(", in {} where rows are few", dtype_name(of_one_row));
  return text + fmt::format(" (bf16 runs at {:.3g} times the rate of f32, f16 at {:.3g}; {})", costs.gain(DType::kBF16, c.isa), costs.gain(DType::kF16, c.isa),
                            costs.text());
}

}  // namespace

std::vector<std::string> precision_names() { return {"fp32", "auto", "bf16", "fp16"}; }

Precision parse_precision(const std::string& name) {
  if (name == "fp32") return Precision::kF32;
  if (name == "auto") return Precision::kAuto;
  if (name == "bf16") return Precision::kBf16;
  if (name == "fp16") return Precision::kF16;
  fail(ExitCode::kUsage, "--precision: '{}' is not one of {}", name, fmt::join(precision_names(), ", "));
}

DeviceChoice map_device(const DeviceRequest& request) {
  if (request.device != "auto" && request.device != "cpu") {
    if (!is_cuda(request.device)) fail(ExitCode::kUsage, "--device: '{}' is not auto, cpu or cuda:N", request.device);
    constexpr const char* kReason = "this build runs models on the CPU only";
    if (!request.fallback) fail(ExitCode::kUnsupported, "--device {}: {}; use cpu or auto, or leave --no-fallback away", request.device, kReason);
    warn("--device {}: {}; the CPU takes over", request.device, kReason);
  }
  DeviceChoice choice;
  choice.isa = cpu_isa();
  choice.threads = request.threads > 0 ? request.threads : available_threads();
  choice.precision = parse_precision(request.precision);
  choice.costs = choice.precision == Precision::kAuto || !request.costs.empty() ? named_costs(request.costs) : nullptr;
  choice.why = explain(choice);
  return choice;
}

void apply(const DeviceChoice& choice, SessionOptions& options) {
  log("dispatch", "device: {}", choice.why);
  options.isa = choice.isa;
  options.threads = choice.threads;
  options.precision = choice.precision;
  options.costs = choice.costs;
}

}  // namespace ds
