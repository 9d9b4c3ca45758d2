#include "tests/support/json_schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libds/base/file.h"

namespace ds::test {
namespace {

using nlohmann::json;

bool has_type(const json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  return false;
}

class Validator {
 public:
  explicit Validator(const json& root) : root_(root) {}

  void check(const json& value, const json& schema, const std::string& at) {
    for (const auto& [key, rule] : schema.items()) {
      if (key == "$schema" || key == "title" || key == "description" || key == "definitions") continue;
      if (key == "$ref") {
        check(value, root_.at(json::json_pointer(rule.get<std::string>().substr(1))), at);
      } else if (key == "anyOf") {
        const bool fits = std::any_of(rule.begin(), rule.end(), [&](const json& choice) {
          Validator alone(root_);
          alone.check(value, choice, at);
          return alone.problems.empty();
        });
        if (!fits) problems.push_back(at + ": none of the alternatives");
      } else if (key == "type") {
        bool fits = rule.is_string() ? has_type(value, rule) : false;
        if (rule.is_array())
          for (const auto& type : rule) fits = fits || has_type(value, type);
        if (!fits) problems.push_back(at + ": type is not " + rule.dump());
      } else if (key == "const") {
        if (value != rule) problems.push_back(at + ": not " + rule.dump());
      } else if (key == "enum") {
        if (std::find(rule.begin(), rule.end(), value) == rule.end()) problems.push_back(at + ": not in " + rule.dump());
      } else if (key == "minimum") {
        if (value.is_number() && value < rule) problems.push_back(at + ": below " + rule.dump());
      } else if (key == "maximum") {
        if (value.is_number() && value > rule) problems.push_back(at + ": above " + rule.dump());
      } else if (key == "minItems") {
        if (value.is_array() && value.size() < rule) problems.push_back(at + ": too few items");
      } else if (key == "required") {
        for (const auto& name : rule)
          if (value.is_object() && !value.contains(name)) problems.push_back(at + ": lacks " + name.dump());
      } else if (key == "items") {
        if (value.is_array())
          for (const auto& item : value) check(item, rule, at + "[]");
      } else if (key == "properties") {
        if (value.is_object())
          for (const auto& [name, sub] : rule.items())
            if (value.contains(name)) check(value.at(name), sub, at + "." + name);
      } else if (key == "additionalProperties") {
        if (!value.is_object()) continue;
        for (const auto& [name, sub] : value.items()) {
          if (schema.contains("properties") && schema.at("properties").contains(name)) continue;
          if (rule == false) problems.push_back(at + ": unknown member " + name);
          else check(sub, rule, at + "." + name);
        }
      } else {
        problems.push_back("schema keyword not understood: " + key);
      }
    }
  }

  std::vector<std::string> problems;

 private:
  const json& root_;
};

}  // namespace

std::vector<std::string> schema_problems(const std::string& value, const std::string& schema) {
  const json root = json::parse(read_file(std::string(DS_TESTDATA) + "/../man/" + schema));
  Validator validator(root);
  validator.check(json::parse(value), root, "$");
  return validator.problems;
}

}  // namespace ds::test
