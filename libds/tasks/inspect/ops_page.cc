#include "libds/tasks/inspect/ops_page.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libds/ir/onnx_versions.h"

namespace ds {
namespace {

constexpr std::string_view kGradients[] = {"no", "yes", "through its lowering", "stops here"};

std::string domain_of(const OpDef& def) { return def.domain.empty() ? "ai.onnx" : def.domain; }

std::string count_text(int least, int most) {
  if (most < 0) return fmt::format("{} or more", least);
  return least == most ? fmt::format("{}", least) : fmt::format("{} to {}", least, most);
}

// "floats, i32, i64": families of types by one word.
std::string types_text(const std::vector<DType>& types) {
  struct Family {
    const char* name;
    std::vector<DType> members;
  };
  static const std::vector<Family> families = {
      {"floats", {DType::kF32, DType::kF64, DType::kF16, DType::kBF16}},
      {"8-bit floats", {DType::kF8E4M3FN, DType::kF8E4M3FNUZ, DType::kF8E5M2, DType::kF8E5M2FNUZ}},
      {"integers", {DType::kI8, DType::kI16, DType::kI32, DType::kI64, DType::kU8, DType::kU16, DType::kU32, DType::kU64}},
      {"packed integers", {DType::kI4, DType::kU4, DType::kI2, DType::kU2}},
  };
  const auto has = [&](DType t) { return std::find(types.begin(), types.end(), t) != types.end(); };
  std::vector<std::string> words;
  std::vector<DType> told;
  for (const Family& family : families) {
    if (!std::all_of(family.members.begin(), family.members.end(), has)) continue;
    words.emplace_back(family.name);
    told.insert(told.end(), family.members.begin(), family.members.end());
  }
  for (DType t : types)
    if (std::find(told.begin(), told.end(), t) == told.end()) words.emplace_back(dtype_name(t));
  return fmt::format("{}", fmt::join(words, ", "));
}

// What is special about shapes and plans.
std::vector<std::string> shape_notes(const OpDef& def) {
  std::vector<std::string> notes;
  if (def.is_view) notes.emplace_back("takes no time: its result is its input under another shape");
  if (def.data_dependent) notes.emplace_back("the size of its result depends on content, so that a model with it runs node by node");
  std::vector<int> deciding;
  for (int i = 0; i < 32; ++i)
    if ((def.shape_inputs >> i) & 1) deciding.push_back(i + 1);
  if (!deciding.empty())
    notes.push_back(fmt::format("input{} {} decide{} shapes and must be constant, or computed from shapes, for a plan", deciding.size() > 1 ? "s" : "",
                                fmt::join(deciding, ", "), deciding.size() > 1 ? "" : "s"));
  if (def.stateful) notes.emplace_back("never folded or merged");
  return notes;
}

std::string roff(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '-') out += "\\-";
    else if (c == '\\') out += "\\e";
    else out += c;
  }
  if (!out.empty() && (out[0] == '.' || out[0] == '\'')) out.insert(0, "\\&");
  return out;
}

void roff_op(std::string& out, const OpFacts& op) {
  const OpDef& def = *op.def;
  out += fmt::format(".TP\n\\fB{}\\fR", roff(def.name));
  if (op.since > 0) out += fmt::format(" (since operator set {})", op.since);
  out += fmt::format("\ninputs: {}; outputs: {}; gradient: {}", count_text(def.min_inputs, def.max_inputs), count_text(def.min_outputs, def.max_outputs),
                     kGradients[static_cast<int>(op.gradient)]);
  if (!op.types.empty()) out += "; types: " + types_text(op.types);
  if (def.lower) out += "; lowered";
  if (!op.kernels.empty()) out += roff(fmt::format("; kernels: {}", fmt::join(op.kernels, ", ")));
  for (const std::string& note : shape_notes(def)) out += "; " + roff(note);
  out += ".\n";
}

}  // namespace

std::vector<OpFacts> list_ops(bool try_types) {
  std::vector<OpFacts> list;
  for (const OpDef* def : OpRegistry::instance().all()) {
    if (def->domain == Graph::kInternalDomain) continue;
    OpFacts facts;
    facts.def = def;
    if (def->domain.empty() && first_opset(def->name) > kOldestOpset) facts.since = first_opset(def->name);
    facts.gradient = def->grad             ? OpFacts::Gradient::kOwn
                     : def->stops_gradient ? OpFacts::Gradient::kStops
                     : def->lower          ? OpFacts::Gradient::kLowered
                                           : OpFacts::Gradient::kNone;
    for (const KernelDef& k : def->kernels) facts.kernels.push_back(k.name);
    if (try_types) facts.types = runnable_types(*def);
    list.push_back(std::move(facts));
  }
  return list;
}

