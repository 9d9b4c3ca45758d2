// Infer requests: JSON, read as a stream of events so that hostile documents cost no more than their
// own size, then checked against the model.
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "libds/base/error.h"
#include "libds/tasks/serve/v2.h"

namespace ds::serve {
namespace {

constexpr size_t kMaxDepth = 64;   // of nesting, anywhere in the document
constexpr size_t kMaxRank = 32;
constexpr size_t kMaxNameShown = 80;  // of a name that is not ours, in messages

std::string shown(std::string_view name) {
  return name.size() <= kMaxNameShown ? std::string(name) : std::string(name.substr(0, kMaxNameShown)) + "...";
}

// Content of a "data" array: numbers in row-major order and the nesting they came in.
struct JsonData {
  std::vector<int64_t> ints;    // while all are integers; unsigned ones above 2^63 as their bits
  std::vector<double> reals;    // all of them, once one is not an integer
  bool real = false, has_bool = false, has_big = false, has_negative = false;
  std::vector<int64_t> dims;    // sizes by nesting level; -1 until the first array of a level ends
  std::vector<int64_t> counts;  // elements so far of the arrays that are open
  bool has_leaf_level = false;
  size_t leaf_level = 0;

  size_t size() const { return real ? reals.size() : ints.size(); }
  void add_int(int64_t bits, bool is_big) {
    const bool is_negative = !is_big && bits < 0;
    if ((is_big && has_negative) || (is_negative && has_big)) become_real();  // no 64-bit type holds both
    has_big = has_big || is_big;
    has_negative = has_negative || is_negative;
    if (real) reals.push_back(is_big ? static_cast<double>(static_cast<uint64_t>(bits)) : static_cast<double>(bits));
    else ints.push_back(bits);
  }
  void add_real(double x) {
    become_real();
    reals.push_back(x);
  }

 private:
  void become_real() {
    if (real) return;
    reals.reserve(ints.size() + 1);
    for (int64_t bits : ints) reals.push_back(has_big ? static_cast<double>(static_cast<uint64_t>(bits)) : static_cast<double>(bits));
    ints = {};
    real = true;
  }
};

struct JsonInput {
  std::optional<std::string> name, datatype;
  std::optional<std::vector<int64_t>> shape;
  std::optional<JsonData> data;
  std::optional<int64_t> binary_size;
};

struct JsonOutput {
  std::optional<std::string> name;
  std::optional<bool> binary;
};

struct JsonRequest {
  std::string id;
  std::vector<JsonInput> inputs;
  bool has_inputs = false;
  std::optional<std::vector<JsonOutput>> outputs;
  bool binary_output = false;
};

struct Scalar {
  enum Kind { kNull, kBool, kInt, kBig, kReal, kString } kind;
  int64_t bits = 0;  // kBool, kInt, kBig
  double real = 0;
  std::string* text = nullptr;
};

// Walks the document, filling a JsonRequest. The stack says what the open brackets belong to.
class RequestReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  RequestReader(JsonRequest& request, size_t max_inputs, size_t max_outputs)
      : request_(request), max_inputs_(max_inputs), max_outputs_(max_outputs) {}
  const std::string& error() const { return error_; }

  bool null() override { return scalar({Scalar::kNull}); }
  bool boolean(bool value) override { return scalar({Scalar::kBool, value}); }
  bool number_integer(number_integer_t value) override { return scalar({Scalar::kInt, value}); }
  bool number_unsigned(number_unsigned_t value) override {
    const bool big = value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    return scalar({big ? Scalar::kBig : Scalar::kInt, static_cast<int64_t>(value)});
  }
  bool number_float(number_float_t value, const string_t&) override { return scalar({Scalar::kReal, 0, value}); }
  bool string(string_t& value) override { return scalar({Scalar::kString, 0, 0, &value}); }
  bool binary(binary_t&) override { return fail_with("unexpected binary value"); }

  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }

