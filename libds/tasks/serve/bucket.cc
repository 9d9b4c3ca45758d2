#include "libds/tasks/serve/bucket.h"

#include <algorithm>
#include <bit>

namespace ds::serve {

std::vector<BatchPart> batch_parts(int64_t rows, int64_t max_rows) {
  std::vector<BatchPart> parts;
  while (rows > 0) {
    if (rows >= max_rows) {
      parts.push_back({max_rows, max_rows});
      rows -= max_rows;
      continue;
    }
    const int64_t below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows)));
    const int64_t above = below == rows ? rows : std::min(2 * below, max_rows);
    // Padding to `above` or running `below` of them: the former if at least three quarters are real.
    if (4 * rows >= 3 * above) {
      parts.push_back({rows, above});
      return parts;
    }
    parts.push_back({below, below});
    rows -= below;
  }
  return parts;
}

}  // namespace ds::serve
