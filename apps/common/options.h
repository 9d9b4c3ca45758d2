// Command lines from one declarative table.
//
// A binary declares its options once, in a Command; parsing (CLI11), --help, the man page and the
// bash, zsh and fish completions are all derived from that table, so they cannot disagree.
//
//   ds::cli::Command make_command() {
//     struct Args { std::string model, output; int64_t batch = 32; ds::cli::Common common; };
//     auto args = std::make_shared<Args>();
//     ds::cli::Command c("ds-train", "train an ONNX model", "Trains MODEL on ...\n\nSecond paragraph.");
//     c.positional("MODEL", &args->model, "model to train, - for standard input").file();
//     c.group("Training");
//     c.option("--batch-size,-b", &args->batch, "N", "samples a step").range(1, 1 << 20);
//     c.choice("--loss", &args->loss, {"cross-entropy", "mse"}, "what to minimise");
//     c.option("--output,-o", &args->output, "FILE", "where to write").required().file();
//     c.common(&args->common, ds::cli::kSeed | ds::cli::kThreads | ds::cli::kQuiet | ds::cli::kConfig);
//     c.example("ds-train init.onnx --data digits.npz -o trained.onnx", "train on labelled digits");
//     c.body([args](const ds::cli::Command& c) { return run_training(*args); });  // returns the exit code
//     return c;
//   }
//   int main(int argc, char** argv) { return ds::cli::run_main(argc, argv, make_command()); }
//
// Defaults are whatever the variables hold when they are declared. An option given twice takes the
// last value, lists take all. The variables must outlive the command: hold them in a shared_ptr that
// `body` captures. Errors: whatever leaves `body` is printed once as `ds-train: message` on stderr
// and becomes the exit code; wrong flags are ExitCode::kUsage with a hint. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libds/base/error.h"
#include "libds/run/device.h"

namespace ds::cli {

// One row of the table. Built by Command, refined by OptionRef, read by the parser and the writers.
struct OptionSpec {
  enum class Complete { kNothing, kFile, kDirectory };

  std::string long_name;   // "batch-size"; for a positional its displayed name, "MODEL"
  char short_name = 0;     // 'b' or 0
  std::string value_name;  // "N"; empty for a flag
  std::string help;
  std::string default_text;  // empty: not shown
  std::string group;         // heading in --help and the man page
  std::vector<std::string> choices;
  Complete complete = Complete::kNothing;
  bool positional = false;
  bool flag = false;
  bool list = false;  // takes every occurrence
  bool required = false;
  std::optional<double> min, max;
  bool given = false;  // by the command line or the config file
  // Stores the values; returns what is wrong with them, or an empty string.
  std::function<std::string(std::span<const std::string>)> assign;
};

// Refines the row just declared.
class OptionRef {
 public:
  explicit OptionRef(OptionSpec& spec) : spec_(&spec) {}
  OptionRef& required(bool yes = true) { spec_->required = yes; return *this; }
  OptionRef& optional() { return required(false); }
  // Numbers outside [min, max] are usage errors.
  OptionRef& range(double min, double max);
  OptionRef& min(double min);
  OptionRef& file() { spec_->complete = OptionSpec::Complete::kFile; return *this; }
  OptionRef& directory() { spec_->complete = OptionSpec::Complete::kDirectory; return *this; }
  // What --help says instead of the variable's initial value; empty: nothing.
  OptionRef& default_text(std::string text) { spec_->default_text = std::move(text); return *this; }

 private:
  OptionSpec* spec_;
};

// The options every binary spells the same way; pick those that apply.
enum CommonFlags : unsigned {
  kQuiet = 1, kSeed = 2, kThreads = 4, kDevice = 8, kPrecision = 16, kJson = 32, kDryRun = 64, kConfig = 128, kExternalData = 256,
  kCosts = 512,  // for what runs models at a --precision
};

constexpr const char* kPrecisionHelp = "of products: fp32 is exact, auto computes in bf16 or fp16 where this CPU gains by it, bf16 and fp16 everywhere";

constexpr const char* kCostsHelp = "table of costs for --precision auto to go by, from ds-bench calibrate, instead of the built-in one";

// Values of the common options. After parsing, quiet and threads are already in force for the calling
// thread, and device and precision are known to be available.
struct Common {
  bool quiet = false;
  bool json = false;
  bool dry_run = false;
  bool external_data = false;
  uint64_t seed = 0;
  int threads = 0;  // 0: all that the machine offers; after parsing always at least 1
  std::string device = "auto";
  bool no_fallback = false;
  std::string precision = "fp32";
  std::string costs;
  DeviceChoice target;  // what the two come to
  std::string config;
};

class Command {
 public:
  using Body = std::function<int(const Command&)>;

  // `description`: paragraphs separated by an empty line.
  Command(std::string name, std::string summary, std::string description = {});

  // A named sub-command with a table of its own: `ds-bench run ...`. The reference stays valid as
  // long as the parent lives (moves included).
  Command& subcommand(const std::string& name, std::string summary, std::string description = {});

  // Options declared from here on appear under this heading.
  void group(std::string heading) { group_ = std::move(heading); }

  // Required unless .optional(). A vector takes all remaining arguments and must come last.
  OptionRef positional(std::string name, std::string* value, std::string help);
  OptionRef positional(std::string name, std::vector<std::string>* values, std::string help);

