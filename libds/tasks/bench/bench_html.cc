// The page: results, distributions, and for profiled rows the roofline and where the time goes. Follows the
// reader's preference for light or dark. No scripts and nothing from elsewhere.
#include <algorithm>

#include "libds/base/html_text.h"
#include "libds/tasks/bench/bench.h"
#include "libds/tasks/bench/charts.h"
#include "libds/tasks/bench/row_text.h"

namespace ds::bench {
namespace {

const char* const kStyle = R"css(
:root{color-scheme:light dark;
--bg:#f5f6f8;--card:#fff;--ink:#1a2130;--mut:#667085;--line:#e2e6ec;--axis:#8a94a3;--acc:#2458d3;--soft:#a9c0f2;--bad:#c62828;--badbg:#fdecec;--good:#22753a;
--c0:#2f6fde;--c1:#d1622b;--c2:#0d8a8a;--c3:#7a4fd0;--c4:#3c8d40;--c5:#b83b8a;--c6:#b0791b;--c7:#4a6785;--rest:#98a1ae}
@media (prefers-color-scheme:dark){:root{
--bg:#0e1116;--card:#161b22;--ink:#e6eaf0;--mut:#94a0b0;--line:#2b323c;--axis:#6c7786;--acc:#79a8ff;--soft:#2f4d86;--bad:#ff8a80;--badbg:#3a1b1d;--good:#7cc580;
--c0:#6ba1ff;--c1:#f0935f;--c2:#4cc3c3;--c3:#b094f5;--c4:#7cc580;--c5:#e87dbd;--c6:#e0b055;--c7:#8fb0d0;--rest:#6f7a88}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",Arial,sans-serif}
main{max-width:1400px;margin:0 auto;padding:24px 24px 64px}
h1{font-size:24px;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:16px;margin:36px 0 12px}
h3{font-size:14px;margin:0;overflow-wrap:anywhere}
.sub{color:var(--mut);margin:4px 0 20px}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:12.5px;overflow-wrap:anywhere}
.panel{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;margin:0 0 16px}
.panel.flush{padding:0;overflow-x:auto}
.note{border-radius:8px;padding:9px 14px;margin:12px 0 0;background:var(--badbg);color:var(--bad)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:0 16px;align-items:start}
.hint{color:var(--mut);font-size:12.5px;margin:2px 0 8px}
.flush code{overflow-wrap:normal;white-space:nowrap}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
th{font-size:12px;color:var(--mut);font-weight:600;white-space:nowrap}
td:first-child{min-width:150px}
th.n,td.n{text-align:right;white-space:nowrap}
.slow{color:var(--bad);font-weight:600}
svg.chart{display:block;width:100%;height:auto;max-width:680px;margin:0 auto}
svg .t{font-size:12px;fill:var(--mut)}
svg .grid{stroke:var(--line);stroke-width:1}
svg .axis{stroke:var(--axis);stroke-width:1}
svg .bar{fill:var(--soft)}svg .bar.tail{fill:var(--rest)}
svg .ecdf{fill:none;stroke:var(--acc);stroke-width:1.6}
svg .p50{stroke:var(--good);stroke-width:1.6}svg .p99{stroke:var(--bad);stroke-width:1.6;stroke-dasharray:5 3}
svg .roof{fill:none;stroke:var(--ink);stroke-width:1.8}svg .roof.i8{stroke-dasharray:7 4}
svg .dot{fill-opacity:.6;stroke:var(--card);stroke-width:.8}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0 0;padding:0;list-style:none;font-size:12.5px;color:var(--mut)}
.legend i{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:7px}
.legend i.l{width:22px;height:0;border-radius:0;border-top:2px solid;vertical-align:middle}
.legend i.d{border-top-style:dashed}
.ops{display:grid;grid-template-columns:minmax(90px,auto) minmax(80px,1fr) auto auto;gap:6px 12px;align-items:center;font-variant-numeric:tabular-nums}
.ops span{overflow-wrap:anywhere}.ops .n{text-align:right;color:var(--mut);white-space:nowrap}
.track{height:14px;border-radius:4px;background:var(--line);position:relative;overflow:hidden}
.track b,.track u{position:absolute;left:0;top:0;bottom:0;border-radius:4px}
.track b{opacity:.45}
footer{margin-top:40px;color:var(--mut);font-size:12.5px}
)css";

std::string table(const std::vector<std::string>& headings, const std::vector<std::vector<std::string>>& rows, size_t left) {
  std::string html = "<div class=\"panel flush\"><table><thead><tr>";
  for (size_t i = 0; i < headings.size(); ++i) html += fmt::format("<th scope=\"col\"{}>{}</th>", i < left ? "" : " class=\"n\"", html_escaped(headings[i]));
  html += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    html += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) html += fmt::format("<td{}>{}</td>", i < left ? "" : " class=\"n\"", row[i]);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string results(const BenchReport& report) {
  const bool baseline = std::any_of(report.rows.begin(), report.rows.end(), [](const RowReport& r) { return r.baseline.has_value(); });
  std::vector<std::string> headings{"Row", "p50", "p95", "p99", "Std dev", "Samples/s", "Speed-up", "FLOP/s", "Of peak", "Load", "Compile", "First run", "Planned", "Measured"};
  if (baseline) headings.emplace_back("To baseline");
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const RowReport& r = report.rows[i];
    std::vector<std::string> cells{
        html_escaped(short_label(report, i)), time_text(r.time.p50), time_text(r.time.p95), time_text(r.time.p99), time_text(r.time.stddev),
        rate_text(static_cast<double>(r.batch) / r.time.p50),
        i == 0 ? "reference" : fmt::format("<span title=\"95 % interval {:.3f} to {:.3f}\">{:.3f}x</span>", r.ratio.low, r.ratio.high, r.ratio.speedup),
        r.flops_per_second ? scaled(*r.flops_per_second, "FLOP/s") : "-", r.efficiency ? percent_text(*r.efficiency) : "-", time_text(r.load_seconds),
        time_text(r.compile_seconds), r.vary ? "-" : time_text(r.first_run_seconds),
        r.vary ? "-" : r.planned ? scaled(static_cast<double>(r.planned_bytes), "B") : "eager",
        r.vary ? "-" : scaled(static_cast<double>(r.measured_bytes), "B")};
    if (baseline)
      cells.push_back(!r.baseline ? "-" : fmt::format("<span class=\"{}\">{:+.1f} %</span>", r.baseline->regressed ? "slow" : "", 100 * r.baseline->change));
    rows.push_back(std::move(cells));
  }
  return "<section><h2>Results</h2>\n" + table(headings, rows, 1) + "</section>\n";
}

std::string distributions(const BenchReport& report) {
  std::string html = "<section><h2>Distribution of times</h2>\n<div class=\"grid\">\n";
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const RowReport& r = report.rows[i];
    html += fmt::format("<div class=\"panel\"><h3>{}</h3><p class=\"hint\">{} runs: p50 {} (95 % interval {} to {}), p95 {}, p99 {}, longest {}</p>\n",
                        html_escaped(short_label(report, i)), r.seconds.size(), time_text(r.time.p50), time_text(r.time.p50_interval.low),
                        time_text(r.time.p50_interval.high), time_text(r.time.p95), time_text(r.time.p99), time_text(r.time.max));
    html += distribution_chart(r) + "</div>\n";
  }
  return html +
         "</div>\n<ul class=\"legend\"><li><i style=\"background:var(--soft)\"></i>runs (left scale)</li><li><i class=\"l\" style=\"color:var(--acc)\"></i>part "
         "of all runs that took at most this long (right scale)</li><li><i class=\"l\" style=\"color:var(--good)\"></i>p50</li><li><i class=\"l d\" "
         "style=\"color:var(--bad)\"></i>p99</li><li><i style=\"background:var(--rest)\"></i>all longer runs</li></ul></section>\n";
}

