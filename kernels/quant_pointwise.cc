#include "kernels/quant_pointwise.h"

#include <cmath>

namespace ds::kernels {
namespace {

float real_of(uint8_t bits, const QBytesType& p) {
  const int32_t stored = p.is_signed ? static_cast<int8_t>(bits) : bits;
  return static_cast<float>(stored - p.params.zero) * p.params.scale;
}

uint8_t stored_of(float real, const QBytesType& p) {
  const auto lo = static_cast<float>(p.lo - p.params.zero), hi = static_cast<float>(p.hi - p.params.zero);
  float f = real / p.params.scale;
  f = f > lo ? f : lo;
  f = f < hi ? f : hi;
  return static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(f)) + p.params.zero);
}

}  // namespace

void quant_affine(int64_t rows, int64_t n, const uint8_t* x, const QBytesType& px, const float* scale, const float* shift, const QBytesType& py,
                  uint8_t* y) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < n; ++c) y[r * n + c] = stored_of(real_of(x[r * n + c], px) * scale[c] + shift[c], py);
}

void quant_binary(const QBinaryRows& lines, const QBytesType& pa, const QBytesType& pb, const QBytesType& py) {
  for (int64_t r = 0; r < lines.rows; ++r)
    for (int64_t i = 0; i < lines.n; ++i) {
      const float a = real_of(lines.a[r * lines.a_row + i * lines.a_step], pa), b = real_of(lines.b[r * lines.b_row + i * lines.b_step], pb);
      float v = 0;
      switch (lines.op) {
        case QBinaryOp::kAdd: v = a + b; break;
        case QBinaryOp::kSub: v = a - b; break;
        case QBinaryOp::kMul: v = a * b; break;
        case QBinaryOp::kDiv: v = a / b; break;
      }
      lines.y[r * lines.n + i] = stored_of(v, py);
    }
}

bool cpu_has_vbmi() {
  static const bool has = __builtin_cpu_supports("avx512vbmi") != 0;
  return has;
}

}  // namespace ds::kernels
