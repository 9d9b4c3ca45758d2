// Tensor: dtype + concrete shape over a shared, contiguous, row-major buffer.
//
// Copying a Tensor copies the handle, not the elements. A Tensor does not own threads or devices;
// all of this is host memory. Buffers are 64-byte aligned unless they point into a mapped file; then they
// are aligned to their elements, which is all that kernels may count on.
// An undefined Tensor (default-constructed) stands for an omitted optional input.
//
// Packed types (4 and 2 bits) fill bytes from the low bits up, over the flattened tensor, as in ONNX
// files. Object types hold C++ objects instead of numbers: kString tensors std::string; a sequence is
// a rank-1 kSequence tensor of Tensor; an optional a kOptional one with no element or one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "libds/base/checked.h"
#include "libds/base/dtype.h"
#include "libds/mem/tier.h"

namespace ds {

using Shape = std::vector<int64_t>;

// "1x3x224x224"; "scalar" for rank 0.
std::string shape_string(std::span<const int64_t> shape);

class Deferral;

// A piece of memory charged to a tier, or a borrowed one kept alive by `owner`, or a deferred one.
class Buffer {
 public:
  static std::shared_ptr<Buffer> allocate(size_t bytes, Tier tier);
  static std::shared_ptr<Buffer> borrow(const void* data, size_t bytes, std::shared_ptr<const void> owner);
  // Memory that `fill` writes when its content is first asked for; address space only until then. For
  // weights that can be had again at any time (from a mapped file, from other weights): whoever needs
  // them once, as kernels that pack them do, asks through Tensor::transient() and keeps nothing. `fill`
  // must give the same bytes every time and may run in any thread. What it throws leaves the access.
  using Fill = std::function<void(std::byte*)>;
  static std::shared_ptr<Buffer> deferred(size_t bytes, Fill fill);
  // `count` default-constructed objects of an object dtype (Tensor::empty calls it).
  static std::shared_ptr<Buffer> of_objects(DType dtype, size_t count);
  // The borrowed memory can be had again from a file: `forget` lets go of it for now.
  void set_forget(std::function<void()> forget) { forget_ = std::move(forget); }
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

  // Makes the content of a deferred buffer, once. Tensors do so on every access.
  void settle() const {
    if (deferral_ != nullptr) settle_deferred();
  }
  // Whether the content of a deferred buffer is still to be made.
  bool pending() const;
  // The same content for one use: `buffer` itself; or where it is pending a copy, and where it can be had
  // again a view that lets go of the memory in the end.
  static std::shared_ptr<Buffer> transient(const std::shared_ptr<Buffer>& buffer);

 private:
  Buffer() = default;
  void settle_deferred() const;

  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  Tier tier_ = Tier::kHost;
  std::shared_ptr<const void> owner_;  // set for borrowed and deferred memory
  Deferral* deferral_ = nullptr;       // owner_, when it is one
  std::function<void()> forget_;
};

class Tensor {
 public:
  Tensor() = default;
  // View of `buffer` from `offset` bytes on; the buffer must hold the whole shape.
  Tensor(DType dtype, Shape shape, std::shared_ptr<Buffer> buffer, size_t offset = 0);

  static Tensor empty(DType dtype, Shape shape, Tier tier = Tier::kHost);  // not initialised
  static Tensor zeros(DType dtype, Shape shape, Tier tier = Tier::kHost);
  // Content that `fill` writes when it is needed (Buffer::deferred); small tensors are filled at once.
  static Tensor deferred(DType dtype, Shape shape, Buffer::Fill fill);
  // Wraps memory of the caller, who keeps it alive.
  static Tensor wrap(DType dtype, Shape shape, void* data);
  template <typename T>
  static Tensor of(Shape shape, std::span<const T> values);
  template <typename T>
  static Tensor of(Shape shape, std::initializer_list<T> values) {
    return of(std::move(shape), std::span<const T>(values.begin(), values.size()));
  }
  static Tensor of_strings(Shape shape, std::vector<std::string> values);
  static Tensor sequence(std::vector<Tensor> items);
  static Tensor optional_of(Tensor item);  // an undefined `item`: the empty optional
  template <typename T>
  static Tensor scalar(T value) { return of<T>(Shape{}, std::span<const T>(&value, 1)); }
  template <typename T>
  static Tensor vector(std::span<const T> values) { return of<T>(Shape{static_cast<int64_t>(values.size())}, values); }