  bool start_object(size_t) override {
    if (stack_.size() >= kMaxDepth) return fail_with("JSON is nested too deeply");
    switch (top()) {
      case Where::kNowhere:
        return push(Where::kRoot);
      case Where::kRoot:
        if (key_ == "parameters") return push(Where::kRootParameters);
        if (key_ == "id" || key_ == "inputs" || key_ == "outputs") return wrong_type(key_);
        return push(Where::kIgnored);
      case Where::kInputs:
        if (request_.inputs.size() >= max_inputs_) return fail_with("more inputs than the model has");
        request_.inputs.emplace_back();
        return push(Where::kInput);
      case Where::kOutputs:
        if (request_.outputs->size() >= max_outputs_) return fail_with("more outputs than the model has");
        request_.outputs->emplace_back();
        return push(Where::kOutput);
      case Where::kInput:
        if (key_ == "parameters") return push(Where::kInputParameters);
        if (key_ == "name" || key_ == "shape" || key_ == "datatype" || key_ == "data") return wrong_type(key_);
        return push(Where::kIgnored);
      case Where::kOutput:
        if (key_ == "parameters") return push(Where::kOutputParameters);
        if (key_ == "name") return wrong_type(key_);
        return push(Where::kIgnored);
      case Where::kShape:
        return wrong_type("shape");
      case Where::kData:
        return in_input("data holds an object; numbers are expected");
      default:
        return push(Where::kIgnored);
    }
  }
  bool end_object() override { return pop(); }

  bool start_array(size_t) override {
    if (stack_.size() >= kMaxDepth) return fail_with("JSON is nested too deeply");
    switch (top()) {
      case Where::kNowhere:
        return fail_with("the request is not a JSON object");
      case Where::kRoot:
        if (key_ == "inputs") {
          if (request_.has_inputs) return fail_with("'inputs' is given twice");
          request_.has_inputs = true;
          return push(Where::kInputs);
        }
        if (key_ == "outputs") {
          if (request_.outputs) return fail_with("'outputs' is given twice");
          request_.outputs.emplace();
          return push(Where::kOutputs);
        }
        if (key_ == "id" || key_ == "parameters") return wrong_type(key_);
        return push(Where::kIgnored);
      case Where::kInputs:
        return wrong_type("inputs");
      case Where::kOutputs:
        return wrong_type("outputs");
      case Where::kInput: {
        JsonInput& input = request_.inputs.back();
        if (key_ == "shape") {
          if (input.shape) return in_input("shape is given twice");
          input.shape.emplace();
          return push(Where::kShape);
        }
        if (key_ == "data") {
          if (input.data) return in_input("data is given twice");
          input.data.emplace();
          return open_data_level();
        }
        if (key_ == "name" || key_ == "datatype" || key_ == "parameters") return wrong_type(key_);
        return push(Where::kIgnored);
      }
      case Where::kOutput:
        if (key_ == "name" || key_ == "parameters") return wrong_type(key_);
        return push(Where::kIgnored);
      case Where::kShape:
        return wrong_type("shape");
      case Where::kData:
        return open_data_level();
      default:
        return push(Where::kIgnored);
    }
  }
  bool end_array() override {
    if (top() == Where::kData) {
      JsonData& data = *request_.inputs.back().data;
      const size_t level = data.counts.size() - 1;
      const int64_t count = data.counts.back();
      data.counts.pop_back();
      if (data.dims[level] < 0) data.dims[level] = count;
      else if (data.dims[level] != count) return in_input("nested data arrays have different lengths");
    }
    return pop();
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& problem) override {
    std::string_view text = problem.what();
    if (const size_t end = text.find("] "); end != std::string_view::npos) text.remove_prefix(end + 2);
    return fail_with(fmt::format("malformed JSON: {}", text.substr(0, 200)));
  }

 private:
  enum class Where : uint8_t {
    kNowhere, kRoot, kRootParameters, kInputs, kInput, kInputParameters, kShape, kData,
    kOutputs, kOutput, kOutputParameters, kIgnored,
  };

