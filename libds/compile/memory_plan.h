// Offsets for buffers with known lifetimes: offline dynamic storage allocation.
//
// Greedy best fit (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference",
// 2020), tried in several orders; the smallest arena wins.
#pragma once

#include <cstddef>
#include <vector>

namespace ds {

struct Lifetime {
  size_t bytes = 0;
  int first = 0, last = 0;  // steps, both included
  size_t offset = 0;        // result
};

inline constexpr size_t kArenaAlignment = 64;

// Fills in the offsets (multiples of kArenaAlignment); returns the arena's size.
size_t assign_offsets(std::vector<Lifetime>& lifetimes);

// Most bytes alive at once: no assignment can be smaller.
size_t live_peak(const std::vector<Lifetime>& lifetimes);

}  // namespace ds
