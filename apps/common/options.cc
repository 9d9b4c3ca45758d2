#include "apps/common/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace ds::cli {
namespace {

// Text to number, whole text or nothing.
template <typename T>
bool parse_number(std::string_view text, T& value) {
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  if (text.empty()) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  if constexpr (std::is_floating_point_v<T>) return std::isfinite(value);
  return true;
}

template <typename T>
const char* number_kind() {
  if constexpr (std::is_floating_point_v<T>) return "a number";
  else if constexpr (std::is_unsigned_v<T>) return "a whole number, 0 or above";
  else return "a whole number";
}

std::string range_text(const OptionSpec& spec) {
  if (spec.min && spec.max) return fmt::format("between {:g} and {:g}", *spec.min, *spec.max);
  if (spec.min) return fmt::format("at least {:g}", *spec.min);
  return fmt::format("at most {:g}", *spec.max);
}

// Parses one number within the row's range; returns what is wrong.
template <typename T>
std::string read_number(const OptionSpec& spec, const std::string& text, T& value) {
  T parsed{};
  if (!parse_number(text, parsed)) return fmt::format("'{}' is not {}", text, number_kind<T>());
  const double as_double = static_cast<double>(parsed);
  if ((spec.min && as_double < *spec.min) || (spec.max && as_double > *spec.max))
    return fmt::format("{} is out of range: must be {}", text, range_text(spec));
  value = parsed;
  return {};
}

template <typename T>
auto number_store(OptionSpec& spec, T* value) {
  return [&spec, value](std::span<const std::string> given) { return read_number(spec, given.back(), *value); };
}

template <typename T>
auto optional_number_store(OptionSpec& spec, std::optional<T>* value) {
  return [&spec, value](std::span<const std::string> given) {
    T parsed{};
    std::string wrong = read_number(spec, given.back(), parsed);
    if (wrong.empty()) *value = parsed;
    return wrong;
  };
}

template <typename T>
auto number_list_store(OptionSpec& spec, std::vector<T>* values) {
  return [&spec, values](std::span<const std::string> given) {
    std::vector<T> parsed;
    for (const std::string& text : given) {
      for (size_t begin = 0; begin <= text.size();) {
        const size_t end = std::min(text.find(',', begin), text.size());
        T value{};
        if (std::string wrong = read_number(spec, text.substr(begin, end - begin), value); !wrong.empty()) return wrong;
        parsed.push_back(value);
        begin = end + 1;
      }
    }
    *values = std::move(parsed);
    return std::string();
  };
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j - 1] + 1, above + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

OptionRef& OptionRef::range(double min, double max) {
  spec_->min = min;
  spec_->max = max;
  return *this;
}

OptionRef& OptionRef::min(double min) {
  spec_->min = min;
  return *this;
}

Command::Command(std::string name, std::string summary, std::string description)
    : name_(std::move(name)), summary_(std::move(summary)), description_(std::move(description)) {
  exit_statuses_ = {
      {ExitCode::kOk, "Done."},
      {ExitCode::kUsage, "Wrong flags or arguments."},
      {ExitCode::kBadData, "The model or the data is malformed."},
      {ExitCode::kNoInput, "An input file is missing or cannot be read."},
      {ExitCode::kUnsupported, "An operator, device or feature is not available."},
      {ExitCode::kInternal, "An internal error: please report it."},
      {ExitCode::kOsError, "Out of memory, or the operating system refused a request."},
      {ExitCode::kCantCreate, "An output file cannot be created."},
      {ExitCode::kIoError, "An output cannot be written."},
  };
}

Command& Command::subcommand(const std::string& name, std::string summary, std::string description) {
  return subcommands_.emplace_back(name_ + " " + name, std::move(summary), std::move(description));
}

OptionSpec& Command::add(std::string_view names, std::string value_name, std::string help) {
  OptionSpec spec;
  const size_t comma = names.find(',');
  const std::string_view long_part = names.substr(0, comma);
  DS_CHECK(long_part.size() > 2 && long_part.substr(0, 2) == "--");
  spec.long_name = long_part.substr(2);
  if (comma != std::string_view::npos) {
    DS_CHECK(names.size() == comma + 3 && names[comma + 1] == '-');
    spec.short_name = names[comma + 2];
  }
  for (const OptionSpec& other : options_)
    DS_CHECK(other.long_name != spec.long_name && (spec.short_name == 0 || other.short_name != spec.short_name));
  spec.value_name = std::move(value_name);
  spec.help = std::move(help);
  spec.group = group_;
  return options_.emplace_back(std::move(spec));
}

OptionRef Command::positional(std::string name, std::string* value, std::string help) {
  OptionSpec& spec = options_.emplace_back();
  spec.long_name = std::move(name);
  spec.help = std::move(help);
  spec.group = "Arguments";
  spec.positional = spec.required = true;
  spec.assign = [value](std::span<const std::string> given) { *value = given.back(); return std::string(); };
  return OptionRef(spec);
}

OptionRef Command::positional(std::string name, std::vector<std::string>* values, std::string help) {
  OptionRef ref = positional(std::move(name), static_cast<std::string*>(nullptr), std::move(help));
  OptionSpec& spec = options_.back();
  spec.list = true;
  spec.assign = [values](std::span<const std::string> given) {
    values->assign(given.begin(), given.end());
    return std::string();
  };
  return ref;
}

OptionRef Command::option(std::string_view names, std::string* value, std::string value_name, std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  spec.default_text = *value;
  spec.assign = [value](std::span<const std::string> given) { *value = given.back(); return std::string(); };
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, int* value, std::string value_name, std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  spec.default_text = std::to_string(*value);
  spec.assign = number_store(spec, value);
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, int64_t* value, std::string value_name, std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  spec.default_text = std::to_string(*value);
  spec.assign = number_store(spec, value);
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, uint64_t* value, std::string value_name, std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  spec.default_text = std::to_string(*value);
  spec.assign = number_store(spec, value);
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, double* value, std::string value_name, std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  spec.default_text = fmt::format("{:g}", *value);
  spec.assign = number_store(spec, value);
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, std::optional<std::string>* value, std::string value_name,
                          std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  if (*value) spec.default_text = **value;
  spec.assign = [value](std::span<const std::string> given) { *value = given.back(); return std::string(); };
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, std::optional<int64_t>* value, std::string value_name,
                          std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  if (*value) spec.default_text = std::to_string(**value);
  spec.assign = optional_number_store(spec, value);
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, std::optional<double>* value, std::string value_name,
                          std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  if (*value) spec.default_text = fmt::format("{:g}", **value);
  spec.assign = optional_number_store(spec, value);
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, std::vector<std::string>* value, std::string value_name,
                          std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  spec.list = true;
  spec.default_text = fmt::format("{}", fmt::join(*value, ", "));
  spec.assign = [value](std::span<const std::string> given) {
    value->assign(given.begin(), given.end());
    return std::string();
  };
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, std::vector<int64_t>* value, std::string value_name,
                          std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  spec.list = true;
  spec.default_text = fmt::format("{}", fmt::join(*value, ","));
  spec.assign = number_list_store(spec, value);
  return OptionRef(spec);
}

OptionRef Command::option(std::string_view names, std::vector<double>* value, std::string value_name,
                          std::string help) {
  OptionSpec& spec = add(names, std::move(value_name), std::move(help));
  spec.list = true;
  spec.default_text = fmt::format("{}", fmt::join(*value, ","));
  spec.assign = number_list_store(spec, value);
  return OptionRef(spec);
}

OptionRef Command::flag(std::string_view names, bool* value, std::string help) {
  OptionSpec& spec = add(names, "", std::move(help));
  spec.flag = true;
  spec.assign = [value](std::span<const std::string> given) -> std::string {
    if (given.back() != "true" && given.back() != "false") return fmt::format("'{}' is neither true nor false", given.back());
    *value = given.back() == "true";
    return {};
  };
  return OptionRef(spec);
}

OptionRef Command::choice(std::string_view names, std::string* value, std::vector<std::string> words, std::string help) {
  OptionSpec& spec = add(names, fmt::format("{}", fmt::join(words, "|")), std::move(help));
  spec.default_text = *value;
  spec.choices = std::move(words);
  spec.assign = [&spec, value](std::span<const std::string> given) -> std::string {
    if (std::find(spec.choices.begin(), spec.choices.end(), given.back()) == spec.choices.end())
      return fmt::format("'{}' is not one of {}", given.back(), fmt::join(spec.choices, ", "));
    *value = given.back();
    return {};
  };
  return OptionRef(spec);
}

OptionRef Command::choices(std::string_view names, std::vector<std::string>* values, std::vector<std::string> words, std::string help) {
  OptionSpec& spec = add(names, fmt::format("{},...", fmt::join(words, "|")), std::move(help));
  spec.list = true;
  spec.default_text = fmt::format("{}", fmt::join(*values, ","));
  spec.choices = std::move(words);
  spec.assign = [&spec, values](std::span<const std::string> given) -> std::string {
    std::vector<std::string> chosen;
    for (const std::string& text : given) {
      for (size_t begin = 0; begin <= text.size();) {
        const size_t end = std::min(text.find(',', begin), text.size());
        chosen.push_back(text.substr(begin, end - begin));
        if (std::find(spec.choices.begin(), spec.choices.end(), chosen.back()) == spec.choices.end())
          return fmt::format("'{}' is not one of {}", chosen.back(), fmt::join(spec.choices, ", "));
        begin = end + 1;
      }
    }
    *values = std::move(chosen);
    return {};
  };
  return OptionRef(spec);
}

void Command::common(Common* values, unsigned which) {
  common_ = values;
  common_flags_ = which;
  const std::string group = std::exchange(group_, "Common options");
  if (which & kSeed) option("--seed", &values->seed, "N", "seed of every random choice");
  if (which & kThreads)
    option("--threads", &values->threads, "N", "CPU threads to use").range(0, 1024).default_text("all");
  if (which & kDevice) {
    option("--device", &values->device, "auto|cpu|cuda:N", "where to compute; the CPU takes over from a device that is not there");
    flag("--no-fallback", &values->no_fallback, "fail when the device is not there");
  }
  if (which & kPrecision)
    choice("--precision", &values->precision, precision_names(), kPrecisionHelp);
  if (which & kCosts) option("--costs", &values->costs, "FILE", kCostsHelp).file();
  if (which & kJson) flag("--json", &values->json, "print the result as JSON");
  if (which & kDryRun) flag("--dry-run", &values->dry_run, "check everything and say what would be done, write nothing");
  if (which & kExternalData)
    flag("--external-data", &values->external_data, "write the weights to OUTPUT.data beside the model, as is always done above 2 GiB");
  if (which & kQuiet) flag("--quiet,-q", &values->quiet, "print errors only");
  if (which & kConfig)
    option("--config", &values->config, "FILE", "JSON file of options keyed by long name; flags override it").file();
  group_ = group;
}

void Command::example(std::string command, std::string explanation) {
  examples_.emplace_back(std::move(command), std::move(explanation));
}

void Command::exit_status(ExitCode code, std::string meaning) {
  const auto at = std::lower_bound(exit_statuses_.begin(), exit_statuses_.end(), code,
                                   [](const auto& row, ExitCode c) { return row.first < c; });
  if (at != exit_statuses_.end() && at->first == code) at->second = std::move(meaning);
  else exit_statuses_.insert(at, {code, std::move(meaning)});
}

bool Command::given(std::string_view long_name) const {
  if (long_name.substr(0, 2) == "--") long_name.remove_prefix(2);
  for (const OptionSpec& spec : options_)
    if (spec.long_name == long_name) return spec.given;
  DS_CHECK(!"given() asked about an option that is not declared");
  return false;
}

std::string nearest_word(std::string_view word, std::span<const std::string> known) {
  std::string best;
  size_t best_distance = (word.size() <= 3 ? 1 : std::max<size_t>(2, word.size() / 3)) + 1;
  for (const std::string& candidate : known) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) best_distance = distance, best = candidate;
  }
  if (!best.empty()) return best;
  for (const std::string& candidate : known)  // an abbreviation
    if (word.size() >= 2 && candidate.compare(0, word.size(), word) == 0) return candidate;
  return best;
}

}  // namespace ds::cli
