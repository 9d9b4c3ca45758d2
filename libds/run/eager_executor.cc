#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>

#include "libds/base/parallel.h"
#include "libds/ir/lower.h"
#include "libds/ir/rewriter.h"
#include "libds/mem/transient_pages.h"
#include "libds/run/body_runner.h"
#include "libds/run/executor.h"

namespace ds {
namespace {

// Integer inputs up to this size are shown to inference and to kernels as constants: axes, shapes, pads.
constexpr int64_t kMostShapeElements = 4096;

// One node with the kernel chosen for the operands of its latest run.
struct BoundNode {
  std::vector<const Tensor*> operands;  // where its inputs lie in every run; null where omitted
  std::vector<TensorDesc> inputs;       // empty until the first run
  std::vector<Tensor> shape_contents;   // of the inputs that decide shapes and may change; empty: there are none
  std::vector<TensorDesc> outputs;
  const KernelDef* def = nullptr;
  std::unique_ptr<Kernel> kernel;
};

// Buffers of values that are not needed any more, for later ones and later runs: small graphs would otherwise spend
// much of a run in the allocator. Large buffers, which cost their page faults anyway, are not kept.
class BufferPool {
 public:
  Tensor tensor(DType dtype, const Shape& shape, size_t bytes) {
    size_t best = free_.size();
    for (size_t i = 0; i < free_.size(); ++i) {
      const size_t has = free_[i]->bytes();
      if (has >= bytes && has <= 2 * bytes + kSlack && (best == free_.size() || has < free_[best]->bytes())) best = i;
    }
    if (best == free_.size()) return Tensor::empty(dtype, shape, Tier::kActivations);
    std::shared_ptr<Buffer> buffer = std::move(free_[best]);
    free_[best] = std::move(free_.back());
    free_.pop_back();
    kept_ -= buffer->bytes();
    return Tensor(dtype, shape, std::move(buffer));
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
  EagerExecutor(std::shared_ptr<const Graph> graph, const CompileOptions& options, std::shared_ptr<Arena> shared)
      : original_(lowered_copy(*graph)), graph_(std::make_shared<Graph>(*original_)), rewriter_(*graph_), options_(options),
        order_(graph_->order()), shared_(shared ? std::move(shared) : std::make_shared<Arena>()) {
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
    memory_.assign(graph_->value_capacity(), Memory::kShared);
    values_.resize(graph_->value_capacity());
    for (size_t i = 0; i < values_.size(); ++i)
      if (fixed_[i]) values_[i] = *graph_->value(static_cast<ValueId>(i)).constant;
    find_varying();
    bound_.resize(graph_->node_capacity());
    for (NodeId id : order_)
      for (ValueId in : graph_->node(id).inputs) bound_[static_cast<size_t>(id)].operands.push_back(in == kNone ? nullptr : &value(in));
  }

  std::vector<Tensor> run(std::span<const Tensor> inputs) override {
    check_inputs(*original_, inputs);
    const TransientPages pages;
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

  void enable_profile() override {
    if (!times_.empty()) return;
    times_.resize(graph_->node_capacity());
    for (size_t i = 0; i < times_.size(); ++i) times_[i] = {graph_.get(), static_cast<NodeId>(i), {}, 0, 0, {}};
  }
  std::vector<StepTime> profile() const override {
    std::vector<StepTime> ran;
    for (NodeId id : order_)
      if (!times_.empty() && times_[static_cast<size_t>(id)].runs > 0) ran.push_back(times_[static_cast<size_t>(id)]);
    return ran;
  }

 private:
  // Whose memory a value lies in.
  enum class Memory : char {
    kShared,  // others may hold it: the caller, a constant, another value
    kPooled,  // pool_'s
    kOwn      // small, and the value keeps it from run to run
  };

  // What runs put into values_: inputs, states and results.
  void find_varying() {
    const auto add = [&](ValueId id) {
      if (id != kNone) varying_.push_back(static_cast<size_t>(id));
    };
    for (ValueId id : graph_->inputs()) add(id);
    for (const State& s : graph_->states()) add(s.value);
    for (NodeId id : order_)
      for (ValueId out : graph_->node(id).outputs) add(out);
  }

  void forget_values() {
    for (size_t i : varying_) {
      if (memory_[i] == Memory::kOwn) continue;
      if (values_[i].defined()) values_[i] = Tensor();
      memory_[i] = Memory::kShared;
    }
  }

  Tensor& value(ValueId id) { return values_[static_cast<size_t>(id)]; }
  Memory& memory(ValueId id) { return memory_[static_cast<size_t>(id)]; }

  void run_node(NodeId id) {
    const Node& n = graph_->node(id);
    if (n.def == nullptr) fail(ExitCode::kUnsupported, "{}: unknown operator", n.label());
    BoundNode& bound = bound_[static_cast<size_t>(id)];
    if (!still_fits(bound, n)) bind(id, bound);
    with_context([&] { return n.label(); }, [&] {
      if (n.def->is_view) {
        value(n.outputs[0]) = bound.operands[0]->reshaped(bound.outputs[0].shape);
        memory(n.outputs[0]) = memory(n.inputs[0]) == Memory::kPooled ? Memory::kPooled : Memory::kShared;
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
      if (n.outputs[i] == kNone) continue;
      outputs_[i] = &value(n.outputs[i]);
      if (n.def->data_dependent) memory(n.outputs[i]) = Memory::kShared;  // it makes them
      else make_room(n.outputs[i], bound.outputs[i]);
    }
    const size_t bytes = bound.kernel->workspace_bytes();
    std::shared_ptr<Buffer> own;  // large ones go at once
    if (bytes > kMostKeptWorkspace) own = Buffer::allocate(bytes, Tier::kActivations);
    else if (workspace_ == nullptr || workspace_->bytes() < bytes) workspace_ = Buffer::allocate(bytes, Tier::kActivations);
    const KernelContext context(bound.operands, outputs_, (own ? own : workspace_)->data());
    if (times_.empty()) {
      bound.kernel->run(context);
      return;
    }
    const auto start = std::chrono::steady_clock::now();
    bound.kernel->run(context);
    StepTime& time = times_[static_cast<size_t>(&n - &graph_->node(0))];
    time.kernel = bound.def->name;
    time.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    time.runs += 1;
  }

  // Memory for a result that a kernel is about to write.
  void make_room(ValueId id, const TensorDesc& desc) {
    Tensor& t = value(id);
    // What the latest run left, unless somebody has taken hold of it.
    if (memory(id) == Memory::kOwn && t.dtype() == desc.dtype && t.shape() == desc.shape && t.buffer().use_count() == 1) return;
    if (is_object(desc.dtype)) {
      t = Tensor::empty(desc.dtype, desc.shape, Tier::kActivations);
      memory(id) = Memory::kShared;
      return;
    }
    const size_t bytes = Tensor::packed_bytes(desc.dtype, checked_numel(desc.shape));
    if (last_reader_[static_cast<size_t>(id)] == kNone) {  // what leaves the graph gets memory of its own
      t = Tensor(desc.dtype, desc.shape, shared_->outputs.take(bytes));
      memory(id) = Memory::kShared;
    } else if (bytes <= kMostOwn) {
      t = Tensor::empty(desc.dtype, desc.shape, Tier::kActivations);
      memory(id) = Memory::kOwn;
    } else {
      t = pool_.tensor(desc.dtype, desc.shape, bytes);
      memory(id) = Memory::kPooled;
    }
  }

  // Lets go of a value that nobody reads any more.
  void drop(ValueId id) {
    if (fixed_[static_cast<size_t>(id)] || memory(id) == Memory::kOwn) return;
    if (memory(id) == Memory::kPooled) pool_.recycle(value(id));
    else value(id) = Tensor();
  }

  static bool decides_shape(const Node& n, size_t i) { return i < 32 && ((n.def->shape_inputs >> i) & 1); }
  // The same content in every run, known to inference and to kernels all the time.
  bool is_fixed(ValueId id) const { return fixed_[static_cast<size_t>(id)]; }
  bool shown(const Node& n, size_t i) const {  // as a constant, for the time of binding the node
    return decides_shape(n, i) && n.inputs[i] != kNone && !is_fixed(n.inputs[i]) && !is_state_[static_cast<size_t>(n.inputs[i])];
  }

  static bool still_fits(const BoundNode& b, const Node& n) {
    if (!b.kernel && (!n.def->is_view || b.outputs.empty())) return false;
    for (size_t i = 0; i < b.operands.size(); ++i) {
      if (b.operands[i] == nullptr) continue;
      const TensorDesc& d = b.inputs[i];
      if (d.dtype != b.operands[i]->dtype() || d.shape != b.operands[i]->shape()) return false;
    }
    for (size_t i = 0; i < b.shape_contents.size(); ++i)
      if (b.shape_contents[i].defined() && !b.shape_contents[i].equal_bits(*b.operands[i])) return false;
    return true;
  }

  // Types the node's outputs for these operands and selects its kernel.
  void bind(NodeId id, BoundNode& b) {
    const Node& n = graph_->node(id);
    const std::unique_ptr<Kernel> latest = std::move(b.kernel);  // its packed weights go over to the new kernel
    b.inputs.resize(b.operands.size());
    b.outputs.clear();
    b.shape_contents.clear();
    for (size_t i = 0; i < b.operands.size(); ++i) {
      if (b.operands[i] == nullptr) continue;
      const Tensor& t = *b.operands[i];
      const ValueId value = n.inputs[i];
      b.inputs[i].dtype = t.dtype();
      b.inputs[i].shape = t.shape();
      if (decides_shape(n, i) && !is_fixed(value)) {
        b.shape_contents.resize(b.operands.size());
        b.shape_contents[i] = t.clone();
      }
      if (is_fixed(value) || is_state_[static_cast<size_t>(value)]) continue;
      const Value& known = graph_->value(value);
      if (known.dtype != t.dtype() || !known.dims || !same(*known.dims, t.shape())) rewriter_.set_type(value, t.dtype(), to_dims(t.shape()));
      if (shown(n, i) && t.numel() <= kMostShapeElements)
        rewriter_.set_constant(value, std::make_shared<const Tensor>(b.shape_contents[i]));
    }
    if (!n.has_bodies()) rewriter_.infer(id);  // bodies make their own outputs
    with_context([&] { return n.label(); }, [&] {
      KernelQuery query = make_query(*graph_, id, is_state_, options_);
      if (n.has_bodies()) query.body_runner = [this](const Node& node, std::string_view attr) { return body_runner(node, attr); };
      if (!n.def->is_view) {
        b.def = select_kernel(*n.def, query).def;
        b.kernel = b.def->create(query);
      }
      b.outputs = std::move(query.outputs);
    });
    for (size_t i = 0; i < n.inputs.size(); ++i)
      if (shown(n, i)) rewriter_.clear_constant(n.inputs[i]);
  }

  static bool same(const Dims& dims, const Shape& shape) {
    return std::equal(dims.begin(), dims.end(), shape.begin(), shape.end(), [](Dim d, int64_t n) { return d.raw == n; });
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
  std::vector<size_t> varying_;         // values that are not fixed
  std::vector<Memory> memory_;          // by value
  BufferPool pool_;
  const std::shared_ptr<Arena> shared_;  // for results
  static constexpr size_t kMostOwn = 4096;
  static constexpr size_t kMostKeptWorkspace = 1u << 20;
  std::shared_ptr<Buffer> workspace_;   // of one kernel after the other
  std::vector<Tensor*> outputs_;        // of the node that runs
  std::vector<StepTime> times_;         // by node; empty: nobody asked
  std::map<std::pair<std::ptrdiff_t, std::string>, std::shared_ptr<BodyRunner>> runners_;  // by node and body
};

}  // namespace

std::unique_ptr<Executor> make_eager_executor(std::shared_ptr<const Graph> graph, const CompileOptions& options, std::shared_ptr<Arena> shared) {
  return std::make_unique<EagerExecutor>(std::move(graph), options, std::move(shared));
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
