#include "libds/ops/qtile.h"

#include <algorithm>

#include "libds/base/parallel.h"
#include "libds/ops/common.h"

namespace ds::ops {
namespace {

using kernels::NhwcConv;
using kernels::QRescale;

const kernels::TileIsa& isa_of(const KernelQuery& q) { return *kernels::tile_isa(kernels::TileType::kU8S8, q.isa); }

// Zero points after the shift of weights, one or one per channel; none: 0.
std::vector<int32_t> shifted_zeros(const KernelQuery& q, size_t w, size_t zero) {
  std::vector<int32_t> zeros = {0};
  if (q.constant(zero) != nullptr) {
    zeros.clear();
    for (int64_t z : q.constant(zero)->to_ints()) zeros.push_back(static_cast<int32_t>(z));
  }
  if (q.in(w).dtype == DType::kU8)
    for (int32_t& z : zeros) z -= 128;
  return zeros;
}
bool all_zero(const std::vector<int32_t>& v) { return std::all_of(v.begin(), v.end(), [](int32_t z) { return z == 0; }); }

kernels::WeightType weight_type(DType w) { return w == DType::kI8 ? kernels::WeightType::kS8 : kernels::WeightType::kU8Shifted; }

// Hands the sums of tiles to the rescaling, after terms of rows and columns were added to them (null: none).
class RescaleSink final : public kernels::ProductSink {
 public:
  RescaleSink(Isa level, const QRescale& q, int64_t channels, const int32_t* row_terms, const int32_t* column_terms, void* y)
      : level_(level), row_terms_(row_terms), column_terms_(column_terms), q_(q), row_bytes_(channels * static_cast<int64_t>(kernels::output_size(q.output))), y_(static_cast<std::byte*>(y)) {}

  void take(int64_t row, int64_t rows, int64_t column, int64_t columns, const void* sums, int64_t stride) const override {
    const auto* from = static_cast<const int32_t*>(sums);
    if (row_terms_ == nullptr) return rescale(row, rows, column, columns, from, stride);
    constexpr int64_t kRows = 16, kColumns = 64;
    int32_t whole[kRows * kColumns];
    const auto add = level_ >= Isa::kAvx512 ? kernels::qadd_terms_avx512 : kernels::qadd_terms_avx2;
    for (int64_t r = 0; r < rows; r += kRows)
      for (int64_t c = 0; c < columns; c += kColumns) {
        const int64_t m = std::min(kRows, rows - r), n = std::min(kColumns, columns - c);
        add(m, n, from + r * stride + c, stride, row_terms_ + row + r, column_terms_ + column + c, whole);
        rescale(row + r, m, column + c, n, whole, n);
      }
  }

 private:
  void rescale(int64_t row, int64_t rows, int64_t column, int64_t columns, const int32_t* from, int64_t stride) const {
    const auto element = static_cast<int64_t>(kernels::output_size(q_.output));
    std::byte* to = y_ + row * row_bytes_;
    if (level_ >= Isa::kAvx512)
      return kernels::qrescale_avx512(rows, columns, from, stride, kernels::at_block(q_, row, column), to + column * element, row_bytes_);
    for (int64_t c = 0; c < columns; c += kernels::kPanelColumns)
      kernels::avx2_qgemm().rescale(rows, std::min(kernels::kPanelColumns, columns - c), from + c, stride, kernels::at_block(q_, row, column + c),
                                    to + (column + c) * element, row_bytes_);
  }

