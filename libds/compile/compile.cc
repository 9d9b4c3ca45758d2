#include "libds/compile/compile.h"

#include <algorithm>

#include "libds/base/log.h"
#include "libds/compile/layout.h"
#include "libds/compile/memory_plan.h"
#include "libds/compile/schedule.h"
#include "libds/mem/transient_pages.h"

namespace ds {

KernelQuery make_query(const Graph& graph, NodeId id, const std::vector<char>& is_state, const CompileOptions& options) {
  const Node& n = graph.node(id);
  KernelQuery q{n, {}, {}, {}, options.isa, options.threads};
  q.for_sizes = options.for_sizes;
  q.packed = options.packed.get();
  const auto desc = [&](ValueId v) {
    TensorDesc d;
    if (v == kNone) return d;
    const Value& value = graph.value(v);
    d.dtype = value.dtype;
    if (value.dims && all_known(*value.dims)) d.shape = concrete(*value.dims);
    return d;
  };
  for (ValueId in : n.inputs) {
    q.inputs.push_back(desc(in));
    const bool fixed = in != kNone && !is_state[static_cast<size_t>(in)];
    q.constants.push_back(fixed ? graph.value(in).constant.get() : nullptr);
  }
  for (ValueId out : n.outputs) q.outputs.push_back(desc(out));
  return q;
}

namespace {

class Compiler {
 public:
  Compiler(LayoutPlan layouts, const CompileOptions& options)
      : graph_(*layouts.graph), options_(options), plan_(std::make_shared<Plan>()), layouts_(std::move(layouts.of)) {
    plan_->graph = std::move(layouts.graph);
    slot_of_.assign(graph_.value_capacity(), -1);
    is_state_.assign(graph_.value_capacity(), 0);
    if (options_.previous == nullptr) return;
    previous_step_.assign(options_.previous->graph->node_capacity(), nullptr);
    for (const Step& s : options_.previous->steps) previous_step_[static_cast<size_t>(s.node)] = &s;
  }

  std::shared_ptr<const Plan> run() {
    bind_interface();
    for (NodeId id : schedule(graph_, is_state_)) add_step(id);
    find_lifetimes();
    share_memory();
    bind_outputs();
    place();
    totals();
    if (log_enabled("plan")) log_line("plan", print_plan(*plan_));
    return plan_;
  }

 private:
  Slot& slot(int s) { return plan_->slots[static_cast<size_t>(s)]; }
  int root(int s) const {
    while (plan_->slots[static_cast<size_t>(s)].root != s) s = plan_->slots[static_cast<size_t>(s)].root;
    return s;
  }

  int new_slot(ValueId value, Storage storage, size_t index = 0) {
    const Value& v = graph_.value(value);
    Slot s;
    s.value = value;
    s.desc = {v.dtype, concrete(*v.dims), layouts_.empty() ? Layout::kPlain : layouts_[static_cast<size_t>(value)]};
    s.storage = storage;
    s.index = static_cast<int>(index);
    s.root = static_cast<int>(plan_->slots.size());
    slot_of_[static_cast<size_t>(value)] = s.root;
    plan_->slots.push_back(std::move(s));
    return plan_->slots.back().root;
  }

  // The slot of a value that exists already: bound, made by a step, or a constant seen for the first time.
  int slot_for(ValueId id) {
    const int existing = slot_of_[static_cast<size_t>(id)];
    if (existing >= 0) return existing;
    DS_CHECK(graph_.value(id).is_constant());
    return new_slot(id, Storage::kConstant);
  }

  void bind_interface() {
    for (size_t i = 0; i < graph_.inputs().size(); ++i)
      plan_->inputs.push_back(new_slot(graph_.inputs()[i], Storage::kInput, i));
    for (size_t i = 0; i < graph_.states().size(); ++i) {
      const ValueId id = graph_.states()[i].value;
      is_state_[static_cast<size_t>(id)] = 1;
      plan_->states.push_back(new_slot(id, Storage::kState, i));
    }
  }

  void add_step(NodeId id) {
    const Node& n = graph_.node(id);
    with_context([&] { return n.label(); }, [&] {
      Step step;
      step.node = id;
      for (ValueId in : n.inputs) step.inputs.push_back(in == kNone ? -1 : slot_for(in));
      for (ValueId out : n.outputs) step.outputs.push_back(out == kNone ? -1 : new_slot(out, Storage::kArena));
      if (n.def->is_view) {  // nothing runs
        slot(step.outputs[0]).root = root(step.inputs[0]);
        return;
      }
      KernelQuery query = make_query(graph_, id, is_state_, options_);
      set_layouts(query, layouts_);
      const Step* latest = same_step(id, query);
      step.def = latest != nullptr ? latest->def : select_kernel(*n.def, query).def;
      step.kernel = latest != nullptr ? latest->kernel : std::shared_ptr<Kernel>(step.def->create(query));
      step.workspace_bytes = step.kernel->workspace_bytes();
      step.cost = node_cost(*n.def, query);
      if (latest == nullptr) plan_->packed_bytes += step.kernel->packed_bytes();
      if (options_.for_sizes) step.kernel.reset();
      plan_->steps.push_back(std::move(step));
    });
  }

