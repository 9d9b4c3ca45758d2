#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "libds/tasks/serve/http.h"

namespace ds::serve {

std::string json_quote(std::string_view text) {
  return nlohmann::json(std::string(text)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

HttpResponse http_error(int status, std::string_view message) {
  HttpResponse response;
  response.status = status;
  response.body = fmt::format("{{\"error\":{}}}", json_quote(message));
  return response;
}

}  // namespace ds::serve
