// Element types. Numeric values are those of onnx.TensorProto.DataType, so that files convert
// without a table; types newer than Debian's schema are listed by number all the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

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
};

// Bytes of one element; 0 for undefined and string.
size_t dtype_size(DType dtype);
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
  else return DType::kUndefined;
}

// Calls `f` with a value of the C++ type behind `dtype`; returns false when there is none in the
// list (string, undefined). `f` is a generic lambda: [&](auto tag) { using T = decltype(tag); ... }
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