  Isa level_;
  const int32_t *row_terms_, *column_terms_;
  const QRescale& q_;
  int64_t row_bytes_;
  std::byte* y_;
};

}  // namespace

std::string not_for_tiles(const KernelQuery& q, size_t w, size_t zero, const kernels::NhwcConv& shape, bool matrix) {
  const DType type = q.in(w).dtype;
  if (shape.groups != 1 && !all_zero(shifted_zeros(q, w, zero))) return "weights of groups have a zero point";
  const kernels::TileIsa& isa = isa_of(q);
  if (!isa.saturates) return {};
  return require(kernels::pairs_fit(isa, shape, matrix, q.constant(w)->transient().raw(), weight_type(type)), "pairs of products do not fit 16 bits");
}

QTiles::QTiles(const KernelQuery& q, size_t w, size_t zero, const Tensor& content, const kernels::NhwcConv& shape, bool matrix)
    : shape_(shape), level_(q.isa), isa_(isa_of(q)), threads_(q.threads) {
  packed_ = pack_once(q, w, kernels::packing_form(isa_, shape, matrix), [&] {
    return kernels::pack_product(kernels::TileType::kU8S8, isa_, shape, matrix, q.for_sizes ? nullptr : content.raw(), weight_type(q.in(w).dtype));
  });
  terms_ = shifted_zeros(q, w, zero);
  for (int32_t& z : terms_) z = -z;
  if (all_zero(terms_)) terms_.clear();
  else if (terms_.size() == 1) terms_.assign(columns(), terms_[0]);
  const bool is_signed = q.in(0).dtype == DType::kI8;
  type_ = is_signed ? kernels::ActivationType::kS8 : kernels::ActivationType::kU8;
  shift_ = is_signed ? 128 : 0;
}

void QTiles::take_zero(int32_t x_zero, const int32_t* given, int32_t* bias) const {
  const auto zero = static_cast<uint32_t>(x_zero + shift_);
  for (size_t m = 0; m < columns(); ++m)
    bias[m] = static_cast<int32_t>((given != nullptr ? static_cast<uint32_t>(given[m]) : 0) - zero * static_cast<uint32_t>(packed_->column_sums[m]));
}

size_t QTiles::row_bytes() const {
  if (terms_.empty()) return 0;
  int64_t count = shape_.pixels();
  if (!shape_.pointwise()) count += shape_.batch * shape_.height * (shape_.width + shape_.out_width);
  return (static_cast<size_t>(count) * sizeof(int32_t) + 63) / 64 * 64;
}

const int32_t* QTiles::row_sums(const Tensor& x, int32_t zero, std::byte* workspace) const {
  const NhwcConv& s = shape_;
  auto* pixels = reinterpret_cast<int32_t*>(workspace);
  const int64_t count = s.batch * s.height * s.width;
  parallel_for(count, (1 << 16) / (s.channels + 1) + 1, [&](int64_t begin, int64_t end) {
    kernels::qrow_sums_avx2(end - begin, s.channels, static_cast<const uint8_t*>(x.raw()) + begin * s.channels, static_cast<uint8_t>(shift_),
                            static_cast<int32_t>(s.channels * zero), pixels + begin);
  });
  if (s.pointwise()) return pixels;
  int32_t *lines = pixels + count, *sums = lines + s.batch * s.height * s.out_width;
  kernels::qwindow_sums(s, pixels, lines, sums);
  return sums;
}

void QTiles::run(const Tensor& x, int32_t x_zero, const QRescale& rescale, void* y, std::byte* workspace) const {
  const int32_t zero = x_zero + shift_;
  const int32_t* rows = terms_.empty() ? nullptr : row_sums(x, zero, workspace);
  const RescaleSink sink(level_, rescale, shape_.out_channels, rows, terms_.data(), y);
  kernels::packed_product(isa_, shape_, {x.raw(), type_, static_cast<uint8_t>(zero)}, *packed_, sink, threads_, workspace + row_bytes());
}

namespace {

class TileMatMulInteger final : public Kernel {
 public:
  TileMatMulInteger(const KernelQuery& q, const NhwcConv& shape) : tiles_(q, 1, 3, q.constant(1)->transient(), shape, true) {}
  size_t workspace_bytes() const override { return bias_bytes() + tiles_.workspace_bytes(); }
  size_t packed_bytes() const override { return tiles_.packed_bytes(); }
  void run(const KernelContext& c) override {
    auto* bias = reinterpret_cast<int32_t*>(c.workspace());
    int32_t zero = 0;
    if (c.has_input(2)) zero = c.input(2).dtype() == DType::kI8 ? *c.input(2).data<int8_t>() : *c.input(2).data<uint8_t>();
    tiles_.take_zero(zero, nullptr, bias);
    QRescale rescale;
    rescale.output = kernels::QOutput::kI32;
    rescale.bias = bias;
    tiles_.run(c.input(0), zero, rescale, c.output(0).mutable_raw(), c.workspace() + bias_bytes());
  }

 private:
  size_t bias_bytes() const { return (tiles_.columns() * sizeof(int32_t) + 63) / 64 * 64; }
  QTiles tiles_;
};

}  // namespace

std::unique_ptr<Kernel> tile_matmul_integer(const KernelQuery& q, const NhwcConv& shape) { return std::make_unique<TileMatMulInteger>(q, shape); }

}  // namespace ds::ops
