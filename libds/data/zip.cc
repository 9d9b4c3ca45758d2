#include "libds/data/zip.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "libds/base/error.h"

namespace ds {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50, kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50, kLocator64Signature = 0x07064b50;
constexpr uint32_t kFull32 = 0xffffffffu;
constexpr uint16_t kFull16 = 0xffffu, kZip64Field = 1;
constexpr uint16_t kDate = (0 << 9) | (1 << 5) | 1;  // 1980-01-01, the earliest there is

// Little-endian reads with bounds.
class Cursor {
 public:
  Cursor(Bytes bytes, uint64_t at, const char* what) : bytes_(bytes), at_(at), what_(what) {}
  uint64_t at() const { return at_; }
  uint16_t u16() { return static_cast<uint16_t>(number(2)); }
  uint32_t u32() { return static_cast<uint32_t>(number(4)); }
  uint64_t u64() { return number(8); }
  Bytes take(uint64_t n) {
    if (at_ > bytes_.size() || n > bytes_.size() - at_) bad_data("zip archive is truncated in its {}", what_);
    const Bytes piece = bytes_.subspan(at_, n);
    at_ += n;
    return piece;
  }

 private:
  uint64_t number(size_t n) {
    const Bytes piece = take(n);
    uint64_t v = 0;
    for (size_t i = 0; i < n; ++i) v |= static_cast<uint64_t>(piece[i]) << (8 * i);
    return v;
  }
  Bytes bytes_;
  uint64_t at_;
  const char* what_;
};

struct Directory {
  uint64_t offset = 0, count = 0, size = 0;
};

uint32_t peek32(Bytes bytes, size_t at) {
  uint32_t v = 0;
  for (size_t i = 0; i < 4; ++i) v |= static_cast<uint32_t>(bytes[at + i]) << (8 * i);
  return v;
}

Directory find_directory(Bytes archive) {
  constexpr size_t kEndSize = 22;
  if (archive.size() < kEndSize) bad_data("zip archive is truncated");
  // The end record is last, but for a comment of at most 64 KiB.
  const size_t lowest = archive.size() - kEndSize > kFull16 ? archive.size() - kEndSize - kFull16 : 0;
  size_t end = archive.size() - kEndSize;
  while (peek32(archive, end) != kEndSignature) {
    if (end == lowest) bad_data("zip archive has no directory (truncated?)");
    --end;
  }
  Cursor c(archive, end + 4, "end record");
  const uint16_t disk = c.u16(), directory_disk = c.u16();
  Directory d;
  const uint16_t here = c.u16();
  d.count = c.u16();
  d.size = c.u32();
  d.offset = c.u32();
  if ((disk != 0 && disk != kFull16) || (directory_disk != 0 && directory_disk != kFull16) || here != d.count)
    bad_data("zip archives of several disks are not supported");
  constexpr size_t kLocatorSize = 20;
  if (end >= kLocatorSize && peek32(archive, end - kLocatorSize) == kLocator64Signature) {
    Cursor locator(archive, end - kLocatorSize + 8, "locator");
    Cursor record(archive, locator.u64(), "end record");
    if (record.u32() != kEnd64Signature) bad_data("zip archive has a broken ZIP64 end record");
    record.take(8 + 2 + 2 + 4 + 4 + 8);
    d.count = record.u64();
    d.size = record.u64();
    d.offset = record.u64();
  }
  if (d.offset > archive.size() || d.size > archive.size() - d.offset) bad_data("zip directory lies outside the archive");
  if (d.count > d.size / 46) bad_data("zip directory is too small for {} members", d.count);
  return d;
}

void read_zip64(Bytes extra, ZipEntry& entry, uint64_t& local) {
  Cursor c(extra, 0, "extra field");
  while (extra.size() - c.at() >= 4) {
    const uint16_t id = c.u16();
    const Bytes body = c.take(c.u16());
    if (id != kZip64Field) continue;
    Cursor b(body, 0, "ZIP64 field");
    if (entry.size == kFull32) entry.size = b.u64();
    if (entry.compressed == kFull32) entry.compressed = b.u64();
    if (local == kFull32) local = b.u64();
    return;
  }
}

void put(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

}  // namespace

std::vector<ZipEntry> list_zip(Bytes archive) {
  const Directory directory = find_directory(archive);
  Cursor c(archive, directory.offset, "directory");
  std::vector<ZipEntry> entries;
  std::set<std::string> names;
  std::vector<std::pair<uint64_t, uint64_t>> extents;
  for (uint64_t i = 0; i < directory.count; ++i) {
    if (c.u32() != kCentralSignature) bad_data("zip directory is corrupt at member {}", i);
    c.take(2 + 2);  // versions
    const uint16_t flags = c.u16();
    ZipEntry e;
    e.method = c.u16();
    c.take(4);  // time, date
    e.crc = c.u32();
    e.compressed = c.u32();
    e.size = c.u32();
    const uint16_t name_size = c.u16(), extra_size = c.u16(), comment_size = c.u16();
    c.take(2 + 2 + 4);  // disk, attributes
    uint64_t local = c.u32();
    const Bytes name = c.take(name_size);
    e.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
    read_zip64(c.take(extra_size), e, local);
    c.take(comment_size);
    if (flags & 1) bad_data("zip member '{}' is encrypted", e.name);
    if (e.method != 0 && e.method != 8) bad_data("zip member '{}' uses compression method {}, which is not supported", e.name, e.method);
    if (e.method == 0 && e.size != e.compressed) bad_data("zip member '{}': stored size differs from its size", e.name);
    if (e.method == 8 && e.size > max_inflated(e.compressed)) bad_data("zip member '{}': {} bytes cannot hold {} bytes of data", e.name, e.compressed, e.size);
    if (!names.insert(e.name).second) bad_data("zip member '{}' appears twice", e.name);

    Cursor header(archive, local, "member header");
    if (header.u32() != kLocalSignature) bad_data("zip member '{}' has no header", e.name);
    header.take(22);
    const uint16_t local_name = header.u16(), local_extra = header.u16();
    header.take(local_name);
    header.take(local_extra);
    e.data_offset = header.at();
    header.take(e.compressed);
    extents.emplace_back(local, header.at());
    entries.push_back(std::move(e));
  }
  // Members that share bytes are how a small archive expands without limit.
  std::sort(extents.begin(), extents.end());
  for (size_t i = 1; i < extents.size(); ++i)
    if (extents[i].first < extents[i - 1].second) bad_data("zip members overlap");
  return entries;
}

Bytes stored_member(Bytes archive, const ZipEntry& entry) {
  DS_CHECK(entry.method == 0);
  const Bytes content = archive.subspan(entry.data_offset, entry.compressed);
  if (crc32_of(content) != entry.crc) bad_data("zip member '{}' is corrupt (checksum)", entry.name);
  return content;
}

std::string extract_member(Bytes archive, const ZipEntry& entry) {
  if (entry.method == 0) {
    const Bytes content = stored_member(archive, entry);
    return {reinterpret_cast<const char*>(content.data()), content.size()};
  }
  return with_context([&] { return fmt::format("zip member '{}'", entry.name); }, [&] {
    std::string out = inflate_raw(archive.subspan(entry.data_offset, entry.compressed), entry.size);
    if (crc32_of(std::as_bytes(std::span(out))) != entry.crc) bad_data("corrupt (checksum)");
    return out;
  });
}

void ZipWriter::add(std::string_view name, std::string_view content) {
  DS_CHECK(name.size() < kFull16);
  const uint64_t offset = bytes_.size(), size = content.size();
  const bool large = size >= kFull32, far = offset >= kFull32;
  const bool ascii = std::all_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  const uint32_t crc = crc32_of(std::as_bytes(std::span(content)));
  const uint16_t version = large || far ? 45 : 20;
  const auto common = [&](std::string& out, size_t extra) {
    put(out, version, 2);
    put(out, ascii ? 0 : 0x800, 2);  // flags: bit 11 says that the name is UTF-8
    put(out, 0, 2);  // stored
    put(out, 0, 2);  // time
    put(out, kDate, 2);
    put(out, crc, 4);
    put(out, large ? kFull32 : size, 4);
    put(out, large ? kFull32 : size, 4);
    put(out, name.size(), 2);
    put(out, extra, 2);
  };
  put(bytes_, kLocalSignature, 4);
  common(bytes_, large ? 20 : 0);
  bytes_ += name;
  if (large) {
    put(bytes_, kZip64Field, 2);
    put(bytes_, 16, 2);
    put(bytes_, size, 8);
    put(bytes_, size, 8);
  }
  bytes_ += content;

  const size_t body = (large ? 16 : 0) + (far ? 8 : 0);
  put(directory_, kCentralSignature, 4);
  put(directory_, version, 2);
  common(directory_, body > 0 ? body + 4 : 0);
  put(directory_, 0, 2);  // comment
  put(directory_, 0, 2);  // disk
  put(directory_, 0, 2 + 4);  // attributes
  put(directory_, far ? kFull32 : offset, 4);
  directory_ += name;
  if (body > 0) {
    put(directory_, kZip64Field, 2);
    put(directory_, body, 2);
    if (large) put(directory_, size, 8), put(directory_, size, 8);
    if (far) put(directory_, offset, 8);
  }
  ++count_;
}

std::string ZipWriter::finish() {
  const uint64_t offset = bytes_.size(), size = directory_.size();
  bytes_ += directory_;
  const bool large = offset >= kFull32 || size >= kFull32 || count_ >= kFull16;
  if (large) {
    const uint64_t record = bytes_.size();
    put(bytes_, kEnd64Signature, 4);
    put(bytes_, 44, 8);
    put(bytes_, 45, 2);
    put(bytes_, 45, 2);
    put(bytes_, 0, 8);  // disks
    put(bytes_, count_, 8);
    put(bytes_, count_, 8);
    put(bytes_, size, 8);
    put(bytes_, offset, 8);
    put(bytes_, kLocator64Signature, 4);
    put(bytes_, 0, 4);
    put(bytes_, record, 8);
    put(bytes_, 1, 4);
  }
  put(bytes_, kEndSignature, 4);
  put(bytes_, 0, 4);  // disks
  put(bytes_, large ? kFull16 : count_, 2);
  put(bytes_, large ? kFull16 : count_, 2);
  put(bytes_, large ? kFull32 : size, 4);
  put(bytes_, large ? kFull32 : offset, 4);
  put(bytes_, 0, 2);  // comment
  return std::move(bytes_);
}

}  // namespace ds
