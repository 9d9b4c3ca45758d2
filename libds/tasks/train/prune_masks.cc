#include "libds/tasks/train/prune_masks.h"

#include <cmath>
#include <cstring>

#include "libds/passes/sparsify.h"

namespace ds {
namespace {

// Ranking costs a pass over all weights: masks are recomputed when the sparsity has risen by this much.
constexpr double kSmallestRise = 0.002;

// The prunable parameters and their masks; handles on the states' own memory.
struct Masked {
  std::vector<Tensor> weights, masks;
  int64_t elements = 0, zeros = 0;
};

Masked masked_parameters(const TrainGraph& train, std::span<const Tensor> states) {
  Masked m;
  for (size_t i = 0; i < train.states.size(); ++i) {
    const StateInfo& s = train.states[i];
    if (s.role != StateRole::kParameter || !s.prunable || s.mask < 0) continue;
    m.weights.push_back(states[i]);
    m.masks.push_back(states[static_cast<size_t>(s.mask)]);
    m.elements += states[i].numel();
    m.zeros += count_zeros(m.masks.back());
  }
  return m;
}

}  // namespace

void update_masks(const TrainGraph& train, std::span<const Tensor> states, double sparsity, double target) {
  const Masked m = masked_parameters(train, states);
  const auto elements = static_cast<double>(m.elements);
  const double now = m.elements == 0 ? 1.0 : static_cast<double>(m.zeros) / elements;
  if (sparsity <= now || (sparsity - now < kSmallestRise && sparsity < target)) return;
  // Masked weights are zero, below every other: what is masked stays so.
  const std::vector<Tensor> masks = magnitude_masks(m.weights, sparsity, SparsityScope::kGlobal);
  for (size_t i = 0; i < masks.size(); ++i) {
    std::memcpy(m.masks[i].mutable_raw(), masks[i].raw(), masks[i].bytes());
    const Tensor kept = masked(m.weights[i], masks[i]);
    std::memcpy(m.weights[i].mutable_raw(), kept.raw(), kept.bytes());
  }
}

double masked_fraction(const TrainGraph& train, std::span<const Tensor> states) {
  const Masked m = masked_parameters(train, states);
  return m.elements == 0 ? 0.0 : static_cast<double>(m.zeros) / static_cast<double>(m.elements);
}

}  // namespace ds
