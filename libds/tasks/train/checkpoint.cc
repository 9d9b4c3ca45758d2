#include "libds/tasks/train/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "libds/base/file.h"
#include "libds/base/log.h"

namespace ds {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMeta = "__checkpoint__", kNumbers = "__numbers__";
constexpr std::string_view kPrefix = "step-", kSuffix = ".ckpt";
constexpr int64_t kFormat = 1;

bool is_checkpoint(const std::string& name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return false;
  const std::string digits = name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size());
  return digits.size() == 12 && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// "step-000000000012.ckpt.Ab3dEf", left by a run that was killed while writing.
bool is_leftover(const std::string& name) {
  constexpr size_t kRandom = 7;
  return name.size() > kRandom && name[name.size() - kRandom] == '.' && is_checkpoint(name.substr(0, name.size() - kRandom));
}

// Names of the folder's checkpoints, newest first.
std::vector<std::string> list_checkpoints(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (is_checkpoint(name)) names.push_back(name);
  }
  if (ec && fs::exists(folder)) fail(ExitCode::kNoInput, "{}: cannot list: {}", folder, ec.message());
  std::sort(names.rbegin(), names.rend());
  return names;
}

Tensor bits_of(const Tensor& t) {
  if (t.dtype() != DType::kBF16) return t;
  return Tensor(DType::kU16, t.shape(), Buffer::borrow(t.raw(), t.bytes(), t.buffer()));
}

}  // namespace

std::string save_checkpoint(const std::string& folder, const Checkpoint& checkpoint, int keep) {
  std::error_code ec;
  fs::create_directories(folder, ec);
  if (ec) fail(ExitCode::kCantCreate, "{}: cannot create: {}", folder, ec.message());

  nlohmann::ordered_json meta;
  meta["format"] = kFormat;
  meta["step"] = checkpoint.step;
  meta["epoch"] = checkpoint.epoch;
  meta["seed"] = checkpoint.seed;
  meta["fingerprint"] = checkpoint.fingerprint;
  meta["numbers"] = nlohmann::ordered_json::array();
  meta["bf16"] = nlohmann::ordered_json::array();
  std::vector<double> numbers;  // as an array: JSON has no infinities
  for (const auto& [name, value] : checkpoint.numbers) {
    meta["numbers"].push_back(name);
    numbers.push_back(value);
  }
  NamedTensors arrays;
  for (const auto& [name, tensor] : checkpoint.states) {
    if (tensor.dtype() == DType::kBF16) meta["bf16"].push_back(name);
    arrays.emplace_back(name, bits_of(tensor));
  }
  const std::string text = meta.dump();
  arrays.emplace_back(kMeta, Tensor::vector<uint8_t>({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  arrays.emplace_back(kNumbers, Tensor::vector<double>(numbers));
  const std::string path = (fs::path(folder) / fmt::format("{}{:012d}{}", kPrefix, checkpoint.step, kSuffix)).string();
  write_npz(path, arrays);

  const std::vector<std::string> names = list_checkpoints(folder);
  for (size_t i = static_cast<size_t>(std::max(keep, 1)); i < names.size(); ++i) fs::remove(fs::path(folder) / names[i], ec);
  std::vector<fs::path> leftovers;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
    if (is_leftover(it->path().filename().string())) leftovers.push_back(it->path());
  for (const fs::path& leftover : leftovers) fs::remove(leftover, ec);
  return path;
}

Checkpoint load_checkpoint(const std::string& path) {
  NamedTensors arrays = read_npz(path);
  return with_context([&] { return path; }, [&] {
    const auto take = [&](std::string_view name, DType dtype) {
      for (auto it = arrays.begin(); it != arrays.end(); ++it) {
        if (it->first != name) continue;
        Tensor t = it->second;
        arrays.erase(it);
        if (t.dtype() != dtype || t.rank() != 1) bad_data("checkpoint: array '{}' has the wrong type", name);
        return t;
      }
      bad_data("not a checkpoint: no array '{}'", name);
    };
    const Tensor text = take(kMeta, DType::kU8);
    const Tensor numbers = take(kNumbers, DType::kF64);
    Checkpoint c;
    try {
      const auto* begin = reinterpret_cast<const char*>(text.data<uint8_t>());
      const auto meta = nlohmann::json::parse(begin, begin + text.numel());
      if (meta.at("format").get<int64_t>() != kFormat) bad_data("checkpoint: format {} is not known", meta.at("format").dump());
      c.step = meta.at("step").get<int64_t>();
      c.epoch = meta.at("epoch").get<int64_t>();
      c.seed = meta.at("seed").get<uint64_t>();
      c.fingerprint = meta.at("fingerprint").get<std::string>();
      const auto names = meta.at("numbers").get<std::vector<std::string>>();
      if (static_cast<int64_t>(names.size()) != numbers.numel()) bad_data("checkpoint: {} names for {} numbers", names.size(), numbers.numel());
      for (size_t i = 0; i < names.size(); ++i) c.numbers[names[i]] = numbers.data<double>()[i];
      for (const auto& name : meta.at("bf16").get<std::vector<std::string>>())
        for (auto& [key, tensor] : arrays)
          if (key == name && tensor.dtype() == DType::kU16)
            tensor = Tensor(DType::kBF16, tensor.shape(), Buffer::borrow(tensor.raw(), tensor.bytes(), tensor.buffer()));
    } catch (const nlohmann::json::exception& e) {
      bad_data("checkpoint: malformed description");
    }
    c.states = std::move(arrays);
    return c;
  });
}

std::optional<Checkpoint> latest_checkpoint(const std::string& folder, const std::string& fingerprint) {
  for (const std::string& name : list_checkpoints(folder)) {
    const std::string path = (fs::path(folder) / name).string();
    std::optional<Checkpoint> c;
    try {
      c = load_checkpoint(path);
    } catch (const Error& e) {
      warn("skipping damaged checkpoint {}", e.what());
      continue;
    }
    if (c->fingerprint != fingerprint)
      fail(ExitCode::kUsage, "{}: made by a training with another model, data or options; use another --checkpoint-dir", path);
    return c;
  }
  return std::nullopt;
}

}  // namespace ds
