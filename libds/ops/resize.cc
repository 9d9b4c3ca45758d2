// Resize (what Upsample became): nearest, linear and cubic resampling, and its gradient.
//
// Legend: x [d0, d1, ...] -> y; each axis has a scale. A position of y is mapped to a coordinate of x
// by coordinate_transformation_mode, in float as the reference implementation does, since ties decide
// which element nearest takes.
#include "kernels/resize.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::AxisTaps;

// What the node asks for, per axis of x.
struct Resize {
  std::vector<float> scale;  // 1 for axes that are left alone
  std::string mode, transform, nearest;
  float cubic_a = -0.75f;
  bool exclude_outside = false;
};

Resize resize_of(const Node& n, size_t rank) {
  Resize r;
  r.scale.assign(rank, 1.0f);
  r.mode = n.attr_string("mode", "nearest");
  r.transform = n.attr_string("coordinate_transformation_mode", "half_pixel");
  r.nearest = n.attr_string("nearest_mode", "round_prefer_floor");
  r.cubic_a = n.attr_float("cubic_coeff_a", -0.75f);
  r.exclude_outside = n.attr_int("exclude_outside", 0) != 0;
  const auto one_of = [](const std::string& word, std::initializer_list<const char*> words) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  if (!one_of(r.mode, {"nearest", "linear", "cubic"})) bad_data("mode '{}' is unknown", r.mode);
  if (r.transform == "tf_crop_and_resize") fail(ExitCode::kUnsupported, "coordinate_transformation_mode tf_crop_and_resize is not supported");
  if (!one_of(r.transform, {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"}))
    bad_data("coordinate_transformation_mode '{}' is unknown", r.transform);
  if (!one_of(r.nearest, {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"})) bad_data("nearest_mode '{}' is unknown", r.nearest);
  if (n.attr_int("antialias", 0) != 0) fail(ExitCode::kUnsupported, "antialias is not supported");
  return r;
}

std::vector<int64_t> resized_axes(const Node& n, size_t rank) {
  std::vector<int64_t> axes(rank);
  std::iota(axes.begin(), axes.end(), 0);
  if (!n.has_attr("axes")) return axes;
  axes = ops::normalize_axes(n.attr_ints("axes"), static_cast<int64_t>(rank));
  std::vector<int64_t> sorted = axes;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) bad_data("an axis is given twice");
  return axes;
}

int64_t scaled_size(int64_t in, float scale) {
  const double size = std::floor(static_cast<double>(scale * static_cast<float>(in)));
  if (!(size >= 0 && size < 9.0e15)) bad_data("scale {} gives no size", scale);
  return static_cast<int64_t>(size);
}

// Sizes and scales of axes under keep_aspect_ratio_policy: one scale for all of them.
void keep_aspect(const std::string& policy, const Shape& x, const std::vector<int64_t>& axes, std::vector<int64_t>& sizes) {
  if (policy == "stretch") return;
  if (policy != "not_larger" && policy != "not_smaller") bad_data("keep_aspect_ratio_policy '{}' is unknown", policy);
  float scale = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t in = x[static_cast<size_t>(axes[i])];
    if (in == 0) return;
    const float s = static_cast<float>(sizes[i]) / static_cast<float>(in);
    scale = i == 0 ? s : policy == "not_larger" ? std::min(scale, s) : std::max(scale, s);
  }
  for (size_t i = 0; i < axes.size(); ++i)
    sizes[i] = static_cast<int64_t>(std::lround(scale * static_cast<float>(x[static_cast<size_t>(axes[i])])));
}

void infer_resize(InferContext& c) {
  const Resize r = resize_of(c.node(), 0);
  if (r.mode != "nearest") c.require_dtype(0, ops::kFloats);
  c.require_dtype(2, {DType::kF32});
  if (c.has_input(2) == c.has_input(3)) c.error("exactly one of scales and sizes must be given");
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  const Dims x = c.dims(0);
  const std::vector<int64_t> axes = resized_axes(c.node(), x.size());
  Dims y = x;
  const auto check_count = [&](size_t count) {
    if (count != axes.size()) c.error("{} {} are given for {} axes", count, c.has_input(2) ? "scales" : "sizes", axes.size());
  };
  if (const Tensor* scales = c.constant(2)) {
    check_count(static_cast<size_t>(scales->numel()));
    for (size_t i = 0; i < axes.size(); ++i) {
      const float scale = scales->data<float>()[i];
      Dim& d = y[static_cast<size_t>(axes[i])];
      if (!(scale > 0) || !std::isfinite(scale)) c.error("scale {} is not positive", scale);
      if (scale == 1.0f) continue;
      d = d.known() ? Dim(scaled_size(d.raw, scale)) : c.fresh_dim();
    }
  } else if (const auto sizes = c.ints(3)) {
    check_count(sizes->size());
    const std::string policy = c.node().attr_string("keep_aspect_ratio_policy", "stretch");
    if (policy == "stretch") {
      for (size_t i = 0; i < axes.size(); ++i) y[static_cast<size_t>(axes[i])] = (*sizes)[i];
    } else if (all_known(*sizes) && all_known(x)) {
      std::vector<int64_t> adjusted = concrete(*sizes);
      keep_aspect(policy, concrete(x), axes, adjusted);
      for (size_t i = 0; i < axes.size(); ++i) y[static_cast<size_t>(axes[i])] = adjusted[i];
    } else {
      for (int64_t axis : axes) y[static_cast<size_t>(axis)] = c.fresh_dim();
    }
  } else {
    for (int64_t axis : axes) y[static_cast<size_t>(axis)] = c.fresh_dim();
  }
  for (size_t i = 0; i < y.size(); ++i)
    if (x[i] == Dim(0) && y[i].known() && y[i].raw > 0) c.error("axis {} is empty and cannot become {}", i, y[i].raw);
  c.set_output(0, c.dtype(0), y);
}

// Coordinate in x of position o of y.
float coordinate(const Resize& r, int64_t o, float scale, int64_t in, int64_t out) {
  const auto x = static_cast<float>(o), n_in = static_cast<float>(in), n_out = static_cast<float>(out);
  if (r.transform == "asymmetric") return x / scale;
  if (r.transform == "align_corners") return out == 1 ? 0.0f : x * (n_in - 1) / (n_out - 1);
  if (r.transform == "pytorch_half_pixel") return out > 1 ? (x + 0.5f) / scale - 0.5f : 0.0f;
  if (r.transform == "tf_half_pixel_for_nn") return (x + 0.5f) / scale;
  if (r.transform == "half_pixel_symmetric") {
    const float adjustment = n_out / (scale * n_in);
    return n_in / 2 * (1 - adjustment) + (x + 0.5f) / scale - 0.5f;
  }
  return (x + 0.5f) / scale - 0.5f;
}

int64_t nearest(const Resize& r, float x) {
  if (r.nearest == "floor") return static_cast<int64_t>(std::floor(x));
  if (r.nearest == "ceil") return static_cast<int64_t>(std::ceil(x));
  if (r.nearest == "round_prefer_ceil") return static_cast<int64_t>(std::floor(x + 0.5f));
  return static_cast<int64_t>(std::ceil(x - 0.5f));
}

AxisTaps taps_of(const Resize& r, size_t axis, int64_t in, int64_t out) {
  AxisTaps t;
  t.in = in;
  t.out = out;
  t.taps = r.mode == "nearest" ? 1 : r.mode == "linear" ? 2 : 4;
  const auto add = [&](int64_t index, double weight) {
    t.index.push_back(std::clamp<int64_t>(index, 0, in - 1));
    t.weight.push_back(weight);
  };
  for (int64_t o = 0; o < out; ++o) {
    const float x = coordinate(r, o, r.scale[axis], in, out);
    if (t.taps == 1) {
      add(nearest(r, x), 1);
    } else if (t.taps == 2) {
      const float inside = std::clamp(x, 0.0f, static_cast<float>(in - 1));
      const auto low = static_cast<int64_t>(inside);
      const float rest = inside - static_cast<float>(low);
      add(low, 1 - rest);
      add(low + 1, rest);
    } else {
      // Keys' cubic convolution over the four neighbours.
      const double a = r.cubic_a;
      const auto low = static_cast<int64_t>(std::floor(x));
      const double f = static_cast<double>(x) - static_cast<double>(low);
      double w[4] = {((a * (f + 1) - 5 * a) * (f + 1) + 8 * a) * (f + 1) - 4 * a, ((a + 2) * f - (a + 3)) * f * f + 1,
                     ((a + 2) * (1 - f) - (a + 3)) * (1 - f) * (1 - f) + 1,
                     ((a * (2 - f) - 5 * a) * (2 - f) + 8 * a) * (2 - f) - 4 * a};
      double sum = 0;
      for (int k = 0; k < 4; ++k) {
        const int64_t index = low - 1 + k;
        if (r.exclude_outside && (index < 0 || index >= in)) w[k] = 0;
        sum += w[k];
      }
      for (int k = 0; k < 4; ++k) add(low - 1 + k, r.exclude_outside ? w[k] / sum : w[k]);
    }
  }
  return t;
}

struct Pass {
  AxisTaps taps;
  int64_t outer = 1, inner = 1;
};

// The passes from x to y; axes that shrink come first. `scales`: content of that input, or null.
std::vector<Pass> passes_of(const Node& n, const Shape& x, const Shape& y, const Tensor* scales) {
  Resize r = resize_of(n, x.size());
  const std::vector<int64_t> axes = resized_axes(n, x.size());
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(axes[i]);
    r.scale[axis] = scales ? scales->data<float>()[i] : static_cast<float>(y[axis]) / static_cast<float>(std::max<int64_t>(1, x[axis]));
  }
  std::vector<size_t> order;
  for (size_t i = 0; i < x.size(); ++i)
    if (x[i] != y[i] || r.scale[i] != 1.0f) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return r.scale[a] < r.scale[b]; });
  std::vector<Pass> passes;
  Shape shape = x;
  for (size_t axis : order) {
    Pass p;
    p.taps = taps_of(r, axis, x[axis], y[axis]);
    for (size_t i = 0; i < axis; ++i) p.outer *= shape[i];
    for (size_t i = axis + 1; i < shape.size(); ++i) p.inner *= shape[i];
    shape[axis] = y[axis];
    passes.push_back(std::move(p));
  }
  return passes;
}

// Largest intermediate result, in elements.
int64_t intermediate(const std::vector<Pass>& passes, bool backward) {
  int64_t most = 0;
  for (size_t i = 0; i + 1 < passes.size(); ++i) {
    const Pass& p = passes[backward ? i + 1 : i];
    most = std::max(most, p.outer * (backward ? p.taps.in : p.taps.out) * p.inner);
  }
  return most;
}

// Runs passes over two alternating pieces of workspace, from `src` to `dst`.
template <typename Run>
void run_passes(const std::vector<Pass>& passes, bool backward, size_t element, const std::byte* src, std::byte* dst, std::byte* workspace,
                int64_t all_bytes, Run run) {
  if (passes.empty()) {
    std::copy(src, src + all_bytes, dst);
    return;
  }
  std::byte* pieces[2] = {workspace, workspace + static_cast<size_t>(intermediate(passes, backward)) * element};
  for (size_t i = 0; i < passes.size(); ++i) {
    std::byte* to = i + 1 == passes.size() ? dst : pieces[i % 2];
    run(passes[backward ? passes.size() - 1 - i : i], src, to);
    src = to;
  }
}

KernelDef resize_kernel() {
  KernelDef k;
  k.name = "portable/resize";
  k.decline = [](const KernelQuery& q) {  // copies of elements are fine
    return ops::require(!is_half(q.in(0).dtype) || q.node.attr_string("mode", "nearest") == "nearest", "16-bit float");
  };
  k.create = [](const KernelQuery& q) {
    if (q.in(2).defined() && q.constant(2) == nullptr) fail(ExitCode::kInternal, "scales are not known");
    auto passes = std::make_shared<std::vector<Pass>>(passes_of(q.node, q.in(0).shape, q.out(0).shape, q.constant(2)));
    const size_t element = dtype_size(q.in(0).dtype);
    const bool copies = std::all_of(passes->begin(), passes->end(), [](const Pass& p) { return p.taps.taps == 1; });
    return make_kernel(
        [passes, element, copies](const KernelContext& c) {
          if (c.output(0).numel() == 0) return;
          run_passes(*passes, false, element, static_cast<const std::byte*>(c.input(0).raw()), static_cast<std::byte*>(c.output(0).mutable_raw()),
                     c.workspace(), static_cast<int64_t>(c.input(0).bytes()), [&](const Pass& p, const std::byte* src, std::byte* dst) {
                       if (copies) return kernels::resize_axis_copy(p.outer, p.taps, p.inner, element, src, dst);
                       dispatch_float(c.input(0).dtype(), [&](auto tag) {
                         using T = decltype(tag);
                         kernels::resize_axis(p.outer, p.taps, p.inner, reinterpret_cast<const T*>(src), reinterpret_cast<T*>(dst));
                       });
                     });
        },
        2 * static_cast<size_t>(intermediate(*passes, false)) * element);
  };
  return k;
}

// The gradient's node has the same attributes, d_y as its only input, and what the forward node's inputs
// said: the shape of x, and the scales unless sizes decided them.
KernelDef resize_grad_kernel() {
  KernelDef k;
  k.name = "portable/resize_grad";
  k.create = [](const KernelQuery& q) {
    const std::vector<float> floats = q.node.attr_floats("scales");
    const Tensor scales = Tensor::vector<float>(floats);
    auto passes = std::make_shared<std::vector<Pass>>(
        passes_of(q.node, q.out(0).shape, q.in(0).shape, floats.empty() ? nullptr : &scales));
    const size_t element = dtype_size(q.in(0).dtype);
    return make_kernel(
        [passes, element](const KernelContext& c) {
          if (c.output(0).numel() == 0) return;
          run_passes(*passes, true, element, static_cast<const std::byte*>(c.input(0).raw()), static_cast<std::byte*>(c.output(0).mutable_raw()),
                     c.workspace(), static_cast<int64_t>(c.input(0).bytes()), [&](const Pass& p, const std::byte* src, std::byte* dst) {
                       dispatch_float(c.input(0).dtype(), [&](auto tag) {
                         using T = decltype(tag);
                         kernels::resize_axis_grad(p.outer, p.taps, p.inner, reinterpret_cast<const T*>(src), reinterpret_cast<T*>(dst));
                       });
                     });
        },
        2 * static_cast<size_t>(intermediate(*passes, true)) * element);
  };
  return k;
}

void grad_resize(GradContext& g) {
  if (!g.needs(0) || g.d_output(0) == kNone) return;
  Attributes attrs = g.node().attrs;
  attrs["input_shape"] = g.shape(g.input(0));
  if (const ValueId scales = g.input(2); scales != kNone) {
    const Tensor* t = g.rewriter().graph().value(scales).constant.get();
    if (t == nullptr) fail(ExitCode::kUnsupported, "{}: computed scales cannot be trained through", g.node().label());
    attrs["scales"] = std::vector<float>(t->span<float>().begin(), t->span<float>().end());
  }
  g.set_d_input(0, g.emit("ResizeGrad", {g.d_output(0)}, std::move(attrs)));
}

}  // namespace

