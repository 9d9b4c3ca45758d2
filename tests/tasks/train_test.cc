#include "libds/tasks/train/train.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "libds/base/file.h"
#include "libds/base/random.h"
#include "libds/data/npz.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/ir/rewriter.h"

namespace ds {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFeatures = 12, kClasses = 3, kSamples = 150;

// A folder of its own per test, removed at the end.
class Train : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("ds_train_{}_{}", testing::UnitTest::GetInstance()->current_test_info()->name(), ::getpid());
    fs::create_directories(folder_);
    save_model(mlp(), path("init.onnx"));
    write_dataset("data.npz", kClasses);
    options_.model = path("init.onnx");
    options_.data = path("data.npz");
    options_.output = path("out.onnx");
    options_.schedule = {ScheduleShape::kCosine, 0.1, 0.0, 3};
    options_.epochs = 4;
    options_.batch_size = 16;
    options_.seed = 5;
    options_.validation_split = 0.2;
    options_.threads = 2;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // Gemm 12 -> 16, Relu, MatMul + Add 16 -> 3, behind a subtraction that is preprocessing.
  static Graph mlp() {
    Graph g;
    g.opsets[""] = 17;
    Rewriter rw(g);
    const auto weight = [&](const char* name, Shape shape, double scale) {
      Random random(1, stream_of(name));
      Tensor t = Tensor::empty(DType::kF32, shape);
      for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data<float>()[i] = static_cast<float>(random.normal() * scale);
      return rw.add_constant(name, t);
    };
    const ValueId x = rw.add_input("x", DType::kF32, {g.symbol("batch"), kFeatures});
    ValueId y = rw.emit("Add", {x, weight("mean", {kFeatures}, 0.01)}, {}, "center");
    y = rw.emit("Gemm", {y, weight("fc1.weight", {16, kFeatures}, 0.3), weight("fc1.bias", {16}, 0.1)}, {{"transB", int64_t{1}}}, "fc1");
    y = rw.emit("MatMul", {rw.emit("Relu", {y}, {}, "relu"), weight("fc2.weight", {16, kClasses}, 0.3)}, {}, "fc2");
    rw.add_output(rw.emit("Add", {y, weight("fc2.bias", {kClasses}, 0.1)}, {}, "logits"));
    return g;
  }

  // Classes are told apart by which third of the features is largest.
  void write_dataset(const std::string& name, int64_t classes) const {
    Tensor x = Tensor::empty(DType::kF32, {kSamples, kFeatures});
    Tensor labels = Tensor::empty(DType::kI64, {kSamples});
    Random random(3);
    for (int64_t i = 0; i < kSamples; ++i) {
      const auto label = static_cast<int64_t>(random.below(static_cast<uint64_t>(classes)));
      labels.mutable_data<int64_t>()[i] = label;
      for (int64_t j = 0; j < kFeatures; ++j)
        x.mutable_data<float>()[i * kFeatures + j] = static_cast<float>(random.normal() * 0.5 + (j % kClasses == label ? 1.0 : 0.0));
    }
    write_npz(path(name), {{"x", x}, {"labels", labels}});
  }

  std::string trained_bytes(const std::string& output, const TrainCallbacks& callbacks = {}) {
    options_.output = path(output);
    train(options_, callbacks);
    return read_file(path(output));
  }

  fs::path folder_;
  TrainOptions options_;
};

