// The batcher's rules by example, and as properties of random traffic under a simulated clock.
#include "libds/tasks/serve/batcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "libds/base/random.h"

namespace ds::serve {
namespace {

using std::chrono::milliseconds;

TimePoint at(int64_t ms) { return TimePoint(milliseconds(ms)); }

BatchPolicy fixed_policy() {
  BatchPolicy policy;
  policy.mode = BatchMode::kFixed;
  return policy;
}

Decision ask(const std::vector<QueuedRequest>& queue, int idle, int64_t now_ms, const BatchPolicy& policy, bool draining = false) {
  return decide(QueueView{queue, idle, draining}, at(now_ms), policy);
}

TEST(Batcher, NothingToDo) {
  for (BatchMode mode : {BatchMode::kEager, BatchMode::kFixed}) {
    BatchPolicy policy;
    policy.mode = mode;
    EXPECT_TRUE(ask({}, 1, 0, policy).take.empty());
    EXPECT_FALSE(ask({}, 1, 0, policy).wake.has_value());
    // All instances busy: only an instance that becomes idle can help, however late it is.
    EXPECT_TRUE(ask({{at(0), 1, 1}}, 0, 1000, policy).take.empty());
    EXPECT_FALSE(ask({{at(0), 1, 1}}, 0, 1000, policy).wake.has_value());
  }
}

TEST(Batcher, EagerStartsAtOnceWithWhatIsThere) {
  EXPECT_EQ(ask({{at(0), 1, 1}}, 1, 0, {}).take, (std::vector<size_t>{0}));
  EXPECT_EQ(ask({{at(0), 1, 1}, {at(0), 2, 1}, {at(0), 1, 1}}, 1, 0, {}).take, (std::vector<size_t>{0, 1, 2}));
}

TEST(Batcher, FixedHoldsUntilTheTimeoutOrFull) {
  const Decision held = ask({{at(10), 1, 1}, {at(20), 1, 1}}, 1, 30, fixed_policy());
  EXPECT_TRUE(held.take.empty());
  ASSERT_TRUE(held.wake.has_value());
  EXPECT_EQ(*held.wake, at(60));
  EXPECT_EQ(ask({{at(10), 1, 1}, {at(20), 1, 1}}, 1, 60, fixed_policy()).take, (std::vector<size_t>{0, 1}));
  EXPECT_EQ(ask({{at(10), 30, 1}, {at(20), 2, 1}}, 1, 20, fixed_policy()).take, (std::vector<size_t>{0, 1}));
  // The next one does not fit: waiting gains nothing.
  EXPECT_EQ(ask({{at(10), 30, 1}, {at(20), 3, 1}}, 1, 20, fixed_policy()).take, (std::vector<size_t>{0}));
}

TEST(Batcher, FixedDoesNotHoldWhileDraining) {
  EXPECT_EQ(ask({{at(10), 1, 1}}, 1, 10, fixed_policy(), true).take, (std::vector<size_t>{0}));
}

TEST(Batcher, KeysAreNotMixedAndOrderIsKept) {
  const std::vector<QueuedRequest> queue = {{at(0), 1, 7}, {at(1), 1, 8}, {at(2), 31, 7}, {at(3), 1, 7}};
  EXPECT_EQ(ask(queue, 1, 3, {}).take, (std::vector<size_t>{0, 2}));
}

TEST(Batcher, OneThatDoesNotFitIsNotOvertakenByItsOwnKind) {
  const std::vector<QueuedRequest> queue = {{at(0), 20, 7}, {at(1), 20, 7}, {at(2), 1, 7}};
  EXPECT_EQ(ask(queue, 1, 3, {}).take, (std::vector<size_t>{0}));
}

TEST(Batcher, FullBatchOfAnotherKeyNeedNotWaitForTheOldest) {
  const std::vector<QueuedRequest> queue = {{at(0), 1, 7}, {at(1), 32, 8}};
  EXPECT_EQ(ask(queue, 1, 2, fixed_policy()).take, (std::vector<size_t>{1}));
  EXPECT_EQ(ask(queue, 1, 50, fixed_policy()).take, (std::vector<size_t>{0}));  // but not when it is due
}

TEST(Batcher, OversizedRequestRunsAlone) {
  EXPECT_EQ(ask({{at(0), 100, 1}, {at(0), 1, 1}}, 1, 0, fixed_policy()).take, (std::vector<size_t>{0}));
}

// --- properties --------------------------------------------------------------------------------

struct Arrival {
  TimePoint time;
  int64_t rows;
  uint64_t key;
};

struct Started {
  TimePoint time;
  std::vector<size_t> members;  // arrival numbers
};

// Plays `arrivals` against `instances` executors whose batches take a random time, the way the server
// does: decide() after every event and at every wake-up. Returns the batches in order of starting.
std::vector<Started> simulate(const std::vector<Arrival>& arrivals, int instances, const BatchPolicy& policy, Random& random,
                              std::vector<TimePoint>* idle_since) {
  std::vector<Started> started;
  std::vector<size_t> queue;
  std::vector<TimePoint> busy_until;  // of running batches
  int idle = instances;
  TimePoint now{};
  TimePoint last_busy{};  // the last moment at which no instance was idle
  std::optional<TimePoint> wake;
  size_t next = 0;
  for (;;) {
    // Next event: an arrival, a finished batch, or the wake-up.
    std::optional<TimePoint> event;
    auto consider = [&](TimePoint t) { event = event ? std::min(*event, t) : t; };
    if (next < arrivals.size()) consider(arrivals[next].time);
    for (TimePoint t : busy_until) consider(t);
    if (wake) consider(*wake);
    if (!event) break;
    EXPECT_GE(*event, now);
    now = std::max(now, *event);
    while (next < arrivals.size() && arrivals[next].time <= now) queue.push_back(next++);
    if (idle == 0) last_busy = now;
    const auto done = std::remove_if(busy_until.begin(), busy_until.end(), [&](TimePoint t) { return t <= now; });
    idle += static_cast<int>(busy_until.end() - done);
    busy_until.erase(done, busy_until.end());
    for (;;) {
      std::vector<QueuedRequest> view;
      for (size_t a : queue) view.push_back({arrivals[a].time, arrivals[a].rows, arrivals[a].key});
      const Decision d = decide(QueueView{view, idle, false}, now, policy);
      wake = d.wake;
      if (wake) {
        EXPECT_GT(*wake, now);  // or the server would spin
      }
      if (d.take.empty()) break;
      EXPECT_GT(idle, 0);
      Started batch{now, {}};
      for (size_t i : d.take) batch.members.push_back(queue.at(i));
      for (size_t i = d.take.size(); i-- > 0;) queue.erase(queue.begin() + static_cast<ptrdiff_t>(d.take[i]));
      if (idle_since) idle_since->push_back(last_busy);
      started.push_back(batch);
      --idle;
      if (idle == 0) last_busy = now;
      busy_until.push_back(now + milliseconds(1 + static_cast<int64_t>(random.below(40))));
    }
    if (policy.mode == BatchMode::kEager && idle > 0) {
      EXPECT_TRUE(queue.empty()) << "eager left an instance idle beside a queue";
    }
  }
  EXPECT_TRUE(queue.empty()) << "requests were never served";
  return started;
}

TEST(Batcher, PropertiesHoldForRandomTraffic) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    BatchPolicy policy;
    policy.mode = seed % 2 ? BatchMode::kFixed : BatchMode::kEager;
    policy.max_batch_size = 1 + static_cast<int64_t>(random.below(16));
    policy.timeout = milliseconds(random.below(60));
    const int instances = 1 + static_cast<int>(random.below(3));
    const uint64_t keys = 1 + random.below(3), gap = 1 + random.below(20);
    std::vector<Arrival> arrivals;
    TimePoint t{};
    for (int i = 0; i < 80; ++i) {
      t += milliseconds(random.below(gap));
      arrivals.push_back({t, 1 + static_cast<int64_t>(random.below(static_cast<uint64_t>(policy.max_batch_size))), random.below(keys)});
    }
    std::vector<TimePoint> busy_before;
    const std::vector<Started> started = simulate(arrivals, instances, policy, random, &busy_before);

