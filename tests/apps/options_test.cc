#include "apps/common/options.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

#include "apps/common/progress.h"
#include "libds/base/file.h"
#include "libds/base/parallel.h"

namespace ds::cli {
namespace {

enum class Rule { kSgd, kAdamw };

struct Args {
  std::string model, output, loss = "mse";
  std::vector<std::string> exclude;
  std::vector<double> mean;
  std::optional<double> drop;
  int64_t batch = 32;
  uint64_t big = 7;
  double lr = 0.1;
  bool no_static = false;
  Rule rule = Rule::kSgd;
  Common common;
};

Command sample(Args& args) {
  Command c("ds-sample", "does something", "First paragraph.\n\nSecond - with a dash.");
  c.positional("MODEL", &args.model, "the model").file();
  c.group("Training");
  c.option("--batch-size,-b", &args.batch, "N", "samples a step").range(1, 4096);
  c.option("--lr", &args.lr, "RATE", "learning rate");
  c.option("--big", &args.big, "N", "any 64-bit number");
  c.option("--mean", &args.mean, "X,...", "means");
  c.option("--max-drop", &args.drop, "D", "gate").range(0, 1);
  c.option("--exclude", &args.exclude, "PATTERN", "nodes to leave alone");
  c.choice("--loss", &args.loss, {"cross-entropy", "mse"}, "what to minimise");
  c.choice<Rule>("--optimizer", &args.rule, {{"sgd", Rule::kSgd}, {"adamw", Rule::kAdamw}}, "update rule");
  c.flag("--no-static", &args.no_static, "run node by node");
  c.option("--output,-o", &args.output, "FILE", "where to write").required().file();
  c.common(&args.common, kQuiet | kSeed | kThreads | kDevice | kPrecision | kJson | kDryRun | kConfig);
  c.example("ds-sample m.onnx -o n.onnx", "The usual way");
  c.body([](const Command& self) { return self.given("batch-size") ? 3 : 0; });
  return c;
}

// Runs the sample command; the message of the error, or "" when it went well.
std::string error_of(std::vector<std::string> words, ExitCode expected = ExitCode::kUsage) {
  Args args;
  Command c = sample(args);
  try {
    run_command(c, std::move(words));
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(expected)) << error.what();
    return error.what();
  }
  return "";
}

class OptionsTest : public ::testing::Test {
 protected:
  void TearDown() override { set_num_threads(available_threads()); }
};

TEST_F(OptionsTest, ReadsEveryKind) {
  Args args;
  Command c = sample(args);
  const int code = run_command(c, {"m.onnx", "-b", "64", "--lr=1e-3", "--big", "18446744073709551615", "--mean", "0.1,-2", "--mean", "3",
                                   "--max-drop", "0.5", "--exclude", "a*", "--exclude", "[b]", "--loss", "cross-entropy",
                                   "--optimizer", "adamw", "--no-static", "-o", "-", "--seed", "9", "--threads", "2", "--json"});
  EXPECT_EQ(code, 3);
  EXPECT_EQ(args.model, "m.onnx");
  EXPECT_EQ(args.output, "-");
  EXPECT_EQ(args.batch, 64);
  EXPECT_EQ(args.lr, 1e-3);
  EXPECT_EQ(args.big, 18446744073709551615u);
  EXPECT_EQ(args.mean, (std::vector<double>{0.1, -2, 3}));
  EXPECT_EQ(args.drop, 0.5);
  EXPECT_EQ(args.exclude, (std::vector<std::string>{"a*", "[b]"}));
  EXPECT_EQ(args.loss, "cross-entropy");
  EXPECT_EQ(args.rule, Rule::kAdamw);
  EXPECT_TRUE(args.no_static);
  EXPECT_TRUE(args.common.json);
  EXPECT_EQ(args.common.seed, 9u);
  EXPECT_EQ(args.common.threads, 2);
  EXPECT_EQ(num_threads(), 2);
}

TEST_F(OptionsTest, ListsOfWordsOfAFixedSet) {
  const auto chosen = [](std::vector<std::string> given) {
    std::vector<std::string> values = {"a"};
    Command c("ds-sample", "does something");
    c.choices("--word", &values, {"a", "b", "cc"}, "words");
    c.body([](const Command&) { return 0; });
    run_command(c, std::move(given));
    return values;
  };
  EXPECT_EQ(chosen({}), (std::vector<std::string>{"a"}));
  EXPECT_EQ(chosen({"--word", "cc,b", "--word=a"}), (std::vector<std::string>{"cc", "b", "a"}));
  for (const char* wrong : {"d", "a,", ",a", "", "a, b"}) EXPECT_THROW(chosen({"--word", wrong}), Error) << wrong;
}

TEST_F(OptionsTest, KeepsDefaultsAndTakesTheLastOfTwo) {
  Args args;
  Command c = sample(args);
  EXPECT_EQ(run_command(c, {"-o", "x", "m.onnx", "--lr", "1", "--lr", "2", "--no-static", "--no-static"}), 0);
  EXPECT_EQ(args.batch, 32);
  EXPECT_EQ(args.lr, 2);
  EXPECT_FALSE(args.drop.has_value());
  EXPECT_EQ(args.rule, Rule::kSgd);
  EXPECT_GE(args.common.threads, 1);
}

TEST_F(OptionsTest, DoubleDashEndsOptionsAndNegativeNumbersAreValues) {
  Args args;
  Command c = sample(args);
  EXPECT_EQ(run_command(c, {"-o", "x", "--lr", "-1", "--", "--odd-name"}), 0);
  EXPECT_EQ(args.model, "--odd-name");
  EXPECT_EQ(args.lr, -1);
}

TEST_F(OptionsTest, WrongUseIsOneLineWithAHint) {
  EXPECT_EQ(error_of({"m"}), "--output is missing (see ds-sample --help)");
  EXPECT_EQ(error_of({"-o", "x"}), "MODEL is missing (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--btch-size", "3"}),
            "unknown option '--btch-size', did you mean '--batch-size'? (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--wibble"}), "unknown option '--wibble' (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "-z"}), "unknown option '-z' (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "n", "-o", "x"}), "unexpected argument 'n' (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--lr", "fast"}), "--lr: 'fast' is not a number (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--lr", "nan"}), "--lr: 'nan' is not a number (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--lr", ""}), "--lr: '' is not a number (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "-b", "3.5"}), "--batch-size: '3.5' is not a whole number (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "-b", "0"}),
            "--batch-size: 0 is out of range: must be between 1 and 4096 (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--seed", "-1"}),
            "--seed: '-1' is not a whole number, 0 or above (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--mean", "1,,2"}), "--mean: '' is not a number (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--loss", "l1"}),
            "--loss: 'l1' is not one of cross-entropy, mse (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--optimizer", "lion"}),
            "--optimizer: 'lion' is not one of sgd, adamw (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--lr"}), "--lr: needs a value (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--device", "gpu"}),
            "--device: 'gpu' is not auto, cpu or cuda:N (see ds-sample --help)");
}

