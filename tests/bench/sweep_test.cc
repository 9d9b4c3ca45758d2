// Which rows a command asks for, at which shapes.
#include "libds/tasks/bench/sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libds/base/error.h"
#include "libds/base/parallel.h"
#include "libds/ir/rewriter.h"

namespace ds::bench {
namespace {

using testing::HasSubstr;

template <typename Action>
void expect_usage_error(Action&& action, const std::string& piece, ExitCode code = ExitCode::kUsage) {
  try {
    action();
    ADD_FAILURE() << "no error; expected " << piece;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_THAT(error.what(), HasSubstr(piece));
  }
}

TEST(Sweep, RowsAreACrossProductWithTheBatchFastest) {
  BenchOptions o;
  o.models = {"a", "b"};
  o.precisions = {"fp32", "auto"};
  o.threads = {1, 2};
  o.batches = {1, 8, 32};
  const std::vector<RowSettings> rows = expand_sweep(o);
  ASSERT_EQ(rows.size(), 24u);
  EXPECT_EQ(rows[0].model, "a");
  EXPECT_EQ(rows[1].batch, 8);
  EXPECT_EQ(rows[3].threads, 2);
  EXPECT_EQ(rows[3].batch, 1);
  EXPECT_EQ(rows[6].precision, "auto");
  EXPECT_EQ(rows[12].model, "b");
  EXPECT_EQ(rows[23].batch, 32);
}

TEST(Sweep, NothingGivenIsOneRowPerModel) {
  BenchOptions o;
  o.models = {"a", "a"};
  o.threads = {0};  // all
  const std::vector<RowSettings> rows = expand_sweep(o);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].batch, 0);
  EXPECT_EQ(rows[0].threads, available_threads());
  EXPECT_EQ(rows[0].precision, "fp32");
}

TEST(Sweep, VaryRanges) {
  EXPECT_EQ(parse_vary("w:3-6").dim, "w");
  EXPECT_EQ(parse_vary("w:3-6").sizes, (std::vector<int64_t>{3, 4, 5, 6}));
  EXPECT_EQ(parse_vary("image:0[3]:10-40/15").dim, "image:0[3]");
  EXPECT_EQ(parse_vary("image:0[3]:10-40/15").sizes, (std::vector<int64_t>{10, 25, 40}));
  EXPECT_EQ(parse_vary("a-b:7-7").dim, "a-b");
  EXPECT_EQ(parse_vary("a-b:7-7").sizes, (std::vector<int64_t>{7}));
  for (const char* bad : {"w", "w:", ":1-2", "w:3", "w:3-", "w:-3", "w:3-x", "w:3-6/", "w:3-6/x", "w:1.5-2", "w:3--6"})
    expect_usage_error([&] { parse_vary(bad); }, "is no range");
  for (const char* bad : {"w:6-3", "w:3-6/0"}) expect_usage_error([&] { parse_vary(bad); }, "holds no size");
  expect_usage_error([&] { parse_vary("w:1-9000000000000000000"); }, "more than");
  const std::vector<std::string> uneven = {"w:1-3", "h:1-4"};
  expect_usage_error([&] { parse_varies(uneven); }, "'w:1-3' has 3 sizes and 'h:1-4' has 4");
}

// x f32[n,3,?,w], mask i64[n,w], fixed f32[2]
std::shared_ptr<Graph> model() {
  auto graph = std::make_shared<Graph>();
  Rewriter rw(*graph);
  const Dim n = graph->symbol("n"), w = graph->symbol("w");
  const ValueId x = rw.add_input("x", DType::kF32, {n, 3, graph->symbol(""), w});
  rw.add_input("mask", DType::kI64, {n, w});
  rw.add_input("fixed", DType::kF32, {2});
  rw.add_output(x);
  return graph;
}

std::vector<Shape> shapes(std::vector<std::string> given, int64_t batch, std::vector<std::string> vary, size_t step, std::string* notes = nullptr) {
  const std::vector<Vary> varies = parse_varies(vary);
  std::function<void(const std::string&)> note;
  if (notes) note = [notes](const std::string& line) { *notes += line + "\n"; };
  return choose_shapes(*model(), "m.onnx", given, batch, varies, step, note);
}

TEST(Sweep, ShapesOfVariedDimensions) {
  EXPECT_EQ(shapes({}, 0, {"w:10-12"}, 2), (std::vector<Shape>{{1, 3, 1, 12}, {1, 12}, {2}}));
  EXPECT_EQ(shapes({"n:4"}, 0, {"w:10-12", "x[2]:5-7"}, 1), (std::vector<Shape>{{4, 3, 6, 11}, {4, 11}, {2}}));
  EXPECT_EQ(shapes({}, 8, {"w:10-12"}, 0), (std::vector<Shape>{{8, 3, 1, 10}, {8, 10}, {2}}));
  // The batch is varied: --batch does not set it back.
  EXPECT_EQ(shapes({}, 8, {"n:2-3"}, 1)[0], (Shape{3, 3, 1, 1}));
  // A whole shape is kept but for the varied axis.
  EXPECT_EQ(shapes({"x:2x3x32x100"}, 0, {"x[3]:64-65"}, 1)[0], (Shape{2, 3, 32, 65}));
  expect_usage_error([] { shapes({}, 0, {"q:1-2"}, 0); }, "no open dimension 'q'; it has n, x[2], w");
  expect_usage_error([] { shapes({}, 0, {"x[1]:1-2"}, 0); }, "x[1] is fixed at 3");
  expect_usage_error([] { shapes({"w:3"}, 0, {"w:1-2"}, 0); }, "given to --shape and to --vary");
}

TEST(Sweep, SaysWhatWasAssumed) {
  std::string notes;
  shapes({"x:1x3x8x8", "n:1", "w:8"}, 0, {}, 0, &notes);
  EXPECT_EQ(notes, "");
  shapes({}, 4, {}, 0, &notes);
  EXPECT_THAT(notes, HasSubstr("taken as 1: x:4x3x1x1 mask:4x1"));
  notes.clear();
  shapes({"x:1x3x8x8", "n:1", "w:8"}, 4, {}, 0, &notes);
  EXPECT_THAT(notes, HasSubstr("the batch of 4 does not apply"));
}

}  // namespace
}  // namespace ds::bench