  // The previous plan's step of this node, where the node sees the same as there.
  const Step* same_step(NodeId id, const KernelQuery& query) const {
    if (static_cast<size_t>(id) >= previous_step_.size()) return nullptr;
    const Step* step = previous_step_[static_cast<size_t>(id)];
    if (step == nullptr || step->kernel == nullptr) return nullptr;
    const Plan& plan = *options_.previous;
    const Node &now = query.node, &then = plan.graph->node(id);
    if (now.def != then.def || now.def->stateful || now.name != then.name || now.has_bodies() || !same_attributes(now, then)) return nullptr;
    const auto same_operands = [&](const std::vector<TensorDesc>& operands, const std::vector<int>& slots) {
      return std::equal(operands.begin(), operands.end(), slots.begin(), slots.end(), [&](const TensorDesc& d, int s) {
        if (s < 0 || !d.defined()) return s < 0 && !d.defined();
        const TensorDesc& other = plan.slots[static_cast<size_t>(s)].desc;
        return d.dtype == other.dtype && d.layout == other.layout && d.shape == other.shape;
      });
    };
    if (!same_operands(query.inputs, step->inputs) || !same_operands(query.outputs, step->outputs)) return nullptr;
    for (size_t i = 0; i < query.constants.size(); ++i) {
      const ValueId in = then.inputs[i];
      const Tensor* constant = in == kNone || is_state_of(*plan.graph, in) ? nullptr : plan.graph->value(in).constant.get();
      if (query.constants[i] == constant) continue;
      // Shape arithmetic makes its constants anew for each plan.
      if (query.constants[i] == nullptr || constant == nullptr || constant->numel() > kMostCompared || !constant->equal_bits(*query.constants[i]))
        return nullptr;
    }
    return step;
  }

  static bool is_state_of(const Graph& graph, ValueId id) {
    return std::any_of(graph.states().begin(), graph.states().end(), [&](const State& s) { return s.value == id; });
  }

  static bool same_attributes(const Node& a, const Node& b) {
    return std::equal(a.attrs.begin(), a.attrs.end(), b.attrs.begin(), b.attrs.end(), [](const auto& x, const auto& y) {
      if (x.first != y.first || x.second.index() != y.second.index()) return false;
      return std::visit([&](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, Tensor>) return value.buffer() == std::get<T>(y.second).buffer() && value.equal_bits(std::get<T>(y.second));
        else return value == std::get<T>(y.second);
      }, x.second);
    });
  }

  void find_lifetimes() {
    const int end = static_cast<int>(plan_->steps.size());
    for (ValueId id : graph_.outputs()) slot_for(id);
    for (const State& s : graph_.states()) plan_->updates.push_back(slot_for(s.update));
    for (Slot& s : plan_->slots) s.first_step = end, s.last_step = -1;
    for (int i = 0; i < end; ++i) {
      const Step& step = plan_->steps[static_cast<size_t>(i)];
      for (const std::vector<int>* list : {&step.inputs, &step.outputs}) {
        for (int s : *list) {
          if (s < 0) continue;
          Slot& r = slot(root(s));
          r.first_step = std::min(r.first_step, i);
          r.last_step = std::max(r.last_step, i);
        }
      }
    }
    for (ValueId id : graph_.outputs()) slot(root(slot_for(id))).last_step = end;
    for (int s : plan_->updates) slot(root(s)).last_step = end;
  }

  // Whether the output of `pair` may take over the bytes of its input in step i.
  bool can_share(int i, const InPlace& pair, const std::vector<int>& state_of) {
    const Step& step = plan_->steps[static_cast<size_t>(i)];
    if (pair.input >= static_cast<int>(step.inputs.size()) || pair.output >= static_cast<int>(step.outputs.size())) return false;
    const int in = step.inputs[static_cast<size_t>(pair.input)], out = step.outputs[static_cast<size_t>(pair.output)];
    if (in < 0 || out < 0 || root(out) != out) return false;
    const int source = root(in);
    const Slot& from = slot(source);
    if (from.last_step != i || from.desc.bytes() != slot(out).desc.bytes()) return false;
    const auto on_source = [&](int s) { return s >= 0 && root(s) == source; };
    if (std::count_if(step.inputs.begin(), step.inputs.end(), on_source) != 1) return false;
    if (std::any_of(step.outputs.begin(), step.outputs.end(), on_source)) return false;
    if (from.storage == Storage::kState) return state_of[static_cast<size_t>(slot(out).value)] == from.index;
    return from.storage == Storage::kArena;
  }

