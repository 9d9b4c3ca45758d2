#include "libds/mem/tensor.h"

#include <cstdlib>
#include <cstring>

namespace ds {

std::string shape_string(std::span<const int64_t> shape) {
  if (shape.empty()) return "scalar";
  return fmt::format("{}", fmt::join(shape, "x"));
}

std::shared_ptr<Buffer> Buffer::allocate(size_t bytes, Tier tier) {
  constexpr size_t kAlignment = 64;
  auto buffer = std::shared_ptr<Buffer>(new Buffer());
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* p = std::aligned_alloc(kAlignment, rounded == 0 ? kAlignment : rounded);
  if (p == nullptr) fail(ExitCode::kOsError, "out of memory: {} bytes for {}", bytes, tier_name(tier));
  buffer->data_ = static_cast<std::byte*>(p);
  buffer->bytes_ = bytes;
  buffer->tier_ = tier;
  charge_tier(tier, static_cast<int64_t>(bytes));
  return buffer;
}

std::shared_ptr<Buffer> Buffer::borrow(const void* data, size_t bytes, std::shared_ptr<const void> owner) {
  auto buffer = std::shared_ptr<Buffer>(new Buffer());
  buffer->data_ = static_cast<std::byte*>(const_cast<void*>(data));
  buffer->bytes_ = bytes;
  buffer->owner_ = owner ? std::move(owner) : std::shared_ptr<const void>(data, [](const void*) {});
  return buffer;
}

Buffer::~Buffer() {
  if (owner_ || data_ == nullptr) return;
  charge_tier(tier_, -static_cast<int64_t>(bytes_));
  std::free(data_);
}

Tensor::Tensor(DType dtype, Shape shape, std::shared_ptr<Buffer> buffer, size_t offset)
    : dtype_(dtype), shape_(std::move(shape)), numel_(checked_numel(shape_)), buffer_(std::move(buffer)) {
  DS_CHECK(buffer_ != nullptr && dtype_size(dtype_) > 0);
  const int64_t bytes_needed = checked_mul(numel_, static_cast<int64_t>(dtype_size(dtype_)));
  DS_CHECK(offset + static_cast<size_t>(bytes_needed) <= buffer_->bytes());
  data_ = buffer_->data() + offset;
}

Tensor Tensor::empty(DType dtype, Shape shape, Tier tier) {
  const int64_t bytes = checked_mul(checked_numel(shape), static_cast<int64_t>(dtype_size(dtype)));
  return Tensor(dtype, std::move(shape), Buffer::allocate(static_cast<size_t>(bytes), tier));
}

Tensor Tensor::zeros(DType dtype, Shape shape, Tier tier) {
  Tensor t = empty(dtype, std::move(shape), tier);
  std::memset(t.mutable_raw(), 0, t.bytes());
  return t;
}

Tensor Tensor::wrap(DType dtype, Shape shape, void* data) {
  const int64_t bytes = checked_mul(checked_numel(shape), static_cast<int64_t>(dtype_size(dtype)));
  return Tensor(dtype, std::move(shape), Buffer::borrow(data, static_cast<size_t>(bytes), nullptr));
}

Tensor Tensor::reshaped(Shape shape) const {
  const int64_t n = checked_numel(shape);
  if (n != numel_) bad_data("cannot view {} as {}", shape_string(shape_), shape_string(shape));
  Tensor t = *this;
  t.shape_ = std::move(shape);
  return t;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  DS_CHECK(rank() > 0 && 0 <= begin && begin <= end && end <= shape_[0]);
  Tensor t = *this;
  const int64_t row = shape_[0] == 0 ? 0 : numel_ / shape_[0];
  t.shape_[0] = end - begin;
  t.numel_ = row * (end - begin);
  t.data_ = data_ + static_cast<size_t>(begin * row) * dtype_size(dtype_);
  return t;
}

Tensor Tensor::clone(Tier tier) const {
  Tensor t = empty(dtype_, shape_, tier);
  if (numel_ > 0) std::memcpy(t.mutable_raw(), transient().raw(), bytes());
  return t;
}

Tensor Tensor::transient() const {
  if (buffer_ == nullptr || !buffer_->pending()) return *this;
  Tensor t = *this;
  t.buffer_ = buffer_->separate();
  t.data_ = t.buffer_->data() + (data_ - buffer_->data());
  return t;
}

Tensor Tensor::cast(DType dtype) const {
  if (dtype == dtype_) return clone();
  Tensor out = empty(dtype, shape_);
  const bool known = dispatch_dtype(dtype_, [&](auto from_tag) {
    using From = decltype(from_tag);
    dispatch_dtype(dtype, [&](auto to_tag) {
      using To = decltype(to_tag);
      const From* from = data<From>();
      To* to = out.mutable_data<To>();
      for (int64_t i = 0; i < numel_; ++i) {
        // Through float for the 16-bit types; bool means "is not zero".
        if constexpr (std::is_same_v<To, bool>) to[i] = from[i] != From(0.0f);
        else if constexpr (std::is_same_v<To, f16> || std::is_same_v<To, bf16>) to[i] = To(static_cast<float>(from[i]));
        else if constexpr (std::is_same_v<From, f16> || std::is_same_v<From, bf16>) to[i] = static_cast<To>(static_cast<float>(from[i]));
        else to[i] = static_cast<To>(from[i]);
      }
    });
  });
  DS_CHECK(known);
  return out;
}

std::vector<int64_t> Tensor::to_ints() const {
  if (!is_int(dtype_) && dtype_ != DType::kBool) bad_data("expected an integer tensor, got {}", dtype_name(dtype_));
  const Tensor wide = dtype_ == DType::kI64 ? *this : cast(DType::kI64);
  const auto s = wide.span<int64_t>();
  return {s.begin(), s.end()};
}

std::vector<double> Tensor::to_doubles() const {
  const Tensor wide = dtype_ == DType::kF64 ? *this : cast(DType::kF64);
  const auto s = wide.span<double>();
  return {s.begin(), s.end()};
}

bool Tensor::equal_bits(const Tensor& other) const {
  return dtype_ == other.dtype_ && shape_ == other.shape_ &&
         (numel_ == 0 || std::memcmp(raw(), other.raw(), bytes()) == 0);
}

}  // namespace ds
