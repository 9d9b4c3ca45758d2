#include "kernels/quant_any.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "libds/base/parallel.h"

namespace ds::kernels {
namespace {

constexpr int64_t kChunk = 512;  // whole bytes of packed types, so that threads never share one

template <typename T>
void load_as(const void* data, int64_t at, int64_t n, float* out) {
  const T* x = static_cast<const T*>(data) + at;
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(x[i]);
}

// The number behind each bit pattern of a small float.
template <typename T>
const std::array<float, 256>& numbers_of() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t{};
    for (size_t i = 0; i < t.size(); ++i) {
      T x;
      x.bits = static_cast<uint8_t>(i);
      t[i] = static_cast<float>(x);
    }
    return t;
  }();
  return table;
}

template <typename T>
void load_small(const void* data, int64_t at, int64_t n, float* out) {
  const auto& table = numbers_of<T>();
  const uint8_t* x = static_cast<const uint8_t*>(data) + at;
  for (int64_t i = 0; i < n; ++i) out[i] = table[x[i]];
}

template <int kBits, typename F>
void load_packed(const void* data, int64_t at, int64_t n, float* out, F&& number) {
  constexpr int64_t kPerByte = 8 / kBits;
  const auto* x = static_cast<const uint8_t*>(data);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t k = at + i;
    out[i] = number((x[k / kPerByte] >> (kBits * (k % kPerByte))) & ((1 << kBits) - 1));
  }
}

struct Range {
  float lo = 0, hi = 0;
};

// Bounds of a stored integer.
Range range_of(DType type) {
  switch (type) {
    case DType::kU8: return {0, 255};
    case DType::kI8: return {-128, 127};
    case DType::kU16: return {0, 65535};
    case DType::kI16: return {-32768, 32767};
    case DType::kU4: return {0, 15};
    case DType::kI4: return {-8, 7};
    case DType::kU2: return {0, 3};
    case DType::kI2: return {-2, 1};
    default: return {};
  }
}

template <typename T>
void store_as(const float* from, int64_t n, void* data, int64_t at) {
  T* y = static_cast<T*>(data) + at;
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(from[i]);
}

template <typename T>
void store_small(const float* from, int64_t n, bool saturate, void* data, int64_t at) {
  uint8_t* y = static_cast<uint8_t*>(data) + at;
  for (int64_t i = 0; i < n; ++i) y[i] = T::from_float(from[i], saturate).bits;
}

// `at` is the first element of a byte.
template <int kBits, typename F>
void store_packed(const float* from, int64_t n, void* data, int64_t at, F&& bits_of) {
  constexpr int64_t kPerByte = 8 / kBits;
  uint8_t* y = static_cast<uint8_t*>(data) + at / kPerByte;
  for (int64_t i = 0; i < n; i += kPerByte) {
    unsigned byte = 0;
    for (int64_t j = 0; j < kPerByte && i + j < n; ++j) byte |= (bits_of(from[i + j]) & ((1u << kBits) - 1)) << (kBits * j);
    y[i / kPerByte] = static_cast<uint8_t>(byte);
  }
}

// Numbers that fit the type, which rounds small floats only.
void store_floats(DType type, const float* from, int64_t n, bool saturate, void* y, int64_t at) {
  const auto integer_bits = [](float x) { return static_cast<unsigned>(static_cast<int>(x)); };
  switch (type) {
    case DType::kF32: return store_as<float>(from, n, y, at);
    case DType::kF16: return store_as<f16>(from, n, y, at);
    case DType::kBF16: return store_as<bf16>(from, n, y, at);
    case DType::kU8: return store_as<uint8_t>(from, n, y, at);
    case DType::kI8: return store_as<int8_t>(from, n, y, at);
    case DType::kU16: return store_as<uint16_t>(from, n, y, at);
    case DType::kI16: return store_as<int16_t>(from, n, y, at);
    case DType::kF8E4M3FN: return store_small<f8e4m3fn>(from, n, saturate, y, at);
    case DType::kF8E4M3FNUZ: return store_small<f8e4m3fnuz>(from, n, saturate, y, at);
    case DType::kF8E5M2: return store_small<f8e5m2>(from, n, saturate, y, at);
    case DType::kF8E5M2FNUZ: return store_small<f8e5m2fnuz>(from, n, saturate, y, at);
    case DType::kU4:
    case DType::kI4: return store_packed<4>(from, n, y, at, integer_bits);
    case DType::kU2:
    case DType::kI2: return store_packed<2>(from, n, y, at, integer_bits);
    case DType::kF4E2M1: return store_packed<4>(from, n, y, at, [](float x) { return unsigned{f4e2m1::from_float(x, true).bits}; });
    default: return;
  }
}

void round_to(DType precision, float* x, int64_t n) {
  if (precision == DType::kF16)
    for (int64_t i = 0; i < n; ++i) x[i] = f16(x[i]);
  else if (precision == DType::kBF16)
    for (int64_t i = 0; i < n; ++i) x[i] = bf16(x[i]);
}

// Calls chunk(begin, count) over all elements.
template <typename Chunk>
void for_each_chunk(const QuantSpace& s, Chunk&& chunk) {
  const int64_t total = s.outer * s.axis * s.inner;
  parallel_for((total + kChunk - 1) / kChunk, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) chunk(i * kChunk, std::min(kChunk, total - i * kChunk));
  });
}

