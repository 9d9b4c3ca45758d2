// ds-train: makes fresh models and trains models on data.
#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>

#include "apps/common/options.h"
#include "apps/common/progress.h"
#include "libds/base/log.h"
#include "libds/ir/onnx_export.h"
#include "libds/tasks/init.h"
#include "libds/tasks/train/check.h"
#include "libds/tasks/train/train.h"

namespace {

using ds::cli::Command;
using ds::cli::usage_error;

void say(const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); }

// --- ds-train init ---

std::string arch_paragraph() {
  std::string text = "Architectures:";
  for (const ds::ArchInfo& a : ds::list_archs()) text += fmt::format(" {}: {};", a.name, a.summary);
  text.back() = '.';
  return text;
}

void add_init(Command& train) {
  struct Args {
    ds::ArchOptions arch;
    std::string output, input_dtype = "f32";
    ds::cli::Common common;
  };
  auto args = std::make_shared<Args>();
  ds::ArchOptions& a = args->arch;
  Command& c = train.subcommand("init", "make a model with fresh weights",
                                "Writes a model of a known architecture with random weights that depend on --seed alone.\n\n" +
                                    arch_paragraph() +
                                    "\n\nWith --scale, --mean and --std the graph begins by computing (x * scale - mean) / std, so that every "
                                    "later program takes raw pixels.");
  std::vector<std::string> names;
  for (const ds::ArchInfo& info : ds::list_archs()) names.emplace_back(info.name);
  c.choice("--arch", &a.arch, names, "architecture").required();
  c.option("--output,-o", &args->output, "FILE", "where to write the model; - for standard output").required().file();
  c.group("Sizes");
  c.option("--classes", &a.classes, "N", "classes to tell apart").default_text("10, 2 or 1000, as usual for the architecture");
  c.option("--image-size", &a.image_size, "N", "height and width of the pictures").default_text("28, or 224 for resnets");
  c.option("--in-channels", &a.in_channels, "N", "channels of the pictures").default_text("1, or 3 for resnets");
  c.flag("--small-stem", &a.small_stem, "resnets: a 3x3 stem without pooling, for pictures of about 32x32");
  c.option("--features", &a.features, "N", "mlp: length of the input vectors").default_text("784");
  c.option("--hidden-sizes", &a.hidden_sizes, "N,...", "mlp: widths of the hidden layers").default_text("256,128");
  c.option("--hidden", &a.hidden, "N", "bert: width of the hidden states").default_text("768");
  c.option("--layers", &a.layers, "N", "bert: encoder layers").default_text("12");
  c.option("--heads", &a.heads, "N", "bert: attention heads").default_text("hidden / 64");
  c.option("--ffn", &a.ffn, "N", "bert: width of the feed-forward layers").default_text("4 * hidden");
  c.option("--vocab", &a.vocab, "N", "bert: number of tokens").default_text("30522");
  c.option("--max-length", &a.max_length, "N", "bert: longest sequence").default_text("512");
  c.choice("--attention", &a.attention, {"full"}, "bert: kind of attention");
  c.group("Input");
  c.option("--scale", &a.scale, "S", "factor on every pixel, 0.00392156862745098 for bytes");
  c.option("--mean", &a.mean, "M,...", "mean to subtract after scaling, one or one for each channel");
  c.option("--std", &a.std, "S,...", "deviation to divide by, one or one for each channel");
  c.choice("--input-dtype", &args->input_dtype, {"f32", "u8"}, "type of the model's input");
  c.common(&args->common, ds::cli::kSeed | ds::cli::kQuiet | ds::cli::kExternalData | ds::cli::kConfig);
  c.example("ds-train init --arch lenet --classes 10 --scale 0.00392156862745098 -o init.onnx", "A small network for bytes of 28x28 digits");
  c.example("ds-train init --arch bert --hidden 256 --layers 4 --vocab 8000 -o bert.onnx", "A small transformer encoder");
  c.body([args](const Command&) {
    if (args->common.external_data && args->output == "-") ds::cli::usage_error("--external-data needs an --output that is a file");
    args->arch.seed = args->common.seed;
    args->arch.input_dtype = ds::dtype_from_name(args->input_dtype);
    ds::save_model(*ds::build_arch(args->arch), args->output, {.external_data = args->common.external_data});
    return 0;
  });
}

