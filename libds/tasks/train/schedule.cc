#include "libds/tasks/train/schedule.h"

#include <algorithm>
#include <cmath>

namespace ds {
namespace {

constexpr double kPi = 3.14159265358979323846;

}  // namespace

double LearningRateSchedule::at(int64_t step, int64_t total) const {
  if (step < warmup) return base * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (shape == ScheduleShape::kConstant || total <= warmup) return base;
  const double done = std::clamp(static_cast<double>(step - warmup) / static_cast<double>(total - warmup), 0.0, 1.0);
  const double left = shape == ScheduleShape::kLinear ? 1 - done : 0.5 * (1 + std::cos(kPi * done));
  return floor + (base - floor) * left;
}

double SparsitySchedule::at(double target, int64_t step, int64_t total) const {
  const double first = begin * static_cast<double>(total), last = end * static_cast<double>(total);
  if (static_cast<double>(step) >= last) return target;
  if (static_cast<double>(step) <= first) return 0;
  const double done = (static_cast<double>(step) - first) / (last - first);
  const double left = 1 - done;
  return target * (shape == SparsityShape::kCubic ? 1 - left * left * left : 0.5 * (1 - std::cos(kPi * done)));
}

}  // namespace ds
