// Small files for the data tests, in a folder of their own that goes away with the test.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "libds/base/error.h"
#include "libds/base/file.h"

namespace ds::testing {

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ds_data.XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string path(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name, std::string_view contents) const {
    write_file_atomic(path(name), contents);
    return path(name);
  }

 private:
  std::string path_;
};

// The body must throw an Error whose text contains `part`.
template <typename Body>
void expect_error(Body&& body, std::string_view part, ExitCode code = ExitCode::kBadData) {
  try {
    body();
    ADD_FAILURE() << "accepted; expected: " << part;
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(code)) << e.what();
    EXPECT_NE(std::string_view(e.what()).find(part), std::string_view::npos) << "got: " << e.what();
    EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos) << "more than one line";
  }
}

}  // namespace ds::testing
