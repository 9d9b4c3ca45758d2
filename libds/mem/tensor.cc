#include "libds/mem/tensor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace ds {

std::string shape_string(std::span<const int64_t> shape) {
  if (shape.empty()) return "scalar";
  return fmt::format("{}", fmt::join(shape, "x"));
}

namespace {

size_t checked_bytes(DType dtype, int64_t numel) {
  checked_mul(numel, static_cast<int64_t>(dtype_bits(dtype)));
  return Tensor::packed_bytes(dtype, numel);
}

}  // namespace

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

namespace {

template <typename T>
std::shared_ptr<Buffer> objects(size_t count) {
  auto storage = std::make_shared<std::vector<T>>(count);
  T* data = storage->data();
  return Buffer::borrow(data, count * sizeof(T), std::move(storage));
}

}  // namespace

std::shared_ptr<Buffer> Buffer::of_objects(DType dtype, size_t count) {
  DS_CHECK(is_object(dtype));
  return dtype == DType::kString ? objects<std::string>(count) : objects<Tensor>(count);
}

Buffer::~Buffer() {
  if (owner_ || data_ == nullptr) return;
  charge_tier(tier_, -static_cast<int64_t>(bytes_));
  std::free(data_);
}

Tensor::Tensor(DType dtype, Shape shape, std::shared_ptr<Buffer> buffer, size_t offset)
    : dtype_(dtype), shape_(std::move(shape)), numel_(checked_numel(shape_)), buffer_(std::move(buffer)) {
  DS_CHECK(buffer_ != nullptr && (dtype_bits(dtype_) > 0 || is_object(dtype_)));
  DS_CHECK(offset + checked_bytes(dtype_, numel_) <= buffer_->bytes());
  data_ = buffer_->data() + offset;
}

Tensor Tensor::empty(DType dtype, Shape shape, Tier tier) {
  const int64_t numel = checked_numel(shape);
  if (is_object(dtype)) return Tensor(dtype, std::move(shape), Buffer::of_objects(dtype, static_cast<size_t>(numel)));
  return Tensor(dtype, std::move(shape), Buffer::allocate(checked_bytes(dtype, numel), tier));
}

Tensor Tensor::zeros(DType dtype, Shape shape, Tier tier) {
  Tensor t = empty(dtype, std::move(shape), tier);
  if (!is_object(dtype)) std::memset(t.mutable_raw(), 0, t.bytes());
  return t;
}

Tensor Tensor::wrap(DType dtype, Shape shape, void* data) {
  const size_t bytes = checked_bytes(dtype, checked_numel(shape));
  return Tensor(dtype, std::move(shape), Buffer::borrow(data, bytes, nullptr));
}

Tensor Tensor::of_strings(Shape shape, std::vector<std::string> values) {
  Tensor t = empty(DType::kString, std::move(shape));
  DS_CHECK(static_cast<int64_t>(values.size()) == t.numel());
  std::move(values.begin(), values.end(), t.strings().begin());
  return t;
}

Tensor Tensor::sequence(std::vector<Tensor> items) {
  Tensor t = empty(DType::kSequence, {static_cast<int64_t>(items.size())});
  std::move(items.begin(), items.end(), t.items().begin());
  return t;
}

Tensor Tensor::optional_of(Tensor item) {
  if (!item.defined()) return empty(DType::kOptional, {0});
  Tensor t = empty(DType::kOptional, {1});
  t.items()[0] = std::move(item);
  return t;
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
  if (is_object(dtype_)) {
    const size_t object = dtype_ == DType::kString ? sizeof(std::string) : sizeof(Tensor);
    t.data_ = data_ + static_cast<size_t>(begin * row) * object;
  } else {
    const size_t bits = static_cast<size_t>(begin * row) * dtype_bits(dtype_);
    DS_CHECK(bits % 8 == 0);  // a packed row that starts inside a byte has no address
    t.data_ = data_ + bits / 8;
  }
  return t;
}

Tensor Tensor::clone(Tier tier) const {
  Tensor t = empty(dtype_, shape_, tier);
  if (dtype_ == DType::kString) std::copy(strings().begin(), strings().end(), t.strings().begin());
  else if (is_container(dtype_)) std::copy(items().begin(), items().end(), t.items().begin());
  else if (numel_ > 0) std::memcpy(t.mutable_raw(), transient().raw(), bytes());
  return t;
}

Tensor Tensor::transient() const {
  Tensor t = *this;
  if (buffer_ == nullptr) return t;
  t.buffer_ = Buffer::transient(buffer_);
  t.data_ = t.buffer_->data() + (data_ - buffer_->data());
  return t;
}

