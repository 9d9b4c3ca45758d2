// Counter-based random numbers: a pure function of (seed, stream, index).
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Nothing is
// carried between calls, so resuming, recomputing, running eagerly and splitting over ranks all
// draw the same numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ds {

// Four independent 32-bit words for (seed, stream, index).
std::array<uint32_t, 4> philox(uint64_t seed, uint64_t stream, uint64_t index);

// Stable 64-bit hash of a name (FNV-1a): names streams after parameters and nodes.
uint64_t stream_of(std::string_view name);
// The same for a name that comes in parts: `so_far` is the hash of the parts before.
uint64_t stream_of(std::string_view part, uint64_t so_far);

// A sequence drawn from one stream. Cheap to make, no global state.
class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}
  uint32_t u32();
  uint64_t u64() { return (static_cast<uint64_t>(u32()) << 32) | u32(); }
  double uniform();                 // [0, 1)
  double normal();                  // mean 0, variance 1
  uint64_t below(uint64_t bound);   // [0, bound), without modulo bias

 private:
  uint64_t seed_, stream_, index_ = 0;
  std::array<uint32_t, 4> words_{};
  int left_ = 0;
  bool has_spare_ = false;
  double spare_ = 0;
};

}  // namespace ds
