#include "kernels/onednn_program.h"

namespace ds::kernels::onednn {
namespace {

using Dims = std::vector<int64_t>;

// oneDNN's view of a ConvShape: only the axes that are there, groups as a weight axis of their own.
struct Geometry {
  Dims src, dst, weights, bias, stride, dilation, pad_begin, pad_end;
};

Geometry geometry_of(const ConvShape& s) {
  Geometry g;
  g.src = {s.batch, s.in_channels};
  g.dst = {s.batch, s.out_channels};
  g.bias = {s.out_channels};
  if (s.groups > 1) {
    g.weights = {s.groups, s.out_channels / s.groups, s.in_channels / s.groups};
  } else {
    g.weights = {s.out_channels, s.in_channels};
  }
  for (size_t d = static_cast<size_t>(3 - s.spatial); d < 3; ++d) {
    g.src.push_back(s.in[d]);
    g.dst.push_back(s.out[d]);
    g.weights.push_back(s.kernel[d]);
    g.stride.push_back(s.stride[d]);
    g.dilation.push_back(s.dilation[d] - 1);  // oneDNN counts the gaps
    g.pad_begin.push_back(s.pad_begin[d]);
    // The padding that gives exactly this output; ConvTranspose's output_padding need not be a floor.
    const int64_t extent = (s.kernel[d] - 1) * s.dilation[d] + 1;
    const int64_t floor_out = (s.in[d] + s.pad_begin[d] + s.pad_end[d] - extent) / s.stride[d] + 1;
    g.pad_end.push_back(floor_out == s.out[d] ? s.pad_end[d] : (s.out[d] - 1) * s.stride[d] + extent - s.in[d] - s.pad_begin[d]);
  }
  return g;
}

dnnl::memory::desc wish(const Dims& dims, int block) { return block == 1 ? any_desc(dims) : activation_desc(dims, block); }

dnnl::convolution_forward::primitive_desc forward_pd(const ConvRequest& r, const Geometry& g, dnnl::prop_kind kind) {
  using dnnl::algorithm;
  const auto src = wish(g.src, r.src_block), dst = wish(g.dst, r.dst_block), weights = any_desc(g.weights);
  const auto attr = attributes(r.epilogue);
  if (r.bias) {
    return {{kind, algorithm::convolution_direct, src, weights, plain_desc(g.bias), dst, g.stride, g.dilation, g.pad_begin,
             g.pad_end}, attr, engine()};
  }
  return {{kind, algorithm::convolution_direct, src, weights, dst, g.stride, g.dilation, g.pad_begin, g.pad_end}, attr, engine()};
}

// Forward description that the backward primitives ask for as a hint.
dnnl::convolution_forward::primitive_desc hint(const ConvRequest& r, const Geometry& g) {
  ConvRequest plain = r;
  plain.bias = false;
  plain.epilogue = {};
  plain.src_block = plain.dst_block = 1;
  return forward_pd(plain, g, dnnl::prop_kind::forward_training);
}

}  // namespace

std::unique_ptr<Program> conv_forward(const ConvRequest& r, std::string& why) {
  return attempt(why, [&] {
    const Geometry g = geometry_of(r.shape);
    const auto pd = forward_pd(r, g, dnnl::prop_kind::forward_inference);
    auto impl = std::make_unique<Program::Impl>();
    impl->implementation = pd.impl_info_str();
    if (probing()) return impl;
    const auto given_dst = activation_desc(g.dst, r.dst_block), given_weights = plain_desc(g.weights);
    const auto src = impl->input_as(0, activation_desc(g.src, r.src_block), pd.src_desc());
    const auto weights = impl->weights_as(1, r.weights, given_weights, pd.weights_desc());
    const auto dst = impl->output_from(given_dst, pd.dst_desc());
    if (r.epilogue.add && pd.dst_desc() != given_dst) impl->add_reorder(impl->output(given_dst), dst);
    std::vector<std::pair<int, dnnl::memory>> arguments = {{DNNL_ARG_SRC, src}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, dst}};
    if (r.bias) arguments.emplace_back(DNNL_ARG_BIAS, impl->input(2, pd.bias_desc()));
    impl->add(dnnl::convolution_forward(pd), pd.scratchpad_desc(), std::move(arguments));
    impl->finish_output(dst, given_dst);
    return impl;
  });
}

