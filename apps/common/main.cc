// Parsing and the life of a process: the only file that knows CLI11.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <new>

#include "apps/common/options.h"
#include "libds/base/file.h"
#include "libds/base/log.h"
#include "libds/base/parallel.h"

namespace ds::cli {
namespace {

std::string shown(const OptionSpec& spec) { return spec.positional ? spec.long_name : "--" + spec.long_name; }

void store(OptionSpec& spec, std::span<const std::string> values) {
  const std::string wrong = spec.assign(values);
  if (!wrong.empty()) usage_error("{}: {}", shown(spec), wrong);
  spec.given = true;
}

std::vector<std::string> long_names(const Command& command) {
  std::vector<std::string> names;
  for (const OptionSpec& spec : command.options())
    if (!spec.positional) names.push_back(spec.long_name);
  names.push_back("help");
  names.push_back("version");
  return names;
}

[[noreturn]] void reject_unknown(const Command& command, const std::string& word) {
  if (word.size() < 2 || word[0] != '-') usage_error("unexpected argument '{}'", word);
  const std::string name = word.substr(0, word.find('='));
  const std::vector<std::string> known = long_names(command);
  const std::string near = nearest_word(name.substr(std::min<size_t>(2, name.size())), known);
  if (name[1] == '-' && !near.empty()) usage_error("unknown option '{}', did you mean '--{}'?", name, near);
  usage_error("unknown option '{}'", name);
}

// One JSON value as the texts a command line would have held.
std::vector<std::string> config_values(const OptionSpec& spec, const nlohmann::json& value) {
  const auto text = [&](const nlohmann::json& v) -> std::string {
    if (v.is_string()) return v.get<std::string>();
    if (v.is_number() || v.is_boolean()) return v.dump();
    bad_data("'{}' must be a string, a number, true or false{}", spec.long_name, spec.list ? ", or an array of these" : "");
  };
  if (!value.is_array()) return {text(value)};
  if (!spec.list) bad_data("'{}' takes one value, not an array", spec.long_name);
  std::vector<std::string> texts;
  for (const nlohmann::json& item : value) texts.push_back(text(item));
  return texts;
}

// Options of the JSON file at `path` that the command line left alone.
void apply_config(Command& command, const std::string& path) {
  with_context([&] { return path; }, [&] {
    const nlohmann::json config = nlohmann::json::parse(read_file(path), nullptr, false);
    if (config.is_discarded()) bad_data("not valid JSON");
    if (!config.is_object()) bad_data("must hold one JSON object keyed by option name");
    for (const auto& [key, value] : config.items()) {
      OptionSpec* spec = nullptr;
      for (OptionSpec& candidate : command.options())
        if (candidate.long_name == key && !candidate.positional && key != "config") spec = &candidate;
      if (spec == nullptr) {
        const std::string near = nearest_word(key, long_names(command));
        usage_error("unknown option '{}'{}", key, near.empty() ? "" : ", did you mean '" + near + "'?");
      }
      if (spec->given) continue;
      const std::vector<std::string> values = config_values(*spec, value);
      if (!values.empty()) store(*spec, values);
    }
  });
}

void apply_common(Common& common, unsigned which) {
  if (which & kQuiet) set_quiet(common.quiet);
  if (which & kThreads) {
    if (common.threads == 0) common.threads = available_threads();
    set_num_threads(common.threads);
  }
  if (which & (kDevice | kPrecision | kThreads))
    try {
      common.target = map_device({common.device, !common.no_fallback, common.precision, common.threads, common.costs});
    } catch (const Error& e) {
      if (e.code() == ExitCode::kUsage) usage_error("{}", e.what());
      throw;
    }
}

// Splits `args` by the table; true when --help or --version was answered instead.
bool parse(Command& command, std::vector<std::string> args) {
  CLI::App app;
  app.set_help_flag("");
  app.allow_extras();
  bool help = false, version = false;
  app.add_flag("--help,-h", help);
  app.add_flag("--version", version);
  std::vector<std::pair<OptionSpec*, CLI::Option*>> rows;
  const auto keep = [](const CLI::results_t&) { return true; };  // values are taken from results() below
  for (OptionSpec& spec : command.options()) {
    std::string names = spec.positional ? spec.long_name : "--" + spec.long_name;
    if (spec.short_name) names += fmt::format(",-{}", spec.short_name);
    CLI::Option* option = spec.flag ? app.add_flag(names) : app.add_option(names, keep);
    if (spec.flag) option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    else if (spec.positional && spec.list) option->expected(1, 1 << 20)->allow_extra_args();
    else if (spec.positional) option->expected(1);  // a second one is an unexpected argument
    else option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    rows.emplace_back(&spec, option);
  }
  std::reverse(args.begin(), args.end());
  try {
    app.parse(args);
  } catch (const CLI::ArgumentMismatch& e) {
    // "--lr: 1 required FLOAT missing": in our own words, with the same option in front.
    const std::string text = e.what();
    usage_error("{}: needs a value", text.substr(0, text.find(':')));
  } catch (const CLI::ParseError& e) {
    usage_error("{}", e.what());
  }
  if (help) {
    const std::string text = help_text(command);
    std::fwrite(text.data(), 1, text.size(), stdout);
    return true;
  }
  if (version) {
    std::printf("%s %s\n", command.name().substr(0, command.name().find(' ')).c_str(), version_text().c_str());
    return true;
  }
  std::vector<std::string> extras = app.remaining();
  extras.erase(std::remove(extras.begin(), extras.end(), "--"), extras.end());  // the mark, not an argument
  for (const std::string& word : extras)
    if (word.size() > 1 && word[0] == '-') reject_unknown(command, word);  // the likelier mistake first
  if (!extras.empty()) reject_unknown(command, extras.front());
  for (const auto& [spec, option] : rows) {
    std::vector<std::string> values = option->results();
    if (spec->flag) {
      for (std::string& text : values) text = text == "1" ? "true" : text == "0" ? "false" : text;
    }
    if (!values.empty()) store(*spec, values);
  }
  if (Common* common = command.common_values()) {
    if ((command.common_flags() & kConfig) && !common->config.empty()) apply_config(command, common->config);
  }
  for (const OptionSpec& spec : command.options())
    if (spec.required && !spec.given) usage_error("{} is missing", shown(spec));
  if (Common* common = command.common_values()) apply_common(*common, command.common_flags());
  return false;
}

// Sub-command that `args` starts with, which is then removed; the command itself when there is none.
Command& pick(Command& command, std::vector<std::string>& args) {
  if (command.subcommands().empty() || args.empty()) return command;
  for (Command& sub : command.subcommands()) {
    if (sub.last_word() == args[0]) {
      args.erase(args.begin());
      return sub;
    }
  }
  if (!command.body() && args[0][0] != '-') {
    std::vector<std::string> words;
    for (const Command& sub : command.subcommands()) words.push_back(sub.last_word());
    const std::string near = nearest_word(args[0], words);
    usage_error("unknown command '{}'{}", args[0], near.empty() ? "" : ", did you mean '" + near + "'?");
  }
  return command;
}

// Messages are one line whatever they quote.
std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

int report(const std::string& name, ExitCode code, const std::string& message) {
  const std::string line = fmt::format("{}: {}\n", name, one_line(message));
  std::fflush(stdout);
  std::fwrite(line.data(), 1, line.size(), stderr);
  return static_cast<int>(code);
}

}  // namespace

std::string version_text() { return DS_VERSION; }

int run_command(Command& command, std::vector<std::string> args) {
  if (!args.empty() && (args[0] == "--dump-man" || args[0] == "--dump-completion")) {
    if (args[0] == "--dump-completion" && args.size() != 2) usage_error("--dump-completion: needs bash, zsh or fish");
    const std::string text = args[0] == "--dump-man" ? man_page(command) : completion_script(command, args[1]);
    std::fwrite(text.data(), 1, text.size(), stdout);
    return 0;
  }
  Command* chosen = &command;
  try {
    chosen = &pick(command, args);
    if (chosen->passthrough()) return chosen->passthrough()(std::move(args));
    if (parse(*chosen, std::move(args))) return 0;
    if (!chosen->body()) usage_error("a command is missing");
    if (chosen->ignores_sigpipe()) std::signal(SIGPIPE, SIG_IGN);  // not while help and pages are printed
    return chosen->body()(*chosen);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kUsage) throw;
    fail(ExitCode::kUsage, "{} (see {} --help)", error.what(), chosen->name());
  }
}

int run_main(int argc, char** argv, Command command) {
  std::signal(SIGPIPE, SIG_DFL);  // `| head` ends us quietly
  const std::string name = command.name();
  try {
    int code = run_command(command, std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
    if (std::fflush(stdout) != 0 || std::ferror(stdout))
      code = report(name, ExitCode::kIoError, fmt::format("standard output: {}", std::strerror(errno)));
    return code;
  } catch (const Error& error) {
    return report(name, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return report(name, ExitCode::kOsError, "out of memory");
  } catch (const std::exception& error) {
    return report(name, ExitCode::kInternal, fmt::format("internal error: {}", error.what()));
  }
}

}  // namespace ds::cli
