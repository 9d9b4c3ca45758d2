// --help and the man page, written from the option table.
#include <algorithm>

#include "apps/common/options.h"

namespace ds::cli {
namespace {

constexpr size_t kWidth = 80;
constexpr size_t kHelpColumn = 26;

std::vector<std::string> paragraphs(const std::string& text) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find("\n\n", begin), text.size());
    if (end > begin) out.push_back(text.substr(begin, end - begin));
    begin = end + 2;
  }
  return out;
}

// `text` broken at spaces into lines of at most `width` characters.
std::vector<std::string> wrap(const std::string& text, size_t width) {
  std::vector<std::string> lines(1);
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find_first_of(" \n", begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (!word.empty()) {
      if (!lines.back().empty() && lines.back().size() + 1 + word.size() > width) lines.emplace_back();
      lines.back() += (lines.back().empty() ? "" : " ") + word;
    }
    begin = end + 1;
  }
  return lines;
}

// "what it does (required; default: 3)"
std::string full_help(const OptionSpec& spec) {
  std::vector<std::string> notes;
  if (spec.required && !spec.positional) notes.push_back("required");
  if (spec.list && !spec.positional) notes.push_back("may be repeated");
  if (!spec.default_text.empty()) notes.push_back("default: " + spec.default_text);
  return notes.empty() ? spec.help : fmt::format("{} ({})", spec.help, fmt::join(notes, "; "));
}

std::string argument_shape(const OptionSpec& spec) {
  std::string name = spec.long_name + (spec.list ? "..." : "");
  return spec.required ? name : "[" + name + "]";
}

std::string usage_of(const Command& c) {
  std::string usage = c.name() + " [OPTION]...";
  for (const OptionSpec& spec : c.options())
    if (!spec.positional && spec.required) usage += fmt::format(" --{} {}", spec.long_name, spec.value_name);
  for (const OptionSpec& spec : c.options())
    if (spec.positional) usage += " " + argument_shape(spec);
  return usage;
}

struct Group {
  std::string heading;
  std::vector<const OptionSpec*> rows;
};

const OptionSpec& help_row() {
  static const OptionSpec row = [] {
    OptionSpec r;
    r.long_name = "help";
    r.short_name = 'h';
    r.help = "print this help";
    r.flag = true;
    return r;
  }();
  return row;
}

const OptionSpec& version_row() {
  static const OptionSpec row = [] {
    OptionSpec r;
    r.long_name = "version";
    r.help = "print the version";
    r.flag = true;
    return r;
  }();
  return row;
}

// Arguments first, then the headings in the order of declaration, then the common options.
std::vector<Group> groups_of(const Command& c) {
  std::vector<Group> groups;
  const auto group = [&](const std::string& heading) -> Group& {
    for (Group& g : groups)
      if (g.heading == heading) return g;
    return groups.emplace_back(Group{heading, {}});
  };
  for (const OptionSpec& spec : c.options())
    if (spec.positional) group(spec.group).rows.push_back(&spec);
  for (const OptionSpec& spec : c.options())
    if (!spec.positional && spec.group != "Common options") group(spec.group).rows.push_back(&spec);
  Group& common = group("Common options");
  for (const OptionSpec& spec : c.options())
    if (spec.group == "Common options") common.rows.push_back(&spec);
  common.rows.push_back(&help_row());
  common.rows.push_back(&version_row());
  return groups;
}

void append_row(std::string& out, const std::string& left, const std::string& text) {
  std::string line = "  " + left;
  if (line.size() + 2 > kHelpColumn) {
    out += line + "\n";
    line.clear();
  }
  for (const std::string& piece : wrap(text, kWidth - kHelpColumn)) {
    line.resize(kHelpColumn, ' ');
    out += line + piece + "\n";
    line.clear();
  }
}

// --- roff ---------------------------------------------------------------------------------------

// Text for a roff line: hyphens that must stay hyphens, no accidental requests.
std::string roff(std::string_view text) {
  std::string out;
  bool line_start = true;
  for (char c : text) {
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') out += "\\e";
    else if (c == '-') out += "\\-";
    else out += c;
    line_start = c == '\n';
  }
  return out;
}

std::string roff_option(const OptionSpec& spec) {
  if (spec.positional) return fmt::format("\\fI{}\\fR", roff(spec.long_name + (spec.list ? "..." : "")));
  std::string text;
  if (spec.short_name) text = fmt::format("\\fB\\-{}\\fR, ", spec.short_name);
  text += fmt::format("\\fB\\-\\-{}\\fR", roff(spec.long_name));
  if (!spec.value_name.empty()) {
    if (spec.choices.empty()) text += fmt::format(" \\fI{}\\fR", roff(spec.value_name));
    else text += fmt::format(" \\fB{}\\fR", roff(spec.value_name));
  }
  return text;
}

void roff_options(std::string& out, const Command& c, bool common) {
  for (const Group& group : groups_of(c)) {
    if (!common && group.heading == "Common options" && group.rows.size() == 2) continue;
    out += fmt::format(".SS {}\n", roff(group.heading));
    for (const OptionSpec* spec : group.rows)
      out += fmt::format(".TP\n{}\n{}\n", roff_option(*spec), roff(full_help(*spec)));
  }
}

void roff_paragraphs(std::string& out, const std::string& text) {
  bool first = true;
  for (const std::string& paragraph : paragraphs(text)) {
    if (!first) out += ".PP\n";
    first = false;
    out += roff(paragraph) + "\n";
  }
}

