#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "libds/base/parallel.h"
#include "libds/ir/lower.h"
#include "libds/ir/rewriter.h"
#include "libds/run/body_runner.h"
#include "libds/run/executor.h"

namespace ds {
namespace {

// Integer inputs up to this size are shown to inference and to kernels as constants: axes, shapes, pads.
constexpr int64_t kMostShapeElements = 4096;

// One node with the kernel chosen for the operands of its latest run.
struct BoundNode {
  std::vector<TensorDesc> inputs;
  std::vector<Tensor> shape_contents;  // of the inputs that decide shapes
  std::vector<TensorDesc> outputs;
  std::unique_ptr<Kernel> kernel;
};

// Buffers of values that are not needed any more, for later ones and later runs: small graphs would otherwise spend
// much of a run in the allocator. Large buffers, which cost their page faults anyway, are not kept.
class BufferPool {
 public:
  Tensor tensor(const TensorDesc& desc) {
    const size_t bytes = Tensor::packed_bytes(desc.dtype, checked_numel(desc.shape));
    size_t best = free_.size();
    for (size_t i = 0; i < free_.size(); ++i) {
      const size_t has = free_[i]->bytes();
      if (has >= bytes && has <= 2 * bytes + kSlack && (best == free_.size() || has < free_[best]->bytes())) best = i;
    }
    if (best == free_.size()) return Tensor::empty(desc.dtype, desc.shape, Tier::kActivations);
    std::shared_ptr<Buffer> buffer = std::move(free_[best]);
    free_[best] = std::move(free_.back());
    free_.pop_back();
    kept_ -= buffer->bytes();
    return Tensor(desc.dtype, desc.shape, std::move(buffer));
  }

  // Takes the tensor's buffer unless somebody else holds it.
  void recycle(Tensor& t) {
    std::shared_ptr<Buffer> buffer = t.buffer();
    t = Tensor();
    if (buffer == nullptr || buffer.use_count() != 1 || free_.size() >= kMostBuffers) return;
    if (buffer->bytes() == 0 || buffer->bytes() > kMostBytes - kept_) return;
    kept_ += buffer->bytes();
    free_.push_back(std::move(buffer));
  }

 private:
  static constexpr size_t kMostBytes = 4u << 20, kMostBuffers = 64, kSlack = 256;
  std::vector<std::shared_ptr<Buffer>> free_;
  size_t kept_ = 0;  // bytes in free_
};

std::shared_ptr<Graph> lowered_copy(const Graph& graph) {
  auto copy = std::make_shared<Graph>(graph);
  Rewriter rw(*copy);
  lower_nodes(rw);
  return copy;
}

class EagerExecutor final : public Executor {
 public:
  EagerExecutor(std::shared_ptr<const Graph> graph, const CompileOptions& options)
      : original_(lowered_copy(*graph)), graph_(std::make_shared<Graph>(*original_)), rewriter_(*graph_), options_(options),
        order_(graph_->order()) {
    init_states(*graph_);
    is_state_.assign(graph_->value_capacity(), 0);
    for (size_t i = 0; i < graph_->states().size(); ++i) is_state_[static_cast<size_t>(graph_->states()[i].value)] = 1;
    fixed_.assign(graph_->value_capacity(), 0);
    for (size_t i = 0; i < graph_->value_capacity(); ++i)
      fixed_[i] = graph_->value(static_cast<ValueId>(i)).is_constant() && !is_state_[i];
    last_reader_.assign(graph_->value_capacity(), kNone);
    for (NodeId id : order_)
      for (ValueId in : graph_->node(id).inputs)
        if (in != kNone) last_reader_[static_cast<size_t>(in)] = id;
    for (ValueId out : graph_->outputs()) last_reader_[static_cast<size_t>(out)] = kNone;
    for (const State& s : graph_->states()) last_reader_[static_cast<size_t>(s.update)] = kNone;
    bound_.resize(graph_->node_capacity());
    pooled_.assign(graph_->value_capacity(), 0);
    values_.resize(graph_->value_capacity());
    for (size_t i = 0; i < values_.size(); ++i)
      if (fixed_[i]) values_[i] = *graph_->value(static_cast<ValueId>(i)).constant;
  }

