// Open Inference Protocol v2: what is accepted, what is refused and how it is said. The host here
// keeps models without a runtime: it returns inputs, so that every value is known.
#include "libds/tasks/serve/v2.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "libds/base/error.h"

namespace ds::serve {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// "echo": x f32[-1,2] and n i64[-1,1] come back as y and m. "typed": one input per dtype.
class EchoHost : public ModelHost {
 public:
  EchoHost() {
    models_.push_back({"echo", {{"x", DType::kF32, true, {-1, 2}}, {"n", DType::kI64, true, {-1, 1}}},
                       {{"y", DType::kF32, true, {-1, 2}}, {"m", DType::kI64, true, {-1, 1}}}, 4});
    models_.push_back({"image", {{"x", DType::kU8, true, {-1, 2, 3}}}, {{"y", DType::kU8, true, {-1, 2, 3}}}, 4});
    models_.push_back({"free", {{"x", DType::kF32, false, {}}}, {{"y", DType::kF32, false, {}}}, 0});
  }
  bool ready() const override { return ready_; }
  std::vector<std::string> model_names() const override { return {"echo", "image", "free"}; }
  const ModelInfo* find(std::string_view name) const override {
    for (const ModelInfo& m : models_)
      if (m.name == name) return &m;
    return nullptr;
  }
  bool model_ready(std::string_view) const override { return ready_; }
  void infer(const ModelInfo&, InferRequest request, InferDone done) override {
    InferResult result;
    result.status = status_;
    if (status_ != 200) {
      result.error = "model 'echo': queue is full";
      result.retry_after_s = 1;
    }
    result.outputs = request.inputs;
    done(std::move(result));
  }
  std::string metrics_text() const override { return "ds_test 1\n"; }
  void count_request(std::string_view model, int status) override { counted_.emplace_back(model, status); }