TEST_F(OptionsTest, DevicesThatAreNotThere) {
  EXPECT_EQ(error_of({"m", "-o", "x", "--device", "cuda:0"}), "");  // the CPU takes over
  EXPECT_EQ(error_of({"m", "-o", "x", "--device", "cuda:0", "--no-fallback"}, ExitCode::kUnsupported),
            "--device cuda:0: this build runs models on the CPU only; use cpu or auto, or leave --no-fallback away");
  EXPECT_EQ(error_of({"m", "-o", "x", "--precision", "bf16"}), "");
  EXPECT_EQ(error_of({"m", "-o", "x", "--precision", "fp16"}), "");
  EXPECT_EQ(error_of({"m", "-o", "x", "--precision", "fp8"}), "--precision: 'fp8' is not one of fp32, auto, bf16, fp16 (see ds-sample --help)");
  EXPECT_EQ(error_of({"m", "-o", "x", "--device", "cpu", "--precision", "fp32"}), "");
}

class ConfigTest : public OptionsTest {
 protected:
  void write(const std::string& text) { write_file_atomic(path_, text); }
  void TearDown() override {
    OptionsTest::TearDown();
    std::remove(path_.c_str());
  }
  std::string path_ = ::testing::TempDir() + "/ds_options_test." + std::to_string(getpid()) + ".json";
};

