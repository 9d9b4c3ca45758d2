// How learning rate and sparsity develop over a training: pure functions of the step, so that a
// resumed run continues the same curve.
#pragma once

#include <cstdint>

namespace ds {

enum class ScheduleShape { kConstant, kLinear, kCosine };

// Linear warm-up to `base`, then constant, or down to `floor` along a line or half a cosine
// (Loshchilov & Hutter, "SGDR", ICLR 2017, one period).
struct LearningRateSchedule {
  ScheduleShape shape = ScheduleShape::kCosine;
  double base = 0.01;
  double floor = 0;
  int64_t warmup = 0;  // steps; the first has base / warmup, the last `base`

  // Rate of `step`, 0 <= step < total.
  double at(int64_t step, int64_t total) const;
};

enum class SparsityShape { kCosine, kCubic };

// Sparsity rises from 0 to the target between two points of the training, given as parts of its
// steps; what follows is for recovery. kCubic: Zhu & Gupta, "To prune, or not to prune", 2017:
// steep at first, gentle near the target. kCosine: half a cosine, gentle at both ends.
struct SparsitySchedule {
  SparsityShape shape = SparsityShape::kCubic;
  double begin = 0.0;
  double end = 0.7;

  double at(double target, int64_t step, int64_t total) const;
};

}  // namespace ds