  bool ready_ = true;
  int status_ = 200;
  std::vector<ModelInfo> models_;
  std::vector<std::pair<std::string, int>> counted_;
};

struct V2 : testing::Test {
  HttpResponse call(std::string method, std::string path, std::string body = "",
                    std::vector<std::pair<std::string, std::string>> headers = {}) {
    HttpRequest request;
    request.method = std::move(method);
    request.path = std::move(path);
    request.body = std::move(body);
    request.headers = std::move(headers);
    HttpResponse got;
    int replies = 0;
    handle_v2(host, std::move(request), [&](HttpResponse response) {
      got = std::move(response);
      ++replies;
    });
    EXPECT_EQ(replies, 1);
    return got;
  }
  HttpResponse infer(std::string body, std::string model = "echo") { return call("POST", "/v2/models/" + model + "/infer", std::move(body)); }
  // Expects a 400 whose text holds all of `parts`.
  void refused(std::string body, std::vector<std::string> parts, std::string model = "echo") {
    const HttpResponse r = infer(body, model);
    EXPECT_EQ(r.status, 400) << body.substr(0, 200) << "\n" << r.body.substr(0, 200);
    const std::string text = json::parse(r.body).at("error");
    EXPECT_THAT(text, HasSubstr("model '" + model + "'"));
    for (const std::string& part : parts) EXPECT_THAT(text, HasSubstr(part)) << body.substr(0, 200);
  }
  EchoHost host;
};

std::string echo_body(std::string x_data = "[1,2]", std::string x_shape = "[1,2]", std::string x_type = "FP32",
                      std::string n_data = "[7]", std::string n_shape = "[1,1]") {
  return R"({"inputs":[{"name":"x","shape":)" + x_shape + R"(,"datatype":")" + x_type + R"(","data":)" + x_data +
         R"(},{"name":"n","shape":)" + n_shape + R"(,"datatype":"INT64","data":)" + n_data + "}]}";
}
std::string free_body(std::string data, std::string shape) {
  return R"({"inputs":[{"name":"x","shape":)" + shape + R"(,"datatype":"FP32","data":)" + data + "}]}";
}

TEST_F(V2, ServerAndModelMetadata) {
  EXPECT_EQ(json::parse(call("GET", "/v2").body).at("name"), "ds-serve");
  EXPECT_EQ(call("GET", "/v2/health/live").status, 200);
  EXPECT_EQ(call("GET", "/v2/health/ready").status, 200);
  for (const char* path : {"/v2/models/echo", "/v2/models/echo/versions/1", "/v2/models/echo/"}) {
    const json meta = json::parse(call("GET", path).body);
    EXPECT_EQ(meta.at("name"), "echo");
    EXPECT_EQ(meta.at("inputs").at(0), json::parse(R"({"name":"x","datatype":"FP32","shape":[-1,2]})"));
    EXPECT_EQ(meta.at("outputs").size(), 2u);
  }
  EXPECT_EQ(call("GET", "/v2/models/echo/ready").status, 200);
  EXPECT_EQ(json::parse(call("GET", "/v2/models").body).at("models").size(), 3u);
  EXPECT_EQ(call("GET", "/metrics").body, "ds_test 1\n");
}

TEST_F(V2, NotReadyIs503) {
  host.ready_ = false;
  EXPECT_EQ(call("GET", "/v2/health/live").status, 200);
  EXPECT_EQ(call("GET", "/v2/health/ready").status, 503);
  EXPECT_EQ(call("GET", "/v2/models/echo/versions/1/ready").status, 503);
  EXPECT_EQ(infer(echo_body()).status, 503);
}

TEST_F(V2, UnknownPathsModelsVersionsAndMethods) {
  for (const char* path : {"/", "/v1", "/v2/nothing", "/v2/models/echo/nothing", "/v2/models/echo/infer/more", "/v2/health/dead"})
    EXPECT_EQ(call("GET", path).status, 404) << path;
  const HttpResponse unknown = call("POST", "/v2/models/nope/infer");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_THAT(unknown.body, HasSubstr("unknown model 'nope'"));
  EXPECT_THAT(unknown.body, HasSubstr("echo, image, free"));
  EXPECT_EQ(call("GET", "/v2/models/echo/versions/2").status, 404);
  EXPECT_EQ(call("GET", "/v2/models/echo/infer").status, 405);
  EXPECT_EQ(call("POST", "/v2/models/echo").status, 405);
  EXPECT_EQ(call("POST", "/metrics").status, 405);
}

TEST_F(V2, JsonRoundTrip) {
  const HttpResponse r = infer(R"({"id":"q\"1","inputs":[
    {"name":"n","shape":[2,1],"datatype":"INT64","data":[[-9007199254740993],[4]]},
    {"name":"x","parameters":{"ignored":{"deep":[1,{}]}},"data":[[1.5,-2],[3e-3,0.1]],"datatype":"FP32","shape":[2,2],"extra":null}],
    "outputs":[{"name":"m"},{"name":"y"}]})");
  ASSERT_EQ(r.status, 200) << r.body;
  EXPECT_EQ(r.content_type, "application/json");
  const json reply = json::parse(r.body);
  EXPECT_EQ(reply.at("model_name"), "echo");
  EXPECT_EQ(reply.at("model_version"), "1");
  EXPECT_EQ(reply.at("id"), "q\"1");
  ASSERT_EQ(reply.at("outputs").size(), 2u);
  EXPECT_EQ(reply.at("outputs")[0], json::parse(R"({"name":"m","datatype":"INT64","shape":[2,1],"data":[-9007199254740993,4]})"));
  const auto y = reply.at("outputs")[1].at("data").get<std::vector<float>>();
  EXPECT_EQ(y, (std::vector<float>{1.5f, -2.f, 3e-3f, 0.1f}));
  EXPECT_EQ(host.counted_, (std::vector<std::pair<std::string, int>>{{"echo", 200}}));
}

TEST_F(V2, BinaryRoundTrip) {
  const float x[4] = {1.5f, std::numeric_limits<float>::quiet_NaN(), -0.f, 4.f};
  const int64_t n[2] = {5, -6};
  const std::string head = R"({"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","parameters":{"binary_data_size":16}},
    {"name":"n","shape":[2,1],"datatype":"INT64","parameters":{"binary_data_size":16}}],
    "outputs":[{"name":"y","parameters":{"binary_data":true}},{"name":"m","parameters":{"binary_data":false}}]})";
  std::string body = head;
  body.append(reinterpret_cast<const char*>(x), 16).append(reinterpret_cast<const char*>(n), 16);
  const HttpResponse r = call("POST", "/v2/models/echo/versions/1/infer", body,
                              {{"inference-header-content-length", std::to_string(head.size())}});
  ASSERT_EQ(r.status, 200) << r.body;
  EXPECT_EQ(r.content_type, "application/octet-stream");
  size_t json_bytes = 0;
  for (const auto& [name, value] : r.headers)
    if (name == "Inference-Header-Content-Length") json_bytes = std::stoul(value);
  ASSERT_EQ(r.body.size(), json_bytes + 16);
  EXPECT_EQ(std::memcmp(r.body.data() + json_bytes, x, 16), 0);
  const json reply = json::parse(r.body.substr(0, json_bytes));
  EXPECT_EQ(reply.at("outputs")[0].at("parameters").at("binary_data_size"), 16);
  EXPECT_FALSE(reply.at("outputs")[0].contains("data"));
  EXPECT_EQ(reply.at("outputs")[1].at("data"), json::parse("[5,-6]"));
}