// The operators that take longest have colours of their own.
std::string colour_of(const Profile& profile, const std::string& op) {
  for (size_t i = 0; i < std::min<size_t>(8, profile.ops.size()); ++i)
    if (profile.ops[i].op == op) return fmt::format("var(--c{})", i);
  return "var(--rest)";
}

std::string roofline_panel(const RowReport& r, const Peaks& peaks) {
  const Profile& p = *r.profile;
  int64_t left_out = 0;
  double left_out_seconds = 0;
  for (const ProfileStep& s : p.steps) {
    if (s.flops > 0 && s.bytes > 0) continue;
    ++left_out;
    left_out_seconds += s.seconds;
  }
  std::string html = "<div class=\"panel\"><h3>Roofline</h3><p class=\"hint\">A circle is a step, its area the share of the time.";
  if (left_out > 0) html += fmt::format(" {} steps without arithmetic ({} of the time) are not here.", left_out, percent_text(left_out_seconds / p.seconds));
  html += "</p>\n" + roofline_chart(p, peaks, [&](const std::string& op) { return colour_of(p, op); }) + "<ul class=\"legend\">";
  html += fmt::format("<li><i class=\"l\" style=\"color:var(--ink)\"></i>measured: {} f32, {} from memory</li>", scaled(peaks.f32, "FLOP/s"), scaled(peaks.bandwidth, "B/s"));
  if (peaks.i8 > 0) html += fmt::format("<li><i class=\"l d\" style=\"color:var(--ink)\"></i>{} in 8 bits</li>", scaled(peaks.i8, "op/s"));
  for (size_t i = 0; i < std::min<size_t>(8, p.ops.size()); ++i)
    if (p.ops[i].flops > 0) html += fmt::format("<li><i style=\"background:var(--c{})\"></i>{}</li>", i, html_escaped(p.ops[i].op));
  if (p.ops.size() > 8) html += "<li><i style=\"background:var(--rest)\"></i>others</li>";
  return html + "</ul></div>\n";
}

