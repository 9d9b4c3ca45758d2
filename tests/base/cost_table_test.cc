// Tables of costs: what the built-in one says, how a measured one travels through a file, and which files are refused.
#include "libds/base/cost_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "libds/base/cost_file.h"
#include "libds/base/cpu_vendor.h"
#include "libds/base/error.h"
#include "libds/base/file.h"

namespace ds {
namespace {

using testing::HasSubstr;

CostTable measured() {
  CostTable t;
  t.cpu = cpu_model();
  t.version = DS_TEST_VERSION;
  t.isa = Isa::kVnni;
  t.threads = 3;
  t.date = "2026-01-31T12:00:00Z";
  t.rate(DType::kF32, Isa::kAvx2) = 25.5;
  t.rate(DType::kF32, Isa::kVnni) = 70;
  t.rate(DType::kBF16, Isa::kVnni) = 0.1;  // no sum of powers of two
  t.rate(DType::kI8, Isa::kVnni) = 1.0 / 3;
  t.bandwidth = 9.75;
  return t;
}

class CostFile : public testing::Test {
 protected:
  CostFile() : path_(testing::TempDir() + "costs_" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + ".json") {}
  ~CostFile() override { std::filesystem::remove(path_); }

  std::string refusal(const std::string& text) {
    write_file_atomic(path_, text);
    try {
      read_cost_file(path_);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kBadData);
      EXPECT_THAT(e.what(), testing::StartsWith(path_ + ": "));
      EXPECT_THAT(e.what(), testing::Not(HasSubstr("\n")));
      return e.what();
    }
    return "";
  }