TEST_F(V2, BinaryDataOutputIsTheDefaultForAllOutputs) {
  std::string body = echo_body();
  body.insert(1, R"("parameters":{"binary_data_output":true},)");
  const HttpResponse r = infer(body);
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.content_type, "application/octet-stream");
}

TEST_F(V2, RawBinaryBodyIsTheOnlyInput) {
  const std::string pixels = "abcdefABCDEF";  // 2 x [2,3]
  const HttpResponse r = call("POST", "/v2/models/image/infer", pixels, {{"Inference-Header-Content-Length", "0"}});
  ASSERT_EQ(r.status, 200) << r.body;
  EXPECT_EQ(r.body.substr(r.body.size() - 12), pixels);
  EXPECT_THAT(r.body, HasSubstr("\"shape\":[2,2,3]"));
  EXPECT_EQ(call("POST", "/v2/models/image/infer", "abcde", {{"Inference-Header-Content-Length", "0"}}).status, 400);
  EXPECT_EQ(call("POST", "/v2/models/image/infer", "", {{"Inference-Header-Content-Length", "0"}}).status, 400);
  EXPECT_EQ(call("POST", "/v2/models/image/infer", std::string(600, 'x'), {{"Inference-Header-Content-Length", "0"}}).status, 400);
  EXPECT_EQ(call("POST", "/v2/models/echo/infer", pixels, {{"Inference-Header-Content-Length", "0"}}).status, 400);
  EXPECT_EQ(call("POST", "/v2/models/free/infer", pixels, {{"Inference-Header-Content-Length", "0"}}).status, 400);
}

TEST_F(V2, BinaryMistakes) {
  auto call_with = [&](std::string head, std::string tail, std::string length) {
    return call("POST", "/v2/models/image/infer", head + tail, {{"Inference-Header-Content-Length", length}});
  };
  auto head = [](std::string size) {
    return R"({"inputs":[{"name":"x","shape":[1,2,3],"datatype":"UINT8","parameters":{"binary_data_size":)" + size + "}}]}";
  };
  EXPECT_EQ(call_with(head("6"), "abcdef", std::to_string(head("6").size())).status, 200);
  EXPECT_EQ(call_with(head("6"), "abcde", std::to_string(head("6").size())).status, 400);    // too few
  EXPECT_EQ(call_with(head("6"), "abcdefg", std::to_string(head("6").size())).status, 400);  // too many
  EXPECT_EQ(call_with(head("5"), "abcde", std::to_string(head("5").size())).status, 400);    // not the shape's size
  EXPECT_EQ(call_with(head("-1"), "", std::to_string(head("-1").size())).status, 400);
  EXPECT_EQ(call_with(head("1e99"), "", std::to_string(head("1e99").size())).status, 400);
  for (const char* length : {"-1", "x", "1x", "", "99999", "99999999999999999999999"})
    EXPECT_EQ(call_with(head("6"), "abcdef", length).status, 400) << length;
  // Both ways at once.
  const std::string both = R"({"inputs":[{"name":"x","shape":[1,2,3],"datatype":"UINT8","data":[1,2,3,4,5,6],"parameters":{"binary_data_size":6}}]})";
  EXPECT_EQ(call_with(both, "abcdef", std::to_string(both.size())).status, 400);
}

