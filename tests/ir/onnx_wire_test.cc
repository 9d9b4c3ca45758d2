// Weights that stay in the file: whatever the model, and wherever its tensors lie, it must load as if
// protobuf had read all of it.
#include <numeric>

#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/ir/onnx_wire.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::expect_error;
using test::Folder;
using test::ModelBuilder;

std::string raw_floats(int64_t n, float first = 0) {
  std::vector<float> values(static_cast<size_t>(n));
  std::iota(values.begin(), values.end(), first);
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::shared_ptr<Graph> load(const std::string& bytes, size_t in_place_bytes, bool unknown = false) {
  ImportOptions options;
  options.in_place_bytes = in_place_bytes;
  options.allow_unknown_ops = unknown;
  return parse_model(bytes, {}, options);
}

void expect_same(const ModelBuilder& b, bool unknown = false) {
  const std::string bytes = b.bytes();
  const std::string by_protobuf = serialize_model(*load(bytes, bytes.size() + 1, unknown));
  for (size_t least : {size_t{1}, size_t{30}, size_t{1024}}) EXPECT_EQ(serialize_model(*load(bytes, least, unknown)), by_protobuf) << least;
}

ModelBuilder adding(const std::string& weight, int64_t n) {
  ModelBuilder b;
  b.input("x", {std::to_string(n)});
  b.node("Add", {"x", weight}, {"y"}, "sum");
  b.output("y", {std::to_string(n)});
  return b;
}

TEST(OnnxWire, EveryFieldThatHoldsData) {
  for (int n : {1, 7, 300}) {
    ModelBuilder b = adding("raw", n);
    b.initializer("raw", {n}, 1).set_raw_data(raw_floats(n));
    const auto each = [&](const std::string& name, int dtype, auto add) {
      auto& t = b.initializer(name, {n}, dtype);
      for (int i = 0; i < n; ++i) add(t, i);
      b.node("Identity", {name}, {name + "_out"}, name);
      b.output(name + "_out", {std::to_string(n)}, dtype);
    };
    each("f32", 1, [](auto& t, int i) { t.add_float_data(0.5f * static_cast<float>(i)); });
    each("f64", 11, [](auto& t, int i) { t.add_double_data(i / 3.0); });
    each("i64", 7, [](auto& t, int i) { t.add_int64_data(i % 2 ? INT64_MIN + i : int64_t{i} << 33); });
    each("u64", 13, [](auto& t, int i) { t.add_uint64_data(UINT64_MAX - static_cast<uint64_t>(i)); });
    each("u32", 12, [](auto& t, int i) { t.add_uint64_data(UINT32_MAX - static_cast<uint32_t>(i)); });
    each("i32", 6, [](auto& t, int i) { t.add_int32_data(i % 2 ? INT32_MIN + i : i); });
    each("i16", 5, [](auto& t, int i) { t.add_int32_data(-i * 100); });
    each("u8", 2, [](auto& t, int i) { t.add_int32_data(i % 256); });
    each("f16", 10, [](auto& t, int i) { t.add_int32_data(0x3c00 + i); });
    each("bf16", 16, [](auto& t, int i) { t.add_int32_data(0x3f80 + i); });
    each("bool", 9, [](auto& t, int i) { t.add_int32_data(i % 3); });
    auto& bools = b.initializer("raw_bool", {n}, 9);
    bools.set_raw_data(std::string(static_cast<size_t>(n), '\x05'));
    b.node("Identity", {"raw_bool"}, {"raw_bool_out"}, "raw_bool");
    b.output("raw_bool_out", {std::to_string(n)}, 9);
    expect_same(b);
    const auto g = load(b.bytes(), 1);
    EXPECT_EQ(g->value(g->find_value("raw_bool")).constant->to_ints(), std::vector<int64_t>(static_cast<size_t>(n), 1));
  }
}

TEST(OnnxWire, AttributesAndConstants) {
  ModelBuilder b = adding("w", 40);
  auto& a = *b.node("Constant", {}, {"w"}, "c").add_attribute();
  a.set_name("value");
  a.set_type(onnx::AttributeProto::TENSOR);
  a.mutable_t()->set_data_type(1);
  a.mutable_t()->add_dims(40);
  a.mutable_t()->set_raw_data(raw_floats(40));
  expect_same(b);
}

// What is kept as it came must come out whole: nothing of the marks may be left in it.
TEST(OnnxWire, AttributesOfUnknownOperators) {
  ModelBuilder b = adding("w", 40);
  b.initializer("w", {40}, 1).set_raw_data(raw_floats(40));
  auto& odd = b.node("Odd", {"x"}, {"z"}, "odd");
  odd.set_domain("com.example");
  auto& one = *odd.add_attribute();
  one.set_name("one");
  one.set_type(onnx::AttributeProto::TENSOR);
  auto& list = *odd.add_attribute();
  list.set_name("list");
  list.set_type(onnx::AttributeProto::TENSORS);
  auto& body = *odd.add_attribute();
  body.set_name("body");
  body.set_type(onnx::AttributeProto::GRAPH);
  body.mutable_g()->set_name("inner");
  for (auto* t : {one.mutable_t(), list.add_tensors(), list.add_tensors(), body.mutable_g()->add_initializer()}) {
    t->set_name("t");
    t->set_data_type(1);
    t->add_dims(40);
    t->set_raw_data(raw_floats(40, 7));
  }
  auto* typed = body.mutable_g()->add_initializer();
  typed->set_name("typed");
  typed->set_data_type(7);
  typed->add_dims(50);
  for (int i = 0; i < 50; ++i) typed->add_int64_data(-i);
  expect_same(b, true);
  onnx::ModelProto saved;
  ASSERT_TRUE(saved.ParseFromString(serialize_model(*load(b.bytes(), 1, true))));
  const onnx::NodeProto* node = nullptr;
  for (const auto& n : saved.graph().node())
    if (n.op_type() == "Odd") node = &n;
  ASSERT_NE(node, nullptr);
  for (const auto& attr : node->attribute()) {
    if (attr.name() != "body") continue;
    EXPECT_EQ(attr.g().initializer(0).raw_data(), raw_floats(40, 7));
    EXPECT_EQ(attr.g().initializer(1).int64_data(49), -49);
  }
}

// Data given twice, in unpacked lists and next to fields nobody knows.
TEST(OnnxWire, UnusualEncodings) {
  const auto tensor_model = [](const std::string& tensor_bytes) {
    ModelBuilder b = adding("w", 16);
    std::string bytes = b.bytes();
    // graph { initializer { ... } }, to be merged with the graph that is there
    const auto field = [](int number, const std::string& body) {
      std::string text(1, static_cast<char>((number << 3) | 2));
      for (size_t n = body.size(); ; n >>= 7) {
        text.push_back(static_cast<char>(n >= 0x80 ? (n & 0x7f) | 0x80 : n));
        if (n < 0x80) break;
      }
      return text + body;
    };
    return bytes + field(7, field(5, tensor_bytes));
  };
  const std::string head("\x08\x10\x10\x01\x42\x01w", 7);  // dims 16, data_type 1, name "w"
  const std::string data = raw_floats(16, 3);
  const std::string raw = "\x4a\x40" + data, floats = "\x22\x40" + data;
  std::string unpacked;
  for (size_t i = 0; i < 16; ++i) unpacked += "\x25" + data.substr(4 * i, 4);
  const std::string group("\xcb\x06\x08\x01\xd3\x06\xd4\x06\xcc\x06", 10);  // field 105 { 1: 1, field 106 {} }
  for (const std::string& tensor : {head + raw, raw + head, head + floats, head + unpacked, head + raw + raw, head + group + raw,
                                    head + "\xfa\x07\x03" "abc" + raw, head + floats.substr(0, 2) + data}) {
    const std::string bytes = tensor_model(tensor);
    const auto a = load(bytes, 1), b = load(bytes, bytes.size() + 1);
    EXPECT_EQ(serialize_model(*a), serialize_model(*b));
    EXPECT_EQ(a->value(a->find_value("w")).constant->to_doubles()[15], 18.0);
  }
  // Half the data in each of two lists; a number that never ends; a group that does.
  const std::string half = std::string("\x22\x20") + data.substr(0, 32) + "\x22\x20" + data.substr(32);
  EXPECT_EQ(serialize_model(*load(tensor_model(head + half), 1)), serialize_model(*load(tensor_model(head + half), 1 << 20)));
  for (const std::string& tensor : {head + "\x2a\x02\xff\xff", head + "\x22\x03" "abc", head + "\xcb\x06\x08\x01", head + "\xcb\x06\xd4\x06",
                                    head + "\x4a\x7f" "abc", head + std::string(11, '\xff'), head + std::string("\x02\x00", 2)})
    expect_error(ExitCode::kBadData, {"not an ONNX model"}, [&] { load(tensor_model(tensor), 1); });
}

TEST(OnnxWire, AMarkInTheFileIsJustData) {
  // No file can hold the number that is drawn after it was written; what looks like a mark is data.
  const wire::Marker marker;
  ModelBuilder b = adding("w", 5);
  b.initializer("w", {5}, 1).set_raw_data(marker.text(0));
  expect_same(b);
  EXPECT_FALSE(wire::Marker().payload(marker.text(0)).has_value());
  EXPECT_EQ(marker.payload(marker.text(0xfedcba98u)), 0xfedcba98u);
}

TEST(OnnxWire, TakingOutAndPuttingInGiveTheSameBytes) {
  ModelBuilder b = adding("w", 400);
  b.initializer("w", {400}, 1).set_raw_data(raw_floats(400));
  b.ints("axes", std::vector<int64_t>(200, -1));
  auto* inner = b.graph().mutable_node(0)->add_attribute();
  inner->set_name("g");
  for (int i = 0; i < 3; ++i) {
    auto* t = inner->mutable_g()->add_initializer();
    t->set_data_type(1);
    t->set_raw_data(raw_floats(i * 100));
  }
  const std::string bytes = b.bytes();
  const wire::Marker marker;
  std::string frame;
  std::vector<wire::Payload> payloads;
  ASSERT_EQ(wire::take_out(bytes, 64, marker, frame, payloads), wire::Verdict::kOk);
  EXPECT_EQ(payloads.size(), 4u);
  EXPECT_LT(frame.size(), 600u);
  const wire::Layout layout = wire::put_in(frame, wire::Message::kModel, marker, [&](uint32_t i) {
    return wire::Room{payloads[i].field, payloads[i].bytes.size()};
  });
  EXPECT_EQ(layout.total_bytes, bytes.size());
  std::string whole;
  size_t done = 0;
  for (const wire::Cut& cut : layout.cuts) {
    whole += layout.frame.substr(done, cut.at - done);
    whole += payloads[cut.index].bytes;
    done = cut.at;
  }
  EXPECT_EQ(whole + layout.frame.substr(done), bytes);
}

// Whether a tensor's memory lies in a mapping of that file.
bool in_file(const Tensor& t, const std::string& path) {
  std::ifstream maps("/proc/self/maps");
  const auto address = reinterpret_cast<uintptr_t>(t.raw());
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2 && begin <= address && address < end) return line.find(path) != std::string::npos;
  }
  return false;
}

TEST(OnnxWire, AlignedWeightsLieInTheFile) {
  Folder folder;
  constexpr int64_t kN = 20000;
  int in_place = 0;
  for (int padding = 0; padding < 4; ++padding) {
    ModelBuilder b = adding("w", kN);
    auto& t = b.initializer("w", {kN}, 1);
    t.set_raw_data(raw_floats(kN, 5));
    t.set_name("w");
    b.model.set_producer_name(std::string(static_cast<size_t>(padding + 1), 'p'));
    const std::string path = folder.write(fmt::format("m{}.onnx", padding), b.bytes());
    const auto g = load_model(path);
    const Tensor& w = *g->value(g->find_value("w")).constant;
    EXPECT_EQ(w.span<float>()[kN - 1], static_cast<float>(kN + 4));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(w.raw()) % alignof(float), 0u);
    in_place += in_file(w, path);
    std::filesystem::remove(path);  // the mapping stays
    EXPECT_EQ(w.transient().span<float>()[1], 6.0f);
    EXPECT_EQ(w.span<float>()[1], 6.0f);
  }
  EXPECT_EQ(in_place, 1);
}

}  // namespace
}  // namespace ds
