#include "libds/ir/onnx_tensor.h"

#include <bit>
#include <cstring>
#include <limits>

#include "libds/ir/type_text.h"

namespace ds {

static_assert(std::endian::native == std::endian::little, "raw_data is little endian and copied as it is");

namespace {

// Copies one of the typed fields. Each 16-bit or narrower type travels in int32_data; f16 and bf16
// as the bits of the number.
template <typename T, typename Field>
void copy_field(const Field& field, Tensor& out) {
  T* to = out.mutable_data<T>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    const auto x = field.Get(static_cast<int>(i));
    if constexpr (std::is_same_v<T, bool>) {
      to[i] = x != 0;
    } else if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) {
      if (x < 0 || x > 0xffff) bad_data("element {} is {}, which is not a 16-bit pattern", i, x);
      to[i].bits = static_cast<uint16_t>(x);
    } else {
      if constexpr (std::is_integral_v<T> && sizeof(T) < sizeof(x)) {
        if (x < static_cast<decltype(x)>(std::numeric_limits<T>::min()) ||
            x > static_cast<decltype(x)>(std::numeric_limits<T>::max()))
          bad_data("element {} is {}, which does not fit {}", i, x, dtype_name(dtype_of<T>()));
      }
      to[i] = static_cast<T>(x);
    }
  }
}

template <typename Field, typename Copy>
Tensor typed(const Field& field, DType dtype, Shape shape, int64_t numel, Copy copy) {
  if (field.size() != numel)
    bad_data("has {} elements, its shape {} needs {}", field.size(), shape_string(shape), numel);
  Tensor out = Tensor::empty(dtype, std::move(shape), Tier::kParameters);
  copy(field, out);
  return out;
}

// 8-bit floats and packed types: a byte of the tensor's memory in each number.
template <typename Fields>
Tensor from_bytes_in_ints(const Fields& t, DType dtype, Shape shape) {
  if (!is_float8(dtype) && !is_packed(dtype)) fail(ExitCode::kInternal, "no field holds {}", dtype_name(dtype));
  const size_t bytes = Tensor::packed_bytes(dtype, checked_numel(shape));
  const auto& data = t.int32_data();
  if (static_cast<size_t>(data.size()) != bytes)
    bad_data("has {} bytes of data, its shape {} of {} needs {}", data.size(), shape_string(shape), dtype_name(dtype), bytes);
  Tensor out = Tensor::empty(dtype, std::move(shape), Tier::kParameters);
  auto* to = static_cast<uint8_t*>(out.mutable_raw());
  for (size_t i = 0; i < bytes; ++i) {
    const auto x = data.Get(static_cast<int>(i));
    if (x < -128 || x > 255) bad_data("element {} is {}, which is not a byte", i, x);
    to[i] = static_cast<uint8_t>(x);
  }
  return out;
}

Tensor from_strings(const onnx::TensorProto& t, Shape shape, int64_t numel) {
  if (t.string_data_size() != numel)
    bad_data("has {} strings, its shape {} needs {}", t.string_data_size(), shape_string(shape), numel);
  return Tensor::of_strings(std::move(shape), {t.string_data().begin(), t.string_data().end()});
}

// `t`: a message or PayloadFields.
template <typename Fields>
Tensor from_typed_fields(const Fields& t, DType dtype, Shape shape, int64_t numel) {
  const auto copy_as = [](auto tag) {
    using T = decltype(tag);
    return [](const auto& field, Tensor& out) { copy_field<T>(field, out); };
  };
  switch (dtype) {
    case DType::kF32: return typed(t.float_data(), dtype, std::move(shape), numel, copy_as(float{}));
    case DType::kF64: return typed(t.double_data(), dtype, std::move(shape), numel, copy_as(double{}));
    case DType::kI64: return typed(t.int64_data(), dtype, std::move(shape), numel, copy_as(int64_t{}));
    case DType::kU64: return typed(t.uint64_data(), dtype, std::move(shape), numel, copy_as(uint64_t{}));
    case DType::kU32: return typed(t.uint64_data(), dtype, std::move(shape), numel, copy_as(uint32_t{}));
    case DType::kI32: return typed(t.int32_data(), dtype, std::move(shape), numel, copy_as(int32_t{}));
    case DType::kI16: return typed(t.int32_data(), dtype, std::move(shape), numel, copy_as(int16_t{}));
    case DType::kU16: return typed(t.int32_data(), dtype, std::move(shape), numel, copy_as(uint16_t{}));
    case DType::kI8: return typed(t.int32_data(), dtype, std::move(shape), numel, copy_as(int8_t{}));
    case DType::kU8: return typed(t.int32_data(), dtype, std::move(shape), numel, copy_as(uint8_t{}));
    case DType::kBool: return typed(t.int32_data(), dtype, std::move(shape), numel, copy_as(bool{}));
    case DType::kF16: return typed(t.int32_data(), dtype, std::move(shape), numel, copy_as(f16{}));
    case DType::kBF16: return typed(t.int32_data(), dtype, std::move(shape), numel, copy_as(bf16{}));
    default: return from_bytes_in_ints(t, dtype, std::move(shape));
  }
}

