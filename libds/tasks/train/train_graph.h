// The training step as one graph: forward, loss, backward and optimizer.
//
// Built from a model by rewrites only. Parameters, optimizer moments, running statistics and pruning
// masks become states (graph.states()); the executor updates them in place. The model itself is not
// changed: with_trained_weights() puts the result back into a copy of it.
//
// Interface of the step graph, N being the batch size:
//   inputs   the model's inputs; "target" (labels i64 [N] for cross-entropy, else f32 like the output);
//            "learning_rate" f32 scalar; "step" i64 scalar, counting from 0 over the whole training
//   outputs  the mean loss (f32 scalar); the model's first output [N, ...]
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

enum class LossKind { kCrossEntropy, kMse, kBce };
enum class OptimizerKind { kSgd, kAdamW };

struct TrainGraphOptions {
  LossKind loss = LossKind::kCrossEntropy;
  OptimizerKind optimizer = OptimizerKind::kSgd;
  float momentum = 0.9f;      // sgd
  bool nesterov = false;      // sgd
  float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f;  // adamw
  float weight_decay = 0.0f;  // on parameters of rank >= 2 only: biases and norms are not decayed
  // Gives every prunable weight a mask; otherwise only weights that contain zeros already get one.
  bool prune = false;
  std::vector<std::string> freeze;  // glob patterns of parameter names that stay as they are
  uint64_t seed = 0;                // of dropout
};

enum class StateRole { kParameter, kOptimizer, kRunningStatistic, kMask };

struct StateInfo {
  std::string name;             // "fc1.weight", "fc1.weight/momentum", "fc1.weight/mask"
  StateRole role = StateRole::kParameter;
  ValueId model_value = kNone;  // initializer of the model it continues; kNone for moments and masks
  int mask = -1;                // parameters: index of their mask among the states
  bool prunable = false;        // parameters: a weight that magnitude pruning may mask
};

struct TrainGraph {
  std::shared_ptr<Graph> graph;
  std::vector<StateInfo> states;  // in the order of graph->states()
  std::vector<ValueId> gradients; // per parameter, for tests and for all-reduce; order of the parameters
};

// Initializers that training changes, in the model's order: float, more than one element, no running
// statistic, not part of the preprocessing of raw inputs (scaling, mean subtraction), not frozen.
std::vector<ValueId> trainable_parameters(const Graph& model, std::span<const std::string> freeze);

// Throws kUnsupported naming every operator without a gradient, kBadData when the loss does not fit
// the model's output.
TrainGraph build_train_graph(const Graph& model, std::span<const Shape> input_shapes, const TrainGraphOptions& options);

// The model with its loss behind it, for validation: inputs the model's and "target", outputs the mean
// loss and the model's first output.
std::shared_ptr<Graph> with_loss(const Graph& model, LossKind loss);

// A copy of the model whose initializers have the content of the states.
std::shared_ptr<Graph> with_trained_weights(const Graph& model, const TrainGraph& train, std::span<const Tensor> states);

}  // namespace ds
