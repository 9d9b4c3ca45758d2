#include "libds/tasks/bench/row_text.h"

#include <algorithm>

namespace ds::bench {
namespace {

// Columns on a terminal: bytes that begin a character.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

bool differs(const BenchReport& report, auto&& member) {
  return std::any_of(report.rows.begin(), report.rows.end(), [&](const RowReport& r) { return member(r) != member(report.rows[0]); });
}

std::string threads_text(int threads) { return threads == 1 ? "1 thread" : fmt::format("{} threads", threads); }

}  // namespace

std::string time_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.3g} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.3g} ms", seconds * 1e3);
  return fmt::format("{:.3g} s", seconds);
}

std::string scaled(double x, const char* unit) {
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P"};
  size_t i = 0;
  while (x >= 999.5 && i + 1 < std::size(kPrefixes)) {
    x /= 1000;
    ++i;
  }
  return i == 0 ? fmt::format("{:.0f} {}", x, unit) : fmt::format("{:.3g} {}{}", x, kPrefixes[i], unit);
}

std::string rate_text(double per_second) { return per_second < 9999.5 ? fmt::format("{:.4g}", per_second) : fmt::format("{:.0f}", per_second); }

std::string percent_text(double part, int digits) { return fmt::format("{:.{}f} %", 100 * part, digits); }

std::string row_label(const RowReport& row) {
  std::string text = fmt::format("{} ({}", row.settings.model, threads_text(row.settings.threads));
  if (row.settings.precision != "fp32") text += ", " + row.settings.precision;
  for (const auto& [name, shape] : row.inputs) text += fmt::format(", {}:{}", name, shape_string(shape));
  return text + ")";
}

SettingColumns setting_columns(const BenchReport& report) {
  SettingColumns columns;
  const bool precision = differs(report, [](const RowReport& r) { return r.settings.precision; });
  const bool threads = differs(report, [](const RowReport& r) { return r.settings.threads; });
  const bool batch = differs(report, [](const RowReport& r) { return r.batch; });
  columns.headings = {"model"};
  if (precision) columns.headings.emplace_back("precision");
  if (threads) columns.headings.emplace_back("threads");
  if (batch) columns.headings.emplace_back("batch");
  for (const RowReport& r : report.rows) {
    std::vector<std::string> cells{r.settings.model};
    if (precision) cells.push_back(r.settings.precision);
    if (threads) cells.push_back(fmt::format("{}", r.settings.threads));
    if (batch) cells.push_back(fmt::format("{}", r.batch));
    columns.cells.push_back(std::move(cells));
  }
  return columns;
}

std::string short_label(const BenchReport& report, size_t row) {
  const SettingColumns columns = setting_columns(report);
  const RowReport& r = report.rows[row];
  std::string text = r.settings.model.substr(r.settings.model.rfind('/') + 1);
  for (const std::string& heading : columns.headings) {
    if (heading == "precision") text += ", " + r.settings.precision;
    if (heading == "threads") text += ", " + threads_text(r.settings.threads);
    if (heading == "batch") text += fmt::format(", batch {}", r.batch);
  }
  return text;
}

std::string csv_line(const std::vector<std::string>& fields) {
  std::string line;
  for (size_t i = 0; i < fields.size(); ++i) {
    if (i > 0) line += ',';
    if (fields[i].find_first_of(",\"\r\n") == std::string::npos) {
      line += fields[i];
      continue;
    }
    line += '"';
    for (char c : fields[i]) {
      if (c == '"') line += '"';
      line += c;
    }
    line += '"';
  }
  return line + "\r\n";
}

std::string plain_table(const std::vector<std::vector<std::string>>& rows, size_t left) {
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string space(widths[c] - width_of(row[c]), ' ');
      line += (c == 0 ? "" : "  ") + (c < left ? row[c] + space : space + row[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

std::string markdown_table(const std::vector<std::vector<std::string>>& rows, size_t left) {
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    out += '|';
    for (const std::string& cell : rows[r]) {
      out += ' ';
      for (char c : cell) {
        if (c == '|' || c == '\\') out += '\\';  // would end the cell
        out += c == '\n' ? ' ' : c;
      }
      out += " |";
    }
    out += '\n';
    if (r > 0) continue;
    out += '|';
    for (size_t c = 0; c < rows[0].size(); ++c) out += c < left ? "---|" : "---:|";
    out += '\n';
  }
  return out;
}

}  // namespace ds::bench
