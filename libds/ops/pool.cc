// MaxPool, AveragePool, LpPool, their global forms, and their gradients.
//
// Legend: x [N, C, in...], y [N, C, out...]. The global forms are pools whose window is the plane.
#include "kernels/pool.h"

#include "kernels/nhwc_pool.h"
#include "libds/ops/onednn_kernel.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using kernels::PoolShape;
using ops::Window;

constexpr size_t kMostSpatial = 3;

bool is_global(const Node& node) { return node.op.rfind("Global", 0) == 0; }

// x and y are the pool's input and output (concrete).
PoolShape pool_shape(const Node& node, const Shape& x, const Shape& y) {
  const Shape in(x.begin() + 2, x.end());
  Window w;
  if (is_global(node)) {
    w.kernel = in;
    w.stride.assign(in.size(), 1);
    w.dilation.assign(in.size(), 1);
    w.pad_begin.assign(in.size(), 0);
    w.pad_end.assign(in.size(), 0);
  } else {
    w = ops::resolve_padding(ops::window_of(node, node.attr_ints("kernel_shape")), in);
  }
  PoolShape s;
  s.spatial = static_cast<int>(in.size());
  s.batch = x[0];
  s.channels = x[1];
  for (size_t i = 0; i < in.size(); ++i) {
    const size_t d = i + 3 - in.size();
    s.in[d] = in[i];
    s.out[d] = y[i + 2];
    s.kernel[d] = w.kernel[i];
    s.stride[d] = w.stride[i];
    s.dilation[d] = w.dilation[i];
    s.pad_begin[d] = w.pad_begin[i];
    s.pad_end[d] = w.pad_end[i];
  }
  return s;
}

void check_rank(InferContext& c) {
  const size_t rank = c.dims(0).size();
  if (rank < 3 || rank > 2 + kMostSpatial) c.error("input has rank {}, expected 3 to {}", rank, 2 + kMostSpatial);
}

void require_pooled(InferContext& c) {
  if (c.node().op == "MaxPool") c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16, DType::kI8, DType::kU8});
  else c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
}

void infer_pool(InferContext& c) {
  require_pooled(c);
  std::optional<Dims> y;
  const std::vector<int64_t> kernel = c.node().attr_ints("kernel_shape");
  if (kernel.empty()) c.error("kernel_shape is missing");
  if (c.has_dims(0)) {
    check_rank(c);
    const Dims x = c.dims(0);
    if (kernel.size() != x.size() - 2) c.error("kernel_shape has {} values, the input {} spatial axes", kernel.size(), x.size() - 2);
    Window window = ops::window_of(c.node(), kernel);
    window.may_overhang = true;
    for (size_t i = 0; i < kernel.size(); ++i)
      if (window.auto_pad == "NOTSET" && (window.pad_begin[i] >= window.extent(i) || window.pad_end[i] >= window.extent(i)))
        c.error("padding is as large as the window");
    y = Dims{x[0], x[1]};
    for (size_t i = 0; i < kernel.size(); ++i) y->push_back(ops::output_dim(c, window, i, x[i + 2]));
  }
  c.set_output(0, c.dtype(0), y);
  if (c.node().output(1) != kNone) c.set_output(1, DType::kI64, y);
}

void infer_global_pool(InferContext& c) {
  require_pooled(c);
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  check_rank(c);
  Dims y(c.dims(0).size(), Dim(1));
  y[0] = c.dims(0)[0];
  y[1] = c.dims(0)[1];
  for (size_t i = 2; i < y.size(); ++i)
    if (c.dims(0)[i] == Dim(0)) c.error("spatial axis {} is empty", i - 2);
  c.set_output(0, c.dtype(0), y);
}

