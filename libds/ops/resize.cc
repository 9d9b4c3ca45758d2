// Resize (what Upsample became): nearest, linear and cubic resampling, and its gradient.
//
// Legend: x [d0, d1, ...] -> y; each axis has a scale. A position of y is mapped to a coordinate of x
// by coordinate_transformation_mode, in float as the reference implementation does, since ties decide
// which element nearest takes. Where scales are given the size of y is rounded down from scale * size,
// but align_corners maps the ends of what was not rounded, as ONNX's own cases want it.
#include "kernels/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::AxisTaps;

// What the node asks for, per axis of x.
struct Resize {
  std::vector<float> scale;  // 1 for axes that are left alone
  std::vector<float> wanted;       // size of y before it was rounded down
  std::vector<float> start, end;   // part of x that tf_crop_and_resize takes
  std::string mode, transform, nearest;
  float cubic_a = -0.75f;
  bool exclude_outside = false, antialias = false;

  bool crops() const { return transform == "tf_crop_and_resize"; }
};

Resize resize_of(const Node& n, size_t rank) {
  Resize r;
  r.scale.assign(rank, 1.0f);
  r.wanted.assign(rank, 1.0f);
  r.start.assign(rank, 0.0f);
  r.end.assign(rank, 1.0f);
  r.mode = n.attr_string("mode", "nearest");
  r.transform = n.attr_string("coordinate_transformation_mode", "half_pixel");
  r.nearest = n.attr_string("nearest_mode", "round_prefer_floor");
  r.cubic_a = n.attr_float("cubic_coeff_a", -0.75f);
  r.exclude_outside = n.attr_int("exclude_outside", 0) != 0;
  const auto one_of = [](const std::string& word, std::initializer_list<const char*> words) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  if (!one_of(r.mode, {"nearest", "linear", "cubic"})) bad_data("mode '{}' is unknown", r.mode);
  if (!one_of(r.transform, {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"}))
    bad_data("coordinate_transformation_mode '{}' is unknown", r.transform);
  if (!one_of(r.nearest, {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"})) bad_data("nearest_mode '{}' is unknown", r.nearest);
  r.antialias = n.attr_int("antialias", 0) != 0;
  if (r.antialias && r.mode == "nearest") bad_data("antialias needs a filter: mode linear or cubic");
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

// Sizes and scales of axes under keep_aspect_ratio_policy: one scale for all of them; nullopt where each has its own.
std::optional<float> keep_aspect(const std::string& policy, const Shape& x, const std::vector<int64_t>& axes, std::vector<int64_t>& sizes) {
  if (policy == "stretch") return std::nullopt;
  if (policy != "not_larger" && policy != "not_smaller") bad_data("keep_aspect_ratio_policy '{}' is unknown", policy);
  float scale = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t in = x[static_cast<size_t>(axes[i])];
    if (in == 0) return std::nullopt;
    const float s = static_cast<float>(sizes[i]) / static_cast<float>(in);
    scale = i == 0 ? s : policy == "not_larger" ? std::min(scale, s) : std::max(scale, s);
  }
  for (size_t i = 0; i < axes.size(); ++i)
    sizes[i] = static_cast<int64_t>(std::lround(scale * static_cast<float>(x[static_cast<size_t>(axes[i])])));
  return scale;
}

void infer_resize(InferContext& c) {
  const Resize r = resize_of(c.node(), 0);
  if (r.mode != "nearest" && !is_float(c.dtype(0)) && !is_int(c.dtype(0))) c.error("a {} input can only be copied (mode nearest)", dtype_name(c.dtype(0)));
  if (r.crops() && !c.has_input(1)) c.error("tf_crop_and_resize needs the input roi");
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
float coordinate(const Resize& r, size_t axis, int64_t o, int64_t in, int64_t out) {
  const float scale = r.scale[axis], wanted = r.wanted[axis];
  const auto x = static_cast<float>(o), n_in = static_cast<float>(in), n_out = static_cast<float>(out);
  if (r.transform == "asymmetric") return x / scale;
  if (r.transform == "align_corners") return wanted == 1 || out == 1 ? 0.0f : x * (n_in - 1) / (wanted - 1);
  if (r.transform == "pytorch_half_pixel") return out > 1 ? (x + 0.5f) / scale - 0.5f : 0.0f;
  if (r.transform == "tf_half_pixel_for_nn") return (x + 0.5f) / scale;
  if (r.transform == "half_pixel_symmetric") return n_in / 2 * (1 - n_out / wanted) + (x + 0.5f) / scale - 0.5f;
  if (r.crops()) {
    const float start = r.start[axis], end = r.end[axis];
    if (out == 1) return 0.5f * (start + end) * (n_in - 1);
    return start * (n_in - 1) + x * (end - start) * (n_in - 1) / (wanted - 1);
  }
  return (x + 0.5f) / scale - 0.5f;
}

int64_t nearest(const Resize& r, float x) {
  if (r.nearest == "floor") return static_cast<int64_t>(std::floor(x));
  if (r.nearest == "ceil") return static_cast<int64_t>(std::ceil(x));
  if (r.nearest == "round_prefer_ceil") return static_cast<int64_t>(std::floor(x + 0.5f));
  return static_cast<int64_t>(std::ceil(x - 0.5f));
}

// Keys' cubic convolution at distance d.
double keys(double a, double d) {
  d = std::abs(d);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return 0;
}

// Half the width of the filter in elements of x. Against aliasing it grows with the step between samples.
double support_of(const Resize& r, size_t axis) {
  const double stretch = r.antialias ? std::max(1.0, 1.0 / static_cast<double>(r.scale[axis])) : 1.0;
  return (r.mode == "linear" ? 1 : 2) * stretch;
}

AxisTaps taps_of(const Resize& r, size_t axis, int64_t in, int64_t out) {
  AxisTaps t;
  t.in = in;
  t.out = out;
  const double support = r.mode == "nearest" ? 0 : support_of(r, axis), narrow = (r.mode == "linear" ? 1 : 2) / std::max(support, 1e-30);
  const double half = std::ceil(support);
  if (half > 1 << 24) bad_data("scale {} is too small to filter by", r.scale[axis]);
  t.taps = r.mode == "nearest" ? 1 : static_cast<int>(2 * half);
  const auto add = [&](int64_t index, double weight) {
    t.index.push_back(std::clamp<int64_t>(index, 0, in - 1));
    t.weight.push_back(weight);
  };
  std::vector<double> w(static_cast<size_t>(t.taps));
  for (int64_t o = 0; o < out; ++o) {
    const float x = coordinate(r, axis, o, in, out);
    if (!std::isfinite(x) || std::abs(x) > 9e15f) bad_data("position {} has no coordinate in the input", o);
    if (r.crops() && !(x >= 0 && x <= static_cast<float>(in - 1))) {  // filled later
      t.outside.push_back(o);
      for (int k = 0; k < t.taps; ++k) add(0, 0);
    } else if (r.mode == "nearest") {
      add(nearest(r, x), 1);
    } else if (r.mode == "linear" && !r.antialias) {
      const float inside = std::clamp(x, 0.0f, static_cast<float>(in - 1));
      const auto low = static_cast<int64_t>(inside);
      const float rest = inside - static_cast<float>(low);
      add(low, 1 - rest);
      add(low + 1, rest);
    } else {
      const auto first = static_cast<int64_t>(std::floor(x)) - static_cast<int64_t>(half) + 1;
      double sum = 0;
      for (int k = 0; k < t.taps; ++k) {
        const int64_t index = first + k;
        const double d = (static_cast<double>(index) - static_cast<double>(x)) * narrow;
        double& weight = w[static_cast<size_t>(k)];
        weight = r.mode == "linear" ? std::max(0.0, 1 - std::abs(d)) : keys(static_cast<double>(r.cubic_a), d);
        if (r.exclude_outside && (index < 0 || index >= in)) weight = 0;
        sum += weight;
      }
      const bool uneven = (r.exclude_outside || r.antialias) && sum != 0;
      for (int k = 0; k < t.taps; ++k) add(first + k, uneven ? w[static_cast<size_t>(k)] / sum : w[static_cast<size_t>(k)]);
    }
  }
  return t;
}

struct Pass {
  AxisTaps taps;
  size_t axis = 0;
  int64_t outer = 1, inner = 1;
};

// Contents of the inputs that decide the mapping; null where absent.
struct Mapping {
  const Tensor *roi = nullptr, *scales = nullptr, *sizes = nullptr;
};

// The passes from x to y; axes that shrink come first. Either may have its channels (axis 1) last in memory.
std::vector<Pass> passes_of(const Node& n, const Shape& x, const Shape& y, const Mapping& mapping, bool channels_last = false) {
  Resize r = resize_of(n, x.size());
  const std::vector<int64_t> axes = resized_axes(n, x.size());
  std::optional<float> common;  // scale of all axes
  if (mapping.sizes != nullptr) {
    std::vector<int64_t> sizes = mapping.sizes->to_ints();
    common = keep_aspect(n.attr_string("keep_aspect_ratio_policy", "stretch"), x, axes, sizes);
  }
  std::vector<double> roi;
  if (r.crops() && mapping.roi != nullptr) {
    roi = mapping.roi->to_doubles();
    if (roi.size() != 2 * axes.size()) bad_data("roi has {} numbers for {} axes", roi.size(), axes.size());
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(axes[i]);
    const auto in = static_cast<float>(std::max<int64_t>(1, x[axis]));
    r.scale[axis] = mapping.scales ? mapping.scales->data<float>()[i] : common ? *common : static_cast<float>(y[axis]) / in;
    r.wanted[axis] = mapping.scales || common ? r.scale[axis] * in : static_cast<float>(y[axis]);
    if (roi.empty()) continue;
    r.start[axis] = static_cast<float>(roi[i]);
    r.end[axis] = static_cast<float>(roi[i + axes.size()]);
  }
  std::vector<size_t> order;
  for (size_t i = 0; i < x.size(); ++i)
    if (x[i] != y[i] || r.scale[i] != 1.0f || r.start[i] != 0.0f || r.end[i] != 1.0f) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return r.scale[a] < r.scale[b]; });
  std::vector<Pass> passes;
  const auto place = [&](size_t axis) { return !channels_last || axis == 0 ? axis : axis == 1 ? x.size() - 1 : axis - 1; };  // in memory
  Shape shape = x;
  for (size_t i = 0; i < x.size(); ++i) shape[place(i)] = x[i];
  for (size_t axis : order) {
    Pass p;
    p.taps = taps_of(r, axis, x[axis], y[axis]);
    p.axis = place(axis);
    for (size_t i = 0; i < p.axis; ++i) p.outer *= shape[i];
    for (size_t i = p.axis + 1; i < shape.size(); ++i) p.inner *= shape[i];
    shape[p.axis] = y[axis];
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

// Positions of y that lie outside of the part of x that was asked for.
void fill_outside(const std::vector<Pass>& passes, const Shape& y, size_t element, const std::byte* value, std::byte* dst) {
  for (const Pass& p : passes) {
    if (p.taps.outside.empty()) continue;
    int64_t before = 1, inner = 1;
    for (size_t i = 0; i < p.axis; ++i) before *= y[i];
    for (size_t i = p.axis + 1; i < y.size(); ++i) inner *= y[i];
    for (int64_t b = 0; b < before; ++b)
      for (int64_t o : p.taps.outside)
        for (int64_t i = 0; i < inner; ++i) std::memcpy(dst + static_cast<size_t>((b * p.taps.out + o) * inner + i) * element, value, element);
  }
}

// Integers are resampled as f64 and come back as onnxruntime has them: linear ones cut off, others rounded.
Tensor to_integer(const Tensor& y, DType dtype, bool cut) {
  Tensor whole = Tensor::empty(DType::kF64, y.shape());
  constexpr double kAlmost = 1e-9;  // what should be whole is whole
  const auto least = [&](DType t) { return is_unsigned_int(t) ? 0.0 : -std::ldexp(1.0, static_cast<int>(dtype_bits(t)) - 1); };
  const double low = least(dtype), high = std::ldexp(1.0, static_cast<int>(dtype_bits(dtype)) - (is_unsigned_int(dtype) ? 0 : 1)) - 1;
  for (int64_t i = 0; i < y.numel(); ++i) {
    const double v = y.data<double>()[i];
    whole.mutable_data<double>()[i] = std::clamp(cut ? std::trunc(v + std::copysign(kAlmost, v)) : std::nearbyint(v), low, high);
  }
  return whole.cast(dtype);
}

struct Prepared {
  std::vector<Pass> passes;
  bool copies = false;
  int64_t intermediate = 0;
};

// `by_vectors`: for f32, where it is not null.
void run_resize(const KernelContext& c, const Prepared& prepared, const Node& node, std::byte* workspace, kernels::ResizeAxisFn* by_vectors) {
  const Tensor &x = c.input(0), &y = c.output(0);
  if (y.numel() == 0) return;
  const bool integer = !prepared.copies && is_int(x.dtype());
  const Tensor src = integer ? x.cast(DType::kF64) : x;
  const Tensor dst = integer ? Tensor::empty(DType::kF64, y.shape()) : y;
  const size_t element = dtype_size(src.dtype());
  Tensor held;
  if (workspace == nullptr) {
    held = Tensor::empty(DType::kU8, {checked_mul(2 * prepared.intermediate, static_cast<int64_t>(element))});
    workspace = static_cast<std::byte*>(held.mutable_raw());
  }
  const std::vector<Pass>& passes = prepared.passes;
  if (prepared.copies && passes.size() == 2 && passes[0].axis + 1 == passes[1].axis && passes[0].taps.outside.empty() && passes[1].taps.outside.empty())
    return kernels::resize_plane_copy(passes[0].outer, passes[0].taps, passes[1].taps, passes[1].inner, element, static_cast<const std::byte*>(src.raw()),
                                      static_cast<std::byte*>(dst.mutable_raw()));
  run_passes(prepared.passes, false, element, static_cast<const std::byte*>(src.raw()), static_cast<std::byte*>(dst.mutable_raw()), workspace,
             static_cast<int64_t>(src.bytes()), [&](const Pass& p, const std::byte* from, std::byte* to) {
               if (prepared.copies) return kernels::resize_axis_copy(p.outer, p.taps, p.inner, element, from, to);
               if (by_vectors != nullptr)
                 return by_vectors(p.outer, {p.taps.in, p.taps.out, p.taps.taps, p.taps.index.data(), p.taps.weight.data()}, p.inner,
                                   reinterpret_cast<const float*>(from), reinterpret_cast<float*>(to));
               dispatch_float(src.dtype(), [&](auto tag) {
                 using T = decltype(tag);
                 kernels::resize_axis(p.outer, p.taps, p.inner, reinterpret_cast<const T*>(from), reinterpret_cast<T*>(to));
               });
             });
  if (node.attr_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize") {
    const Tensor value = Tensor::scalar(node.attr_float("extrapolation_value", 0)).cast(dst.dtype());
    fill_outside(prepared.passes, y.shape(), element, static_cast<const std::byte*>(value.raw()), static_cast<std::byte*>(dst.mutable_raw()));
  }
  if (!integer) return;
  const bool cut = node.attr_string("mode", "nearest") == "linear" && node.attr_int("antialias", 0) == 0;
  const Tensor whole = to_integer(dst, x.dtype(), cut);
  std::memcpy(c.output(0).mutable_raw(), whole.raw(), whole.bytes());
}

KernelDef resize_kernel(const char* name, Isa isa, kernels::ResizeAxisFn* by_vectors) {
  KernelDef k;
  k.name = name;
  k.isa = isa;
  k.decline = [by_vectors](const KernelQuery& q) -> std::string {  // copies of elements are fine
    if (by_vectors != nullptr) {
      if (q.in(0).dtype != DType::kF32) return "not f32";
      return ops::require(q.node.attr_string("mode", "nearest") != "nearest", "elements are copied");
    }
    return ops::require(!is_half(q.in(0).dtype) || q.node.attr_string("mode", "nearest") == "nearest", "16-bit float");
  };
  k.preferred_layouts = [](const KernelQuery& q, std::vector<Layout>& inputs, std::vector<Layout>& outputs) {
    if (q.in(0).layout == Layout::kChannelsLast && q.node.attr_string("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize")
      inputs[0] = outputs[0] = Layout::kChannelsLast;
  };
  k.create = [by_vectors](const KernelQuery& q) {
    const bool last = q.in(0).layout == Layout::kChannelsLast;
    const auto prepare = [node = q.node, x = q.in(0).shape, y = q.out(0).shape, last](const Mapping& mapping) {
      Prepared p;
      p.passes = passes_of(node, x, y, mapping, last);
      p.copies = node.attr_string("mode", "nearest") == "nearest";
      p.intermediate = intermediate(p.passes, false);
      return p;
    };
    const bool crops = q.node.attr_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize";
    bool known = true;
    for (size_t i = crops ? 1 : 2; i < 4; ++i) known &= !q.in(i).defined() || q.constant(i) != nullptr;
    if (!known) {  // the mapping is worked out at every run
      return make_kernel([prepare, node = q.node, by_vectors](const KernelContext& c) {
        const auto at = [&](size_t i) { return c.has_input(i) ? &c.input(i) : nullptr; };
        run_resize(c, prepare({at(1), at(2), at(3)}), node, nullptr, by_vectors);
      });
    }
    auto prepared = std::make_shared<const Prepared>(prepare({q.constant(1), q.constant(2), q.constant(3)}));
    const size_t element = std::max(dtype_size(q.in(0).dtype), is_int(q.in(0).dtype) ? sizeof(double) : size_t{1});
    return make_kernel([prepared, node = q.node, by_vectors](const KernelContext& c) { run_resize(c, *prepared, node, c.workspace(), by_vectors); },
                       2 * static_cast<size_t>(prepared->intermediate) * element);
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
    const std::vector<int64_t> ints = q.node.attr_ints("sizes");
    const Tensor scales = Tensor::vector<float>(floats), sizes = Tensor::vector<int64_t>(ints), roi = Tensor::vector<float>(q.node.attr_floats("roi"));
    auto passes = std::make_shared<std::vector<Pass>>(
        passes_of(q.node, q.out(0).shape, q.in(0).shape, {&roi, floats.empty() ? nullptr : &scales, ints.empty() ? nullptr : &sizes}));
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
  const auto content = [&](size_t i) -> const Tensor* {
    const ValueId id = g.input(i);
    if (id == kNone) return nullptr;
    const Tensor* t = g.rewriter().graph().value(id).constant.get();
    if (t == nullptr) fail(ExitCode::kUnsupported, "{}: computed {} cannot be trained through", g.node().label(), i == 1 ? "roi" : i == 2 ? "scales" : "sizes");
    return t;
  };
  const auto floats = [](const Tensor& t) {
    const Tensor f = t.cast(DType::kF32);
    return std::vector<float>(f.span<float>().begin(), f.span<float>().end());
  };
  if (g.node().attr_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize") attrs["roi"] = floats(*content(1));
  if (const Tensor* scales = content(2)) attrs["scales"] = floats(*scales);
  else if (g.node().attr_string("keep_aspect_ratio_policy", "stretch") != "stretch") attrs["sizes"] = content(3)->to_ints();
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
  def.kernels = {resize_kernel("avx512/resize", Isa::kAvx512, kernels::resize_axis_avx512),
                 resize_kernel("avx2/resize", Isa::kAvx2, kernels::resize_axis_avx2), resize_kernel("portable/resize", Isa::kPortable, nullptr)};
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
