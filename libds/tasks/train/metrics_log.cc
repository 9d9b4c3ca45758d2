#include "libds/tasks/train/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "libds/base/error.h"
#include "libds/base/file.h"

namespace ds {
namespace {

// Lines of an earlier run up to `step`; later ones belong to work that is done again.
std::string kept_lines(const std::string& path, int64_t step) {
  const std::string text = read_file(path);
  std::string kept;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos) break;  // the run was killed while writing
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object()) continue;
    const auto found = json.find("step");
    if (found != json.end() && found->is_number_integer() && found->get<int64_t>() > step) continue;
    kept += line + "\n";
  }
  return kept;
}

}  // namespace

std::string metrics_line(const MetricFields& fields) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, value] : fields) {
    if (const double* x = std::get_if<double>(&value); x != nullptr && !std::isfinite(*x)) json[name] = nullptr;
    else std::visit([&, &key = name](const auto& v) { json[key] = v; }, value);
  }
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

MetricsLog::MetricsLog(const std::string& path, std::optional<int64_t> resumed_step) : path_(path) {
  if (path.empty()) return;
  if (path == "-") {
    fd_ = ::dup(STDOUT_FILENO);
  } else {
    if (resumed_step && file_exists(path)) write_file_atomic(path, kept_lines(path, *resumed_step));
    fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (resumed_step ? 0 : O_TRUNC), 0666);
  }
  if (fd_ < 0) fail(ExitCode::kCantCreate, "{}: cannot create: {}", path, std::strerror(errno));
}

MetricsLog::~MetricsLog() {
  if (fd_ >= 0) ::close(fd_);
}

void MetricsLog::write(const MetricFields& fields) {
  if (fd_ < 0) return;
  const std::string line = metrics_line(fields);
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ExitCode::kIoError, "{}: cannot write: {}", path_, std::strerror(errno));
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace ds
