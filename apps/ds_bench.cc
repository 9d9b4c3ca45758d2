// ds-bench: run, verify, inspect and time models; measure what a CPU can do.
#include <cstdio>
#include <memory>

#include "apps/common/options.h"
#include "libds/base/cost_file.h"
#include "libds/base/file.h"
#include "libds/tasks/bench/baseline.h"
#include "libds/tasks/bench/bench.h"
#include "libds/tasks/bench/calibrate.h"
#include "libds/tasks/bench/sweep.h"
#include "libds/tasks/inspect/inspect.h"
#include "libds/tasks/inspect/ops_page.h"
#include "libds/tasks/verify/run_model.h"
#include "libds/tasks/verify/verify.h"

namespace {

using ds::cli::Command;

constexpr const char* kShapeHelp = "shape of an input (x:1x3x224x224) or size of a symbolic dimension (batch:8)";

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void add_run(Command& bench) {
  struct Args {
    std::string model, input, output;
    bool no_static = false;
    ds::cli::Common common;
  };
  auto args = std::make_shared<Args>();
  Command& c = bench.subcommand("run", "run a model on given arrays and write what it returns",
                                "Runs MODEL once on the arrays of an .npz file, keyed by input name, and writes its outputs as "
                                "an .npz file keyed by output name.");
  c.positional("MODEL", &args->model, "model to run, - for standard input").file();
  c.option("--input,-i", &args->input, "NPZ", "inputs, keyed by name; - for standard input").required().file();
  c.option("--output,-o", &args->output, "NPZ", "where to write the outputs; - for standard output").required().file();
  c.flag("--no-static", &args->no_static, "run node by node instead of by a plan");
  c.common(&args->common, ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kDevice | ds::cli::kPrecision | ds::cli::kCosts);
  c.example("ds-bench run model.onnx --input x.npz --output y.npz", "Write what the model returns");
  c.body([args](const Command&) {
    ds::SessionOptions options;
    options.static_plan = !args->no_static;
    apply(args->common.target, options);
    ds::run_file(args->model, args->input, args->output, options);
    return 0;
  });
}

void add_verify(Command& bench) {
  struct Args {
    ds::VerifyOptions verify;
    bool no_static = false;
    ds::cli::Common common;
  };
  auto args = std::make_shared<Args>();
  ds::VerifyOptions& o = args->verify;
  Command& c = bench.subcommand(
      "verify", "compare what a model returns with a reference",
      "Runs MODEL and compares what it returns with a reference: another model run on the same inputs, an .npz file of "
      "expected outputs made by any runtime, or a folder in the layout of ONNX's own tests (test_data_set_0 with input_0.pb and "
      "output_0.pb, or the folder above such ones), which brings its own inputs. An element passes when |got - expected| <= atol + rtol * |expected|. Prints the "
      "largest absolute and relative error and the cosine of each output.\n\n"
      "Inputs are those of --input or --data; otherwise random numbers, the same for equal seeds, in the shapes of --shape. "
      "Giving a name again makes another round: --shape batch:1 --shape batch:4 compares twice.\n\n"
      "--bisect names the first node, in the order of execution, whose result differs. Against a model, values inside are "
      "compared where both have them, by name or else by their place in the graph. When the two files agree node by node, "
      "or when there is no reference model, MODEL is compared with itself: optimized as usual against node by node on the "
      "portable kernels. Inside, the relative tolerance is of the element or of the tensor's root mean square, whichever is "
      "more, and integers of 8 bits and less may differ by one step.");
  c.positional("MODEL", &o.model, "model to run, - for standard input").file();
  c.option("--reference,-r", &o.reference, "PATH", "a model, an .npz file of expected outputs keyed by name (- for standard input), or a folder").file();
  c.option("--input,-i", &o.input, "NPZ", "inputs, keyed by name; - for standard input").file();
  c.option("--data", &o.data, "DATA", "data set to take samples from: x.npz, images,labels (npy or IDX, .gz or not), table.csv").file();
  c.option("--batch", &o.batch, "N", "samples to take from --data").range(1, 1 << 24);
  c.option("--shape", &o.shapes, "NAME:SHAPE", kShapeHelp);
  c.option("--rtol", &o.tolerance.rtol, "R", "relative tolerance").min(0);
  c.option("--atol", &o.tolerance.atol, "A", "absolute tolerance").min(0);
  c.flag("--bisect", &o.bisect, "name the first node that diverges");
  c.flag("--no-static", &args->no_static, "run node by node instead of by a plan");
  c.common(&args->common, ds::cli::kSeed | ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kJson | ds::cli::kDevice | ds::cli::kPrecision | ds::cli::kCosts);
  c.example("ds-bench verify model.onnx --input x.npz --reference y.npz --rtol 1e-4 --atol 1e-5", "Check against another runtime");
  c.example("ds-bench verify new.onnx --reference old.onnx --shape batch:1 --shape batch:4 --bisect", "Find where two models part");
  c.body([args](const Command&) {
    ds::VerifyOptions& v = args->verify;
    apply(args->common.target, v.session);
    v.session.static_plan = !args->no_static;
    v.seed = args->common.seed;
    const ds::VerifyReport report = ds::verify(v);
    if (args->common.json) print(ds::verify_json(report));
    else if (!args->common.quiet) print(ds::verify_text(report));
    return static_cast<int>(report.ok() ? ds::ExitCode::kOk : ds::ExitCode::kGateFailed);
  });
}

void add_inspect(Command& bench) {
  struct Args {
    std::string model, html;
    ds::InspectOptions options;
    ds::cli::Common common;
  };
  auto args = std::make_shared<Args>();
  Command& c = bench.subcommand("inspect", "say what a model is: interface, operators, size, cost",
                                "Prints a model's inputs and outputs, operators, parameters, FLOPs (a multiply-add counts as "
                                "two) and memory beside the parameters at the given shapes; symbolic dimensions that are not "
                                "given count as 1. Also names the operators that ds does not support or cannot train through; that is no failure.\n\n"
                                "--html writes a page that needs nothing but a browser: the graph drawn in layers, with details of each "
                                "node, large graphs folded by the scopes in their names, and tables of operators, tensors and nodes.");
  c.positional("MODEL", &args->model, "model to look at, - for standard input").file();
  c.option("--shape", &args->options.shapes, "NAME:SHAPE", kShapeHelp);
  c.option("--html", &args->html, "FILE", "also write a page with the graph drawn; - for standard output, and nothing else there").file();
  c.common(&args->common, ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kJson);
  c.example("ds-bench inspect model.onnx --shape batch:8", "Cost of a batch of eight");
  c.example("ds-bench inspect model.onnx --html model.html", "A page to look at");
  c.body([args](const Command&) {
    const ds::Inspection inspection = ds::inspect_model(args->model, args->options);
    if (!args->html.empty()) ds::write_file_atomic(args->html, ds::inspection_html(inspection));
    if (args->html == "-") return 0;
    if (args->common.json) print(ds::inspection_json(inspection));
    else if (!args->common.quiet) print(ds::inspection_text(inspection));
    return 0;
  });
}

void add_ops(Command& bench) {
  struct Args {
    bool man = false;
    ds::cli::Common common;
  };
  auto args = std::make_shared<Args>();
  Command& c = bench.subcommand("ops", "list the operators that ds runs",
                                "Prints every operator that a model may hold: the operator set it began with, whether it can be trained "
                                "through, and what runs it. ds-ops(7) says more.");
  c.flag("--man", &args->man, "print the manual page ds-ops(7) instead");
  c.common(&args->common, ds::cli::kJson);
  c.example("ds-bench ops", "The list");
  c.body([args](const Command&) {
    const std::vector<ds::OpFacts> ops = ds::list_ops(args->man);
    print(args->man ? ds::ops_man_page(ops, ds::cli::version_text()) : args->common.json ? ds::ops_json(ops) : ds::ops_text(ops));
    return 0;
  });
}

void add_calibrate(Command& bench) {
  struct Args {
    std::string output;
    ds::cli::Common common;
  };
  auto args = std::make_shared<Args>();
  Command& c = bench.subcommand(
      "calibrate", "measure what this CPU's products and memory cost",
      "Measures how fast matrix products in f32, bf16 and 8 bits run at every level of instructions that this CPU has, and how fast weights are "
      "read, in a few seconds, and writes the table to a file: that of --output, or $XDG_CACHE_HOME/ds/costs.json "
      "(~/.cache/ds/costs.json). Let the machine be idle meanwhile.\n\n"
      "Programs go by built-in numbers, and by such a table only where --costs or DS_COSTS names it, so that the same command gives "
      "the same bits. Results tell the hash of the table, which leaves out the date. A table of another CPU or of another version of ds, or one that was "
      "changed, is refused (65).");
  c.option("--output,-o", &args->output, "FILE", "where to write the table; - for standard output, and nothing else there").file().default_text("costs.json in the cache");
  c.common(&args->common, ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kJson);
  c.example("ds-bench calibrate --threads 4", "Measure with four threads");
  c.example("ds-bench model.onnx --precision fp32,auto --costs ~/.cache/ds/costs.json", "Use the table");
  c.body([args](const Command&) {
    const std::string path = args->output.empty() ? ds::make_default_cost_folder() : args->output;
    ds::check_writable(path);
    const ds::CostTable table = ds::bench::calibrate(args->common.threads);
    const std::string text = ds::cost_file_text(table);
    ds::write_file_atomic(path, text);
    if (path == "-") return 0;
    if (args->common.json) print(text);
    else if (!args->common.quiet) print(ds::bench::calibration_text(table, path));
    return 0;
  });
}

constexpr const char* kTimingDescription =
    "Times one or more ONNX models side by side. Each model at each --precision, number of --threads and --batch is a row. All rows "
    "are loaded and planned, then each round runs every row once, in changing order, so that whatever disturbs the machine disturbs "
    "them alike. Prints for each row the percentiles of its times with the 95 % confidence interval of the median (from order statistics), the speed-up "
    "in samples per second against the first row (median of the ratios within rounds, with its 95 % bootstrap interval), file size, "
    "parameters, FLOPs (a multiply-add counts as two), their part of the peak measured on this machine, the time to load the file, to "
    "compile it and of the first run, planned memory, and the growth of resident memory over the loaded, idle process. With labelled "
    "data also the accuracy over all of it.\n\n"
    "Without --data and --input the inputs are random numbers, the same for equal seeds; symbolic dimensions that are not given are 1.\n\n"
    "--vary walks through the sizes of a dimension instead of repeating one: DIM:FROM-TO, or DIM:FROM-TO/STEP, where DIM is a symbolic "
    "dimension or INPUT[AXIS]. Dimensions given by several --vary advance together. At each size, the first run (which plans) is "
    "timed, then --iterations runs (by default 3) of the same size; after all sizes each is returned to once. The times of the table are those of the first runs.\n\n"
    "--profile adds where the time of a run goes: per operator and for the steps that take longest, with the kernel chosen, the type its arithmetic is done in and the part "
    "of what the roofline allows, min(peak of arithmetic, FLOPs / bytes x peak of memory), both peaks measured on this machine. Steps "
    "whose operands lie in caches may exceed it.\n\n"
    "--baseline compares with what an earlier run wrote by --output or --format json, row by row (same file name, input shapes, threads and "
    "precision). A row has regressed when its median is slower by more than --max-regression and the 95 % intervals of both medians "
    "lie apart; then the exit code is 1. A row that the baseline does not have is warned about.";

struct TimingArgs {
  ds::bench::BenchOptions bench;
  std::string output, html, baseline, max_regression = "5%";
  ds::bench::Format format = ds::bench::Format::kTable;
  bool no_static = false;
  ds::cli::Common common;
};

int run_timing(const Command& c, TimingArgs& a) {
  if (c.given("max-regression") && a.baseline.empty()) ds::cli::usage_error("--max-regression needs a --baseline");
  if (a.common.json && c.given("format") && a.format != ds::bench::Format::kJson) ds::cli::usage_error("--json and another --format");
  if (a.output == "-" && a.html == "-") ds::cli::usage_error("--output and --html cannot both be standard output");
  const double limit = ds::bench::parse_percent(a.max_regression, "--max-regression");
  // Before minutes of timing rather than after them.
  std::optional<ds::bench::Baseline> baseline;
  if (!a.baseline.empty()) baseline = ds::bench::read_baseline(a.baseline);
  for (const std::string& path : {a.output, a.html})
    if (!path.empty()) ds::check_writable(path);

  a.bench.seed = a.common.seed;
  a.bench.static_plan = !a.no_static;
  const auto say = [](const std::string& line) { std::fprintf(stderr, "ds-bench: %s\n", line.c_str()); };
  if (!a.common.quiet) a.bench.note = say;
  const bool print_profile = a.bench.profile;
  a.bench.profile |= !a.html.empty() && a.bench.vary.empty();
  ds::bench::BenchReport report = ds::bench::run_bench(a.bench);
  std::vector<std::string> regressed;
  if (baseline) {
    for (const std::string& warning : ds::bench::compare_with_baseline(report, *baseline, limit))
      if (!a.common.quiet) say("warning: " + warning);
    regressed = ds::bench::regressions(report, *baseline, limit);
  }
  if (!a.output.empty()) ds::write_file_atomic(a.output, ds::bench::bench_json(report));
  if (!a.html.empty()) ds::write_file_atomic(a.html, ds::bench::bench_html(report));
  if (a.output != "-" && a.html != "-")
    print(ds::bench::bench_output(report, a.common.json ? ds::bench::Format::kJson : a.format, print_profile));
  for (const std::string& line : regressed) say(line);
  return static_cast<int>(regressed.empty() ? ds::ExitCode::kOk : ds::ExitCode::kGateFailed);
}

void add_timing(Command& c) {
  auto args = std::make_shared<TimingArgs>();
  ds::bench::BenchOptions& o = args->bench;
  o.threads = {0};
  c.positional("MODEL", &o.models, "models to time; the first is the reference").file();
  c.group("Inputs");
  c.option("--data", &o.data, "DATA", "data set: x.npz, images,labels (npy or IDX, .gz or not), table.csv").file();
  c.option("--input,-i", &o.input, "NPZ", "the very inputs of a run, keyed by name").file();
  c.option("--label-key", &o.label_key, "KEY", "name of the labels in the data set");
  c.option("--shape", &o.shapes, "NAME:SHAPE", kShapeHelp);
  c.option("--vary", &o.vary, "DIM:FROM-TO", "run at each size of a dimension instead of repeating one");
  c.group("Rows");
  c.option("--batch", &o.batches, "N,...", "sizes of an open first axis").range(1, 1 << 24).default_text("1");
  c.option("--threads", &o.threads, "N,...", "CPU threads to use").range(0, 1024).default_text("all");
  c.choices("--precision", &o.precisions, ds::precision_names(), ds::cli::kPrecisionHelp);
  c.option("--costs", &o.costs, "FILE", ds::cli::kCostsHelp).file();
  c.group("Timing");
  c.option("--iterations", &o.iterations, "N", "rounds to time").range(1, 1e6).default_text("as --duration allows");
  c.option("--duration", &o.duration, "S", "seconds to time each row").range(0, 86400);
  c.option("--warmup", &o.warmup, "N", "untimed runs of each row").range(0, 1e6);
  c.flag("--no-static", &args->no_static, "run node by node instead of by a plan");
  c.group("Result");
  c.flag("--profile", &o.profile, "also say where the time goes");
  c.choice<ds::bench::Format>("--format", &args->format,
                              {{"table", ds::bench::Format::kTable}, {"json", ds::bench::Format::kJson},
                               {"csv", ds::bench::Format::kCsv}, {"md", ds::bench::Format::kMarkdown}},
                              "how to print the result");
  c.option("--output,-o", &args->output, "FILE", "also write the result there, as JSON; - for standard output, and nothing else there").file();
  c.option("--html", &args->html, "FILE", "also write a page with charts; - for standard output, and nothing else there").file();
  c.option("--baseline", &args->baseline, "FILE", "earlier result to compare with, in JSON").file();
  c.option("--max-regression", &args->max_regression, "PERCENT", "how much slower than the baseline is a failure");
  c.common(&args->common, ds::cli::kSeed | ds::cli::kQuiet | ds::cli::kJson | ds::cli::kDevice);
  c.example("ds-bench a.onnx b.onnx --batch 8", "Compare two models on random inputs");
  c.example("ds-bench model.onnx --data images.gz,labels.gz --batch 64 --json", "Time and accuracy, as JSON");
  c.example("ds-bench model.onnx --batch 1,8,32 --threads 1,2 --html report.html", "Six rows, and a page with charts");
  c.example("ds-bench model.onnx --baseline main.json --max-regression 3%", "A gate for continuous integration");
  c.example("ds-bench decoder.onnx --vary past:1-200 --vary total:2-201", "What each new shape costs");
  c.body([args](const Command& command) { return run_timing(command, *args); });
}

Command make_command() {
  Command c("ds-bench", "time, run, verify and inspect ONNX models", kTimingDescription);
  add_timing(c);
  c.exit_status(ds::ExitCode::kGateFailed, "verify: an output differs from its reference; --baseline: a row has become slower.");
  add_run(c);
  add_verify(c);
  add_inspect(c);
  add_calibrate(c);
  add_ops(c);
  return c;
}

}  // namespace

int main(int argc, char** argv) { return ds::cli::run_main(argc, argv, make_command()); }