TEST_F(Train, LearnsAndKeepsPreprocessingAndInterface) {
  const TrainResult r = train(options_);
  ASSERT_EQ(r.epochs.size(), 4u);
  EXPECT_LT(r.epochs.back().train_loss, r.epochs.front().train_loss);
  EXPECT_GE(r.epochs.back().validation_top1.value(), 0.8);
  const auto before = load_model(options_.model), after = load_model(options_.output);
  EXPECT_EQ(after->node_count(), before->node_count());
  const auto content = [](const Graph& g, const char* name) { return *g.value(g.find_value(name)).constant; };
  EXPECT_TRUE(content(*after, "mean").equal_bits(content(*before, "mean")));
  for (const char* name : {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"})
    EXPECT_FALSE(content(*after, name).equal_bits(content(*before, name))) << name;
}

TEST_F(Train, SameCommandTwiceGivesTheSameBytesAndEagerEqualsStatic) {
  const std::string once = trained_bytes("a.onnx");
  EXPECT_EQ(once, trained_bytes("b.onnx"));
  options_.static_plan = false;
  EXPECT_EQ(once, trained_bytes("c.onnx"));
  options_.seed = 6;
  EXPECT_NE(once, trained_bytes("d.onnx"));
}

TEST_F(Train, StoppedAndResumedEndsInTheSameBytes) {
  options_.graph.optimizer = OptimizerKind::kAdamW;
  options_.schedule.base = 0.01;
  options_.target_sparsity = 0.5;
  options_.keep_best = true;
  const std::string whole = trained_bytes("whole.onnx");
  options_.checkpoint_dir = path("checkpoints");
  options_.checkpoint_every = 2;
  options_.resume = true;  // the first time there is nothing to resume
  std::string resumed;
  for (int64_t stop_at : {3, 11, 1000}) {  // in mid-epoch, twice; then to the end
    std::atomic<bool> stop{false};
    TrainCallbacks callbacks;
    callbacks.stop = &stop;
    callbacks.on_step = [&](const TrainProgress& p) { stop = p.step >= stop_at; };
    resumed.clear();
    options_.output = path("resumed.onnx");
    const TrainResult r = train(options_, callbacks);
    EXPECT_EQ(r.interrupted, stop_at < 1000);
    EXPECT_EQ(fs::exists(options_.output), stop_at == 1000) << "an interrupted training left an output";
  }
  EXPECT_EQ(read_file(path("resumed.onnx")), whole);
}

// A kill at any moment loses at most the steps since the newest checkpoint: going on from an older
// one, as a killed run does, must give the same bytes.
TEST_F(Train, ResumingFromAnOlderCheckpointEndsInTheSameBytes) {
  const std::string whole = trained_bytes("whole.onnx");
  options_.checkpoint_dir = path("checkpoints");
  options_.checkpoint_every = 2;
  options_.keep_checkpoints = 100;
  trained_bytes("again.onnx");
  std::vector<fs::path> saved(fs::directory_iterator(options_.checkpoint_dir), fs::directory_iterator());
  ASSERT_GT(saved.size(), 3u);
  std::sort(saved.begin(), saved.end());
  for (size_t i = saved.size() / 2; i < saved.size(); ++i) fs::remove(saved[i]);
  options_.resume = true;
  EXPECT_EQ(trained_bytes("resumed.onnx"), whole);
}

TEST_F(Train, PruningReachesItsTargetAndFineTuningKeepsTheZeros) {
  options_.target_sparsity = 0.6;
  train(options_);
  const auto zeros = [](const Graph& g, const char* name) {
    const auto values = g.value(g.find_value(name)).constant->span<float>();
    std::vector<size_t> at;
    for (size_t i = 0; i < values.size(); ++i)
      if (values[i] == 0.0f) at.push_back(i);
    return at;
  };
  const auto pruned = load_model(options_.output);
  const size_t total = 16 * kFeatures + 16 * kClasses;
  const auto first = zeros(*pruned, "fc1.weight"), second = zeros(*pruned, "fc2.weight");
  EXPECT_EQ(first.size() + second.size(), static_cast<size_t>(0.6 * static_cast<double>(total)));
  options_.target_sparsity = 0;
  options_.model = options_.output;
  options_.output = path("tuned.onnx");
  train(options_);
  const auto tuned = load_model(options_.output);
  EXPECT_EQ(zeros(*tuned, "fc1.weight"), first);
  EXPECT_EQ(zeros(*tuned, "fc2.weight"), second);
}

void expect_error(const std::function<void()>& body, ExitCode code, const std::string& part) {
  try {
    body();
    FAIL() << "no error; expected: " << part;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

TEST_F(Train, BadInputIsNamedAndNothingIsWritten) {
  write_dataset("wide.npz", kClasses + 2);
  options_.data = path("wide.npz");
  expect_error([&] { train(options_); }, ExitCode::kBadData, "label");
  options_.data = path("missing.npz");
  expect_error([&] { train(options_); }, ExitCode::kNoInput, "missing.npz");
  options_.data = path("data.npz");
  options_.schedule.base = 1e20;
  expect_error([&] { train(options_); }, ExitCode::kBadData, "the loss is");
  options_.schedule.base = 0.1;
  options_.batch_size = 1000;
  expect_error([&] { train(options_); }, ExitCode::kBadData, "1000");
  options_.batch_size = 16;
  options_.output = path("no/such/folder/out.onnx");
  expect_error([&] { train(options_); }, ExitCode::kCantCreate, "no/such/folder");
  EXPECT_FALSE(fs::exists(path("out.onnx")));
}

}  // namespace
}  // namespace ds