    std::vector<int> served(arrivals.size(), 0);
    std::map<uint64_t, size_t> last_of_key;
    for (size_t b = 0; b < started.size(); ++b) {
      int64_t rows = 0;
      for (size_t a : started[b].members) {
        ++served[a];
        rows += arrivals[a].rows;
        EXPECT_EQ(arrivals[a].key, arrivals[started[b].members.front()].key);
        // In order within the key.
        const auto it = last_of_key.find(arrivals[a].key);
        if (it != last_of_key.end()) {
          EXPECT_GT(a, it->second) << "seed " << seed;
        }
        last_of_key[arrivals[a].key] = a;
        // Held no longer than the timeout: later starts only because no instance was idle meanwhile.
        const TimePoint free = std::max(arrivals[a].time, busy_before[b]);
        EXPECT_LE(started[b].time, free + policy.timeout) << "seed " << seed << " request " << a;
      }
      EXPECT_LE(rows, policy.max_batch_size);
      if (policy.mode == BatchMode::kFixed && rows < policy.max_batch_size) {
        // Started short of full: its oldest was due, or the next of its key would not have fitted.
        const size_t oldest = started[b].members.front(), newest = started[b].members.back();
        bool next_did_not_fit = false;
        for (size_t a = newest + 1; a < arrivals.size() && arrivals[a].time <= started[b].time; ++a) {
          if (arrivals[a].key != arrivals[oldest].key) continue;
          next_did_not_fit = rows + arrivals[a].rows > policy.max_batch_size;
          break;
        }
        EXPECT_TRUE(started[b].time >= arrivals[oldest].time + policy.timeout || next_did_not_fit) << "seed " << seed;
      }
    }
    EXPECT_TRUE(std::all_of(served.begin(), served.end(), [](int n) { return n == 1; }));
  }
}

}  // namespace
}  // namespace ds::serve
