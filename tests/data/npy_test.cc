#include "libds/data/npy.h"

#include <cstring>

#include "libds/data/npz.h"
#include "libds/data/zip.h"
#include "tests/data/files.h"

namespace ds {
namespace {

using testing::expect_error;
using testing::Folder;

Bytes bytes_of(const std::string& s) { return std::as_bytes(std::span(s)); }

std::string npy(std::string dict, std::string_view body, int version = 1) {
  std::string s = "\x93NUMPY";
  s.push_back(static_cast<char>(version));
  s.push_back('\0');
  dict += "\n";
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) s.push_back(static_cast<char>(dict.size() >> (8 * i)));
  return s + dict + std::string(body);
}

std::string unhex(std::string_view hex) {
  std::string s;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) s.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return s;
}
// What numpy 2.4.6 writes with savez and savez_compressed (x = arange(6, dtype='<f4').reshape(2, 3)).
constexpr std::string_view kStored =
    "504b03042d0000000000000021004fe9002affffffffffffffff05001400782e6e707901001000980000000000000098"
    "00000000000000934e554d5059010076007b276465736372273a20273c6634272c2027666f727472616e5f6f72646572"
    "273a2046616c73652c20277368617065273a2028322c2033292c207d2020202020202020202020202020202020202020"
    "20202020202020202020202020202020202020202020202020202020202020202020202020200a000000000000803f00"
    "00004000004040000080400000a040504b01022d032d0000000000000021004fe9002a98000000980000000500000000"
    "00000000000000800100000000782e6e7079504b0506000000000100010033000000cf0000000000";
constexpr std::string_view kDeflated =
    "504b03042d0000000800000021004fe9002affffffffffffffff05001400782e6e707901001000980000000000000055"
    "000000000000009bec17ea1b10c9c850c650ad9e925a9c5ca46ea5a06e9366a2aea3a09e965f54529498179f5f94920a"
    "12774bcc294e058a17672416a402f91a463a0ac69a3a0ab50a64032e063068b007120e4004c40d40bcc00100504b0102"
    "2d032d0000000800000021004fe9002a5500000098000000050000000000000000000000800100000000782e6e707950"
    "4b05060000000001000100330000008c0000000000";

TEST(Npy, EveryDtypeSurvivesTheRoundTrip) {
  for (DType dtype : {DType::kBool, DType::kU8, DType::kI8, DType::kU16, DType::kI16, DType::kU32, DType::kI32, DType::kU64,
                      DType::kI64, DType::kF16, DType::kF32, DType::kF64}) {
    for (const Shape& shape : {Shape{}, Shape{5}, Shape{0, 3}, Shape{2, 3, 4}}) {
      Tensor t = Tensor::zeros(dtype, shape);
      auto* p = static_cast<unsigned char*>(t.mutable_raw());
      for (size_t i = 0; i < t.bytes(); ++i) p[i] = static_cast<unsigned char>(dtype == DType::kBool ? i % 2 : i * 37 + 1);
      EXPECT_TRUE(parse_npy(bytes_of(npy_bytes(t))).equal_bits(t)) << dtype_name(dtype) << shape_string(shape);
    }
  }
}

