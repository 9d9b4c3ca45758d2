// Resize: nearest, linear and cubic resampling of any number of axes (ONNX Resize 19; antialiasing and the crop of
// tf_crop_and_resize are declined).
#include "kernels/resize.h"

#include <algorithm>
#include <cmath>

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::ResizeAxis;

// Which axes the scales or sizes are for.
std::vector<int64_t> resized_axes(const Node& node, size_t rank) {
  std::vector<int64_t> axes = node.attr_ints("axes");
  if (!node.has_attr("axes"))
    for (size_t i = 0; i < rank; ++i) axes.push_back(static_cast<int64_t>(i));
  return ops::normalize_axes(std::move(axes), static_cast<int64_t>(rank));
}

bool holds_values(const Tensor* t) { return t != nullptr && t->numel() > 0; }

struct Resized {
  Shape out;
  std::vector<double> scale;  // per axis; 1 where nothing is asked
};

// Output shape and scales from the input's shape and the constant scales (input 2) or sizes (input 3).
Resized resized(const Node& node, const Shape& in, const Tensor* scales, const Tensor* sizes) {
  Resized r{in, std::vector<double>(in.size(), 1.0)};
  const std::vector<int64_t> axes = resized_axes(node, in.size());
  if (holds_values(scales) == holds_values(sizes)) bad_data("needs either scales or sizes");
  const Tensor& given = holds_values(scales) ? *scales : *sizes;
  if (given.numel() != static_cast<int64_t>(axes.size())) bad_data("{} scales or sizes for {} axes", given.numel(), axes.size());
  if (holds_values(scales)) {
    const std::vector<double> s = scales->to_doubles();
    for (size_t i = 0; i < axes.size(); ++i) {
      const auto a = static_cast<size_t>(axes[i]);
      if (!(s[i] > 0) || s[i] > 1e9) bad_data("scale {} of axis {} is not positive", s[i], axes[i]);
      r.scale[a] = s[i];
      // Scales are stored in single precision, and so is the product that decides the size.
      r.out[a] = static_cast<int64_t>(std::floor(static_cast<float>(in[a]) * static_cast<float>(s[i])));
    }
    return r;
  }
  const std::vector<int64_t> s = sizes->to_ints();
  const std::string policy = node.attr_string("keep_aspect_ratio_policy", "stretch");
  if (policy != "stretch" && policy != "not_larger" && policy != "not_smaller") bad_data("unknown keep_aspect_ratio_policy '{}'", policy);
  double common = policy == "not_larger" ? INFINITY : 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto a = static_cast<size_t>(axes[i]);
    if (s[i] < 0 || (in[a] == 0 && s[i] > 0)) bad_data("size {} of axis {} cannot be made from {}", s[i], axes[i], in[a]);
    const double ratio = in[a] == 0 ? 1.0 : static_cast<double>(s[i]) / static_cast<double>(in[a]);
    common = policy == "not_larger" ? std::min(common, ratio) : std::max(common, ratio);
    r.out[a] = s[i];
    r.scale[a] = ratio;
  }
  if (policy == "stretch") return r;
  for (int64_t axis : axes) {
    const auto a = static_cast<size_t>(axis);
    r.scale[a] = common;
    r.out[a] = static_cast<int64_t>(std::floor(static_cast<double>(in[a]) * common + 0.5));
  }
  return r;
}

// Where output position i lies on the input axis.
double source_position(const std::string& mode, int64_t i, int64_t in, int64_t out, double scale) {
  const auto x = static_cast<double>(i);
  if (mode == "half_pixel") return (x + 0.5) / scale - 0.5;
  if (mode == "asymmetric") return x / scale;
  if (mode == "align_corners") return out == 1 ? 0 : x * static_cast<double>(in - 1) / static_cast<double>(out - 1);
  if (mode == "pytorch_half_pixel") return out > 1 ? (x + 0.5) / scale - 0.5 : 0;
  if (mode == "half_pixel_symmetric") {
    const double adjustment = static_cast<double>(out) / (scale * static_cast<double>(in)), center = static_cast<double>(in) / 2;
    return center * (1 - adjustment) + (x + 0.5) / scale - 0.5;
  }
  bad_data("coordinate_transformation_mode '{}' is not supported", mode);
}

int64_t nearest(const std::string& mode, double x) {
  if (mode == "floor") return static_cast<int64_t>(std::floor(x));
  if (mode == "ceil") return static_cast<int64_t>(std::ceil(x));
  if (mode == "round_prefer_floor") return static_cast<int64_t>(std::ceil(x - 0.5));
  if (mode == "round_prefer_ceil") return static_cast<int64_t>(std::floor(x + 0.5));
  bad_data("unknown nearest_mode '{}'", mode);
}

