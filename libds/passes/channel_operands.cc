// What constant operands say: elements of shapes, ranges of slices, parts of splits.
#include <algorithm>

#include "libds/passes/channel_rules.h"

namespace ds {

std::optional<ShapeElement> locate_shape_element(const Graph& graph, NodeId user, size_t operand, size_t index) {
  constexpr int kDeepest = 64;
  for (int depth = 0; depth < kDeepest; ++depth) {
    const ValueId id = graph.node(user).input(operand);
    if (id == kNone) return std::nullopt;
    const Value& v = graph.value(id);
    if (v.is_constant()) {
      if (!is_int(v.constant->dtype()) || static_cast<size_t>(v.constant->numel()) <= index) return std::nullopt;
      return ShapeElement{user, operand, index, v.constant->to_ints()[index]};
    }
    if (v.producer == kNone) return std::nullopt;
    const Node& p = graph.node(v.producer);
    user = v.producer;
    operand = 0;
    if (p.is("Concat")) {
      for (; operand < p.inputs.size(); ++operand) {
        const Value& part = graph.value(p.inputs[operand]);
        if (!part.dims || part.dims->size() != 1 || !(*part.dims)[0].known()) return std::nullopt;
        const auto n = static_cast<size_t>((*part.dims)[0].raw);
        if (index < n) break;
        index -= n;
      }
      if (operand == p.inputs.size()) return std::nullopt;
    } else if (!p.is("Unsqueeze") && !p.is("Squeeze") && !p.is("Reshape") && !p.is("Identity") && !p.is("Cast")) {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

std::optional<SliceRange> slice_range(const Graph& graph, const Node& n, size_t rank, size_t axis, int64_t size) {
  const auto ints = [&](size_t i) -> std::optional<std::vector<int64_t>> {
    if (n.input(i) == kNone || !graph.value(n.input(i)).is_constant()) return std::nullopt;
    return graph.value(n.input(i)).constant->to_ints();
  };
  const auto starts = ints(1), ends = ints(2), axes = ints(3), steps = ints(4);
  if ((n.input(3) != kNone && !axes) || (!axes && (!starts || starts->size() > rank))) return std::nullopt;
  const size_t count = axes ? axes->size() : starts->size();
  for (size_t i = 0; i < count; ++i) {
    const int64_t a = axes ? (*axes)[i] : static_cast<int64_t>(i);
    if (static_cast<size_t>(a < 0 ? a + static_cast<int64_t>(rank) : a) != axis) continue;
    if (!starts || !ends || i >= starts->size() || i >= ends->size() || (n.input(4) != kNone && !steps)) return std::nullopt;
    const auto clamp = [&](int64_t x) { return std::clamp<int64_t>(x < 0 ? x + size : x, 0, size); };
    SliceRange range{clamp((*starts)[i]), clamp((*ends)[i]), steps ? (*steps)[i] : 1};
    if (range.step > 0) range.end = std::max(range.end, range.begin);
    return range;
  }
  return SliceRange{0, size, 1};
}

std::optional<std::vector<int64_t>> split_parts(const Graph& graph, const Node& n, int64_t size) {
  if (n.input(1) != kNone) {
    if (!graph.value(n.input(1)).is_constant()) return std::nullopt;
    return graph.value(n.input(1)).constant->to_ints();
  }
  const auto count = static_cast<int64_t>(n.outputs.size());
  const int64_t part = (size + count - 1) / count;
  std::vector<int64_t> parts;
  for (int64_t i = 0; i < count; ++i) parts.push_back(std::clamp<int64_t>(size - part * i, 0, part));
  return parts;
}

}  // namespace ds
