// What time it is: for stop watches, and for people.
#pragma once

#include <string>

namespace ds {

// Of a clock that only ever advances; differences are what counts.
double now_seconds();
// UTC, ISO 8601, to the second.
std::string utc_date();

}  // namespace ds
