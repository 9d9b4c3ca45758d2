// Damaged models: every outcome must be a graph or one ds::Error of the documented kind, never a
// crash, another exception or an internal error. Deterministic; the libFuzzer target (tests/fuzz)
// searches further, and what it finds is kept in testdata/fuzz/onnx and replayed here.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "libds/base/random.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "tests/ir/model_builder.h"
#include "tests/support/fuzz_onnx.h"

namespace ds {
namespace {

using test::ModelBuilder;
using test::set_attr;
using Ints = std::vector<int64_t>;

// A model with something of everything that reads attributes, constants and shapes.
ModelBuilder varied_model(int64_t opset) {
  ModelBuilder b(opset);
  b.input("x", {"n", "3", "8", "8"});
  b.floats("w", {4, 3, 3, 3}, std::vector<float>(108, 0.1f));
  b.floats("fc", {16, 5}, std::vector<float>(80, 0.2f));
  b.floats("bias", {5}, {1, 2, 3, 4, 5});
  b.ints("target", {0, -1});
  auto& conv = b.node("Conv", {"x", "w"}, {"c"}, "conv");
  set_attr(conv, "pads", Ints{1, 1, 1, 1});
  set_attr(conv, "strides", Ints{2, 2});
  set_attr(conv, "group", int64_t{1});
  b.node("Relu", {"c"}, {"r"}, "relu");
  auto& pool = b.node("MaxPool", {"r"}, {"p"}, "pool");
  set_attr(pool, "kernel_shape", Ints{2, 2});
  set_attr(pool, "strides", Ints{2, 2});
  b.node("Reshape", {"p", "target"}, {"f"}, "flat");
  auto& gemm = b.node("Gemm", {"f", "fc", "bias"}, {"g"}, "gemm");
  set_attr(gemm, "alpha", 0.5f);
  b.node("Shape", {"g"}, {"s"}, "shape");
  auto& slice_out = b.node("Transpose", {"g"}, {"t"}, "turn");
  set_attr(slice_out, "perm", Ints{1, 0});
  auto& concat = b.node("Concat", {"t", "t"}, {"k"}, "join");
  set_attr(concat, "axis", int64_t{1});
  if (opset >= 13) {
    b.ints("axes", {0});
    b.node("Unsqueeze", {"k", "axes"}, {"u"}, "wide");
    b.ints("starts", {0});
    b.ints("ends", {2});
    b.node("Slice", {"u", "starts", "ends", "axes"}, {"y"}, "cut");
  } else {
    set_attr(b.node("Unsqueeze", {"k"}, {"u"}, "wide"), "axes", Ints{0});
    auto& slice = b.node("Slice", {"u"}, {"y"}, "cut");
    set_attr(slice, "axes", Ints{1});
    set_attr(slice, "starts", Ints{0});
    set_attr(slice, "ends", Ints{2});
  }
  b.output("y", {"1", "a", "b"});
  b.output("s", {"2"}, 7);
  return b;
}

void expect_sound(const std::string& bytes, const std::string& what) {
  try {
    const auto g = parse_model(bytes);
    serialize_model(*g);
  } catch (const Error& e) {
    EXPECT_TRUE(e.code() == ExitCode::kBadData || e.code() == ExitCode::kUnsupported) << what << ": " << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << what << ": " << e.what();
  } catch (const std::exception& e) {
    ADD_FAILURE() << what << ": " << e.what();
  }
}

TEST(OnnxMutation, TheModelsThemselvesAreGood) {
  for (int64_t opset : {9, 17}) EXPECT_NO_THROW(parse_model(varied_model(opset).bytes()));
}

TEST(OnnxMutation, DamagedBytes) {
  for (int64_t opset : {9, 17}) {
    const std::string good = varied_model(opset).bytes();
    for (uint64_t round = 0; round < 1500; ++round) {
      std::string bytes = good;
      Random random(round);
      const int edits = 1 + static_cast<int>(round % 3);
      for (int e = 0; e < edits; ++e) {
        const uint64_t r = random.u64();
        const size_t at = r % bytes.size();
        switch ((r >> 32) % 4) {
          case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << ((r >> 40) % 8))); break;
          case 1: bytes[at] = static_cast<char>(r >> 48); break;
          case 2: bytes.erase(at, 1 + (r >> 40) % 4); break;
          default: bytes.insert(at, 1, static_cast<char>(r >> 48)); break;
        }
        if (bytes.empty()) bytes = "x";
      }
      expect_sound(bytes, fmt::format("opset {}, round {}", opset, round));
    }
  }
}

