// What the operators around attention share.
#pragma once

#include "libds/ops/common.h"

namespace ds::ops {

// Attribute of an Attention node: the type (a DType) that its products round their operands to, where a kernel does
// (passes/auto_cast.h sets it). Absent: they are exact. Never in files.
constexpr const char* kProductsAttr = "products";

// Sizes of an Attention node, named as in kernels/attention.h; S counts past keys too. `split`: Q, K and V
// are [B, length, heads * size], else [B, heads, length, size].
template <typename Size>
struct AttentionSizes {
  bool split = false;
  Size B, H, G, L, S, D, E, past;
};
// An attribute that counts heads, and elements a head of a token's `hidden`; `what` has them.
int64_t heads_of(const Node& node, const char* attr);
int64_t divided(int64_t hidden, int64_t heads, const char* what);

// From the shapes of a node whose inputs are all known.
AttentionSizes<int64_t> attention_sizes(const Node& node, const Shape& q, const Shape& k, const Shape& v, const Shape& past);

float attention_scale(const Node& node, int64_t head_size);

void grad_attention(GradContext& g);

}  // namespace ds::ops
