#include "libds/tasks/bench/charts.h"

#include <algorithm>
#include <cmath>

#include "libds/base/html_text.h"
#include "libds/tasks/bench/row_text.h"

namespace ds::bench {
namespace {

constexpr double kWidth = 640;

struct Frame {
  double left, top, right, bottom;  // of the plot, in SVG units
  double width() const { return right - left; }
  double height() const { return bottom - top; }
};

std::string svg_head(double height, const std::string& label) {
  return fmt::format("<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth, height, html_escaped(label));
}

std::string line(double x1, double y1, double x2, double y2, const std::string& attributes) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2, attributes);
}

std::string text(double x, double y, const char* anchor, const std::string& content, const char* classes = "t") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" class=\"{}\">{}</text>\n", x, y, anchor, classes, html_escaped(content));
}

// One unit for all ticks of an axis of times.
struct TimeUnit {
  double scale;
  const char* name;
};
TimeUnit time_unit(double largest) {
  if (largest < 1e-3) return {1e6, "us"};
  if (largest < 1) return {1e3, "ms"};
  return {1, "s"};
}

std::string tick_text(double value) {
  return std::abs(value) < 1e-12 ? "0" : fmt::format("{:.4g}", value);
}

// Ticks and their text below a plot, in the unit of `unit`; the unit itself at the right end below.
std::string time_axis(const Frame& f, double low, double high, const TimeUnit& unit, const char* what) {
  std::string out;
  for (double t : round_ticks(low * unit.scale, high * unit.scale, 6)) {
    const double x = f.left + (t / unit.scale - low) / (high - low) * f.width();
    out += line(x, f.bottom, x, f.bottom + 4, "class=\"axis\"");
    out += text(x, f.bottom + 17, "middle", tick_text(t));
  }
  out += line(f.left, f.bottom, f.right, f.bottom, "class=\"axis\"");
  out += text(f.left + f.width() / 2, f.bottom + 34, "middle", fmt::format("{} ({})", what, unit.name));
  return out;
}

std::string power_text(int decade, const char* unit) {
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P"};
  if (decade < 0) return fmt::format("{:g}{}", std::pow(10, decade), unit[0] == 0 ? "" : fmt::format(" {}", unit));
  const int prefix = std::min(decade / 3, 5);
  const std::string number = fmt::format("{:g}", std::pow(10, decade - 3 * prefix));
  if (unit[0] == 0) return fmt::format("{:g}", std::pow(10, decade));
  return fmt::format("{} {}{}", number, kPrefixes[prefix], unit);
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  if (!(high > low)) return {low};
  const double raw = (high - low) / std::max(1, count);
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double step = raw / power < 1.5 ? power : raw / power < 3.5 ? 2 * power : raw / power < 7.5 ? 5 * power : 10 * power;
  std::vector<double> ticks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k) ticks.push_back(k * step);
  return ticks;
}

std::string distribution_chart(const RowReport& row) {
  constexpr double kHeight = 230;
  const Frame f{46, 10, kWidth - 46, kHeight - 44};
  std::vector<double> sorted = row.seconds;
  std::sort(sorted.begin(), sorted.end());
  const auto n = static_cast<double>(sorted.size());
  const double p99 = row.time.p99, low = sorted.front();
  // A long tail would squeeze everything else: it ends ten interquartile ranges beyond the third quartile.
  const double upper = percentile(sorted, 0.75), range = upper - percentile(sorted, 0.25);
  double high = std::min(sorted.back(), upper + 10 * std::max(range, 1e-3 * upper));
  if (!(high > low)) high = low + std::max(1e-9, low * 0.01);
  const auto bins = static_cast<size_t>(std::clamp(2 * std::sqrt(n), 5.0, 60.0));
  std::vector<int64_t> counts(bins, 0);
  for (double x : sorted) counts[std::min(bins - 1, static_cast<size_t>((x - low) / (high - low) * static_cast<double>(bins)))]++;
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  const auto x_of = [&](double s) { return f.left + (std::min(s, high) - low) / (high - low) * f.width(); };

  std::string out = svg_head(kHeight, "Distribution of run times");
  for (double t : round_ticks(0, static_cast<double>(most), 4)) {
    if (t != std::floor(t)) continue;
    const double y = f.bottom - t / static_cast<double>(most) * f.height();
    out += line(f.left, y, f.right, y, "class=\"grid\"");
    out += text(f.left - 6, y + 4, "end", tick_text(t));
  }
  for (double part : {0.0, 0.5, 1.0}) out += text(f.right + 6, f.bottom - part * f.height() + 4, "start", fmt::format("{:.0f} %", 100 * part));
  const TimeUnit unit = time_unit(high);
  for (size_t b = 0; b < bins; ++b) {
    if (counts[b] == 0) continue;
    const double height = static_cast<double>(counts[b]) / static_cast<double>(most) * f.height();
    const double from = low + (high - low) * static_cast<double>(b) / static_cast<double>(bins);
    const bool tail = b + 1 == bins && sorted.back() > high;
    out += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\"><title>{} runs, {}{}</title></rect>\n",
                       f.left + f.width() * static_cast<double>(b) / static_cast<double>(bins), f.bottom - height,
                       std::max(1.0, f.width() / static_cast<double>(bins) - 1), height, tail ? "bar tail" : "bar", counts[b],
                       tail ? "more than " : "from ", time_text(from));
  }
  out += line(x_of(row.time.p50), f.top, x_of(row.time.p50), f.bottom, "class=\"p50\"");
  if (p99 <= high) out += line(x_of(p99), f.top, x_of(p99), f.bottom, "class=\"p99\"");
  std::string points = fmt::format("{:.1f},{:.1f}", f.left, f.bottom);
  const size_t stride = std::max<size_t>(1, sorted.size() / 500);  // more would not show
  for (size_t i = 0; i < sorted.size() && sorted[i] <= high; i += stride)
    points += fmt::format(" {:.1f},{:.1f}", x_of(sorted[i]), f.bottom - static_cast<double>(i + 1) / n * f.height());
  out += fmt::format("<polyline points=\"{}\" class=\"ecdf\"/>\n", points);
  return out + time_axis(f, low, high, unit, row.vary ? "first run at each size" : "time of a run") + "</svg>\n";
}