  Where top() const { return stack_.empty() ? Where::kNowhere : stack_.back(); }
  bool push(Where where) {
    stack_.push_back(where);
    return true;
  }
  bool pop() {
    stack_.pop_back();
    return true;
  }
  bool fail_with(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }
  bool in_input(std::string_view message) {
    const auto& name = request_.inputs.back().name;
    return fail_with(name ? fmt::format("input '{}': {}", shown(*name), message)
                          : fmt::format("input {}: {}", request_.inputs.size() - 1, message));
  }
  bool wrong_type(std::string_view what) {
    return fail_with(fmt::format("'{}' has the wrong JSON type", shown(what)));
  }

  bool open_data_level() {
    JsonData& data = *request_.inputs.back().data;
    const size_t level = data.counts.size();
    if (level >= kMaxRank) return in_input("data is nested too deeply");
    if (data.has_leaf_level && level > data.leaf_level) return in_input("data mixes numbers and arrays");
    if (level > 0) ++data.counts.back();
    data.counts.push_back(0);
    if (data.dims.size() <= level) data.dims.push_back(-1);
    return push(Where::kData);
  }

  bool data_scalar(const Scalar& value) {
    JsonData& data = *request_.inputs.back().data;
    const size_t level = data.counts.size() - 1;
    if (!data.has_leaf_level) {
      if (level + 1 != data.dims.size()) return in_input("data mixes numbers and arrays");
      data.has_leaf_level = true;
      data.leaf_level = level;
    } else if (level != data.leaf_level) {
      return in_input("data mixes numbers and arrays");
    }
    ++data.counts.back();
    switch (value.kind) {
      case Scalar::kNull: return in_input("data holds null; numbers are expected");
      case Scalar::kString: return in_input("data holds a string; numbers are expected");
      case Scalar::kBool: data.has_bool = true; break;
      default: break;
    }
    if (value.kind == Scalar::kReal) data.add_real(value.real);
    else data.add_int(value.bits, value.kind == Scalar::kBig);
    return true;
  }

  bool scalar(const Scalar& value) {
    switch (top()) {
      case Where::kNowhere:
        return fail_with("the request is not a JSON object");
      case Where::kRoot:
        if (key_ == "id") {
          if (value.kind != Scalar::kString) return wrong_type(key_);
          request_.id = std::move(*value.text);
          return true;
        }
        if (key_ == "inputs" || key_ == "outputs" || key_ == "parameters") return wrong_type(key_);
        return true;
      case Where::kRootParameters:
        if (key_ == "binary_data_output") {
          if (value.kind != Scalar::kBool) return wrong_type(key_);
          request_.binary_output = value.bits != 0;
        }
        return true;
      case Where::kInputs:
        return wrong_type("inputs");
      case Where::kOutputs:
        return wrong_type("outputs");
      case Where::kInput: {
        JsonInput& input = request_.inputs.back();
        if (key_ == "name" || key_ == "datatype") {
          if (value.kind != Scalar::kString) return wrong_type(key_);
          (key_ == "name" ? input.name : input.datatype) = std::move(*value.text);
          return true;
        }
        if (key_ == "shape" || key_ == "data" || key_ == "parameters") return wrong_type(key_);
        return true;
      }
      case Where::kInputParameters:
        if (key_ == "binary_data_size") {
          if (value.kind != Scalar::kInt || value.bits < 0) return in_input("binary_data_size is not a size");
          request_.inputs.back().binary_size = value.bits;
        }
        return true;
      case Where::kOutput:
        if (key_ == "name") {
          if (value.kind != Scalar::kString) return wrong_type(key_);
          request_.outputs->back().name = std::move(*value.text);
          return true;
        }
        return key_ == "parameters" ? wrong_type(key_) : true;
      case Where::kOutputParameters:
        if (key_ == "binary_data") {
          if (value.kind != Scalar::kBool) return wrong_type(key_);
          request_.outputs->back().binary = value.bits != 0;
        }
        if (key_ == "classification") return fail_with("the classification extension is not supported");
        return true;
      case Where::kShape: {
        std::vector<int64_t>& shape = *request_.inputs.back().shape;
        if (value.kind != Scalar::kInt || value.bits < 0) return in_input("shape holds something that is not a size");
        if (shape.size() >= kMaxRank) return in_input("shape has too many dimensions");
        shape.push_back(value.bits);
        return true;
      }
      case Where::kData:
        return data_scalar(value);
      default:
        return true;
    }
  }

