#include "libds/data/dataset.h"

#include <zlib.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "libds/data/csv.h"
#include "libds/data/idx.h"
#include "libds/data/loader.h"
#include "tests/data/files.h"

namespace ds {
namespace {

using testing::expect_error;
using testing::Folder;

Bytes bytes_of(const std::string& s) { return std::as_bytes(std::span(s)); }

std::string gzip(const std::string& s) {
  std::string out(compressBound(s.size()) + 64, '\0');
  z_stream z{};
  deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(s.data()));
  z.avail_in = static_cast<uInt>(s.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

const std::string kIdx{"\0\0\x0b\2\0\0\0\2\0\0\0\2\0\1\xff\xfe\0\3\0\4", 20};  // i16 [[1,-2],[3,4]]

TEST(Idx, PlainAndGzip) {
  const Tensor want = Tensor::of<int16_t>({2, 2}, {1, -2, 3, 4});
  EXPECT_TRUE(parse_idx(bytes_of(kIdx)).equal_bits(want));
  EXPECT_TRUE(parse_idx(bytes_of(gzip(kIdx))).equal_bits(want));
  // Two members, cut anywhere, are one stream.
  EXPECT_TRUE(parse_idx(bytes_of(gzip(kIdx.substr(0, 7)) + gzip(kIdx.substr(7)))).equal_bits(want));
}

TEST(Idx, BadFiles) {
  for (size_t n = 0; n < kIdx.size(); ++n) expect_error([&] { parse_idx(bytes_of(kIdx.substr(0, n))); }, "idx: truncated");
  const std::string zipped = gzip(kIdx);
  for (size_t n = 2; n < zipped.size(); ++n) expect_error([&] { parse_idx(bytes_of(zipped.substr(0, n))); }, "truncated");
  expect_error([&] { parse_idx(bytes_of(kIdx + "x")); }, "more data");
  expect_error([&] { parse_idx(bytes_of(gzip(kIdx + "x"))); }, "more data");
  std::string bad = kIdx;
  bad[2] = 0x0a;
  expect_error([&] { parse_idx(bytes_of(bad)); }, "unknown element type 0x0a");
  bad = kIdx;
  bad[4] = bad[8] = '\xff';  // nearly 2^32 x 2^32
  expect_error([&] { parse_idx(bytes_of(bad)); }, "overflow");
  bad = kIdx;
  bad[4] = '\x7f';  // claims gigabytes
  expect_error([&] { parse_idx(bytes_of(bad)); }, "cannot hold");
  expect_error([&] { parse_idx(bytes_of(gzip(bad))); }, "cannot hold");
}

TEST(Csv, HeaderQuotesAndColumns) {
  const Table t = parse_csv("a,\"b, c\",label\r\n1,2.5,0\n\n-3e2,\"4\",1\n");
  EXPECT_EQ(t.columns, (std::vector<std::string>{"a", "b, c", "label"}));
  EXPECT_EQ(t.rows, 2);
  EXPECT_EQ(t.values, (std::vector<double>{1, 2.5, 0, -300, 4, 1}));
  EXPECT_EQ(find_column(t, "b, c"), 1);
  EXPECT_EQ(find_column(t, "-1"), 2);
  expect_error([&] { find_column(t, "nope"); }, "no column 'nope' among a, b, c, label");
  expect_error([&] { find_column(t, "3"); }, "no column 3");
  EXPECT_TRUE(parse_csv("1,2\n3,4").columns.empty());
}

TEST(Csv, ErrorsNameLineAndColumn) {
  expect_error([] { parse_csv("a,b\n1,2\n3\n"); }, "line 3: 1 columns, expected 2");
  expect_error([] { parse_csv("a,b\n1,2\n3,x\n"); }, "line 3: column 2 (b): 'x' is not a number");
  expect_error([] { parse_csv("1,2\n3,\n"); }, "line 2: column 2 is empty");
  expect_error([] { parse_csv("1,2\n3,nan\n"); }, "'nan' is not a number");
  expect_error([] { parse_csv("1,\"2\n"); }, "unterminated quote");
  expect_error([] { parse_csv(""); }, "no rows");
  expect_error([] { parse_csv("a,b\n"); }, "no rows");
}

InputSpec spec(const char* name, DType dtype, Shape sample) { return {name, dtype, std::move(sample), true}; }

TEST(Dataset, RealDigitsFitAnImageInput) {
  const std::string d = std::string(DS_TESTDATA) + "/mnist/mnist-test-";
  const auto data = open_dataset(d + "images-idx3-ubyte.gz," + d + "labels-idx1-ubyte.gz");
  EXPECT_EQ(data->size(), 2000);
  EXPECT_EQ(data->arrays()[0].second.dtype(), DType::kU8);
  data->check_labels(10);
  expect_error([&] { data->check_labels(9); }, "label 9 is out of range [0, 9)");
  const Feed feed(data, {spec("pixels", DType::kF32, {1, 28, 28})});
  const int64_t rows[] = {5, 5, 1999};
  const Batch b = feed.batch(rows);
  EXPECT_EQ(b.inputs[0].shape(), (Shape{3, 1, 28, 28}));
  EXPECT_EQ(b.labels.dtype(), DType::kI64);
  const auto pixels = b.inputs[0].span<float>();
  const auto* raw = data->arrays()[0].second.data<uint8_t>() + 5 * 784;
  for (size_t i = 0; i < 784; ++i) ASSERT_EQ(pixels[i], static_cast<float>(raw[i]));
  EXPECT_TRUE(b.inputs[0].rows(0, 1).equal_bits(b.inputs[0].rows(1, 2)));
}

TEST(Dataset, NpzIsKeyedByInputName) {
  Folder folder;
  const std::string path = folder.path("x.npz");
  write_npz(path, {{"mask", Tensor::of<int32_t>({2, 2}, {1, 0, 1, 1})}, {"ids", Tensor::of<int64_t>({2, 2}, {4, 5, 6, 7})}, {"y", Tensor::of<uint8_t>({2}, {3, 1})}});
  const auto data = open_dataset(path);
  const Feed feed(data, {spec("ids", DType::kI64, {-1}), spec("mask", DType::kI64, {-1})});
  const Batch b = feed.range(0, 2);
  EXPECT_EQ(b.inputs[0].to_ints(), (std::vector<int64_t>{4, 5, 6, 7}));
  EXPECT_EQ(b.inputs[1].to_ints(), (std::vector<int64_t>{1, 0, 1, 1}));
  EXPECT_EQ(b.labels.to_ints(), (std::vector<int64_t>{3, 1}));
  expect_error([&] { Feed(data, {spec("pixels", DType::kF32, {2})}); }, "no array for input 'pixels' among: mask, ids");
  expect_error([&] { open_dataset(path, {.label_key = "z"}); }, "no array 'z' among mask, ids, y");
  EXPECT_EQ(open_dataset(path, {.label_key = "mask"})->labels().shape(), (Shape{2, 2}));
}

TEST(Dataset, ArraysThatDoNotFit) {
  Folder folder;
  const auto npz = [&](NamedTensors arrays) {
    const std::string path = folder.path("x.npz");
    write_npz(path, arrays);
    return open_dataset(path);
  };
  expect_error([&] { npz({{"a", Tensor::zeros(DType::kF32, {2, 3})}, {"b", Tensor::zeros(DType::kF32, {3, 3})}}); }, "x.npz: array 'b' has 3 samples, the others 2");
  expect_error([&] { npz({{"a", Tensor::scalar<float>(1)}}); }, "scalar");
  expect_error([&] { npz({{"a", Tensor::zeros(DType::kF32, {0, 3})}}); }, "no samples");
  expect_error([&] { npz({}); }, "no arrays");
  const auto data = npz({{"x", Tensor::zeros(DType::kF32, {2, 28, 28})}});
  expect_error([&] { Feed(data, {spec("x", DType::kF32, {3, 28, 28})}); }, "wants samples of shape 3x28x28, the data has 28x28");
  expect_error([&] { Feed(data, {spec("x", DType::kF32, {14, 56})}); }, "wants samples of shape 14x56");
  expect_error([&] { Feed(data, {spec("x", DType::kI64, {28, 28})}); }, "wants i64, the data is f32");
  EXPECT_EQ(Feed(data, {spec("x", DType::kF32, {-1})}).input_shape(0, 7), (Shape{7, 784}));
  const auto wide = npz({{"x", Tensor::of<int64_t>({2, 1}, {1, 300})}});
  const Feed feed(wide, {spec("x", DType::kU8, {1})});
  expect_error([&] { feed.range(0, 2); }, "input 'x': row 1: value 300 does not fit the model's input type u8");
}

TEST(Dataset, CsvWithLabelColumn) {
  Folder folder;
  const std::string path = folder.write("t.csv", "a,b,kind\n1,2,0\n3,4,1\n");
  const auto data = open_dataset(path, {.label_key = "kind"});
  EXPECT_EQ(data->labels().to_ints(), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(data->arrays()[0].second.to_doubles(), (std::vector<double>{1, 2, 3, 4}));
  EXPECT_EQ(open_dataset(path, {.label_key = "0"})->labels().to_ints(), (std::vector<int64_t>{1, 3}));
  EXPECT_FALSE(open_dataset(path)->has_labels());
  expect_error([&] { open_dataset(path)->check_labels(2); }, "no labels");
  const std::string real = folder.write("r.csv", "x,y\n1,0.5\n2,0.25\n");
  EXPECT_EQ(open_dataset(real)->labels().dtype(), DType::kF32);
}

TEST(Dataset, MissingAndForeignFiles) {
  Folder folder;
  expect_error([&] { open_dataset(folder.path("absent")); }, "cannot open", ExitCode::kNoInput);
  expect_error([&] { open_dataset(folder.path("a") + "," + folder.path("b")); }, "cannot open", ExitCode::kNoInput);
  expect_error([&] { open_dataset("a,b,c"); }, "IMAGES,LABELS", ExitCode::kUsage);
  const std::string junk = folder.write("junk", std::string("\x7f" "ELF\0\0\1\2", 8));
  expect_error([&] { open_dataset(junk); }, "junk: neither");
  const std::string images = folder.write("i", std::string("\0\0\x08\1\0\0\0\2ab", 10)), labels = folder.write("l", std::string("\0\0\x08\1\0\0\0\3abc", 11));
  expect_error([&] { open_dataset(images + "," + labels); }, "labels has 3 samples, the others 2");
}

TEST(Loader, SplitIsAPureFunctionOfTheSeed) {
  const Split a = split_rows(1000, 0.1, 7), b = split_rows(1000, 0.1, 7), c = split_rows(1000, 0.1, 8);
  EXPECT_EQ(a.validation, b.validation);
  EXPECT_NE(a.validation, c.validation);
  EXPECT_EQ(a.validation.size(), 100u);
  std::set<int64_t> all(a.train.begin(), a.train.end());
  all.insert(a.validation.begin(), a.validation.end());
  EXPECT_EQ(all.size(), 1000u);
  EXPECT_EQ(split_rows(10, 0, 1).train.size(), 10u);
  expect_error([] { split_rows(10, 1.0, 1); }, "not in [0, 1)", ExitCode::kUsage);
  expect_error([] { split_rows(10, 0.01, 1); }, "empty");
}

TEST(Loader, EpochsAreDifferentPermutationsAndDropTheRest) {
  std::vector<int64_t> rows(103);
  std::iota(rows.begin(), rows.end(), 0);
  const auto first = shuffled(rows, 1, 0), again = shuffled(rows, 1, 0), second = shuffled(rows, 1, 1);
  EXPECT_EQ(first, again);
  EXPECT_NE(first, second);
  auto sorted = first;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(sorted, rows);

  NamedTensors arrays{{"", Tensor::zeros(DType::kF32, {103, 1})}};
  for (int64_t i = 0; i < 103; ++i) arrays[0].second.mutable_data<float>()[i] = static_cast<float>(i);
  const Feed feed(std::make_shared<const Dataset>("d", arrays, Tensor()), {spec("x", DType::kF32, {1})});
  TrainLoader loader(feed, rows, 10, 1);
  EXPECT_EQ(loader.steps_per_epoch(), 10);
  const Batch late = loader.batch(1, 9);
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(late.inputs[0].data<float>()[i], static_cast<float>(second[90 + i]));
  expect_error([&] { TrainLoader(feed, rows, 104, 1); }, "fewer than one batch");
  EXPECT_EQ(in_order(rows, 50).back().size(), 3u);
}

TEST(Augment, ShiftMovesEveryPlaneOfASampleAlike) {
  const Augment a = Augment::parse("shift:2");
  const int64_t h = 5, w = 7;
  std::vector<int64_t> rows{0, 1, 2, 3, 4, 5, 6, 7};
  Tensor x = Tensor::empty(DType::kF32, {8, 2, h, w});
  for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data<float>()[i] = static_cast<float>(i + 1);
  const Tensor before = x.clone();
  a.apply(x, rows, 3, 4);
  std::set<std::pair<int64_t, int64_t>> moves;
  for (int64_t n = 0; n < 8; ++n) {
    bool matched = false;
    for (int64_t dy = -2; dy <= 2; ++dy)
      for (int64_t dx = -2; dx <= 2; ++dx) {
        bool same = true;
        for (int64_t p = 2 * n; p < 2 * n + 2; ++p)
          for (int64_t y = 0; y < h; ++y)
            for (int64_t c = 0; c < w; ++c) {
              const bool inside = y - dy >= 0 && y - dy < h && c - dx >= 0 && c - dx < w;
              const float want = inside ? before.data<float>()[(p * h + y - dy) * w + c - dx] : 0.0f;
              same &= x.data<float>()[(p * h + y) * w + c] == want;
            }
        if (same) moves.insert({dy, dx});
        matched |= same;
      }
    EXPECT_TRUE(matched) << "sample " << n;
  }
  EXPECT_GT(moves.size(), 2u);
  // The same (seed, epoch, row) gives the same picture wherever the row stands in a batch.
  Tensor one = before.rows(5, 6).clone();
  a.apply(one, std::vector<int64_t>{5}, 3, 4);
  EXPECT_TRUE(one.equal_bits(x.rows(5, 6)));
}

TEST(Augment, FlipMirrorsAboutHalf) {
  Tensor x = Tensor::empty(DType::kU8, {64, 1, 2});
  std::vector<int64_t> rows(64);
  std::iota(rows.begin(), rows.end(), 0);
  for (int64_t i = 0; i < 64; ++i) x.mutable_data<uint8_t>()[2 * i] = 1, x.mutable_data<uint8_t>()[2 * i + 1] = 2;
  Augment::parse("flip").apply(x, rows, 1, 0);
  int mirrored = 0;
  for (int64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(x.data<uint8_t>()[2 * i] + x.data<uint8_t>()[2 * i + 1], 3);
    mirrored += x.data<uint8_t>()[2 * i] == 2;
  }
  EXPECT_GT(mirrored, 16);
  EXPECT_LT(mirrored, 48);
}

TEST(Augment, SpecificationsAreChecked) {
  EXPECT_FALSE(Augment::parse("").active());
  EXPECT_TRUE(Augment::parse("flip,shift:3").flip);
  for (const char* bad : {"shift", "shift:", "shift:x", "shift:-1", "shift:2x", "rotate:3", "flip:1"})
    expect_error([&] { Augment::parse(bad); }, "--augment", ExitCode::kUsage);
}

}  // namespace
}  // namespace ds
