#include "kernels/onednn_program.h"

namespace ds::kernels::onednn {

std::unique_ptr<Program> pool(const PoolShape& s, Pooling kind, int block, std::string& why) {
  return attempt(why, [&] {
    using dnnl::algorithm;
    std::vector<int64_t> src = {s.batch, s.channels}, dst = src, stride, kernel, dilation, pad_begin, pad_end;
    for (size_t d = static_cast<size_t>(3 - s.spatial); d < 3; ++d) {
      src.push_back(s.in[d]);
      dst.push_back(s.out[d]);
      stride.push_back(s.stride[d]);
      kernel.push_back(s.kernel[d]);
      dilation.push_back(s.dilation[d] - 1);  // oneDNN counts the gaps
      pad_begin.push_back(s.pad_begin[d]);
      // Trailing padding that gives exactly this output (ceil_mode reaches further than declared).
      const int64_t extent = (s.kernel[d] - 1) * s.dilation[d] + 1;
      const int64_t floor_out = (s.in[d] + s.pad_begin[d] + s.pad_end[d] - extent) / s.stride[d] + 1;
      pad_end.push_back(floor_out == s.out[d] ? s.pad_end[d]
                                              : (s.out[d] - 1) * s.stride[d] + extent - s.in[d] - s.pad_begin[d]);
    }
    const auto algorithm = kind == Pooling::kMax       ? algorithm::pooling_max
                           : kind == Pooling::kAverage ? algorithm::pooling_avg_exclude_padding
                                                       : algorithm::pooling_avg_include_padding;
    const auto from = activation_desc(src, block), to = activation_desc(dst, block);
    const dnnl::pooling_v2_forward::primitive_desc pd(
        {dnnl::prop_kind::forward_inference, algorithm, from, to, stride, kernel, dilation, pad_begin, pad_end}, attributes(),
        engine());
    auto impl = std::make_unique<Program::Impl>();
    impl->implementation = pd.impl_info_str();
    if (probing()) return impl;
    impl->add(dnnl::pooling_v2_forward(pd), pd.scratchpad_desc(),
              {{DNNL_ARG_SRC, impl->input(0, from)}, {DNNL_ARG_DST, impl->output(to)}});
    return impl;
  });
}

}  // namespace ds::kernels::onednn