  JsonRequest& request_;
  const size_t max_inputs_, max_outputs_;
  std::vector<Where> stack_;
  std::string key_;
  std::string error_;
};

// --- values --------------------------------------------------------------------------------------

template <typename T>
void fill_integers(const JsonData& data, T* out, DType dtype) {
  if (data.real) bad_data("data holds a value that is not an integer in the range of {}", v2_dtype_name(dtype));
  for (size_t i = 0; i < data.ints.size(); ++i) {
    const int64_t bits = data.ints[i];
    if (data.has_big && bits < 0) {  // above 2^63: only an unsigned 64-bit type has room
      if constexpr (std::is_same_v<T, uint64_t>) {
        out[i] = static_cast<uint64_t>(bits);
        continue;
      }
      bad_data("value {} at {} is out of range for {}", static_cast<uint64_t>(bits), i, v2_dtype_name(dtype));
    }
    bool fits = true;
    if constexpr (std::is_unsigned_v<T>) {
      fits = bits >= 0 && static_cast<uint64_t>(bits) <= std::numeric_limits<T>::max();
    } else {
      fits = bits >= std::numeric_limits<T>::min() && bits <= std::numeric_limits<T>::max();
    }
    if (!fits) bad_data("value {} at {} is out of range for {}", bits, i, v2_dtype_name(dtype));
    out[i] = static_cast<T>(bits);
  }
}

template <typename T>
void fill_reals(const JsonData& data, T* out, DType dtype) {
  const size_t n = data.size();
  for (size_t i = 0; i < n; ++i) {
    double x;
    if (data.real) x = data.reals[i];
    else if (data.has_big && data.ints[i] < 0) x = static_cast<double>(static_cast<uint64_t>(data.ints[i]));
    else x = static_cast<double>(data.ints[i]);
    if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) out[i] = T(static_cast<float>(x));
    else out[i] = static_cast<T>(x);
    if (!std::isfinite(static_cast<double>(static_cast<std::conditional_t<std::is_same_v<T, double>, double, float>>(out[i]))))
      bad_data("value {} at {} is out of range for {}", x, i, v2_dtype_name(dtype));
  }
}

void fill_tensor(const JsonData& data, const Tensor& tensor) {
  const DType dtype = tensor.dtype();
  if (dtype == DType::kBool) {
    bool* out = tensor.mutable_data<bool>();
    if (data.real) bad_data("data holds fractions; BOOL needs true or false");
    for (size_t i = 0; i < data.ints.size(); ++i) {
      if (data.ints[i] != 0 && data.ints[i] != 1) bad_data("value {} at {} is out of range for BOOL", data.ints[i], i);
      out[i] = data.ints[i] != 0;
    }
    return;
  }
  if (data.has_bool) bad_data("data holds true or false; {} needs numbers", v2_dtype_name(dtype));
  dispatch_dtype(dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, f16> || std::is_same_v<T, bf16>)
      fill_reals<T>(data, tensor.mutable_data<T>(), dtype);
    else if constexpr (!std::is_same_v<T, bool>)
      fill_integers<T>(data, tensor.mutable_data<T>(), dtype);
  });
}

std::string spec_string(const TensorSpec& spec) {
  if (!spec.ranked) return "any shape";
  return fmt::format("[{}]", fmt::join(spec.shape, ","));
}