  // `names`: "--long" or "--long,-s".
  OptionRef option(std::string_view names, std::string* value, std::string value_name, std::string help);
  OptionRef option(std::string_view names, int* value, std::string value_name, std::string help);
  OptionRef option(std::string_view names, int64_t* value, std::string value_name, std::string help);
  OptionRef option(std::string_view names, uint64_t* value, std::string value_name, std::string help);
  OptionRef option(std::string_view names, double* value, std::string value_name, std::string help);
  // Unset unless given.
  OptionRef option(std::string_view names, std::optional<std::string>* value, std::string value_name, std::string help);
  OptionRef option(std::string_view names, std::optional<int64_t>* value, std::string value_name, std::string help);
  OptionRef option(std::string_view names, std::optional<double>* value, std::string value_name, std::string help);
  // Lists of strings: one a mention. Lists of numbers: commas and repetition both work.
  OptionRef option(std::string_view names, std::vector<std::string>* value, std::string value_name, std::string help);
  OptionRef option(std::string_view names, std::vector<int64_t>* value, std::string value_name, std::string help);
  OptionRef option(std::string_view names, std::vector<double>* value, std::string value_name, std::string help);
  // Sets the variable to true (`--name=false` sets it to false).
  OptionRef flag(std::string_view names, bool* value, std::string help);
  // One word of a fixed set.
  OptionRef choice(std::string_view names, std::string* value, std::vector<std::string> words, std::string help);
  // Words of a fixed set: commas and repetition both work.
  OptionRef choices(std::string_view names, std::vector<std::string>* values, std::vector<std::string> words, std::string help);
  template <typename Enum>
  OptionRef choice(std::string_view names, Enum* value, std::vector<std::pair<std::string, Enum>> words, std::string help);

  // Adds the common options selected by CommonFlags, under the heading "Common options".
  void common(Common* values, unsigned which);

  void example(std::string command, std::string explanation);
  // Adds to, or replaces in, the standard list of exit codes.
  void exit_status(ExitCode code, std::string meaning);
  // A long-running server wants EPIPE from write(), not death by signal.
  void ignore_sigpipe() { ignore_sigpipe_ = true; }
  void body(Body body) { body_ = std::move(body); }
  // A sub-command that another program implements: its arguments are handed over unread.
  void passthrough(std::function<int(std::vector<std::string>)> run) { passthrough_ = std::move(run); }

  // Whether the user set this option ("batch-size" or "--batch-size"), on the command line or in
  // the config file. Only meaningful inside `body`.
  bool given(std::string_view long_name) const;

  // The table, for the parser and the writers.
  const std::string& name() const { return name_; }  // "ds-bench run" for a sub-command
  const std::string& summary() const { return summary_; }
  const std::string& description() const { return description_; }
  const std::list<OptionSpec>& options() const { return options_; }
  std::list<OptionSpec>& options() { return options_; }
  const std::list<Command>& subcommands() const { return subcommands_; }
  std::list<Command>& subcommands() { return subcommands_; }
  const std::vector<std::pair<std::string, std::string>>& examples() const { return examples_; }
  const std::vector<std::pair<ExitCode, std::string>>& exit_statuses() const { return exit_statuses_; }
  const Common* common_values() const { return common_; }
  Common* common_values() { return common_; }
  unsigned common_flags() const { return common_flags_; }
  bool ignores_sigpipe() const { return ignore_sigpipe_; }
  const Body& body() const { return body_; }
  const std::function<int(std::vector<std::string>)>& passthrough() const { return passthrough_; }
  std::string last_word() const { return name_.substr(name_.rfind(' ') + 1); }

 private:
  OptionSpec& add(std::string_view names, std::string value_name, std::string help);

  std::string name_, summary_, description_, group_ = "Options";
  std::list<OptionSpec> options_;  // lists: addresses survive moves
  std::list<Command> subcommands_;
  std::vector<std::pair<std::string, std::string>> examples_;
  std::vector<std::pair<ExitCode, std::string>> exit_statuses_;
  Common* common_ = nullptr;
  unsigned common_flags_ = 0;
  bool ignore_sigpipe_ = false;
  Body body_;
  std::function<int(std::vector<std::string>)> passthrough_;
};

// The whole life of a process: parse, run, report, exit code. `--help`, `--version` and the hidden
// `--dump-man`, `--dump-completion bash|zsh|fish` are answered here.
int run_main(int argc, char** argv, Command command);

// The part of run_main that throws instead of printing errors; `args` without argv[0].
int run_command(Command& command, std::vector<std::string> args);

// Wrong combination of flags found by a body.
template <typename... Args>
[[noreturn]] void usage_error(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ExitCode::kUsage, fmt::format(format, std::forward<Args>(args)...));
}

// Writers (help.cc, completion.cc). Pure functions of the table: no dates, no terminal width.
std::string help_text(const Command& command);
std::string man_page(const Command& command);
std::string completion_script(const Command& command, std::string_view shell);  // bash, zsh, fish
std::string version_text();                                                      // "0.1.0"

// The nearest of `known` to a misspelt word, or an empty string when none is near.
std::string nearest_word(std::string_view word, std::span<const std::string> known);

template <typename Enum>
OptionRef Command::choice(std::string_view names, Enum* value, std::vector<std::pair<std::string, Enum>> words,
                          std::string help) {
  auto text = std::make_shared<std::string>();
  std::vector<std::string> plain;
  for (const auto& [word, meaning] : words) {
    plain.push_back(word);
    if (meaning == *value && text->empty()) *text = word;
  }
  OptionRef ref = choice(names, text.get(), plain, std::move(help));
  OptionSpec& spec = options_.back();
  spec.assign = [value, text, words = std::move(words), store = spec.assign](std::span<const std::string> given) {
    std::string wrong = store(given);
    for (const auto& [word, meaning] : words)
      if (wrong.empty() && word == *text) *value = meaning;
    return wrong;
  };
  return ref;
}

}  // namespace ds::cli