  std::vector<Tensor> run(std::span<const Tensor> inputs) override {
    check_inputs(*original_, inputs);
    forget_values();  // what a run that failed has left
    for (size_t i = 0; i < inputs.size(); ++i) values_[static_cast<size_t>(graph_->inputs()[i])] = inputs[i];
    for (size_t i = 0; i < states_.size(); ++i) values_[static_cast<size_t>(graph_->states()[i].value)] = states_[i];
    for (NodeId id : order_) run_node(id);
    std::vector<Tensor> outputs;
    for (ValueId id : graph_->outputs()) {
      const Tensor& t = values_[static_cast<size_t>(id)];
      outputs.push_back(is_state_[static_cast<size_t>(id)] ? t.clone(Tier::kActivations) : t);
    }
    std::vector<Tensor> updates;
    for (const State& s : graph_->states()) {
      const Tensor& t = values_[static_cast<size_t>(s.update)];
      updates.push_back(is_state_[static_cast<size_t>(s.update)] ? t.clone() : t);
    }
    set_states(updates);
    forget_values();  // the caller's memory among them
    return outputs;
  }

 private:
  void forget_values() {
    for (size_t i = 0; i < values_.size(); ++i)
      if (!fixed_[i] && values_[i].defined()) values_[i] = Tensor();
    std::fill(pooled_.begin(), pooled_.end(), 0);
  }

  Tensor& value(ValueId id) { return values_[static_cast<size_t>(id)]; }

  void run_node(NodeId id) {
    const Node& n = graph_->node(id);
    if (n.def == nullptr) fail(ExitCode::kUnsupported, "{}: unknown operator", n.label());
    inputs_.clear();
    for (ValueId in : n.inputs) inputs_.push_back(in == kNone ? nullptr : &value(in));
    BoundNode& bound = bind(id, inputs_);
    with_context([&] { return n.label(); }, [&] {
      if (n.def->is_view) {
        value(n.outputs[0]) = inputs_[0]->reshaped(bound.outputs[0].shape);
        pooled_[static_cast<size_t>(n.outputs[0])] = pooled_[static_cast<size_t>(n.inputs[0])];
      } else {
        run_kernel(n, bound);
      }
      for (ValueId in : n.inputs)
        if (in != kNone && last_reader_[static_cast<size_t>(in)] == id) drop(in);
    });
  }

  void run_kernel(const Node& n, BoundNode& bound) {
    outputs_.assign(n.outputs.size(), nullptr);
    for (size_t i = 0; i < n.outputs.size(); ++i) {
      const ValueId out = n.outputs[i];
      if (out == kNone) continue;
      outputs_[i] = &value(out);
      if (n.def->data_dependent) continue;
      const TensorDesc& desc = bound.outputs[i];
      // What leaves the graph gets memory of its own.
      const bool leaves = last_reader_[static_cast<size_t>(out)] == kNone;
      pooled_[static_cast<size_t>(out)] = !leaves && !is_object(desc.dtype);
      if (pooled_[static_cast<size_t>(out)]) value(out) = pool_.tensor(desc);
      else if (is_object(desc.dtype)) value(out) = Tensor::empty(desc.dtype, desc.shape, Tier::kActivations);
      else value(out) = Tensor(desc.dtype, desc.shape, results_.take(Tensor::packed_bytes(desc.dtype, desc.numel())));
    }
    const size_t bytes = bound.kernel->workspace_bytes();
    std::shared_ptr<Buffer> own;  // large ones go at once
    if (bytes > kMostKeptWorkspace) own = Buffer::allocate(bytes, Tier::kActivations);
    else if (workspace_ == nullptr || workspace_->bytes() < bytes) workspace_ = Buffer::allocate(bytes, Tier::kActivations);
    bound.kernel->run(KernelContext(inputs_, outputs_, (own ? own : workspace_)->data()));
  }

  // Lets go of a value that nobody reads any more.
  void drop(ValueId id) {
    if (fixed_[static_cast<size_t>(id)]) return;
    if (pooled_[static_cast<size_t>(id)]) pool_.recycle(value(id));
    else value(id) = Tensor();
  }

  static bool decides_shape(const Node& n, size_t i) { return i < 32 && ((n.def->shape_inputs >> i) & 1); }

