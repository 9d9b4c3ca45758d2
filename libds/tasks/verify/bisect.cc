#include "libds/tasks/verify/bisect.h"

#include <algorithm>
#include <map>

#include "libds/ir/rewriter.h"

namespace ds {
namespace {

// The part of a graph that leads to `values`, which become its outputs.
std::shared_ptr<Graph> part_leading_to(const Graph& graph, std::vector<ValueId> values) {
  auto part = std::make_shared<Graph>(graph);
  Rewriter rw(*part);
  rw.set_outputs(std::move(values));
  rw.remove_dead_nodes();
  return part;
}

// Contents of `values` after a run. `kernels`: by node, the kernel that computed it where a plan tells.
std::vector<Tensor> run_to(const BisectSide& side, const std::vector<ValueId>& values, std::map<NodeId, std::string>* kernels = nullptr) {
  Session session(part_leading_to(*side.graph, values), side.session);
  std::vector<Tensor> contents = session.run(side.inputs);
  if (kernels == nullptr) return contents;
  std::vector<Shape> shapes;
  for (const Tensor& t : side.inputs) shapes.push_back(t.shape());
  if (const auto plan = session.plan(shapes))
    for (const Step& step : plan->steps) kernels->emplace(step.node, step.def->name);
  return contents;
}

// Bytes of a value of a specialised graph; `otherwise` where its shape is not known before it is computed.
size_t bytes_of(const Value& v, size_t otherwise) {
  if (!v.dims || !all_known(*v.dims)) return otherwise;
  return Tensor::packed_bytes(v.dtype, checked_numel(concrete(*v.dims)));
}

class Bisector {
 public:
  Bisector(const BisectSide& got, const BisectSide& expected, std::span<const ValuePair> pairs, const BisectOptions& options)
      : got_(got), expected_(expected), pairs_(pairs), options_(options), counterpart_(got.graph->value_capacity(), kNone) {
    for (const ValuePair& p : pairs) counterpart_[static_cast<size_t>(p.got)] = p.expected;
  }

  Bisection run() {
    Bisection result;
    for (NodeId id : got_.graph->order()) {
      const Node& n = got_.graph->node(id);
      result.values += std::count_if(n.outputs.begin(), n.outputs.end(), [](ValueId out) { return out != kNone; });
    }
    for (const std::vector<ValuePair>& part : parts()) {
      std::vector<ValueId> mine, theirs;
      for (const ValuePair& p : part) {
        mine.push_back(p.got);
        theirs.push_back(p.expected);
      }
      kernels_.clear();
      const std::vector<Tensor> a = run_to(got_, mine, &kernels_), b = run_to(expected_, theirs);
      for (size_t i = 0; i < part.size(); ++i) {
        const OutputDifference d = compare(part[i].got, a[i], b[i]);
        ++result.compared;
        differences_.emplace(part[i].got, d);
        if (d.ok()) continue;
        result.first = describe(part[i], d, b[i]);
        return result;
      }
    }
    return result;
  }

 private:
  const Value& value(ValueId id) const { return got_.graph->value(id); }

  OutputDifference compare(ValueId id, const Tensor& got, const Tensor& expected) const {
    Tolerance tolerance = options_.tolerance;
    const DType dtype = value(id).dtype;
    if (!got_.graph->is_output(id)) {
      if (dtype == DType::kI8 || dtype == DType::kU8 || is_packed(dtype)) tolerance.atol = std::max(tolerance.atol, 1.0);
      else if (is_float(dtype)) tolerance.atol = std::max(tolerance.atol, tolerance.rtol * root_mean_square(expected));
    }
    return compare_output(value(id).name, got, expected, tolerance);
  }

  // Pairs in pieces whose contents fit into the memory allowed.
  std::vector<std::vector<ValuePair>> parts() const {
    const auto specialised = [](const BisectSide& side) {
      auto graph = std::make_shared<Graph>(*side.graph);
      Rewriter rw(*graph);
      for (size_t i = 0; i < side.inputs.size(); ++i)
        rw.set_type(graph->inputs()[i], side.inputs[i].dtype(), to_dims(side.inputs[i].shape()));
      rw.infer_all();
      return graph;
    };
    const std::shared_ptr<Graph> a = specialised(got_), b = specialised(expected_);
    const size_t otherwise = options_.memory / 64;
    std::vector<std::vector<ValuePair>> list;
    size_t held = 0;
    for (const ValuePair& p : pairs_) {
      const size_t bytes = bytes_of(a->value(p.got), otherwise) + bytes_of(b->value(p.expected), otherwise);
      if (list.empty() || held + bytes > options_.memory) {
        list.emplace_back();
        held = 0;
      }
      list.back().push_back(p);
      held += bytes;
    }
    return list;
  }