std::unique_ptr<Program> conv_grad_input(const ConvRequest& r, std::string& why) {
  return attempt(why, [&] {
    const Geometry g = geometry_of(r.shape);
    const dnnl::convolution_backward_data::primitive_desc pd(
        {dnnl::algorithm::convolution_direct, wish(g.src, r.src_block), any_desc(g.weights), wish(g.dst, r.dst_block), g.stride,
         g.dilation, g.pad_begin, g.pad_end},
        attributes(), engine(), hint(r, g));
    auto impl = std::make_unique<Program::Impl>();
    impl->implementation = pd.impl_info_str();
    if (probing()) return impl;
    const auto given = activation_desc(g.src, r.src_block), given_weights = plain_desc(g.weights);
    const auto d_dst = impl->input_as(0, activation_desc(g.dst, r.dst_block), pd.diff_dst_desc());
    const auto weights = impl->weights_as(1, r.weights, given_weights, pd.weights_desc());
    const auto d_src = impl->output_from(given, pd.diff_src_desc());
    impl->add(dnnl::convolution_backward_data(pd), pd.scratchpad_desc(),
              {{DNNL_ARG_DIFF_DST, d_dst}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DIFF_SRC, d_src}});
    impl->finish_output(d_src, given);
    if (r.bias) {  // a per-channel addition in place, for ConvTranspose
      Dims bias(g.src.size(), 1);
      bias[1] = r.shape.in_channels;
      const dnnl::binary::primitive_desc add({dnnl::algorithm::binary_add, given, plain_desc(bias), given}, attributes(), engine());
      const auto y = impl->output(given);
      impl->add(dnnl::binary(add), add.scratchpad_desc(),
                {{DNNL_ARG_SRC_0, y}, {DNNL_ARG_SRC_1, impl->input(2, plain_desc(bias))}, {DNNL_ARG_DST, y}});
    }
    return impl;
  });
}

std::unique_ptr<Program> conv_grad_weight(const ConvRequest& r, std::string& why) {
  return attempt(why, [&] {
    const Geometry g = geometry_of(r.shape);
    const dnnl::convolution_backward_weights::primitive_desc pd(
        {dnnl::algorithm::convolution_direct, wish(g.src, r.src_block), any_desc(g.weights), wish(g.dst, r.dst_block), g.stride,
         g.dilation, g.pad_begin, g.pad_end},
        attributes(), engine(), hint(r, g));
    auto impl = std::make_unique<Program::Impl>();
    impl->implementation = pd.impl_info_str();
    if (probing()) return impl;
    const auto given = plain_desc(g.weights);
    const auto src = impl->input_as(0, activation_desc(g.src, r.src_block), pd.src_desc());
    const auto d_dst = impl->input_as(1, activation_desc(g.dst, r.dst_block), pd.diff_dst_desc());
    const auto d_weights = impl->output_from(given, pd.diff_weights_desc());
    impl->add(dnnl::convolution_backward_weights(pd), pd.scratchpad_desc(),
              {{DNNL_ARG_SRC, src}, {DNNL_ARG_DIFF_DST, d_dst}, {DNNL_ARG_DIFF_WEIGHTS, d_weights}});
    impl->finish_output(d_weights, given);
    return impl;
  });
}

Blocks preferred_blocks(const ConvRequest& request) {
  ConvRequest r = request;
  r.src_block = r.dst_block = 1;
  Blocks blocks;
  try {
    const Geometry g = geometry_of(r.shape);
    const auto pd = forward_pd(r, g, dnnl::prop_kind::forward_inference);
    for (int block : {8, 16}) {
      if (pd.src_desc() == activation_desc(g.src, block)) blocks.src = block;
      if (pd.dst_desc() == activation_desc(g.dst, block)) blocks.dst = block;
    }
  } catch (const dnnl::error&) {  // no primitive, no preference
  }
  return blocks;
}

}  // namespace ds::kernels::onednn
