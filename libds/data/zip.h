// ZIP archives, as far as .npz needs them (APPNOTE 6.3): stored and deflated members, ZIP64.
// Encrypted, multi-disk and otherwise compressed archives are refused. All offsets and sizes are
// checked against the archive, members may not overlap, checksums are verified.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libds/data/inflate.h"

namespace ds {

struct ZipEntry {
  std::string name;
  uint16_t method = 0;  // 0 stored, 8 deflated
  uint32_t crc = 0;
  uint64_t compressed = 0, size = 0;
  uint64_t data_offset = 0;  // of the member's bytes in the archive
};

// Members in the order of the central directory. Throws bad data.
std::vector<ZipEntry> list_zip(Bytes archive);
// Content of a stored member, inside `archive`; its checksum is verified.
Bytes stored_member(Bytes archive, const ZipEntry& entry);
// Content of any member; checksum verified.
std::string extract_member(Bytes archive, const ZipEntry& entry);

// Builds an archive of stored members with fixed dates: equal members give equal bytes.
class ZipWriter {
 public:
  void add(std::string_view name, std::string_view content);
  std::string finish();  // ends the writer's life

 private:
  std::string bytes_;
  std::string directory_;
  uint64_t count_ = 0;
};

}  // namespace ds
