// The table, in plain text and in Markdown, and the comma-separated values.
#include <algorithm>

#include "libds/base/error.h"
#include "libds/tasks/bench/bench.h"
#include "libds/tasks/bench/row_text.h"

namespace ds::bench {
namespace {

using Table = std::vector<std::vector<std::string>>;

constexpr size_t kTopSteps = 15;

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (double x : values) sum += x;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

bool any_row(const BenchReport& report, auto&& test) { return std::any_of(report.rows.begin(), report.rows.end(), test); }

std::string interval_text(const Interval& interval) { return fmt::format("{}-{}", time_text(interval.low), time_text(interval.high)); }

std::string change_text(const RowReport& r) {
  if (!r.baseline) return "-";
  return fmt::format("{:+.1f} %{}", 100 * r.baseline->change, r.baseline->regressed ? " slower" : "");
}

// A table that begins with the settings of each row. `cells(i)` are the others of row i.
Table with_settings(const BenchReport& report, const std::vector<std::string>& headings, auto&& cells) {
  const SettingColumns settings = setting_columns(report);
  Table table{settings.headings};
  table[0].insert(table[0].end(), headings.begin(), headings.end());
  for (size_t i = 0; i < report.rows.size(); ++i) {
    std::vector<std::string> row = settings.cells[i];
    for (std::string& cell : cells(i)) row.push_back(std::move(cell));
    table.push_back(std::move(row));
  }
  return table;
}

Table times_table(const BenchReport& report) {
  const bool baseline = any_row(report, [](const RowReport& r) { return r.baseline.has_value(); });
  std::vector<std::string> headings{"p50", "95 % interval", "p90", "p95", "p99", "samples/s", "speed-up", "95 % interval"};
  if (baseline) headings.emplace_back("to baseline");
  return with_settings(report, headings, [&](size_t i) {
    const RowReport& r = report.rows[i];
    std::vector<std::string> cells{time_text(r.time.p50), interval_text(r.time.p50_interval), time_text(r.time.p90), time_text(r.time.p95),
                                   time_text(r.time.p99), rate_text(static_cast<double>(r.batch) / r.time.p50), fmt::format("{:.3f}x", r.ratio.speedup),
                                   i == 0 ? "reference" : fmt::format("{:.3f}-{:.3f}", r.ratio.low, r.ratio.high)};
    if (baseline) cells.push_back(change_text(r));
    return cells;
  });
}

Table preparation_table(const BenchReport& report) {
  return with_settings(report, {"min", "mean", "std dev", "load", "compile", "first run"}, [&](size_t i) {
    const RowReport& r = report.rows[i];
    return std::vector<std::string>{time_text(r.time.min), time_text(r.time.mean), time_text(r.time.stddev), time_text(r.load_seconds),
                                    time_text(r.compile_seconds), r.vary ? "-" : time_text(r.first_run_seconds)};
  });
}

Table sizes_table(const BenchReport& report) {
  const bool accuracy = any_row(report, [](const RowReport& r) { return r.top1.has_value(); });
  std::vector<std::string> headings{"type", "file", "parameters", "compute", "FLOP/s", "efficiency", "planned", "measured"};
  if (accuracy) headings.emplace_back("top-1");
  return with_settings(report, headings, [&](size_t i) {
    const RowReport& r = report.rows[i];
    const double zero = static_cast<double>(r.parameters - r.nonzero_parameters) / static_cast<double>(std::max<int64_t>(1, r.parameters));
    std::vector<std::string> cells{
        r.dtype, r.file_bytes > 0 ? scaled(static_cast<double>(r.file_bytes), "B") : "-",
        r.nonzero_parameters == r.parameters ? fmt::format("{}", r.parameters) : fmt::format("{} ({} zero)", r.parameters, percent_text(zero)),
        r.flops ? scaled(static_cast<double>(*r.flops), "FLOP") : "-", r.flops_per_second ? scaled(*r.flops_per_second, "FLOP/s") : "-",
        r.efficiency ? percent_text(*r.efficiency) : "-",
        r.vary ? "-" : r.planned ? scaled(static_cast<double>(r.planned_bytes), "B") : "eager",
        r.vary ? "-" : scaled(static_cast<double>(r.measured_bytes), "B")};
    if (accuracy) cells.push_back(r.top1 ? percent_text(*r.top1, 2) : "-");
    return cells;
  });
}

Table vary_table(const BenchReport& report) {
  return with_settings(report, {"sizes", "first run, mean", "repeated, mean", "returned to, mean", "first / repeated"}, [&](size_t i) {
    const VaryReport& v = *report.rows[i].vary;
    std::vector<std::string> ranges;
    for (size_t d = 0; d < v.dims.size(); ++d) ranges.push_back(fmt::format("{}:{}-{}", v.dims[d], v.sizes[d].front(), v.sizes[d].back()));
    return std::vector<std::string>{fmt::format("{} ({})", v.sizes[0].size(), fmt::join(ranges, " ")), time_text(mean(v.first_seconds)),
                                    time_text(mean(v.repeat_seconds)), time_text(mean(v.return_seconds)),
                                    fmt::format("{:.3g}x", mean(v.first_seconds) / mean(v.repeat_seconds))};
  });
}

std::string rate(int64_t amount, double seconds, const char* unit) {
  return amount > 0 && seconds > 0 ? scaled(static_cast<double>(amount) / seconds, unit) : "-";
}

Table ops_table(const Profile& profile) {
  Table table{{"operator", "kernels", "nodes", "total", "per run", "share", "FLOP/s", "B/s", "of roofline"}};
  for (const ProfileOp& op : profile.ops)
    table.push_back({op.op, fmt::format("{}", fmt::join(op.kernels, ", ")), fmt::format("{}", op.nodes), time_text(op.seconds * static_cast<double>(profile.runs)),
                     time_text(op.seconds), percent_text(op.seconds / profile.seconds), rate(op.flops, op.seconds, "FLOP/s"),
                     rate(op.bytes, op.seconds, "B/s"), percent_text(op.roofline(), 0)});
  return table;
}

Table steps_table(const Profile& profile) {
  Table table{{"node", "operator", "type", "kernel", "total", "per run", "share", "FLOP/s", "B/s", "of roofline"}};
  for (size_t i = 0; i < std::min(kTopSteps, profile.steps.size()); ++i) {
    const ProfileStep& s = profile.steps[i];
    const std::string node = s.part < 0 ? s.node : fmt::format("{} (part {})", s.node, s.part);
    table.push_back({node, s.op, std::string(dtype_name(s.dtype)), s.kernel, time_text(s.seconds * static_cast<double>(profile.runs)), time_text(s.seconds),
                     percent_text(s.seconds / profile.seconds), rate(s.flops, s.seconds, "FLOP/s"), rate(s.bytes, s.seconds, "B/s"),
                     percent_text(s.roofline(), 0)});
  }
  return table;
}

std::string headline(const BenchReport& report) {
  const RowReport& first = report.rows[0];
  const bool threads = any_row(report, [&](const RowReport& r) { return r.settings.threads != first.settings.threads; });
  const bool shapes = any_row(report, [&](const RowReport& r) { return r.inputs != first.inputs; });
  std::vector<std::string> parts;
  if (!threads) parts.push_back(first.settings.threads == 1 ? "1 thread used" : fmt::format("{} threads used", first.settings.threads));
  parts.push_back(first.vary ? fmt::format("{} sizes, each row in turn", report.rounds) : fmt::format("{} rounds, interleaved", report.rounds));
  std::vector<std::string> inputs;
  if (!shapes && !first.vary)
    for (const auto& [name, shape] : first.inputs) inputs.push_back(fmt::format("{}:{}", name, shape_string(shape)));
  if (!inputs.empty()) parts.push_back(fmt::format("{}", fmt::join(inputs, " ")));
  if (report.costs) parts.push_back(report.costs->text());
  parts.push_back(report.random_inputs ? "random inputs" : "inputs from " + report.data);
  return fmt::format("{}; {}", report.cpu, fmt::join(parts, "; "));
}

// The same text as plain columns or as Markdown.
std::string tables(const BenchReport& report, bool markdown, bool profile) {
  constexpr size_t left = 1;
  const auto table = [&](const Table& rows, size_t text_columns) { return markdown ? markdown_table(rows, text_columns) : plain_table(rows, text_columns); };
  const auto title = [&](const std::string& text) { return (markdown ? "### " + text : text) + (markdown ? "\n\n" : "\n"); };
  std::string out = headline(report) + "\n\n";
  out += table(times_table(report), left) + "\n";
  if (report.rows[0].vary) out += table(vary_table(report), left) + "\n";
  out += table(preparation_table(report), left) + "\n" + table(sizes_table(report), left);
  const RowReport& first = report.rows[0];
  if (first.top1) out += fmt::format("{}top-1 over {} samples\n", markdown ? "\n" : "", first.samples);
  if (!profile) return out;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const RowReport& r = report.rows[i];
    out += "\n" + title(fmt::format("{}: profile", short_label(report, i)));
    if (!r.profile) {
      out += "none: no step ran\n";
      continue;
    }
    const Peaks& peaks = report.peaks_of(r.settings.threads);
    std::string bounds = fmt::format("{} a run in {} steps, mean of {} runs; roofline of {} f32", time_text(r.profile->seconds), r.profile->steps.size(),
                                     r.profile->runs, scaled(peaks.f32, "FLOP/s"));
    if (peaks.i8 > 0) bounds += fmt::format(", {} i8", scaled(peaks.i8, "op/s"));
    if (peaks.f16 > 0) bounds += fmt::format(", {} f16", scaled(peaks.f16, "FLOP/s"));
    if (peaks.bf16 > 0) bounds += fmt::format(", {} bf16", scaled(peaks.bf16, "FLOP/s"));
    out += fmt::format("{} and {} from memory\n\n", bounds, scaled(peaks.bandwidth, "B/s"));
    out += table(ops_table(*r.profile), 2) + "\n";
    if (r.profile->steps.size() > kTopSteps) out += fmt::format("the {} steps that take longest\n{}", kTopSteps, markdown ? "\n" : "");
    out += table(steps_table(*r.profile), 4);
  }
  return out;
}

std::string number(double x) { return fmt::format("{:.9g}", x); }

std::string csv(const BenchReport& report) {
  const bool vary = report.rows[0].vary.has_value();
  std::vector<std::string> headings{"model", "precision", "threads", "batch", "inputs", "rounds", "p50_seconds", "p50_low_seconds", "p50_high_seconds",
                                    "p90_seconds", "p95_seconds", "p99_seconds", "min_seconds", "mean_seconds", "stddev_seconds", "samples_per_second",
                                    "speedup", "speedup_low", "speedup_high", "load_seconds", "compile_seconds", "first_run_seconds", "flops",
                                    "flops_per_second", "efficiency", "file_bytes", "parameters", "nonzero_parameters", "planned_bytes",
                                    "measured_bytes", "top1", "loss", "baseline_change"};
  if (vary) headings.insert(headings.end(), {"first_mean_seconds", "repeat_mean_seconds", "return_mean_seconds"});
  std::string out = csv_line(headings);
  const auto maybe = [](const auto& value) { return value ? number(static_cast<double>(*value)) : std::string(); };
  for (const RowReport& r : report.rows) {
    std::vector<std::string> inputs;
    for (const auto& [name, shape] : r.inputs) inputs.push_back(fmt::format("{}:{}", name, shape_string(shape)));
    std::vector<std::string> fields{r.settings.model, r.settings.precision, fmt::format("{}", r.settings.threads), fmt::format("{}", r.batch),
                                    fmt::format("{}", fmt::join(inputs, " ")), fmt::format("{}", report.rounds), number(r.time.p50),
                                    number(r.time.p50_interval.low), number(r.time.p50_interval.high), number(r.time.p90), number(r.time.p95),
                                    number(r.time.p99), number(r.time.min), number(r.time.mean), number(r.time.stddev),
                                    number(static_cast<double>(r.batch) / r.time.p50), number(r.ratio.speedup), number(r.ratio.low),
                                    number(r.ratio.high), number(r.load_seconds), number(r.compile_seconds), r.vary ? "" : number(r.first_run_seconds),
                                    r.flops ? fmt::format("{}", *r.flops) : "", maybe(r.flops_per_second), maybe(r.efficiency),
                                    r.file_bytes > 0 ? fmt::format("{}", r.file_bytes) : "", fmt::format("{}", r.parameters),
                                    fmt::format("{}", r.nonzero_parameters), r.planned && !r.vary ? fmt::format("{}", r.planned_bytes) : "",
                                    r.vary ? "" : fmt::format("{}", r.measured_bytes), maybe(r.top1), maybe(r.loss),
                                    r.baseline ? number(r.baseline->change) : ""};
    if (vary) fields.insert(fields.end(), {number(mean(r.vary->first_seconds)), number(mean(r.vary->repeat_seconds)), number(mean(r.vary->return_seconds))});
    out += csv_line(fields);
  }
  return out;
}

}  // namespace

std::string bench_output(const BenchReport& report, Format format, bool profile) {
  switch (format) {
    case Format::kTable: return tables(report, false, profile);
    case Format::kMarkdown: return tables(report, true, profile);
    case Format::kCsv: return csv(report);
    case Format::kJson: return bench_json(report);
  }
  DS_CHECK(!"a format that is none");
  return {};
}

}  // namespace ds::bench
