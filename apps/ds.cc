// ds: `ds train ...` becomes `ds-train ...`, the program found beside this one.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "apps/common/options.h"

namespace {

struct Entry {
  const char* word;
  const char* summary;
};

constexpr Entry kEntries[] = {
    {"train", "train or fine-tune a model, or make a fresh one"},
    {"prune", "zero weights or remove channels"},
    {"quantize", "convert to 8-bit integer arithmetic"},
    {"bench", "run, verify, inspect and time models"},
    {"serve", "answer inference requests over HTTP"},
};

std::string program_of(const std::string& word) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) ds::fail(ds::ExitCode::kOsError, "/proc/self/exe: {}", error.message());
  return self.parent_path() / ("ds-" + word);
}

// Does not return unless the program cannot be started.
int start(const std::string& word, std::vector<std::string> args) {
  std::string program = program_of(word);
  std::vector<char*> argv{program.data()};
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  const auto code = errno == ENOENT ? ds::ExitCode::kUnsupported : ds::ExitCode::kOsError;
  ds::fail(code, "{}: {}", program, std::strerror(errno));
}

ds::cli::Command make_command() {
  ds::cli::Command c("ds", "train, prune, quantize, benchmark and serve ONNX models",
                     "ds is a native toolkit for ONNX models. Every command is a program of its own: `ds train` runs "
                     "ds-train, which is found beside ds; any other program ds-NAME there becomes `ds NAME`.\n\n"
                     "Models travel as plain ONNX files between the commands, and `-` is standard input or output, so "
                     "that they can be joined by pipes.");
  for (const Entry& entry : kEntries) {
    const std::string word = entry.word;
    c.subcommand(word, entry.summary).passthrough([word](std::vector<std::string> args) { return start(word, args); });
  }
  c.example("ds train init.onnx --data digits.npz -o trained.onnx", "Train a model");
  c.example("ds prune trained.onnx --target-sparsity 0.7 -o - | ds quantize - --calibration-data digits.npz -o int8.onnx",
            "Prune, then quantize, through a pipe");
  return c;
}

// A program ds-WORD of somebody else's, beside this one.
bool is_foreign(const std::string& word) {
  if (word.empty() || word[0] == '-' || word.find('/') != std::string::npos) return false;
  for (const Entry& entry : kEntries)
    if (word == entry.word) return false;
  return access(program_of(word).c_str(), X_OK) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  ds::cli::Command command = make_command();
  if (argc > 1 && is_foreign(argv[1])) {
    const std::string word = argv[1];
    command.subcommand(word, "").passthrough([word](std::vector<std::string> args) { return start(word, args); });
  }
  return ds::cli::run_main(argc, argv, std::move(command));
}
