// ds-bench: run, verify, inspect and time models.
#include <cstdio>
#include <memory>

#include "apps/common/options.h"
#include "libds/tasks/inspect/inspect.h"
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
  c.common(&args->common, ds::cli::kThreads | ds::cli::kQuiet);
  c.example("ds-bench run model.onnx --input x.npz --output y.npz", "Write what the model returns");
  c.body([args](const Command&) {
    ds::SessionOptions options;
    options.static_plan = !args->no_static;
    ds::run_file(args->model, args->input, args->output, options);
    return 0;
  });
}

void add_verify(Command& bench) {
  struct Args {
    std::string model, input, reference;
    ds::Tolerance tolerance;
    bool no_static = false;
    ds::cli::Common common;
  };
  auto args = std::make_shared<Args>();
  Command& c = bench.subcommand("verify", "compare what a model returns with a reference",
                                "Runs MODEL on the arrays of one .npz file and compares its outputs with those of another, "
                                "made by any other runtime. An element passes when |got - expected| <= atol + rtol * |expected|. "
                                "Prints the largest absolute and relative error and the cosine of each output.");
  c.positional("MODEL", &args->model, "model to run, - for standard input").file();
  c.option("--input,-i", &args->input, "NPZ", "inputs, keyed by name; - for standard input").required().file();
  c.option("--reference,-r", &args->reference, "NPZ", "expected outputs, keyed by name; - for standard input").required().file();
  c.option("--rtol", &args->tolerance.rtol, "R", "relative tolerance").min(0);
  c.option("--atol", &args->tolerance.atol, "A", "absolute tolerance").min(0);
  c.flag("--no-static", &args->no_static, "run node by node instead of by a plan");
  c.common(&args->common, ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kJson);
  c.exit_status(ds::ExitCode::kGateFailed, "an output differs from its reference");
  c.example("ds-bench verify model.onnx --input x.npz --reference y.npz --rtol 1e-4 --atol 1e-5", "Check against another runtime");
  c.body([args](const Command&) {
    ds::SessionOptions options;
    options.static_plan = !args->no_static;
    const auto outputs = ds::verify_file(args->model, args->input, args->reference, args->tolerance, options);
    if (args->common.json) print(ds::verify_json(outputs, args->tolerance));
    else if (!args->common.quiet) print(ds::verify_text(outputs));
    return static_cast<int>(ds::all_ok(outputs) ? ds::ExitCode::kOk : ds::ExitCode::kGateFailed);
  });
}

void add_inspect(Command& bench) {
  struct Args {
    std::string model;
    ds::InspectOptions options;
    ds::cli::Common common;
  };
  auto args = std::make_shared<Args>();
  Command& c = bench.subcommand("inspect", "say what a model is: interface, operators, size, cost",
                                "Prints a model's inputs and outputs, operators, parameters, FLOPs (a multiply-add counts as "
                                "two) and memory beside the parameters at the given shapes; symbolic dimensions that are not "
                                "given count as 1. Also names the operators that ds does not support or cannot train through.");
  c.positional("MODEL", &args->model, "model to look at, - for standard input").file();
  c.option("--shape", &args->options.shapes, "NAME:SHAPE", kShapeHelp);
  c.common(&args->common, ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kJson);
  c.example("ds-bench inspect model.onnx --shape batch:8", "Cost of a batch of eight");
  c.body([args](const Command&) {
    const ds::Inspection inspection = ds::inspect_model(args->model, args->options);
    print(args->common.json ? ds::inspection_json(inspection) : ds::inspection_text(inspection));
    return 0;
  });
}

Command make_command() {
  Command c("ds-bench", "run, verify, inspect and time ONNX models");
  add_run(c);
  add_verify(c);
  add_inspect(c);
  return c;
}

}  // namespace

int main(int argc, char** argv) { return ds::cli::run_main(argc, argv, make_command()); }
