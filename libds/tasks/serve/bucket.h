// Batch sizes that plans are made for.
//
// A plan holds its own arena and packed weights, so there are few: the powers of two up to the
// maximum, and the maximum. A batch of another size is run in parts; its last part may be padded by
// repeating its last row, when that wastes no more than a quarter of the bucket.
#pragma once

#include <cstdint>
#include <vector>

namespace ds::serve {

struct BatchPart {
  int64_t rows = 0;    // of the batch
  int64_t bucket = 0;  // rows of the plan; >= rows
  bool operator==(const BatchPart&) const = default;
};

// Parts in order; their rows add up to `rows` (>= 1). `max_rows` >= 1 is the largest bucket.
std::vector<BatchPart> batch_parts(int64_t rows, int64_t max_rows);

}  // namespace ds::serve
