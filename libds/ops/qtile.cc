#include "libds/ops/qtile.h"

#include <algorithm>

#include "libds/ops/common.h"

namespace ds::ops {
namespace {

using kernels::QRescale;

const kernels::TileIsa& isa_of(const KernelQuery& q) { return *kernels::tile_isa(kernels::TileType::kU8S8, q.isa); }

kernels::WeightType weight_type(DType w) { return w == DType::kI8 ? kernels::WeightType::kS8 : kernels::WeightType::kU8Shifted; }

// Hands the sums of tiles to the rescaling.
class RescaleSink final : public kernels::ProductSink {
 public:
  RescaleSink(Isa level, const QRescale& q, int64_t channels, void* y)
      : level_(level), q_(q), row_bytes_(channels * static_cast<int64_t>(kernels::output_size(q.output))), y_(static_cast<std::byte*>(y)) {}

  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    const auto element = static_cast<int64_t>(kernels::output_size(q_.output));
    const auto* from = static_cast<const int32_t*>(sums);
    std::byte* to = y_ + row * row_bytes_;
    if (level_ >= Isa::kAvx512)
      return kernels::qrescale_avx512(rows, columns, from, stride, kernels::at_block(q_, row, column), to + column * element, row_bytes_);
    for (int64_t c = 0; c < columns; c += kernels::kPanelColumns)
      kernels::avx2_qgemm().rescale(rows, std::min(kernels::kPanelColumns, columns - c), from + c, stride, kernels::at_block(q_, row, column + c),
                                    to + (column + c) * element, row_bytes_);
  }

 private:
  Isa level_;
  const QRescale& q_;
  int64_t row_bytes_;
  std::byte* y_;
};

}  // namespace

std::string not_for_tiles(const KernelQuery& q, size_t w, size_t zero, const kernels::NhwcConv& shape, bool matrix) {
  const DType type = q.in(w).dtype;
  const double wanted = type == DType::kI8 ? 0 : 128;
  if (q.constant(zero) == nullptr) {
    if (wanted != 0) return "unsigned weights without a zero point";
  } else {
    const std::vector<double> zeros = q.constant(zero)->to_doubles();
    if (!std::all_of(zeros.begin(), zeros.end(), [&](double z) { return z == wanted; })) return "weights have a zero point";
  }
  const kernels::TileIsa& isa = isa_of(q);
  if (!isa.saturates) return {};
  return require(kernels::pairs_fit(isa, shape, matrix, q.constant(w)->transient().raw(), weight_type(type)), "pairs of products do not fit 16 bits");
}

QTiles::QTiles(const KernelQuery& q, size_t w, const Tensor& content, const kernels::NhwcConv& shape, bool matrix)
    : shape_(shape), level_(q.isa), isa_(isa_of(q)), threads_(q.threads) {
  packed_ = pack_once(q, w, kernels::packing_form(isa_, shape, matrix), [&] {
    return kernels::pack_product(kernels::TileType::kU8S8, isa_, shape, matrix, q.for_sizes ? nullptr : content.raw(), weight_type(q.in(w).dtype));
  });
  const bool is_signed = q.in(0).dtype == DType::kI8;
  type_ = is_signed ? kernels::ActivationType::kS8 : kernels::ActivationType::kU8;
  shift_ = is_signed ? 128 : 0;
}

void QTiles::take_zero(int32_t x_zero, const int32_t* given, int32_t* bias) const {
  const auto zero = static_cast<uint32_t>(x_zero + shift_);
  for (size_t m = 0; m < columns(); ++m)
    bias[m] = static_cast<int32_t>((given != nullptr ? static_cast<uint32_t>(given[m]) : 0) - zero * static_cast<uint32_t>(packed_->column_sums[m]));
}

void QTiles::run(const Tensor& x, int32_t x_zero, const QRescale& rescale, void* y, std::byte* workspace) const {
  const RescaleSink sink(level_, rescale, shape_.out_channels, y);
  kernels::packed_product(isa_, shape_, {x.raw(), type_, static_cast<uint8_t>(x_zero + shift_)}, *packed_, sink, threads_, workspace);
}

}  // namespace ds::ops
