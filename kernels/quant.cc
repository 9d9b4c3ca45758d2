#include "kernels/quant.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;

// Rounds half to even for |f| < 2^22 (Out of up to 16 bits): adding 1.5 * 2^23 leaves no fraction bits.
inline float round_even(float f) {
  constexpr float kShift = 12582912.0f;
  return (f + kShift) - kShift;
}

template <typename Out>
inline Out quantize_one(float f, int32_t zero) {
  if constexpr (sizeof(Out) <= 2) {
    const auto lo = static_cast<float>(std::numeric_limits<Out>::min() - zero);
    const auto hi = static_cast<float>(std::numeric_limits<Out>::max() - zero);
    f = f > lo ? f : lo;
    f = f < hi ? f : hi;
    return static_cast<Out>(static_cast<int32_t>(round_even(f)) + zero);
  } else {
    const double d = std::nearbyint(static_cast<double>(f)) + zero;
    if (!(d > std::numeric_limits<Out>::min())) return std::numeric_limits<Out>::min();
    return d < std::numeric_limits<Out>::max() ? static_cast<Out>(d) : std::numeric_limits<Out>::max();
  }
}

// Calls row(element offset, count, first scale, whether each element has a scale of its own).
template <typename Row>
void for_scaled_rows(const QuantSpace& s, Row&& row) {
  parallel_for(s.outer * s.axis * s.inner, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const ScaleRun r = s.run(i);
      const int64_t n = std::min(r.length, end - i);
      row(i, n, r.first, r.vary);
      i += n;
    }
  });
}

}  // namespace

template <typename In, typename Out>
void quantize(const QuantSpace& s, const In* x, const float* scale, const Out* zero, Out* y) {
  for_scaled_rows(s, [&](int64_t at, int64_t n, int64_t first, bool vary) {
    if (vary) {
      for (int64_t j = 0; j < n; ++j)
        y[at + j] = quantize_one<Out>(static_cast<float>(x[at + j]) / scale[first + j], zero != nullptr ? static_cast<int32_t>(zero[first + j]) : 0);
      return;
    }
    const float step = scale[first];
    const int32_t z = zero != nullptr ? static_cast<int32_t>(zero[first]) : 0;
    for (int64_t j = 0; j < n; ++j) y[at + j] = quantize_one<Out>(static_cast<float>(x[at + j]) / step, z);
  });
}

template <typename In>
void dequantize(const QuantSpace& s, const In* x, const float* scale, const In* zero, float* y) {
  // The difference of two stored 32-bit values may need 33 bits.
  using Wide = std::conditional_t<sizeof(In) == 4, int64_t, int32_t>;
  for_scaled_rows(s, [&](int64_t at, int64_t n, int64_t first, bool vary) {
    for (int64_t j = 0; j < n; ++j) {
      const int64_t k = vary ? first + j : first;
      const Wide z = zero != nullptr ? static_cast<Wide>(zero[k]) : Wide{0};
      y[at + j] = static_cast<float>(static_cast<Wide>(x[at + j]) - z) * scale[k];
    }
  });
}

void dynamic_params(float low, float high, float* scale, uint8_t* zero) {
  *scale = high == low ? 1.0f : (high - low) / 255.0f;
  *zero = quantize_one<uint8_t>(-low / *scale, 0);
}

void dynamic_quantize(int64_t n, const float* x, uint8_t* y, float* scale, uint8_t* zero) {
  float low = 0, high = 0;  // the range always holds zero
  for (int64_t i = 0; i < n; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  dynamic_params(low, high, scale, zero);
  quantize<float, uint8_t>({1, 1, n, 0}, x, scale, zero, y);
}

template <typename T>
void quant_add(int64_t n, const T* a, QParams pa, const T* b, QParams pb, QParams py, int32_t least, int32_t most, T* y) {
  const float ra = pa.scale / py.scale, rb = pb.scale / py.scale;
  const auto lo = static_cast<float>(least - py.zero), hi = static_cast<float>(most - py.zero);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float f = static_cast<float>(a[i] - pa.zero) * ra + static_cast<float>(b[i] - pb.zero) * rb;
      f = f > lo ? f : lo;
      f = f < hi ? f : hi;
      y[i] = static_cast<T>(static_cast<int32_t>(round_even(f)) + py.zero);
    }
  });
}

void byte_table(int64_t n, const uint8_t* x, const uint8_t* table, uint8_t* y) {
  parallel_for(n, kGrain * 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = table[x[i]];
  });
}

template <typename T>
void quant_max_pool(const QPoolShape& s, const T* x, T* y) {
  parallel_for(s.batch * s.out_height, kGrain / std::max<int64_t>(1, s.out_width * s.channels) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / s.out_height, oy = row % s.out_height;
      for (int64_t ox = 0; ox < s.out_width; ++ox) {
        T* to = y + (row * s.out_width + ox) * s.channels;
        std::fill_n(to, s.channels, std::numeric_limits<T>::min());
        for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
          const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
          if (iy < 0 || iy >= s.height) continue;
          for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
            const int64_t ix = ox * s.stride_w - s.pad_left + kx * s.dilation_w;
            if (ix < 0 || ix >= s.width) continue;
            const T* from = x + ((n * s.height + iy) * s.width + ix) * s.channels;
            for (int64_t c = 0; c < s.channels; ++c) to[c] = from[c] > to[c] ? from[c] : to[c];
          }
        }
      }
    }
  });
}

template <typename T>
void quant_global_average(int64_t batch, int64_t pixels, int64_t channels, const T* x, QParams px, QParams py, T* y) {
  const float ratio = px.scale / (py.scale * static_cast<float>(pixels));
  parallel_for(batch * channels, kGrain / std::max<int64_t>(1, pixels) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* from = x + i / channels * pixels * channels + i % channels;
      int64_t sum = 0;
      for (int64_t p = 0; p < pixels; ++p) sum += from[p * channels];
      y[i] = quantize_one<T>(static_cast<float>(sum - pixels * px.zero) * ratio, py.zero);
    }
  });
}

#define DS_QUANTIZE(T)                                                                             \
  template void quantize(const QuantSpace&, const float*, const float*, const T*, T*);             \
  template void quantize(const QuantSpace&, const int32_t*, const float*, const T*, T*);           \
  template void dequantize(const QuantSpace&, const T*, const float*, const T*, float*);
DS_QUANTIZE(uint8_t)
DS_QUANTIZE(int8_t)
DS_QUANTIZE(uint16_t)
DS_QUANTIZE(int16_t)
DS_QUANTIZE(int32_t)
#undef DS_QUANTIZE

#define DS_BYTES(T)                                                                                  \
  template void quant_add(int64_t, const T*, QParams, const T*, QParams, QParams, int32_t, int32_t, T*);         \
  template void quant_max_pool(const QPoolShape&, const T*, T*);                                     \
  template void quant_global_average(int64_t, int64_t, int64_t, const T*, QParams, QParams, T*);
DS_BYTES(uint8_t)
DS_BYTES(int8_t)
#undef DS_BYTES

}  // namespace ds::kernels
