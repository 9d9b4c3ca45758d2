#include "kernels/roi.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

// A sample between four elements.
template <typename T>
struct Sample {
  int64_t at[4] = {0, 0, 0, 0};
  T weight[4] = {0, 0, 0, 0};
};

template <typename T>
Sample<T> sample_at(const RoiAlign& s, T y, T x) {
  Sample<T> r;
  const T height = static_cast<T>(s.height), width = static_cast<T>(s.width);
  if (!(y >= -1 && y <= height && x >= -1 && x <= width)) return r;  // outside: all weights are 0
  y = std::max(y, T(0));
  x = std::max(x, T(0));
  auto y0 = static_cast<int64_t>(y), x0 = static_cast<int64_t>(x);
  int64_t y1 = y0 + 1, x1 = x0 + 1;
  if (y0 >= s.height - 1) {
    y0 = y1 = s.height - 1;
    y = static_cast<T>(y0);
  }
  if (x0 >= s.width - 1) {
    x0 = x1 = s.width - 1;
    x = static_cast<T>(x0);
  }
  const T ly = y - static_cast<T>(y0), lx = x - static_cast<T>(x0), hy = 1 - ly, hx = 1 - lx;
  r.at[0] = y0 * s.width + x0;
  r.at[1] = y0 * s.width + x1;
  r.at[2] = y1 * s.width + x0;
  r.at[3] = y1 * s.width + x1;
  r.weight[0] = hy * hx;
  r.weight[1] = hy * lx;
  r.weight[2] = ly * hx;
  r.weight[3] = ly * lx;
  return r;
}

// All samples of one region, [out_height, out_width, per_bin].
template <typename T>
struct Region {
  int64_t per_bin = 0;
  std::vector<Sample<T>> samples;
};

template <typename T>
int64_t samples_along(const RoiAlign& s, T bin) {
  if (s.sampling_ratio > 0) return s.sampling_ratio;
  const T n = std::ceil(bin);
  constexpr T kMost = 1 << 12;  // of a region far larger than the image
  return n > 0 ? static_cast<int64_t>(std::min(n, kMost)) : 0;
}

template <typename T>
Region<T> region_of(const RoiAlign& s, const T* roi) {
  const T scale = static_cast<T>(s.spatial_scale), offset = s.half_pixel ? T(0.5) : T(0);
  const T left = roi[0] * scale - offset, top = roi[1] * scale - offset;
  T width = roi[2] * scale - offset - left, height = roi[3] * scale - offset - top;
  if (!s.half_pixel) {
    width = std::max(width, T(1));
    height = std::max(height, T(1));
  }
  const T bin_h = height / static_cast<T>(s.out_height), bin_w = width / static_cast<T>(s.out_width);
  const int64_t rows = samples_along(s, bin_h), columns = samples_along(s, bin_w);
  Region<T> r;
  r.per_bin = rows * columns;
  r.samples.reserve(static_cast<size_t>(s.out_height * s.out_width * r.per_bin));
  for (int64_t ph = 0; ph < s.out_height; ++ph)
    for (int64_t pw = 0; pw < s.out_width; ++pw)
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) {
          const T y = top + static_cast<T>(ph) * bin_h + (static_cast<T>(i) + T(0.5)) * bin_h / static_cast<T>(rows);
          const T x = left + static_cast<T>(pw) * bin_w + (static_cast<T>(j) + T(0.5)) * bin_w / static_cast<T>(columns);
          r.samples.push_back(sample_at(s, y, x));
        }
  return r;
}

struct Box {
  float y0, x0, y1, x1;
  float area() const { return (y1 - y0) * (x1 - x0); }
};

Box box_of(const float* b, bool center_form) {
  if (center_form) return {b[1] - b[3] / 2, b[0] - b[2] / 2, b[1] + b[3] / 2, b[0] + b[2] / 2};
  return {std::min(b[0], b[2]), std::min(b[1], b[3]), std::max(b[0], b[2]), std::max(b[1], b[3])};
}

bool overlap_more(const Box& a, const Box& b, float threshold) {
  const float y0 = std::max(a.y0, b.y0), x0 = std::max(a.x0, b.x0), y1 = std::min(a.y1, b.y1), x1 = std::min(a.x1, b.x1);
  if (!(y1 > y0 && x1 > x0)) return false;
  const float common = (y1 - y0) * (x1 - x0), area_a = a.area(), area_b = b.area(), all = area_a + area_b - common;
  if (common <= 0 || area_a <= 0 || area_b <= 0 || all <= 0) return false;
  return common / all > threshold;
}

}  // namespace

template <typename T>
void roi_align(const RoiAlign& s, const T* x, const T* rois, const int64_t* images, T* y) {
  const int64_t bins = s.out_height * s.out_width, plane = s.height * s.width;
  parallel_for(s.regions, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const Region<T> region = region_of(s, rois + 4 * r);
      const T* in = x + images[r] * s.channels * plane;
      T* out = y + r * s.channels * bins;
      for (int64_t c = 0; c < s.channels; ++c, in += plane) {
        const Sample<T>* sample = region.samples.data();
        for (int64_t b = 0; b < bins; ++b) {
          T value = 0;
          for (int64_t i = 0; i < region.per_bin; ++i, ++sample) {
            T v[4];
            for (int k = 0; k < 4; ++k) v[k] = sample->weight[k] * in[sample->at[k]];
            if (!s.max) value += v[0] + v[1] + v[2] + v[3];
            else {
              const T best = std::max(std::max(v[0], v[1]), std::max(v[2], v[3]));
              value = i == 0 ? best : std::max(value, best);
            }
          }
          *out++ = s.max ? value : value / static_cast<T>(std::max<int64_t>(1, region.per_bin));
        }
      }
    }
  });
}

