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

// For inputs x, w, bias?, addend? and an f32 bias.
inline kernels::Finish finish_of(const KernelContext& c, const kernels::Epilogue& epilogue, int64_t channels) {
  kernels::Finish finish;
  finish.epilogue = epilogue;
  finish.bias = c.has_input(2) && c.input(2).dtype() == DType::kF32 ? c.input(2).data<float>() : nullptr;
  finish.addend = c.has_input(3) ? c.input(3).raw() : nullptr;
  finish.addend_bf16 = c.has_input(3) && c.input(3).dtype() == DType::kBF16;
  finish.y = c.output(0).mutable_raw();
  finish.y_bf16 = c.output(0).dtype() == DType::kBF16;
  finish.channels = channels;
  return finish;
}

}  // namespace ds::ops
