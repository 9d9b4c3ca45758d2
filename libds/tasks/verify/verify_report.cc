#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libds/tasks/verify/verify.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

std::string shapes_text(const VerifyRound& round) {
  std::vector<std::string> at;
  for (const auto& [name, shape] : round.inputs) at.push_back(fmt::format("{}:{}", name, shape_string(shape)));
  return fmt::format("{}", fmt::join(at, " "));
}

std::string worst_text(const OutputDifference& d) {
  if (!d.got_text.empty() || !d.expected_text.empty()) return fmt::format("element {} is '{}', expected '{}'", d.worst, d.got_text, d.expected_text);
  return fmt::format("element {} is {:.9g}, expected {:.9g}", d.worst, d.got, d.expected);
}

std::string outcome(const OutputDifference& d) {
  if (!d.problem.empty()) return "FAILED: " + d.problem;
  if (d.ok()) return "ok";
  return fmt::format("FAILED: {} of {} elements; {}", d.mismatches, d.elements, worst_text(d));
}

std::string outputs_text(const std::vector<OutputDifference>& outputs) {
  size_t name_width = 6, shape_width = 5;
  for (const OutputDifference& d : outputs) {
    name_width = std::max(name_width, d.name.size());
    shape_width = std::max(shape_width, shape_string(d.shape).size());
  }
  std::string text = fmt::format("{:<{}}  {:<{}}  {:>10}  {:>10}  {:>10}  result\n", "output", name_width, "shape", shape_width,
                                 "max abs", "max rel", "cosine");
  for (const OutputDifference& d : outputs) {
    text += fmt::format("{:<{}}  {:<{}}  ", d.name, name_width, shape_string(d.shape), shape_width);
    if (d.problem.empty()) text += fmt::format("{:>10.3g}  {:>10.3g}  {:>10.8f}  ", d.max_abs, d.max_rel, d.cosine);
    else text += fmt::format("{:>10}  {:>10}  {:>10}  ", "-", "-", "-");
    text += outcome(d) + "\n";
  }
  return text;
}

std::string figures(const OutputDifference& d) {
  if (!d.problem.empty()) return d.problem;
  std::string text = fmt::format("max abs {:.3g}, max rel {:.3g}, cosine {:.8f}", d.max_abs, d.max_rel, d.cosine);
  if (d.mismatches > 0)
    text += fmt::format("; {} of {} elements differ; {}", d.mismatches, d.elements, worst_text(d));
  return text;
}

std::string operand_text(const BisectOperand& o) {
  using Kind = BisectOperand::Kind;
  switch (o.kind) {
    case Kind::kInput: return "an input of the model";
    case Kind::kUnmatched: return "has no counterpart in the reference";
    case Kind::kConstant:
      if (!o.difference) return "a constant";
      return o.difference->ok() ? "a constant, the same" : "a constant that differs: " + figures(*o.difference);
    case Kind::kCompared: break;
  }
  return figures(*o.difference);
}

std::string bisection_text(const Bisection& b) {
  const std::string scope = fmt::format("against {}: ", b.reference);
  if (!b.first)
    return scope + fmt::format("no value inside diverges; {} of the {} results of nodes have a counterpart and were compared\n", b.compared, b.values);
  const Divergence& d = *b.first;
  std::string text = scope + fmt::format("first divergence at {}, after {} values that agree\n", d.node, b.compared - 1);
  const auto line = [&](const std::string& key, const std::string& value) { text += fmt::format("  {:<13}{}\n", key, value); };
  line("result", fmt::format("{} {}: {}", d.value, shape_string(d.difference.shape), figures(d.difference)));
  if (!d.kernel.empty()) line("kernel", d.kernel);
  line("reference", d.reference_node);
  for (const BisectOperand& o : d.operands) line("input", fmt::format("{}: {}", o.name, operand_text(o)));
  if (d.alone) line("alone", "on the reference's inputs: " + figures(*d.alone));
  return text;
}