std::string ops_panel(const Profile& p) {
  std::string html = fmt::format("<div class=\"panel\"><h3>Time by operator</h3><p class=\"hint\">{} a run, mean of {} runs. Full colour: the least that the "
                                 "roofline allows.</p>\n<div class=\"ops\">",
                                 time_text(p.seconds), p.runs);
  const double most = p.ops.empty() ? 1 : p.ops[0].seconds;
  for (const ProfileOp& op : p.ops) {
    const std::string colour = colour_of(p, op.op);
    const double width = 100 * op.seconds / most, least = std::min(width, 100 * op.roofline_seconds / most);
    html += fmt::format("<span title=\"{}\">{}{}</span><div class=\"track\"><b style=\"width:{:.2f}%;background:{}\"></b><u style=\"width:{:.2f}%;background:{}\"></u></div>"
                        "<span class=\"n\">{}</span><span class=\"n\">{}</span>\n",
                        html_escaped(fmt::format("{}", fmt::join(op.kernels, ", "))), html_escaped(op.op), op.nodes > 1 ? fmt::format(" &times;{}", op.nodes) : "",
                        width, colour, least, colour, time_text(op.seconds), percent_text(op.seconds / p.seconds));
  }
  return html + "</div></div>\n";
}

std::string steps_panel(const Profile& p) {
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < std::min<size_t>(30, p.steps.size()); ++i) {
    const ProfileStep& s = p.steps[i];
    const auto rate = [&](int64_t amount, const char* unit) { return amount > 0 && s.seconds > 0 ? scaled(static_cast<double>(amount) / s.seconds, unit) : "-"; };
    rows.push_back({fmt::format("<code>{}</code>", html_escaped(s.node)), html_escaped(s.op), std::string(dtype_name(s.dtype)), fmt::format("<code>{}</code>", html_escaped(s.kernel)),
                    time_text(s.seconds), percent_text(s.seconds / p.seconds), rate(s.flops, "FLOP/s"), rate(s.bytes, "B/s"), percent_text(s.roofline(), 0)});
  }
  return table({"Step", "Operator", "Type", "Kernel", "Time", "Share", "FLOP/s", "Memory", "Of roofline"}, rows, 4);
}