  bool defined() const { return dtype_ != DType::kUndefined; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
  int64_t dim(int64_t i) const { return shape_[static_cast<size_t>(i < 0 ? i + rank() : i)]; }
  int64_t numel() const { return numel_; }
  size_t bytes() const { return packed_bytes(dtype_, numel_); }
  // Bytes that `numel` elements take; 0 for objects.
  static size_t packed_bytes(DType dtype, int64_t numel) { return (static_cast<size_t>(numel) * dtype_bits(dtype) + 7) / 8; }

  const void* raw() const { return mutable_raw(); }
  void* mutable_raw() const {
    if (buffer_ != nullptr) buffer_->settle();
    return data_;
  }
  template <typename T>
  const T* data() const {
    DS_CHECK(dtype_of<T>() == dtype_);
    return static_cast<const T*>(raw());
  }
  template <typename T>
  T* mutable_data() const {
    DS_CHECK(dtype_of<T>() == dtype_);
    return static_cast<T*>(mutable_raw());
  }
  template <typename T>
  std::span<const T> span() const { return {data<T>(), static_cast<size_t>(numel_)}; }
  // Elements of a kString tensor.
  std::span<std::string> strings() const { return {mutable_data<std::string>(), static_cast<size_t>(numel_)}; }
  // Elements of a sequence or an optional.
  std::span<Tensor> items() const {
    DS_CHECK(is_container(dtype_));
    return {reinterpret_cast<Tensor*>(data_), static_cast<size_t>(numel_)};
  }

  // Same elements under another shape of equal size.
  Tensor reshaped(Shape shape) const;
  // Rows [begin, end) of the first axis, sharing the buffer.
  Tensor rows(int64_t begin, int64_t end) const;
  Tensor clone(Tier tier = Tier::kHost) const;
  // For who reads a tensor once and lets go (packing, saving, counting): the same tensor, whose memory goes
  // with the result where it can be had again (deferred and not made yet, or a file's).
  Tensor transient() const;
  // Element-wise conversion (C++ conversion rules; floats to integers truncate).
  Tensor cast(DType dtype) const;
  void cast_into(Tensor& to) const;  // of the same shape, and not this tensor
  // Packed integers one to a byte (i8, u8; float4 as its bits, u8), and back. unpacked() of other
  // types is the tensor itself; pack_as() takes what unpacked() gives.
  Tensor unpacked() const;
  Tensor pack_as(DType dtype) const;
  // Content as 64-bit integers; integer and bool tensors only.
  std::vector<int64_t> to_ints() const;
  // Content as doubles, any numeric dtype, those for storage included.
  std::vector<double> to_doubles() const;
  // Same dtype, shape and bytes (objects: equal strings, items that are equal_bits).
  bool equal_bits(const Tensor& other) const;

  const std::shared_ptr<Buffer>& buffer() const { return buffer_; }

 private:
  DType dtype_ = DType::kUndefined;
  Shape shape_;
  int64_t numel_ = 0;
  std::byte* data_ = nullptr;
  std::shared_ptr<Buffer> buffer_;
};

template <typename T>
Tensor Tensor::of(Shape shape, std::span<const T> values) {
  Tensor t = empty(dtype_of<T>(), std::move(shape));
  DS_CHECK(static_cast<int64_t>(values.size()) == t.numel());
  T* out = t.mutable_data<T>();
  for (size_t i = 0; i < values.size(); ++i) out[i] = values[i];
  return t;
}

}  // namespace ds
