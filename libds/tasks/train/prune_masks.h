// Pruning during training: the masks of a step graph, ranked anew as the sparsity rises.
#pragma once

#include <span>

#include "libds/tasks/train/train_graph.h"

namespace ds {

// Masks the smallest weights of all prunable parameters together, so that `sparsity` of their elements
// are masked; what is masked stays so. Writes into the mask states. Small rises on the way to `target`
// are put off until they add up.
void update_masks(const TrainGraph& train, std::span<const Tensor> states, double sparsity, double target);

// Masked elements of the prunable parameters / their number; 0 when none has a mask.
double masked_fraction(const TrainGraph& train, std::span<const Tensor> states);

}  // namespace ds
