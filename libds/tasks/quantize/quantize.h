// ds-quantize: float model -> 8-bit model, with calibration, a report per node and an accuracy gate.
//
// Calibration runs the float model over the first samples of a data set, in file order and in micro-batches of a
// fixed size, so that no option about batching changes a bit; what it keeps is one range per tensor,
// whatever the number of samples. Minimum and maximum are taken per sample:
//   kMinMax          the least and the greatest over all samples
//   kMovingAverage   averages of the extremes of every 16 samples in a row: all groups count alike up to the
//                    hundredth, then each new one counts 1/100
// The moving average leaves out rare outliers, which is usually worth more than what it cuts off.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libds/data/dataset.h"
#include "libds/ir/graph.h"
#include "libds/passes/quantize.h"

namespace ds {

enum class Observer { kMovingAverage, kMinMax };

struct QuantizeRequest {
  bool dynamic = false;  // no calibration; MatMul and Gemm only
  Observer observer = Observer::kMovingAverage;
  QuantizeOptions options;
  std::shared_ptr<const Dataset> calibration;
  int64_t calibration_samples = 0;  // 0: all
  // Gate: the metric of the float model may exceed the quantized one's by this much (0.002: 0.2 points).
  // When it does, the operators with the largest error are left in float, a tenth at a time.
  std::optional<double> max_drop;
  std::string metric = "top1";  // top1, f1, accuracy, auc
  std::shared_ptr<const Dataset> evaluation;
  int64_t batch_size = 64;  // of the evaluation
  std::function<void(const std::string& stage, int64_t done, int64_t total)> on_progress;
};

struct NodeQuantization {
  std::string name, op;
  bool quantized = false;
  std::string reason;  // why not
  std::optional<ActivationParams> input, result;
  std::optional<TensorRange> weight_scale;
  std::optional<double> sqnr_db;  // signal to quantization noise at the result, on calibration samples
};

struct QuantizeOutcome {
  std::shared_ptr<Graph> graph;
  std::vector<NodeQuantization> nodes;
  int64_t samples = 0;  // calibration samples seen
  std::string metric;
  std::optional<double> float_metric, quantized_metric;
  bool gate_passed = true;
};

// `model` is not changed. Throws kBadData when a tensor of the calibration is not finite, or nothing can be quantized.
QuantizeOutcome quantize(const Graph& model, const QuantizeRequest& request);

std::string quantize_report_text(const QuantizeOutcome& outcome);
std::string quantize_report_json(const QuantizeOutcome& outcome);

}  // namespace ds
