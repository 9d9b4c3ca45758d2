#include "libds/ops/elementwise_program.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <sstream>

#include "libds/ops/elementwise.h"

namespace ds::ops {
namespace {

using kernels::Binary;
using kernels::Chain;
using kernels::ChainStep;
using kernels::Compare;
using kernels::Logic;
using Kind = ChainStep::Kind;

// Functions of values alone; those of one operand with parameters come from ops/unary.cc.
struct Named {
  std::string_view name;
  Kind kind;
  int function;
  size_t operands;
};

constexpr Named kNamed[] = {
    {"Add", Kind::kBinary, static_cast<int>(Binary::kAdd), 2},
    {"Sub", Kind::kBinary, static_cast<int>(Binary::kSub), 2},
    {"Mul", Kind::kBinary, static_cast<int>(Binary::kMul), 2},
    {"Div", Kind::kBinary, static_cast<int>(Binary::kDiv), 2},
    {"Min", Kind::kBinary, static_cast<int>(Binary::kMin), 2},
    {"Max", Kind::kBinary, static_cast<int>(Binary::kMax), 2},
    {"PRelu", Kind::kBinary, static_cast<int>(Binary::kPRelu), 2},
    {"Pow", Kind::kPow, 0, 2},
    {"Equal", Kind::kCompare, static_cast<int>(Compare::kEqual), 2},
    {"Greater", Kind::kCompare, static_cast<int>(Compare::kGreater), 2},
    {"GreaterOrEqual", Kind::kCompare, static_cast<int>(Compare::kGreaterOrEqual), 2},
    {"Less", Kind::kCompare, static_cast<int>(Compare::kLess), 2},
    {"LessOrEqual", Kind::kCompare, static_cast<int>(Compare::kLessOrEqual), 2},
    {"And", Kind::kLogic, static_cast<int>(Logic::kAnd), 2},
    {"Or", Kind::kLogic, static_cast<int>(Logic::kOr), 2},
    {"Xor", Kind::kLogic, static_cast<int>(Logic::kXor), 2},
    {"Not", Kind::kNot, 0, 1},
    {"Where", Kind::kSelect, 0, 3},
    {"Clip", Kind::kClip, 0, 1},
};

const Named* find_named(std::string_view name) {
  const auto* it = std::find_if(std::begin(kNamed), std::end(kNamed), [&](const Named& n) { return n.name == name; });
  return it == std::end(kNamed) ? nullptr : it;
}

bool is_fold(const Node& n) { return n.is("Min") || n.is("Max") || n.is("Sum") || n.is("Mean"); }

float number_of(std::string_view word) {
  const std::string text(word);
  char* end = nullptr;
  const float x = std::strtof(text.c_str(), &end);
  if (text.empty() || *end != '\0') bad_data("'{}' is no value of a program", text);
  return x;
}

// The only element of a constant; nullopt where there is none.
std::optional<double> scalar(const Content& fixed, ValueId id) {
  const Tensor* t = id == kNone ? nullptr : fixed(id);
  if (t == nullptr || t->numel() != 1) return std::nullopt;
  return t->to_doubles()[0];
}

// The bound of a Clip; nullopt where it is not known.
std::optional<double> bound(const Node& n, size_t i, const Content& fixed) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (n.input(i) == kNone) return i == 1 ? -kInfinity : kInfinity;
  return scalar(fixed, n.input(i));
}

}  // namespace

std::string program_number(double x) { return fmt::format("{}", static_cast<float>(x)); }

