// Random changes of training images, as a pure function of (seed, epoch, sample).
//
// A specification is a comma-separated list:
//   shift:N   moves the picture by a whole number of pixels in [-N, N] along each of the two last
//             axes; what comes in from outside is zero
//   flip      mirrors the last axis with probability 1/2
// They apply in this order whatever the order of the list, to the values before the graph's own
// scaling, to inputs of rank >= 3 ([sample, ..., height, width]); other inputs stay as they are.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "libds/mem/tensor.h"

namespace ds {

struct Augment {
  int64_t shift = 0;
  bool flip = false;

  // Throws a usage error naming the faulty part.
  static Augment parse(const std::string& spec);
  bool active() const { return shift > 0 || flip; }
  // Changes `images` [batch, ..., H, W] in place; `rows` are the dataset rows of the batch.
  void apply(const Tensor& images, std::span<const int64_t> rows, uint64_t seed, int64_t epoch) const;
};

}  // namespace ds
