#include "libds/tasks/train/prune_masks.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ds {
namespace {

// Ranking costs a pass over all weights: masks are recomputed when the sparsity has risen by this much.
constexpr double kSmallestRise = 0.002;

// A prunable parameter, its mask, and the number of elements in those before it.
struct Masked {
  const Tensor* weight;
  const Tensor* mask;
  int64_t first;
};

std::vector<Masked> masked_parameters(const TrainGraph& train, std::span<const Tensor> states, int64_t* total) {
  std::vector<Masked> list;
  *total = 0;
  for (size_t i = 0; i < train.states.size(); ++i) {
    const StateInfo& s = train.states[i];
    if (s.role != StateRole::kParameter || !s.prunable || s.mask < 0) continue;
    list.push_back({&states[i], &states[static_cast<size_t>(s.mask)], *total});
    *total += states[i].numel();
  }
  return list;
}

int64_t count_masked(const std::vector<Masked>& list) {
  int64_t zeros = 0;
  for (const Masked& m : list) {
    const auto mask = m.mask->span<float>();
    zeros += std::count(mask.begin(), mask.end(), 0.0f);
  }
  return zeros;
}

}  // namespace

void update_masks(const TrainGraph& train, std::span<const Tensor> states, double sparsity, double target) {
  int64_t total = 0;
  const std::vector<Masked> list = masked_parameters(train, states, &total);
  const auto wanted = static_cast<int64_t>(std::floor(sparsity * static_cast<double>(total)));
  const int64_t masked = count_masked(list);
  const auto rise = static_cast<int64_t>(kSmallestRise * static_cast<double>(total));
  if (wanted <= masked || (wanted - masked < rise && sparsity < target)) return;
  // Magnitudes of all weights; masked ones are below every other, ties go by position.
  std::vector<float> magnitude(static_cast<size_t>(total));
  for (const Masked& m : list)
    for (int64_t i = 0; i < m.weight->numel(); ++i)
      magnitude[static_cast<size_t>(m.first + i)] = m.mask->data<float>()[i] == 0.0f ? -1.0f : std::abs(m.weight->data<float>()[i]);
  std::vector<int64_t> order(static_cast<size_t>(total));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::nth_element(order.begin(), order.begin() + wanted, order.end(), [&](int64_t a, int64_t b) {
    const float x = magnitude[static_cast<size_t>(a)], y = magnitude[static_cast<size_t>(b)];
    return x != y ? x < y : a < b;
  });
  order.resize(static_cast<size_t>(wanted));
  std::sort(order.begin(), order.end());
  size_t next = 0;
  for (const Masked& m : list) {
    const int64_t end = m.first + m.weight->numel();
    for (; next < order.size() && order[next] < end; ++next) {
      m.mask->mutable_data<float>()[order[next] - m.first] = 0.0f;
      m.weight->mutable_data<float>()[order[next] - m.first] = 0.0f;
    }
  }
}

double masked_fraction(const TrainGraph& train, std::span<const Tensor> states) {
  int64_t total = 0;
  const std::vector<Masked> list = masked_parameters(train, states, &total);
  return total == 0 ? 0.0 : static_cast<double>(count_masked(list)) / static_cast<double>(total);
}

}  // namespace ds
