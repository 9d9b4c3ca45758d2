#include "libds/tasks/bench/profile.h"

#include <algorithm>
#include <map>

#include "libds/ops/attention.h"

namespace ds::bench {

double roofline_seconds(int64_t flops, int64_t bytes, DType dtype, const Roof& roof) {
  const double peak = roof.flops(dtype);
  const double arithmetic = peak > 0 ? static_cast<double>(flops) / peak : 0;
  const double memory = roof.bandwidth > 0 ? static_cast<double>(bytes) / roof.bandwidth : 0;
  return std::max(arithmetic, memory);
}

DType arithmetic_dtype(const Graph& graph, const Node& node) {
  if (node.is("QuantizeLinear") || node.is("DequantizeLinear")) return DType::kF32;
  if (node.attr_int(ops::kProductsAttr, 0) == static_cast<int64_t>(DType::kBF16)) return DType::kBF16;
  if (node.attr_int("half_sums", 0) != 0) return DType::kF16;
  if (node.inputs.size() > 1 && node.inputs[1] != kNone && graph.value(node.inputs[1]).dtype == DType::kBF16) return DType::kBF16;
  for (ValueId id : node.inputs) {
    if (id == kNone) continue;
    const DType dtype = graph.value(id).dtype;
    return dtype == DType::kI8 || dtype == DType::kU8 ? DType::kI8 : DType::kF32;
  }
  return DType::kF32;
}

Profile make_profile(std::span<const StepTime> steps, const Roof& roof) {
  Profile profile;
  std::map<std::string, ProfileOp> ops;
  for (const StepTime& step : steps) {
    if (step.runs == 0) continue;
    const Graph& graph = *step.graph;
    const Node& node = graph.node(step.node);
    ProfileStep s;
    s.node = node.name;
    for (ValueId out : node.outputs)
      if (s.node.empty() && out != kNone) s.node = graph.value(out).name;
    s.op = node.domain.empty() ? node.op : node.domain + "." + node.op;
    s.kernel = step.kernel;
    s.part = step.part;
    s.dtype = arithmetic_dtype(graph, node);
    s.seconds = step.seconds / static_cast<double>(step.runs);
    s.flops = step.cost.flops;
    s.bytes = step.cost.bytes;
    s.roofline_seconds = roofline_seconds(s.flops, s.bytes, s.dtype, roof);
    profile.runs = std::max(profile.runs, step.runs);
    profile.seconds += s.seconds;
    ProfileOp& op = ops[s.op];
    op.op = s.op;
    op.nodes += 1;
    op.seconds += s.seconds;
    op.flops += s.flops;
    op.bytes += s.bytes;
    op.roofline_seconds += s.roofline_seconds;
    if (std::find(op.kernels.begin(), op.kernels.end(), s.kernel) == op.kernels.end()) op.kernels.push_back(s.kernel);
    profile.steps.push_back(std::move(s));
  }
  for (auto& [name, op] : ops) profile.ops.push_back(std::move(op));
  const auto by_time = [](const auto& a, const auto& b) { return a.seconds > b.seconds; };
  std::stable_sort(profile.steps.begin(), profile.steps.end(), by_time);
  std::stable_sort(profile.ops.begin(), profile.ops.end(), by_time);
  return profile;
}

}  // namespace ds::bench
