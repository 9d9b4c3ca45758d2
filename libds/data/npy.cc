#include "libds/data/npy.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>

#include "libds/base/file.h"

namespace ds {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxRank = 64;

struct Header {
  std::string descr;
  bool fortran = false;
  Shape shape;
};

// The header is a Python dict literal with three keys; nothing else of Python is understood.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  Header parse() {
    Header h;
    bool seen[3] = {};
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr") {
        if (peek() == '[') bad_data("npy: structured element types are not supported");
        h.descr = quoted();
        seen[0] = true;
      } else if (key == "fortran_order") {
        h.fortran = boolean();
        seen[1] = true;
      } else if (key == "shape") {
        h.shape = tuple();
        seen[2] = true;
      } else {
        bad_data("npy: unknown header key '{}'", key);
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (!seen[0] || !seen[1] || !seen[2]) bad_data("npy: header lacks descr, fortran_order or shape");
    return h;
  }

 private:
  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  char peek() {
    skip();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) bad_data("npy: malformed header: expected '{}' at byte {}", c, at_);
  }
  std::string quoted() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') bad_data("npy: malformed header: expected a string at byte {}", at_);
    const size_t end = text_.find(quote, ++at_);
    if (end == std::string_view::npos) bad_data("npy: malformed header: unterminated string");
    std::string s(text_.substr(at_, end - at_));
    at_ = end + 1;
    return s;
  }
  bool boolean() {
    skip();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return value;
      }
    }
    bad_data("npy: malformed header: expected True or False at byte {}", at_);
  }
  Shape tuple() {
    Shape shape;
    expect('(');
    while (!accept(')')) {
      skip();
      int64_t d = 0;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), d);
      if (error != std::errc() || d < 0) bad_data("npy: malformed header: bad dimension at byte {}", at_);
      at_ = static_cast<size_t>(end - text_.data());
      if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2 wrote 3L
      shape.push_back(d);
      if (shape.size() > kMaxRank) bad_data("npy: more than {} dimensions", kMaxRank);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }

  std::string_view text_;
  size_t at_ = 0;
};

// "<f4" to a dtype; sets `swapped` for the other byte order.
DType dtype_of_descr(const std::string& descr, bool& swapped) {
  if (descr.find('O') != std::string::npos) bad_data("npy: pickled objects are not read");
  std::string_view type = descr;
  char order = '=';
  if (!type.empty() && std::string_view("<>|=").find(type[0]) != std::string_view::npos) {
    order = type[0];
    type.remove_prefix(1);
  }
  static constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"b1", DType::kBool}, {"u1", DType::kU8},  {"i1", DType::kI8},  {"u2", DType::kU16},
      {"i2", DType::kI16},  {"u4", DType::kU32}, {"i4", DType::kI32}, {"u8", DType::kU64},
      {"i8", DType::kI64},  {"f2", DType::kF16}, {"f4", DType::kF32}, {"f8", DType::kF64}};
  for (const auto& [name, dtype] : kTypes) {
    if (type != name) continue;
    swapped = order == '>' && dtype_size(dtype) > 1;
    return dtype;
  }
  bad_data("npy: element type '{}' is not supported", descr);
}

const char* descr_of(DType dtype) {
  switch (dtype) {
    case DType::kBool: return "|b1";
    case DType::kU8: return "|u1";
    case DType::kI8: return "|i1";
    case DType::kU16: return "<u2";
    case DType::kI16: return "<i2";
    case DType::kU32: return "<u4";
    case DType::kI32: return "<i4";
    case DType::kU64: return "<u8";
    case DType::kI64: return "<i8";
    case DType::kF16: return "<f2";
    case DType::kF32: return "<f4";
    case DType::kF64: return "<f8";
    default: bad_data("npy: {} tensors cannot be written", dtype_name(dtype));
  }
}

// Fortran order to C order: walks the output in order, stepping through the input by its strides.
void transpose_into(const std::byte* src, std::byte* dst, const Shape& shape, size_t size) {
  const size_t rank = shape.size();
  Shape stride(rank, 1), at(rank, 0);
  for (size_t i = 1; i < rank; ++i) stride[i] = stride[i - 1] * shape[i - 1];
  const int64_t n = checked_numel(shape);
  int64_t from = 0;
  for (int64_t k = 0; k < n; ++k) {
    std::memcpy(dst + static_cast<size_t>(k) * size, src + static_cast<size_t>(from) * size, size);
    for (size_t i = rank; i-- > 0;) {
      from += stride[i];
      if (++at[i] < shape[i]) break;
      from -= stride[i] * shape[i];
      at[i] = 0;
    }
  }
}

}  // namespace

