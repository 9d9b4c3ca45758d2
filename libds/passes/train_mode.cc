#include "libds/passes/train_mode.h"

#include "libds/base/random.h"
#include "libds/ir/rewriter.h"

namespace ds {
namespace {

class Converter {
 public:
  Converter(Rewriter& rewriter, ValueId step, uint64_t seed) : rw_(rewriter), step_(step), seed_(seed) {}

  std::vector<State> run() {
    for (NodeId id : rw_.graph().order()) {
      const Node n = rw_.graph().node(id);  // a copy: adding nodes moves the arena
      if (!n.is("BatchNormalization") && !n.is("Dropout")) continue;
      rw_.insert_before(id);
      with_context([&] { return n.label(); }, [&] { n.is("Dropout") ? convert_dropout(n) : convert_batchnorm(n); });
      rw_.erase_node(id);
    }
    return std::move(states_);
  }

 private:
  // The newest content of a running statistic: two nodes that share one update it one after the other.
  ValueId current(ValueId statistic) const {
    for (const State& s : states_)
      if (s.value == statistic) return s.update;
    return statistic;
  }

  void set_update(ValueId statistic, ValueId update) {
    for (State& s : states_)
      if (s.value == statistic) return static_cast<void>(s.update = update);
    if (rw_.graph().value(statistic).is_constant()) states_.push_back({statistic, update});
  }

  void convert_batchnorm(const Node& n) {
    const Attributes attrs = {{"epsilon", n.attr_float("epsilon", 1e-5f)}, {"momentum", n.attr_float("momentum", 0.9f)}};
    std::vector<ValueId> inputs = n.inputs;
    for (size_t i : {3, 4}) inputs[i] = current(n.inputs[i]);
    const NodeId node = rw_.add_node("BatchNormTrain", inputs, attrs, n.name, 5);
    const std::vector<ValueId> outputs = rw_.graph().node(node).outputs;
    for (size_t i = 0; i < 3; ++i)
      if (n.output(i) != kNone) rw_.replace_uses(n.outputs[i], outputs[i]);
    for (size_t i : {1, 2}) set_update(n.inputs[i + 2], outputs[i]);
  }

  void convert_dropout(const Node& n) {
    const Graph& g = rw_.graph();
    if (n.output(1) != kNone && (!g.value(n.outputs[1]).users.empty() || g.is_output(n.outputs[1])))
      fail(ExitCode::kUnsupported, "its mask is used");
    float ratio = 0.5f;
    if (const ValueId in = n.input(1); in != kNone) {
      const auto content = g.value(in).constant;
      if (content == nullptr || content->numel() != 1) fail(ExitCode::kUnsupported, "its ratio is not a constant");
      ratio = static_cast<float>(content->to_doubles()[0]);
    }
    if (ratio == 0.0f) return rw_.replace_uses(n.outputs[0], n.inputs[0]);
    const std::string name = n.name.empty() ? g.value(n.outputs[0]).name : n.name;
    const Attributes attrs = {{"ratio", ratio}, {"seed", static_cast<int64_t>(seed_)}, {"stream", static_cast<int64_t>(stream_of(name))}};
    rw_.replace_uses(n.outputs[0], rw_.emit("DropoutTrain", {n.inputs[0], step_}, attrs, name));
  }

  Rewriter& rw_;
  ValueId step_;
  uint64_t seed_;
  std::vector<State> states_;
};

}  // namespace

std::vector<State> to_training_mode(Rewriter& rewriter, ValueId step, uint64_t seed) {
  return Converter(rewriter, step, seed).run();
}

}  // namespace ds