// Gradients carry the pool's attributes with padding made explicit, so that they do not depend on auto_pad.
Attributes explicit_attrs(GradContext& g) {
  const Shape xs = g.shape(g.input(0));
  const Shape in(xs.begin() + 2, xs.end());
  if (is_global(g.node())) return {{"kernel_shape", in}};
  const Window w = ops::resolve_padding(ops::window_of(g.node(), g.node().attr_ints("kernel_shape")), in);
  std::vector<int64_t> pads = w.pad_begin;
  pads.insert(pads.end(), w.pad_end.begin(), w.pad_end.end());
  return {{"kernel_shape", w.kernel},
          {"strides", w.stride},
          {"dilations", w.dilation},
          {"pads", pads},
          {"ceil_mode", int64_t{w.ceil_mode}},
          {"count_include_pad", g.node().attr_int("count_include_pad", 0)}};
}

void grad_max_pool(GradContext& g) {
  if (!g.needs(0) || g.d_output(0) == kNone) return;
  const Attributes attrs = explicit_attrs(g);
  g.set_d_input(0, g.emit("MaxPoolGrad", {g.input(0), g.d_output(0)}, attrs));
}

void grad_lp_pool(GradContext& g) {
  if (!g.needs(0) || g.d_output(0) == kNone) return;
  Attributes attrs = explicit_attrs(g);
  attrs["p"] = g.node().attr_int("p", 2);
  g.set_d_input(0, g.emit("LpPoolGrad", {g.input(0), g.output(0), g.d_output(0)}, attrs));
}

void grad_average_pool(GradContext& g) {
  if (!g.needs(0)) return;
  Attributes attrs = explicit_attrs(g);
  attrs["shape"] = g.shape(g.input(0));
  g.set_d_input(0, g.emit("AveragePoolGrad", {g.d_output(0)}, attrs));
}

bool counts_pad(const Node& node) { return node.attr_int("count_include_pad", 0) != 0; }

std::string whole_float(const KernelQuery& q) { return ops::require(!is_half(q.in(0).dtype), "16-bit float"); }

// Float types, and the bytes that MaxPool takes.
template <typename F>
void dispatch_pooled(DType dtype, F&& f) {
  if (dtype == DType::kU8) f(uint8_t{});
  else if (dtype == DType::kI8) f(int8_t{});
  else dispatch_float(dtype, f);
}

KernelDef max_pool_kernel() {
  KernelDef k;
  k.name = "portable/max_pool";
  k.decline = whole_float;
  k.create = [](const KernelQuery& q) {
    const PoolShape s = pool_shape(q.node, q.in(0).shape, q.out(0).shape);
    const bool column_major = q.node.attr_int("storage_order", 0) != 0;
    return make_kernel([s, column_major](const KernelContext& c) {
      int64_t* indices = c.has_output(1) ? c.output(1).mutable_data<int64_t>() : nullptr;
      dispatch_pooled(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::max_pool<T>(s, c.input(0).data<T>(), c.output(0).mutable_data<T>(), indices, column_major);
      });
    });
  };
  return k;
}