// --- ds-train ---

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set from a signal handler");

void request_stop(int signal) {
  stop_requested.store(true);
  std::signal(signal, SIG_DFL);  // a second one ends us at once
}

std::string epoch_line(const ds::EpochReport& r, int epochs) {
  std::string line = fmt::format("epoch {}/{}  loss {:.4f}", r.epoch, epochs, r.train_loss);
  if (r.validation_loss) line += fmt::format("  val loss {:.4f}", *r.validation_loss);
  if (r.validation_top1) line += fmt::format("  val top-1 {:.2f} %", 100 * *r.validation_top1);
  if (r.sparsity > 0) line += fmt::format("  sparsity {:.1f} %", 100 * r.sparsity);
  line += fmt::format("  lr {:.3g}  {:.0f} samples/s", r.learning_rate, r.samples_per_second);
  if (r.compute_efficiency > 0) line += fmt::format("  efficiency {:.2f}", r.compute_efficiency);
  return line;
}

struct TrainArgs {
  ds::TrainOptions options;
  std::optional<double> rate, weight_decay;
  double momentum = 0.9;
  std::string keep = "last", prune = "none";
  bool no_static = false, check = false, json = false;
  ds::cli::Common common;
};

int check_model(const TrainArgs& args) {
  const ds::TrainCheck check = ds::check_trainable(args.options.model, args.options.graph.freeze);
  const std::string text = args.json ? ds::train_check_json(check) : ds::train_check_text(check);
  if (args.json || !args.common.quiet) std::fwrite(text.data(), 1, text.size(), stdout);
  return static_cast<int>(check.trainable ? ds::ExitCode::kOk : ds::ExitCode::kGateFailed);
}

int run_train(TrainArgs& args, const Command& c) {
  ds::TrainOptions& o = args.options;
  if (args.check) return check_model(args);
  if (args.common.precision != "fp32")
    ds::fail(ds::ExitCode::kUnsupported, "--precision {}: training computes in fp32", args.common.precision);
  if (args.json) usage_error("--json goes with --check; training writes JSON to --metrics");
  if (o.data.empty()) usage_error("--data is missing");
  if (o.output.empty()) usage_error("--output is missing");
  if (o.output == "-" && o.metrics == "-") usage_error("--output and --metrics cannot both go to standard output");
  if (args.common.external_data && o.output == "-") usage_error("--external-data needs an --output that is a file");
  if (!o.validation.empty() && o.validation_split > 0) usage_error("--val and --val-split exclude each other");
  if (args.prune == "none" && c.given("target-sparsity")) usage_error("--target-sparsity needs --prune magnitude");
  if (args.prune != "none" && !c.given("target-sparsity")) usage_error("--prune {} needs --target-sparsity", args.prune);
  const bool adamw = o.graph.optimizer == ds::OptimizerKind::kAdamW;
  if (adamw && (c.given("momentum") || c.given("nesterov"))) usage_error("--momentum and --nesterov are for --optimizer sgd");
  o.schedule.base = args.rate.value_or(adamw ? 0.001 : 0.05);
  o.graph.weight_decay = static_cast<float>(args.weight_decay.value_or(adamw ? 0.01 : 0.0));
  o.graph.momentum = static_cast<float>(args.momentum);
  o.keep_best = args.keep == "best";
  o.static_plan = !args.no_static;
  o.seed = args.common.seed;
  o.threads = args.common.threads;
  o.external_data = args.common.external_data;

  std::signal(SIGINT, request_stop);
  std::signal(SIGTERM, request_stop);
  const bool quiet = args.common.quiet;
  ds::cli::Progress progress("training", 0, quiet);
  int epoch = 0;
  ds::TrainCallbacks callbacks;
  callbacks.stop = &stop_requested;
  callbacks.on_message = [&](const std::string& line) {
    progress.clear();
    if (!quiet) say(line);
  };
  callbacks.on_step = [&](const ds::TrainProgress& p) {
    const int64_t per_epoch = p.steps / p.epochs;
    if (p.epoch != epoch) progress.restart(fmt::format("epoch {}/{}", p.epoch, p.epochs), per_epoch);
    epoch = p.epoch;
    progress.update(p.step - (p.epoch - 1) * per_epoch, fmt::format("loss {:.4f}", p.loss));
  };
  callbacks.on_epoch = [&](const ds::EpochReport& r) {
    progress.clear();
    if (!quiet) say(epoch_line(r, o.epochs));
  };
  const ds::TrainResult result = ds::train(o, callbacks);
  progress.clear();
  if (!quiet && result.planned_bytes > 0)
    say(fmt::format("memory: {:.1f} MB planned, {:.1f} MB measured", static_cast<double>(result.planned_bytes) / 1e6,
                    static_cast<double>(result.measured_bytes) / 1e6));
  if (!result.interrupted) return 0;
  if (o.checkpoint_dir.empty()) fail(ds::ExitCode::kPreempted, "stopped by a signal; nothing was kept (there is no --checkpoint-dir)");
  fail(ds::ExitCode::kPreempted, "stopped by a signal; the same command with --resume goes on from {}", o.checkpoint_dir);
}