  bool still_fits(const BoundNode& b, const Node& n, std::span<const Tensor* const> inputs) const {
    if (b.inputs.size() != inputs.size() || (!b.kernel && !n.def->is_view)) return false;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const TensorDesc& d = b.inputs[i];
      if (d.defined() != (inputs[i] != nullptr)) return false;
      if (inputs[i] == nullptr) continue;
      if (d.dtype != inputs[i]->dtype() || d.shape != inputs[i]->shape()) return false;
      if (decides_shape(n, i) && !b.shape_contents[i].equal_bits(*inputs[i])) return false;
    }
    return true;
  }

  // Types the node's outputs for these operands and selects its kernel, unless the latest still fits.
  BoundNode& bind(NodeId id, std::span<const Tensor* const> inputs) {
    const Node& n = graph_->node(id);
    BoundNode& b = bound_[static_cast<size_t>(id)];
    if (still_fits(b, n, inputs)) return b;
    const BoundNode latest = std::exchange(b, BoundNode());  // its packed weights go over to the new kernel
    for (size_t i = 0; i < inputs.size(); ++i) {
      TensorDesc desc;
      Tensor content;
      if (inputs[i] != nullptr) {
        const Tensor& t = *inputs[i];
        const ValueId value = n.inputs[i];
        desc = {t.dtype(), t.shape(), Layout::kPlain};
        if (decides_shape(n, i)) content = t.clone();
        if (!fixed_[static_cast<size_t>(value)] && !is_state_[static_cast<size_t>(value)]) {
          rewriter_.set_type(value, t.dtype(), to_dims(t.shape()));
          if (decides_shape(n, i) && t.numel() <= kMostShapeElements)
            rewriter_.set_constant(value, std::make_shared<const Tensor>(content));
        }
      }
      b.inputs.push_back(std::move(desc));
      b.shape_contents.push_back(std::move(content));
    }
    if (!n.has_bodies()) rewriter_.infer(id);  // bodies make their own outputs
    with_context([&] { return n.label(); }, [&] {
      KernelQuery query = make_query(*graph_, id, is_state_, options_);
      query.body_runner = [this](const Node& node, std::string_view attr) { return body_runner(node, attr); };
      for (const TensorDesc& d : query.outputs) b.outputs.push_back(d);
      if (!n.def->is_view) b.kernel = select_kernel(*n.def, query).def->create(query);
    });
    for (ValueId in : n.inputs)  // contents shown for this node only
      if (in != kNone && !fixed_[static_cast<size_t>(in)] && !is_state_[static_cast<size_t>(in)]) rewriter_.clear_constant(in);
    return b;
  }

  // One per body, whatever shapes come. The body as it was given: that of the private copy would be
  // typed for one set of shapes.
  std::shared_ptr<BodyRunner> body_runner(const Node& node, std::string_view attr) {
    auto& runner = runners_[{&node - &graph_->node(0), std::string(attr)}];
    if (runner == nullptr) {
      const Node& given = original_->node(static_cast<NodeId>(&node - &graph_->node(0)));
      runner = make_body_runner(given.attr_graph(attr), options_);
    }
    return runner;
  }

  const std::shared_ptr<const Graph> original_;
  std::shared_ptr<Graph> graph_;  // a private copy: inference writes types into it
  Rewriter rewriter_;
  CompileOptions options_;
  std::vector<NodeId> order_;
  std::vector<char> is_state_, fixed_;  // by value
  std::vector<NodeId> last_reader_;     // by value; kNone: keep
  std::vector<BoundNode> bound_;        // by node
  std::vector<Tensor> values_;          // by value; constants are there between runs too
  std::vector<char> pooled_;            // by value: its buffer may go to pool_
  BufferPool pool_;
  OutputBuffers results_;
  static constexpr size_t kMostKeptWorkspace = 1u << 20;
  std::shared_ptr<Buffer> workspace_;   // of one kernel after the other
  std::vector<const Tensor*> inputs_;   // of the node that runs
  std::vector<Tensor*> outputs_;
  std::map<std::pair<std::ptrdiff_t, std::string>, std::shared_ptr<BodyRunner>> runners_;  // by node and body
};

}  // namespace

