#include "libds/mem/tier.h"

#include <atomic>

namespace ds {
namespace {
std::atomic<int64_t> g_bytes[kTierCount];
std::atomic<int64_t> g_peak[kTierCount];
}  // namespace

std::string_view tier_name(Tier tier) {
  constexpr std::string_view kNames[kTierCount] = {"parameters", "activations", "gradients", "host"};
  return kNames[static_cast<int>(tier)];
}

int64_t tier_bytes(Tier tier) { return g_bytes[static_cast<int>(tier)].load(std::memory_order_relaxed); }
int64_t tier_peak_bytes(Tier tier) { return g_peak[static_cast<int>(tier)].load(std::memory_order_relaxed); }

void charge_tier(Tier tier, int64_t bytes) {
  const int t = static_cast<int>(tier);
  const int64_t now = g_bytes[t].fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t peak = g_peak[t].load(std::memory_order_relaxed);
  while (now > peak && !g_peak[t].compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

}  // namespace ds
