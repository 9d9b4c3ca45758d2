#include "libds/data/npz.h"

#include "libds/base/file.h"
#include "libds/data/zip.h"

namespace ds {

bool looks_like_zip(Bytes bytes) {
  const auto at = [&](size_t i) { return static_cast<char>(bytes[i]); };
  // "PK\3\4" a member, "PK\5\6" the end record of an empty archive
  return bytes.size() >= 4 && at(0) == 'P' && at(1) == 'K' && ((at(2) == 3 && at(3) == 4) || (at(2) == 5 && at(3) == 6));
}

NamedTensors parse_npz(Bytes bytes, std::shared_ptr<const void> owner) {
  if (!looks_like_zip(bytes)) bad_data("npz: not a .npz file");
  constexpr std::string_view kSuffix = ".npy";
  NamedTensors arrays;
  for (const ZipEntry& entry : list_zip(bytes)) {
    std::string name = entry.name;
    if (name.size() > kSuffix.size() && name.ends_with(kSuffix)) name.resize(name.size() - kSuffix.size());
    Tensor tensor = with_context([&] { return fmt::format("array '{}'", name); }, [&] {
      if (entry.method == 0) return parse_npy(stored_member(bytes, entry), owner);
      const auto content = std::make_shared<const std::string>(extract_member(bytes, entry));
      return parse_npy(std::as_bytes(std::span(*content)), content);
    });
    arrays.emplace_back(std::move(name), std::move(tensor));
  }
  return arrays;
}

NamedTensors read_npz(const std::string& path) {
  if (path == "-") {
    const auto text = std::make_shared<const std::string>(read_file(path));
    return with_context([] { return "standard input"; }, [&] { return parse_npz(std::as_bytes(std::span(*text)), text); });
  }
  const auto file = MappedFile::open(path);
  return with_context([&] { return path; }, [&] { return parse_npz(file->bytes(), file); });
}

std::string npz_bytes(const NamedTensors& arrays) {
  ZipWriter zip;
  for (const auto& [name, tensor] : arrays) zip.add(name + ".npy", npy_bytes(tensor));
  return zip.finish();
}

void write_npz(const std::string& path, const NamedTensors& arrays) { write_file_atomic(path, npz_bytes(arrays)); }

}  // namespace ds
