// Tensors whose content is made when it is asked for.
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

#include "libds/mem/tensor.h"
#include "libds/mem/transient_pages.h"

namespace ds {
namespace {

constexpr int64_t kRows = 100, kColumns = 1000;  // more than what is filled at once

struct Counted {
  std::shared_ptr<std::atomic<int>> fills = std::make_shared<std::atomic<int>>(0);
  Tensor tensor(int64_t rows = kRows) const {
    return Tensor::deferred(DType::kF32, {rows, kColumns}, [fills = fills, rows](std::byte* to) {
      ++*fills;
      std::iota(reinterpret_cast<float*>(to), reinterpret_cast<float*>(to) + rows * kColumns, 0.0f);
    });
  }
};

TEST(Deferred, FilledOnceOnFirstUse) {
  Counted c;
  const int64_t before = tier_bytes(Tier::kParameters);
  {
    const Tensor t = c.tensor(), view = t.reshaped({kRows * kColumns}), rows = t.rows(2, 4);
    EXPECT_EQ(*c.fills, 0);
    EXPECT_TRUE(t.buffer()->pending());
    EXPECT_EQ(tier_bytes(Tier::kParameters), before);
    EXPECT_EQ(rows.span<float>()[0], 2.0f * kColumns);
    EXPECT_EQ(view.data<float>()[7], 7.0f);
    EXPECT_EQ(t.span<float>().back(), static_cast<float>(kRows * kColumns - 1));
    EXPECT_EQ(*c.fills, 1);
    EXPECT_EQ(tier_bytes(Tier::kParameters), before + static_cast<int64_t>(t.bytes()));
  }
  EXPECT_EQ(tier_bytes(Tier::kParameters), before);
}

TEST(Deferred, TransientKeepsNothing) {
  Counted c;
  const Tensor t = c.tensor();
  for (int i = 1; i <= 3; ++i) {
    EXPECT_EQ(t.rows(1, 2).transient().data<float>()[3], kColumns + 3.0f);
    EXPECT_EQ(*c.fills, i);
    EXPECT_TRUE(t.buffer()->pending());
  }
  EXPECT_TRUE(t.clone().equal_bits(t.transient()));
  EXPECT_TRUE(t.buffer()->pending());
  const float* made = t.data<float>();
  EXPECT_EQ(t.transient().data<float>(), made);  // there already
}

TEST(Deferred, TransientCopiesTakeTurnsInTheSamePages) {
  Counted c;
  const Tensor large = c.tensor(), small = c.tensor(kRows / 2);
  const int64_t before = tier_bytes(Tier::kParameters);
  const TransientPages outer;
  for (int round = 0; round < 2; ++round) {
    const TransientPages inner;
    const Tensor first = large.transient();
    const void* pages = first.raw();
    const Tensor beside = small.transient();  // while the first is there
    EXPECT_NE(beside.raw(), pages);
    EXPECT_EQ(first.data<float>()[kRows * kColumns - 1], static_cast<float>(kRows * kColumns - 1));
    EXPECT_EQ(beside.data<float>()[7], 7.0f);
  }
  const void* pages = large.transient().raw();
  const Tensor next = small.transient();
  EXPECT_EQ(next.raw(), pages);
  EXPECT_EQ(next.data<float>()[kRows / 2 * kColumns - 1], static_cast<float>(kRows / 2 * kColumns - 1));
  EXPECT_TRUE(large.buffer()->pending());
  EXPECT_EQ(tier_bytes(Tier::kParameters), before + static_cast<int64_t>(next.bytes()));
}

TEST(Deferred, SmallTensorsAreFilledAtOnce) {
  Counted c;
  EXPECT_FALSE(c.tensor(1).buffer()->pending());
  EXPECT_EQ(*c.fills, 1);
  EXPECT_EQ(c.tensor(0).numel(), 0);
}

TEST(Deferred, ManyThreadsFillOnce) {
  Counted c;
  const Tensor t = c.tensor();
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] { right += t.data<float>()[i * kColumns] == static_cast<float>(i * kColumns); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 8);
  EXPECT_EQ(*c.fills, 1);
}

TEST(Deferred, AFailureLeavesItPending) {
  int left = 1;
  const Tensor t = Tensor::deferred(DType::kF32, {kRows, kColumns}, [&](std::byte* to) {
    if (left-- > 0) fail(ExitCode::kIoError, "not now");
    *reinterpret_cast<float*>(to) = 4;
  });
  EXPECT_THROW(t.raw(), Error);
  EXPECT_EQ(t.data<float>()[0], 4.0f);
}

}  // namespace
}  // namespace ds
