#include "libds/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "libds/base/error.h"

namespace ds {
namespace {

// Closes a descriptor on scope exit.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::string read_all(int fd, const std::string& path) {
  std::string out;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ExitCode::kNoInput, "{}: cannot read: {}", path, std::strerror(errno));
    if (n == 0) return out;
    out.append(buffer, static_cast<size_t>(n));
  }
}

void write_all(int fd, std::string_view contents, const std::string& path) {
  while (!contents.empty()) {
    const ssize_t n = ::write(fd, contents.data(), contents.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ExitCode::kIoError, "{}: cannot write: {}", path, std::strerror(errno));
    contents.remove_prefix(static_cast<size_t>(n));
  }
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path) {
  if (path == "-") {
    struct stat info {};
    const bool whole_file = ::fstat(STDIN_FILENO, &info) == 0 && S_ISREG(info.st_mode) && ::lseek(STDIN_FILENO, 0, SEEK_CUR) == 0;
    if (whole_file) return from_descriptor(STDIN_FILENO, "standard input");
    auto read = std::shared_ptr<MappedFile>(new MappedFile());
    read->read_to_end(STDIN_FILENO, "standard input");
    return read;
  }
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) fail(ExitCode::kNoInput, "{}: cannot open: {}", path, std::strerror(errno));
  return from_descriptor(file.fd, path);
}

std::shared_ptr<MappedFile> MappedFile::from_descriptor(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) fail(ExitCode::kNoInput, "{}: not a regular file", path);
  auto mapped = std::shared_ptr<MappedFile>(new MappedFile());
  mapped->size_ = static_cast<size_t>(info.st_size);
  if (mapped->size_ > 0) {
    void* p = ::mmap(nullptr, mapped->size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) fail(ExitCode::kOsError, "{}: cannot map: {}", path, std::strerror(errno));
    mapped->data_ = static_cast<std::byte*>(p);
    mapped->mapped_ = mapped->size_;
  }
  return mapped;
}

// Pages that move when they must grow: nothing is copied, and what is not used yet takes no memory.
void MappedFile::read_to_end(int fd, const std::string& path) {
  constexpr size_t kFirst = 1 << 20;
  own_ = true;
  for (;;) {
    if (size_ == mapped_) {
      const size_t wanted = mapped_ == 0 ? kFirst : 2 * mapped_;
      void* p = mapped_ == 0 ? ::mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                             : ::mremap(data_, mapped_, wanted, MREMAP_MAYMOVE);
      if (p == MAP_FAILED) fail(ExitCode::kOsError, "{}: out of memory after {} bytes", path, size_);
      data_ = static_cast<std::byte*>(p);
      mapped_ = wanted;
    }
    const ssize_t n = ::read(fd, data_ + size_, mapped_ - size_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ExitCode::kNoInput, "{}: cannot read: {}", path, std::strerror(errno));
    if (n == 0) return;
    size_ += static_cast<size_t>(n);
  }
}

void MappedFile::forget(std::string_view bytes) const {
  if (own_ || bytes.empty()) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto last = (reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size()) / page * page;
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);  // clean pages of a file
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, mapped_);
}

std::string read_file(const std::string& path) {
  if (path == "-") return read_all(STDIN_FILENO, "standard input");
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) fail(ExitCode::kNoInput, "{}: cannot open: {}", path, std::strerror(errno));
  return read_all(file.fd, path);
}

FileWriter::FileWriter(std::string path) : path_(std::move(path)) {
  if (path_ == "-") {
    path_ = "standard output";
    fd_ = STDOUT_FILENO;
    owned_ = false;
    return;
  }
  struct stat info {};
  const bool exists = ::stat(path_.c_str(), &info) == 0;
  if (exists && !S_ISREG(info.st_mode)) {  // /dev/null, a pipe: there is nothing to rename over
    if (S_ISDIR(info.st_mode)) fail(ExitCode::kCantCreate, "{}: is a folder", path_);
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) fail(ExitCode::kCantCreate, "{}: cannot open: {}", path_, std::strerror(errno));
    return;
  }
  std::string temporary = path_ + ".XXXXXX";
  fd_ = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd_ < 0) fail(ExitCode::kCantCreate, "{}: cannot create: {}", path_, std::strerror(errno));
  temporary_ = std::move(temporary);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::fchmod(fd_, exists ? info.st_mode & 07777 : 0666 & ~mask);
}

FileWriter::~FileWriter() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  if (owned_ && fd_ >= 0) ::close(fd_);
}

void FileWriter::write(std::string_view bytes) {
  write_all(fd_, bytes, path_);
  written_ += bytes.size();
}

void FileWriter::align(size_t alignment) {
  const size_t missing = (alignment - written_ % alignment) % alignment;
  write(std::string(missing, '\0'));
}

void FileWriter::sync() {
  if (has_folder() && ::fsync(fd_) != 0) fail(ExitCode::kIoError, "{}: cannot write: {}", path_, std::strerror(errno));
}

void FileWriter::commit() {
  if (!has_folder()) return;
  sync();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0)
    fail(ExitCode::kCantCreate, "{}: cannot rename: {}", path_, std::strerror(errno));
  temporary_.clear();
  Descriptor folder{::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (folder.fd >= 0) ::fsync(folder.fd);
}

void write_file_atomic(const std::string& path, std::string_view contents) {
  FileWriter file(path);
  file.write(contents);
  file.commit();
}

void check_writable(const std::string& path) {
  if (path == "-") return;
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) fail(ExitCode::kCantCreate, "{}: is a folder", path);
    if (!S_ISREG(info.st_mode)) return;  // /dev/null, a pipe
  }
  std::string temporary = path + ".XXXXXX";
  Descriptor file{::mkostemp(temporary.data(), O_CLOEXEC)};
  if (file.fd < 0) fail(ExitCode::kCantCreate, "{}: cannot create: {}", path, std::strerror(errno));
  ::unlink(temporary.c_str());
}

bool file_exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

}  // namespace ds
