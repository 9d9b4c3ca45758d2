// Tables, comma-separated values and chart ticks.
#include "libds/tasks/bench/row_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libds/tasks/bench/charts.h"

namespace ds::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(RowText, CsvQuotesWhatRfc4180AsksFor) {
  EXPECT_EQ(csv_line({"a", "b c", ""}), "a,b c,\r\n");
  EXPECT_EQ(csv_line({"a,b", "say \"x\"", "two\nlines", "cr\r"}), "\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",\"cr\r\"\r\n");
  EXPECT_EQ(csv_line({"\""}), "\"\"\"\"\r\n");
}

TEST(RowText, MarkdownCellsCannotEndThemselves) {
  EXPECT_EQ(markdown_table({{"name", "n"}, {"a|b\\c\nd", "1"}}, 1), "| name | n |\n|---|---:|\n| a\\|b\\\\c d | 1 |\n");
}

TEST(RowText, RatesHaveNoExponent) {
  EXPECT_EQ(rate_text(1.49812), "1.498");
  EXPECT_EQ(rate_text(9999.4), "9999");
  EXPECT_EQ(rate_text(15223.3), "15223");
}

TEST(RowText, PlainColumnsAlignByCharacters) {
  EXPECT_EQ(plain_table({{"name", "n"}, {"größe", "1"}, {"x", "10"}}, 1), "name    n\ngröße   1\nx      10\n");
}

RowReport row(const std::string& model, int threads, int64_t batch) {
  RowReport r;
  r.settings = {model, "fp32", threads, batch};
  r.batch = batch;
  r.inputs = {{"x", {batch, 4}}};
  r.seconds = {1e-3, 1.1e-3, 1.2e-3, 5e-2};
  r.time = summarize(r.seconds);
  return r;
}

TEST(RowText, OnlySettingsThatDifferAreColumns) {
  BenchReport same;
  same.rows = {row("dir/a.onnx", 2, 1), row("b.onnx", 2, 1)};
  EXPECT_THAT(setting_columns(same).headings, ElementsAre("model"));
  EXPECT_EQ(short_label(same, 0), "a.onnx");
  BenchReport swept;
  swept.rows = {row("a.onnx", 1, 1), row("a.onnx", 2, 8)};
  EXPECT_THAT(setting_columns(swept).headings, ElementsAre("model", "threads", "batch"));
  EXPECT_THAT(setting_columns(swept).cells[1], ElementsAre("a.onnx", "2", "8"));
  EXPECT_EQ(short_label(swept, 0), "a.onnx, 1 thread, batch 1");
  EXPECT_EQ(row_label(swept.rows[1]), "a.onnx (2 threads, x:8x4)");
}

TEST(RowText, CsvHasOneLinePerRowAndAsManyFieldsAsHeadings) {
  BenchReport report;
  report.rounds = 4;
  report.rows = {row("a.onnx", 1, 1), row("a.onnx", 2, 8)};
  const std::string csv = bench_output(report, Format::kCsv, false);
  std::vector<size_t> commas;
  for (size_t begin = 0; begin < csv.size();) {
    const size_t end = csv.find("\r\n", begin);
    commas.push_back(static_cast<size_t>(std::count(csv.begin() + static_cast<ptrdiff_t>(begin), csv.begin() + static_cast<ptrdiff_t>(end), ',')));
    begin = end + 2;
  }
  ASSERT_EQ(commas.size(), 3u);
  EXPECT_EQ(commas[1], commas[0]);
  EXPECT_EQ(commas[2], commas[0]);
  EXPECT_THAT(csv, HasSubstr("a.onnx,fp32,2,8,x:8x4,4,0.00115,"));
  EXPECT_THAT(bench_output(report, Format::kMarkdown, false), HasSubstr("| model | threads | batch | p50 |"));
}

TEST(Charts, TicksAreRoundAndInside) {
  EXPECT_THAT(round_ticks(0, 10, 5), ElementsAre(0, 2, 4, 6, 8, 10));
  const std::vector<double> ticks = round_ticks(1.13, 1.77, 6);
  EXPECT_GE(ticks.size(), 4u);
  EXPECT_GE(ticks.front(), 1.13);
  EXPECT_LE(ticks.back(), 1.77 + 1e-9);
  EXPECT_EQ(round_ticks(3, 3, 5).size(), 1u);
}

TEST(Charts, DistributionOfEqualTimesAndOfOutliers) {
  RowReport r = row("a.onnx", 1, 1);
  EXPECT_THAT(distribution_chart(r), HasSubstr("polyline"));
  r.seconds = {1e-3};
  r.time = summarize(r.seconds);
  EXPECT_THAT(distribution_chart(r), testing::Not(HasSubstr("nan")));
  r.seconds.assign(1000, 1e-3);
  for (int i = 0; i < 1000; ++i) r.seconds[static_cast<size_t>(i)] += 1e-7 * i;
  r.seconds.back() = 1;  // one of a second would squeeze all others into one bar
  r.time = summarize(r.seconds);
  EXPECT_THAT(distribution_chart(r), HasSubstr("bar tail"));
}

TEST(Profile, RooflineIsTheLargerOfArithmeticAndMemory) {
  const Roof roof{100, 400, 10};
  EXPECT_DOUBLE_EQ(roofline_seconds(1000, 10, DType::kF32, roof), 10);
  EXPECT_DOUBLE_EQ(roofline_seconds(1000, 10, DType::kI8, roof), 2.5);
  EXPECT_DOUBLE_EQ(roofline_seconds(1000, 1000, DType::kF32, roof), 100);
  EXPECT_DOUBLE_EQ(roofline_seconds(0, 0, DType::kF32, roof), 0);
  EXPECT_DOUBLE_EQ(roofline_seconds(1000, 10, DType::kF32, {}), 0);
}

}  // namespace
}  // namespace ds::bench
