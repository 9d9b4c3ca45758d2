// ds-prune: make a model sparse, or smaller.
#include <cstdio>
#include <memory>

#include "apps/common/options.h"
#include "libds/base/file.h"
#include "libds/eval/gate.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/tasks/prune/prune.h"

namespace {

using ds::cli::Command;

struct Args {
  std::string model, method = "magnitude", structured, multiple = "auto";
  std::optional<std::string> output, report;
  std::optional<double> target_sparsity, target_flops;
  ds::PruneOptions prune;
  ds::GateOptions gate;
  ds::cli::Common common;
};

int64_t parse_multiple(const std::string& text) {
  if (text == "auto") return 0;
  size_t used = 0;
  long long n = 0;
  try {
    n = std::stoll(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != text.size() || n < 1 || n > 4096) ds::cli::usage_error("--channel-multiple takes auto or a number from 1 to 4096, not '{}'", text);
  return n;
}

void check(const Command& c, Args& a) {
  ds::PruneOptions& p = a.prune;
  p.structured = c.given("structured");
  p.channel_multiple = parse_multiple(a.multiple);
  if (p.structured) {
    for (const char* name : {"method", "target-sparsity", "scope"})
      if (c.given(name)) ds::cli::usage_error("--{} belongs to unstructured pruning, not to --structured", name);
    if (!a.target_flops) ds::cli::usage_error("--structured needs --target-flops");
    p.target_flops = *a.target_flops;
  } else {
    for (const char* name : {"target-flops", "channel-multiple", "shape"})
      if (c.given(name)) ds::cli::usage_error("--{} belongs to --structured", name);
    if (!a.target_sparsity) ds::cli::usage_error("either --target-sparsity or --structured channels with --target-flops is needed");
    p.target_sparsity = *a.target_sparsity;
  }
  if (c.given("max-drop") != c.given("eval-data")) ds::cli::usage_error("--max-drop and --eval-data belong together");
  if (c.given("label-key") && !c.given("eval-data")) ds::cli::usage_error("--label-key belongs to --eval-data");
  if (a.common.external_data && a.output == "-") ds::cli::usage_error("--external-data needs an --output that is a file");
  if (!a.output && !a.common.dry_run) ds::cli::usage_error("--output is needed unless --dry-run is given");
}

int run(const Args& a) {
  const std::string name = a.model == "-" ? "standard input" : a.model;
  const auto graph = ds::load_model(a.model);
  const bool gated = !a.gate.data.empty();
  const auto original = gated ? std::make_shared<const ds::Graph>(*graph) : nullptr;
  ds::PruneReport report = ds::with_context([&] { return name; }, [&] { return ds::prune(*graph, a.prune); });
  if (gated) report.gate = ds::run_gate(original, graph, a.gate);
  const bool passed = !gated || report.gate->passed();
  if (!a.common.dry_run && passed) ds::save_model(*graph, *a.output, {.external_data = a.common.external_data});
  if (a.report) ds::write_file_atomic(*a.report, ds::prune_report_json(report));
  const bool stdout_is_model = !a.common.dry_run && a.output == "-";
  if (a.common.json && !stdout_is_model) {
    const std::string text = ds::prune_report_json(report);
    std::fwrite(text.data(), 1, text.size(), stdout);
  } else if (!a.common.quiet) {
    const std::string text = a.common.json ? ds::prune_report_json(report) : ds::prune_report_text(report);
    std::fwrite(text.data(), 1, text.size(), stderr);
  }
  if (!passed)
    ds::fail(ds::ExitCode::kGateFailed, "{}: accuracy drops by {:.2f} points, from {:.2f} % to {:.2f} %; --max-drop allows {:g}: nothing is written",
             name, report.gate->drop(), 100 * report.gate->before, 100 * report.gate->after, a.gate.max_drop);
  return 0;
}

Command make_command() {
  auto a = std::make_shared<Args>();
  Command c("ds-prune", "make an ONNX model sparse, or smaller",
            "Without --structured, sets the smallest weights of Conv, ConvTranspose, Gemm and MatMul to zero: biases, "
            "normalisation and embeddings are left alone, every shape stays, and exactly the asked share is zero. Fine-tuning "
            "with ds-train keeps the zeros.\n\n"
            "With --structured channels, removes whole channels: follows the graph from every layer to all that is "
            "coupled with it, removes the least important channels in blocks until the FLOPs meet the target, and "
            "writes an ordinary, smaller model whose inputs and outputs keep their shapes. It computes exactly what "
            "the model computes without those channels. Layers that cannot shrink are listed with the reason.\n\n"
            "The report goes to standard error, or to a file with --report.");
  c.positional("MODEL", &a->model, "model to prune, - for standard input").file();
  c.option("--output,-o", &a->output, "FILE", "where to write the pruned model, - for standard output").file();
  c.option("--exclude", &a->prune.exclude, "PATTERN", "leave layers alone whose node or weight name matches (* ? [abc])");
  c.option("--report", &a->report, "FILE", "write the report as JSON").file();
  c.group("Zeros");
  c.choice("--method", &a->method, {"magnitude"}, "which weights go: those of the smallest magnitude");
  c.option("--target-sparsity", &a->target_sparsity, "S", "share of the weights that is zero afterwards").range(0, 1);
  c.choice<ds::SparsityScope>("--scope", &a->prune.scope, {{"global", ds::SparsityScope::kGlobal}, {"layer", ds::SparsityScope::kLayer}},
                              "one threshold for all layers, or the target for each layer");
  c.group("Channels");
  c.choice("--structured", &a->structured, {"channels"}, "remove whole channels");
  c.option("--target-flops", &a->target_flops, "F", "share of the FLOPs that is left, at most").range(0.001, 1);
  c.option("--channel-multiple", &a->multiple, "N", "keep channel counts multiples of N; auto: 8 below 64 channels, else 16");
  c.option("--shape", &a->prune.shapes, "NAME:SHAPE",
           "shape of an input (x:1x3x224x224) or size of a symbolic dimension (batch:8) at which FLOPs count");
  c.group("Accuracy gate");
  c.option("--max-drop", &a->gate.max_drop, "POINTS", "fail, and write nothing, when top-1 accuracy drops by more percentage points").min(0).default_text("");
  c.option("--eval-data", &a->gate.data, "DATA", "labelled samples to measure it on: .npz, .csv, or images,labels as .npy or IDX").file();
  c.option("--label-key", &a->gate.label_key, "NAME", "which array or column of --eval-data holds the labels");
  c.common(&a->common, ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kJson | ds::cli::kDryRun | ds::cli::kExternalData | ds::cli::kConfig);
  c.exit_status(ds::ExitCode::kGateFailed, "the accuracy drops by more than --max-drop");
  c.exit_status(ds::ExitCode::kUnsupported, "the target cannot be met, or nothing can be pruned");
  c.example("ds-prune model.onnx --target-sparsity 0.7 -o sparse.onnx", "Zero 70 % of the weights");
  c.example("ds-prune model.onnx --structured channels --target-flops 0.5 -o half.onnx", "Remove channels until half the FLOPs are left");
  c.example("ds-prune model.onnx --structured channels --target-flops 0.5 -o - | ds-quantize - --calibration-data x.npz -o small.onnx",
            "Prune and quantize in one go");
  c.example("ds-prune model.onnx --target-sparsity 0.7 --max-drop 0.5 --eval-data val.npz -o sparse.onnx", "Only if accuracy drops by at most half a point");
  c.body([a](const Command& command) {
    check(command, *a);
    return run(*a);
  });
  return c;
}

}  // namespace

int main(int argc, char** argv) { return ds::cli::run_main(argc, argv, make_command()); }
