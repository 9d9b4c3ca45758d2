// Detection: RoiAlign, MaxRoiPool, NonMaxSuppression.
//
// Legend: x [N, C, H, W]; R regions; boxes [N, B, 4], scores [N, classes, B].
#include "kernels/roi.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

std::string whole_float(const KernelQuery& q) { return ops::require(!is_half(q.in(0).dtype), "16-bit float"); }

kernels::RoiAlign roi_attrs(const Node& n) {
  kernels::RoiAlign s;
  s.out_height = n.attr_int("output_height", 1);
  s.out_width = n.attr_int("output_width", 1);
  s.sampling_ratio = n.attr_int("sampling_ratio", 0);
  s.spatial_scale = static_cast<double>(n.attr_float("spatial_scale", 1));
  const std::string transform = n.attr_string("coordinate_transformation_mode", "half_pixel"), mode = n.attr_string("mode", "avg");
  if (transform != "half_pixel" && transform != "output_half_pixel") bad_data("coordinate_transformation_mode '{}' is unknown", transform);
  if (mode != "avg" && mode != "max") bad_data("mode '{}' is unknown", mode);
  s.half_pixel = transform == "half_pixel";
  s.max = mode == "max";
  constexpr int64_t kMost = 1 << 16;
  for (int64_t n_out : {s.out_height, s.out_width})
    if (n_out < 1 || n_out > kMost) bad_data("output size {} is not possible", n_out);
  if (s.sampling_ratio < 0 || s.sampling_ratio > kMost) bad_data("sampling_ratio is {}", s.sampling_ratio);
  return s;
}

// x's and the regions' sizes; `x` is the shape of the image.
kernels::RoiAlign with_shapes(kernels::RoiAlign s, const Shape& x, int64_t regions) {
  s.batch = x[0];
  s.channels = x[1];
  s.height = x[2];
  s.width = x[3];
  s.regions = regions;
  return s;
}

void check_images(const int64_t* images, int64_t n, int64_t batch) {
  for (int64_t i = 0; i < n; ++i)
    if (images[i] < 0 || images[i] >= batch) bad_data("region {} is of image {}, there are {}", i, images[i], batch);
}

// Types, ranks and widths; the output's dims when they are known.
std::optional<Dims> infer_regions(InferContext& c, int64_t numbers, int64_t height, int64_t width) {
  c.require_dtype(0, {DType::kF32, DType::kF64, DType::kF16, DType::kBF16});
  if (c.dtype(1) != c.dtype(0)) c.error("regions have type {}, the input {}", dtype_name(c.dtype(1)), dtype_name(c.dtype(0)));
  if (c.has_dims(0)) c.require_rank(0, 4);
  if (c.has_dims(1)) {
    c.require_rank(1, 2);
    if (c.dims(1)[1].known() && c.dims(1)[1].raw != numbers) c.error("regions have {} numbers, expected {}", c.dims(1)[1].raw, numbers);
  }
  if (!c.has_dims(0)) return std::nullopt;
  const Dims& x = c.dims(0);
  if (x[2] == Dim(0) || x[3] == Dim(0)) c.error("the image is empty");
  return Dims{c.has_dims(1) ? c.dims(1)[0] : c.fresh_dim(), c.dims(0)[1], height, width};
}

