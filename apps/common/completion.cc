// Shell completion scripts, written from the option table.
#include "apps/common/options.h"

namespace ds::cli {
namespace {

std::string identifier(std::string name) {
  for (char& c : name)
    if (c == '-' || c == ' ') c = '_';
  return name;
}

std::vector<std::string> option_words(const Command& c) {
  std::vector<std::string> words;
  for (const OptionSpec& spec : c.options())
    if (!spec.positional) words.push_back("--" + spec.long_name);
  words.push_back("--help");
  words.push_back("--version");
  return words;
}

// Text inside single quotes of any of the three shells.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) {
    if (c == '\'') out += "'\\''";
    else out += c;
  }
  return out + "'";
}

// --- bash ---------------------------------------------------------------------------------------

// The `case` arms that complete values, then the words of one command.
std::string bash_branch(const Command& c, const std::string& indent) {
  std::string out = indent + "case $prev in\n";
  for (const OptionSpec& spec : c.options()) {
    if (spec.positional || spec.flag) continue;
    std::string pattern = "--" + spec.long_name;
    if (spec.short_name) pattern = fmt::format("-{}|{}", spec.short_name, pattern);
    std::string action = "return";
    if (!spec.choices.empty()) action = fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$cur\")); return", fmt::join(spec.choices, " "));
    else if (spec.long_name == "device") action = "COMPREPLY=($(compgen -W 'auto cpu cuda:0' -- \"$cur\")); return";
    else if (spec.complete == OptionSpec::Complete::kFile) action = "COMPREPLY=($(compgen -f -- \"$cur\")); return";
    else if (spec.complete == OptionSpec::Complete::kDirectory) action = "COMPREPLY=($(compgen -d -- \"$cur\")); return";
    out += fmt::format("{}  {}) {} ;;\n", indent, pattern, action);
  }
  out += indent + "esac\n";
  out += fmt::format("{}words='{}'\n", indent, fmt::join(option_words(c), " "));
  return out;
}

std::string bash_script(const Command& c) {
  std::string out = fmt::format("# bash completion for {}\n_{}() {{\n", c.name(), identifier(c.name()));
  out += "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words commands=''\n";
  out += "  COMPREPLY=()\n";
  out += "  case ${COMP_WORDS[1]} in\n";
  std::vector<std::string> names;
  for (const Command& sub : c.subcommands()) {
    names.push_back(sub.last_word());
    out += fmt::format("  {})\n{}    ;;\n", sub.last_word(), bash_branch(sub, "    "));
  }
  out += "  *)\n" + bash_branch(c, "    ");
  if (!names.empty()) out += fmt::format("    [[ $COMP_CWORD -eq 1 ]] && commands='{}'\n", fmt::join(names, " "));
  out += "    ;;\n  esac\n";
  out +=
      "  if [[ $cur == -* ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
      "  else\n"
      "    COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\") $(compgen -f -- \"$cur\"))\n"
      "  fi\n}\n";
  out += fmt::format("complete -o filenames -F _{} {}\n", identifier(c.name()), c.name());
  return out;
}

// --- zsh ----------------------------------------------------------------------------------------

