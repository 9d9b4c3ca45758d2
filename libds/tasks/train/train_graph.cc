#include "libds/tasks/train/train_graph.h"

#include <fnmatch.h>

#include <algorithm>
#include <set>

#include "libds/autodiff/autodiff.h"
#include "libds/compile/compile.h"
#include "libds/ir/lower.h"
#include "libds/ir/op_def.h"
#include "libds/ir/rewriter.h"
#include "libds/passes/sparsify.h"
#include "libds/passes/train_mode.h"
#include "libds/run/executor.h"

namespace ds {
namespace {

// Operators that only rescale, convert or reorder raw data on its way into a model.
bool is_preprocessing(const Node& n) {
  static constexpr std::string_view kOps[] = {"Cast", "Add", "Sub", "Mul", "Div", "Reshape", "Transpose", "Flatten",
                                              "Identity", "Unsqueeze", "Squeeze"};
  return n.domain.empty() && std::find(std::begin(kOps), std::end(kOps), n.op) != std::end(kOps);
}

// Values that are raw inputs, or raw inputs combined with constants by preprocessing alone. Integer
// inputs (token ids) are never scaled: arithmetic that follows them belongs to the model.
std::vector<char> raw_values(const Graph& model) {
  std::vector<char> raw(model.value_capacity(), 0);
  for (ValueId id : model.inputs()) raw[static_cast<size_t>(id)] = 1;
  for (NodeId id : model.order()) {
    const Node& n = model.node(id);
    if (!is_preprocessing(n)) continue;
    bool any_raw = false, only_raw = true;
    for (ValueId in : n.inputs) {
      if (in == kNone || model.value(in).is_constant()) continue;
      any_raw |= raw[static_cast<size_t>(in)] != 0;
      only_raw &= raw[static_cast<size_t>(in)] != 0;
    }
    if (any_raw && only_raw)
      for (ValueId out : n.outputs)
        if (out != kNone) raw[static_cast<size_t>(out)] = 1;
  }
  return raw;
}

bool frozen(const std::string& name, std::span<const std::string> patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& p) { return ::fnmatch(p.c_str(), name.c_str(), 0) == 0; });
}

// Zeros that a pruned file brings along. A tensor of nothing but zeros is an initial value, not a mask.
bool has_pruned_zeros(const Tensor& t) {
  const int64_t zeros = count_zeros(t);
  return zeros > 0 && zeros < t.numel();
}

Tensor filled(const Shape& shape, float value) {
  Tensor t = Tensor::empty(DType::kF32, shape);
  std::fill_n(t.mutable_data<float>(), t.numel(), value);
  return t;
}

// What a loss is computed from: the output, or what went into a final activation the loss has inside.
ValueId logits_of(const Graph& g, LossKind loss, ValueId output) {
  const NodeId producer = g.value(output).producer;
  if (producer == kNone) return output;
  const Node& n = g.node(producer);
  const bool inside = (loss == LossKind::kCrossEntropy && (n.is("Softmax") || n.is("LogSoftmax"))) ||
                      (loss == LossKind::kBce && n.is("Sigmoid"));
  return inside ? n.input(0) : output;
}

ValueId add_loss(Rewriter& rw, LossKind loss, ValueId output) {
  const Graph& g = rw.graph();
  const ValueId logits = logits_of(g, loss, output);
  const Dims dims = *g.value(logits).dims;
  if (loss == LossKind::kCrossEntropy) {
    if (dims.size() < 2)
      bad_data("cross-entropy needs an output of [N, classes, ...]; '{}' is {}", g.value(output).name, g.type_string(output));
    Dims target = {dims[0]};
    target.insert(target.end(), dims.begin() + 2, dims.end());
    const ValueId labels = rw.add_input("target", DType::kI64, target);
    return rw.emit("SoftmaxCrossEntropyLoss", {logits, labels}, {{"reduction", std::string("mean")}}, "loss");
  }
  const ValueId target = rw.add_input("target", g.value(logits).dtype, dims);
  return rw.emit(loss == LossKind::kMse ? "MseLoss" : "BceWithLogitsLoss", {logits, target}, {}, "loss");
}