  std::string path_;
};

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(CostTable, BuiltInRatiosFollowTheInstructions) {
  const CostTable& t = builtin_costs();
  EXPECT_TRUE(t.built_in());
  EXPECT_EQ(t.gain(DType::kBF16, Isa::kAmx), 8);
  EXPECT_EQ(t.gain(DType::kI8, Isa::kAmx), 16);
  EXPECT_EQ(t.gain(DType::kI8, Isa::kVnni), 4);
  EXPECT_EQ(t.gain(DType::kBF16, Isa::kAvx2), 0);
  EXPECT_EQ(t.gain(DType::kF16, Isa::kAvx512), 0);
  EXPECT_EQ(t.gain(DType::kF16, Isa::kVnni), cpu_has_fp16() ? 1.7 : 0);
  for (int level = 0; level < kIsaLevels; ++level) EXPECT_EQ(t.gain(DType::kF32, static_cast<Isa>(level)), 1);
  EXPECT_EQ(t.gain(DType::kF64, Isa::kAvx2), 0);  // has no row
}

TEST(CostTable, FewRowsGainByReadingLess) {
  CostTable t;
  EXPECT_EQ(t.gain(DType::kBF16, Isa::kVnni, 1), 0);
  t.rate(DType::kF32, Isa::kVnni) = 32;
  t.rate(DType::kBF16, Isa::kVnni) = 16;
  EXPECT_DOUBLE_EQ(t.gain(DType::kBF16, Isa::kVnni, 1), 0.5);  // nothing is known of reading
  t.bandwidth = 8;
  EXPECT_DOUBLE_EQ(t.gain(DType::kBF16, Isa::kVnni, 1), (1.0 / 32 + 0.5) / (1.0 / 16 + 0.25));
  EXPECT_DOUBLE_EQ(t.gain(DType::kBF16, Isa::kVnni, 8), 1);
  EXPECT_NEAR(t.gain(DType::kBF16, Isa::kVnni, 1 << 30), 0.5, 1e-6);
}

TEST(CostTable, HashIsOfAllButTheDateAndTheFile) {
  const CostTable t = measured();
  EXPECT_THAT(t.hash(), testing::MatchesRegex("[0-9a-f]{16}"));
  CostTable other = t;
  other.date = "1999-12-31T23:59:59Z";
  other.file = "elsewhere.json";
  EXPECT_EQ(other.hash(), t.hash());
  const auto differs = [&](auto change) {
    CostTable changed = t;
    change(changed);
    return changed.hash() != t.hash();
  };
  EXPECT_TRUE(differs([](CostTable& c) { c.rate(DType::kBF16, Isa::kVnni) = 0.2; }));
  EXPECT_TRUE(differs([](CostTable& c) { std::swap(c.rates[0][2], c.rates[0][3]); }));
  EXPECT_TRUE(differs([](CostTable& c) { c.bandwidth = 9; }));
  EXPECT_TRUE(differs([](CostTable& c) { c.threads = 4; }));
  EXPECT_TRUE(differs([](CostTable& c) { c.cpu += "x"; }));
  EXPECT_TRUE(differs([](CostTable& c) { c.version += "x"; }));
}

TEST_F(CostFile, KeepsEveryNumber) {
  const CostTable t = measured();
  write_file_atomic(path_, cost_file_text(t));
  const auto read = read_cost_file(path_);
  EXPECT_EQ(read->hash(), t.hash());
  EXPECT_EQ(read->rate(DType::kI8, Isa::kVnni), 1.0 / 3);
  EXPECT_EQ(read->gain(DType::kBF16, Isa::kVnni), 0.1 / 70);
  EXPECT_EQ(read->gain(DType::kBF16, Isa::kAmx), 0);  // above what was measured
  EXPECT_EQ(read->threads, 3);
  EXPECT_EQ(read->file, path_);
  EXPECT_FALSE(read->built_in());
  EXPECT_THAT(read->text(), testing::AllOf(HasSubstr(path_), HasSubstr(t.hash())));
}

TEST_F(CostFile, RefusesWhatIsNoTable) {
  const std::string text = cost_file_text(measured());
  for (const std::string& other : {std::string(), std::string("{"), std::string("[1]"), std::string("{\"schema\": 3}"), std::string("\xff\xfe"),
                                   replaced(text, "ds-costs/1", "ds-costs/2"), text.substr(0, text.size() / 2)})
    EXPECT_THAT(refusal(other), HasSubstr("no table of costs"));
  for (const std::string& other : {replaced(text, "\"bandwidth\"", "\"band\""), replaced(text, "\"threads\": 3", "\"threads\": \"3\""), replaced(text, "\"bf16\"", "\"bf15\""),
                                   replaced(text, "\"rates\": {", "\"rates\": 3, \"others\": {")})
    EXPECT_THAT(refusal(other), HasSubstr("missing or of the wrong type"));
  EXPECT_THAT(refusal(replaced(text, "25.5", "-25.5")), HasSubstr("is no rate"));
  EXPECT_THAT(refusal(replaced(text, "\"avx2\"", "\"avx3\"")), HasSubstr("avx3"));
}

TEST_F(CostFile, RefusesWhatWasChangedOrIsOfAnotherMachineOrVersion) {
  const std::string text = cost_file_text(measured());
  EXPECT_THAT(refusal(replaced(text, "25.5", "26.5")), HasSubstr("changed or damaged"));
  EXPECT_THAT(refusal(replaced(text, "\"threads\": 3", "\"threads\": 1")), HasSubstr("changed or damaged"));
  EXPECT_EQ(refusal(replaced(text, "2026-01-31", "2027-01-31")), "");  // the date is not in the hash
  CostTable other = measured();
  other.cpu = "Some Other CPU";
  EXPECT_THAT(refusal(cost_file_text(other)), testing::AllOf(HasSubstr("Some Other CPU"), HasSubstr("ds-bench calibrate")));
  other = measured();
  other.version = "0.0.1";
  EXPECT_THAT(refusal(cost_file_text(other)), HasSubstr("measured with ds 0.0.1"));
  EXPECT_THROW(read_cost_file(path_ + ".missing"), Error);
}

TEST_F(CostFile, IsReadOnlyWhenNamed) {
  ::unsetenv("DS_COSTS");
  EXPECT_EQ(named_costs(""), nullptr);
  write_file_atomic(path_, cost_file_text(measured()));
  EXPECT_NE(named_costs(path_), nullptr);
  ::setenv("DS_COSTS", path_.c_str(), 1);
  EXPECT_NE(named_costs(""), nullptr);
  ::setenv("DS_COSTS", "", 1);
  EXPECT_EQ(named_costs(""), nullptr);
  ::unsetenv("DS_COSTS");
}

TEST(CostFileFolder, FollowsTheBaseDirectorySpecification) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const std::string before = cache != nullptr ? cache : "";
  ::setenv("XDG_CACHE_HOME", "/tmp/some/cache", 1);
  EXPECT_EQ(default_cost_file(), "/tmp/some/cache/ds/costs.json");
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_THAT(default_cost_file(), testing::Not(HasSubstr("relative")));
  if (cache != nullptr) ::setenv("XDG_CACHE_HOME", before.c_str(), 1);
  else ::unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace ds
