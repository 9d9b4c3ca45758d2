// What a fused operator does to its result before storing it: y = scale * activation(y + addend) + shift.
//
// NaN: the portable form keeps it, as Relu and Clip of their own and onnxruntime's fused ones do. oneDNN's relu and
// clip make 0 (of clip, `low`) of it: they are vector maxima, which give their second operand then, and no post-op of
// oneDNN is exact otherwise. So a NaN in the middle of a fused network may be seen there as 0.
#pragma once

#include <cstdint>

namespace ds::kernels {

enum class Activation { kNone, kRelu, kClip, kSigmoid, kHardSwish, kSilu, kGelu, kGeluTanh, kTanh };

struct Epilogue {
  Activation activation = Activation::kNone;
  float low = 0, high = 0;  // of kClip
  bool add = false;
  float scale = 1, shift = 0;
};

// Portable form, in place over n elements; addend is read with `add` only and may be y's own copy.
// Threads: parallel_for. T: float, double.
template <typename T>
void apply_epilogue(const Epilogue& epilogue, int64_t n, const T* addend, T* y);

}  // namespace ds::kernels
