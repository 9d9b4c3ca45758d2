// Has it become slower? Rows against those of an earlier run.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "libds/tasks/bench/bench.h"

namespace ds::bench {

struct BaselineRow {
  std::string model, precision;
  int threads = 1;
  std::vector<std::pair<std::string, Shape>> inputs;
  bool varied = false;  // times of --vary
  double p50 = 0;
  Interval p50_interval;
};

struct Baseline {
  std::string path, cpu;
  bool static_plan = true;
  std::vector<BaselineRow> rows;
};

// What ds-bench wrote by --output or --format json. Throws kNoInput when it cannot be read, kBadData when it is
// something else.
Baseline read_baseline(const std::string& path);

// Fills RowReport::baseline where the baseline has the row: the same model (by its path, or by its file name where
// that is the name of one model only) at the same input shapes, threads and precision. A row has regressed when its
// median is more than `limit` (0.05: 5 %) above the baseline's and the 95 % intervals of both medians lie apart.
// Returns what is worth a warning: rows that the baseline lacks, another CPU.
std::vector<std::string> compare_with_baseline(BenchReport& report, const Baseline& baseline, double limit);

// One line for each row that has regressed.
std::vector<std::string> regressions(const BenchReport& report, const Baseline& baseline, double limit);

// "5%", "5 %" or "5" as 0.05. Throws kUsage.
double parse_percent(const std::string& text, const std::string& option);

}  // namespace ds::bench
