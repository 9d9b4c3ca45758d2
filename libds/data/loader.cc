#include "libds/data/loader.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "libds/base/random.h"

namespace ds {
namespace {

void shuffle(std::vector<int64_t>& rows, Random random) {
  for (size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[random.below(i)]);
}

}  // namespace

Split split_rows(int64_t rows, double fraction, uint64_t seed) {
  if (!(fraction >= 0 && fraction < 1)) fail(ExitCode::kUsage, "validation split {} is not in [0, 1)", fraction);
  std::vector<int64_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  Split split;
  if (fraction == 0) {
    split.train = std::move(order);
    return split;
  }
  shuffle(order, Random(seed, stream_of("split")));
  const auto held = static_cast<int64_t>(std::llround(fraction * static_cast<double>(rows)));
  if (held == 0 || held == rows) bad_data("a validation split of {} leaves one part of {} rows empty", fraction, rows);
  split.validation.assign(order.begin(), order.begin() + held);
  split.train.assign(order.begin() + held, order.end());
  std::sort(split.validation.begin(), split.validation.end());
  std::sort(split.train.begin(), split.train.end());
  return split;
}

std::vector<int64_t> shuffled(std::span<const int64_t> rows, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(rows.begin(), rows.end());
  shuffle(order, Random(seed, stream_of(fmt::format("shuffle/{}", epoch))));
  return order;
}

TrainLoader::TrainLoader(const Feed& feed, std::vector<int64_t> rows, int64_t batch_size, uint64_t seed, Augment augment)
    : feed_(feed), rows_(std::move(rows)), batch_size_(batch_size), seed_(seed), augment_(augment) {
  if (batch_size_ < 1) fail(ExitCode::kUsage, "batch size {} is below 1", batch_size_);
  if (static_cast<int64_t>(rows_.size()) < batch_size_)
    bad_data("{}: {} training rows are fewer than one batch of {}", feed_.dataset().name(), rows_.size(), batch_size_);
}

Batch TrainLoader::batch(int64_t epoch, int64_t step) {
  DS_CHECK(epoch >= 0 && step >= 0 && step < steps_per_epoch());
  if (epoch != epoch_) {
    order_ = shuffled(rows_, seed_, epoch);
    epoch_ = epoch;
  }
  const std::span<const int64_t> rows(order_.data() + step * batch_size_, static_cast<size_t>(batch_size_));
  Batch batch = feed_.batch(rows);
  for (const Tensor& input : batch.inputs) augment_.apply(input, rows, seed_, epoch);
  return batch;
}

std::vector<std::span<const int64_t>> in_order(std::span<const int64_t> rows, int64_t batch_size) {
  DS_CHECK(batch_size > 0);
  std::vector<std::span<const int64_t>> pieces;
  for (size_t at = 0; at < rows.size(); at += static_cast<size_t>(batch_size))
    pieces.push_back(rows.subspan(at, std::min(static_cast<size_t>(batch_size), rows.size() - at)));
  return pieces;
}

}  // namespace ds
