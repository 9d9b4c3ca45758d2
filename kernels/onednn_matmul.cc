#include "kernels/onednn_program.h"
#include "libds/base/cpu.h"

namespace ds::kernels::onednn {

std::unique_ptr<Program> matmul(const MatMulRequest& r, std::string& why) {
  return attempt(why, [&] {
    using Dims = dnnl::memory::dims;
    constexpr auto kF32 = dnnl::memory::data_type::f32;
    const GemmShape& s = r.shape;
    const bool batched = r.batch > 1;
    const auto matrix = [&](int64_t rows, int64_t columns, bool transposed) {
      Dims dims = {rows, columns}, strides = transposed ? Dims{1, rows} : Dims{columns, 1};
      if (batched) {
        dims.insert(dims.begin(), r.batch);
        strides.insert(strides.begin(), rows * columns);
      }
      return dnnl::memory::desc(dims, kF32, strides);
    };
    const auto a = matrix(s.m, s.k, s.trans_a), b = matrix(s.k, s.n, s.trans_b), c = matrix(s.m, s.n, false);
    // Only from AVX-512 on does oneDNN have kernels that gain from weights in a format of their own.
    const bool pack = r.weights && cpu_isa() >= Isa::kAvx512;
    const auto b_wish = pack ? any_desc(b.dims()) : b;
    const auto bias = batched ? plain_desc({1, 1, s.n}) : plain_desc({1, s.n});
    dnnl::primitive_attr attr = attributes(r.epilogue);
    if (r.alpha != 1.0f) attr.set_output_scales(0, {r.alpha});
    const auto desc = r.bias ? dnnl::matmul::desc(a, b_wish, bias, c) : dnnl::matmul::desc(a, b_wish, c);
    const dnnl::matmul::primitive_desc pd(desc, attr, engine());
    auto impl = std::make_unique<Program::Impl>();
    impl->implementation = pd.impl_info_str();
    if (probing()) return impl;
    const auto weights = pack ? impl->weights_as(1, r.weights, b, pd.weights_desc()) : impl->input(1, b);
    std::vector<std::pair<int, dnnl::memory>> arguments = {
        {DNNL_ARG_SRC, impl->input(0, a)}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, impl->output(c)}};
    if (r.bias) arguments.emplace_back(DNNL_ARG_BIAS, impl->input(2, bias));
    impl->add(dnnl::matmul(pd), pd.scratchpad_desc(), std::move(arguments));
    return impl;
  });
}

}  // namespace ds::kernels::onednn
