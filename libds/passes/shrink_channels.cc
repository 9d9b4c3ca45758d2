#include "libds/passes/shrink_channels.h"

#include <cstring>

#include "libds/passes/channel_rules.h"

namespace ds {
namespace {

class Shrinker {
 public:
  Shrinker(Rewriter& rw, const ChannelGroups& groups, const std::vector<char>& removed)
      : rw_(rw), graph_(rw.graph()), groups_(groups), removed_(removed) {
    DS_CHECK(removed.size() == groups.pinned.size());
    for (size_t c = 0; c < removed.size(); ++c) DS_CHECK(!removed[c] || groups.pinned[c].empty());
  }

  void run() {
    // Node by node first: the adjustments read the old sizes.
    for (NodeId id : graph_.order()) adjust(id);
    shrink_constants();
    rw_.infer_all();
    check_shapes();
  }

 private:
  bool gone(int32_t channel) const { return removed_[static_cast<size_t>(channel)] != 0; }

  int64_t kept(const ChannelAxis& a, int64_t begin, int64_t end) const {
    int64_t n = 0;
    for (int64_t i = begin; i < end; ++i) n += !gone(a.channels[static_cast<size_t>(i)]);
    return n;
  }
  int64_t kept(const ChannelAxis& a) const { return kept(a, 0, static_cast<int64_t>(a.channels.size())); }
  bool shrinks(const ChannelAxis& a) const { return kept(a) != static_cast<int64_t>(a.channels.size()); }
  const ChannelAxis* shrinking(ValueId id, size_t axis) const {
    const ChannelAxis* a = id == kNone ? nullptr : groups_.find(id, axis);
    return a != nullptr && shrinks(*a) ? a : nullptr;
  }

  void adjust(NodeId id) {
    const Node n = graph_.node(id);  // a copy: new constants move the arenas
    if (!n.domain.empty() || n.inputs.empty()) return;
    if (n.op == "Conv") return adjust_conv(id, n);
    if (n.op == "Reshape" || n.op == "Expand") return adjust_shape(id, n, 1);
    if (n.op == "Resize" && n.input(3) != kNone) return adjust_shape(id, n, 3);
    if (n.op == "Split") return adjust_split(id, n);
    if (n.op == "Slice") return adjust_slice(id, n);
  }

  void adjust_conv(NodeId id, const Node& n) {
    const int64_t groups = n.attr_int("group", 1);
    const ChannelAxis* x = shrinking(n.inputs[0], 1);
    if (groups > 1 && x != nullptr && static_cast<int64_t>(x->channels.size()) == groups) rw_.set_attr(id, "group", kept(*x));
  }

  // Writes the new sizes of the output's shrinking axes where the shape operand spells them out.
  void adjust_shape(NodeId id, const Node& n, size_t operand) {
    const size_t rank = rank_of(n.outputs[0]);
    const Value& shape = graph_.value(n.inputs[operand]);
    if (!shape.dims || shape.dims->size() != 1 || !(*shape.dims)[0].known()) return;
    const auto elements = static_cast<size_t>((*shape.dims)[0].raw);
    std::vector<int64_t> axes;
    if (n.op == "Resize") axes = n.attr_ints("axes");
    if (axes.empty())  // a shape shorter than the output speaks of its last axes (Expand)
      for (size_t i = 0; i < elements; ++i) axes.push_back(static_cast<int64_t>(rank - elements + i));
    for (size_t i = 0; i < axes.size(); ++i) {
      const auto axis = static_cast<size_t>(axes[i] < 0 ? axes[i] + static_cast<int64_t>(rank) : axes[i]);
      const ChannelAxis* a = shrinking(n.outputs[0], axis);
      if (a == nullptr) continue;
      const auto element = locate_shape_element(graph_, id, operand, i);
      DS_CHECK(element.has_value());
      const bool follows_by_itself = element->content <= 0 || (n.op == "Expand" && element->content == 1);
      if (!follows_by_itself) write_element(*element, kept(*a));
    }
  }

  size_t rank_of(ValueId id) const {
    const Value& v = graph_.value(id);
    DS_CHECK(v.dims.has_value());
    return v.dims->size();
  }

  void write_element(const ShapeElement& element, int64_t content) {
    const ValueId id = graph_.node(element.user).inputs[element.operand];
    const Value& v = graph_.value(id);
    std::vector<int64_t> ints = v.constant->to_ints();
    if (ints[element.index] == content) return;
    ints[element.index] = content;
    const Tensor changed = Tensor::vector<int64_t>(ints).cast(v.dtype).reshaped(v.constant->shape());
    replace_operand(element.user, element.operand, changed);
  }

  // Gives a node its own constant; one that nobody else reads keeps its name.
  void replace_operand(NodeId node, size_t operand, const Tensor& content) {
    const ValueId id = graph_.node(node).input(operand);
    if (id != kNone && graph_.value(id).users.size() == 1 && !graph_.is_output(id)) {
      rw_.set_constant(id, std::make_shared<const Tensor>(content));
      return;
    }
    const std::string name = id == kNone ? graph_.node(node).name + "/sizes" : graph_.value(id).name;
    const ValueId own = rw_.add_constant(name, content);
    rw_.set_input(node, operand, own);
  }

