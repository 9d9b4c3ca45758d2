// How rows, times and amounts are written, for the table, the page and the messages.
#pragma once

#include <string>
#include <vector>

#include "libds/tasks/bench/bench.h"

namespace ds::bench {

inline constexpr const char* kSchema = "ds-bench/2";

// "1.23 ms": three significant digits in the unit that fits.
std::string time_text(double seconds);
// "25.6 MFLOP".
std::string scaled(double x, const char* unit);
// "1.498", "15223": four digits, or all before the point.
std::string rate_text(double per_second);
std::string percent_text(double part, int digits = 1);

// "m.onnx (2 threads, x:8x3x224x224)": what tells a row from all others.
std::string row_label(const RowReport& row);

// The settings that differ between rows, as columns: headings, and the cells of each row. The model is always one.
struct SettingColumns {
  std::vector<std::string> headings;
  std::vector<std::vector<std::string>> cells;  // by row
};
SettingColumns setting_columns(const BenchReport& report);
// The cells of a row in one line: "m.onnx, 2 threads, batch 8".
std::string short_label(const BenchReport& report, size_t row);

// One line of RFC 4180: fields with a comma, a quote or a line break are quoted, quotes doubled. Ends in CR LF.
std::string csv_line(const std::vector<std::string>& fields);

// Rows of cells, headings first. `left`: how many columns are text, and stand at the left.
std::string plain_table(const std::vector<std::vector<std::string>>& rows, size_t left);
std::string markdown_table(const std::vector<std::vector<std::string>>& rows, size_t left);

}  // namespace ds::bench
