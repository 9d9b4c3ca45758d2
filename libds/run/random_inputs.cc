#include "libds/run/random_inputs.h"

#include <algorithm>
#include <limits>

#include "libds/base/random.h"

namespace ds {
namespace {

// Below which an integer input may go: the rows of the smallest table it looks up; 2 when it is used otherwise.
uint64_t index_bound(const Graph& graph, ValueId id, int depth = 0) {
  constexpr uint64_t kOtherwise = 2;
  constexpr int kDeepest = 8;
  const Value& v = graph.value(id);
  if (v.users.empty() || depth > kDeepest || graph.is_output(id)) return kOtherwise;
  uint64_t bound = 0;
  for (NodeId user : v.users) {
    const Node& n = graph.node(user);
    uint64_t here = kOtherwise;
    if (n.is("Gather") && n.input(1) == id && n.input(0) != id) {
      const auto& dims = graph.value(n.input(0)).dims;
      const int64_t axis = n.attr_int("axis", 0), rank = dims ? static_cast<int64_t>(dims->size()) : 0;
      if (axis >= -rank && axis < rank) {
        const Dim size = (*dims)[static_cast<size_t>(axis < 0 ? axis + rank : axis)];
        if (size.known() && size.raw > 0) here = static_cast<uint64_t>(size.raw);
      }
    } else if (n.is("Shape") || n.is("Size")) {
      continue;  // asks for no content
    } else if (n.is("Cast") || n.is("Identity") || n.is("Reshape") || n.is("Unsqueeze") || n.is("Squeeze") || n.is("Flatten") ||
               n.is("Transpose")) {
      if (n.input(0) == id) here = index_bound(graph, n.output(0), depth + 1);
    }
    bound = bound == 0 ? here : std::min(bound, here);
  }
  return bound == 0 ? kOtherwise : bound;
}

}  // namespace

Tensor random_input(const Graph& graph, ValueId input, const Shape& shape, uint64_t seed) {
  const Value& v = graph.value(input);
  if (!dispatch_dtype(v.dtype, [](auto) {}))
    fail(ExitCode::kUnsupported, "input '{}' has type {}: no random numbers for it, give data", v.name, dtype_name(v.dtype));
  Tensor tensor = Tensor::empty(v.dtype, shape);
  Random random(seed, stream_of("bench/input/" + v.name));
  const uint64_t bound = is_int(v.dtype) ? index_bound(graph, input) : 2;
  dispatch_dtype(v.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* out = tensor.mutable_data<T>();
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      if constexpr (std::is_same_v<T, bool>) out[i] = random.below(2) != 0;
      else if constexpr (std::is_integral_v<T>) out[i] = static_cast<T>(random.below(std::min<uint64_t>(bound, std::numeric_limits<T>::max())));
      else out[i] = T(static_cast<float>(random.uniform()));
    }
  });
  return tensor;
}

std::vector<Tensor> random_inputs(const Graph& graph, std::span<const Shape> shapes, uint64_t seed) {
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < shapes.size(); ++i) inputs.push_back(random_input(graph, graph.inputs()[i], shapes[i], seed));
  return inputs;
}

}  // namespace ds
