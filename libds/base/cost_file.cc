#include "libds/base/cost_file.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "libds/base/cpu_vendor.h"
#include "libds/base/error.h"
#include "libds/base/file.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSchema = "ds-costs/1";
constexpr const char* kAgain = "measure anew with ds-bench calibrate";

double amount(const Json& j) {
  const double x = j.get<double>();
  if (!std::isfinite(x) || x < 0) bad_data("{} is no rate", x);
  return x;
}

Isa level_named(const std::string& name) {
  for (int i = 0; i < kIsaLevels; ++i)
    if (isa_name(static_cast<Isa>(i)) == name) return static_cast<Isa>(i);
  bad_data("'{}' is no level of instructions", name);
}

CostTable table_of(const Json& j) {
  CostTable t;
  t.version = j.at("version").get<std::string>();
  t.date = j.at("date").get<std::string>();
  t.cpu = j.at("cpu").get<std::string>();
  t.isa = level_named(j.at("isa").get<std::string>());
  t.threads = j.at("threads").get<int>();
  t.bandwidth = amount(j.at("bandwidth"));
  for (DType dtype : kCostTypes)
    for (const auto& [level, rate] : j.at("rates").at(std::string(dtype_name(dtype))).items()) t.rate(dtype, level_named(level)) = amount(rate);
  return t;
}

}  // namespace

std::string default_cost_file() {
  const auto folder = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr && *value == '/' ? value : "");  // relative ones shall be ignored (XDG)
  };
  if (const std::string cache = folder("XDG_CACHE_HOME"); !cache.empty()) return cache + "/ds/costs.json";
  const std::string home = folder("HOME");
  return home.empty() ? "" : home + "/.cache/ds/costs.json";
}

std::string make_default_cost_folder() {
  const std::string path = default_cost_file();
  if (path.empty()) fail(ExitCode::kUsage, "no home folder to keep costs.json in; name a file by --output");
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(ExitCode::kCantCreate, "{}: {}", folder.string(), error.message());
  return path;
}

std::string cost_file_text(const CostTable& t) {
  Json j;
  j["schema"] = kSchema;
  j["version"] = t.version;
  j["date"] = t.date;
  j["cpu"] = t.cpu;
  j["isa"] = isa_name(t.isa);
  j["threads"] = t.threads;
  for (DType dtype : kCostTypes) {
    Json& row = j["rates"][std::string(dtype_name(dtype))] = Json::object();
    for (int i = 0; i <= static_cast<int>(t.isa); ++i) row[std::string(isa_name(static_cast<Isa>(i)))] = t.rate(dtype, static_cast<Isa>(i));
  }
  j["bandwidth"] = t.bandwidth;
  j["hash"] = t.hash();
  return j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::shared_ptr<const CostTable> read_cost_file(const std::string& path) {
  const std::string text = read_file(path);
  return with_context([&] { return path; }, [&] {
    const Json j = Json::parse(text, nullptr, false);
    if (j.is_discarded() || !j.is_object() || !j.contains("schema") || j["schema"] != kSchema)
      bad_data("no table of costs ({}); ds-bench calibrate writes one", kSchema);
    auto table = std::make_shared<CostTable>();
    std::string hash;
    try {
      *table = table_of(j);
      hash = j.at("hash").get<std::string>();
    } catch (const nlohmann::json::exception&) {
      bad_data("a part of the table is missing or of the wrong type; {}", kAgain);
    }
    if (table->hash() != hash) bad_data("changed or damaged since it was written; {}", kAgain);
    if (table->cpu != cpu_model()) bad_data("measured on '{}', this is '{}'; {}", table->cpu, cpu_model(), kAgain);
    if (table->version != DS_VERSION) bad_data("measured with ds {}, this is {}; {}", table->version, DS_VERSION, kAgain);
    table->file = path;
    return std::shared_ptr<const CostTable>(std::move(table));
  });
}

std::shared_ptr<const CostTable> named_costs(const std::string& path) {
  if (!path.empty()) return read_cost_file(path);
  const char* named = std::getenv("DS_COSTS");
  return named != nullptr && *named != '\0' ? read_cost_file(named) : nullptr;
}

}  // namespace ds