// Whether the payload is, byte for byte, a tensor of this type.
bool is_plain(const wire::Payload& payload, DType dtype) {
  return payload.field == wire::Field::kRaw || (payload.field == wire::Field::kFloats && dtype == DType::kF32) ||
         (payload.field == wire::Field::kDoubles && dtype == DType::kF64);
}

Tensor decode(onnx::TensorProto& t, ExternalFiles& files) {
  const DType dtype = dtype_of_number(t.data_type());
  Shape shape(t.dims().begin(), t.dims().end());
  const int64_t numel = checked_numel(shape);
  checked_mul(numel, static_cast<int64_t>(dtype_bits(dtype)));
  const auto bytes = static_cast<int64_t>(Tensor::packed_bytes(dtype, numel));
  if (t.has_segment()) fail(ExitCode::kUnsupported, "segmented tensors are not supported");
  const Payloads* const taken_out = files.payloads();
  const wire::Payload* const payload = taken_out != nullptr ? taken_out->find(t) : nullptr;
  if (dtype == DType::kString) return from_strings(t, std::move(shape), numel);
  Tensor out;
  if (t.data_location() == onnx::TensorProto::EXTERNAL) {
    out = files.read(t, dtype, std::move(shape));
  } else if (payload != nullptr && !is_plain(*payload, dtype)) {
    out = from_typed_fields(PayloadFields(*payload), dtype, std::move(shape), numel);
  } else if (t.has_raw_data()) {
    const std::string_view data = payload != nullptr ? payload->bytes : t.raw_data();
    if (static_cast<int64_t>(data.size()) != bytes)
      bad_data("has {} bytes of data, its shape {} of {} needs {}", data.size(), shape_string(shape), dtype_name(dtype), bytes);
    out = tensor_in_place(data, payload != nullptr ? taken_out->file() : nullptr, dtype, std::move(shape));
  } else {
    out = from_typed_fields(t, dtype, std::move(shape), numel);
  }
  delete t.release_raw_data();
  t.clear_float_data();
  t.clear_int32_data();
  t.clear_int64_data();
  t.clear_double_data();
  t.clear_uint64_data();
  return out;
}

}  // namespace

Tensor tensor_from_onnx(onnx::TensorProto& tensor, ExternalFiles& files) {
  try {
    return decode(tensor, files);
  } catch (Error& error) {
    error.prepend(tensor.name().empty() ? "tensor" : fmt::format("tensor '{}'", tensor.name()));
    throw;
  }
}

void type_to_onnx(const Tensor& tensor, onnx::TensorProto& proto) {
  proto.set_data_type(static_cast<int32_t>(tensor.dtype()));
  proto.clear_dims();
  for (int64_t d : tensor.shape()) proto.add_dims(d);
}

void tensor_to_onnx(const Tensor& tensor, onnx::TensorProto& proto) {
  type_to_onnx(tensor, proto);
  if (tensor.dtype() == DType::kString) {
    for (const std::string& s : tensor.strings()) proto.add_string_data(s);
    return;
  }
  DS_CHECK(!is_object(tensor.dtype()));
  proto.set_raw_data(tensor.numel() > 0 ? std::string(static_cast<const char*>(tensor.raw()), tensor.bytes())
                                        : std::string());
}

}  // namespace ds
