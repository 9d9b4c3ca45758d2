// When to start a batch, and with which requests: a pure function of queue, clock and policy.
//
// Nothing here waits, locks or reads a clock, so every property of the batcher is tested with a
// simulated one. The server calls decide() whenever a request arrives, an instance becomes idle, the
// wake-up time it returned last has come, or draining begins.
//
// Requests that carry the same `key` (model, dtypes and all dimensions but the first) can be joined
// along axis 0. Order is kept within a key: a batch takes the oldest requests of its key, without
// skipping one that does not fit any more.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace ds::serve {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

enum class BatchMode {
  kEager,  // an idle instance starts at once with what is there
  kFixed,  // a batch is held until it is full or its oldest request has waited for the timeout
};

struct BatchPolicy {
  int64_t max_batch_size = 32;                      // rows along axis 0
  Clock::duration timeout = std::chrono::milliseconds(50);  // longest a request is held for company
  BatchMode mode = BatchMode::kEager;
};

struct QueuedRequest {
  TimePoint arrived;
  int64_t rows = 1;   // size of axis 0; at least 1
  uint64_t key = 0;   // equal keys may share a batch
};

struct QueueView {
  std::span<const QueuedRequest> requests;  // in order of arrival
  int idle_instances = 0;
  bool draining = false;  // no more requests will come: waiting for company is pointless
};

struct Decision {
  // Requests to start now, as one batch, by position in QueueView::requests, ascending; empty: wait.
  std::vector<size_t> take;
  // While waiting: when to decide again if nothing else happens; nullopt: only an event can help.
  std::optional<TimePoint> wake;
};

// Starts at most one batch a call; call again with the shorter queue until it says wait.
//
// The timeout bounds holding, that is waiting while an instance is idle; time spent waiting for a
// busy instance is not holding. A request of more rows than the maximum forms a batch of its own.
Decision decide(const QueueView& queue, TimePoint now, const BatchPolicy& policy);

}  // namespace ds::serve