Command make_command() {
  auto args = std::make_shared<TrainArgs>();
  ds::TrainOptions& o = args->options;
  Command c("ds-train", "train an ONNX model",
            "Trains MODEL on the data and writes it with its new weights. Forward, backward and optimizer are one graph with one "
            "static plan, run step after step.\n\n"
            "Data are told apart by content: an .npz file with one array for each input and one of labels; IMAGES,LABELS as two "
            "files of one array each, .npy or IDX, gzip-compressed or not; a CSV table. Pictures without a channel axis fit a "
            "model that wants one channel.\n\n"
            "The order of samples, augmentation and dropout are functions of --seed, the epoch and the sample: the same command "
            "gives the same bytes, and a run that was killed and resumed with --resume ends in the same weights as one that was not. "
            "Zeros of a pruned model stay zeros.\n\n"
            "With --check nothing is trained and no data are needed: the first line says whether the model can be, then come all "
            "operators without a gradient, with the nodes where one would be needed because they lie between a trainable "
            "parameter and the first output, and all operators that are not supported.");
  c.positional("MODEL", &o.model, "model to train; - for standard input").file();
  c.option("--output,-o", &o.output, "FILE", "where to write the trained model; - for standard output").file();
  c.flag("--check", &args->check, "do not train: say whether the model can be trained, and which operators stand in the way");
  c.flag("--json", &args->json, "with --check: print the result as JSON");

  c.group("Data");
  c.option("--data", &o.data, "DATA", "training data").file();
  c.option("--val", &o.validation, "DATA", "validation data").file();
  c.option("--val-split", &o.validation_split, "PART", "part of the training data to hold out for validation, chosen by --seed").range(0, 0.99);
  c.option("--label-key", &o.label_key, "NAME", "array or column that holds the labels").default_text("labels, label, targets, target or y");
  c.option("--augment", &o.augment, "LIST", "random changes of pictures: shift:PIXELS, flip");

  c.group("Training");
  c.choice("--loss", &o.graph.loss,
           {{"cross-entropy", ds::LossKind::kCrossEntropy}, {"mse", ds::LossKind::kMse}, {"bce", ds::LossKind::kBce}}, "what to minimise");
  c.choice("--optimizer", &o.graph.optimizer, {{"sgd", ds::OptimizerKind::kSgd}, {"adamw", ds::OptimizerKind::kAdamW}}, "how to step");
  c.option("--lr", &args->rate, "RATE", "learning rate").min(0).default_text("0.05 for sgd, 0.001 for adamw");
  c.choice("--schedule", &o.schedule.shape,
           {{"cosine", ds::ScheduleShape::kCosine}, {"linear", ds::ScheduleShape::kLinear}, {"constant", ds::ScheduleShape::kConstant}},
           "how the learning rate goes on after the warm-up");
  c.option("--warmup", &o.schedule.warmup, "STEPS", "steps over which the learning rate rises").min(0);
  c.option("--min-lr", &o.schedule.floor, "RATE", "learning rate at the end of the schedule").min(0);
  c.option("--epochs", &o.epochs, "N", "passes over the training data").min(1);
  c.option("--batch-size", &o.batch_size, "N", "samples a step").min(1);
  c.option("--weight-decay", &args->weight_decay, "W", "decay of weights, not of biases and norms").min(0).default_text("0 for sgd, 0.01 for adamw");
  c.option("--momentum", &args->momentum, "M", "momentum of sgd").range(0, 1);
  c.flag("--nesterov", &o.graph.nesterov, "Nesterov's momentum for sgd");
  c.option("--freeze", &o.graph.freeze, "PATTERN", "parameters that stay as they are, by name with * and ?");
  c.choice("--keep", &args->keep, {"last", "best"}, "write the last weights, or those of the best validation");
  c.flag("--no-static", &args->no_static, "run node by node instead of by a plan; the same bits, slower");

  c.group("Pruning");
  c.choice("--prune", &args->prune, {"none", "magnitude"}, "set the smallest weights to zero while training");
  c.option("--target-sparsity", &o.target_sparsity, "PART", "part of the weights that are zero at the end").range(0, 0.999);
  c.choice("--prune-schedule", &o.sparsity.shape, {{"cubic", ds::SparsityShape::kCubic}, {"cosine", ds::SparsityShape::kCosine}},
           "how sparsity rises");
  c.option("--prune-end", &o.sparsity.end, "PART", "part of the training after which the target is reached").range(0, 1);

  c.group("Records");
  c.option("--metrics", &o.metrics, "FILE", "append one JSON object an epoch; - for standard output").file();
  c.option("--checkpoint-dir", &o.checkpoint_dir, "DIR", "keep checkpoints here").directory();
  c.option("--checkpoint-every", &o.checkpoint_every, "STEPS", "steps between checkpoints").min(0).default_text("one an epoch");
  c.option("--keep-checkpoints", &o.keep_checkpoints, "N", "checkpoints to keep").min(1);
  c.flag("--resume", &o.resume, "go on from the newest checkpoint; start afresh when there is none");

  c.common(&args->common, ds::cli::kSeed | ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kDevice | ds::cli::kPrecision | ds::cli::kExternalData | ds::cli::kConfig);
  c.exit_status(ds::ExitCode::kGateFailed, "--check: the model cannot be trained");
  c.exit_status(ds::ExitCode::kPreempted, "stopped by SIGINT or SIGTERM; --resume goes on");
  c.example("ds-train init.onnx --data images.gz,labels.gz --val-split 0.1 --epochs 12 -o trained.onnx", "Train on IDX files");
  c.example("ds-train init.onnx --data x.npz --label-key y --checkpoint-dir ckpt --resume -o trained.onnx", "A run that may be killed at any time");
  c.example("ds-train big.onnx --data x.npz --prune magnitude --target-sparsity 0.7 -o sparse.onnx", "Prune while training");
  c.example("ds-train model.onnx --check", "Can it be trained?");
  c.body([args](const Command& command) { return run_train(*args, command); });
  add_init(c);
  return c;
}

}  // namespace

int main(int argc, char** argv) { return ds::cli::run_main(argc, argv, make_command()); }