// Calls run(offset in the chunk, count, first scale, how many scales: `count` or 1).
template <typename Run>
void for_each_run(const QuantSpace& s, int64_t begin, int64_t count, Run&& run) {
  for (int64_t i = 0; i < count;) {
    const ScaleRun r = s.run(begin + i);
    const int64_t n = std::min(r.length, count - i);
    run(i, n, r.first, r.vary ? n : 1);
    i += n;
  }
}

}  // namespace

void load_floats(DType type, const void* data, int64_t at, int64_t n, float* out) {
  const auto plain = [](int x) { return static_cast<float>(x); };
  switch (type) {
    case DType::kF32: return load_as<float>(data, at, n, out);
    case DType::kF16: return load_as<f16>(data, at, n, out);
    case DType::kBF16: return load_as<bf16>(data, at, n, out);
    case DType::kU8: return load_as<uint8_t>(data, at, n, out);
    case DType::kI8: return load_as<int8_t>(data, at, n, out);
    case DType::kU16: return load_as<uint16_t>(data, at, n, out);
    case DType::kI16: return load_as<int16_t>(data, at, n, out);
    case DType::kI32: return load_as<int32_t>(data, at, n, out);
    case DType::kF8E4M3FN: return load_small<f8e4m3fn>(data, at, n, out);
    case DType::kF8E4M3FNUZ: return load_small<f8e4m3fnuz>(data, at, n, out);
    case DType::kF8E5M2: return load_small<f8e5m2>(data, at, n, out);
    case DType::kF8E5M2FNUZ: return load_small<f8e5m2fnuz>(data, at, n, out);
    case DType::kF8E8M0: return load_small<f8e8m0>(data, at, n, out);
    case DType::kU4: return load_packed<4>(data, at, n, out, plain);
    case DType::kI4: return load_packed<4>(data, at, n, out, [](int x) { return static_cast<float>((x ^ 8) - 8); });
    case DType::kU2: return load_packed<2>(data, at, n, out, plain);
    case DType::kI2: return load_packed<2>(data, at, n, out, [](int x) { return static_cast<float>((x ^ 2) - 2); });
    case DType::kF4E2M1: {
      const auto& table = numbers_of<f4e2m1>();
      return load_packed<4>(data, at, n, out, [&](int x) { return table[static_cast<size_t>(x)]; });
    }
    default: return;
  }
}

void quantize_any(const QuantSpace& s, DType x_type, const void* x, DType scale_type, const void* scale, const void* zero,
                  DType precision, bool saturate, DType y_type, void* y) {
  const Range range = range_of(y_type);
  const bool integer = range.hi > 0;
  for_each_chunk(s, [&](int64_t begin, int64_t count) {
    float value[kChunk], step[kChunk], shift[kChunk];
    load_floats(x_type, x, begin, count, value);
    round_to(precision, value, count);
    for_each_run(s, begin, count, [&](int64_t at, int64_t n, int64_t first, int64_t scales) {
      float* v = value + at;
      load_floats(scale_type, scale, first, scales, step);
      round_to(precision, step, scales);
      for (int64_t i = 0; i < n; ++i) v[i] /= step[scales == 1 ? 0 : i];
      round_to(precision, v, n);
      if (integer)
        for (int64_t i = 0; i < n; ++i) v[i] = std::nearbyint(v[i]);
      if (zero == nullptr || is_float8(y_type)) return;  // the zero of an 8-bit float is zero
      load_floats(y_type, zero, first, scales, shift);
      for (int64_t i = 0; i < n; ++i) v[i] += shift[scales == 1 ? 0 : i];
    });
    if (integer)
      for (int64_t i = 0; i < count; ++i) {
        const float low = value[i] > range.lo ? value[i] : range.lo;  // NaN as well
        value[i] = low < range.hi ? low : range.hi;
      }
    store_floats(y_type, value, count, saturate, y, begin);
  });
}

void dequantize_any(const QuantSpace& s, DType x_type, const void* x, DType scale_type, const void* scale, const void* zero,
                    DType y_type, void* y) {
  for_each_chunk(s, [&](int64_t begin, int64_t count) {
    float value[kChunk], step[kChunk], shift[kChunk];
    load_floats(x_type, x, begin, count, value);
    for_each_run(s, begin, count, [&](int64_t at, int64_t n, int64_t first, int64_t scales) {
      float* v = value + at;
      if (zero != nullptr && x_type == DType::kI32) {  // the difference of two may need 33 bits
        const int32_t *from = static_cast<const int32_t*>(x) + begin + at, *z = static_cast<const int32_t*>(zero) + first;
        for (int64_t i = 0; i < n; ++i) v[i] = static_cast<float>(int64_t{from[i]} - z[scales == 1 ? 0 : i]);
      } else if (zero != nullptr) {
        load_floats(x_type, zero, first, scales, shift);
        for (int64_t i = 0; i < n; ++i) v[i] -= shift[scales == 1 ? 0 : i];
      }
      load_floats(scale_type, scale, first, scales, step);
      for (int64_t i = 0; i < n; ++i) v[i] *= step[scales == 1 ? 0 : i];
    });
    store_floats(y_type, value, count, true, y, begin);
  });
}

}  // namespace ds::kernels
