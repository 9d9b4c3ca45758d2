#include "libds/compile/layout.h"

#include <algorithm>
#include <map>

#include "libds/base/log.h"
#include "libds/ir/rewriter.h"

namespace ds {
namespace {

bool wants_blocks(const Graph& graph) {
  for (NodeId id : graph.order()) {
    const OpDef* def = graph.node(id).def;
    if (def == nullptr) continue;
    for (const KernelDef& k : def->kernels)
      if (k.preferred_layouts) return true;
  }
  return false;
}

// Whether the shape has whole blocks only, so that a blocked value has as many elements as a plain one.
bool whole_blocks(const TensorDesc& d, Layout layout) {
  if (d.rank() < 3) return false;
  return TensorDesc{d.dtype, d.shape, layout}.bytes() == TensorDesc{d.dtype, d.shape}.bytes();
}

class Assigner {
 public:
  Assigner(std::shared_ptr<const Graph> graph, const CompileOptions& options)
      : graph_(own(std::move(graph))), rewriter_(*graph_), options_(options) {
    of_.assign(graph_->value_capacity(), Layout::kPlain);
    is_state_.assign(graph_->value_capacity(), 0);
    for (const State& s : graph_->states()) is_state_[static_cast<size_t>(s.value)] = 1;
  }

  LayoutPlan run() {
    for (NodeId id : graph_->order())
      with_context([&] { return graph_->node(id).label(); }, [&] { assign(id); });
    make_interface_plain();
    log("plan", "layouts: {} reorders", copies_.size());
    return {graph_, std::move(of_)};
  }

 private:
  // The graph itself where nobody else holds it, else a copy.
  static std::shared_ptr<Graph> own(std::shared_ptr<const Graph> graph) {
    if (graph.use_count() == 1) return std::const_pointer_cast<Graph>(std::move(graph));
    return std::make_shared<Graph>(*graph);
  }

  Layout layout(ValueId id) const { return id == kNone ? Layout::kPlain : of_[static_cast<size_t>(id)]; }

  void assign(NodeId id) {
    const OpDef& def = *graph_->node(id).def;
    std::vector<Layout> inputs(graph_->node(id).inputs.size(), Layout::kPlain);
    std::vector<Layout> outputs(graph_->node(id).outputs.size(), Layout::kPlain);
    if (def.is_view) view(id, inputs, outputs);
    else choose(id, def, inputs, outputs);
    const std::vector<ValueId> operands = graph_->node(id).inputs;
    for (size_t i = 0; i < operands.size(); ++i)
      if (operands[i] != kNone && layout(operands[i]) != inputs[i])
        rewriter_.set_input(id, i, reordered(operands[i], inputs[i], id));
    const std::vector<ValueId> results = graph_->node(id).outputs;
    for (size_t i = 0; i < results.size(); ++i)
      if (results[i] != kNone) of_[static_cast<size_t>(results[i])] = outputs[i];
  }

  // Memory stays as it is. With channels last it says the same of the result where samples and channels are left alone, and
  // is in plain order all the same where every sample has one pixel.
  void view(NodeId id, std::vector<Layout>& inputs, std::vector<Layout>& outputs) const {
    const Node& n = graph_->node(id);
    if (layout(n.input(0)) != Layout::kChannelsLast) return;
    const KernelQuery q = make_query(*graph_, id, is_state_, options_);
    const Shape &x = q.in(0).shape, &y = q.out(0).shape;
    if (q.in(0).dtype != q.out(0).dtype) return;
    if (y.size() >= 3 && x[0] == y[0] && x[1] == y[1]) inputs[0] = outputs[0] = Layout::kChannelsLast;
    else if (std::all_of(x.begin() + 2, x.end(), [](int64_t d) { return d == 1; })) inputs[0] = Layout::kChannelsLast;
  }

  // Changes the lists, which come plain, to what the first kernel that takes the node wants.
  void choose(NodeId id, const OpDef& def, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    const KernelQuery plain = make_query(*graph_, id, is_state_, options_);
    for (DType type : {plain.in(0).dtype, plain.out(0).dtype})
      if (type != DType::kF32 && !is_half(type)) return;
    for (const KernelDef& kernel : def.kernels) {
      if (kernel.isa > options_.isa || kernel.device != plain.device) continue;
      KernelQuery query = plain;
      std::vector<Layout> wanted_in = inputs, wanted_out = outputs;
      if (kernel.preferred_layouts) {
        for (size_t i = 0; i < query.inputs.size(); ++i) query.inputs[i].layout = layout(query.node.inputs[i]);
        kernel.preferred_layouts(query, wanted_in, wanted_out);
      } else if (kernel.layout_agnostic || kernel.order_agnostic) {
        follow_operands(kernel, query, wanted_in, wanted_out);
      }
      if (wanted_in != inputs || wanted_out != outputs) {
        for (size_t i = 0; i < query.inputs.size(); ++i) query.inputs[i].layout = wanted_in[i];
        for (size_t i = 0; i < query.outputs.size(); ++i) query.outputs[i].layout = wanted_out[i];
        if (first_accepting(def, query) == &kernel) {
          inputs = std::move(wanted_in);
          outputs = std::move(wanted_out);
          return;
        }
      }
      if (why_declined(kernel, plain).empty()) return;
    }
  }