TEST_F(V2, RefusalsNameModelInputAndReason) {
  EXPECT_EQ(infer(echo_body()).status, 200);
  refused(echo_body("[1,2,3]", "[1,3]"), {"input 'x'", "shape [1,3] does not fit the model's [-1,2]"});
  refused(echo_body("[1,2]", "[2]"), {"input 'x'", "does not fit"});
  refused(echo_body("[1,2,3]"), {"input 'x'", "data has 3 values, shape [1,2] needs 2"});
  refused(echo_body("[[1,2],[3,4]]", "[1,2]"), {"input 'x'", "data has 4 values"});
  refused(echo_body("[[1],[2]]", "[1,2]"), {"input 'x'", "nested as [2,1]"});
  refused(echo_body("[1,2]", "[1,2]", "FP64"), {"input 'x'", "datatype FP64 does not fit the model's FP32"});
  refused(echo_body("[1,2]", "[1,2]", "BYTES"), {"input 'x'", "datatype 'BYTES' is not supported"});
  refused(echo_body("[1,\"2\"]"), {"input 'x'", "string"});
  refused(echo_body("[1,null]"), {"input 'x'", "null"});
  refused(echo_body("[1,true]"), {"input 'x'", "true or false"});
  refused(echo_body("[1,{}]"), {"input 'x'", "object"});
  refused(echo_body("[[1,2],[3]]", "[1,2]"), {"input 'x'", "different lengths"});
  refused(echo_body("[1,[2]]"), {"input 'x'", "mixes"});
  refused(echo_body("[[1],2]"), {"input 'x'", "mixes"});
  refused(echo_body("[[],1]"), {"input 'x'", "mixes"});
  refused(echo_body("7"), {"'data' has the wrong JSON type"});
  refused(echo_body("[1,1e39]"), {"input 'x'", "out of range for FP32"});
  refused(echo_body("[1,1e999]"), {"malformed JSON"});
  refused(echo_body("[1,NaN]"), {"malformed JSON"});
  refused(echo_body("[1,2]", "[1,-2]"), {"input 'x'", "shape"});
  refused(echo_body("[1,2]", "[1,2.0]"), {"input 'x'", "shape"});
  refused(echo_body("[1,2]", "[1,99999999999999999999]"), {"input 'x'", "shape"});
  refused(echo_body("[]", "[0,2]"), {"input 'x'", "empty batch"});
  refused(echo_body("[1,2]", "[5,2]"), {"input 'x'", "batch of 5 is more than the maximum of 4"});
  refused(echo_body("[1,2]", "[1,2]", "FP32", "[1,2]", "[2,1]"), {"batch"});
  refused(echo_body("[1,2]", "[1,2]", "FP32", "[1.5]"), {"input 'n'", "not an integer"});
  refused(echo_body("[1,2]", "[1,2]", "FP32", "[9223372036854775808]"), {"input 'n'", "9223372036854775808", "out of range for INT64"});
  refused(R"({"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]})", {"input 'n' is missing"});
  refused(R"({"inputs":[{"name":"z","shape":[1],"datatype":"FP32","data":[1]}]})", {"no input 'z'"});
  refused(R"({"inputs":[{"shape":[1],"datatype":"FP32","data":[1]}]})", {"no name"});
  refused(R"({"inputs":[{"name":"x","datatype":"FP32","data":[1,2]}]})", {"input 'x'", "shape is missing"});
  refused(R"({"inputs":[{"name":"x","shape":[1,2],"data":[1,2]}]})", {"input 'x'", "datatype is missing"});
  refused(R"({"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32"}]})", {"input 'x'", "data is missing"});
  refused(R"({"inputs":{}})", {"'inputs' has the wrong JSON type"});
  refused(R"({"inputs":[[]]})", {"'inputs' has the wrong JSON type"});
  refused(R"({"inputs":[{},{},{}]})", {"more inputs"});
  refused(R"({"inputs":[],"inputs":[]})", {"given twice"});
  refused(R"({"inputs":[{"name":"x","data":[1],"data":[2]}]})", {"data is given twice"});
  refused(R"({"id":5})", {"'id' has the wrong JSON type"});
  std::string wrong_output = echo_body();
  refused(wrong_output.insert(1, R"("outputs":[{"name":"q"}],)"), {"no output 'q'"});
  wrong_output = echo_body();
  refused(wrong_output.insert(1, R"("outputs":[{"name":"y"},{"name":"y"}],)"), {"output 'y' is asked for twice"});
  EXPECT_EQ(host.counted_.back(), (std::pair<std::string, int>{"echo", 400}));
}

TEST_F(V2, HostileDocuments) {
  for (const char* text : {"", "{", "[]", "[1]", "null", "\"x\"", "5", "{}x", "{\"inputs\"", "\xff\xfe", "{\"a\":\"\xff\"}"}) refused(text, {});
  refused("{}", {"is missing"});
  refused(std::string(1'000'000, '['), {"not a JSON object"});
  refused(R"({"a":)" + std::string(1'000'000, '['), {"nested too deeply"});
  std::string objects = R"({"a":)";
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  refused(objects, {"nested too deeply"});
  refused(free_body(std::string(100'000, '['), "[1]"), {"nested too deeply"}, "free");
  refused(free_body("[1]", "[1000000000000,1000000000000]"), {"overflows"}, "free");
  refused(free_body("[1]", "[1000000000000]"), {"data has 1 values"}, "free");
  refused(free_body("[1]", "[" + std::string(100, '1') + "]"), {"shape"}, "free");
  std::string rank = "[1";
  for (int i = 0; i < 40; ++i) rank += ",1";
  refused(free_body("[1]", rank + "]"), {"too many dimensions"}, "free");
  const std::string long_name(5000, 'n');
  const HttpResponse r = infer(R"({"inputs":[{"name":")" + long_name + R"("}]})");
  EXPECT_EQ(r.status, 400);
  EXPECT_LT(r.body.size(), 300u);
}

TEST_F(V2, ScalarsEmptyTensorsAndFreeRank) {
  EXPECT_EQ(infer(free_body("[2.5]", "[]"), "free").status, 200);
  EXPECT_EQ(infer(free_body("[]", "[0]"), "free").status, 200);
  EXPECT_EQ(infer(free_body("[[],[]]", "[2,0]"), "free").status, 200);
  EXPECT_EQ(infer(free_body("[[[1],[2]]]", "[1,2,1]"), "free").status, 200);
}

TEST_F(V2, NanInOutputNeedsBinary) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::string head = R"({"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]})";
  const HttpResponse r = call("POST", "/v2/models/free/infer", head + std::string(reinterpret_cast<const char*>(&nan), 4),
                              {{"Inference-Header-Content-Length", std::to_string(head.size())}});
  EXPECT_EQ(r.status, 406);
  EXPECT_THAT(r.body, HasSubstr("model 'free': output 'y': holds nan"));
}

