#include "libds/base/dtype.h"

namespace ds {
namespace {

struct Entry {
  DType dtype;
  size_t size;
  std::string_view name;
  std::string_view long_name;
};

constexpr Entry kEntries[] = {
    {DType::kF32, 4, "f32", "float32"},  {DType::kU8, 1, "u8", "uint8"},     {DType::kI8, 1, "i8", "int8"},
    {DType::kU16, 2, "u16", "uint16"},   {DType::kI16, 2, "i16", "int16"},   {DType::kI32, 4, "i32", "int32"},
    {DType::kI64, 8, "i64", "int64"},    {DType::kString, 0, "string", "str"}, {DType::kBool, 1, "bool", "boolean"},
    {DType::kF16, 2, "f16", "float16"},  {DType::kF64, 8, "f64", "float64"}, {DType::kU32, 4, "u32", "uint32"},
    {DType::kU64, 8, "u64", "uint64"},   {DType::kBF16, 2, "bf16", "bfloat16"},
};

const Entry* find(DType dtype) {
  for (const Entry& e : kEntries)
    if (e.dtype == dtype) return &e;
  return nullptr;
}

}  // namespace

size_t dtype_size(DType dtype) {
  const Entry* e = find(dtype);
  return e ? e->size : 0;
}

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
