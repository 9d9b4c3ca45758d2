// Quantization arithmetic on raw pointers.
//
// real = (stored - zero) * scale; stored = saturate(round_half_even(real / scale) + zero). ONNX
// QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, and the 8-bit forms of pointwise and pooling
// operators, whose activations are [N, H, W, C] (channels innermost).
// Threads: parallel_for; results do not depend on it.
#pragma once

#include <cstdint>

namespace ds::kernels {

// Consecutive elements and their scales: one for all, or one each (`vary`).
struct ScaleRun {
  int64_t length, first;
  bool vary;
};

// Which scale belongs to an element of a tensor seen as [outer, axis, inner]. Per tensor: axis 1, outer 1.
// block 0: one scale per position on the axis; else scales are [outer, ceil(axis / block), inner].
struct QuantSpace {
  int64_t outer = 1, axis = 1, inner = 1, block = 0;

  // The run from element i on.
  ScaleRun run(int64_t i) const {
    const int64_t k = i % inner, a = i / inner % axis;
    const int64_t row = block == 0 ? 0 : i / (inner * axis) * ((axis + block - 1) / block) + a / block;
    if (inner > 1 || axis == 1) return block == 0 ? ScaleRun{inner - k, a, false} : ScaleRun{inner - k, row * inner + k, true};
    if (block == 0) return {axis - a, a, true};
    return {(a / block + 1) * block < axis ? block - a % block : axis - a, row, false};
  }
};

// In: float, int32_t (converted to float first). Out: u8, i8, u16, i16, i32. zero may be null (zeros). A NaN becomes
// the least value.
template <typename In, typename Out>
void quantize(const QuantSpace& s, const In* x, const float* scale, const Out* zero, Out* y);

template <typename In>
void dequantize(const QuantSpace& s, const In* x, const float* scale, const In* zero, float* y);

// Scale and zero point of DynamicQuantizeLinear for u8, of values in [low, high], which holds 0.
void dynamic_params(float low, float high, float* scale, uint8_t* zero);
// The range of x with 0, NaN aside, by AVX2 instructions, serial; only on CPUs that have them.
void value_range_avx2(int64_t n, const float* x, float* low, float* high);
// Scale and zero point from the range of x, then x quantized.
void dynamic_quantize(int64_t n, const float* x, uint8_t* y, float* scale, uint8_t* zero);

// 8-bit values with scale and zero point, as doubles hold them exactly.
struct QParams {
  float scale = 1;
  int32_t zero = 0;
};

// quantize() of floats with one scale: the same bits by AVX2 instructions, serial; only on CPUs that have them.
void quantize_u8_avx2(int64_t n, const float* x, QParams p, uint8_t* y);
void quantize_i8_avx2(int64_t n, const float* x, QParams p, int8_t* y);

// y = saturate(round(((a - za)*sa + (b - zb)*sb) / sy) + zy), computed as (a-za)*(sa/sy) + (b-zb)*(sb/sy) in float.
// T: u8, i8. Results are kept within [least, most].
template <typename T>
void quant_add(int64_t n, const T* a, QParams pa, const T* b, QParams pb, QParams py, int32_t least, int32_t most, T* y);

// The same bits by AVX2 instructions, serial; only on CPUs that have them.
void quant_add_u8_avx2(int64_t n, const uint8_t* a, QParams pa, const uint8_t* b, QParams pb, QParams py, int32_t least, int32_t most, uint8_t* y);
void quant_add_i8_avx2(int64_t n, const int8_t* a, QParams pa, const int8_t* b, QParams pb, QParams py, int32_t least, int32_t most, int8_t* y);

// y[i] = table[x[i]]; 256 entries, indexed by the byte's bits.
void byte_table(int64_t n, const uint8_t* x, const uint8_t* table, uint8_t* y);

struct QPoolShape {
  int64_t batch = 1, height = 1, width = 1, channels = 1, out_height = 1, out_width = 1;
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  int64_t pad_top = 0, pad_left = 0;
};
// Maxima of stored values; x and y share their parameters.
template <typename T>
void quant_max_pool(const QPoolShape& s, const T* x, T* y);

// The same bits by AVX2 instructions, for T = i8 or u8 as `is_signed` says; only on CPUs that have them.
void quant_max_pool_avx2(const QPoolShape& s, bool is_signed, const uint8_t* x, uint8_t* y);

// Mean over all pixels of each image and channel: [N, pixels, C] -> [N, C], rescaled from px to py.
template <typename T>
void quant_global_average(int64_t batch, int64_t pixels, int64_t channels, const T* x, QParams px, QParams py, T* y);
// The same bits by AVX2 instructions. Sums are 32 bits wide: pixels must be below kMostAveragedPixels.
constexpr int64_t kMostAveragedPixels = int64_t{1} << 23;
void quant_global_average_avx2(int64_t batch, int64_t pixels, int64_t channels, bool is_signed, const uint8_t* x, QParams px, QParams py, uint8_t* y);

}  // namespace ds::kernels