template <typename T>
void roi_align_grad(const RoiAlign& s, const T* x, const T* rois, const int64_t* images, const T* d_y, T* d_x) {
  const int64_t bins = s.out_height * s.out_width, plane = s.height * s.width;
  std::fill(d_x, d_x + s.batch * s.channels * plane, T(0));
  for (int64_t r = 0; r < s.regions; ++r) {  // one after the other: they overlap
    const Region<T> region = region_of(s, rois + 4 * r);
    const T share = T(1) / static_cast<T>(std::max<int64_t>(1, region.per_bin));
    parallel_for(s.channels, 4, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        T* to = d_x + (images[r] * s.channels + c) * plane;
        const T* d = d_y + (r * s.channels + c) * bins;
        const Sample<T>* sample = region.samples.data();
        const T* in = s.max ? x + (images[r] * s.channels + c) * plane : nullptr;
        for (int64_t b = 0; b < bins; ++b) {
          int64_t greatest = 0;
          T best_weight = 0, best = -std::numeric_limits<T>::infinity();
          for (int64_t i = 0; i < region.per_bin; ++i, ++sample)
            for (int k = 0; k < 4; ++k) {
              const int64_t at = sample->at[k];
              const T weight = sample->weight[k];
              if (!s.max) {
                to[at] += weight * share * d[b];
              } else if (weight * in[at] > best) {
                best = weight * in[at];
                best_weight = weight;
                greatest = at;
              }
            }
          if (s.max) to[greatest] += best_weight * d[b];
        }
      }
    });
  }
}

template <typename T>
void max_roi_pool(const RoiAlign& s, const T* x, const T* rois, T* y) {
  const int64_t plane = s.height * s.width;
  const T scale = static_cast<T>(s.spatial_scale);
  parallel_for(s.regions, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* roi = rois + 5 * r;
      T* out = y + r * s.channels * s.out_height * s.out_width;
      const auto at = [&](int k) { return static_cast<int64_t>(std::clamp(std::round(roi[k] * scale), T(-1e9), T(1e9))); };
      const int64_t left = at(1), top = at(2), width = std::max<int64_t>(at(3) - left + 1, 1), height = std::max<int64_t>(at(4) - top + 1, 1);
      const T bin_h = static_cast<T>(height) / static_cast<T>(s.out_height), bin_w = static_cast<T>(width) / static_cast<T>(s.out_width);
      // First element of bin i, or behind the last of bin i-1.
      const auto edge = [](T position, int64_t start, int64_t size) { return std::clamp<int64_t>(static_cast<int64_t>(position) + start, 0, size); };
      for (int64_t c = 0; c < s.channels; ++c) {
        const T* in = x + (static_cast<int64_t>(roi[0]) * s.channels + c) * plane;
        for (int64_t ph = 0; ph < s.out_height; ++ph) {
          const int64_t h0 = edge(std::floor(static_cast<T>(ph) * bin_h), top, s.height), h1 = edge(std::ceil(static_cast<T>(ph + 1) * bin_h), top, s.height);
          for (int64_t pw = 0; pw < s.out_width; ++pw) {
            const int64_t w0 = edge(std::floor(static_cast<T>(pw) * bin_w), left, s.width), w1 = edge(std::ceil(static_cast<T>(pw + 1) * bin_w), left, s.width);
            T best = 0;
            bool any = false;
            for (int64_t h = h0; h < h1; ++h)
              for (int64_t w = w0; w < w1; ++w) {
                const T v = in[h * s.width + w];
                best = any ? std::max(best, v) : v;
                any = true;
              }
            *out++ = best;
          }
        }
      }
    }
  });
}

std::vector<int64_t> non_max_suppression(int64_t n, const float* boxes, const float* scores, bool center_form, int64_t most,
                                         float iou_threshold, const float* score_threshold) {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < n; ++i)
    if (score_threshold == nullptr || scores[i] > *score_threshold) order.push_back(i);
  const auto key = [&](int64_t i) { return std::isnan(scores[i]) ? -INFINITY : scores[i]; };  // an order needs comparable keys
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) > key(b); });
  std::vector<int64_t> taken;
  std::vector<Box> kept;
  for (int64_t i : order) {
    if (static_cast<int64_t>(taken.size()) >= most) break;
    const Box box = box_of(boxes + 4 * i, center_form);
    if (std::any_of(kept.begin(), kept.end(), [&](const Box& k) { return overlap_more(box, k, iou_threshold); })) continue;
    kept.push_back(box);
    taken.push_back(i);
  }
  return taken;
}

#define DS_ROI(T)                                                                              \
  template void roi_align(const RoiAlign&, const T*, const T*, const int64_t*, T*);            \
  template void roi_align_grad(const RoiAlign&, const T*, const T*, const int64_t*, const T*, T*);       \
  template void max_roi_pool(const RoiAlign&, const T*, const T*, T*);
DS_ROI(float)
DS_ROI(double)
#undef DS_ROI

}  // namespace ds::kernels
