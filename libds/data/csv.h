// Numeric tables as comma-separated text (RFC 4180 quoting, LF or CRLF, blank lines skipped).
//
// A first line with a field that is no number is a header. Every further field must be a finite or
// infinite number; errors name line and column. Columns keep the order of the file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libds/mem/tensor.h"

namespace ds {

struct Table {
  std::vector<std::string> columns;  // empty without a header
  int64_t rows = 0, width = 0;
  std::vector<double> values;        // row by row
};

Table parse_csv(std::string_view text);
// "-": standard input. Errors carry the path.
Table read_csv(const std::string& path);

// Index of a column given by name, or by number (0-based; negative counts from the end).
int64_t find_column(const Table& table, const std::string& column);

}  // namespace ds
