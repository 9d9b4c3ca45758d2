// SampleRange (internal): least and greatest value of each row of a tensor, for calibration.
//   x [N, ...] f32 -> [N, 2]; a scalar counts as one row. A NaN in a row makes its range NaN.
#include <cmath>
#include <limits>

#include "libds/base/parallel.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

void row_range(int64_t n, const float* x, float* range) {
  float low = std::numeric_limits<float>::infinity(), high = -low;
  bool nan = false;
  for (int64_t i = 0; i < n; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    nan |= x[i] != x[i];
  }
  range[0] = nan ? std::nanf("") : low;
  range[1] = nan ? std::nanf("") : high;
}

}  // namespace

void register_observe_ops(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "SampleRange";
  def.min_inputs = def.max_inputs = 1;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, {DType::kF32});
    const Dim rows = !c.has_dims(0) ? c.fresh_dim() : c.dims(0).empty() ? Dim(1) : c.dims(0)[0];
    c.set_output(0, DType::kF32, Dims{rows, 2});
  };
  KernelDef k;
  k.name = "portable/sample_range";
  k.create = [](const KernelQuery& q) {
    const int64_t rows = q.out(0).dim(0), width = rows == 0 ? 0 : q.in(0).numel() / rows;
    return make_kernel([rows, width](const KernelContext& c) {
      parallel_for(rows, (1 << 14) / (width + 1) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          row_range(width, c.input(0).data<float>() + i * width, c.output(0).mutable_data<float>() + 2 * i);
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace ds
