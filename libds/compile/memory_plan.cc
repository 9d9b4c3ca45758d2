#include "libds/compile/memory_plan.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace ds {
namespace {

size_t aligned(size_t bytes) { return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment; }

// Places buffers in the given order, each into the smallest gap between the already placed ones it
// overlaps in time.
size_t place(const std::vector<Lifetime>& all, const std::vector<size_t>& order, std::vector<size_t>& offsets) {
  std::vector<size_t> by_offset;  // those placed, by rising offset
  size_t arena = 0;
  for (size_t i : order) {
    const Lifetime& a = all[i];
    const size_t bytes = aligned(a.bytes);
    size_t best = SIZE_MAX, best_gap = SIZE_MAX, cursor = 0;
    for (size_t j : by_offset) {
      const Lifetime& b = all[j];
      if (b.last < a.first || b.first > a.last) continue;
      if (offsets[j] > cursor && offsets[j] - cursor >= bytes && offsets[j] - cursor < best_gap) {
        best = cursor;
        best_gap = offsets[j] - cursor;
      }
      cursor = std::max(cursor, offsets[j] + aligned(b.bytes));
    }
    offsets[i] = best == SIZE_MAX ? cursor : best;
    arena = std::max(arena, offsets[i] + bytes);
    const auto at = std::upper_bound(by_offset.begin(), by_offset.end(), i,
                                     [&](size_t x, size_t y) { return offsets[x] < offsets[y]; });
    by_offset.insert(at, i);
  }
  return arena;
}

}  // namespace

size_t live_peak(const std::vector<Lifetime>& lifetimes) {
  int steps = 0;
  for (const Lifetime& l : lifetimes) steps = std::max(steps, l.last + 1);
  std::vector<int64_t> change(static_cast<size_t>(steps) + 1, 0);
  for (const Lifetime& l : lifetimes) {
    change[static_cast<size_t>(l.first)] += static_cast<int64_t>(aligned(l.bytes));
    change[static_cast<size_t>(l.last) + 1] -= static_cast<int64_t>(aligned(l.bytes));
  }
  int64_t now = 0, peak = 0;
  for (int64_t c : change) peak = std::max(peak, now += c);
  return static_cast<size_t>(peak);
}

size_t assign_offsets(std::vector<Lifetime>& lifetimes) {
  const size_t n = lifetimes.size();
  if (n == 0) return 0;
  const size_t bound = live_peak(lifetimes);
  std::vector<size_t> order(n), offsets(n), best_offsets(n);
  size_t best = SIZE_MAX;
  const auto attempt = [&](auto&& precedes) {
    if (best == bound) return;
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return precedes(lifetimes[a], lifetimes[b]); });
    const size_t arena = place(lifetimes, order, offsets);
    if (arena >= best) return;
    best = arena;
    best_offsets = offsets;
  };
  const auto span = [](const Lifetime& l) { return l.last - l.first; };
  attempt([&](const Lifetime& a, const Lifetime& b) { return a.bytes != b.bytes ? a.bytes > b.bytes : span(a) > span(b); });
  attempt([&](const Lifetime& a, const Lifetime& b) { return span(a) != span(b) ? span(a) > span(b) : a.bytes > b.bytes; });
  attempt([&](const Lifetime& a, const Lifetime& b) { return a.first != b.first ? a.first < b.first : a.last > b.last; });
  for (size_t i = 0; i < n; ++i) lifetimes[i].offset = best_offsets[i];
  return best;
}

}  // namespace ds
