// Open Inference Protocol v2 over HTTP, with the binary tensor data extension.
//
//   GET  /v2                                         server name, version, extensions
//   GET  /v2/health/live, /v2/health/ready
//   GET  /v2/models                                  names (an addition of ours)
//   GET  /v2/models/{m}[/versions/1]                 metadata
//   GET  /v2/models/{m}[/versions/1]/ready
//   POST /v2/models/{m}[/versions/1]/infer
//   GET  /metrics                                    Prometheus text format
//
// Tensors travel as JSON numbers (flat or nested arrays) or, with `Inference-Header-Content-Length`,
// as little-endian bytes after the JSON. A header length of 0 means that the whole body is the only
// input of the model, and that all outputs come back as bytes; its shape follows from its size.
//
// Every failure is {"error": "..."} that names the model, the input and the reason: 400 bad request,
// 404 unknown model or path, 405 method, 406 output not expressible in JSON, 415 type, 503 busy.
#pragma once

#include "libds/tasks/serve/http.h"
#include "libds/tasks/serve/protocol.h"

namespace ds::serve {

// Answers one request; `host` outlives it. Called on I/O threads.
void handle_v2(ModelHost& host, HttpRequest request, HttpReply reply);

// Parses and checks an infer request against the model. `header_bytes`: length of the JSON part of
// `body`; -1: all of it. Throws ds::Error (kBadData) naming the input and the reason.
InferRequest parse_infer_request(std::string_view body, int64_t header_bytes, const ModelInfo& model);

// The response to `request`. Throws ds::Error (kUnsupported) when an output has a value that JSON
// cannot express (NaN, infinity).
HttpResponse write_infer_response(const ModelInfo& model, const InferRequest& request, const std::vector<Tensor>& outputs);

}  // namespace ds::serve