// JSON has no NaN and no infinity: such numbers are null.
Json number(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }

Json difference_json(const OutputDifference& d) {
  Json o;
  o["name"] = d.name;
  o["shape"] = d.shape;
  o["ok"] = d.ok();
  if (!d.problem.empty()) {
    o["problem"] = d.problem;
    return o;
  }
  o["elements"] = d.elements;
  o["mismatches"] = d.mismatches;
  o["max_abs"] = number(d.max_abs);
  o["max_rel"] = number(d.max_rel);
  o["cosine"] = number(d.cosine);
  const bool text = !d.got_text.empty() || !d.expected_text.empty();
  if (d.mismatches > 0 && text) o["worst"] = {{"index", d.worst}, {"got", d.got_text}, {"expected", d.expected_text}};
  else if (d.mismatches > 0) o["worst"] = {{"index", d.worst}, {"got", number(d.got)}, {"expected", number(d.expected)}};
  return o;
}

Json bisection_json(const Bisection& b) {
  static constexpr const char* kKinds[] = {"compared", "constant", "input", "unmatched"};
  Json o;
  o["reference"] = b.reference;
  o["values"] = b.values;
  o["compared"] = b.compared;
  o["first"] = nullptr;
  if (!b.first) return o;
  const Divergence& d = *b.first;
  Json first;
  first["node"] = d.node;
  first["kernel"] = d.kernel.empty() ? Json(nullptr) : Json(d.kernel);
  first["reference_node"] = d.reference_node;
  first["value"] = difference_json(d.difference);
  first["inputs"] = Json::array();
  for (const BisectOperand& operand : d.operands) {
    Json i{{"name", operand.name}, {"kind", kKinds[static_cast<int>(operand.kind)]}};
    i["difference"] = operand.difference ? difference_json(*operand.difference) : Json(nullptr);
    first["inputs"].push_back(std::move(i));
  }
  first["alone"] = d.alone ? difference_json(*d.alone) : Json(nullptr);
  o["first"] = std::move(first);
  return o;
}

}  // namespace

std::string verify_text(const VerifyReport& r) {
  std::string text;
  for (const VerifyRound& round : r.rounds) {
    if (r.random || r.rounds.size() > 1) text += fmt::format("{}: {}\n", round.source, shapes_text(round));
    text += outputs_text(round.outputs);
  }
  for (const Bisection& b : r.bisections) text += bisection_text(b);
  const bool differs = std::any_of(r.rounds.begin(), r.rounds.end(), [](const VerifyRound& round) { return !all_ok(round.outputs); });
  if (differs && !r.bisections.empty() && !r.bisections.back().first)
    text += r.reference.empty() ? "the difference goes away when values inside are looked at: the memory plan or the executor is to blame\n"
                                : "whatever makes the outputs differ from the reference is no value that could be compared\n";
  return text;
}

std::string verify_json(const VerifyReport& r) {
  Json json;
  json["schema"] = "ds-bench-verify/1";
  json["model"] = r.model;
  json["reference"] = r.reference.empty() ? Json(nullptr) : Json(r.reference);
  json["ok"] = r.ok();
  json["rtol"] = r.tolerance.rtol;
  json["atol"] = r.tolerance.atol;
  json["rounds"] = Json::array();
  for (const VerifyRound& round : r.rounds) {
    Json o;
    o["source"] = round.source;
    o["inputs"] = Json::object();
    for (const auto& [name, shape] : round.inputs) o["inputs"][name] = shape;
    o["outputs"] = Json::array();
    for (const OutputDifference& d : round.outputs) o["outputs"].push_back(difference_json(d));
    json["rounds"].push_back(std::move(o));
  }
  json["bisections"] = Json::array();
  for (const Bisection& b : r.bisections) json["bisections"].push_back(bisection_json(b));
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace ds