void register_roi_align(OpRegistry& registry) {
  OpDef def;
  def.name = "RoiAlign";  // (x, rois [R, 4], images [R])
  def.min_inputs = def.max_inputs = 3;
  def.infer = [](InferContext& c) {
    const kernels::RoiAlign s = roi_attrs(c.node());
    c.require_dtype(2, {DType::kI64});
    const std::optional<Dims> y = infer_regions(c, 4, s.out_height, s.out_width);
    if (c.has_dims(2)) {
      c.require_rank(2, 1);
      if (y && y->front().known() && c.dims(2)[0].known() && c.dims(2)[0] != y->front())
        c.error("{} regions, but {} image numbers", y->front().raw, c.dims(2)[0].raw);
    }
    c.set_output(0, c.dtype(0), y);
  };
  def.grad = [](GradContext& g) {  // by the image; regions are taken as given
    if (!g.needs(0) || g.d_output(0) == kNone) return;
    Attributes attrs = g.node().attrs;
    attrs["shape"] = g.shape(g.input(0));
    std::vector<ValueId> inputs = {g.d_output(0), g.input(1), g.input(2)};
    if (roi_attrs(g.node()).max) inputs.push_back(g.input(0));  // which element was the greatest
    g.set_d_input(0, g.emit("RoiAlignGrad", inputs, std::move(attrs)));
  };
  KernelDef k;
  k.name = "portable/roi_align";
  k.decline = whole_float;
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = with_shapes(roi_attrs(q.node), q.in(0).shape, q.in(1).dim(0))](const KernelContext& c) {
      const auto* images = c.input(2).data<int64_t>();
      check_images(images, s.regions, s.batch);
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::roi_align<T>(s, c.input(0).data<T>(), c.input(1).data<T>(), images, c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));

  OpDef grad;  // (d_y, rois, images, x in mode max) -> d_x of attribute `shape`
  grad.domain = Graph::kInternalDomain;
  grad.name = "RoiAlignGrad";
  grad.min_inputs = 3;
  grad.max_inputs = 4;
  grad.infer = [](InferContext& c) {
    if (roi_attrs(c.node()).max != c.has_input(3)) c.error("mode max, and only it, needs the image");
    c.set_output(0, c.dtype(0), to_dims(c.node().attr_ints("shape")));
  };
  KernelDef gk;
  gk.name = "portable/roi_align_grad";
  gk.decline = whole_float;
  gk.create = [](const KernelQuery& q) {
    return make_kernel([s = with_shapes(roi_attrs(q.node), q.out(0).shape, q.in(1).dim(0))](const KernelContext& c) {
      const auto* images = c.input(2).data<int64_t>();
      check_images(images, s.regions, s.batch);
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const T* x = s.max ? c.input(3).data<T>() : nullptr;
        kernels::roi_align_grad<T>(s, x, c.input(1).data<T>(), images, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  grad.kernels = {gk};
  registry.add(std::move(grad));
}

kernels::RoiAlign pool_attrs(const Node& n) {
  kernels::RoiAlign s;
  const std::vector<int64_t> out = n.attr_ints("pooled_shape");
  constexpr int64_t kMost = 1 << 16;
  if (out.size() != 2 || out[0] < 1 || out[1] < 1 || out[0] > kMost || out[1] > kMost) bad_data("pooled_shape is not two sizes");
  s.out_height = out[0];
  s.out_width = out[1];
  s.spatial_scale = static_cast<double>(n.attr_float("spatial_scale", 1));
  return s;
}

void register_max_roi_pool(OpRegistry& registry) {
  OpDef def;
  def.name = "MaxRoiPool";  // (x, rois [R, 5])
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    const kernels::RoiAlign s = pool_attrs(c.node());
    c.set_output(0, c.dtype(0), infer_regions(c, 5, s.out_height, s.out_width));
  };
  KernelDef k;
  k.name = "portable/max_roi_pool";
  k.decline = whole_float;
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = with_shapes(pool_attrs(q.node), q.in(0).shape, q.in(1).dim(0))](const KernelContext& c) {
      dispatch_float(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        const T* rois = c.input(1).data<T>();
        for (int64_t r = 0; r < s.regions; ++r)
          if (!(rois[5 * r] >= 0 && rois[5 * r] < static_cast<T>(s.batch))) bad_data("region {} is of image {}, there are {}", r, static_cast<double>(rois[5 * r]), s.batch);
        kernels::max_roi_pool<T>(s, c.input(0).data<T>(), rois, c.output(0).mutable_data<T>());
      });
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// --- NonMaxSuppression ----------------------------------------------------------------------------

// A threshold that may be left out.
std::optional<float> threshold(const KernelContext& c, size_t i) {
  if (!c.has_input(i) || c.input(i).numel() == 0) return std::nullopt;
  return c.input(i).data<float>()[0];
}

void register_non_max_suppression(OpRegistry& registry) {
  OpDef def;
  def.name = "NonMaxSuppression";  // (boxes, scores, most?, iou_threshold?, score_threshold?) -> [n, 3]: image, class, box
  def.min_inputs = 2;
  def.max_inputs = 5;
  def.stops_gradient = true;
  def.data_dependent = true;
  def.infer = [](InferContext& c) {
    for (size_t i : {0, 1, 3, 4})
      if (c.has_input(i)) c.require_dtype(i, {DType::kF32});
    if (c.has_input(2)) c.require_dtype(2, {DType::kI64});
    if (c.has_dims(0)) c.require_rank(0, 3);
    if (c.has_dims(1)) c.require_rank(1, 3);
    if (const int64_t form = c.node().attr_int("center_point_box", 0); form != 0 && form != 1) c.error("center_point_box is {}", form);
    if (c.has_dims(0) && c.dims(0)[2].known() && c.dims(0)[2].raw != 4) c.error("boxes have {} numbers, expected 4", c.dims(0)[2].raw);
    if (c.has_dims(0) && c.has_dims(1)) {
      const Dims &boxes = c.dims(0), &scores = c.dims(1);
      if (boxes[0].known() && scores[0].known() && boxes[0] != scores[0]) c.error("boxes of {} images, scores of {}", boxes[0].raw, scores[0].raw);
      if (boxes[1].known() && scores[2].known() && boxes[1] != scores[2]) c.error("{} boxes, {} scores", boxes[1].raw, scores[2].raw);
    }
    c.set_output(0, DType::kI64, Dims{c.fresh_dim(), 3});
  };
  KernelDef k;
  k.name = "portable/non_max_suppression";
  k.create = [](const KernelQuery& q) {
    return make_kernel([center = q.node.attr_int("center_point_box", 0) != 0](const KernelContext& c) {
      const Tensor &boxes = c.input(0), &scores = c.input(1);
      const int64_t images = scores.dim(0), classes = scores.dim(1), n = scores.dim(2);
      const int64_t most = c.has_input(2) && c.input(2).numel() > 0 ? c.input(2).data<int64_t>()[0] : 0;
      const float iou = threshold(c, 3).value_or(0.0f);
      if (!(iou >= 0 && iou <= 1)) bad_data("iou_threshold is {}", iou);
      const std::optional<float> least = threshold(c, 4);
      std::vector<int64_t> found;
      for (int64_t image = 0; image < images; ++image)
        for (int64_t kind = 0; kind < classes; ++kind)
          for (int64_t box : kernels::non_max_suppression(n, boxes.data<float>() + image * n * 4, scores.data<float>() + (image * classes + kind) * n,
                                                          center, most, iou, least ? &*least : nullptr))
            found.insert(found.end(), {image, kind, box});
      c.allocate(0, DType::kI64, {static_cast<int64_t>(found.size()) / 3, 3});
      std::copy(found.begin(), found.end(), c.output(0).mutable_data<int64_t>());
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_roi_ops(OpRegistry& registry) {
  register_roi_align(registry);
  register_max_roi_pool(registry);
  register_non_max_suppression(registry);
}

}  // namespace ds