void swap_bytes(void* data, size_t count, size_t size) {
  auto* p = static_cast<std::byte*>(data);
  for (size_t i = 0; i < count; ++i, p += size) std::reverse(p, p + size);
}

bool looks_like_npy(Bytes bytes) {
  return bytes.size() >= kMagic.size() && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
}

Tensor parse_npy(Bytes bytes, std::shared_ptr<const void> owner) {
  if (!looks_like_npy(bytes)) bad_data("npy: not a .npy file");
  if (bytes.size() < 10) bad_data("npy: truncated header");
  const auto byte = [&](size_t i) { return static_cast<size_t>(bytes[i]); };
  const size_t version = byte(6);
  if (version < 1 || version > 3) bad_data("npy: format version {}.{} is not supported", version, byte(7));
  size_t begin = 10, length = byte(8) | byte(9) << 8;
  if (version > 1) {
    if (bytes.size() < 12) bad_data("npy: truncated header");
    begin = 12;
    length |= byte(10) << 16 | byte(11) << 24;
  }
  if (length > bytes.size() - begin) bad_data("npy: truncated header");
  const Header header = HeaderParser({reinterpret_cast<const char*>(bytes.data()) + begin, length}).parse();
  bool swapped = false;
  const DType dtype = dtype_of_descr(header.descr, swapped);
  const size_t size = dtype_size(dtype);
  const int64_t needed = checked_mul(checked_numel(header.shape), static_cast<int64_t>(size));
  const Bytes body = bytes.subspan(begin + length);
  if (body.size() < static_cast<size_t>(needed))
    bad_data("npy: truncated: {} of {} bytes of a {} {} array", body.size(), needed, dtype_name(dtype), shape_string(header.shape));
  if (body.size() > static_cast<size_t>(needed)) bad_data("npy: {} bytes after the array", body.size() - static_cast<size_t>(needed));

  // A byte other than 0 and 1 is no C++ bool; such arrays are copied and set right.
  const bool odd_bools = dtype == DType::kBool && std::any_of(body.begin(), body.end(), [](std::byte b) { return b > std::byte{1}; });
  const bool reorder = header.fortran && header.shape.size() > 1;
  const bool aligned = reinterpret_cast<uintptr_t>(body.data()) % size == 0;
  if (owner && aligned && !swapped && !reorder && !odd_bools)
    return Tensor(dtype, header.shape, Buffer::borrow(body.data(), body.size(), std::move(owner)));

  Tensor out = Tensor::empty(dtype, header.shape);
  auto* dst = static_cast<std::byte*>(out.mutable_raw());
  if (reorder) transpose_into(body.data(), dst, header.shape, size);
  else if (needed > 0) std::memcpy(dst, body.data(), static_cast<size_t>(needed));
  if (swapped) swap_bytes(dst, static_cast<size_t>(out.numel()), size);
  if (odd_bools) std::for_each(dst, dst + needed, [](std::byte& b) { b = b == std::byte{0} ? b : std::byte{1}; });
  return out;
}

Tensor read_npy(const std::string& path) {
  if (path == "-") {
    const auto text = std::make_shared<const std::string>(read_file(path));
    return with_context([] { return "standard input"; }, [&] { return parse_npy(std::as_bytes(std::span(*text)), text); });
  }
  const auto file = MappedFile::open(path);
  return with_context([&] { return path; }, [&] { return parse_npy(file->bytes(), file); });
}

std::string npy_bytes(const Tensor& tensor) {
  DS_CHECK(tensor.defined());
  if (tensor.dtype() == DType::kBF16) return npy_bytes(tensor.cast(DType::kF32));
  std::string shape = fmt::format("{}", fmt::join(tensor.shape(), ", "));
  if (tensor.rank() == 1) shape += ",";
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr_of(tensor.dtype()), shape);
  // The elements begin at a multiple of 64 bytes, as numpy does it.
  header.append(63 - (kMagic.size() + 4 + header.size()) % 64, ' ');
  header.push_back('\n');
  std::string out(kMagic);
  out += std::string_view("\x01\x00", 2);
  out.push_back(static_cast<char>(header.size() & 0xff));
  out.push_back(static_cast<char>(header.size() >> 8));
  out += header;
  if (tensor.bytes() > 0) out.append(static_cast<const char*>(tensor.raw()), tensor.bytes());
  return out;
}

void write_npy(const std::string& path, const Tensor& tensor) { write_file_atomic(path, npy_bytes(tensor)); }

}  // namespace ds