TEST_F(ConfigTest, FillsInWhatFlagsLeftOpen) {
  write(R"({"batch-size": 8, "lr": 0.25, "output": "from-config", "exclude": ["a", "b"], "no-static": true, "mean": [1, 2.5]})");
  Args args;
  Command c = sample(args);
  EXPECT_EQ(run_command(c, {"m.onnx", "--lr", "4", "--config", path_}), 3);
  EXPECT_EQ(args.batch, 8);
  EXPECT_EQ(args.lr, 4);
  EXPECT_EQ(args.output, "from-config");
  EXPECT_EQ(args.exclude, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(args.mean, (std::vector<double>{1, 2.5}));
  EXPECT_TRUE(args.no_static);
}

TEST_F(ConfigTest, IsCheckedLikeFlags) {
  const std::vector<std::string> words = {"m", "-o", "x", "--config", path_};
  write(R"({"batchsize": 8})");
  EXPECT_EQ(error_of(words), path_ + ": unknown option 'batchsize', did you mean 'batch-size'? (see ds-sample --help)");
  write(R"({"batch-size": "many"})");
  EXPECT_EQ(error_of(words), path_ + ": --batch-size: 'many' is not a whole number (see ds-sample --help)");
  write(R"({"lr": [1, 2]})");
  EXPECT_EQ(error_of(words, ExitCode::kBadData), path_ + ": 'lr' takes one value, not an array");
  write(R"({"lr": {}})");
  EXPECT_EQ(error_of(words, ExitCode::kBadData), path_ + ": 'lr' must be a string, a number, true or false");
  write("[1]");
  EXPECT_EQ(error_of(words, ExitCode::kBadData), path_ + ": must hold one JSON object keyed by option name");
  write("{");
  EXPECT_EQ(error_of(words, ExitCode::kBadData), path_ + ": not valid JSON");
  std::remove(path_.c_str());
  EXPECT_NE(error_of(words, ExitCode::kNoInput), "");
}

TEST(SubcommandTest, TakesItsOwnTable) {
  std::string model;
  std::vector<std::string> models;
  int ran = 0;
  Command c("ds-two", "two");
  c.positional("MODEL", &models, "models");
  c.body([&](const Command&) { return ran = 1; });
  Command& sub = c.subcommand("run", "run one");
  sub.positional("MODEL", &model, "a model");
  sub.body([&](const Command&) { return ran = 2; });
  Command moved = std::move(c);
  EXPECT_EQ(run_command(moved, {"run", "a"}), 2);
  EXPECT_EQ(model, "a");
  EXPECT_EQ(run_command(moved, {"a", "b", "c"}), 1);
  EXPECT_EQ(models, (std::vector<std::string>{"a", "b", "c"}));
}

TEST(SubcommandTest, MisspeltOrMissing) {
  Command c("ds", "x");
  std::vector<std::string> seen;
  c.subcommand("train", "t").passthrough([&](std::vector<std::string> args) { seen = args; return 5; });
  EXPECT_EQ(run_command(c, {"train", "--help", "--any"}), 5);
  EXPECT_EQ(seen, (std::vector<std::string>{"--help", "--any"}));
  const auto message = [&](std::vector<std::string> words) {
    try {
      run_command(c, words);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message({"trian"}), "unknown command 'trian', did you mean 'train'? (see ds --help)");
  EXPECT_EQ(message({}), "a command is missing (see ds --help)");
}

// Help, man page and completions come from one table: every option is in all of them, with its
// documented words.
TEST(WritersTest, ShowEveryOption) {
  Args args;
  const Command c = sample(args);
  const std::string help = help_text(c), man = man_page(c);
  for (const OptionSpec& spec : c.options()) {
    if (spec.positional) continue;
    EXPECT_NE(help.find("--" + spec.long_name), std::string::npos) << spec.long_name;
    std::string dashed;
    for (char ch : spec.long_name) dashed += ch == '-' ? std::string("\\-") : std::string(1, ch);
    EXPECT_NE(man.find("\\-\\-" + dashed), std::string::npos) << spec.long_name;
    for (const char* shell : {"bash", "zsh"}) 
      EXPECT_NE(completion_script(c, shell).find("--" + spec.long_name), std::string::npos) << shell << spec.long_name;
    EXPECT_NE(completion_script(c, "fish").find(" -l " + spec.long_name), std::string::npos) << spec.long_name;
  }
  EXPECT_NE(help.find("samples a step (default: 32)"), std::string::npos) << help;
  EXPECT_NE(help.find("Usage: ds-sample [OPTION]... --output FILE MODEL"), std::string::npos) << help;
  EXPECT_NE(man.find("\n.B 65\n"), std::string::npos);
  for (size_t begin = 0; begin < help.size();) {
    const size_t end = help.find('\n', begin);
    EXPECT_LE(end - begin, 80u) << help.substr(begin, end - begin);
    begin = end + 1;
  }
}

TEST(WritersTest, RoffKeepsLeadingDots) {
  Command c("x", "s", ".start\n\n'quote \\ back");
  const std::string man = man_page(c);
  EXPECT_NE(man.find("\n\\&.start\n"), std::string::npos) << man;
  EXPECT_NE(man.find("\n\\&'quote \\e back\n"), std::string::npos) << man;
}

TEST(ProgressTest, LineFitsAndCountsDown) {
  EXPECT_EQ(progress_line("epoch 1", 50, 100, 3, "loss 0.5", 100), "epoch 1 [==========          ] 50/100 loss 0.5, 3 s left");
  EXPECT_EQ(progress_line("e", 7, 0, 3, "", 100), "e 7");
  EXPECT_EQ(progress_line("epoch", 1, 2, 3, "", 10).size(), 10u);
}

}  // namespace
}  // namespace ds::cli
