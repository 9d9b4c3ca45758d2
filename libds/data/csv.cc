#include "libds/data/csv.h"

#include <charconv>
#include <cmath>
#include <optional>

#include "libds/base/file.h"

namespace ds {
namespace {

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  return s;
}

// Fields of one line; quotes around a field are taken off and doubled quotes inside halved.
void split_line(std::string_view line, int64_t number, std::vector<std::string>& fields) {
  fields.clear();
  size_t at = 0;
  for (;;) {
    std::string field;
    while (at < line.size() && line[at] == ' ') ++at;
    if (at < line.size() && line[at] == '"') {
      for (++at;; ++at) {
        if (at >= line.size()) bad_data("line {}: unterminated quote in column {}", number, fields.size() + 1);
        if (line[at] == '"') {
          if (at + 1 < line.size() && line[at + 1] == '"') ++at;
          else break;
        }
        field.push_back(line[at]);
      }
      ++at;
      const size_t comma = line.find(',', at);
      if (!trim(line.substr(at, comma == std::string_view::npos ? comma : comma - at)).empty())
        bad_data("line {}: text after the quotes in column {}", number, fields.size() + 1);
      at = comma;
    } else {
      const size_t comma = line.find(',', at);
      field = trim(line.substr(at, comma == std::string_view::npos ? comma : comma - at));
      at = comma;
    }
    fields.push_back(std::move(field));
    if (at == std::string_view::npos) return;
    ++at;
  }
}

std::optional<double> number_of(std::string_view field) {
  if (!field.empty() && field.front() == '+') field.remove_prefix(1);
  double x = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), x);
  if (error != std::errc() || end != field.data() + field.size() || std::isnan(x)) return std::nullopt;
  return x;
}

}  // namespace

Table parse_csv(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  Table table;
  std::vector<std::string> fields;
  bool first = true;
  int64_t line_number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trim(text.substr(at, end - at));
    at = end + 1;
    ++line_number;
    if (line.empty()) continue;
    split_line(line, line_number, fields);
    if (first) {
      first = false;
      table.width = static_cast<int64_t>(fields.size());
      bool header = false;
      // An empty field is a missing number, not a name.
      for (const std::string& f : fields) header |= !f.empty() && !number_of(f);
      if (header) {
        table.columns = fields;
        continue;
      }
    }
    if (static_cast<int64_t>(fields.size()) != table.width)
      bad_data("line {}: {} columns, expected {}", line_number, fields.size(), table.width);
    for (size_t i = 0; i < fields.size(); ++i) {
      const auto x = number_of(fields[i]);
      if (!x) {
        const std::string name = table.columns.empty() ? "" : fmt::format(" ({})", table.columns[i]);
        if (fields[i].empty()) bad_data("line {}: column {}{} is empty", line_number, i + 1, name);
        bad_data("line {}: column {}{}: '{}' is not a number", line_number, i + 1, name, fields[i].substr(0, 40));
      }
      table.values.push_back(*x);
    }
    ++table.rows;
  }
  if (table.rows == 0) bad_data("no rows of numbers");
  return table;
}

Table read_csv(const std::string& path) {
  const std::string text = read_file(path);
  return with_context([&] { return path == "-" ? std::string("standard input") : path; }, [&] { return parse_csv(text); });
}

int64_t find_column(const Table& table, const std::string& column) {
  for (size_t i = 0; i < table.columns.size(); ++i)
    if (table.columns[i] == column) return static_cast<int64_t>(i);
  int64_t index = 0;
  const auto [end, error] = std::from_chars(column.data(), column.data() + column.size(), index);
  if (error != std::errc() || end != column.data() + column.size()) {
    if (table.columns.empty()) bad_data("no column '{}': the table has no header", column);
    bad_data("no column '{}' among {}", column, fmt::join(table.columns, ", "));
  }
  const int64_t at = index < 0 ? index + table.width : index;
  if (at < 0 || at >= table.width) bad_data("no column {}: the table has {}", index, table.width);
  return at;
}

}  // namespace ds
