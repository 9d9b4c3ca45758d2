// External tensor data: opening files that a model names without letting it name just any file.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "libds/ir/onnx_tensor.h"

namespace ds {
namespace {

struct Descriptor {
  int fd = -1;
  explicit Descriptor(int fd) : fd(fd) {}
  ~Descriptor() { reset(-1); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  void reset(int next) {
    if (fd >= 0) ::close(fd);
    fd = next;
  }
};

std::vector<std::string> components(const std::string& location) {
  if (location.empty()) bad_data("external data has no location");
  if (location.find('\0') != std::string::npos || location.front() == '/')
    bad_data("external data '{}' is not a relative path", location);
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= location.size();) {
    const size_t end = std::min(location.find('/', begin), location.size());
    std::string part = location.substr(begin, end - begin);
    if (part == "..") bad_data("external data '{}' leaves the model's folder", location);
    if (!part.empty() && part != ".") parts.push_back(std::move(part));
    begin = end + 1;
  }
  if (parts.empty()) bad_data("external data '{}' names no file", location);
  return parts;
}

[[noreturn]] void cannot_open(const std::string& location) {
  if (errno == ELOOP || errno == ENOTDIR) bad_data("external data '{}' is reached through a symbolic link", location);
  fail(ExitCode::kNoInput, "external data '{}': cannot open: {}", location, std::strerror(errno));
}

int64_t parse_number(const std::string& text, std::string_view key) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    bad_data("external data has {} '{}', expected a number of bytes", key, text);
  return value;
}

}  // namespace

std::shared_ptr<const MappedFile> ExternalFiles::open(const std::string& location) {
  const auto found = open_.find(location);
  if (found != open_.end()) return found->second.file;
  const std::vector<std::string> parts = components(location);
  // Step by step from the model's own folder, following no link: what is checked is what is opened.
  Descriptor at(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (at.fd < 0) cannot_open(location);
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const int next = ::openat(at.fd, parts[i].c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (next < 0) cannot_open(location);
    at.reset(next);
  }
  Descriptor file(::openat(at.fd, parts.back().c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (file.fd < 0) cannot_open(location);
  struct stat info {};
  if (::fstat(file.fd, &info) != 0 || !S_ISREG(info.st_mode)) bad_data("external data '{}' is not a regular file", location);
  if (info.st_nlink != 1) bad_data("external data '{}' has other hard links, so it may lie outside the folder", location);
  return open_[location].file = MappedFile::from_descriptor(file.fd, location);
}

Tensor ExternalFiles::read(const onnx::TensorProto& tensor, DType dtype, Shape shape) {
  if (folder_.empty()) fail(ExitCode::kUnsupported, "external data needs a model that is a file on disk");
  std::string location;
  int64_t offset = 0;
  if (dtype == DType::kString) bad_data("strings cannot be external data");
  checked_mul(checked_numel(shape), static_cast<int64_t>(dtype_bits(dtype)));
  const auto needed = static_cast<int64_t>(Tensor::packed_bytes(dtype, checked_numel(shape)));
  int64_t length = needed;
  for (const auto& entry : tensor.external_data()) {
    if (entry.key() == "location") location = entry.value();
    else if (entry.key() == "offset") offset = parse_number(entry.value(), "offset");
    else if (entry.key() == "length") length = parse_number(entry.value(), "length");
  }
  const std::shared_ptr<const MappedFile> file = open(location);
  const auto size = static_cast<int64_t>(file->bytes().size());
  if (length != needed) bad_data("external data is {} bytes, its shape {} of {} needs {}", length, shape_string(shape), dtype_name(dtype), needed);
  if (checked_add(offset, length) > size)
    bad_data("external data '{}' ends at byte {}, bytes {} to {} are asked for", location, size, offset, offset + length);
  ++open_[location].tensors;
  const auto* data = reinterpret_cast<const char*>(file->bytes().data());
  return tensor_in_place({data == nullptr ? nullptr : data + offset, static_cast<size_t>(needed)}, file, dtype, std::move(shape));
}

std::vector<ExternalFile> ExternalFiles::used() const {
  std::vector<ExternalFile> list;
  for (const auto& [location, opened] : open_)
    if (opened.tensors > 0) list.push_back({location, static_cast<int64_t>(opened.file->bytes().size()), opened.tensors});
  return list;
}

}  // namespace ds