TEST_F(V2, HostErrorsPassThrough) {
  host.status_ = 503;
  const HttpResponse r = infer(echo_body());
  EXPECT_EQ(r.status, 503);
  EXPECT_EQ(json::parse(r.body).at("error"), "model 'echo': queue is full");
  ASSERT_FALSE(r.headers.empty());
  EXPECT_EQ(r.headers[0].first, "Retry-After");
}

// Extremes of every type survive the trip through JSON; one step beyond is refused.
TEST(V2Types, RangesOfEveryType) {
  struct Case {
    const char *name, *good, *bad;
  };
  const Case cases[] = {
      {"BOOL", "[true,false,1,0]", "[2,0,0,0]"},
      {"UINT8", "[0,255,1,2]", "[256,0,0,0]"},
      {"UINT16", "[0,65535,1,2]", "[-1,0,0,0]"},
      {"UINT32", "[0,4294967295,1,2]", "[4294967296,0,0,0]"},
      {"UINT64", "[0,18446744073709551615,9223372036854775808,2]", "[18446744073709551616,0,0,0]"},
      {"INT8", "[-128,127,0,1]", "[128,0,0,0]"},
      {"INT16", "[-32768,32767,0,1]", "[-32769,0,0,0]"},
      {"INT32", "[-2147483648,2147483647,0,1]", "[2147483648,0,0,0]"},
      {"INT64", "[-9223372036854775808,9223372036854775807,0,1]", "[9223372036854775808,0,0,0]"},
      {"FP16", "[65504,-65504,0.5,1]", "[70000,0,0,0]"},
      {"BF16", "[1,-2,0.5,3]", "[1e39,0,0,0]"},
      {"FP32", "[3.4028235e38,-1.1754944e-38,0.1,1]", "[1e39,0,0,0]"},
      {"FP64", "[1.7976931348623157e308,-5e-324,0.1,1]", "[1e309,0,0,0]"},
      {"FP64", "[18446744073709551615,-3,0.25,9]", "[true,0,0,0]"},
      {"FP64", "[-3,18446744073709551615,0.25,9]", "[null,0,0,0]"},
      {"UINT64", "[1,2,3,4]", "[18446744073709551615,-3,1,1]"},
  };
  for (const Case& c : cases) {
    const DType dtype = v2_dtype_from_name(c.name);
    const ModelInfo model{"m", {{"x", dtype, true, {4}}}, {{"y", dtype, true, {4}}}, 0};
    auto body = [&](const char* data) {
      return fmt::format(R"({{"inputs":[{{"name":"x","shape":[4],"datatype":"{}","data":{}}}]}})", c.name, data);
    };
    const InferRequest request = parse_infer_request(body(c.good), -1, model);
    const json reply = json::parse(write_infer_response(model, request, request.inputs).body);
    const json sent = json::parse(c.good), back = reply.at("outputs")[0].at("data");
    if (dtype == DType::kBool) EXPECT_EQ(back, json::parse("[true,false,true,false]"));
    else if (dtype == DType::kF32) EXPECT_EQ(back.get<std::vector<float>>(), sent.get<std::vector<float>>());
    else if (is_float(dtype)) EXPECT_EQ(back.get<std::vector<double>>(), sent.get<std::vector<double>>()) << c.name;
    else EXPECT_EQ(back, sent) << c.name;
    EXPECT_THROW(parse_infer_request(body(c.bad), -1, model), Error) << c.name << " " << c.bad;
  }
}

}  // namespace
}  // namespace ds::serve