void check_shape(const TensorSpec& spec, const std::vector<int64_t>& shape, const ModelInfo& model) {
  bool fits = !spec.ranked || spec.shape.size() == shape.size();
  for (size_t d = 0; fits && spec.ranked && d < shape.size(); ++d)
    fits = spec.shape[d] < 0 || spec.shape[d] == shape[d];
  if (!fits) bad_data("shape [{}] does not fit the model's {}", fmt::join(shape, ","), spec_string(spec));
  if (model.max_batch_size > 0 && !shape.empty()) {
    if (shape[0] < 1) bad_data("shape [{}] has an empty batch", fmt::join(shape, ","));
    if (shape[0] > model.max_batch_size)
      bad_data("batch of {} is more than the maximum of {}", shape[0], model.max_batch_size);
  }
}

// Bytes of `shape`; bad data when they overflow.
int64_t bytes_of(DType dtype, const std::vector<int64_t>& shape) {
  return checked_mul(checked_numel(shape), static_cast<int64_t>(dtype_size(dtype)));
}

Tensor tensor_from_bytes(DType dtype, const std::vector<int64_t>& shape, std::string_view bytes) {
  const int64_t needed = bytes_of(dtype, shape);
  if (needed != static_cast<int64_t>(bytes.size()))
    bad_data("{} bytes given, shape [{}] of {} needs {}", bytes.size(), fmt::join(shape, ","), v2_dtype_name(dtype), needed);
  Tensor tensor = Tensor::empty(dtype, shape);
  if (!bytes.empty()) std::memcpy(tensor.mutable_raw(), bytes.data(), bytes.size());
  if (dtype == DType::kBool) {  // any other byte would be undefined behaviour later
    const auto* raw = static_cast<const uint8_t*>(tensor.raw());
    for (size_t i = 0; i < bytes.size(); ++i)
      if (raw[i] > 1) bad_data("byte {} at {} is out of range for BOOL", raw[i], i);
  }
  return tensor;
}

// `rest`: binary data not yet used; this input's is cut from its front.
Tensor input_tensor(JsonInput& input, const TensorSpec& spec, const ModelInfo& model, std::string_view& rest) {
  if (!input.datatype) bad_data("datatype is missing");
  const DType dtype = v2_dtype_from_name(*input.datatype);
  if (dtype == DType::kUndefined) bad_data("datatype '{}' is not supported", shown(*input.datatype));
  if (dtype != spec.dtype)
    bad_data("datatype {} does not fit the model's {}", *input.datatype, v2_dtype_name(spec.dtype));
  if (!input.shape) bad_data("shape is missing");
  const std::vector<int64_t>& shape = *input.shape;
  check_shape(spec, shape, model);
  if (input.binary_size) {
    if (input.data) bad_data("both data and binary_data_size are given");
    if (*input.binary_size > static_cast<int64_t>(rest.size()))
      bad_data("binary_data_size is {}, only {} bytes are left in the body", *input.binary_size, rest.size());
    const std::string_view bytes = rest.substr(0, static_cast<size_t>(*input.binary_size));
    rest.remove_prefix(bytes.size());
    return tensor_from_bytes(dtype, shape, bytes);
  }
  if (!input.data) bad_data("data is missing");
  // Counted before anything of that size is allocated: the shape is only a claim.
  const int64_t numel = checked_numel(shape);
  if (numel != static_cast<int64_t>(input.data->size()))
    bad_data("data has {} values, shape [{}] needs {}", input.data->size(), fmt::join(shape, ","), numel);
  if (input.data->dims.size() > 1 && input.data->dims != shape && numel > 0)
    bad_data("data is nested as [{}], shape is [{}]", fmt::join(input.data->dims, ","), fmt::join(shape, ","));
  Tensor tensor = Tensor::empty(dtype, shape);
  fill_tensor(*input.data, tensor);
  input.data.reset();
  return tensor;
}

