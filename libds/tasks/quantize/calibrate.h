// Running a float model over samples to learn the ranges of its tensors, and how far a quantized one is from it.
#pragma once

#include <map>

#include "libds/tasks/quantize/quantize.h"

namespace ds {

// Ranges of `observed` values of `graph`. `samples`: how many rows of the data set to use.
std::map<ValueId, TensorRange> calibrate(const Graph& graph, const std::vector<ValueId>& observed, const Dataset& dataset,
                                         int64_t samples, Observer observer,
                                         const std::function<void(int64_t done, int64_t total)>& on_progress);

// Signal-to-noise ratio in dB of values of `quantized` against those of `graph`, pair by pair, over the first samples.
std::vector<double> signal_to_noise(const Graph& graph, const std::vector<ValueId>& reference, const Graph& quantized,
                                    const std::vector<ValueId>& measured, const Dataset& dataset, int64_t samples);

}  // namespace ds