// Inside an _arguments specification brackets and colons have meaning.
std::string zsh_escape(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_action(const OptionSpec& spec) {
  if (!spec.choices.empty()) return fmt::format("({})", fmt::join(spec.choices, " "));
  if (spec.long_name == "device") return "(auto cpu cuda\\:0)";
  if (spec.complete == OptionSpec::Complete::kDirectory) return "_files -/";
  if (spec.complete == OptionSpec::Complete::kFile) return "_files";
  return " ";
}

std::string zsh_arguments(const Command& c, const std::string& indent) {
  std::string out = indent + "_arguments -s";
  const std::string next = " \\\n" + indent + "  ";
  for (const OptionSpec& spec : c.options()) {
    if (spec.positional) continue;
    std::string value;
    if (!spec.flag) value = fmt::format(":{}:{}", zsh_escape(spec.long_name), zsh_action(spec));
    const std::string repeat = spec.list ? "*" : "";
    out += next + quoted(fmt::format("{}--{}[{}]{}", repeat, spec.long_name, zsh_escape(spec.help), value));
    if (spec.short_name) out += next + quoted(fmt::format("{}-{}[{}]{}", repeat, spec.short_name, zsh_escape(spec.help), value));
  }
  out += next + "'(- *)'{-h,--help}'[print this help]'" + next + "'(- *)--version[print the version]'";
  return out + next + "'*:file:_files'\n";
}

std::string zsh_script(const Command& c) {
  std::string out = fmt::format("#compdef {}\n_{}() {{\n", c.name(), identifier(c.name()));
  if (!c.subcommands().empty()) {
    out += "  if (( CURRENT == 2 )); then\n    local -a commands\n    commands=(\n";
    for (const Command& sub : c.subcommands())
      out += "      " + quoted(fmt::format("{}:{}", sub.last_word(), sub.summary())) + "\n";
    out += "    )\n    _describe command commands\n  fi\n  case ${words[2]} in\n";
    for (const Command& sub : c.subcommands())
      out += fmt::format("  {})\n    shift words; (( CURRENT-- ))\n{}    return ;;\n", sub.last_word(), zsh_arguments(sub, "    "));
    out += "  esac\n";
  }
  out += zsh_arguments(c, "  ");
  return out + fmt::format("}}\n_{} \"$@\"\n", identifier(c.name()));
}

// --- fish ---------------------------------------------------------------------------------------

std::string fish_quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

void fish_options(std::string& out, const std::string& binary, const Command& c, const std::string& condition) {
  for (const OptionSpec& spec : c.options()) {
    if (spec.positional) continue;
    out += fmt::format("complete -c {}{} -l {}", binary, condition, spec.long_name);
    if (spec.short_name) out += fmt::format(" -s {}", spec.short_name);
    if (!spec.flag) {
      if (!spec.choices.empty()) out += fmt::format(" -x -a {}", fish_quoted(fmt::format("{}", fmt::join(spec.choices, " "))));
      else if (spec.long_name == "device") out += " -x -a 'auto cpu cuda:0'";
      else if (spec.complete == OptionSpec::Complete::kDirectory) out += " -x -a '(__fish_complete_directories)'";
      else if (spec.complete == OptionSpec::Complete::kFile) out += " -r -F";
      else out += " -x";
    }
    out += fmt::format(" -d {}\n", fish_quoted(spec.help));
  }
  out += fmt::format("complete -c {0}{1} -l help -s h -d 'print this help'\ncomplete -c {0}{1} -l version -d 'print the version'\n",
                     binary, condition);
}

std::string fish_script(const Command& c) {
  std::string out = fmt::format("# fish completion for {}\n", c.name());
  std::string words;
  for (const Command& sub : c.subcommands()) words += (words.empty() ? "" : " ") + sub.last_word();
  if (words.empty()) {
    fish_options(out, c.name(), c, "");
    return out;
  }
  for (const Command& sub : c.subcommands()) {
    out += fmt::format("complete -c {} -n __fish_use_subcommand -a {} -d {}\n", c.name(), sub.last_word(), fish_quoted(sub.summary()));
    fish_options(out, c.name(), sub, fmt::format(" -n '__fish_seen_subcommand_from {}'", sub.last_word()));
  }
  fish_options(out, c.name(), c, fmt::format(" -n 'not __fish_seen_subcommand_from {}'", words));
  return out;
}

}  // namespace

std::string completion_script(const Command& command, std::string_view shell) {
  if (shell == "bash") return bash_script(command);
  if (shell == "zsh") return zsh_script(command);
  if (shell == "fish") return fish_script(command);
  usage_error("--dump-completion: '{}' is not bash, zsh or fish", shell);
}

}  // namespace ds::cli