  static const KernelDef* first_accepting(const OpDef& def, const KernelQuery& query) {
    for (const KernelDef& kernel : def.kernels)
      if (why_declined(kernel, query).empty()) return &kernel;
    return nullptr;
  }

  // Elementwise on operands of one shape, scalars aside (or of one rank, for kernels that broadcast in any order of
  // axes): in a layout when most of them are, or half and the reader of the result wants one.
  void follow_operands(const KernelDef& kernel, const KernelQuery& query, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    const std::vector<ValueId>& operands = query.node.inputs;
    Layout found = Layout::kPlain;
    size_t blocked = 0, present = 0;
    bool whole = true;  // all of one shape
    for (size_t i = 0; i < operands.size(); ++i) {
      if (operands[i] == kNone || is_scalar(query.inputs[i])) continue;
      if (query.inputs[i].rank() != query.out(0).rank()) return;
      const bool same = query.inputs[i].shape == query.out(0).shape;
      if (!same && !kernel.order_agnostic) return;
      whole = whole && same;
      if (!same) continue;
      ++present;
      const Layout l = layout(operands[i]);
      if (l == Layout::kPlain) continue;
      if (found == Layout::kPlain) found = l;
      if (l == found) ++blocked;
    }
    if (found == Layout::kPlain || 2 * blocked < present || !whole_blocks(query.out(0), found)) return;
    if (found == Layout::kChannelsLast ? !kernel.order_agnostic : !(kernel.layout_agnostic && whole)) return;
    if (2 * blocked == present && !reader_wants_blocks(query.node.outputs[0])) return;
    const DType type = query.out(0).dtype;
    for (const TensorDesc& d : query.inputs)
      if (d.defined() && d.dtype != type) return;
    for (const TensorDesc& d : query.outputs)
      if (d.defined() && (d.dtype != type || d.shape != query.out(0).shape)) return;
    for (size_t i = 0; i < operands.size(); ++i)
      if (operands[i] != kNone && !is_scalar(query.inputs[i])) inputs[i] = found;
    for (size_t i = 0; i < query.outputs.size(); ++i)
      if (query.outputs[i].defined()) outputs[i] = found;
  }

  static bool is_scalar(const TensorDesc& d) { return d.defined() && d.numel() == 1; }

  bool reader_wants_blocks(ValueId id) const {
    for (NodeId user : graph_->value(id).users) {
      const OpDef* def = graph_->node(user).def;
      if (def != nullptr && !def->kernels.empty() && def->kernels[0].preferred_layouts) return true;
    }
    return false;
  }

  // `id` in another layout, made once and before its first such use. kNone: at the end.
  ValueId reordered(ValueId id, Layout to, NodeId before) {
    const auto key = std::make_pair(id, to);
    if (const auto it = copies_.find(key); it != copies_.end()) return it->second;
    if (before == kNone) rewriter_.insert_at_end();
    else rewriter_.insert_before(before);
    const ValueId copy = rewriter_.emit("Reorder", {id}, {}, graph_->value(id).name + "/reorder");
    of_.resize(graph_->value_capacity(), Layout::kPlain);
    is_state_.resize(graph_->value_capacity(), 0);
    of_[static_cast<size_t>(copy)] = to;
    copies_[key] = copy;
    return copy;
  }

  void make_interface_plain() {
    std::vector<ValueId> outputs = graph_->outputs();
    for (ValueId& out : outputs) {
      if (layout(out) == Layout::kPlain) continue;
      const std::string name = graph_->value(out).name;
      const ValueId plain = reordered(out, Layout::kPlain, kNone);
      rewriter_.rename_value(out, name + "/blocked");
      rewriter_.rename_value(plain, name);
      out = plain;
    }
    rewriter_.set_outputs(std::move(outputs));
    std::vector<State> states = graph_->states();
    rewriter_.clear_states();
    for (State& s : states) {
      if (layout(s.update) != Layout::kPlain) s.update = reordered(s.update, Layout::kPlain, kNone);
      rewriter_.add_state(s);
    }
  }

  std::shared_ptr<Graph> graph_;
  Rewriter rewriter_;
  const CompileOptions& options_;
  std::vector<Layout> of_;
  std::vector<char> is_state_;
  std::map<std::pair<ValueId, Layout>, ValueId> copies_;
};

}  // namespace

void set_layouts(KernelQuery& query, const std::vector<Layout>& of) {
  if (of.empty()) return;
  for (size_t i = 0; i < query.inputs.size(); ++i)
    if (query.node.inputs[i] != kNone) query.inputs[i].layout = of[static_cast<size_t>(query.node.inputs[i])];
  for (size_t i = 0; i < query.outputs.size(); ++i)
    if (query.node.outputs[i] != kNone) query.outputs[i].layout = of[static_cast<size_t>(query.node.outputs[i])];
}

LayoutPlan assign_layouts(std::shared_ptr<const Graph> graph, const CompileOptions& options) {
  if (!options.layouts || !wants_blocks(*graph)) return {std::move(graph), {}};
  return Assigner(std::move(graph), options).run();
}

}  // namespace ds
