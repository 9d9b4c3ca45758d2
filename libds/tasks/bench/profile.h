// Where the time of a run goes, operator by operator, against what the machine could do.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "libds/base/dtype.h"
#include "libds/ir/graph.h"
#include "libds/run/executor.h"

namespace ds::bench {

// One step of a plan. Times and costs are of one run.
struct ProfileStep {
  std::string node;    // name in the graph, or of its first output
  std::string op;
  std::string kernel;
  int part = -1;       // of a graph that runs in parts
  DType dtype = DType::kF32;  // of the arithmetic, see arithmetic_dtype()
  double seconds = 0;
  int64_t flops = 0, bytes = 0;  // bytes: operands, read and written, each once
  double roofline_seconds = 0;   // the least time that the measured peaks allow, see roofline()

  // Part of what the roofline allows; above 1 where operands came from caches.
  double roofline() const { return seconds > 0 ? roofline_seconds / seconds : 0; }
};

struct ProfileOp {
  std::string op;
  int64_t nodes = 0;
  double seconds = 0;
  int64_t flops = 0, bytes = 0;
  double roofline_seconds = 0;
  std::vector<std::string> kernels;  // all that ran it

  double roofline() const { return seconds > 0 ? roofline_seconds / seconds : 0; }
};

struct Profile {
  int64_t runs = 0;
  double seconds = 0;                // of all steps of one run
  std::vector<ProfileStep> steps;    // most time first
  std::vector<ProfileOp> ops;        // most time first
};

// Operations per second at a type, and bytes per second.
struct Roof {
  double f32 = 0, i8 = 0, bandwidth = 0, bf16 = 0, f16 = 0;
  double flops(DType dtype) const { return dtype == DType::kI8 ? i8 : dtype == DType::kBF16 ? bf16 : dtype == DType::kF16 ? f16 : f32; }
};

// The least time for a piece of work: the larger of its operations at the peak of the arithmetic and its bytes at
// the peak of the memory; which is the same as saying that it cannot run faster than
// min(peak, operations / bytes * bandwidth). Peaks of 0 bound nothing.
double roofline_seconds(int64_t flops, int64_t bytes, DType dtype, const Roof& roof);

// Type a node's arithmetic is done in: kI8 for integer products, kBF16 and kF16 for products of weights or attention in
// 16 bits (passes/auto_cast.h), else kF32.
DType arithmetic_dtype(const Graph& graph, const Node& node);

Profile make_profile(std::span<const StepTime> steps, const Roof& roof);

}  // namespace ds::bench