// The whole body is the only input; at most one dimension is open and follows from the size.
InferRequest raw_request(std::string_view body, const ModelInfo& model) {
  if (model.inputs.size() != 1) bad_data("a raw binary request needs a model of one input, this has {}", model.inputs.size());
  const TensorSpec& spec = model.inputs[0];
  return with_context(
      [&] { return fmt::format("input '{}'", spec.name); },
      [&] {
        if (!spec.ranked) bad_data("a raw binary request needs a model whose rank is known");
        std::vector<int64_t> shape = spec.shape;
        int64_t known = static_cast<int64_t>(dtype_size(spec.dtype));
        std::optional<size_t> open;
        for (size_t d = 0; d < shape.size(); ++d) {
          if (shape[d] >= 0) known = checked_mul(known, shape[d]);
          else if (open) bad_data("a raw binary request needs a model with at most one open dimension, not {}", spec_string(spec));
          else open = d;
        }
        const int64_t size = static_cast<int64_t>(body.size());
        if (known <= 0 || size % known != 0 || (!open && size != known))
          bad_data("{} bytes do not make {} of {}", size, spec_string(spec), v2_dtype_name(spec.dtype));
        if (open) shape[*open] = size / known;
        check_shape(spec, shape, model);
        InferRequest request;
        request.inputs.push_back(tensor_from_bytes(spec.dtype, shape, body));
        for (size_t o = 0; o < model.outputs.size(); ++o) request.outputs.push_back({o, true});
        return request;
      });
}

template <typename Specs>
std::optional<size_t> index_of(const Specs& specs, std::string_view name) {
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].name == name) return i;
  return std::nullopt;
}

}  // namespace

InferRequest parse_infer_request(std::string_view body, int64_t header_bytes, const ModelInfo& model) {
  if (header_bytes == 0) return raw_request(body, model);
  std::string_view json = body, rest;
  if (header_bytes > 0) {
    if (header_bytes > static_cast<int64_t>(body.size()))
      bad_data("Inference-Header-Content-Length is {}, the body has {} bytes", header_bytes, body.size());
    json = body.substr(0, static_cast<size_t>(header_bytes));
    rest = body.substr(static_cast<size_t>(header_bytes));
  }
  JsonRequest parsed;
  RequestReader reader(parsed, model.inputs.size(), model.outputs.size());
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) bad_data("{}", reader.error());

  InferRequest request;
  request.id = std::move(parsed.id);
  request.inputs.resize(model.inputs.size());
  for (JsonInput& input : parsed.inputs) {
    if (!input.name) bad_data("an input has no name");
    const std::optional<size_t> index = index_of(model.inputs, *input.name);
    if (!index) bad_data("the model has no input '{}'", shown(*input.name));
    if (request.inputs[*index].defined()) bad_data("input '{}' is given twice", *input.name);
    request.inputs[*index] = with_context([&] { return fmt::format("input '{}'", *input.name); },
                                          [&] { return input_tensor(input, model.inputs[*index], model, rest); });
  }
  for (size_t i = 0; i < model.inputs.size(); ++i)
    if (!request.inputs[i].defined()) bad_data("input '{}' is missing", model.inputs[i].name);
  if (!rest.empty()) bad_data("{} bytes of the body belong to no input", rest.size());
  if (model.max_batch_size > 0)
    for (size_t i = 1; i < request.inputs.size(); ++i)
      if (request.inputs[i].dim(0) != request.inputs[0].dim(0))
        bad_data("input '{}' has a batch of {}, input '{}' of {}", model.inputs[i].name, request.inputs[i].dim(0),
                 model.inputs[0].name, request.inputs[0].dim(0));

  if (!parsed.outputs || parsed.outputs->empty()) {
    for (size_t o = 0; o < model.outputs.size(); ++o) request.outputs.push_back({o, parsed.binary_output});
    return request;
  }
  for (const JsonOutput& output : *parsed.outputs) {
    if (!output.name) bad_data("an output has no name");
    const std::optional<size_t> index = index_of(model.outputs, *output.name);
    if (!index) bad_data("the model has no output '{}'", shown(*output.name));
    for (const OutputWish& other : request.outputs)
      if (other.index == *index) bad_data("output '{}' is asked for twice", *output.name);
    request.outputs.push_back({*index, output.binary.value_or(parsed.binary_output)});
  }
  return request;
}

}  // namespace ds::serve
