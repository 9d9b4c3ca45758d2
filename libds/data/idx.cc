#include "libds/data/idx.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "libds/base/file.h"
#include "libds/data/npy.h"

namespace ds {
namespace {

DType dtype_of_code(int code) {
  switch (code) {
    case 0x08: return DType::kU8;
    case 0x09: return DType::kI8;
    case 0x0B: return DType::kI16;
    case 0x0C: return DType::kI32;
    case 0x0D: return DType::kF32;
    case 0x0E: return DType::kF64;
    default: bad_data("idx: unknown element type 0x{:02x}", code);
  }
}

// `read(dst, n)` gives up to n bytes; `most` bounds what the source can hold in all.
Tensor decode(const std::function<size_t(void*, size_t)>& read, uint64_t most) {
  uint8_t head[4];
  if (read(head, 4) != 4) bad_data("idx: truncated header");
  if (head[0] != 0 || head[1] != 0) bad_data("idx: not an IDX file");
  const DType dtype = dtype_of_code(head[2]);
  const size_t rank = head[3];
  if (rank == 0 || rank > 16) bad_data("idx: {} dimensions", rank);
  Shape shape;
  for (size_t i = 0; i < rank; ++i) {
    uint8_t d[4];
    if (read(d, 4) != 4) bad_data("idx: truncated header");
    shape.push_back(static_cast<int64_t>(uint32_t{d[0]} << 24 | uint32_t{d[1]} << 16 | uint32_t{d[2]} << 8 | d[3]));
  }
  const size_t size = dtype_size(dtype);
  const int64_t bytes = checked_mul(checked_numel(shape), static_cast<int64_t>(size));
  if (static_cast<uint64_t>(bytes) > most) bad_data("idx: truncated: the file cannot hold {} bytes of a {} array", bytes, shape_string(shape));
  Tensor out = Tensor::empty(dtype, shape);
  const size_t got = read(out.mutable_raw(), static_cast<size_t>(bytes));
  if (got != static_cast<size_t>(bytes)) bad_data("idx: truncated: {} of {} bytes of a {} array", got, bytes, shape_string(shape));
  char beyond;
  if (read(&beyond, 1) != 0) bad_data("idx: more data than a {} array", shape_string(shape));
  if (size > 1) swap_bytes(out.mutable_raw(), static_cast<size_t>(out.numel()), size);
  return out;
}

}  // namespace

bool looks_like_gzip(Bytes bytes) { return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b}; }

bool looks_like_idx(Bytes bytes) {
  if (bytes.size() < 4 || bytes[0] != std::byte{0} || bytes[1] != std::byte{0}) return false;
  const auto type = static_cast<int>(bytes[2]);
  return type >= 0x08 && type <= 0x0E;
}

Tensor parse_idx(Bytes bytes) {
  if (looks_like_gzip(bytes)) {
    GzipReader reader(bytes);
    return decode([&](void* dst, size_t n) { return reader.read(dst, n); }, max_inflated(bytes.size()));
  }
  size_t at = 0;
  return decode(
      [&](void* dst, size_t n) {
        const size_t take = std::min(n, bytes.size() - at);
        if (take > 0) std::memcpy(dst, bytes.data() + at, take);
        at += take;
        return take;
      },
      bytes.size());
}

Tensor read_idx(const std::string& path) {
  if (path == "-") {
    const std::string text = read_file(path);
    return with_context([] { return "standard input"; }, [&] { return parse_idx(std::as_bytes(std::span(text))); });
  }
  const auto file = MappedFile::open(path);
  return with_context([&] { return path; }, [&] { return parse_idx(file->bytes()); });
}

}  // namespace ds
