#include "libds/tasks/serve/batcher.h"

#include <unordered_map>

namespace ds::serve {
namespace {

// The oldest requests of one key that fit into a batch together.
struct Group {
  std::vector<size_t> members;
  int64_t rows = 0;
  bool closed = false;  // full, or the next of its key did not fit
};

// Groups in order of their oldest request. One pass over the queue.
std::vector<Group> group_by_key(std::span<const QueuedRequest> requests, int64_t max_rows) {
  std::vector<Group> groups;
  std::unordered_map<uint64_t, size_t> group_of_key;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto [it, fresh] = group_of_key.try_emplace(requests[i].key, groups.size());
    if (fresh) groups.emplace_back();
    Group& group = groups[it->second];
    if (group.closed) continue;
    if (!group.members.empty() && requests[i].rows > max_rows - group.rows) {
      group.closed = true;
      continue;
    }
    group.members.push_back(i);
    group.rows += requests[i].rows;
    if (group.rows >= max_rows) group.closed = true;
  }
  return groups;
}

}  // namespace

Decision decide(const QueueView& queue, TimePoint now, const BatchPolicy& policy) {
  Decision decision;
  if (queue.requests.empty() || queue.idle_instances <= 0) return decision;
  std::vector<Group> groups = group_by_key(queue.requests, policy.max_batch_size);

  // The oldest request of all goes first, if it need not be held any longer.
  const TimePoint oldest_deadline = queue.requests.front().arrived + policy.timeout;
  if (policy.mode == BatchMode::kEager || queue.draining || now >= oldest_deadline) {
    decision.take = std::move(groups.front().members);
    return decision;
  }
  // Nobody is due: a batch that can gain nothing by waiting starts, the oldest such first.
  for (Group& group : groups) {
    if (group.closed) {
      decision.take = std::move(group.members);
      return decision;
    }
  }
  decision.wake = oldest_deadline;
  return decision;
}

}  // namespace ds::serve
