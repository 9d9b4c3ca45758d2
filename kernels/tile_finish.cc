#include "kernels/tile_finish.h"

#include <limits>

namespace ds::kernels {

std::optional<TileFinish> tile_finish(const Finish& f) {
  const bool wide = f.y_type == StoredType::kF32 && (f.addend == nullptr || f.addend_type == StoredType::kF32);
  if (!is_simple(f.epilogue.activation) || !wide || f.column_scale != nullptr) return std::nullopt;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  TileFinish t;
  t.bias = f.bias;
  t.addend = static_cast<const float*>(f.addend);
  t.y = static_cast<float*>(f.y);
  t.stride = f.channels;
  t.low = f.epilogue.activation == Activation::kRelu ? 0 : f.epilogue.activation == Activation::kClip ? f.epilogue.low : -kInfinity;
  t.high = f.epilogue.activation == Activation::kClip ? f.epilogue.high : kInfinity;
  t.hard_swish = f.epilogue.activation == Activation::kHardSwish;
  if (f.epilogue.scale != 1.0f || f.epilogue.shift != 0.0f) {
    t.scale = f.epilogue.scale;
    t.shift = f.epilogue.shift;
  }
  return t;
}

}  // namespace ds::kernels