std::string roofline_chart(const Profile& profile, const Peaks& peaks, const std::function<std::string(const std::string& op)>& colour) {
  constexpr double kHeight = 400;
  const Frame f{92, 12, kWidth - 16, kHeight - 46};
  struct Point {
    const ProfileStep* step;
    double intensity, speed;
  };
  std::vector<Point> points;
  for (const ProfileStep& s : profile.steps)
    if (s.flops > 0 && s.bytes > 0 && s.seconds > 0)
      points.push_back({&s, static_cast<double>(s.flops) / static_cast<double>(s.bytes), static_cast<double>(s.flops) / s.seconds});
  const double top_peak = std::max(peaks.f32, peaks.i8), ridge = peaks.bandwidth > 0 ? top_peak / peaks.bandwidth : 1;
  double x_low = ridge / 10, x_high = ridge * 4, y_low = top_peak / 100, y_high = top_peak * 1.3;
  for (const Point& p : points) {
    x_low = std::min(x_low, p.intensity / 1.5), x_high = std::max(x_high, p.intensity * 1.5);
    y_low = std::min(y_low, p.speed / 1.5), y_high = std::max(y_high, p.speed * 1.5);
  }
  y_low = std::max(y_low, y_high * 1e-7);  // a step that hardly computes would push all others into a line
  const double lx = std::log10(x_low), hx = std::log10(x_high), ly = std::log10(y_low), hy = std::log10(y_high);
  const auto x_of = [&](double v) { return f.left + std::clamp((std::log10(v) - lx) / (hx - lx), 0.0, 1.0) * f.width(); };
  const auto y_of = [&](double v) { return f.bottom - std::clamp((std::log10(v) - ly) / (hy - ly), 0.0, 1.0) * f.height(); };

  std::string out = svg_head(kHeight, "Roofline");
  for (int d = static_cast<int>(std::ceil(lx)); d <= std::floor(hx); ++d) {
    const double x = x_of(std::pow(10, d));
    out += line(x, f.top, x, f.bottom, "class=\"grid\"") + text(x, f.bottom + 17, "middle", power_text(d, ""));
  }
  for (int d = static_cast<int>(std::ceil(ly)); d <= std::floor(hy); ++d) {
    const double y = y_of(std::pow(10, d));
    out += line(f.left, y, f.right, y, "class=\"grid\"") + text(f.left - 6, y + 4, "end", power_text(d, "FLOP/s"));
  }
  out += line(f.left, f.bottom, f.right, f.bottom, "class=\"axis\"") + line(f.left, f.top, f.left, f.bottom, "class=\"axis\"");
  out += text(f.left + f.width() / 2, f.bottom + 36, "middle", "FLOPs per byte of operands");
  // Each roof: up the slope of the memory, then level. The slope starts where it enters the plot.
  const auto roof = [&](double peak, const char* classes) {
    if (peak <= 0 || peaks.bandwidth <= 0) return;
    const double start = std::max(x_low, y_low / peaks.bandwidth), bend = peak / peaks.bandwidth;
    out += fmt::format("<polyline class=\"{}\" points=\"{:.1f},{:.1f} {:.1f},{:.1f} {:.1f},{:.1f}\"/>\n", classes, x_of(start),
                       y_of(start * peaks.bandwidth), x_of(bend), y_of(peak), f.right, y_of(peak));
  };
  roof(peaks.i8, "roof i8");
  roof(peaks.f32, "roof");
  for (const Point& p : points) {  // steps come by time: small circles are drawn over large ones
    const double share = p.step->seconds / profile.seconds;
    out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" fill=\"{}\" class=\"dot\"><title>{}</title></circle>\n", x_of(p.intensity),
                       y_of(p.speed), 2.5 + 22 * std::sqrt(share), colour(p.step->op),
                       html_escaped(fmt::format("{} ({}, {})\n{}, {} of the run\n{}, {:.3g} FLOPs a byte\n{} of the roofline", p.step->node, p.step->op,
                                                p.step->kernel, time_text(p.step->seconds), percent_text(share), scaled(p.speed, "FLOP/s"), p.intensity,
                                                percent_text(p.step->roofline(), 0))));
  }
  return out + "</svg>\n";
}

}  // namespace ds::bench