Chain parse_program(const std::vector<std::string>& lines, size_t operands) {
  Chain chain;
  chain.operands = static_cast<int>(operands);
  if (lines.empty() || lines.size() > Chain::kMostSteps) bad_data("a program of {} lines", lines.size());
  if (operands > Chain::kMostOperands) bad_data("a program of {} operands", operands);
  // Results come behind the numbers, whose count is known at the end: until then they are negative.
  const auto value = [&](std::string_view word, size_t line) -> int {
    const bool is_name = word.size() > 1 && (word[0] == 'x' || word[0] == 't') && word[1] >= '0' && word[1] <= '9';
    if (!is_name) {
      chain.numbers.push_back(static_cast<double>(number_of(word)));
      return chain.operands + static_cast<int>(chain.numbers.size()) - 1;
    }
    size_t i = 0;
    const auto [end, error] = std::from_chars(word.data() + 1, word.data() + word.size(), i);
    if (error != std::errc() || end != word.data() + word.size() || i >= (word[0] == 'x' ? operands : line))
      bad_data("'{}' is no value of line {} of a program", std::string(word), line);
    return word[0] == 'x' ? static_cast<int>(i) : -2 - static_cast<int>(i);
  };
  for (size_t k = 0; k < lines.size(); ++k) {
    std::istringstream in(lines[k]);
    std::vector<std::string> words;
    for (std::string word; in >> word;) words.push_back(std::move(word));
    if (words.empty()) bad_data("line {} of a program is empty", k);
    ChainStep s;
    size_t count = 1, most_parameters = 0;
    if (const Named* named = find_named(words[0])) {
      s.kind = named->kind;
      s.function = named->function;
      count = named->operands;
      if (s.kind == Kind::kClip) most_parameters = 2;
    } else if (const auto unary = unary_named(words[0])) {
      s.function = static_cast<int>(unary->op);
      most_parameters = static_cast<size_t>(unary->parameters);
    } else {
      bad_data("a program has no function '{}'", words[0]);
    }
    if (words.size() != 1 + count + most_parameters) bad_data("line {} of a program, '{}', has {} words", k, lines[k], words.size());
    for (size_t i = 0; i < count; ++i) s.from[i] = value(words[1 + i], k);
    if (most_parameters > 0) s.alpha = static_cast<double>(number_of(words[1 + count]));
    if (most_parameters > 1) s.beta = static_cast<double>(number_of(words[2 + count]));
    chain.steps.push_back(s);
  }
  const int results = chain.operands + static_cast<int>(chain.numbers.size());
  for (ChainStep& s : chain.steps)
    for (int& from : s.from)
      if (from < -1) from = results + (-2 - from);
  if (chain.steps.back().gives_flags()) bad_data("the last line of a program gives no numbers");
  return chain;
}

bool fits_program(const Node& n, const Graph& graph, const Content& fixed) {
  if (!n.domain.empty() || n.outputs.size() != 1) return false;
  const auto is = [&](ValueId id, DType dtype) { return id != kNone && graph.value(id).dtype == dtype; };
  const auto all = [&](size_t first, DType dtype) {
    return std::all_of(n.inputs.begin() + static_cast<std::ptrdiff_t>(first), n.inputs.end(), [&](ValueId id) { return is(id, dtype); });
  };
  if (n.is("Cast")) return is(n.input(0), DType::kBool) && is(n.output(0), DType::kF32);
  if (n.is("Clip")) return is(n.input(0), DType::kF32) && bound(n, 1, fixed) && bound(n, 2, fixed);
  if (n.is("Where")) return is(n.input(0), DType::kBool) && all(1, DType::kF32);
  if (n.is("And") || n.is("Or") || n.is("Xor") || n.is("Not")) return all(0, DType::kBool);
  if (n.is("Pow") && is(n.input(0), DType::kF32) && !is(n.input(1), DType::kF32)) {
    const auto exponent = scalar(fixed, n.input(1));  // others are computed in double
    return exponent == 2.0 || exponent == 1.0;
  }
  return all(0, DType::kF32) && (is_fold(n) || find_named(n.op) != nullptr || unary_function(n));
}

void write_program(const Node& n, const Content& fixed, const std::function<std::string(ValueId)>& name, std::vector<std::string>& lines) {
  if (is_fold(n)) {
    const std::string op = n.is("Min") || n.is("Max") ? n.op : "Add";
    std::string sum = name(n.input(0));
    for (size_t i = 1; i < n.inputs.size(); ++i) {
      lines.push_back(fmt::format("{} {} {}", op, sum, name(n.inputs[i])));
      sum = fmt::format("t{}", lines.size() - 1);
    }
    if (n.is("Mean")) lines.push_back(fmt::format("Mul {} {}", sum, program_number(1.0 / static_cast<double>(n.inputs.size()))));
    else if (n.inputs.size() == 1) lines.push_back(fmt::format("Mul {} 1", sum));
  } else if (n.is("Cast")) {
    lines.push_back(fmt::format("Where {} 1 0", name(n.input(0))));
  } else if (n.is("Clip")) {
    lines.push_back(fmt::format("Clip {} {} {}", name(n.input(0)), program_number(*bound(n, 1, fixed)), program_number(*bound(n, 2, fixed))));
  } else if (n.is("Pow") && scalar(fixed, n.input(1))) {
    lines.push_back(fmt::format("Pow {} {}", name(n.input(0)), program_number(*scalar(fixed, n.input(1)))));
  } else if (const auto unary = unary_function(n)) {
    std::string line = fmt::format("{} {}", unary->op == kernels::Unary::kGeluTanh ? "GeluTanh" : n.op, name(n.input(0)));
    if (unary->parameters > 0) line += " " + program_number(unary->alpha);
    if (unary->parameters > 1) line += " " + program_number(unary->beta);
    lines.push_back(std::move(line));
  } else {
    std::string line = n.op;
    for (ValueId id : n.inputs) line += " " + name(id);
    lines.push_back(std::move(line));
  }
}

}  // namespace ds::ops