class Builder {
 public:
  Builder(const Graph& model, const TrainGraphOptions& options)
      : model_(model), options_(options), rw_(*(result_.graph = std::make_shared<Graph>(model))) {
    for (const WeightOperand& w : prunable_weights(model)) prunable_.insert(w.weight);
  }

  TrainGraph build(std::span<const Shape> input_shapes) {
    Graph& g = *result_.graph;
    if (g.outputs().empty()) bad_data("the model has no output to train");
    const std::vector<ValueId> parameters = trainable_parameters(model_, options_.freeze);
    if (parameters.empty()) bad_data("the model has no trainable parameters");
    // Marked as states first, so that specialisation folds none of them.
    for (ValueId id : parameters) rw_.add_state({id, id});
    lower_nodes(rw_);
    specialize(rw_, input_shapes, evaluate_node);
    if (const std::string reason = unplannable_reason(g); !reason.empty()) fail(ExitCode::kUnsupported, "cannot train: {}", reason);
    rw_.clear_states();
    rw_.insert_at_end();
    step_ = rw_.add_input("step", DType::kI64, {});
    const std::vector<State> statistics = to_training_mode(rw_, step_, options_.seed);
    rw_.insert_at_end();
    const ValueId output = g.outputs()[0];
    const ValueId loss = add_loss(rw_, options_.loss, output);
    learning_rate_ = rw_.add_input("learning_rate", DType::kF32, {});
    const std::vector<ValueId> gradients = add_gradients(rw_, loss, parameters);
    rw_.insert_at_end();
    for (size_t i = 0; i < parameters.size(); ++i)
      if (gradients[i] != kNone) add_update(parameters[i], gradients[i]);
    for (const State& s : statistics)
      add_state(s, {g.value(s.value).name, StateRole::kRunningStatistic, s.value});
    order_interface(loss, output);
    rw_.remove_dead_nodes();
    return std::move(result_);
  }

 private:
  int add_state(State state, StateInfo info) {
    rw_.add_state(state);
    result_.states.push_back(std::move(info));
    return static_cast<int>(result_.states.size() - 1);
  }

  ValueId zeros_like(ValueId parameter, const std::string& name) {
    return rw_.add_constant(name, Tensor::zeros(DType::kF32, concrete(*result_.graph->value(parameter).dims)));
  }

  void add_update(ValueId parameter, ValueId gradient) {
    Graph& g = *result_.graph;
    const std::string name = g.value(parameter).name;
    const std::shared_ptr<const Tensor> content = g.value(parameter).constant;
    const bool prunable = prunable_.count(parameter) > 0;
    const float decay = content->rank() >= 2 ? options_.weight_decay : 0.0f;
    StateInfo info{name, StateRole::kParameter, parameter};
    info.prunable = prunable;
    ValueId mask = kNone;
    const bool keeps_zeros = content->rank() >= 2 && has_pruned_zeros(*content);
    if ((prunable && options_.prune) || keeps_zeros) {
      const Tensor everything = filled(content->shape(), 1.0f);
      mask = rw_.add_constant(name + "/mask", keeps_zeros ? zero_masks(std::span(content.get(), 1))[0] : everything);
      info.mask = add_state({mask, mask}, {name + "/mask", StateRole::kMask});
    }
    const auto moment = [&](const char* suffix) { return zeros_like(parameter, name + suffix); };
    if (options_.optimizer == OptimizerKind::kSgd) {
      const ValueId velocity = moment("/momentum");
      std::vector<ValueId> inputs = {parameter, gradient, velocity, learning_rate_};
      if (mask != kNone) inputs.push_back(mask);
      const NodeId node = rw_.add_node("SgdUpdate", inputs,
                                       {{"momentum", options_.momentum}, {"weight_decay", decay},
                                        {"nesterov", int64_t{options_.nesterov}}}, name + "/update", 2);
      finish(node, {parameter, velocity}, std::move(info), {"/momentum"});
    } else {
      const ValueId m = moment("/m"), v = moment("/v");
      std::vector<ValueId> inputs = {parameter, gradient, m, v, learning_rate_, step_};
      if (mask != kNone) inputs.push_back(mask);
      const NodeId node = rw_.add_node("AdamWUpdate", inputs,
                                       {{"beta1", options_.beta1}, {"beta2", options_.beta2},
                                        {"epsilon", options_.epsilon}, {"weight_decay", decay}}, name + "/update", 3);
      finish(node, {parameter, m, v}, std::move(info), {"/m", "/v"});
    }
    result_.gradients.push_back(gradient);
  }