double cubic_weight(double distance, double a) {
  const double d = std::abs(distance);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

ResizeAxis axis_taps(const Node& node, int64_t in, int64_t out, double scale) {
  const std::string mode = node.attr_string("mode", "nearest");
  const std::string position = node.attr_string("coordinate_transformation_mode", "half_pixel");
  const bool exclude = node.attr_int("exclude_outside", 0) != 0;
  ResizeAxis axis;
  axis.in = in;
  axis.out = out;
  axis.taps = mode == "nearest" ? 1 : mode == "linear" ? 2 : 4;
  for (int64_t i = 0; i < out; ++i) {
    const double x = source_position(position, i, in, out, scale);
    const auto add = [&](int64_t index, double weight) {
      if (exclude && (index < 0 || index >= in)) weight = 0;
      axis.index.push_back(std::clamp<int64_t>(index, 0, in - 1));
      axis.weight.push_back(weight);
    };
    if (mode == "nearest") {
      axis.index.push_back(std::clamp<int64_t>(nearest(node.attr_string("nearest_mode", "round_prefer_floor"), x), 0, in - 1));
      axis.weight.push_back(1);
      continue;
    }
    const auto base = static_cast<int64_t>(std::floor(x));
    const double part = x - static_cast<double>(base);
    if (mode == "linear") {
      add(base, 1 - part);
      add(base + 1, part);
    } else {
      for (int64_t t = -1; t <= 2; ++t) add(base + t, cubic_weight(part - static_cast<double>(t), node.attr_float("cubic_coeff_a", -0.75f)));
    }
    if (!exclude) continue;
    double sum = 0;
    for (int64_t t = 0; t < axis.taps; ++t) sum += axis.weight[static_cast<size_t>(i * axis.taps + t)];
    for (int64_t t = 0; t < axis.taps; ++t) axis.weight[static_cast<size_t>(i * axis.taps + t)] /= sum;
  }
  return axis;
}

void infer_resize(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF64});
  const std::string mode = c.node().attr_string("mode", "nearest");
  if (mode != "nearest" && mode != "linear" && mode != "cubic") c.error("unknown mode '{}'", mode);
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  Dims out = c.dims(0);
  const Tensor *scales = c.constant(2), *sizes = c.constant(3);
  std::optional<Tensor> known;  // sizes from shape arithmetic
  if (!holds_values(scales) && !holds_values(sizes))
    if (const auto ints = c.concrete_ints(3); ints && !ints->empty()) known = Tensor::vector<int64_t>(*ints);
  if (known) sizes = &*known;
  if (all_known(out) && (holds_values(scales) || holds_values(sizes))) {
    out = to_dims(resized(c.node(), concrete(out), scales, sizes).out);
  } else {
    const std::optional<Dims> symbolic = c.ints(3);
    const std::vector<int64_t> axes = resized_axes(c.node(), out.size());
    for (size_t i = 0; i < axes.size(); ++i) {
      Dim& d = out[static_cast<size_t>(axes[i])];
      if (symbolic && symbolic->size() == axes.size()) d = (*symbolic)[i];
      else if (holds_values(scales) && scales->numel() == static_cast<int64_t>(axes.size()) && scales->to_doubles()[i] == 1.0) continue;
      else d = c.fresh_dim();
    }
  }
  c.set_output(0, c.dtype(0), std::move(out));
}

class ResizeKernel final : public Kernel {
 public:
  explicit ResizeKernel(const KernelQuery& q) : in_(q.in(0).shape), out_(q.out(0).shape), element_(dtype_size(q.in(0).dtype)) {
    std::vector<double> scale(in_.size(), 1.0);
    if (q.constant(2) != nullptr || q.constant(3) != nullptr) scale = resized(q.node, in_, q.constant(2), q.constant(3)).scale;
    else
      for (size_t i = 0; i < in_.size(); ++i) scale[i] = in_[i] == 0 ? 1.0 : static_cast<double>(out_[i]) / static_cast<double>(in_[i]);
    // Passes that shrink first; an axis that stays as it is needs none.
    for (size_t i = 0; i < in_.size(); ++i)
      if (in_[i] != out_[i] || scale[i] != 1.0) passes_.push_back({i, axis_taps(q.node, in_[i], out_[i], scale[i])});
    std::stable_sort(passes_.begin(), passes_.end(), [](const auto& a, const auto& b) {
      return static_cast<double>(a.second.out) / static_cast<double>(a.second.in) < static_cast<double>(b.second.out) / static_cast<double>(b.second.in);
    });
    Shape shape = in_;
    int64_t largest = 0;
    for (size_t p = 0; p + 1 < passes_.size(); ++p) {
      shape[passes_[p].first] = passes_[p].second.out;
      largest = std::max(largest, checked_numel(shape));
    }
    buffer_bytes_ = static_cast<size_t>(largest) * element_;
  }
  size_t workspace_bytes() const override { return 2 * buffer_bytes_; }
  void run(const KernelContext& c) override {
    if (c.output(0).numel() == 0) return;
    dispatch_float(c.input(0).dtype(), [&](auto tag) {
      using T = decltype(tag);
      const T* from = c.input(0).data<T>();
      T* out = c.output(0).mutable_data<T>();
      if (passes_.empty()) std::copy_n(from, c.input(0).numel(), out);
      Shape shape = in_;
      for (size_t p = 0; p < passes_.size(); ++p) {
        const auto& [axis, taps] = passes_[p];
        int64_t outer = 1, inner = 1;
        for (size_t i = 0; i < shape.size(); ++i)
          if (i != axis) (i < axis ? outer : inner) *= shape[i];
        T* to = p + 1 == passes_.size() ? out : reinterpret_cast<T*>(c.workspace() + p % 2 * buffer_bytes_);
        kernels::resize_axis(taps, outer, inner, from, to);
        shape[axis] = taps.out;
        from = to;
      }
    });
  }

 private:
  Shape in_, out_;
  size_t element_, buffer_bytes_ = 0;
  std::vector<std::pair<size_t, ResizeAxis>> passes_;
};

}  // namespace

void register_resize_ops(OpRegistry& registry) {
  OpDef def;
  def.name = "Resize";  // x, roi, scales, sizes
  def.min_inputs = 1;
  def.max_inputs = 4;
  def.shape_inputs = 0b1100;
  def.infer = infer_resize;
  KernelDef k;
  k.name = "portable/resize";
  k.decline = [](const KernelQuery& q) {
    if (q.node.attr_int("antialias", 0) != 0) return std::string("antialiasing is not supported");
    return ops::require(q.node.attr_string("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize", "cropping is not supported");
  };
  k.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> { return std::make_unique<ResizeKernel>(q); };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace ds