TEST(Npy, HeaderIsPaddedTo64AsNumpyDoes) {
  const std::string s = npy_bytes(Tensor::zeros(DType::kF32, {2, 3}));
  EXPECT_EQ(s.size(), 128u + 24u);
  EXPECT_EQ(s.substr(10, 59), "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
  EXPECT_EQ(s[127], '\n');
}

TEST(Npy, Bf16IsWrittenAsF32) {
  const Tensor t = Tensor::of<bf16>({2}, {bf16(1.5f), bf16(-3.0f)});
  const Tensor back = parse_npy(bytes_of(npy_bytes(t)));
  EXPECT_TRUE(back.equal_bits(Tensor::of<float>({2}, {1.5f, -3.0f})));
}

TEST(Npy, FortranOrderBigEndianAndLaterVersions) {
  // 2x3, columns first: [[0,1,2],[3,4,5]]
  const std::string columns{0, 3, 1, 4, 2, 5};
  const Tensor want = Tensor::of<uint8_t>({2, 3}, {0, 1, 2, 3, 4, 5});
  for (int version : {1, 2, 3})
    EXPECT_TRUE(parse_npy(bytes_of(npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}", columns, version))).equal_bits(want));
  const std::string big("\x00\x01\xff\xfe", 4);
  EXPECT_TRUE(parse_npy(bytes_of(npy("{'shape': (2L,), 'descr': '>i2', 'fortran_order': False, }", big))).equal_bits(Tensor::of<int16_t>({2}, {1, -2})));
}

TEST(Npy, OddBoolsBecomeTrue) {
  const std::string body("\x00\x01\x07", 3);
  const auto keep = std::make_shared<const std::string>(npy("{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", body));
  EXPECT_TRUE(parse_npy(bytes_of(*keep), keep).equal_bits(Tensor::of<bool>({3}, {false, true, true})));
}

TEST(Npy, BadFilesAreNamed) {
  const auto reject = [](const std::string& s, std::string_view part) { expect_error([&] { parse_npy(bytes_of(s)); }, part); };
  const std::string good = npy_bytes(Tensor::zeros(DType::kF32, {4, 4}));
  reject("", "not a .npy");
  reject("\x93NUMPY\x01", "truncated header");
  for (size_t n = 6; n < good.size(); ++n) expect_error([&] { parse_npy(bytes_of(good.substr(0, n))); }, "npy");
  reject(good + "x", "1 bytes after");
  reject(npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "12345678"), "pickled objects");
  reject(npy("{'descr': '<U3', 'fortran_order': False, 'shape': (1,), }", std::string(12, ' ')), "'<U3' is not supported");
  reject(npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "12345678"), "not supported");
  reject(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "1234"), "structured");
  reject(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "1234"), "bad dimension");
  reject(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", "1234"), "overflows");
  reject(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }", "1234"), "truncated");
  reject(npy("{'descr': '<f4', 'shape': (1,), }", "1234"), "lacks");
  reject(npy("{'descr': __import__('os')}", ""), "malformed");
  reject(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", "1234"), "unknown header key");
}

TEST(Npz, RoundTripIsDeterministicAndOrdered) {
  const NamedTensors arrays = {{"b", Tensor::of<float>({2}, {1, 2})}, {"a", Tensor::of<int64_t>({1, 1}, {7})}, {"é/x", Tensor::scalar<double>(3)}};
  const std::string s = npz_bytes(arrays);
  EXPECT_EQ(s, npz_bytes(arrays));
  const NamedTensors back = parse_npz(bytes_of(s));
  ASSERT_EQ(back.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(back[i].first, arrays[i].first);
    EXPECT_TRUE(back[i].second.equal_bits(arrays[i].second));
  }
  EXPECT_TRUE(parse_npz(bytes_of(npz_bytes({}))).empty());
}

TEST(Npz, FilesAreMappedAndOutliveTheList) {
  Folder folder;
  const std::string path = folder.path("x.npz");
  write_npz(path, {{"x", Tensor::of<float>({3}, {1, 2, 3})}});
  const Tensor x = read_npz(path)[0].second;
  EXPECT_EQ(x.to_doubles(), (std::vector<double>{1, 2, 3}));
  expect_error([&] { read_npz(folder.path("absent.npz")); }, "absent.npz", ExitCode::kNoInput);
}

TEST(Npz, ReadsWhatNumpyWrites) {
  const Tensor want = Tensor::of<float>({2, 3}, {0, 1, 2, 3, 4, 5});
  for (std::string_view hex : {kStored, kDeflated}) {
    const NamedTensors arrays = parse_npz(bytes_of(unhex(hex)));
    ASSERT_EQ(arrays.size(), 1u);
    EXPECT_EQ(arrays[0].first, "x");
    EXPECT_TRUE(arrays[0].second.equal_bits(want));
  }
}

TEST(Npz, EveryTruncationAndEveryFlippedBitIsAnErrorOrHarmless) {
  for (std::string_view hex : {kStored, kDeflated}) {
    const std::string good = unhex(hex);
    for (size_t n = 0; n < good.size(); ++n) expect_error([&] { parse_npz(bytes_of(good.substr(0, n))); }, "z");
    const Tensor want = parse_npz(bytes_of(good))[0].second;
    for (size_t i = 0; i < good.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
        try {
          // Dates, versions and the like may differ; the content may not.
          for (const auto& [name, tensor] : parse_npz(bytes_of(bad))) EXPECT_TRUE(tensor.equal_bits(want)) << "byte " << i;
        } catch (const Error& e) {
          EXPECT_EQ(e.code(), ExitCode::kBadData) << e.what();
        }
      }
    }
  }
}

TEST(Zip, RefusesWhatCannotBeTrue) {
  const auto patch = [](size_t at, uint64_t value, int n) {
    std::string s = unhex(kDeflated);
    const size_t directory = s.rfind("PK\x01\x02");
    for (int i = 0; i < n; ++i) s[directory + at + static_cast<size_t>(i)] = static_cast<char>(value >> (8 * i));
    return s;
  };
  expect_error([&] { list_zip(bytes_of(patch(8, 1, 2))); }, "encrypted");
  expect_error([&] { list_zip(bytes_of(patch(10, 12, 2))); }, "compression method 12");
  expect_error([&] { list_zip(bytes_of(patch(24, 1u << 30, 4))); }, "cannot hold");
  expect_error([&] { list_zip(bytes_of(patch(42, 1u << 30, 4))); }, "truncated");
  // Two directory entries for the same bytes under two names.
  ZipWriter zip;
  zip.add("a", "0123456789");
  zip.add("b", "0123456789");
  std::string s = zip.finish();
  const size_t second = s.rfind("PK\x01\x02");
  for (size_t i = 0; i < 4; ++i) s[second + 42 + i] = 0;
  expect_error([&] { list_zip(bytes_of(s)); }, "overlap");
}

}  // namespace
}  // namespace ds