KernelDef average_pool_kernel() {
  KernelDef k;
  k.name = "portable/average_pool";
  k.decline = whole_float;
  k.create = [](const KernelQuery& q) {
    const PoolShape s = pool_shape(q.node, q.in(0).shape, q.out(0).shape);
    return make_kernel([s, count_pad = counts_pad(q.node)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::average_pool<T>(s, count_pad, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  return k;
}

int64_t exponent_of(const Node& node) {
  const int64_t p = node.attr_int("p", 2);
  if (p < 1) bad_data("p is {}, expected at least 1", p);
  return p;
}

KernelDef lp_pool_kernel() {
  KernelDef k;
  k.name = "portable/lp_pool";
  k.decline = whole_float;
  k.create = [](const KernelQuery& q) {
    const PoolShape s = pool_shape(q.node, q.in(0).shape, q.out(0).shape);
    return make_kernel([s, p = exponent_of(q.node)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::lp_pool<T>(s, p, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  return k;
}

// A pool stays in the layout its input has already.
void follow_input(const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
  inputs[0] = outputs[0] = q.in(0).layout;
}

constexpr const char* kOverhangs = "a window larger than the axis";
bool overhangs(const KernelQuery& q) {
  const PoolShape s = pool_shape(q.node, q.in(0).shape, q.out(0).shape);
  for (size_t d = 0; d < 3; ++d)
    if ((s.kernel[d] - 1) * s.dilation[d] + 1 > s.in[d] + s.pad_begin[d] + s.pad_end[d]) return true;
  return false;
}

KernelDef onednn_max_pool() {
  KernelDef k = ops::onednn_kernel("onednn/max_pool", [](const KernelQuery& q, std::string& why) -> std::unique_ptr<kernels::onednn::Program> {
    if (q.out(1).defined()) return why = "indices wanted", nullptr;
    if (overhangs(q)) return why = kOverhangs, nullptr;
    return kernels::onednn::pool(pool_shape(q.node, q.in(0).shape, q.out(0).shape), kernels::onednn::Pooling::kMax,
                                 ops::block_of(q.in(0).layout), why);
  });
  k.preferred_layouts = follow_input;
  return k;
}

KernelDef onednn_average_pool() {
  using kernels::onednn::Pooling;
  KernelDef k = ops::onednn_kernel("onednn/average_pool", [](const KernelQuery& q, std::string& why) -> std::unique_ptr<kernels::onednn::Program> {
    const bool count_pad = counts_pad(q.node);
    if (overhangs(q)) return why = kOverhangs, nullptr;
    // oneDNN has plain loops over every window there; ours add along one axis after the other.
    if (q.in(0).rank() == 5 && q.in(0).layout == Layout::kPlain) return why = "volumes in plain layout", nullptr;
    if (count_pad && q.node.attr_int("ceil_mode", 0) != 0) return why = "ceil_mode counts padding", nullptr;
    return kernels::onednn::pool(pool_shape(q.node, q.in(0).shape, q.out(0).shape),
                                 count_pad ? Pooling::kAverageWithPadding : Pooling::kAverage, ops::block_of(q.in(0).layout), why);
  });
  k.preferred_layouts = follow_input;
  return k;
}

// Pools between convolutions that keep channels last.
KernelDef nhwc_pool(const char* name, Isa isa, kernels::NhwcPoolFn* function) {
  KernelDef k;
  k.name = name;
  k.isa = isa;
  k.decline = [](const KernelQuery& q) -> std::string {
    if (q.in(0).dtype != DType::kF32) return "not f32";
    if (q.in(0).rank() > 4) return "three spatial axes";
    if (q.out(1).defined()) return "indices wanted";
    if (q.in(0).layout != Layout::kChannelsLast || q.out(0).layout != Layout::kChannelsLast) return "channels are not last";
    return {};
  };
  k.create = [function](const KernelQuery& q) {
    using kernels::NhwcPooling;
    const bool max = q.node.op == "MaxPool" || q.node.op == "GlobalMaxPool";
    const NhwcPooling pooling = max ? NhwcPooling::kMax : counts_pad(q.node) ? NhwcPooling::kAverageWithPadding : NhwcPooling::kAverage;
    return make_kernel([s = pool_shape(q.node, q.in(0).shape, q.out(0).shape), pooling, function](const KernelContext& c) {
      function(s, pooling, c.input(0).data<float>(), c.output(0).mutable_data<float>());
    });
  };
  k.preferred_layouts = follow_input;
  return k;
}

KernelDef pool_avx512() { return nhwc_pool("avx512/pool", Isa::kAvx512, kernels::nhwc_pool_avx512); }
KernelDef pool_avx2() { return nhwc_pool("avx2/pool", Isa::kAvx2, kernels::nhwc_pool_avx2); }

Cost pool_cost(const KernelQuery& q) {
  const PoolShape s = pool_shape(q.node, q.in(0).shape, q.out(0).shape);
  return {checked_mul(s.planes() * s.out_plane(), s.kernel_size()), ops::operand_bytes(q)};
}

OpDef pool_def(const char* name, InferFn infer, GradFn grad, std::vector<KernelDef> kernels) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = 1;
  def.infer = std::move(infer);
  def.grad = std::move(grad);
  def.cost = pool_cost;
  def.kernels = std::move(kernels);
  def.widens_halves = true;
  return def;
}

void register_pool_gradients(OpRegistry& registry) {
  OpDef max;
  max.domain = Graph::kInternalDomain;
  max.name = "MaxPoolGrad";  // (x, d_y) -> d_x
  max.min_inputs = max.max_inputs = 2;
  max.infer = ops::infer_same_as_input;
  KernelDef mk;
  mk.name = "portable/max_pool_grad";
  mk.decline = whole_float;
  mk.create = [](const KernelQuery& q) {
    return make_kernel([s = pool_shape(q.node, q.in(0).shape, q.in(1).shape)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::max_pool_grad<T>(s, c.input(0).data<T>(), c.input(1).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  max.kernels = {mk};
  max.widens_halves = true;
  registry.add(std::move(max));

  OpDef average;
  average.domain = Graph::kInternalDomain;
  average.name = "AveragePoolGrad";  // (d_y) -> d_x of attribute `shape`
  average.min_inputs = average.max_inputs = 1;
  average.infer = [](InferContext& c) { c.set_output(0, c.dtype(0), to_dims(c.node().attr_ints("shape"))); };
  KernelDef ak;
  ak.name = "portable/average_pool_grad";
  ak.decline = whole_float;
  ak.create = [](const KernelQuery& q) {
    const PoolShape s = pool_shape(q.node, q.out(0).shape, q.in(0).shape);
    return make_kernel([s, count_pad = counts_pad(q.node)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::average_pool_grad<T>(s, count_pad, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  average.kernels = {ak};
  average.widens_halves = true;
  registry.add(std::move(average));

  OpDef lp;
  lp.domain = Graph::kInternalDomain;
  lp.name = "LpPoolGrad";  // (x, y, d_y) -> d_x
  lp.min_inputs = lp.max_inputs = 3;
  lp.infer = ops::infer_same_as_input;
  KernelDef lk;
  lk.name = "portable/lp_pool_grad";
  lk.decline = whole_float;
  lk.create = [](const KernelQuery& q) {
    const PoolShape s = pool_shape(q.node, q.in(0).shape, q.in(1).shape);
    return make_kernel([s, p = exponent_of(q.node)](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::lp_pool_grad<T>(s, p, c.input(0).data<T>(), c.input(1).data<T>(), c.input(2).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  lp.kernels = {lk};
  registry.add(std::move(lp));
}

}  // namespace

void register_pool_ops(OpRegistry& registry) {
  OpDef max = pool_def("MaxPool", infer_pool, grad_max_pool, {pool_avx512(), pool_avx2(), onednn_max_pool(), max_pool_kernel()});
  max.max_outputs = 2;
  registry.add(std::move(max));
  registry.add(pool_def("AveragePool", infer_pool, grad_average_pool, {pool_avx512(), pool_avx2(), onednn_average_pool(), average_pool_kernel()}));
  registry.add(pool_def("GlobalMaxPool", infer_global_pool, grad_max_pool, {pool_avx512(), pool_avx2(), onednn_max_pool(), max_pool_kernel()}));
  registry.add(pool_def("GlobalAveragePool", infer_global_pool, grad_average_pool, {pool_avx512(), pool_avx2(), onednn_average_pool(), average_pool_kernel()}));
  registry.add(pool_def("LpPool", infer_pool, grad_lp_pool, {lp_pool_kernel()}));
  registry.add(pool_def("GlobalLpPool", infer_global_pool, grad_lp_pool, {lp_pool_kernel()}));
  register_pool_gradients(registry);
}

}  // namespace ds