  void adjust_split(NodeId id, const Node& n) {
    const auto rank = static_cast<int64_t>(rank_of(n.inputs[0]));
    const int64_t attr = n.attr_int("axis", 0);
    const ChannelAxis* a = shrinking(n.inputs[0], static_cast<size_t>(attr < 0 ? attr + rank : attr));
    if (a == nullptr) return;
    const auto parts = split_parts(graph_, n, static_cast<int64_t>(a->channels.size()));
    DS_CHECK(parts.has_value());
    std::vector<int64_t> sizes;
    int64_t at = 0;
    for (int64_t part : *parts) {
      sizes.push_back(kept(*a, at, at + part));
      at += part;
    }
    replace_operand(id, 1, Tensor::vector<int64_t>(sizes));
    rw_.erase_attr(id, "num_outputs");
  }

  void adjust_slice(NodeId id, const Node& n) {
    const size_t rank = rank_of(n.inputs[0]);
    std::vector<int64_t> starts, ends;
    for (size_t axis = 0; axis < rank; ++axis) {
      const ChannelAxis* a = shrinking(n.inputs[0], axis);
      if (a == nullptr) continue;
      const auto size = static_cast<int64_t>(a->channels.size());
      const auto range = slice_range(graph_, n, rank, axis, size);
      DS_CHECK(range && range->step == 1);
      if (range->begin == 0 && range->end == size) continue;
      if (starts.empty()) {
        starts = graph_.value(n.inputs[1]).constant->to_ints();
        ends = graph_.value(n.inputs[2]).constant->to_ints();
      }
      const std::vector<int64_t> axes = n.input(3) == kNone ? std::vector<int64_t>() : graph_.value(n.inputs[3]).constant->to_ints();
      for (size_t i = 0; i < starts.size(); ++i) {
        const int64_t at = axes.empty() ? static_cast<int64_t>(i) : axes[i];
        if (static_cast<size_t>(at < 0 ? at + static_cast<int64_t>(rank) : at) != axis) continue;
        starts[i] = kept(*a, 0, range->begin);
        ends[i] = starts[i] + kept(*a, range->begin, range->end);
      }
    }
    if (starts.empty()) return;
    const DType dtype = graph_.value(n.inputs[1]).dtype;
    replace_operand(id, 1, Tensor::vector<int64_t>(starts).cast(dtype));
    replace_operand(id, 2, Tensor::vector<int64_t>(ends).cast(dtype));
  }

  void shrink_constants() {
    for (const ChannelAxis& a : groups_.axes) {
      const Value& v = graph_.value(a.value);
      if (!v.is_constant() || !shrinks(a)) continue;
      std::vector<int64_t> positions;
      for (size_t i = 0; i < a.channels.size(); ++i)
        if (!gone(a.channels[i])) positions.push_back(static_cast<int64_t>(i));
      DS_CHECK(!positions.empty());
      rw_.set_constant(a.value, std::make_shared<const Tensor>(take(*v.constant, a.axis, positions)));
    }
  }

  void check_shapes() const {
    for (const ChannelAxis& a : groups_.axes) {
      const Value& v = graph_.value(a.value);
      if (v.producer == kNone || !v.dims || a.axis >= v.dims->size() || !(*v.dims)[a.axis].known()) continue;
      if ((*v.dims)[a.axis].raw != kept(a))
        fail(ExitCode::kInternal, "axis {} of '{}' has {} positions after the removal, not {}", a.axis, v.name,
             (*v.dims)[a.axis].raw, kept(a));
    }
  }

  Rewriter& rw_;
  const Graph& graph_;
  const ChannelGroups& groups_;
  const std::vector<char>& removed_;
};

}  // namespace

Tensor take(const Tensor& tensor, size_t axis, const std::vector<int64_t>& positions) {
  DS_CHECK(axis < tensor.shape().size());
  Shape shape = tensor.shape();
  size_t outer = 1, inner = dtype_size(tensor.dtype());
  for (size_t i = 0; i < axis; ++i) outer *= static_cast<size_t>(shape[i]);
  for (size_t i = axis + 1; i < shape.size(); ++i) inner *= static_cast<size_t>(shape[i]);
  const size_t row = inner * static_cast<size_t>(shape[axis]);
  shape[axis] = static_cast<int64_t>(positions.size());
  Tensor out = Tensor::empty(tensor.dtype(), shape);
  const auto* src = static_cast<const std::byte*>(tensor.raw());
  auto* dst = static_cast<std::byte*>(out.mutable_raw());
  for (size_t o = 0; o < outer; ++o)
    for (int64_t p : positions) {
      std::memcpy(dst, src + o * row + static_cast<size_t>(p) * inner, inner);
      dst += inner;
    }
  return out;
}

void shrink_channels(Rewriter& rewriter, const ChannelGroups& groups, const std::vector<char>& removed) {
  Shrinker(rewriter, groups, removed).run();
}

}  // namespace ds