  // Binds an update node's outputs: the first to the parameter, the others to its moments.
  void finish(NodeId node, const std::vector<ValueId>& values, StateInfo info, const std::vector<std::string>& moments) {
    const std::vector<ValueId> updates = result_.graph->node(node).outputs;
    const std::string name = info.name;
    add_state({values[0], updates[0]}, std::move(info));
    for (size_t i = 1; i < values.size(); ++i)
      add_state({values[i], updates[i]}, {name + moments[i - 1], StateRole::kOptimizer});
  }

  // Inputs: the model's, target, learning_rate, step. Outputs: loss, prediction.
  void order_interface(ValueId loss, ValueId output) {
    const Graph& g = *result_.graph;
    std::vector<ValueId> inputs(g.inputs().begin(), g.inputs().begin() + static_cast<ptrdiff_t>(model_.inputs().size()));
    inputs.push_back(g.find_value("target"));
    inputs.push_back(learning_rate_);
    inputs.push_back(step_);
    rw_.set_inputs(std::move(inputs));
    rw_.set_outputs({loss, output});
  }

  const Graph& model_;
  const TrainGraphOptions& options_;
  TrainGraph result_;
  Rewriter rw_;
  std::set<ValueId> prunable_;  // weights that magnitude pruning may zero
  ValueId step_ = kNone, learning_rate_ = kNone;
};

}  // namespace

std::vector<ValueId> trainable_parameters(const Graph& model, std::span<const std::string> freeze) {
  const std::vector<char> raw = raw_values(model);
  std::vector<ValueId> parameters;
  for (ValueId id : model.initializers()) {
    const Value& v = model.value(id);
    if (v.dtype != DType::kF32 || v.constant->numel() <= 1 || frozen(v.name, freeze)) continue;
    const bool trained = std::any_of(v.users.begin(), v.users.end(), [&](NodeId user) {
      const Node& n = model.node(user);
      if (n.is("BatchNormalization") && (n.input(3) == id || n.input(4) == id)) return false;
      return std::none_of(n.outputs.begin(), n.outputs.end(), [&](ValueId out) { return out != kNone && raw[static_cast<size_t>(out)]; });
    });
    if (trained) parameters.push_back(id);
  }
  return parameters;
}

TrainGraph build_train_graph(const Graph& model, std::span<const Shape> input_shapes, const TrainGraphOptions& options) {
  return Builder(model, options).build(input_shapes);
}

std::shared_ptr<Graph> with_loss(const Graph& model, LossKind loss) {
  auto graph = std::make_shared<Graph>(model);
  Rewriter rw(*graph);
  if (graph->outputs().empty()) bad_data("the model has no output");
  const ValueId output = graph->outputs()[0];
  if (!graph->value(output).dims) bad_data("the shape of output '{}' is not known", graph->value(output).name);
  const ValueId value = add_loss(rw, loss, output);
  rw.set_outputs({value, output});
  return graph;
}

std::shared_ptr<Graph> with_trained_weights(const Graph& model, const TrainGraph& train, std::span<const Tensor> states) {
  auto trained = std::make_shared<Graph>(model);
  Rewriter rw(*trained);
  for (size_t i = 0; i < train.states.size(); ++i)
    if (train.states[i].model_value != kNone)
      rw.set_constant(train.states[i].model_value, std::make_shared<const Tensor>(states[i].clone(Tier::kParameters)));
  return trained;
}

}  // namespace ds
