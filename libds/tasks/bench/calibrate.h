// Measures a table of costs (base/cost_table.h) on this machine: the kernels that run models, at sizes of models.
#pragma once

#include <string>

#include "libds/base/cost_table.h"

namespace ds::bench {

// Rates of packed products at every level up to the one in force, each the geometric mean over a few shapes of the
// median of several runs, and the bandwidth of reading weights, with `threads` threads (at least 1). Takes some seconds. Types without a kernel stay 0.
CostTable calibrate(int threads);

// A table for people; `path`: where it was written.
std::string calibration_text(const CostTable& table, const std::string& path);

}  // namespace ds::bench
