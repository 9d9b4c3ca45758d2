// What the convolution operators share: geometry and the oneDNN request of a node.
#pragma once

#include <span>

#include "kernels/conv.h"
#include "kernels/onednn.h"
#include "libds/ir/op_def.h"

namespace ds::ops {

// Geometry of the convolution x, w -> y of a Conv-like node (shapes concrete and already inferred).
kernels::ConvShape conv_shape(const Node& node, const Shape& x, const Shape& w, const Shape& y);
// The same for a query whose inputs are x, w and whose output is y.
kernels::ConvShape conv_forward_shape(const KernelQuery& query);
// oneDNN's request for such a query: geometry, blocks of the operands' layouts, bias, constant weights.
kernels::onednn::ConvRequest conv_request(const KernelQuery& query);
// `preferred_layouts` of such a kernel, for operands 0 and (where present) 3 and the output.
void conv_layouts(const kernels::onednn::ConvRequest& request, std::vector<Layout>& inputs, std::vector<Layout>& outputs);

// Output 0 of x, w and optional b (inputs 0 to 2) under Conv's attributes.
void infer_conv(InferContext& context);
Cost conv_cost(const KernelQuery& query);

}  // namespace ds::ops
