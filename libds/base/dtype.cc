#include "libds/base/dtype.h"

namespace ds {
namespace {

struct Entry {
  DType dtype;
  size_t bits;  // of one element; 0: an object
  std::string_view name;
  std::string_view long_name;
};

constexpr Entry kEntries[] = {
    {DType::kF32, 32, "f32", "float32"},  {DType::kU8, 8, "u8", "uint8"},     {DType::kI8, 8, "i8", "int8"},
    {DType::kU16, 16, "u16", "uint16"},   {DType::kI16, 16, "i16", "int16"},   {DType::kI32, 32, "i32", "int32"},
    {DType::kI64, 64, "i64", "int64"},    {DType::kString, 0, "string", "str"}, {DType::kBool, 8, "bool", "boolean"},
    {DType::kF16, 16, "f16", "float16"},  {DType::kF64, 64, "f64", "float64"}, {DType::kU32, 32, "u32", "uint32"},
    {DType::kU64, 64, "u64", "uint64"},   {DType::kBF16, 16, "bf16", "bfloat16"},
    {DType::kF8E4M3FN, 8, "f8e4m3fn", "float8e4m3fn"}, {DType::kF8E4M3FNUZ, 8, "f8e4m3fnuz", "float8e4m3fnuz"},
    {DType::kF8E5M2, 8, "f8e5m2", "float8e5m2"},       {DType::kF8E5M2FNUZ, 8, "f8e5m2fnuz", "float8e5m2fnuz"},
    {DType::kF8E8M0, 8, "f8e8m0", "float8e8m0"},       {DType::kF4E2M1, 4, "f4e2m1", "float4e2m1"},
    {DType::kU4, 4, "u4", "uint4"},                    {DType::kI4, 4, "i4", "int4"},
    {DType::kU2, 2, "u2", "uint2"},                    {DType::kI2, 2, "i2", "int2"},
    {DType::kSequence, 0, "sequence", "sequence"},     {DType::kOptional, 0, "optional", "optional"},
};

const Entry* find(DType dtype) {
  for (const Entry& e : kEntries)
    if (e.dtype == dtype) return &e;
  return nullptr;
}

}  // namespace

size_t dtype_bits(DType dtype) {
  const Entry* e = find(dtype);
  return e ? e->bits : 0;
}

size_t dtype_size(DType dtype) { return dtype_bits(dtype) / 8; }

std::string_view dtype_name(DType dtype) {
  const Entry* e = find(dtype);
  return e ? e->name : "undefined";
}

bool dtype_known(int32_t onnx_value) { return find(static_cast<DType>(onnx_value)) != nullptr; }

DType dtype_from_name(std::string_view name) {
  for (const Entry& e : kEntries)
    if (e.name == name || e.long_name == name) return e.dtype;
  return DType::kUndefined;
}

}  // namespace ds
