// Pooling over regions of an image, and choosing among boxes.
//
// Legend: x [N, C, H, W]; R regions, each of one image; y [R, C, PH, PW].
// Threads: parallel_for over regions (over planes where they are summed into). T: float, double.
#pragma once

#include <cstdint>
#include <vector>

namespace ds::kernels {

struct RoiAlign {
  int64_t batch = 0, channels = 0, height = 0, width = 0;
  int64_t regions = 0, out_height = 1, out_width = 1;
  int64_t sampling_ratio = 0;  // samples a bin along an axis; 0: as many as the bin has elements
  double spatial_scale = 1;
  bool half_pixel = true;      // false: corners are elements, and no region is smaller than one
  bool max = false;            // greatest weighted neighbour of the samples instead of their mean
};

// rois [R, 4]: x1, y1, x2, y2; `images` [R], each in [0, N).
template <typename T>
void roi_align(const RoiAlign& s, const T* x, const T* rois, const int64_t* images, T* y);
// d_x is overwritten. `x` is read for the maximum only: the first of the greatest has the gradient.
template <typename T>
void roi_align_grad(const RoiAlign& s, const T* x, const T* rois, const int64_t* images, const T* d_y, T* d_x);

// rois [R, 5]: image, x1, y1, x2, y2, rounded to elements; the maximum of each bin, 0 where it is empty.
template <typename T>
void max_roi_pool(const RoiAlign& s, const T* x, const T* rois, T* y);

// Boxes [n, 4] in order of falling score (the first of equals first), without those that overlap one
// already taken by more than `iou_threshold`; at most `most`. Corner form: two opposite corners
// y, x, y, x; center form: x, y, width, height. `score_threshold` null: no box is dropped for its score.
std::vector<int64_t> non_max_suppression(int64_t n, const float* boxes, const float* scores, bool center_form, int64_t most,
                                         float iou_threshold, const float* score_threshold);

}  // namespace ds::kernels
