// Terms of the Open Inference Protocol v2 (the KServe "predict protocol, version 2"), free of HTTP
// and JSON: what the protocol layer (v2.h) and the models behind it (model.h) say to each other.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "libds/mem/tensor.h"

namespace ds::serve {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kUndefined;
  bool ranked = true;          // false: any rank; `shape` is empty
  std::vector<int64_t> shape;  // -1: any size
};

struct ModelInfo {
  std::string name;
  std::vector<TensorSpec> inputs, outputs;
  // Largest size of axis 0 a request may have; 0: axis 0 is not a batch, no limit of its own.
  int64_t max_batch_size = 0;
};

struct OutputWish {
  size_t index = 0;  // into ModelInfo::outputs
  bool binary = false;
};

// A request that fits its model: types, ranks and fixed dimensions are right.
struct InferRequest {
  std::string id;              // echoed; empty: none
  std::vector<Tensor> inputs;  // in the model's order
  std::vector<OutputWish> outputs;
};

struct InferResult {
  int status = 200;            // HTTP status
  std::string error;           // when status is not 200: names the model and the reason
  int retry_after_s = 0;       // with 503
  std::vector<Tensor> outputs; // all of them, in the model's order
};
using InferDone = std::function<void(InferResult)>;

// What stands behind the protocol. Called from I/O threads: nothing here may block or compute.
class ModelHost {
 public:
  virtual ~ModelHost() = default;
  virtual bool ready() const = 0;  // all models are loaded and the server is not draining
  virtual std::vector<std::string> model_names() const = 0;
  virtual const ModelInfo* find(std::string_view model) const = 0;  // null: unknown
  virtual bool model_ready(std::string_view model) const = 0;
  // `done` is called once, from any thread.
  virtual void infer(const ModelInfo& model, InferRequest request, InferDone done) = 0;
  virtual std::string metrics_text() const = 0;  // Prometheus text format
  // One finished HTTP request to a model; `model` is empty when the request named none.
  virtual void count_request(std::string_view model, int status) = 0;
};

// "FP32", "INT8", ...; empty for a type the protocol cannot carry.
std::string_view v2_dtype_name(DType dtype);
// kUndefined when unknown ("BYTES" included: string tensors are not served).
DType v2_dtype_from_name(std::string_view name);

}  // namespace ds::serve
