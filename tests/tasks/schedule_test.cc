#include "libds/tasks/train/schedule.h"

#include <gtest/gtest.h>

namespace ds {
namespace {

TEST(LearningRate, WarmsUpThenFallsAlongItsShape) {
  LearningRateSchedule s{.shape = ScheduleShape::kCosine, .base = 0.8, .floor = 0.0, .warmup = 4};
  EXPECT_DOUBLE_EQ(s.at(0, 104), 0.2);
  EXPECT_DOUBLE_EQ(s.at(3, 104), 0.8);
  EXPECT_DOUBLE_EQ(s.at(4, 104), 0.8);
  EXPECT_NEAR(s.at(54, 104), 0.4, 1e-12);
  EXPECT_GT(s.at(103, 104), 0.0);
  EXPECT_LT(s.at(103, 104), 0.001);
  s.shape = ScheduleShape::kLinear;
  s.floor = 0.1;
  EXPECT_NEAR(s.at(54, 104), 0.45, 1e-12);
  s.shape = ScheduleShape::kConstant;
  EXPECT_DOUBLE_EQ(s.at(103, 104), 0.8);
}

TEST(LearningRate, WarmupLongerThanTheTraining) {
  const LearningRateSchedule s{.shape = ScheduleShape::kCosine, .base = 1.0, .floor = 0.0, .warmup = 10};
  EXPECT_DOUBLE_EQ(s.at(4, 5), 0.5);
}

TEST(Sparsity, RisesMonotonicallyAndReachesTheTarget) {
  for (SparsityShape shape : {SparsityShape::kCubic, SparsityShape::kCosine}) {
    const SparsitySchedule s{.shape = shape, .begin = 0.1, .end = 0.6};
    double last = 0;
    for (int64_t step = 0; step < 100; ++step) {
      const double now = s.at(0.7, step, 100);
      EXPECT_GE(now, last);
      EXPECT_LE(now, 0.7);
      last = now;
      if (step <= 10) {
        EXPECT_EQ(now, 0);
      }
      if (step >= 60) {
        EXPECT_EQ(now, 0.7);
      }
    }
    EXPECT_NEAR(s.at(0.7, 35, 100), shape == SparsityShape::kCubic ? 0.7 * 0.875 : 0.35, 1e-12);
  }
}

}  // namespace
}  // namespace ds
