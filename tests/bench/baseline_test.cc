// Comparing with an earlier result: which rows are the same, which have become slower.
#include "libds/tasks/bench/baseline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "libds/base/error.h"
#include "libds/base/file.h"

namespace ds::bench {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

RowReport row(const std::string& model, std::vector<double> seconds, int64_t batch = 1, int threads = 1) {
  RowReport r;
  r.settings = {model, "fp32", threads, batch};
  r.batch = batch;
  r.dtype = "f32";
  r.inputs = {{"x", {batch, 4}}};
  r.seconds = std::move(seconds);
  r.time = summarize(r.seconds);
  return r;
}

// Twenty times around `center`, `spread` apart at most.
std::vector<double> around(double center, double spread) {
  std::vector<double> values;
  for (int i = 0; i < 21; ++i) values.push_back(center + spread * (i - 10) / 20);
  return values;
}

BenchReport report(std::vector<RowReport> rows) {
  BenchReport r;
  r.cpu = "some CPU";
  r.rounds = 21;
  r.rows = std::move(rows);
  return r;
}

struct BaselineTest : testing::Test {
  void SetUp() override {
    folder = std::filesystem::temp_directory_path() / fmt::format("ds_baseline_test_{}", ::getpid());
    std::filesystem::create_directories(folder);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  std::string file(const std::string& text) const {
    const std::string path = folder / "base.json";
    write_file_atomic(path, text);
    return path;
  }
  Baseline saved(std::vector<RowReport> rows) const { return read_baseline(file(bench_json(report(std::move(rows))))); }
  std::filesystem::path folder;
};

TEST_F(BaselineTest, ReadsWhatWasWritten) {
  const Baseline b = saved({row("a.onnx", around(1e-3, 1e-5)), row("b.onnx", around(2e-3, 1e-5), 8, 2)});
  ASSERT_EQ(b.rows.size(), 2u);
  EXPECT_EQ(b.cpu, "some CPU");
  EXPECT_EQ(b.rows[1].model, "b.onnx");
  EXPECT_EQ(b.rows[1].threads, 2);
  EXPECT_EQ(b.rows[1].inputs[0].second, (Shape{8, 4}));
  EXPECT_DOUBLE_EQ(b.rows[1].p50, 2e-3);
}

TEST_F(BaselineTest, SlowerByMoreThanTheLimitAndApartIsARegression) {
  const Baseline base = saved({row("a.onnx", around(1e-3, 1e-5))});
  BenchReport slower = report({row("a.onnx", around(1.08e-3, 1e-5))});
  EXPECT_THAT(compare_with_baseline(slower, base, 0.05), IsEmpty());
  EXPECT_NEAR(slower.rows[0].baseline->change, 0.08, 1e-9);
  EXPECT_TRUE(slower.rows[0].baseline->regressed);
  const std::vector<std::string> lines = regressions(slower, base, 0.05);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_THAT(lines[0], HasSubstr("a.onnx (1 thread, x:1x4): slower than "));
  EXPECT_THAT(lines[0], HasSubstr("median 1.08 ms was 1 ms, +8.0 % is more than 5 %"));

  // Within the limit; and beyond it, but no more than the noise of either run.
  BenchReport little = report({row("a.onnx", around(1.04e-3, 1e-5))});
  compare_with_baseline(little, base, 0.05);
  EXPECT_FALSE(little.rows[0].baseline->regressed);
  BenchReport noisy = report({row("a.onnx", around(1.08e-3, 8e-4))});
  compare_with_baseline(noisy, base, 0.05);
  EXPECT_GT(noisy.rows[0].baseline->change, 0.05);
  EXPECT_FALSE(noisy.rows[0].baseline->regressed);
  EXPECT_THAT(regressions(noisy, base, 0.05), IsEmpty());
  BenchReport faster = report({row("a.onnx", around(0.5e-3, 1e-6))});
  compare_with_baseline(faster, base, 0);
  EXPECT_FALSE(faster.rows[0].baseline->regressed);
}

TEST_F(BaselineTest, RowsAreFoundBySettingsAndByFileName) {
  const Baseline base = saved({row("x/a.onnx", around(1, 0.01), 1, 1), row("x/a.onnx", around(2, 0.01), 1, 2), row("x/a.onnx", around(3, 0.01), 8, 1)});
  BenchReport now = report({row("x/a.onnx", around(3, 0.01), 8, 1), row("x/a.onnx", around(2, 0.01), 1, 2)});
  EXPECT_THAT(compare_with_baseline(now, base, 0.05), IsEmpty());
  EXPECT_EQ(now.rows[0].baseline->p50, 3);
  EXPECT_EQ(now.rows[1].baseline->p50, 2);
  // From another folder.
  BenchReport moved = report({row("/tmp/y/a.onnx", around(1, 0.01))});
  EXPECT_THAT(compare_with_baseline(moved, base, 0.05), IsEmpty());
  EXPECT_EQ(moved.rows[0].baseline->p50, 1);
  // Two models of the same file name: which one is meant cannot be said.
  BenchReport ambiguous = report({row("y/a.onnx", around(1, 0.01)), row("z/a.onnx", around(1, 0.01))});
  EXPECT_EQ(compare_with_baseline(ambiguous, base, 0.05).size(), 2u);
  EXPECT_FALSE(ambiguous.rows[0].baseline.has_value());
}

TEST_F(BaselineTest, WhatCannotBeComparedIsWarnedAbout) {
  const Baseline base = saved({row("a.onnx", around(1, 0.01))});
  BenchReport now = report({row("a.onnx", around(1, 0.01), 2), row("new.onnx", around(1, 0.01))});
  now.cpu = "another CPU";
  const std::vector<std::string> warnings = compare_with_baseline(now, base, 0.05);
  ASSERT_EQ(warnings.size(), 3u);
  EXPECT_THAT(warnings[0], HasSubstr("some CPU; this one is another CPU"));
  EXPECT_THAT(warnings[1], HasSubstr("a.onnx (1 thread, x:2x4): not in "));
  EXPECT_THAT(warnings[2], HasSubstr("new.onnx"));
  EXPECT_THAT(regressions(now, base, 0.05), IsEmpty());
}

TEST_F(BaselineTest, OtherFilesAreRefusedWithTheRightCode) {
  const auto code_of = [](const std::string& path, const std::string& piece) {
    try {
      read_baseline(path);
      ADD_FAILURE() << path;
      return ExitCode::kOk;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(piece));
      return error.code();
    }
  };
  EXPECT_EQ(code_of(folder / "missing.json", "missing.json"), ExitCode::kNoInput);
  EXPECT_EQ(code_of(file("{"), "not valid JSON"), ExitCode::kBadData);
  EXPECT_EQ(code_of(file("[]"), "no result of ds-bench"), ExitCode::kBadData);
  EXPECT_EQ(code_of(file("{\"schema\": \"ds-bench/1\"}"), "'schema' is not \"ds-bench/2\""), ExitCode::kBadData);
  json broken = json::parse(bench_json(report({row("a.onnx", around(1, 0.01))})));
  broken["rows"][0]["latency_seconds"].erase("p50_low");
  EXPECT_EQ(code_of(file(broken.dump()), "p50_low"), ExitCode::kBadData);
  broken["rows"][0]["threads"] = "two";
  EXPECT_EQ(code_of(file(broken.dump()), "base.json: no result"), ExitCode::kBadData);
  broken = json::parse(bench_json(report({row("a.onnx", around(1, 0.01))})));
  broken["rows"][0]["latency_seconds"]["p50"] = 0;
  EXPECT_EQ(code_of(file(broken.dump()), "not above 0"), ExitCode::kBadData);
}

TEST(Percent, WithAndWithoutSign) {
  EXPECT_DOUBLE_EQ(parse_percent("5%", "--x"), 0.05);
  EXPECT_DOUBLE_EQ(parse_percent("2.5 %", "--x"), 0.025);
  EXPECT_DOUBLE_EQ(parse_percent("0", "--x"), 0);
  for (const char* bad : {"", "%", "five", "-1%", "5%%", "nan", "inf", "1e999", "5x"}) EXPECT_THROW(parse_percent(bad, "--x"), Error) << bad;
}

}  // namespace
}  // namespace ds::bench
