// Where the products of convolutions and matrix products of f32 sums go: bias, addend and activation (kernels/finish.h).
#pragma once

#include <optional>

#include "kernels/finish.h"
#include "kernels/packed_product.h"
#include "kernels/tile_finish.h"
#include "libds/ir/kernel_def.h"

namespace ds::ops {

class FinishSink final : public kernels::ProductSink {
 public:
  FinishSink(Isa isa, const kernels::Finish& finish)
      : run_(isa >= Isa::kAvx512 ? kernels::finish_avx512 : kernels::finish_avx2), finish_(finish), in_tiles_(kernels::tile_finish(finish)) {}
  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    run_(finish_, row, rows, column, columns, static_cast<const float*>(sums), stride);
  }
  const kernels::TileFinish* in_tiles() const override { return in_tiles_ ? &*in_tiles_ : nullptr; }

 private:
  kernels::FinishFn* run_;
  const kernels::Finish& finish_;
  std::optional<kernels::TileFinish> in_tiles_;
};

inline kernels::StoredType stored_type(DType t) {
  using S = kernels::StoredType;
  return t == DType::kBF16 ? S::kBf16 : t == DType::kF16 ? S::kF16 : S::kF32;
}

// For inputs x, w, bias?, addend? and an f32 bias.
inline kernels::Finish finish_of(const KernelContext& c, const kernels::Epilogue& epilogue, int64_t channels) {
  kernels::Finish finish;
  finish.epilogue = epilogue;
  finish.bias = c.has_input(2) && c.input(2).dtype() == DType::kF32 ? c.input(2).data<float>() : nullptr;
  finish.addend = c.has_input(3) ? c.input(3).raw() : nullptr;
  if (c.has_input(3)) finish.addend_type = stored_type(c.input(3).dtype());
  finish.y = c.output(0).mutable_raw();
  finish.y_type = stored_type(c.output(0).dtype());
  finish.channels = channels;
  return finish;
}

}  // namespace ds::ops