// Changes that keep the message well-formed, so that they reach the operators.
TEST(OnnxMutation, DamagedNumbers) {
  const Ints evil = {0, 1, -1, 2, 7, -7, 64, 1LL << 31, 1LL << 62, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  for (int64_t opset : {9, 17}) {
    const ModelBuilder good = varied_model(opset);
    for (int n = 0; n < good.model.graph().node_size(); ++n) {
      for (int a = 0; a < good.model.graph().node(n).attribute_size(); ++a) {
        for (int64_t value : evil) {
          ModelBuilder b = good;
          auto& attr = *b.graph().mutable_node(n)->mutable_attribute(a);
          const std::string what = fmt::format("opset {}, node {}, {} = {}", opset, b.graph().node(n).name(), attr.name(), value);
          if (attr.has_i()) attr.set_i(value);
          if (attr.ints_size() > 0) attr.set_ints(0, value);
          expect_sound(b.bytes(), what);
          if (attr.ints_size() > 0) {
            attr.set_ints(attr.ints_size() - 1, value);
            attr.add_ints(value);
            expect_sound(b.bytes(), what + ", longer");
            attr.clear_ints();
            expect_sound(b.bytes(), what + ", none");
          }
          attr.set_type(onnx::AttributeProto::STRING);
          attr.set_s("what");
          expect_sound(b.bytes(), what + ", a string");
        }
      }
    }
    for (int i = 0; i < good.model.graph().initializer_size(); ++i) {
      for (int64_t value : evil) {
        ModelBuilder b = good;
        auto& t = *b.graph().mutable_initializer(i);
        if (t.int64_data_size() > 0) t.set_int64_data(0, value);
        expect_sound(b.bytes(), fmt::format("opset {}, {}[0] = {}", opset, t.name(), value));
        t.set_dims(0, value);
        expect_sound(b.bytes(), fmt::format("opset {}, {} dims {}", opset, t.name(), value));
      }
    }
    for (int d = 0; d < 4; ++d) {
      for (int64_t value : evil) {
        ModelBuilder b = good;
        b.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim(d)->set_dim_value(value);
        expect_sound(b.bytes(), fmt::format("opset {}, dim {} = {}", opset, d, value));
      }
    }
  }
}

// Every input of every node replaced by every other value, and by none.
TEST(OnnxMutation, CrossedWires) {
  for (int64_t opset : {9, 17}) {
    const ModelBuilder good = varied_model(opset);
    std::vector<std::string> names = {""};
    for (const auto& i : good.model.graph().input()) names.push_back(i.name());
    for (const auto& t : good.model.graph().initializer()) names.push_back(t.name());
    for (const auto& n : good.model.graph().node()) names.push_back(n.output(0));
    for (int n = 0; n < good.model.graph().node_size(); ++n)
      for (int i = 0; i < good.model.graph().node(n).input_size(); ++i)
        for (const std::string& name : names) {
          ModelBuilder b = good;
          b.graph().mutable_node(n)->set_input(i, name);
          expect_sound(b.bytes(), fmt::format("opset {}, node {}, input {} = '{}'", opset, b.graph().node(n).name(), i, name));
        }
  }
}

TEST(OnnxMutation, CorpusReplays) {
  const std::filesystem::path folder = std::filesystem::path(DS_TESTDATA) / "fuzz" / "onnx";
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    expect_sound(bytes, entry.path().filename().string());
    EXPECT_NO_THROW(test::fuzz_onnx(bytes)) << entry.path();
    ++files;
  }
  EXPECT_GT(files, 0) << folder;
}

}  // namespace
}  // namespace ds
