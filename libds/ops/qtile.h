// 8-bit products with constant weights on tiles (kernels/packed_product.h), as QConv, QMatMul and MatMulInteger use them.
//
// Tiles multiply unsigned by signed: a signed activation is shifted by 128, unsigned weights by -128, and what the zero point
// of the activation adds to the sums is taken from their bias. What zero points of weights add depends on the row and is taken
// from the finished sums.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/packed_product.h"
#include "kernels/qgemm.h"
#include "libds/ir/packed_cache.h"

namespace ds::ops {

// Why tiles do not take weights `w` (input of the query, constant) with the zero points of input `zero`.
std::string not_for_tiles(const KernelQuery& q, size_t w, size_t zero, const kernels::NhwcConv& shape, bool matrix);

class QTiles {
 public:
  // `content` is that of input w, [M, C/G, KH, KW], or [K, N] when `matrix`; it is packed, and not kept. Input `zero`, which
  // may be omitted, has its zero points. x is input 0.
  QTiles(const KernelQuery& q, size_t w, size_t zero, const Tensor& content, const kernels::NhwcConv& shape, bool matrix);

  size_t columns() const { return packed_->column_sums.size(); }
  size_t workspace_bytes() const { return row_bytes() + kernels::product_workspace(isa_, shape_, *packed_, type_, threads_); }
  size_t packed_bytes() const { return packed_.made ? packed_->bytes() : 0; }

  // The bias that makes sums right for x's zero point; `given` (null: zeros) and `bias` have one entry per column.
  void take_zero(int32_t x_zero, const int32_t* given, int32_t* bias) const;
  // y = rescaled sums; rescale.bias comes from take_zero() with the same zero point.
  void run(const Tensor& x, int32_t x_zero, const kernels::QRescale& rescale, void* y, std::byte* workspace) const;

 private:
  size_t row_bytes() const;  // of the rows' sums and what they are made of, in whole lines
  const int32_t* row_sums(const Tensor& x, int32_t zero, std::byte* workspace) const;

  kernels::NhwcConv shape_;
  std::vector<int32_t> terms_;  // minus the zero points of weights after their shift; empty: zeros
  Isa level_;
  const kernels::TileIsa& isa_;
  int threads_;
  int32_t shift_;  // of x
  kernels::ActivationType type_;
  Packing<kernels::PackedWeights> packed_;
};

// MatMulInteger with constant b of the given product.
std::unique_ptr<Kernel> tile_matmul_integer(const KernelQuery& q, const kernels::NhwcConv& shape);

}  // namespace ds::ops
