// Attention that files spell out: products, scale, mask, Softmax.
#pragma once

#include "libds/passes/pass.h"

namespace ds {

// Softmax(Q K^T scale + mask) V, f32 and of rank 4, becomes Attention. The scale may stand before or after the
// product, on either side or both, as Mul or Div; c tanh(scores / c) caps them; masks are added, any number of them, or chosen by
// Where(seen, scores, c) with a c so low that adding it to a score gives it (-1e30 and below). Keys and values that
// were repeated for groups of query heads (Unsqueeze, Expand, Reshape) are read as they were before.
//
// Where Q, K and V come from [batch, length, heads, size] by a transpose, or from [batch, length, 3, heads, size] by
// one transpose and Gather or Split, Attention reads [batch, length, heads * size] and the transposes go; so does the
// one behind it. A key-value cache before it (Concat along the length) becomes past and present.
//
// What the dimensions do not prove is left alone, but for this: unnamed sizes that turn out to be a 1 that
// broadcasts where Attention does not are an error when the model runs. A row whose mask is -inf throughout gives
// zeros, where the spelled-out form divides zero by zero.
bool fuse_attention(Rewriter& rewriter, PassContext& context);

}  // namespace ds