std::string ops_text(const std::vector<OpFacts>& ops) {
  size_t width = 8;
  for (const OpFacts& op : ops) width = std::max(width, op.def->name.size() + (op.def->domain.empty() ? 0 : op.def->domain.size() + 1));
  std::string text = fmt::format("{:<{}}  {:>5}  {:<20}  runs by\n", "operator", width, "since", "gradient");
  for (const OpFacts& op : ops) {
    const std::string name = op.def->domain.empty() ? op.def->name : op.def->domain + "." + op.def->name;
    text += fmt::format("{:<{}}  {:>5}  {:<20}  {}\n", name, width, op.since > 0 ? std::to_string(op.since) : "-", kGradients[static_cast<int>(op.gradient)],
                        op.def->lower ? "other operators" : fmt::format("{}", fmt::join(op.kernels, ", ")));
  }
  return text;
}

std::string ops_json(const std::vector<OpFacts>& ops) {
  using Json = nlohmann::ordered_json;
  Json json;
  json["schema"] = "ds-bench-ops/1";
  json["oldest_opset"] = kOldestReadOpset;
  json["newest_opset"] = kNewestOpset;
  json["ops"] = Json::array();
  for (const OpFacts& op : ops) {
    json["ops"].push_back({{"domain", domain_of(*op.def)},
                           {"op", op.def->name},
                           {"since", op.since > 0 ? Json(op.since) : Json(nullptr)},
                           {"gradient", op.gradient != OpFacts::Gradient::kNone && op.gradient != OpFacts::Gradient::kStops},
                           {"stops_gradient", op.gradient == OpFacts::Gradient::kStops},
                           {"lowered", static_cast<bool>(op.def->lower)},
                           {"kernels", op.kernels}});
  }
  json["missing"] = Json::array();
  for (const MissingOp& m : missing_ops()) json["missing"].push_back({{"domain", m.domain.empty() ? "ai.onnx" : m.domain}, {"op", m.op}, {"reason", m.reason}});
  json["former_names"] = Json::object();
  for (const auto& [former, name] : former_op_names()) json["former_names"][former] = name;
  return json.dump(2) + "\n";
}

std::string ops_man_page(const std::vector<OpFacts>& ops, const std::string& version) {
  std::string out = fmt::format(".TH DS\\-OPS 7 \"\" \"ds {}\" \"ds manual\"\n", version);
  out += ".SH NAME\nds\\-ops \\- operators that ds reads and runs\n.SH DESCRIPTION\n";
  out += fmt::format("Models of operator sets {} to {} are read; every operator is kept in the form of the newest set.\n", kOldestReadOpset, kNewestOpset);
  out += "This page is written from the registry of operators by\n.B ds\\-bench ops \\-\\-man\nand says the same as\n.BR \"ds\\-bench ops\" .\n.PP\n";
  out += "For each operator: the operator set it began with, where that is not as old as set 7; how many inputs and outputs it has; whether \\fBds\\-train\\fR(1) can go "
         "through it: yes, by its own rule or through the operators it is lowered to, or the gradient stops there, as it is zero or has no "
         "meaning; the types of its first input that ran when this page was written, where a small example of the operator was at hand to try "
         "(floats: f32, f64, f16, bf16; integers: those of 8 to 64 bits, signed or not; packed integers: those of 4 and 2 bits); "
         "whether it is lowered, that is, written in terms of other operators before it runs; its kernels, best first (one whose name begins "
         "with an instruction set needs it, those of onednn need AVX2, portable ones run everywhere, and widened computes 16\\-bit floats in "
         "f32 by the others); and what is special about shapes.\n";
  std::string domain;
  for (const OpFacts& op : ops) {
    if (domain_of(*op.def) != domain) {
      domain = domain_of(*op.def);
      out += fmt::format(".SH DOMAIN {}\n", roff(domain));
    }
    roff_op(out, op);
  }
  out += ".SH FORMER NAMES\n";
  for (const auto& [former, name] : former_op_names()) out += fmt::format(".TP\n\\fB{}\\fR\nis read as {}.\n", roff(former), roff(name));
  out += ".SH NOT SUPPORTED\nOperators of ai.onnx and ai.onnx.ml that this library does not have.\n";
  if (missing_ops().empty()) out += "There are none.\n";
  for (const MissingOp& m : missing_ops()) out += fmt::format(".TP\n\\fB{}\\fR\n{}\n", roff(m.op), roff(m.reason));
  out += ".SH SEE ALSO\n\\fBds\\fR(1), \\fBds\\-bench\\fR(1), \\fBds\\-train\\fR(1), \\fBds\\-design\\fR(7)\n";
  return out;
}

}  // namespace ds