  Divergence describe(const ValuePair& pair, const OutputDifference& difference, const Tensor& expected) {
    const NodeId id = value(pair.got).producer;
    const Node& node = got_.graph->node(id);
    const Node& reference = expected_.graph->node(expected_.graph->value(pair.expected).producer);
    Divergence d;
    d.node = node.label();
    d.value = value(pair.got).name;
    if (const auto it = kernels_.find(id); it != kernels_.end()) d.kernel = it->second;
    d.reference_node = reference.label();
    d.difference = difference;
    for (size_t i = 0; i < node.inputs.size(); ++i)
      if (node.inputs[i] != kNone) d.operands.push_back(operand(node, i, reference));
    d.alone = run_alone(pair, expected);
    return d;
  }

  BisectOperand operand(const Node& node, size_t i, const Node& reference) const {
    const ValueId id = node.inputs[i];
    BisectOperand o;
    o.name = value(id).name;
    if (const auto it = differences_.find(id); it != differences_.end()) {
      o.kind = BisectOperand::Kind::kCompared;
      o.difference = it->second;
    } else if (value(id).is_constant()) {
      o.kind = BisectOperand::Kind::kConstant;
      const ValueId other = reference.op == node.op ? reference.input(i) : kNone;
      if (other != kNone && expected_.graph->value(other).is_constant())
        o.difference = compare_output(o.name, *value(id).constant, *expected_.graph->value(other).constant, options_.tolerance);
    } else if (got_.graph->is_input(id)) {
      o.kind = BisectOperand::Kind::kInput;
    }
    return o;
  }

  std::optional<OutputDifference> run_alone(const ValuePair& pair, const Tensor& expected) const {
    const Node& node = got_.graph->node(value(pair.got).producer);
    if (node.has_bodies()) return std::nullopt;
    std::vector<Tensor> inputs(node.inputs.size());
    std::vector<ValueId> wanted;
    std::vector<size_t> places;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId id = node.inputs[i];
      if (id == kNone) continue;
      const auto& graph_inputs = got_.graph->inputs();
      if (value(id).is_constant()) {
        inputs[i] = *value(id).constant;
      } else if (const auto it = std::find(graph_inputs.begin(), graph_inputs.end(), id); it != graph_inputs.end()) {
        inputs[i] = got_.inputs[static_cast<size_t>(it - graph_inputs.begin())];
      } else if (counterpart_[static_cast<size_t>(id)] != kNone) {
        wanted.push_back(counterpart_[static_cast<size_t>(id)]);
        places.push_back(i);
      } else {
        return std::nullopt;
      }
    }
    const std::vector<Tensor> fetched = wanted.empty() ? std::vector<Tensor>() : run_to(expected_, wanted);
    for (size_t k = 0; k < fetched.size(); ++k) {
      const DType dtype = value(node.inputs[places[k]]).dtype;
      if (fetched[k].dtype() != dtype && !(is_float(dtype) && is_float(fetched[k].dtype()))) return std::nullopt;
      inputs[places[k]] = fetched[k].dtype() == dtype ? fetched[k] : fetched[k].cast(dtype);
    }
    const NodeId id = value(pair.got).producer;
    try {
      const std::vector<Tensor> results = evaluate_node(*got_.graph, id, inputs);
      return compare(pair.got, results[static_cast<size_t>(value(pair.got).producer_index)], expected);
    } catch (const Error& error) {  // what the reference has does not fit this node
      if (error.code() != ExitCode::kBadData && error.code() != ExitCode::kUnsupported) throw;
      return std::nullopt;
    }
  }

  const BisectSide& got_;
  const BisectSide& expected_;
  std::span<const ValuePair> pairs_;
  const BisectOptions options_;
  std::vector<ValueId> counterpart_;  // by value of `got`
  std::map<ValueId, OutputDifference> differences_;
  std::map<NodeId, std::string> kernels_;
};

}  // namespace

Bisection bisect(const BisectSide& got, const BisectSide& expected, std::span<const ValuePair> pairs, const BisectOptions& options) {
  return Bisector(got, expected, pairs, options).run();
}

}  // namespace ds
