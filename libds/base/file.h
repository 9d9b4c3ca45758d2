// Files: whole reads, read-only mappings, and atomic writes.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace ds {

// Read-only mapping of a whole file. Shared ownership: tensors that point into it keep it alive.
// Throws kNoInput when the file is missing or unreadable, or is a folder. A file in use may be replaced
// (by renaming another over it, as write_file_atomic does) but not overwritten or cut short.
class MappedFile {
 public:
  // "-" is standard input: mapped where it is a file, else read to its end into pages of our own.
  static std::shared_ptr<MappedFile> open(const std::string& path);
  // The same for a file the caller opened (and closes); `path` is for messages.
  static std::shared_ptr<MappedFile> from_descriptor(int fd, const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Lets go of the memory behind bytes nobody needs for now; reading them again brings them back from the
  // file. Does nothing for bytes of our own. Any thread.
  void forget(std::string_view bytes) const;
  // Bytes that may be changed: all when they were read from a pipe, none of a file's.
  std::span<std::byte> own_bytes() { return {data_, own_ ? size_ : 0}; }

 private:
  MappedFile() = default;
  void read_to_end(int fd, const std::string& path);

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;  // bytes of address space
  bool own_ = false;
};

// Reads a whole file; "-" is standard input. Throws kNoInput.
std::string read_file(const std::string& path);

// A file being written: `path` holds the old bytes until commit() and the new ones after it, never a part.
// A temporary file in the same folder, fsync, rename. "-" is standard output; that, devices and pipes are
// written as the bytes come. Throws kCantCreate, kIoError. Without a commit() no trace is left.
class FileWriter {
 public:
  explicit FileWriter(std::string path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(std::string_view bytes);
  // Zero bytes up to a multiple of `alignment` from the start.
  void align(size_t alignment);
  size_t written() const { return written_; }
  // Whether others can be put beside it: a regular file, or none yet.
  bool has_folder() const { return !temporary_.empty(); }
  // Everything is on the disk. What may fail fails here rather than in commit().
  void sync();
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
  bool owned_ = true;
  size_t written_ = 0;
};

// Writes `contents` so that `path` holds either the old or the new bytes, never a part: temporary
// file in the same folder, fsync, rename. "-" writes to standard output. Throws kCantCreate/kIoError.
void write_file_atomic(const std::string& path, std::string_view contents);

// Throws what write_file_atomic() would, before hours of work rather than after them. Leaves no trace.
void check_writable(const std::string& path);

bool file_exists(const std::string& path);

}  // namespace ds
