#include "libds/ops/einsum_equation.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <optional>

#include "libds/ops/common.h"

namespace ds::ops {
namespace {

// Letters of one term; an ellipsis is the single entry kEllipsis.
Labels parse_term(std::string_view term, std::string_view whole) {
  Labels labels;
  for (size_t i = 0; i < term.size(); ++i) {
    const char c = term[i];
    if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
      labels.push_back(c);
    } else if (term.substr(i, 3) == "...") {
      if (std::count(labels.begin(), labels.end(), kEllipsis) > 0)
        bad_data("equation '{}' has two ellipses in one term", whole);
      labels.push_back(kEllipsis);
      i += 2;
    } else {
      bad_data("equation '{}' holds '{}'", whole, std::string(1, c));
    }
  }
  return labels;
}

// The ellipsis of a term becomes `n` axes.
Labels expand(const Labels& term, size_t n) {
  Labels out;
  for (Label label : term) {
    if (label != kEllipsis)
      out.push_back(label);
    else
      for (size_t i = n; i-- > 0;) out.push_back(kEllipsis + static_cast<Label>(i));
  }
  return out;
}

bool has_ellipsis(const Labels& term) { return std::count(term.begin(), term.end(), kEllipsis) > 0; }

// Without "->": the axes of the ellipsis, then the letters that stand there once, in alphabetical order.
Labels implicit_output(const std::vector<Labels>& terms) {
  std::array<int, 128> times{};
  bool ellipsis = false;
  for (const Labels& term : terms)
    for (Label label : term) {
      if (label == kEllipsis)
        ellipsis = true;
      else
        ++times[static_cast<size_t>(label)];
    }
  Labels out;
  if (ellipsis) out.push_back(kEllipsis);
  for (size_t c = 0; c < times.size(); ++c)
    if (times[c] == 1) out.push_back(static_cast<Label>(c));
  return out;
}

}  // namespace

Equation parse_equation(std::string_view text, const std::vector<size_t>& ranks) {
  std::string plain;
  for (char c : text)
    if (c != ' ') plain += c;
  const size_t arrow = plain.find("->");
  const std::string left = plain.substr(0, arrow);
  std::vector<Labels> terms;
  for (size_t at = 0; at <= left.size();) {
    const size_t comma = std::min(left.find(',', at), left.size());
    terms.push_back(parse_term(std::string_view(left).substr(at, comma - at), text));
    at = comma + 1;
  }
  if (terms.size() != ranks.size())
    bad_data("equation '{}' has {} terms for {} operands", text, terms.size(), ranks.size());
  const Labels output = arrow == std::string::npos
                            ? implicit_output(terms)
                            : parse_term(std::string_view(plain).substr(arrow + 2), text);
  Equation e;
  size_t dots = 0;  // axes of an ellipsis
  bool any = false;
  for (size_t i = 0; i < terms.size(); ++i) {
    const bool ellipsis = has_ellipsis(terms[i]);
    const size_t letters = terms[i].size() - (ellipsis ? 1 : 0);
    if (ellipsis ? ranks[i] < letters : ranks[i] != letters)
      bad_data("equation '{}' names {} axes of operand {}, which has {}", text, letters, i, ranks[i]);
    if (ellipsis && any && ranks[i] - letters != dots)
      bad_data("the ellipsis of equation '{}' stands for {} axes and for {}", text, dots, ranks[i] - letters);
    if (ellipsis) dots = ranks[i] - letters;
    any = any || ellipsis;
    e.operands.push_back(expand(terms[i], ranks[i] - letters));
  }
  if (dots > 0 && !has_ellipsis(output)) bad_data("equation '{}' drops the axes of its ellipsis", text);
  e.output = expand(output, dots);
  for (Label label : e.output) {
    if (std::count(e.output.begin(), e.output.end(), label) > 1)
      bad_data("equation '{}' has a label twice in its output", text);
    const bool known = std::any_of(e.operands.begin(), e.operands.end(), [&](const Labels& term) {
      return std::find(term.begin(), term.end(), label) != term.end();
    });
    if (!known) bad_data("equation '{}' has a label in its output that no operand has", text);
  }
  return e;
}

int64_t LabelSizes::of(Label label) const {
  return size[static_cast<size_t>(std::find(labels.begin(), labels.end(), label) - labels.begin())];
}

LabelSizes label_sizes(const Equation& e, const std::vector<Shape>& shapes) {
  LabelSizes s;
  s.labels = e.output;
  s.size.assign(s.labels.size(), 1);
  for (size_t o = 0; o < e.operands.size(); ++o)
    for (size_t a = 0; a < e.operands[o].size(); ++a) {
      auto it = std::find(s.labels.begin(), s.labels.end(), e.operands[o][a]);
      if (it == s.labels.end()) {
        s.size.push_back(1);
        it = s.labels.insert(s.labels.end(), e.operands[o][a]);
      }
      int64_t& size = s.size[static_cast<size_t>(it - s.labels.begin())];
      const int64_t here = shapes[o][a];
      if (size != 1 && here != 1 && size != here)
        bad_data("a label of its equation has the sizes {} and {}", size, here);
      if (size == 1) size = here;
    }
  return s;
}

kernels::EinsumSpace whole_space(const Equation& e, const std::vector<Shape>& shapes) {
  const LabelSizes s = label_sizes(e, shapes);
  kernels::EinsumSpace space{s.size, e.output.size(), {}};
  for (size_t o = 0; o < e.operands.size(); ++o) {
    std::vector<int64_t> stride(s.labels.size(), 0);
    const Shape steps = strides_of(shapes[o]);
    for (size_t a = 0; a < steps.size(); ++a)
      if (shapes[o][a] != 1)
        stride[static_cast<size_t>(std::find(s.labels.begin(), s.labels.end(), e.operands[o][a]) -
                                   s.labels.begin())] += steps[a];
    space.stride.push_back(std::move(stride));
  }
  return space;
}

}  // namespace ds::ops
