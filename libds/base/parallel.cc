#include "libds/base/parallel.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>

namespace ds {
namespace {

// CPU quota of the control group, rounded up; a large number when there is none.
int cgroup_cpus() {
  std::FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r");
  if (f == nullptr) return 1 << 20;
  long long quota = 0, period = 0;
  const int read = std::fscanf(f, "%lld %lld", &quota, &period);  // "max 100000" reads nothing
  std::fclose(f);
  if (read != 2 || quota <= 0 || period <= 0) return 1 << 20;
  return static_cast<int>(std::max<long long>(1, (quota + period - 1) / period));
}

thread_local int t_threads = 0;

}  // namespace

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int affinity = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::max(1, std::min(affinity, cgroup_cpus()));
}

int num_threads() {
  if (t_threads == 0) set_num_threads(available_threads());
  return t_threads;
}

void set_num_threads(int threads) {
  t_threads = std::max(1, threads);
  omp_set_num_threads(t_threads);  // per calling thread: oneDNN called from here uses it too
}

namespace detail {

void parallel_ranges(int64_t n, int64_t grain, RangeFn fn, void* body) {
  if (n <= 0) return;
  const int64_t most = std::max<int64_t>(1, n / std::max<int64_t>(1, grain));
  const int team = static_cast<int>(std::min<int64_t>(num_threads(), most));
  if (team == 1 || omp_in_parallel()) {
    fn(body, 0, n);
    return;
  }
#pragma omp parallel for num_threads(team) schedule(static, 1)
  for (int t = 0; t < team; ++t) {
    fn(body, n * t / team, n * (t + 1) / team);
  }
}

}  // namespace detail
}  // namespace ds
