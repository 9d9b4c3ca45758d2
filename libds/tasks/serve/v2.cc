#include "libds/tasks/serve/v2.h"

#include <charconv>
#include <cmath>

#include "libds/base/error.h"

namespace ds::serve {
namespace {

struct DTypeName {
  DType dtype;
  std::string_view name;
};
constexpr DTypeName kDTypeNames[] = {
    {DType::kBool, "BOOL"},  {DType::kU8, "UINT8"},   {DType::kU16, "UINT16"}, {DType::kU32, "UINT32"},
    {DType::kU64, "UINT64"}, {DType::kI8, "INT8"},    {DType::kI16, "INT16"},  {DType::kI32, "INT32"},
    {DType::kI64, "INT64"},  {DType::kF16, "FP16"},   {DType::kF32, "FP32"},   {DType::kF64, "FP64"},
    {DType::kBF16, "BF16"},
};

HttpResponse json_response(std::string body, int status = 200) {
  HttpResponse response;
  response.status = status;
  response.body = std::move(body);
  return response;
}

std::string spec_json(const std::vector<TensorSpec>& specs) {
  std::string out = "[";
  for (const TensorSpec& spec : specs) {
    if (out.size() > 1) out += ",";
    out += fmt::format("{{\"name\":{},\"datatype\":\"{}\",\"shape\":[{}]}}", json_quote(spec.name), v2_dtype_name(spec.dtype),
                       fmt::join(spec.shape, ","));
  }
  return out + "]";
}

std::string metadata_json(const ModelInfo& model) {
  return fmt::format("{{\"name\":{},\"versions\":[\"1\"],\"platform\":\"onnx_ds\",\"inputs\":{},\"outputs\":{}}}",
                     json_quote(model.name), spec_json(model.inputs), spec_json(model.outputs));
}

// "a, b, c and 12 more"
std::string some_names(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  const size_t shown = std::min(names.size(), kShown);
  std::string out = fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", "));
  if (names.size() > shown) out += fmt::format(" and {} more", names.size() - shown);
  return out;
}

// -1: no header; throws when it is not a number.
int64_t inference_header_bytes(const HttpRequest& request) {
  const std::string* text = request.header("Inference-Header-Content-Length");
  if (text == nullptr) return -1;
  int64_t value = -1;
  const auto [end, problem] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (problem != std::errc() || end != text->data() + text->size() || value < 0)
    bad_data("Inference-Header-Content-Length '{}' is not a length", text->substr(0, 40));
  return value;
}

void append_values(std::string& out, const Tensor& tensor) {
  auto sink = std::back_inserter(out);
  dispatch_dtype(tensor.dtype(), [&](auto tag) {
    using T = decltype(tag);
    bool first = true;
    for (const T value : tensor.span<T>()) {
      if (!first) out.push_back(',');
      first = false;
      if constexpr (std::is_same_v<T, bool>) {
        out += value ? "true" : "false";
      } else if constexpr (std::is_integral_v<T>) {
        fmt::format_to(sink, "{:d}", value);
      } else {
        // Shortest text that reads back as the same number.
        using Shown = std::conditional_t<std::is_same_v<T, double>, double, float>;
        const Shown x = static_cast<Shown>(value);
        if (!std::isfinite(x)) fail(ExitCode::kUnsupported, "holds {}, which JSON cannot express; ask for binary_data", x);
        fmt::format_to(sink, "{}", x);
      }
    }
  });
}

int status_of(const Error& error) {
  switch (error.code()) {
    case ExitCode::kBadData: return 400;
    case ExitCode::kUnsupported: return 406;
    default: return 500;
  }
}

void handle_infer(ModelHost& host, const ModelInfo& model, const HttpRequest& http, HttpReply reply) {
  if (!host.model_ready(model.name)) {
    HttpResponse response = http_error(503, fmt::format("model '{}' is not ready", model.name));
    response.headers.emplace_back("Retry-After", "1");
    return reply(std::move(response));
  }
  InferRequest request;
  try {
    request = parse_infer_request(http.body, inference_header_bytes(http), model);
  } catch (const Error& error) {
    return reply(http_error(status_of(error), fmt::format("model '{}': {}", model.name, error.what())));
  }
  // What the response needs outlives the tensors, which go with the request.
  auto wishes = std::make_shared<InferRequest>();
  wishes->id = request.id;
  wishes->outputs = request.outputs;
  host.infer(model, std::move(request), [&model, wishes, reply = std::move(reply)](InferResult result) {
    if (result.status != 200) {
      HttpResponse response = http_error(result.status, result.error);
      if (result.retry_after_s > 0) response.headers.emplace_back("Retry-After", std::to_string(result.retry_after_s));
      return reply(std::move(response));
    }
    try {
      reply(write_infer_response(model, *wishes, result.outputs));
    } catch (const Error& error) {
      reply(http_error(status_of(error), fmt::format("model '{}': {}", model.name, error.what())));
    }
  });
}

std::vector<std::string_view> split_path(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const size_t end = path.find('/');
    parts.push_back(path.substr(0, end));
    path = end == std::string_view::npos ? std::string_view() : path.substr(end);
  }
  if (!parts.empty() && parts.back().empty()) parts.pop_back();  // trailing slash
  return parts;
}

