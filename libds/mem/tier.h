// Memory tiers and their accounting.
//
// Every buffer is charged to a tier for as long as it lives; the totals are what the metric
// `ds_memory_usage{tier=...}` shows. Counters are atomic: any thread may read them.
#pragma once

#include <cstdint>
#include <string_view>

namespace ds {

enum class Tier : int {
  kParameters = 0,   // L1: weights, optimizer state
  kActivations = 1,  // L2: values between operators, arenas, workspaces
  kGradients = 2,    // L3: gradients
  kHost = 3,         // everything else: data sets, staging, results
};
inline constexpr int kTierCount = 4;

std::string_view tier_name(Tier tier);
int64_t tier_bytes(Tier tier);       // bytes charged now
int64_t tier_peak_bytes(Tier tier);  // most bytes charged at any time
void charge_tier(Tier tier, int64_t bytes);  // negative when released

}  // namespace ds