Tensor Tensor::unpacked() const {
  if (!is_packed(dtype_)) return *this;
  const bool is_signed = dtype_ == DType::kI4 || dtype_ == DType::kI2;
  const auto bits = static_cast<int>(dtype_bits(dtype_));
  const int per_byte = 8 / bits;
  Tensor out = empty(is_signed ? DType::kI8 : DType::kU8, shape_);
  const auto* from = static_cast<const uint8_t*>(raw());
  auto* to = static_cast<uint8_t*>(out.mutable_raw());
  for (int64_t i = 0; i < numel_; ++i) {
    const auto x = static_cast<uint8_t>((from[i / per_byte] >> (bits * (i % per_byte))) & ((1 << bits) - 1));
    to[i] = is_signed && (x >> (bits - 1)) ? static_cast<uint8_t>(x | (0xff << bits)) : x;
  }
  return out;
}

Tensor Tensor::pack_as(DType dtype) const {
  if (dtype == dtype_) return *this;
  DS_CHECK(is_packed(dtype) && dtype_size(dtype_) == 1);
  const auto bits = static_cast<int>(dtype_bits(dtype));
  const int per_byte = 8 / bits;
  Tensor out = zeros(dtype, shape_);
  const auto* from = static_cast<const uint8_t*>(raw());
  auto* to = static_cast<uint8_t*>(out.mutable_raw());
  for (int64_t i = 0; i < numel_; ++i)
    to[i / per_byte] |= static_cast<uint8_t>((from[i] & ((1 << bits) - 1)) << (bits * (i % per_byte)));
  return out;
}

Tensor Tensor::deferred(DType dtype, Shape shape, Buffer::Fill fill) {
  // Below this a copy costs less than pages of its own; it also bounds the number of mappings.
  constexpr size_t kLeast = 64 << 10;
  Tensor t = Tensor::wrap(dtype, std::move(shape), nullptr);
  if (t.bytes() >= kLeast) return Tensor(dtype, t.shape_, Buffer::deferred(t.bytes(), std::move(fill)));
  t = empty(dtype, t.shape_, Tier::kParameters);
  if (t.bytes() > 0) fill(static_cast<std::byte*>(t.mutable_raw()));
  return t;
}

Tensor Tensor::cast(DType dtype) const {
  if (dtype == dtype_) return clone();
  Tensor out = empty(dtype, shape_);
  cast_into(out);
  return out;
}

void Tensor::cast_into(Tensor& out) const {
  DS_CHECK(out.shape_ == shape_);
  const bool known = dispatch_dtype(dtype_, [&](auto from_tag) {
    using From = decltype(from_tag);
    const bool target_known = dispatch_dtype(out.dtype_, [&](auto to_tag) {
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
    DS_CHECK(target_known);
  });
  DS_CHECK(known);
}

std::vector<int64_t> Tensor::to_ints() const {
  if (!is_int(dtype_) && dtype_ != DType::kBool) bad_data("expected an integer tensor, got {}", dtype_name(dtype_));
  const Tensor wide = dtype_ == DType::kI64 ? *this : cast(DType::kI64);
  const auto s = wide.span<int64_t>();
  return {s.begin(), s.end()};
}

std::vector<double> Tensor::to_doubles() const {
  std::vector<double> values(static_cast<size_t>(numel_));
  const auto decode = [&](const Tensor& t, auto tag) {
    const auto* bytes = static_cast<const uint8_t*>(t.raw());
    for (size_t i = 0; i < values.size(); ++i) {
      tag.bits = bytes[i];
      values[i] = static_cast<float>(tag);
    }
    return values;
  };
  switch (dtype_) {
    case DType::kF8E4M3FN: return decode(*this, f8e4m3fn());
    case DType::kF8E4M3FNUZ: return decode(*this, f8e4m3fnuz());
    case DType::kF8E5M2: return decode(*this, f8e5m2());
    case DType::kF8E5M2FNUZ: return decode(*this, f8e5m2fnuz());
    case DType::kF8E8M0: return decode(*this, f8e8m0());
    case DType::kF4E2M1: return decode(unpacked(), f4e2m1());
    default: break;
  }
  if (is_packed(dtype_)) return unpacked().to_doubles();
  const Tensor wide = dtype_ == DType::kF64 ? *this : cast(DType::kF64);
  const auto s = wide.span<double>();
  return {s.begin(), s.end()};
}

bool Tensor::equal_bits(const Tensor& other) const {
  if (dtype_ != other.dtype_ || shape_ != other.shape_) return false;
  if (numel_ == 0) return true;
  if (dtype_ == DType::kString) return std::equal(strings().begin(), strings().end(), other.strings().begin());
  if (is_container(dtype_))
    return std::equal(items().begin(), items().end(), other.items().begin(),
                      [](const Tensor& a, const Tensor& b) { return a.equal_bits(b); });
  return std::memcmp(raw(), other.raw(), bytes()) == 0;
}

}  // namespace ds