// False: the path is not one of ours.
bool route(ModelHost& host, const HttpRequest& request, const HttpReply& reply) {
  const std::vector<std::string_view> parts = split_path(request.path);
  const bool get = request.method == "GET";
  auto allow = [&](bool allowed, const char* method) {
    if (allowed) return true;
    HttpResponse response = http_error(405, fmt::format("{} is served by {} only", request.path.substr(0, 200), method));
    response.headers.emplace_back("Allow", method);
    reply(std::move(response));
    return false;
  };

  if (parts.size() == 1 && parts[0] == "metrics") {
    if (!allow(get, "GET")) return true;
    HttpResponse response = json_response(host.metrics_text());
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    reply(std::move(response));
    return true;
  }
  if (parts.empty() || parts[0] != "v2") return false;
  if (parts.size() == 1) {
    if (allow(get, "GET"))
      reply(json_response(fmt::format("{{\"name\":\"ds-serve\",\"version\":\"{}\",\"extensions\":[\"binary_tensor_data\"]}}", DS_VERSION)));
    return true;
  }
  if (parts.size() == 3 && parts[1] == "health" && (parts[2] == "live" || parts[2] == "ready")) {
    if (!allow(get, "GET")) return true;
    const bool yes = parts[2] == "live" || host.ready();
    reply(json_response(fmt::format("{{\"{}\":{}}}", parts[2], yes), yes ? 200 : 503));
    return true;
  }
  if (parts[1] != "models") return false;
  if (parts.size() == 2) {
    if (!allow(get, "GET")) return true;
    std::string body;
    for (const std::string& name : host.model_names()) body += (body.empty() ? "" : ",") + json_quote(name);
    reply(json_response("{\"models\":[" + body + "]}"));
    return true;
  }

  const ModelInfo* model = host.find(parts[2]);
  if (model == nullptr) {
    reply(http_error(404, fmt::format("unknown model '{}'; this server has: {}", parts[2].substr(0, 80), some_names(host.model_names()))));
    return true;
  }
  size_t at = 3;
  if (parts.size() >= 5 && parts[3] == "versions") {
    if (parts[4] != "1") {
      reply(http_error(404, fmt::format("model '{}' has no version '{}', only 1", model->name, parts[4].substr(0, 40))));
      return true;
    }
    at = 5;
  }
  if (parts.size() == at) {
    if (allow(get, "GET")) reply(json_response(metadata_json(*model)));
    return true;
  }
  if (parts.size() != at + 1) return false;
  if (parts[at] == "ready") {
    if (!allow(get, "GET")) return true;
    const bool yes = host.model_ready(model->name);
    reply(json_response(fmt::format("{{\"name\":{},\"ready\":{}}}", json_quote(model->name), yes), yes ? 200 : 503));
    return true;
  }
  if (parts[at] == "infer") {
    if (!allow(!get, "POST")) return true;
    HttpReply counted = [&host, model, reply](HttpResponse response) {
      host.count_request(model->name, response.status);
      reply(std::move(response));
    };
    handle_infer(host, *model, request, std::move(counted));
    return true;
  }
  return false;
}

}  // namespace

std::string_view v2_dtype_name(DType dtype) {
  for (const DTypeName& entry : kDTypeNames)
    if (entry.dtype == dtype) return entry.name;
  return {};
}

DType v2_dtype_from_name(std::string_view name) {
  for (const DTypeName& entry : kDTypeNames)
    if (entry.name == name) return entry.dtype;
  return DType::kUndefined;
}

HttpResponse write_infer_response(const ModelInfo& model, const InferRequest& request, const std::vector<Tensor>& outputs) {
  std::string json = fmt::format("{{\"model_name\":{},\"model_version\":\"1\"", json_quote(model.name));
  if (!request.id.empty()) json += fmt::format(",\"id\":{}", json_quote(request.id));
  json += ",\"outputs\":[";
  bool any_binary = false;
  size_t binary_bytes = 0;
  for (size_t i = 0; i < request.outputs.size(); ++i) {
    const OutputWish& wish = request.outputs[i];
    const Tensor& tensor = outputs[wish.index];
    const std::string& name = model.outputs[wish.index].name;
    json += fmt::format("{}{{\"name\":{},\"datatype\":\"{}\",\"shape\":[{}]", i == 0 ? "" : ",", json_quote(name),
                        v2_dtype_name(tensor.dtype()), fmt::join(tensor.shape(), ","));
    if (wish.binary) {
      any_binary = true;
      binary_bytes += tensor.bytes();
      json += fmt::format(",\"parameters\":{{\"binary_data_size\":{}}}}}", tensor.bytes());
    } else {
      json += ",\"data\":[";
      with_context([&] { return fmt::format("output '{}'", name); }, [&] { append_values(json, tensor); });
      json += "]}";
    }
  }
  json += "]}";
  HttpResponse response;
  if (any_binary) {
    response.content_type = "application/octet-stream";
    response.headers.emplace_back("Inference-Header-Content-Length", std::to_string(json.size()));
    json.reserve(json.size() + binary_bytes);
    for (const OutputWish& wish : request.outputs)
      if (wish.binary) json.append(static_cast<const char*>(outputs[wish.index].raw()), outputs[wish.index].bytes());
  }
  response.body = std::move(json);
  return response;
}

void handle_v2(ModelHost& host, HttpRequest request, HttpReply reply) {
  if (!route(host, request, reply)) reply(http_error(404, fmt::format("no such path: {}", request.path.substr(0, 200))));
}

}  // namespace ds::serve