void register_resize_ops(OpRegistry& registry) {
  OpDef def;
  def.name = "Resize";  // (x, roi?, scales?, sizes?) -> y
  def.min_inputs = 1;
  def.max_inputs = 4;
  def.infer = infer_resize;
  def.grad = grad_resize;
  def.shape_inputs = 0b1100;
  def.cost = [](const KernelQuery& q) {
    const std::string mode = q.node.attr_string("mode", "nearest");
    Cost cost;
    cost.bytes = static_cast<int64_t>(q.in(0).bytes() + q.out(0).bytes());
    cost.flops = mode == "nearest" ? 0 : checked_mul(q.out(0).numel(), mode == "linear" ? 8 : 32);
    return cost;
  };
  def.kernels = {resize_kernel()};
  registry.add(std::move(def));

  OpDef grad;
  grad.domain = Graph::kInternalDomain;
  grad.name = "ResizeGrad";  // (d_y) -> d_x
  grad.min_inputs = grad.max_inputs = 1;
  grad.infer = [](InferContext& c) { c.set_output(0, c.dtype(0), to_dims(c.node().attr_ints("input_shape"))); };
  grad.widens_halves = true;
  grad.kernels = {resize_grad_kernel()};
  registry.add(std::move(grad));
}

}  // namespace ds