std::unique_ptr<Executor> make_eager_executor(std::shared_ptr<const Graph> graph, const CompileOptions& options) {
  return std::make_unique<EagerExecutor>(std::move(graph), options);
}

namespace {

// Whether the node is typed for these inputs, and nothing stands between it and its kernels.
bool is_ready(const Graph& graph, const Node& n, std::span<const Tensor> inputs) {
  if (n.def == nullptr || n.def->lower || n.def->kernels.empty() || n.has_bodies() || n.def->is_view) return false;
  const auto known = [&](const Value& v) { return v.dtype != DType::kUndefined && !is_object(v.dtype) && v.dims && all_known(*v.dims); };
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    if (n.inputs[i] == kNone) continue;
    const Value& v = graph.value(n.inputs[i]);
    if (!known(v) || v.dtype != inputs[i].dtype() || concrete(*v.dims) != inputs[i].shape()) return false;
  }
  return std::all_of(n.outputs.begin(), n.outputs.end(),
                     [&](ValueId out) { return out == kNone || n.def->data_dependent || known(graph.value(out)); });
}

// Such a node's results, without a graph of its own.
std::vector<Tensor> evaluate_ready(const Graph& graph, NodeId id, std::span<const Tensor> given) {
  const Node& n = graph.node(id);
  CompileOptions options;
  options.threads = num_threads();
  KernelQuery query = make_query(graph, id, std::vector<char>(graph.value_capacity(), 0), options);
  std::vector<const Tensor*> inputs;
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    inputs.push_back(n.inputs[i] == kNone ? nullptr : &given[i]);
    query.constants[i] = inputs[i];
  }
  std::vector<Tensor> results(n.outputs.size());
  std::vector<Tensor*> outputs(n.outputs.size(), nullptr);
  for (size_t i = 0; i < n.outputs.size(); ++i) {
    if (n.outputs[i] == kNone) continue;
    if (!n.def->data_dependent) results[i] = Tensor::empty(query.outputs[i].dtype, query.outputs[i].shape, Tier::kActivations);
    outputs[i] = &results[i];
  }
  const std::unique_ptr<Kernel> kernel = select_kernel(*n.def, query).def->create(query);
  const auto workspace = Buffer::allocate(kernel->workspace_bytes(), Tier::kActivations);
  kernel->run(KernelContext(inputs, outputs, workspace->data()));
  return results;
}

}  // namespace

std::vector<Tensor> evaluate_node(const Graph& graph, NodeId id, std::span<const Tensor> inputs) {
  if (is_ready(graph, graph.node(id), inputs))
    return with_context([&] { return graph.node(id).label(); }, [&] { return evaluate_ready(graph, id, inputs); });
  // A graph of this node alone, its operands as inputs.
  const Node& n = graph.node(id);
  auto single = std::make_shared<Graph>();
  Rewriter rw(*single);
  Node copy = n;
  copy.inputs.clear();
  copy.outputs.clear();
  std::vector<Tensor> given;
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    if (n.inputs[i] == kNone) {
      copy.inputs.push_back(kNone);
      continue;
    }
    copy.inputs.push_back(rw.add_input(fmt::format("in{}", i), inputs[i].dtype(), to_dims(inputs[i].shape())));
    given.push_back(inputs[i]);
  }
  std::vector<size_t> wanted;
  for (size_t i = 0; i < n.outputs.size(); ++i) {
    copy.outputs.push_back(n.outputs[i] == kNone ? kNone : rw.add_value(fmt::format("out{}", i)));
    if (n.outputs[i] == kNone) continue;
    rw.add_output(copy.outputs.back());
    wanted.push_back(i);
  }
  const NodeId added = rw.add_raw_node(std::move(copy));
  if (n.def != nullptr && n.def->lower) rw.infer(added);  // lowering goes by types
  CompileOptions options;
  options.threads = num_threads();
  std::vector<Tensor> results = make_eager_executor(single, options)->run(given);
  std::vector<Tensor> outputs(n.outputs.size());
  for (size_t i = 0; i < wanted.size(); ++i) outputs[wanted[i]] = std::move(results[i]);
  return outputs;
}

}  // namespace ds
