#include "libds/tasks/bench/baseline.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libds/base/error.h"
#include "libds/base/file.h"
#include "libds/tasks/bench/row_text.h"

namespace ds::bench {
namespace {

using Json = nlohmann::json;

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

BaselineRow read_row(const Json& j) {
  BaselineRow row;
  row.model = j.at("model").get<std::string>();
  row.precision = j.at("precision").get<std::string>();
  row.threads = j.at("threads").get<int>();
  for (const Json& input : j.at("inputs")) row.inputs.emplace_back(input.at("name").get<std::string>(), input.at("shape").get<Shape>());
  row.varied = !j.at("vary").is_null();
  const Json& times = j.at("latency_seconds");
  row.p50 = times.at("p50").get<double>();
  row.p50_interval = {times.at("p50_low").get<double>(), times.at("p50_high").get<double>()};
  if (!(row.p50 > 0)) bad_data("the median of {} is not above 0", row.model);
  return row;
}

bool same_settings(const BaselineRow& old, const RowReport& now) {
  return old.precision == now.settings.precision && old.threads == now.settings.threads && old.inputs == now.inputs &&
         old.varied == now.vary.has_value();
}

const BaselineRow* find_row(const Baseline& baseline, const BenchReport& report, const RowReport& now) {
  for (const BaselineRow& old : baseline.rows)
    if (old.model == now.settings.model && same_settings(old, now)) return &old;
  // Built in another folder: the file name will do where it is nobody else's.
  const std::string name = file_name(now.settings.model);
  for (const RowReport& other : report.rows)
    if (other.settings.model != now.settings.model && file_name(other.settings.model) == name) return nullptr;
  const BaselineRow* found = nullptr;
  for (const BaselineRow& old : baseline.rows) {
    if (file_name(old.model) != name || !same_settings(old, now)) continue;
    if (found != nullptr && found->model != old.model) return nullptr;
    if (found == nullptr) found = &old;
  }
  return found;
}

}  // namespace

Baseline read_baseline(const std::string& path) {
  Baseline baseline;
  baseline.path = path;
  const std::string text = read_file(path);
  with_context([&] { return path; }, [&] {
    const Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded()) bad_data("not valid JSON");
    if (!json.is_object() || json.value("schema", Json()) != Json(kSchema))
      bad_data("no result of ds-bench --format json ('schema' is not \"{}\")", kSchema);
    try {
      baseline.cpu = json.at("cpu").get<std::string>();
      baseline.static_plan = json.at("static_plan").get<bool>();
      for (const Json& row : json.at("rows")) baseline.rows.push_back(read_row(row));
    } catch (const Json::exception& e) {
      bad_data("no result of ds-bench --format json: {}", e.what());
    }
  });
  return baseline;
}

std::vector<std::string> compare_with_baseline(BenchReport& report, const Baseline& baseline, double limit) {
  std::vector<std::string> warnings;
  if (baseline.cpu != report.cpu)
    warnings.push_back(fmt::format("{} was measured on another machine: {}; this one is {}", baseline.path, baseline.cpu, report.cpu));
  if (baseline.static_plan != report.static_plan)
    warnings.push_back(fmt::format("{} was measured {} --no-static", baseline.path, baseline.static_plan ? "without" : "with"));
  for (RowReport& r : report.rows) {
    const BaselineRow* old = find_row(baseline, report, r);
    if (old == nullptr) {
      warnings.push_back(fmt::format("{}: not in {}, so not compared", row_label(r), baseline.path));
      continue;
    }
    BaselineChange change;
    change.p50 = old->p50;
    change.change = r.time.p50 / old->p50 - 1;
    change.regressed = change.change > limit && r.time.p50_interval.low > old->p50_interval.high;
    r.baseline = change;
  }
  return warnings;
}

std::vector<std::string> regressions(const BenchReport& report, const Baseline& baseline, double limit) {
  std::vector<std::string> lines;
  for (const RowReport& r : report.rows)
    if (r.baseline && r.baseline->regressed)
      lines.push_back(fmt::format("{}: slower than {}: median {} was {}, +{:.1f} % is more than {:g} %", row_label(r), baseline.path,
                                  time_text(r.time.p50), time_text(r.baseline->p50), 100 * r.baseline->change, 100 * limit));
  return lines;
}

double parse_percent(const std::string& text, const std::string& option) {
  std::string_view number = text;
  if (!number.empty() && number.back() == '%') number.remove_suffix(1);
  while (!number.empty() && number.back() == ' ') number.remove_suffix(1);
  double value = 0;
  const auto [stop, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (number.empty() || error != std::errc() || stop != number.data() + number.size() || !std::isfinite(value) || value < 0)
    fail(ExitCode::kUsage, "{}: '{}' is no percentage, such as 5%", option, text);
  return value / 100;
}

}  // namespace ds::bench
