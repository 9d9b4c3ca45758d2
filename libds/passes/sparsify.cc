#include "libds/passes/sparsify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "libds/passes/channel_groups.h"

namespace ds {
namespace {

// The constant behind an operand, through nodes that only move or convert it.
ValueId constant_behind(const Graph& graph, ValueId id) {
  while (id != kNone && !graph.value(id).is_constant()) {
    const NodeId producer = graph.value(id).producer;
    if (producer == kNone) return kNone;
    const Node& n = graph.node(producer);
    const bool moves = n.is("Transpose") || n.is("Reshape") || n.is("Squeeze") || n.is("Unsqueeze") || n.is("Identity") ||
                       n.is("Cast") || n.is("QuantizeLinear") || n.is("DequantizeLinear");
    if (!moves) return kNone;
    id = n.input(0);
  }
  return id;
}

// Magnitudes in an order-preserving integer form.
uint32_t magnitude_key(float x) { return float_bits(x) & 0x7fffffffu; }
uint64_t magnitude_key(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffffffffffffull;
}

template <typename Key>
std::vector<Key> keys_of(const Tensor& t) {
  std::vector<Key> keys(static_cast<size_t>(t.numel()));
  bool nan = false;
  dispatch_dtype(t.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, f16> || std::is_same_v<T, bf16>) {
      const T* x = t.data<T>();
      for (size_t i = 0; i < keys.size(); ++i) {
        using Wide = std::conditional_t<sizeof(Key) == 8, double, float>;
        const auto wide = static_cast<Wide>(x[i]);
        nan |= std::isnan(wide);
        keys[i] = magnitude_key(wide);
      }
    }
  });
  if (nan) bad_data("a weight is NaN");
  return keys;
}

Tensor ones_like(const Tensor& t) {
  Tensor mask = Tensor::empty(DType::kF32, t.shape());
  std::fill_n(mask.mutable_data<float>(), mask.numel(), 1.0f);
  return mask;
}

// Zeroes the `count` smallest of all keys in the masks (f32).
template <typename Key>
void mask_smallest(std::span<const std::vector<Key>> keys, int64_t count, std::span<const Tensor> masks) {
  if (count <= 0) return;
  std::vector<Key> all;
  for (const auto& k : keys) all.insert(all.end(), k.begin(), k.end());
  const auto last = all.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(all.begin(), last, all.end());
  const Key threshold = *last;
  // Those below go; of those equal to the threshold only as many as are missing, in order.
  int64_t equal = count - std::count_if(all.begin(), last, [&](Key k) { return k < threshold; });
  for (size_t t = 0; t < keys.size(); ++t) {
    float* mask = masks[t].mutable_data<float>();
    for (size_t i = 0; i < keys[t].size(); ++i)
      if (keys[t][i] < threshold || (keys[t][i] == threshold && equal-- > 0)) mask[i] = 0.0f;
  }
}

template <typename Key>
void mask_all(std::span<const Tensor> weights, double target, SparsityScope scope, std::span<const Tensor> masks) {
  std::vector<std::vector<Key>> keys;
  int64_t total = 0;
  for (const Tensor& w : weights) {
    keys.push_back(keys_of<Key>(w));
    total += w.numel();
  }
  const auto part = [&](int64_t n) { return static_cast<int64_t>(std::llround(target * static_cast<double>(n))); };
  if (scope == SparsityScope::kGlobal) return mask_smallest<Key>(keys, part(total), masks);
  for (size_t i = 0; i < keys.size(); ++i)
    mask_smallest<Key>(std::span(keys).subspan(i, 1), part(weights[i].numel()), masks.subspan(i, 1));
}

}  // namespace

std::vector<WeightOperand> weight_operands(const Graph& graph) {
  std::vector<WeightOperand> list;
  std::set<ValueId> seen;
  for (NodeId id : graph.order()) {
    const Node& n = graph.node(id);
    const bool conv = n.is("Conv") || n.is("ConvTranspose"), product = n.is("Gemm") || n.is("MatMul");
    if (!conv && !product) continue;
    for (size_t i : {size_t{0}, size_t{1}}) {
      if (conv && i == 0) continue;
      const ValueId w = constant_behind(graph, n.input(i));
      if (w != kNone && seen.insert(w).second) list.push_back({id, w});
    }
  }
  return list;
}

std::vector<WeightOperand> prunable_weights(const Graph& graph, const std::vector<std::string>& exclude) {
  std::vector<WeightOperand> list;
  for (const WeightOperand& w : weight_operands(graph)) {
    const Value& v = graph.value(w.weight);
    if (!is_float(v.dtype) || v.constant->rank() < 2 || v.constant->numel() == 0) continue;
    const bool embedding = std::any_of(v.users.begin(), v.users.end(), [&](NodeId user) {
      return graph.node(user).is("Gather") && graph.node(user).input(0) == w.weight;
    });
    if (embedding || matches_any(exclude, v.name) || matches_any(exclude, graph.node(w.node).name)) continue;
    list.push_back(w);
  }
  return list;
}

std::vector<Tensor> magnitude_masks(std::span<const Tensor> weights, double target, SparsityScope scope) {
  if (!(target >= 0 && target <= 1)) bad_data("target sparsity {} is not between 0 and 1", target);
  std::vector<Tensor> masks;
  bool wide = false;
  for (const Tensor& w : weights) {
    masks.push_back(ones_like(w));
    wide |= w.dtype() == DType::kF64;
  }
  if (wide) mask_all<uint64_t>(weights, target, scope, masks);
  else mask_all<uint32_t>(weights, target, scope, masks);
  for (size_t i = 0; i < masks.size(); ++i)
    if (weights[i].dtype() != DType::kF32) masks[i] = masks[i].cast(weights[i].dtype());
  return masks;
}

std::vector<Tensor> zero_masks(std::span<const Tensor> weights) {
  std::vector<Tensor> masks;
  for (const Tensor& w : weights) {
    Tensor mask = ones_like(w);
    const std::vector<double> content = w.to_doubles();
    for (size_t i = 0; i < content.size(); ++i)
      if (content[i] == 0) mask.mutable_data<float>()[i] = 0.0f;
    masks.push_back(w.dtype() == DType::kF32 ? mask : mask.cast(w.dtype()));
  }
  return masks;
}

Tensor masked(const Tensor& weight, const Tensor& mask) {
  DS_CHECK(weight.shape() == mask.shape() && weight.dtype() == mask.dtype());
  Tensor out = weight.clone();
  dispatch_dtype(weight.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, f16> || std::is_same_v<T, bf16>) {
      T* x = out.mutable_data<T>();
      const T* m = mask.data<T>();
      for (int64_t i = 0; i < out.numel(); ++i)
        if (static_cast<float>(m[i]) == 0.0f) x[i] = T(0.0f);
    }
  });
  return out;
}

int64_t count_zeros(const Tensor& tensor) {
  int64_t zeros = 0;
  dispatch_dtype(tensor.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = tensor.data<T>();
    for (int64_t i = 0; i < tensor.numel(); ++i) zeros += static_cast<double>(x[i]) == 0.0;
  });
  return zeros;
}

}  // namespace ds