std::string profiles(const BenchReport& report) {
  std::string html;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const RowReport& r = report.rows[i];
    if (!r.profile) continue;
    html += fmt::format("<section><h2>Profile of {}</h2>\n<div class=\"grid\">\n{}{}</div>\n{}</section>\n", html_escaped(short_label(report, i)),
                        roofline_panel(r, report.peaks_of(r.settings.threads)), ops_panel(*r.profile), steps_panel(*r.profile));
  }
  return html;
}

std::string settings(const BenchReport& report) {
  std::vector<std::vector<std::string>> rows;
  const auto code = [](const std::string& text) { return fmt::format("<code>{}</code>", html_escaped(text)); };
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const RowReport& r = report.rows[i];
    std::vector<std::string> inputs;
    for (const auto& [name, shape] : r.inputs) inputs.push_back(fmt::format("{}:{}", name, shape_string(shape)));
    rows.push_back({code(r.settings.model), code(fmt::format("{}", fmt::join(inputs, " "))), html_escaped(r.settings.precision), r.dtype,
                    fmt::format("{}", r.settings.threads), fmt::format("{}", r.batch), scaled(static_cast<double>(r.parameters), ""),
                    r.file_bytes > 0 ? scaled(static_cast<double>(r.file_bytes), "B") : "-", r.flops ? scaled(static_cast<double>(*r.flops), "FLOP") : "-",
                    r.top1 ? percent_text(*r.top1, 2) : "-"});
  }
  std::string html = "<section><h2>Settings</h2>\n" +
                     table({"Model", "Inputs", "Precision", "Arithmetic", "Threads", "Batch", "Parameters", "File", "Compute", "Top-1"}, rows, 4) + "</section>\n";
  std::vector<std::vector<std::string>> machine{
      {"CPU", html_escaped(report.cpu)}, {"System", html_escaped(report.os)}, {"ds", html_escaped(report.version)}, {"Date", html_escaped(report.date)},
      {"Rounds", fmt::format("{}, interleaved", report.rounds)}, {"Execution", report.static_plan ? "static plan" : "node by node"},
      {"Inputs", report.random_inputs ? fmt::format("random numbers, seed {}", report.seed) : html_escaped(report.data)}};
  for (const Peaks& p : report.peaks)
    machine.push_back({fmt::format("Peaks, {}", p.threads == 1 ? "1 thread" : fmt::format("{} threads", p.threads)),
                       fmt::format("{}{}{}", p.f32 > 0 ? scaled(p.f32, "FLOP/s f32") : "", p.i8 > 0 ? "  " + scaled(p.i8, "op/s in 8 bits") : "",
                                   p.bandwidth > 0 ? "  " + scaled(p.bandwidth, "B/s from memory") : "")});
  return html + "<section><h2>Environment</h2>\n" + table({"", ""}, machine, 2) + "</section>\n";
}

}  // namespace

std::string bench_html(const BenchReport& report) {
  std::vector<std::string> names;
  for (const RowReport& r : report.rows) {
    const std::string name = r.settings.model.substr(r.settings.model.rfind('/') + 1);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  const std::string title = html_escaped(fmt::format("{}", fmt::join(names, ", ")));
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}</title>\n<style>{1}</style></head>\n<body><main>\n"
      "<h1>{0}</h1>\n<p class=\"sub\">Timed by ds {2} on {3}, {4}</p>\n",
      title, kStyle, html_escaped(report.version), html_escaped(report.cpu), html_escaped(report.date));
  for (size_t i = 0; i < report.rows.size(); ++i)
    if (report.rows[i].baseline && report.rows[i].baseline->regressed)
      html += fmt::format("<div class=\"note\">{} has become slower: {:+.1f} % of the baseline's median</div>\n", html_escaped(short_label(report, i)),
                          100 * report.rows[i].baseline->change);
  html += results(report) + distributions(report) + profiles(report) + settings(report);
  return html + "<footer>Written by ds-bench.</footer>\n</main></body></html>\n";
}

}  // namespace ds::bench