  void share_memory() {
    std::vector<int> state_of(graph_.value_capacity(), -1);  // value -> state it becomes
    for (size_t i = 0; i < graph_.states().size(); ++i)
      state_of[static_cast<size_t>(graph_.states()[i].update)] = static_cast<int>(i);
    for (int i = 0; i < static_cast<int>(plan_->steps.size()); ++i) {
      const Step& step = plan_->steps[static_cast<size_t>(i)];
      for (const InPlace& pair : step.def->in_place) {
        if (!can_share(i, pair, state_of)) continue;
        const int source = root(step.inputs[static_cast<size_t>(pair.input)]);
        Slot& out = slot(step.outputs[static_cast<size_t>(pair.output)]);
        slot(source).last_step = std::max(slot(source).last_step, out.last_step);
        out.root = source;
      }
    }
  }

  // The first output over an arena root gets memory of its own for the run; others share or copy.
  void bind_outputs() {
    for (size_t i = 0; i < graph_.outputs().size(); ++i) {
      const int s = slot_for(graph_.outputs()[i]);
      Slot& r = slot(root(s));
      if (r.storage == Storage::kArena) {
        r.storage = Storage::kOutput;
        r.index = static_cast<int>(i);
        plan_->output_bytes += r.desc.bytes();
      }
      plan_->outputs.push_back(s);
    }
  }

  void place() {
    std::vector<Lifetime> lifetimes;
    std::vector<size_t*> offsets;  // where each result goes
    for (size_t i = 0; i < plan_->slots.size(); ++i) {
      Slot& s = plan_->slots[i];
      if (s.root != static_cast<int>(i) || s.storage != Storage::kArena || s.last_step < 0) continue;
      lifetimes.push_back({s.desc.bytes(), s.first_step, s.last_step, 0});
      offsets.push_back(&s.offset);
    }
    for (size_t i = 0; i < plan_->steps.size(); ++i) {
      Step& s = plan_->steps[i];
      if (s.workspace_bytes == 0) continue;
      lifetimes.push_back({s.workspace_bytes, static_cast<int>(i), static_cast<int>(i), 0});
      offsets.push_back(&s.workspace_offset);
    }
    plan_->arena_bytes = assign_offsets(lifetimes);
    plan_->live_peak_bytes = live_peak(lifetimes);
    for (size_t i = 0; i < lifetimes.size(); ++i) *offsets[i] = lifetimes[i].offset;
  }

  void totals() {
    for (int s : plan_->states) plan_->state_bytes += slot(s).desc.bytes();
    for (const Step& s : plan_->steps) plan_->flops += s.cost.flops;
    for (Slot& s : plan_->slots) s.root = root(s.root);
  }

  const Graph& graph_;
  const CompileOptions options_;
  std::shared_ptr<Plan> plan_;
  static constexpr int64_t kMostCompared = 1024;  // elements of constants
  std::vector<const Step*> previous_step_;  // by node
  std::vector<int> slot_of_;      // by value
  std::vector<char> is_state_;    // by value
  std::vector<Layout> layouts_;   // by value; empty: all plain
};

}  // namespace

std::shared_ptr<const Plan> compile(std::shared_ptr<const Graph> graph, const CompileOptions& options) {
  const TransientPages pages;
  return Compiler(assign_layouts(std::move(graph), options), options).run();
}

std::string print_plan(const Plan& plan) {
  constexpr std::string_view kNames[] = {"arena", "const", "input", "output", "state"};
  std::string out;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& s = plan.steps[i];
    out += fmt::format("{:4} {} by {}", i, plan.graph->node(s.node).label(), s.def->name);
    for (int o : s.outputs) {
      if (o < 0) continue;
      const Slot& slot = plan.slots[static_cast<size_t>(o)];
      const Slot& root = plan.slots[static_cast<size_t>(slot.root)];
      out += fmt::format(" -> {} {}@{}+{} live {}..{}", shape_string(slot.desc.shape), kNames[static_cast<int>(root.storage)],
                         root.offset, slot.desc.bytes(), root.first_step, root.last_step);
    }
    if (s.workspace_bytes > 0) out += fmt::format(" workspace @{}+{}", s.workspace_offset, s.workspace_bytes);
    out += "\n";
  }
  return out + fmt::format("arena {} bytes (live peak {}), outputs {}, packed weights {}, states {}, {} FLOPs\n",
                           plan.arena_bytes, plan.live_peak_bytes, plan.output_bytes, plan.packed_bytes, plan.state_bytes,
                           plan.flops);
}

}  // namespace ds
