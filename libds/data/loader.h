// Which rows go into which batch, as pure functions: resuming at any step needs nothing but
// (seed, epoch, step).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "libds/data/augment.h"
#include "libds/data/dataset.h"

namespace ds {

// Rows of the two parts of a dataset, each in ascending order.
struct Split {
  std::vector<int64_t> train, validation;
};
// `fraction` in [0, 1) of the rows, chosen by `seed`, go to validation. Throws when either part of
// a real split would be empty.
Split split_rows(int64_t rows, double fraction, uint64_t seed);

// A permutation of `rows`, a function of (seed, epoch).
std::vector<int64_t> shuffled(std::span<const int64_t> rows, uint64_t seed, int64_t epoch);

// Training batches of one dataset.
class TrainLoader {
 public:
  // Every batch has batch_size rows: what is left over at the end of an epoch is dropped (another
  // rest each epoch). Throws when `rows` are fewer than one batch.
  TrainLoader(const Feed& feed, std::vector<int64_t> rows, int64_t batch_size, uint64_t seed, Augment augment = {});

  int64_t steps_per_epoch() const { return static_cast<int64_t>(rows_.size()) / batch_size_; }
  int64_t batch_size() const { return batch_size_; }
  // Batch `step` of `epoch`, both from 0. The permutation of the last epoch asked for is kept.
  Batch batch(int64_t epoch, int64_t step);

 private:
  const Feed& feed_;
  std::vector<int64_t> rows_;
  int64_t batch_size_;
  uint64_t seed_;
  Augment augment_;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;
};

// [begin, end) pieces of `rows` of at most batch_size rows, in order, the last one shorter.
std::vector<std::span<const int64_t>> in_order(std::span<const int64_t> rows, int64_t batch_size);

}  // namespace ds
