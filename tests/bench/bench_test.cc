// ds-bench's statistics on known numbers, and its report on small models. No test looks at how long
// anything took.
#include "libds/tasks/bench/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "libds/base/cost_file.h"
#include "libds/base/error.h"
#include "libds/base/file.h"
#include "libds/base/random.h"
#include "libds/data/npz.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/rewriter.h"
#include "libds/run/peak.h"
#include "libds/tasks/bench/calibrate.h"
#include "tests/support/json_schema.h"

namespace ds::bench {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST(TimingStats, PercentilesInterpolate) {
  const std::vector<double> x = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(percentile(x, 0), 1);
  EXPECT_DOUBLE_EQ(percentile(x, 1), 4);
  EXPECT_DOUBLE_EQ(percentile(x, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(percentile(x, 0.9), 3.7);
  const std::vector<double> one = {7};
  EXPECT_DOUBLE_EQ(percentile(one, 0.99), 7);
  const TimingSummary s = summarize(x);
  EXPECT_DOUBLE_EQ(s.min, 1);
  EXPECT_DOUBLE_EQ(s.mean, 2.5);
  EXPECT_DOUBLE_EQ(s.p50, 2.5);
}

TEST(TimingStats, SummaryOfKnownNumbers) {
  // numpy: np.std([...], ddof=1), np.percentile([...], 95), np.percentile([...], 99).
  const std::vector<double> x = {2, 4, 4, 4, 5, 5, 7, 9};
  const TimingSummary s = summarize(x);
  EXPECT_DOUBLE_EQ(s.mean, 5);
  EXPECT_NEAR(s.stddev, 2.138089935299395, 1e-12);
  EXPECT_NEAR(s.p95, 8.3, 1e-12);
  EXPECT_NEAR(s.p99, 8.86, 1e-12);
  EXPECT_DOUBLE_EQ(s.max, 9);
  const std::vector<double> one = {3};
  EXPECT_EQ(summarize(one).stddev, 0);
  EXPECT_EQ(summarize(one).p50_interval.low, 3);
  EXPECT_EQ(summarize(one).p50_interval.high, 3);
}

TEST(TimingStats, MedianIntervalTakesTheRanksOfTheBinomialTable) {
  // Ranks k such that values k and n + 1 - k enclose the median at 95 % (Conover; scipy.stats.binom.ppf(0.025, n, 0.5)).
  const std::pair<int, int> expected[] = {{1, 1}, {5, 1}, {6, 1}, {8, 1}, {9, 2}, {10, 2}, {15, 4}, {20, 6}, {25, 8}, {50, 18}, {100, 40}};
  for (const auto& [n, k] : expected) {
    std::vector<double> values;
    for (int i = n; i >= 1; --i) values.push_back(i);
    const Interval interval = median_interval(values);
    EXPECT_EQ(interval.low, k) << n;
    EXPECT_EQ(interval.high, n + 1 - k) << n;
  }
  std::vector<double> many;
  for (int i = 1; i <= 100'000; ++i) many.push_back(i);
  EXPECT_NEAR(median_interval(many).low, 50'000 - 1.96 * 0.5 * std::sqrt(100'000), 2);
}

TEST(TimingStats, PairedRatioCancelsDrift) {
  // The machine slows down threefold half-way; b is always 1.25 times as fast as a, within 2 %.
  std::vector<double> a, b;
  Random random(5);
  for (int i = 0; i < 200; ++i) {
    const double speed = i < 100 ? 1 : 3;
    a.push_back(speed * (1 + 0.02 * random.uniform()));
    b.push_back(speed * 0.8 * (1 + 0.02 * random.uniform()));
  }
  const PairedRatio r = paired_ratio(a, b, 0);
  EXPECT_NEAR(r.speedup, 1.25, 0.01);
  EXPECT_GT(r.low, 1.24);
  EXPECT_LT(r.high, 1.26);
  EXPECT_LE(r.low, r.speedup);
  EXPECT_GE(r.high, r.speedup);
}

TEST(TimingStats, PairedRatioIsDeterministicAndTellsNoDifference) {
  std::vector<double> a, b;
  Random random(6);
  for (int i = 0; i < 101; ++i) {
    a.push_back(1 + 0.3 * random.uniform());
    b.push_back(1 + 0.3 * random.uniform());
  }
  const PairedRatio r = paired_ratio(a, b, 3), again = paired_ratio(a, b, 3);
  EXPECT_EQ(r.low, again.low);
  EXPECT_EQ(r.high, again.high);
  EXPECT_LT(r.low, 1);
  EXPECT_GT(r.high, 1);
  const PairedRatio self = paired_ratio(a, a, 3);
  EXPECT_EQ(self.speedup, 1);
  EXPECT_EQ(self.low, 1);
  EXPECT_EQ(self.high, 1);
}

TEST(TimingStats, IntervalCoversTheTruthAboutAsOftenAsItSays) {
  // Log-normal noise with median ratio 1: of 200 intervals of 95 % at least 90 % hold it.
  int covered = 0;
  for (uint64_t trial = 0; trial < 200; ++trial) {
    Random random(trial, 9);
    std::vector<double> a, b;
    for (int i = 0; i < 41; ++i) {
      a.push_back(std::exp(0.2 * random.normal()));
      b.push_back(std::exp(0.2 * random.normal()));
    }
    const PairedRatio r = paired_ratio(a, b, trial, 400);
    covered += r.low <= 1 && 1 <= r.high;
  }
  EXPECT_GE(covered, 180);
}

TEST(Peak, EfficiencyIsAPartOfThePeak) {
  const double peak = peak_flops(DType::kF32, 1);
  EXPECT_GT(peak, 0);
  EXPECT_EQ(peak, peak_flops(DType::kF32, 1));  // measured once
  EXPECT_GT(peak_flops(DType::kI8, 1), 0);
  EXPECT_NEAR(compute_efficiency(peak / 2, 1, DType::kF32, 1), 0.5, 1e-9);
  EXPECT_EQ(compute_efficiency(peak * 2, 1, DType::kF32, 1), 1);
  EXPECT_EQ(compute_efficiency(0, 1, DType::kF32, 1), 0);
  EXPECT_EQ(compute_efficiency(1, 0, DType::kF32, 1), 0);
}

TEST(Peak, BandwidthIsMeasuredOnce) {
  const double peak = peak_bandwidth(1);
  EXPECT_GT(peak, 0);
  EXPECT_EQ(peak, peak_bandwidth(1));
}

// --- the report ----------------------------------------------------------------------------------

// Classifies x f32[n,4] as the index of its largest element: logits = x I.
std::shared_ptr<Graph> argmax_model() {
  auto graph = std::make_shared<Graph>();
  graph->opsets[""] = 17;
  Rewriter rw(*graph);
  const ValueId x = rw.add_input("x", DType::kF32, {graph->symbol("n"), 4});
  Tensor identity = Tensor::zeros(DType::kF32, {4, 4});
  for (int i = 0; i < 4; ++i) identity.mutable_data<float>()[i * 5] = 1;
  const ValueId y = rw.emit("MatMul", {x, rw.add_constant("w", identity)});
  rw.rename_value(y, "y");
  rw.add_output(y);
  return graph;
}

std::vector<std::string> schema_problems(const json& value) { return test::schema_problems(value.dump(), "ds-bench.schema.json"); }

struct Bench : testing::Test {
  void SetUp() override {
    folder = std::filesystem::temp_directory_path() / fmt::format("ds_bench_test_{}", ::getpid());
    std::filesystem::create_directories(folder);
    model = folder / "m.onnx";
    save_model(*argmax_model(), model);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  BenchOptions options(std::vector<std::string> models) {
    BenchOptions o;
    o.models = std::move(models);
    o.iterations = 4;
    o.warmup = 1;
    o.note = [this](const std::string& line) { notes += line + "\n"; };
    return o;
  }
  std::filesystem::path folder;
  std::string model, notes;
};

TEST_F(Bench, ReportsSizesCostAndOneTimePerRound) {
  BenchOptions o = options({model, model});
  o.batches = {3};
  const BenchReport report = run_bench(o);
  EXPECT_EQ(report.rounds, 4);
  ASSERT_EQ(report.rows.size(), 2u);
  for (const RowReport& m : report.rows) {
    EXPECT_EQ(m.seconds.size(), 4u);
    EXPECT_EQ(m.file_bytes, static_cast<int64_t>(std::filesystem::file_size(model)));
    EXPECT_EQ(m.parameters, 16);
    EXPECT_EQ(m.nonzero_parameters, 4);
    EXPECT_EQ(m.inputs, (std::vector<std::pair<std::string, Shape>>{{"x", {3, 4}}}));
    EXPECT_EQ(m.flops, 2 * 3 * 4 * 4);
    EXPECT_EQ(m.batch, 3);
    EXPECT_TRUE(m.planned);
    ASSERT_TRUE(m.efficiency.has_value());
    EXPECT_GE(*m.efficiency, 0);
    EXPECT_LE(*m.efficiency, 1);
    EXPECT_FALSE(m.top1.has_value());
  }
  EXPECT_EQ(report.rows[0].ratio.speedup, 1);
  EXPECT_THAT(notes, HasSubstr("random numbers"));
  EXPECT_THAT(notes, testing::Not(HasSubstr("taken as 1")));
}

TEST_F(Bench, SaysThatOpenDimensionsAreOne) {
  const BenchReport report = run_bench(options({model}));
  EXPECT_EQ(report.rows[0].inputs[0].second, (Shape{1, 4}));
  EXPECT_THAT(notes, HasSubstr("m.onnx: dimensions that were not given are taken as 1: x:1x4"));
  BenchOptions by_dim = options({model});
  by_dim.shapes = {"n:5"};
  EXPECT_EQ(run_bench(by_dim).rows[0].inputs[0].second, (Shape{5, 4}));
  BenchOptions by_shape = options({model});
  by_shape.shapes = {"x:7x4"};
  by_shape.batches = {2};  // the whole shape wins
  EXPECT_EQ(run_bench(by_shape).rows[0].inputs[0].second, (Shape{7, 4}));
}

TEST_F(Bench, AccuracyOverLabelledData) {
  constexpr int64_t kRows = 70;  // more than one batch, and not a multiple
  Tensor x = Tensor::zeros(DType::kF32, {kRows, 4}), labels = Tensor::zeros(DType::kI64, {kRows});
  for (int64_t r = 0; r < kRows; ++r) {
    x.mutable_data<float>()[r * 4 + r % 4] = 1;
    labels.mutable_data<int64_t>()[r] = r < 63 ? r % 4 : (r + 1) % 4;  // the last seven are wrong
  }
  const std::string data = folder / "d.npz";
  write_npz(data, {{"x", x}, {"labels", labels}});
  BenchOptions o = options({model});
  o.data = data;
  o.batches = {32};
  const BenchReport report = run_bench(o);
  EXPECT_EQ(report.rows[0].samples, kRows);
  ASSERT_TRUE(report.rows[0].top1.has_value());
  EXPECT_DOUBLE_EQ(*report.rows[0].top1, 0.9);
  EXPECT_EQ(report.rows[0].inputs[0].second, (Shape{32, 4}));
  EXPECT_THAT(bench_output(report, Format::kTable, false), HasSubstr("90.00 %"));
  EXPECT_TRUE(schema_problems(json::parse(bench_json(report))).empty());
  BenchOptions too_large = o;
  too_large.batches = {71};
  EXPECT_THROW(run_bench(too_large), Error);
  BenchOptions both = o;
  both.shapes = {"n:2"};
  EXPECT_THROW(run_bench(both), Error);
}

TEST_F(Bench, InputsFromAFileAreTakenAsTheyAre) {
  const std::string file = folder / "in.npz";
  write_npz(file, {{"x", Tensor::zeros(DType::kF32, {5, 4})}});
  BenchOptions o = options({model});
  o.input = file;
  const BenchReport report = run_bench(o);
  EXPECT_EQ(report.rows[0].inputs[0].second, (Shape{5, 4}));
  EXPECT_EQ(report.data, file);
  EXPECT_FALSE(report.random_inputs);
  EXPECT_EQ(notes, "");
  EXPECT_TRUE(schema_problems(json::parse(bench_json(report))).empty());
  write_npz(file, {{"y", Tensor::zeros(DType::kF32, {5, 4})}});
  EXPECT_THROW(run_bench(o), Error);
  write_npz(file, {{"x", Tensor::zeros(DType::kF32, {5, 3})}});
  EXPECT_THROW(run_bench(o), Error);
  o.batches = {2};
  EXPECT_THROW(run_bench(o), Error);
}

TEST_F(Bench, JsonFollowsItsSchemaAndTheSchemaRejects) {
  BenchOptions o = options({model, model});
  json report = json::parse(bench_json(run_bench(o)));
  EXPECT_THAT(schema_problems(report), testing::ElementsAre());
  json broken = report;
  broken["rows"][0].erase("flops");
  EXPECT_FALSE(schema_problems(broken).empty());
  broken = report;
  broken["rows"][1]["ds_compute_efficiency"] = 1.5;
  EXPECT_FALSE(schema_problems(broken).empty());
  broken = report;
  broken["surprise"] = 1;
  EXPECT_FALSE(schema_problems(broken).empty());
  broken = report;
  broken["rounds"] = "4";
  EXPECT_FALSE(schema_problems(broken).empty());
}

TEST_F(Bench, TextHoldsEveryModel) {
  const std::string text = bench_output(run_bench(options({model, model})), Format::kTable, false);
  EXPECT_THAT(text, HasSubstr("p50"));
  EXPECT_THAT(text, HasSubstr("75.0 % zero"));
  EXPECT_THAT(text, HasSubstr("reference"));
  EXPECT_THAT(text, HasSubstr("random inputs"));
}

TEST_F(Bench, EagerRunsAreReportedAsSuch) {
  BenchOptions o = options({model});
  o.static_plan = false;
  const BenchReport report = run_bench(o);
  EXPECT_FALSE(report.rows[0].planned);
  EXPECT_FALSE(report.rows[0].eager_reason.empty());
  EXPECT_TRUE(schema_problems(json::parse(bench_json(report))).empty());
}

TEST_F(Bench, ErrorsNameTheFile) {
  try {
    BenchOptions o = options({model, folder / "missing.onnx"});
    run_bench(o);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNoInput);
    EXPECT_THAT(error.what(), HasSubstr("missing.onnx"));
  }
  BenchOptions o = options({model});
  o.shapes = {"q:3"};
  EXPECT_THROW(run_bench(o), Error);
}

TEST_F(Bench, SweepIsTheCrossProductAndEachRowSaysItsSettings) {
  BenchOptions o = options({model});
  o.batches = {1, 3};
  o.threads = {1, 2};
  const BenchReport report = run_bench(o);
  ASSERT_EQ(report.rows.size(), 4u);
  std::vector<std::pair<int, int64_t>> got;
  for (const RowReport& r : report.rows) {
    got.emplace_back(r.settings.threads, r.batch);
    EXPECT_EQ(r.seconds.size(), 4u);
    EXPECT_GT(r.load_seconds, 0);
    EXPECT_GT(r.compile_seconds, 0);
    EXPECT_GT(r.first_run_seconds, 0);
  }
  EXPECT_EQ(got, (std::vector<std::pair<int, int64_t>>{{1, 1}, {1, 3}, {2, 1}, {2, 3}}));
  const std::string text = bench_output(report, Format::kTable, false);
  EXPECT_THAT(text, HasSubstr("threads  batch"));
  EXPECT_THAT(schema_problems(json::parse(bench_json(report))), testing::ElementsAre());
}

TEST_F(Bench, SpeedUpIsOfTimePerSample) {
  BenchOptions o = options({model});
  o.batches = {1, 3};
  const BenchReport report = run_bench(o);
  std::vector<double> per_sample = report.rows[1].seconds;
  for (double& x : per_sample) x /= 3;
  EXPECT_EQ(report.rows[1].ratio.speedup, paired_ratio(report.rows[0].seconds, per_sample, 0).speedup);
}

TEST_F(Bench, NotesAreSaidOnceForAllRows) {
  BenchOptions o = options({model});
  o.threads = {1, 2};
  run_bench(o);
  EXPECT_EQ(notes.find("taken as 1"), notes.rfind("taken as 1"));
}

TEST_F(Bench, ProfileNamesStepsKernelsAndTheirPartOfTheRoof) {
  BenchOptions o = options({model});
  o.profile = true;
  o.batches = {64};
  const BenchReport report = run_bench(o);
  ASSERT_TRUE(report.rows[0].profile.has_value());
  const Profile& p = *report.rows[0].profile;
  ASSERT_EQ(p.steps.size(), 1u);
  EXPECT_EQ(p.steps[0].op, "MatMul");
  EXPECT_EQ(p.steps[0].node, "MatMul_0");
  EXPECT_FALSE(p.steps[0].kernel.empty());
  EXPECT_EQ(p.steps[0].flops, 2 * 64 * 4 * 4);
  EXPECT_GT(p.steps[0].roofline(), 0);
  EXPECT_GE(p.runs, 3);
  EXPECT_GT(report.peaks_of(1).bandwidth, 0);
  EXPECT_THAT(bench_output(report, Format::kTable, true), HasSubstr("of roofline"));
  EXPECT_THAT(bench_output(report, Format::kTable, false), testing::Not(HasSubstr("of roofline")));
  EXPECT_THAT(schema_problems(json::parse(bench_json(report))), testing::ElementsAre());
  o.static_plan = false;
  const BenchReport eager = run_bench(o);
  ASSERT_TRUE(eager.rows[0].profile.has_value());  // times alone
  ASSERT_EQ(eager.rows[0].profile->steps.size(), 1u);
  EXPECT_EQ(eager.rows[0].profile->steps[0].kernel, p.steps[0].kernel);
  EXPECT_EQ(eager.rows[0].profile->steps[0].flops, 0);
  EXPECT_THAT(bench_output(eager, Format::kTable, true), HasSubstr("MatMul_0"));
}

TEST_F(Bench, ProfileTellsTheTypeOfEachStep) {
  Graph graph;
  Rewriter rw(graph);
  const ValueId x = rw.add_input("x", DType::kF32, {4, 32});
  const ValueId product = rw.emit("MatMul", {x, rw.add_constant("w", Tensor::zeros(DType::kF32, {32, 24}))});
  rw.add_output(rw.emit("Relu", {product}));
  const std::string path = folder / "products.onnx";
  save_model(graph, path);
  BenchOptions o = options({path});
  o.profile = true;
  o.precisions = {"fp32", "bf16"};
  const BenchReport report = run_bench(o);
  ASSERT_EQ(report.rows[0].profile->steps.size(), 1u);
  EXPECT_EQ(report.rows[0].profile->steps[0].dtype, DType::kF32);
  EXPECT_EQ(report.rows[1].profile->steps[0].dtype, DType::kBF16);
  EXPECT_GT(report.peaks_of(1).bf16, 0);
  EXPECT_THAT(bench_output(report, Format::kTable, true), HasSubstr("bf16"));
  EXPECT_THAT(schema_problems(json::parse(bench_json(report))), testing::ElementsAre());
}

TEST_F(Bench, CostsThatAutoWentByAreNamed) {
  BenchOptions o = options({model});
  o.precisions = {"auto"};
  EXPECT_TRUE(json::parse(bench_json(run_bench(o)))["costs"].is_null());
  CostTable table = calibrate(1);
  o.costs = folder / "costs.json";
  write_file_atomic(o.costs, cost_file_text(table));
  const json result = json::parse(bench_json(run_bench(o)));
  EXPECT_EQ(result["costs"]["hash"], table.hash());
  EXPECT_EQ(result["costs"]["file"], o.costs);
  EXPECT_THAT(schema_problems(result), testing::ElementsAre());
  // What was measured: f32 products at every level but the portable one.
  for (int level = static_cast<int>(Isa::kAvx2); level <= static_cast<int>(cpu_isa()); ++level) EXPECT_GT(table.rate(DType::kF32, static_cast<Isa>(level)), 0);
  EXPECT_GT(table.bandwidth, 0);
  EXPECT_EQ(table.rate(DType::kF16, cpu_isa()) > 0, cpu_has_fp16());
  EXPECT_THAT(calibration_text(table, "x"), HasSubstr(table.hash()));
  write_file_atomic(o.costs, "{}");
  EXPECT_THROW(run_bench(o), Error);
}

TEST_F(Bench, VaryRunsEachSizeFirstAgainAndOnReturn) {
  BenchOptions o = options({model, model});
  o.vary = {"n:2-8/3"};
  const BenchReport report = run_bench(o);
  for (const RowReport& r : report.rows) {
    ASSERT_TRUE(r.vary.has_value());
    EXPECT_EQ(r.vary->sizes, (std::vector<std::vector<int64_t>>{{2, 5, 8}}));
    EXPECT_EQ(r.vary->first_seconds.size(), 3u);
    EXPECT_EQ(r.vary->repeat_seconds.size(), 3u);
    EXPECT_EQ(r.vary->return_seconds.size(), 3u);
    EXPECT_EQ(r.seconds, r.vary->first_seconds);
    EXPECT_TRUE(r.planned);
    EXPECT_FALSE(r.flops.has_value());
  }
  EXPECT_THAT(bench_output(report, Format::kTable, false), HasSubstr("3 (n:2-8)"));
  EXPECT_THAT(schema_problems(json::parse(bench_json(report))), testing::ElementsAre());
  o.profile = true;
  EXPECT_THROW(run_bench(o), Error);
}

TEST_F(Bench, PageIsWholeAndEscapes) {
  const std::string odd = folder / "a&b<c>.onnx";
  std::filesystem::copy_file(model, odd);
  BenchOptions o = options({odd, model});
  o.profile = true;
  const std::string page = bench_html(run_bench(o));
  EXPECT_THAT(page, HasSubstr("a&amp;b&lt;c&gt;.onnx"));
  EXPECT_THAT(page, testing::Not(HasSubstr("<c>")));
  EXPECT_THAT(page, HasSubstr("aria-label=\"Roofline\""));
  EXPECT_THAT(page, HasSubstr("aria-label=\"Distribution of run times\""));
  for (const char* from_elsewhere : {"http:", "https:", "<script", "@import", "url("}) EXPECT_THAT(page, testing::Not(HasSubstr(from_elsewhere)));
  for (const char* tag : {"svg", "div", "table", "section", "ul", "span"}) {
    const auto count = [&](const std::string& piece) {
      size_t n = 0;
      for (size_t at = page.find(piece); at != std::string::npos; at = page.find(piece, at + 1)) ++n;
      return n;
    };
    EXPECT_EQ(count(fmt::format("<{} ", tag)) + count(fmt::format("<{}>", tag)), count(fmt::format("</{}>", tag))) << tag;
  }
  EXPECT_THAT(page, testing::Not(HasSubstr("nan")));
  EXPECT_THAT(page, testing::Not(HasSubstr("\"inf")));
}

}  // namespace
}  // namespace ds::bench
