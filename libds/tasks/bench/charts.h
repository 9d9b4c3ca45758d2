// Charts of the page, as SVG elements that scale with their place. Colours come from the page's style.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libds/tasks/bench/bench.h"

namespace ds::bench {

// Round numbers that cut [low, high] into about `count` parts.
std::vector<double> round_ticks(double low, double high, int count);

// Histogram of times with their cumulative distribution over it, median and 99th percentile marked. Times far
// beyond the third quartile share the last bar.
std::string distribution_chart(const RowReport& row);

// FLOP/s over FLOPs per byte, both in decades: the measured roofs, and a circle for each step with arithmetic, its
// area as its share of the time. `colour(op)` is a CSS colour.
std::string roofline_chart(const Profile& profile, const Peaks& peaks, const std::function<std::string(const std::string& op)>& colour);

}  // namespace ds::bench
