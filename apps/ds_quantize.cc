// ds-quantize: a float model in 8-bit integers.
#include <cstdio>
#include <memory>

#include "apps/common/options.h"
#include "apps/common/progress.h"
#include "libds/base/file.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/tasks/quantize/quantize.h"

namespace {

using ds::cli::Command;

struct Args {
  std::string model, calibration, label_key;
  std::optional<std::string> output, report, eval_data;
  std::optional<double> max_drop;
  int64_t samples = 0;
  ds::QuantizeRequest request;
  ds::cli::Common common;
};

void check(const Command& c, Args& a) {
  if (a.request.dynamic) {
    for (const char* name : {"calibration-data", "calibration-samples", "observer"})
      if (c.given(name)) ds::cli::usage_error("--{} belongs to static quantization, not to --dynamic", name);
  } else if (a.calibration.empty()) {
    ds::cli::usage_error("--calibration-data is needed unless --dynamic is given");
  }
  if (a.max_drop && !a.eval_data) ds::cli::usage_error("--max-drop needs --eval-data");
  if (a.common.external_data && a.output == "-") ds::cli::usage_error("--external-data needs an --output that is a file");
  if (!a.output && !a.common.dry_run) ds::cli::usage_error("--output is needed unless --dry-run is given");
  if (a.model == "-" && (a.calibration == "-" || a.eval_data == "-")) ds::cli::usage_error("standard input can be read only once");
}

int run(Args& a) {
  const auto graph = ds::load_model(a.model);
  ds::QuantizeRequest& r = a.request;
  ds::DatasetOptions data;
  data.label_key = a.label_key;
  if (!r.dynamic) r.calibration = ds::open_dataset(a.calibration, data);
  if (a.eval_data) r.evaluation = ds::open_dataset(*a.eval_data, data);
  r.calibration_samples = a.samples;
  if (a.max_drop) r.max_drop = *a.max_drop / 100;
  ds::cli::Progress progress("quantize", 0, a.common.quiet);
  std::string stage;
  r.on_progress = [&](const std::string& now, int64_t done, int64_t total) {
    if (now != stage) progress.restart(now, total);
    stage = now;
    progress.update(done);
  };
  const ds::QuantizeOutcome outcome =
      ds::with_context([&] { return a.model == "-" ? std::string("standard input") : a.model; }, [&] { return ds::quantize(*graph, r); });
  progress.clear();
  if (!a.common.dry_run) ds::save_model(*outcome.graph, *a.output, {.external_data = a.common.external_data});
  if (a.report) ds::write_file_atomic(*a.report, ds::quantize_report_json(outcome));
  const bool stdout_is_model = !a.common.dry_run && a.output == "-";
  if (a.common.json && !stdout_is_model) {
    const std::string text = ds::quantize_report_json(outcome);
    std::fwrite(text.data(), 1, text.size(), stdout);
  } else if (!a.common.quiet) {
    const std::string text = a.common.json ? ds::quantize_report_json(outcome) : ds::quantize_report_text(outcome);
    std::fwrite(text.data(), 1, text.size(), stderr);
  }
  if (outcome.gate_passed) return 0;
  std::fprintf(stderr, "ds-quantize: %s falls by more than --max-drop allows; the best model found was saved\n", outcome.metric.c_str());
  return static_cast<int>(ds::ExitCode::kGateFailed);
}

Command make_command() {
  auto a = std::make_shared<Args>();
  Command c("ds-quantize", "run an ONNX model on 8-bit integers",
            "Writes MODEL with Conv, Gemm and MatMul in 8 bits: weights signed and symmetric with one scale per output channel (such that two products fit 16 bits), "
            "activations unsigned with one scale per tensor, biases in 32 bits. Additions, pools and concatenations between them "
            "are covered too, so that a network stays in integers from end to end. The result is plain ONNX "
            "(QuantizeLinear and DequantizeLinear, operator set 13 or newer); its weights are stored as integers, so that the file is about "
            "a quarter of the size. Batch normalization is folded into convolutions first.\n\n"
            "Static quantization runs the model over samples to learn the ranges of its tensors: per sample, in file order. "
            "With --dynamic no data is needed: the inputs of MatMul and Gemm are quantized while the model runs.\n\n"
            "A table tells for every operator whether it was quantized, why not, and its signal-to-quantization-noise ratio. With "
            "--max-drop, accuracy is measured before and after on --eval-data; if too much is lost, the operators with the largest "
            "errors are left in float, a tenth at a time. If that is not enough, the best model found is saved and the exit code is 1.");
  c.positional("MODEL", &a->model, "float model, - for standard input").file();
  c.option("--output,-o", &a->output, "FILE", "where to write the quantized model, - for standard output").file();
  c.option("--exclude", &a->request.options.exclude, "PATTERN", "leave operators in float whose name or type matches (* and ?)");
  c.flag("--reduce-range", &a->request.options.reduce_range, "use 7 bits for weights");
  c.option("--report", &a->report, "FILE", "write the report as JSON").file();
  c.group("Calibration");
  c.option("--calibration-data", &a->calibration, "DATA", "samples: npz, npy, IDX or CSV").file();
  c.option("--calibration-samples", &a->samples, "N", "use the first N samples").min(1).default_text("all");
  c.choice<ds::Observer>("--observer", &a->request.observer,
                         {{"moving-average", ds::Observer::kMovingAverage}, {"minmax", ds::Observer::kMinMax}},
                         "how the ranges of the samples become one");
  c.flag("--dynamic", &a->request.dynamic, "quantize the inputs of MatMul and Gemm at run time, without calibration");
  c.group("Accuracy");
  c.option("--eval-data", &a->eval_data, "DATA", "labelled samples on which accuracy is compared").file();
  c.option("--label-key", &a->label_key, "NAME", "array or column of the labels");
  c.choice("--metric", &a->request.metric, {"top1", "f1", "accuracy", "auc"}, "figure to compare; accuracy and auc are for binary labels");
  c.option("--max-drop", &a->max_drop, "POINTS", "most that the metric may fall, in percentage points").min(0);
  c.option("--batch-size,-b", &a->request.batch_size, "N", "samples a step of the evaluation").range(1, 1 << 20);
  c.common(&a->common, ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kJson | ds::cli::kDryRun | ds::cli::kExternalData | ds::cli::kConfig);
  c.example("ds-quantize model.onnx --calibration-data samples.npz -o int8.onnx", "static quantization");
  c.example("ds-quantize model.onnx --calibration-data train.npz --eval-data val.npz --max-drop 0.2 -o int8.onnx",
            "the same, keeping accuracy within 0.2 points");
  c.example("ds-quantize bert.onnx --dynamic --exclude 'classifier*' -o int8.onnx", "dynamic quantization of all but the classifier");
  c.exit_status(ds::ExitCode::kGateFailed, "the metric falls by more than --max-drop; the best model was saved");
  c.body([a](const Command& command) {
    check(command, *a);
    return run(*a);
  });
  return c;
}

}  // namespace

int main(int argc, char** argv) { return ds::cli::run_main(argc, argv, make_command()); }
