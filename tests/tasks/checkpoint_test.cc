#include "libds/tasks/train/checkpoint.h"

#include <cmath>
#include <limits>

#include "libds/base/log.h"
#include "libds/tasks/train/metrics_log.h"
#include "tests/data/files.h"

namespace ds {
namespace {

using testing::expect_error;
using testing::Folder;

Checkpoint example(int64_t step) {
  Checkpoint c;
  c.step = step;
  c.epoch = 3;
  c.seed = 0xffffffffffffffffull;
  c.fingerprint = "abc";
  c.numbers = {{"loss_sum", 0.1}, {"best", -std::numeric_limits<double>::infinity()}};
  c.states = {{"w", Tensor::of<float>({2, 2}, {1.5f, -0.0f, std::numeric_limits<float>::quiet_NaN(), static_cast<float>(step)})},
              {"h", Tensor::of<bf16>({2}, {bf16(1.0f), bf16(-2.5f)})},
              {"fc1.weight/momentum", Tensor::scalar<double>(1e-310)}};
  return c;
}

TEST(Checkpoint, EveryBitComesBack) {
  Folder folder;
  const Checkpoint c = example(12);
  const Checkpoint back = load_checkpoint(save_checkpoint(folder.path("a/b"), c, 2));
  EXPECT_EQ(back.step, 12);
  EXPECT_EQ(back.epoch, 3);
  EXPECT_EQ(back.seed, c.seed);
  EXPECT_EQ(back.numbers, c.numbers);
  ASSERT_EQ(back.states.size(), c.states.size());
  for (size_t i = 0; i < c.states.size(); ++i) {
    EXPECT_EQ(back.states[i].first, c.states[i].first);
    EXPECT_TRUE(back.states[i].second.equal_bits(c.states[i].second)) << c.states[i].first;
  }
}

TEST(Checkpoint, NewestSoundOneWinsAndOldOnesGo) {
  Folder folder;
  const std::string dir = folder.path("ckpt");
  EXPECT_FALSE(latest_checkpoint(dir, "abc"));
  for (int64_t step : {9, 100, 1000}) save_checkpoint(dir, example(step), 2);
  EXPECT_FALSE(file_exists(dir + "/step-000000000009.ckpt"));
  EXPECT_EQ(latest_checkpoint(dir, "abc")->step, 1000);
  // Damage in the newest: the one before is taken.
  std::string text = read_file(dir + "/step-000000001000.ckpt");
  text[150] = static_cast<char>(text[150] ^ 1);
  write_file_atomic(dir + "/step-000000001000.ckpt", text);
  set_quiet(true);
  EXPECT_EQ(latest_checkpoint(dir, "abc")->step, 100);
  write_file_atomic(dir + "/step-000000000100.ckpt", "");
  EXPECT_FALSE(latest_checkpoint(dir, "abc"));
  set_quiet(false);
}

TEST(Checkpoint, AnotherTrainingIsRefused) {
  Folder folder;
  save_checkpoint(folder.path("c"), example(1), 1);
  expect_error([&] { latest_checkpoint(folder.path("c"), "xyz"); }, "another --checkpoint-dir", ExitCode::kUsage);
}

TEST(Checkpoint, LeftoversOfKilledRunsAreRemoved) {
  Folder folder;
  save_checkpoint(folder.path("c"), example(1), 1);
  write_file_atomic(folder.path("c/step-000000000002.ckpt.aB3xYz"), "half");
  write_file_atomic(folder.path("c/notes.txt"), "mine");
  save_checkpoint(folder.path("c"), example(3), 1);
  EXPECT_FALSE(file_exists(folder.path("c/step-000000000002.ckpt.aB3xYz")));
  EXPECT_TRUE(file_exists(folder.path("c/notes.txt")));
}

TEST(Checkpoint, FolderThatCannotBeMade) {
  Folder folder;
  folder.write("file", "");
  expect_error([&] { save_checkpoint(folder.path("file/c"), example(1), 1); }, "cannot create", ExitCode::kCantCreate);
  write_npz(folder.path("x.npz"), {{"a", Tensor::scalar<float>(1)}});
  expect_error([&] { load_checkpoint(folder.path("x.npz")); }, "not a checkpoint");
}

TEST(MetricsLog, LinesAreJsonAndNonFiniteNumbersNull) {
  EXPECT_EQ(metrics_line({{"epoch", int64_t{1}}, {"loss", 0.25}, {"x", std::nan("")}, {"s", std::string("a\"b")}}),
            "{\"epoch\":1,\"loss\":0.25,\"x\":null,\"s\":\"a\\\"b\"}\n");
}

TEST(MetricsLog, ResumeDropsWhatIsDoneAgain) {
  Folder folder;
  const std::string path = folder.path("m.jsonl");
  {
    MetricsLog log(path);
    for (int64_t step : {10, 20, 30}) log.write({{"step", step}});
  }
  write_file_atomic(path, read_file(path) + "{\"step\":4");  // killed in mid-line
  {
    MetricsLog log(path, 20);
    log.write({{"step", int64_t{25}}});
  }
  EXPECT_EQ(read_file(path), "{\"step\":10}\n{\"step\":20}\n{\"step\":25}\n");
  { MetricsLog log(path); }
  EXPECT_EQ(read_file(path), "");
  expect_error([&] { MetricsLog log(folder.path("no/such/m.jsonl")); }, "cannot create", ExitCode::kCantCreate);
}

}  // namespace
}  // namespace ds
