// Element types. Numeric values are those of onnx.TensorProto.DataType, so that files convert
// without a table; types newer than Debian's schema are listed by number all the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "libds/base/float8.h"
#include "libds/base/half.h"

namespace ds {

enum class DType : int32_t {
  kUndefined = 0,
  kF32 = 1,
  kU8 = 2,
  kI8 = 3,
  kU16 = 4,
  kI16 = 5,
  kI32 = 6,
  kI64 = 7,
  kString = 8,
  kBool = 9,
  kF16 = 10,
  kF64 = 11,
  kU32 = 12,
  kU64 = 13,
  kBF16 = 16,
  kF8E4M3FN = 17,
  kF8E4M3FNUZ = 18,
  kF8E5M2 = 19,
  kF8E5M2FNUZ = 20,
  kU4 = 21,  // packed: two to a byte, the first in the low half
  kI4 = 22,
  kF4E2M1 = 23,
  kF8E8M0 = 24,
  kU2 = 25,  // packed: four to a byte
  kI2 = 26,
  // No element types of ONNX, but the other kinds of value it knows. A sequence is a vector of
  // tensors, an optional a vector of at most one (mem/tensor.h).
  kSequence = 1001,
  kOptional = 1002,
};

// Bytes of one element; 0 where an element is no whole number of plain bytes (packed types, objects).
size_t dtype_size(DType dtype);
// Bits of one element in memory; 0 for objects and undefined.
size_t dtype_bits(DType dtype);
// "f32", "i64", ...
std::string_view dtype_name(DType dtype);
// True for the types this library can hold; false for numbers it does not know.
bool dtype_known(int32_t onnx_value);
// Parses dtype_name() and the usual long forms ("float32"); kUndefined when unknown.
DType dtype_from_name(std::string_view name);

inline bool is_float(DType t) {
  return t == DType::kF32 || t == DType::kF64 || t == DType::kF16 || t == DType::kBF16;
}
inline bool is_signed_int(DType t) {
  return t == DType::kI8 || t == DType::kI16 || t == DType::kI32 || t == DType::kI64;
}
inline bool is_unsigned_int(DType t) {
  return t == DType::kU8 || t == DType::kU16 || t == DType::kU32 || t == DType::kU64;
}
inline bool is_int(DType t) { return is_signed_int(t) || is_unsigned_int(t); }
// 8-bit floats; storage only, like the packed types: Cast and QuantizeLinear make them.
inline bool is_float8(DType t) {
  return (t >= DType::kF8E4M3FN && t <= DType::kF8E5M2FNUZ) || t == DType::kF8E8M0;
}
// Less than a byte each.
inline bool is_packed(DType t) {
  return t == DType::kU4 || t == DType::kI4 || t == DType::kF4E2M1 || t == DType::kU2 || t == DType::kI2;
}
// C++ objects rather than numbers: std::string, Tensor.
inline bool is_object(DType t) { return t == DType::kString || t == DType::kSequence || t == DType::kOptional; }
inline bool is_container(DType t) { return t == DType::kSequence || t == DType::kOptional; }
inline bool is_half(DType t) { return t == DType::kF16 || t == DType::kBF16; }

// dtype_of<float>() == DType::kF32.
template <typename T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::kF32;
  else if constexpr (std::is_same_v<T, double>) return DType::kF64;
  else if constexpr (std::is_same_v<T, f16>) return DType::kF16;
  else if constexpr (std::is_same_v<T, bf16>) return DType::kBF16;
  else if constexpr (std::is_same_v<T, uint8_t>) return DType::kU8;
  else if constexpr (std::is_same_v<T, int8_t>) return DType::kI8;
  else if constexpr (std::is_same_v<T, uint16_t>) return DType::kU16;
  else if constexpr (std::is_same_v<T, int16_t>) return DType::kI16;
  else if constexpr (std::is_same_v<T, uint32_t>) return DType::kU32;
  else if constexpr (std::is_same_v<T, int32_t>) return DType::kI32;
  else if constexpr (std::is_same_v<T, uint64_t>) return DType::kU64;
  else if constexpr (std::is_same_v<T, int64_t>) return DType::kI64;
  else if constexpr (std::is_same_v<T, bool>) return DType::kBool;
  else if constexpr (std::is_same_v<T, std::string>) return DType::kString;
  else if constexpr (std::is_same_v<T, f8e4m3fn>) return DType::kF8E4M3FN;
  else if constexpr (std::is_same_v<T, f8e4m3fnuz>) return DType::kF8E4M3FNUZ;
  else if constexpr (std::is_same_v<T, f8e5m2>) return DType::kF8E5M2;
  else if constexpr (std::is_same_v<T, f8e5m2fnuz>) return DType::kF8E5M2FNUZ;
  else if constexpr (std::is_same_v<T, f8e8m0>) return DType::kF8E8M0;
  else return DType::kUndefined;
}

// Calls `f` with a value of the C++ type behind `dtype`, one that arithmetic can be done with;
// returns false when there is none (objects, packed types, 8-bit floats, undefined). `f` is a generic lambda: [&](auto tag) { using T = decltype(tag); ... }
template <typename F>
bool dispatch_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32: f(float{}); return true;
    case DType::kF64: f(double{}); return true;
    case DType::kF16: f(f16{}); return true;
    case DType::kBF16: f(bf16{}); return true;
    case DType::kU8: f(uint8_t{}); return true;
    case DType::kI8: f(int8_t{}); return true;
    case DType::kU16: f(uint16_t{}); return true;
    case DType::kI16: f(int16_t{}); return true;
    case DType::kU32: f(uint32_t{}); return true;
    case DType::kI32: f(int32_t{}); return true;
    case DType::kU64: f(uint64_t{}); return true;
    case DType::kI64: f(int64_t{}); return true;
    case DType::kBool: f(bool{}); return true;
    default: return false;
  }
}

// The arithmetic subset most float kernels are instantiated for.
template <typename F>
bool dispatch_float(DType dtype, F&& f) {
  if (dtype == DType::kF32) return f(float{}), true;
  if (dtype == DType::kF64) return f(double{}), true;
  return false;
}

}  // namespace ds
