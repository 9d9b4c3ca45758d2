// Models whose weights lie in a file beside them, as this library writes them.
#include <sys/resource.h>

#include <csignal>
#include <numeric>

#include "libds/base/file.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/ir/rewriter.h"
#include "tests/ir/model_builder.h"

namespace ds {
namespace {

using test::expect_error;
using test::Folder;
using test::ModelBuilder;

// x + small + a + b -> y, with two weights of 2000 floats and one of 4.
std::string model_bytes(float first = 0) {
  ModelBuilder b;
  b.input("x", {"500", "4"});
  b.floats("small", {4}, {1, 2, 3, 4});
  for (const char* name : {"a", "b"}) {
    std::vector<float> values(2000);
    std::iota(values.begin(), values.end(), first);
    b.initializer(name, {500, 4}, 1).set_raw_data(std::string(reinterpret_cast<const char*>(values.data()), 8000));
  }
  b.node("Add", {"x", "small"}, {"s"}, "one");
  b.node("Add", {"s", "a"}, {"t"}, "two");
  b.node("Add", {"t", "b"}, {"y"}, "three");
  b.output("y", {"500", "4"});
  return b.bytes();
}

onnx::ModelProto as_message(const std::string& path) {
  onnx::ModelProto model;
  EXPECT_TRUE(model.ParseFromString(read_file(path)));
  return model;
}

const Tensor& weight(const Graph& g, const char* name) { return *g.value(g.find_value(name)).constant; }

int files_in(const Folder& folder) {
  const auto list = std::filesystem::directory_iterator(folder / "");
  return static_cast<int>(std::distance(begin(list), end(list)));
}

TEST(OnnxExternalWrite, OnRequest) {
  Folder folder;
  const auto g = parse_model(model_bytes());
  const std::string path = folder / "m.onnx";
  save_model(*g, path, {.external_data = true});
  EXPECT_EQ(files_in(folder), 2);
  EXPECT_EQ(std::filesystem::file_size(folder / "m.onnx.data"), 8192u + 8000u);
  const onnx::ModelProto model = as_message(path);
  for (const auto& t : model.graph().initializer()) {
    EXPECT_EQ(t.has_raw_data(), t.name() == "small");
    if (t.has_raw_data()) continue;
    ASSERT_EQ(t.external_data_size(), 3);
    EXPECT_EQ(t.data_location(), onnx::TensorProto::EXTERNAL);
    EXPECT_EQ(t.external_data(0).value(), "m.onnx.data");
    EXPECT_EQ(std::stoll(t.external_data(1).value()) % 4096, 0);
    EXPECT_EQ(t.external_data(2).value(), "8000");
  }
  const auto back = load_model(path);
  EXPECT_EQ(serialize_model(*back), serialize_model(*g));
  save_model(*back, folder / "n.onnx", {.external_data = true});
  EXPECT_EQ(read_file(folder / "n.onnx.data"), read_file(folder / "m.onnx.data"));
}

TEST(OnnxExternalWrite, WhenOneFileIsTooSmall) {
  Folder folder;
  const auto g = parse_model(model_bytes());
  const size_t whole = serialize_model(*g).size();
  ExportOptions options;
  options.most_bytes = whole;
  save_model(*g, folder / "fits.onnx", options);
  EXPECT_EQ(files_in(folder), 1);
  options.most_bytes = whole - 1;
  EXPECT_EQ(serialize_model(*g).size(), whole);
  expect_error(ExitCode::kUnsupported, {"one file holds at most"}, [&] { serialize_model(*g, options); });
  save_model(*g, folder / "m.onnx", options);
  EXPECT_TRUE(file_exists(folder / "m.onnx.data"));
  EXPECT_EQ(serialize_model(*load_model(folder / "m.onnx")), serialize_model(*g));
  options.most_bytes = 100;
  expect_error(ExitCode::kUnsupported, {"without its weights"}, [&] { save_model(*g, folder / "never.onnx", options); });
  EXPECT_EQ(files_in(folder), 3);
}

TEST(OnnxExternalWrite, StreamsAndDevicesTakeNone) {
  const auto g = parse_model(model_bytes());
  ExportOptions options;
  options.most_bytes = 5000;
  expect_error(ExitCode::kUnsupported, {"standard output", "beside the model", "bytes"}, [&] { save_model(*g, "-", options); });
  expect_error(ExitCode::kUnsupported, {"/dev/null", "beside the model"}, [&] { save_model(*g, "/dev/null", {.external_data = true}); });
}

TEST(OnnxExternalWrite, OverTheFilesItIsReadFrom) {
  Folder folder;
  const std::string path = folder / "m.onnx";
  save_model(*parse_model(model_bytes(1)), path, {.external_data = true});
  auto g = load_model(path);
  const Tensor a = weight(*g, "a");
  Rewriter rw(*g);
  rw.set_constant(g->find_value("b"), std::make_shared<const Tensor>(Tensor::zeros(DType::kF32, {500, 4})));
  save_model(*g, path, {.external_data = true});
  EXPECT_EQ(a.span<float>()[1999], 2000.0f);  // still the old file's
  const auto back = load_model(path);
  EXPECT_TRUE(weight(*back, "a").equal_bits(a));
  EXPECT_EQ(weight(*back, "b").span<float>()[1999], 0.0f);
}

TEST(OnnxExternalWrite, NothingIsHalfWritten) {
  Folder folder;
  const std::string path = folder / "m.onnx";
  const auto g = parse_model(model_bytes());
  std::filesystem::create_directory(path + ".data");
  expect_error(ExitCode::kCantCreate, {"m.onnx.data", "folder"}, [&] { save_model(*g, path, {.external_data = true}); });
  EXPECT_EQ(files_in(folder), 1);
  std::filesystem::remove(path + ".data");

  save_model(*g, path, {.external_data = true});
  const std::string model = read_file(path), data = read_file(path + ".data");
  // A disk that is full after 10 kB.
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = 10000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto other = parse_model(model_bytes(5));
  expect_error(ExitCode::kIoError, {"m.onnx.data", "cannot write"}, [&] { save_model(*other, path, {.external_data = true}); });
  expect_error(ExitCode::kIoError, {"m.onnx", "cannot write"}, [&] { save_model(*other, path); });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(files_in(folder), 2);
  EXPECT_EQ(read_file(path), model);
  EXPECT_EQ(read_file(path + ".data"), data);
}

TEST(OnnxExternalWrite, SavingReadsWeightsWithoutKeepingThem) {
  Folder folder;
  constexpr int64_t kN = 1 << 16;
  ModelBuilder b;
  b.input("x", {std::to_string(kN)});
  b.initializer("w", {kN}, 1).set_raw_data(std::string(4 * kN, '\x3f'));
  b.node("Add", {"x", "w"}, {"y"});
  b.output("y", {std::to_string(kN)});
  for (int padding = 0; padding < 4; ++padding) {  // one of them aligned
    b.model.set_producer_name(std::string(static_cast<size_t>(padding + 1), 'p'));
    const auto g = load_model(folder.write("in.onnx", b.bytes()));
    const bool pending = weight(*g, "w").buffer()->pending();
    save_model(*g, folder / "out.onnx");
    EXPECT_EQ(weight(*g, "w").buffer()->pending(), pending);
    EXPECT_EQ(model_hash(*g), model_hash(*load_model(folder / "out.onnx")));
    EXPECT_EQ(weight(*load_model(folder / "out.onnx"), "w").data<float>()[kN - 1], weight(*g, "w").data<float>()[0]);
  }
}

}  // namespace
}  // namespace ds