void roff_examples(std::string& out, const Command& c) {
  for (const auto& [command, explanation] : c.examples())
    out += fmt::format(".PP\n{}:\n.PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n", roff(explanation), roff(command));
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

std::string help_text(const Command& c) {
  std::string out;
  std::string lead = "Usage: ";
  if (c.body() || c.subcommands().empty()) {
    const std::vector<std::string> lines = wrap(usage_of(c), kWidth - 11);
    for (size_t i = 0; i < lines.size(); ++i) out += (i == 0 ? lead : "           ") + lines[i] + "\n";
    lead = "       ";
  }
  if (!c.subcommands().empty()) out += lead + c.name() + " COMMAND [OPTION]...\n";
  out += "\n";
  for (const std::string& p : paragraphs(c.description().empty() ? c.summary() : c.description())) {
    for (const std::string& line : wrap(p, kWidth)) out += line + "\n";
    out += "\n";
  }
  if (!c.subcommands().empty()) {
    out += "Commands:\n";
    for (const Command& sub : c.subcommands()) append_row(out, sub.last_word(), sub.summary());
    out += "\n";
  }
  for (const Group& group : groups_of(c)) {
    out += group.heading + ":\n";
    for (const OptionSpec* spec : group.rows) {
      if (spec->positional) {
        append_row(out, spec->long_name + (spec->list ? "..." : ""), full_help(*spec));
        continue;
      }
      std::string left = spec->short_name ? fmt::format("-{}, ", spec->short_name) : "    ";
      left += "--" + spec->long_name;
      if (!spec->value_name.empty()) left += " " + spec->value_name;
      append_row(out, left, full_help(*spec));
    }
    out += "\n";
  }
  if (!c.examples().empty()) {
    out += "Examples:\n";
    for (const auto& [command, explanation] : c.examples()) out += fmt::format("  # {}\n  {}\n", explanation, command);
    out += "\n";
  }
  if (!c.subcommands().empty()) out += fmt::format("`{} COMMAND --help` explains a command.\n", c.name());
  else out.pop_back();
  return out;
}

std::string man_page(const Command& c) {
  std::string out = fmt::format(".TH {} 1 \"\" \"ds {}\" \"ds manual\"\n", roff(upper(c.name())), version_text());
  out += fmt::format(".SH NAME\n{} \\- {}\n", roff(c.name()), roff(c.summary()));
  out += ".SH SYNOPSIS\n.nh\n";
  std::vector<const Command*> forms;
  if (c.body() || c.subcommands().empty()) forms.push_back(&c);
  bool delegates = false;
  for (const Command& sub : c.subcommands()) {
    if (sub.passthrough()) delegates = true;
    else forms.push_back(&sub);
  }
  if (delegates) out += fmt::format("\\fB{}\\fR COMMAND [ARGUMENT]...\n.br\n\\fB{}\\fR \\-\\-help\n", roff(c.name()), roff(c.name()));
  for (size_t i = 0; i < forms.size(); ++i) {
    const std::string usage = usage_of(*forms[i]);
    const size_t name = forms[i]->name().size();
    out += fmt::format("{}\\fB{}\\fR{}\n", i ? ".br\n" : "", roff(usage.substr(0, name)), roff(usage.substr(name)));
  }
  out += ".hy\n.SH DESCRIPTION\n";
  roff_paragraphs(out, c.description().empty() ? c.summary() + "." : c.description());
  out += ".SH OPTIONS\n";
  roff_options(out, c, true);
  if (!c.subcommands().empty()) {
    out += ".SH COMMANDS\n";
    for (const Command& sub : c.subcommands()) {
      if (sub.passthrough()) {
        out += fmt::format(".TP\n\\fB{}\\fR\n{}; see \\fB{}\\fR(1).\n", roff(sub.last_word()), roff(sub.summary()),
                           roff(c.name() + "-" + sub.last_word()));
        continue;
      }
      out += fmt::format(".SS {}\n", roff(sub.name()));
      roff_paragraphs(out, sub.description().empty() ? sub.summary() + "." : sub.description());
      for (const OptionSpec& spec : sub.options())
        out += fmt::format(".TP\n{}\n{}\n", roff_option(spec), roff(full_help(spec)));
      roff_examples(out, sub);
    }
  }
  out += ".SH EXIT STATUS\n";
  for (const auto& [code, meaning] : c.exit_statuses())
    out += fmt::format(".TP\n.B {}\n{}\n", static_cast<int>(code), roff(meaning));
  out +=
      ".SH ENVIRONMENT\n.TP\n.B DS_LOG\nComma\\-separated topics to explain on standard error: dispatch, plan, mem, or all.\n"
      ".TP\n.B DS_ISA\nHighest instruction set to use: portable, avx2, avx512, vnni or amx.\n"
      ".TP\n.B NO_COLOR\nWhen set and not empty, nothing is coloured.\n";
  const bool costs = std::any_of(forms.begin(), forms.end(), [](const Command* form) {
    return std::any_of(form->options().begin(), form->options().end(), [](const OptionSpec& spec) { return spec.long_name == "costs"; });
  });
  if (costs) out += ".TP\n.B DS_COSTS\nTable of costs for \\-\\-precision auto to go by, where \\-\\-costs names none. No file is read that is not named.\n";
  if (!c.examples().empty()) {
    out += ".SH EXAMPLES\n";
    roff_examples(out, c);
  }
  out += ".SH SEE ALSO\n";
  std::string also;
  for (const char* name : {"ds", "ds-bench", "ds-prune", "ds-quantize", "ds-serve", "ds-train"})
    if (c.name() != name) also += fmt::format("\\fB{}\\fR(1),\n", roff(name));
  out += also + "\\fBds\\-ops\\fR(7),\n\\fBds\\-design\\fR(7)\n";
  return out;
}

}  // namespace ds::cli
