#include "libds/tasks/init.h"

#include <cmath>

#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/run/session.h"
#include "tests/data/files.h"

namespace ds {
namespace {

using testing::expect_error;

ArchOptions options_of(const std::string& arch) {
  ArchOptions o;
  o.arch = arch;
  o.seed = 3;
  return o;
}

ArchOptions tiny_bert() {
  ArchOptions o = options_of("bert");
  o.hidden = 32, o.layers = 2, o.heads = 4, o.ffn = 64, o.vocab = 100, o.max_length = 16, o.classes = 3;
  return o;
}

int64_t parameters(const Graph& g) {
  int64_t n = 0;
  for (ValueId id : g.initializers())
    if (g.value(id).dtype == DType::kF32) n += g.value(id).constant->numel();
  return n;
}

const Tensor& parameter(const Graph& g, std::string_view name) {
  const ValueId id = g.find_value(name);
  EXPECT_NE(id, kNone) << name;
  return *g.value(id).constant;
}

TEST(Init, MlpIsPlainOnnxAndComputesItsFormula) {
  ArchOptions o = options_of("mlp");
  o.features = 3, o.classes = 2, o.hidden_sizes = {4};
  const auto g = build_arch(o);
  verify_graph(*g);
  EXPECT_EQ(g->type_string(g->inputs()[0]), "f32[batch,3]");
  EXPECT_EQ(g->type_string(g->outputs()[0]), "f32[batch,2]");
  EXPECT_EQ(parameters(*g), 3 * 4 + 4 + 4 * 2 + 2);
  const Tensor x = Tensor::of<float>({1, 3}, {1, -2, 0.5f});
  const Tensor y = Session(g).run(std::vector<Tensor>{x})[0];
  const float *w1 = parameter(*g, "fc1.weight").data<float>(), *w2 = parameter(*g, "fc2.weight").data<float>();
  for (int c = 0; c < 2; ++c) {
    double want = 0;
    for (int h = 0; h < 4; ++h) want += w2[c * 4 + h] * std::max(0.0, 1.0 * w1[h * 3] - 2.0 * w1[h * 3 + 1] + 0.5 * w1[h * 3 + 2]);
    EXPECT_NEAR(y.data<float>()[c], want, 1e-5);
  }
}

TEST(Init, TheSeedDecidesEveryByte) {
  ArchOptions o = options_of("mlp");
  const std::string a = serialize_model(*build_arch(o));
  EXPECT_EQ(a, serialize_model(*build_arch(o)));
  o.seed = 4;
  EXPECT_NE(a, serialize_model(*build_arch(o)));
}

TEST(Init, ALayerKeepsItsWeightsWhenAnotherChangesSize) {
  ArchOptions o = options_of("mlp");
  const auto a = build_arch(o);
  o.classes = 7;
  EXPECT_TRUE(parameter(*a, "fc1.weight").equal_bits(parameter(*build_arch(o), "fc1.weight")));
}

TEST(Init, PixelScalingIsPartOfTheGraph) {
  ArchOptions o = options_of("mlp");
  o.features = 2, o.hidden_sizes = {3};
  const auto plain = build_arch(o);
  o.scale = 1 / 255.0, o.mean = {0.1307}, o.std = {0.3081}, o.input_dtype = DType::kU8;
  const auto scaled = build_arch(o);
  EXPECT_EQ(scaled->type_string(scaled->inputs()[0]), "u8[batch,2]");
  const auto by_hand = [](double pixel) { return static_cast<float>((pixel / 255 - 0.1307) / 0.3081); };
  const Tensor want = Session(plain).run(std::vector<Tensor>{Tensor::of<float>({1, 2}, {by_hand(0), by_hand(200)})})[0];
  const Tensor got = Session(scaled).run(std::vector<Tensor>{Tensor::of<uint8_t>({1, 2}, {0, 200})})[0];
  for (int64_t i = 0; i < want.numel(); ++i) EXPECT_NEAR(got.data<float>()[i], want.data<float>()[i], 1e-5);
}

TEST(Init, LenetFitsDigits) {
  const auto g = build_arch(options_of("lenet"));
  verify_graph(*g);
  EXPECT_EQ(g->type_string(g->inputs()[0]), "f32[batch,1,28,28]");
  EXPECT_EQ(g->type_string(g->outputs()[0]), "f32[batch,10]");
  // Weights outweigh everything else in the file by far.
  const std::string file = serialize_model(*g);
  EXPECT_LT(static_cast<double>(file.size()), 4.1 * static_cast<double>(parameters(*g)));
  const Tensor y = Session(g).run(std::vector<Tensor>{Tensor::zeros(DType::kF32, {3, 1, 28, 28})})[0];
  EXPECT_EQ(y.shape(), (Shape{3, 10}));
}

TEST(Init, ResnetsHaveTheirPublishedSizes) {
  // torchvision's counts, with the running statistics (two a batch-norm channel) beside the parameters.
  const std::pair<const char*, int64_t> sizes[] = {{"resnet18", 11'689'512 + 9'600}, {"resnet50", 25'557'032 + 53'120}};
  for (const auto& [name, count] : sizes) {
    const auto g = build_arch(options_of(name));
    EXPECT_EQ(parameters(*g), count) << name;
    EXPECT_EQ(g->type_string(g->outputs()[0]), "f32[batch,1000]");
    EXPECT_NE(g->find_value("layer1.0.conv1.weight"), kNone);
    EXPECT_NE(g->find_value("layer2.0.downsample.1.running_var"), kNone);
  }
  ArchOptions small = options_of("resnet18");
  small.small_stem = true, small.classes = 10;
  const auto g = build_arch(small);
  EXPECT_EQ(g->type_string(g->inputs()[0]), "f32[batch,3,32,32]");
}

TEST(Init, BertHasOpenBatchAndLengthAndIgnoresPadding) {
  const auto g = build_arch(tiny_bert());
  verify_graph(*g);
  EXPECT_EQ(g->type_string(g->inputs()[0]), "i64[batch,sequence]");
  EXPECT_EQ(g->type_string(g->outputs()[0]), "f32[batch,3]");
  Session session(g);
  const Tensor short_ids = Tensor::of<int64_t>({1, 3}, {5, 6, 7}), short_mask = Tensor::of<int64_t>({1, 3}, {1, 1, 1});
  const Tensor long_ids = Tensor::of<int64_t>({1, 5}, {5, 6, 7, 99, 98}), long_mask = Tensor::of<int64_t>({1, 5}, {1, 1, 1, 0, 0});
  const Tensor a = session.run(std::vector<Tensor>{short_ids, short_mask})[0], b = session.run(std::vector<Tensor>{long_ids, long_mask})[0];
  ASSERT_EQ(a.shape(), (Shape{1, 3}));
  for (int64_t i = 0; i < 3; ++i) EXPECT_NEAR(a.data<float>()[i], b.data<float>()[i], 1e-5);
  EXPECT_TRUE(session.eager_reason().empty()) << session.eager_reason();
}

TEST(Init, FilesComeBackAsTheyWere) {
  testing::Folder folder;
  for (const ArchOptions& o : {options_of("lenet"), tiny_bert()}) {
    const auto g = build_arch(o);
    const std::string path = folder.path(o.arch + ".onnx");
    save_model(*g, path);
    const auto back = load_model(path);
    EXPECT_EQ(back->opsets.at(""), 17);
    EXPECT_EQ(serialize_model(*back), read_file(path)) << o.arch;
  }
}

TEST(Init, BadOptionsAreUsageErrors) {
  const auto reject = [](const ArchOptions& o, std::string_view part) { expect_error([&] { build_arch(o); }, part, ExitCode::kUsage); };
  reject(options_of("vgg"), "unknown architecture 'vgg' (known: mlp, lenet");
  ArchOptions o = options_of("mlp");
  o.classes = 0;
  reject(o, "--classes 0");
  o = options_of("mlp"), o.features = 3, o.image_size = 28;
  reject(o, "exclude each other");
  o = options_of("mlp"), o.mean = {1, 2, 3};
  reject(o, "--mean has 3 values");
  o = options_of("mlp"), o.std = {0};
  reject(o, "--std 0 is not above 0");
  o = options_of("lenet"), o.hidden = 3;
  reject(o, "lenet: --hidden means nothing");
  o = options_of("lenet"), o.image_size = 7;
  reject(o, "below 8");
  o = tiny_bert(), o.heads = 5;
  reject(o, "not divisible");
  o = tiny_bert(), o.attention = "linear";
  reject(o, "attention 'linear' is not known");
  o = tiny_bert(), o.image_size = 28;
  reject(o, "--image-size means nothing");
}

}  // namespace
}  // namespace ds
