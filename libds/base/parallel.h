// The one way to use several threads inside an operator.
//
// parallel_for splits [0, n) into contiguous ranges, one call of `body(begin, end)` a range, on the
// calling thread's team. Ranges depend only on (n, grain, threads), so results are reproducible for
// a given thread count. Nested calls run serially. Built on OpenMP, whose pool oneDNN shares.
#pragma once

#include <cstdint>
#include <type_traits>

namespace ds {

// Threads that operators called from this thread may use (at least 1). Set per executor thread.
int num_threads();
void set_num_threads(int threads);
// What the machine offers this process (affinity and cgroup quota respected).
int available_threads();

namespace detail {
using RangeFn = void (*)(void* body, int64_t begin, int64_t end);
void parallel_ranges(int64_t n, int64_t grain, RangeFn fn, void* body);
}  // namespace detail

// `grain`: the least number of items worth a thread of its own.
template <typename Body>
void parallel_for(int64_t n, int64_t grain, Body&& body) {
  auto call = [](void* b, int64_t begin, int64_t end) { (*static_cast<std::remove_reference_t<Body>*>(b))(begin, end); };
  detail::parallel_ranges(n, grain, call, const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace ds
