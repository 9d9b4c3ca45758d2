// Reports against the published schemas in man/.
#pragma once

#include <string>
#include <vector>

namespace ds::test {

// What the JSON text `value` breaks of man/<schema>; empty when it conforms. Knows the part of JSON Schema
// (draft 7) that our schemas use; an unknown keyword is a problem, so that nothing is taken for checked that is not.
std::vector<std::string> schema_problems(const std::string& value, const std::string& schema);

}  // namespace ds::test
