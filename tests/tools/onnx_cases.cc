// Runs ONNX's backend test cases: folders with model.onnx and test_data_set_N. See usage().
//
// All cases run in one worker process, so that a crash is the failure of one case: the parent then
// starts a worker that goes on with the next one.
//
// What counts as equal. Data type and shape exactly; integers, bools, strings and floats of 8 bits
// and fewer exactly; sequences and optionals item by item; f64, f32 and f16 by ONNX's own rule
// |got - want| <= atol + rtol * |want| with rtol 1e-3 (one unit in the last place of f16) and atol
// 1e-7, or what the case's data.json says; bf16, as ONNX's runner does, with rtol 2^-6, two units in
// its last place. NaN equals NaN, infinities are equal by sign.
#include <fnmatch.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "libds/base/error.h"
#include "libds/base/file.h"
#include "libds/data/test_data_set.h"
#include "libds/ir/onnx_import.h"
#include "libds/run/session.h"

namespace {

constexpr unsigned kSecondsPerCase = 120;

void usage(std::FILE* to) {
  std::fputs(
      "usage: ds_tool_onnx_cases [OPTION]... FOLDER...\n"
      "Each FOLDER is a suite, each folder in it a case (model.onnx, test_data_set_N/*.pb).\n"
      "  --filter TEXT      only cases with TEXT in their name (may be repeated)\n"
      "  --exceptions FILE  cases expected to fail, lines `SUITE-GLOB CASE-GLOB reason`; one that\n"
      "                     passes, or a line that fits no case, is a failure\n"
      "  --min-rate RATE    least share of passing cases in each suite; without --exceptions the\n"
      "                     rate alone decides\n"
      "  --eager            run node by node instead of by a plan\n"
      "  --no-fork          run in this process (for a debugger)\n"
      "  --list             print passing cases too\n",
      to);
}

struct Options {
  std::vector<std::string> suites, filters;
  std::string exceptions;
  double min_rate = -1;
  bool eager = false, fork = true, list = false;
};

struct Case {
  std::string suite, name, folder;
};

// `op` is the operator to blame, as far as that can be told.
struct Result {
  bool passed = false;
  std::string op, reason;
};

// --- comparing ---------------------------------------------------------------------------------

struct Tolerance {
  double rtol = 1e-3, atol = 1e-7;
};

Tolerance tolerance_of(const std::string& folder) {
  Tolerance t;
  const std::string path = folder + "/data.json";
  if (!ds::file_exists(path)) return t;
  const auto json = nlohmann::json::parse(ds::read_file(path));
  t.rtol = json.value("rtol", t.rtol);
  t.atol = json.value("atol", t.atol);
  return t;
}

bool near(double got, double want, const Tolerance& t) {
  if (std::isnan(got) || std::isnan(want)) return std::isnan(got) && std::isnan(want);
  if (std::isinf(got) || std::isinf(want)) return got == want;
  return std::abs(got - want) <= t.atol + t.rtol * std::abs(want);
}

std::string difference(const ds::Tensor& got, const ds::Tensor& want, Tolerance t);

// Sequences and optionals: item by item.
std::string item_difference(const ds::Tensor& got, const ds::Tensor& want, const Tolerance& t) {
  for (size_t i = 0; i < got.items().size(); ++i)
    if (const std::string why = difference(got.items()[i], want.items()[i], t); !why.empty()) return fmt::format("item {} {}", i, why);
  return {};
}

std::string string_difference(const ds::Tensor& got, const ds::Tensor& want) {
  const auto a = got.strings(), b = want.strings();
  const auto at = std::mismatch(a.begin(), a.end(), b.begin());
  return fmt::format("has '{}' for '{}' at [{}]", *at.first, *at.second, at.first - a.begin());
}

// Why `got` is not what was expected; empty when it is.
std::string difference(const ds::Tensor& got, const ds::Tensor& want, Tolerance t) {
  if (!got.defined()) return "is absent";
  if (got.dtype() != want.dtype())
    return fmt::format("is {}, expected {}", ds::dtype_name(got.dtype()), ds::dtype_name(want.dtype()));
  if (got.shape() != want.shape())
    return fmt::format("has shape {}, expected {}", ds::shape_string(got.shape()), ds::shape_string(want.shape()));
  if (ds::is_container(got.dtype())) return item_difference(got, want, t);
  if (got.equal_bits(want)) return {};
  if (got.dtype() == ds::DType::kString) return string_difference(got, want);
  if (!ds::is_float(got.dtype())) {
    const auto a = got.to_doubles(), b = want.to_doubles();
    const auto differ = [](double x, double y) { return x != y && !(std::isnan(x) && std::isnan(y)); };
    const auto wrong = std::inner_product(a.begin(), a.end(), b.begin(), int64_t{0}, std::plus<>(), differ);
    if (wrong == 0 && ds::dtype_bits(got.dtype()) <= 8) return {};  // NaN of other bits, or a zero of the other sign
    const auto at = std::mismatch(a.begin(), a.end(), b.begin(), [&](double x, double y) { return !differ(x, y); });
    if (at.first == a.end()) return "differs in bits beyond the 53 of a double";
    return fmt::format("differs in {} of {} elements, first [{}] {} for {}", wrong, a.size(), at.first - a.begin(), *at.first, *at.second);
  }
  if (got.dtype() == ds::DType::kBF16) t.rtol = std::max(t.rtol, 0x1p-6);
  const auto a = got.to_doubles(), b = want.to_doubles();
  size_t wrong = 0, worst = 0;
  double worst_by = -1;
  for (size_t i = 0; i < a.size(); ++i) {
    if (near(a[i], b[i], t)) continue;
    ++wrong;
    const double by = std::abs(a[i] - b[i]);
    if (wrong == 1 || by > worst_by) worst = i, worst_by = by;
  }
  if (wrong == 0) return {};
  return fmt::format("differs in {} of {} elements, most [{}] {} for {}", wrong, a.size(), worst, a[worst], b[worst]);
}

// --- one case ----------------------------------------------------------------------------------

// "operators that are not supported: A (ai.onnx 16: node 'x'); B (...)" or "node 'x' (Op)".
std::string op_in_message(const std::string& message) {
  constexpr std::string_view kUnknown = "operators that are not supported: ";
  if (const size_t at = message.find(kUnknown); at != std::string::npos) {
    std::string ops;
    for (size_t from = at + kUnknown.size(); from < message.size();) {
      ops += (ops.empty() ? "" : "+") + message.substr(from, message.find(" (", from) - from);
      const size_t next = message.find("; ", from);
      from = next == std::string::npos ? message.size() : next + 2;
    }
    return ops;
  }
  for (size_t at = message.find("' ("); at != std::string::npos; at = message.find("' (", at + 1)) {
    const size_t end = message.find(')', at);
    if (end == std::string::npos) break;
    std::string op = message.substr(at + 3, end - at - 3);
    if (!op.empty() && std::isupper(static_cast<unsigned char>(op[0])) && op.find(' ') == std::string::npos) return op;
  }
  return {};
}

std::string op_making(const ds::Graph& graph, ds::ValueId value) {
  const ds::NodeId producer = graph.value(value).producer;
  return producer == ds::kNone ? "(no operator)" : graph.node(producer).op;
}

Result run_case(const Case& c, const Options& options) {
  Result result;
  std::shared_ptr<ds::Graph> graph;
  const auto failed = [&](const char* stage, std::string what) {
    const std::string prefix = c.folder + "/model.onnx: ";
    if (what.starts_with(prefix)) what.erase(0, prefix.size());
    std::replace(what.begin(), what.end(), '\n', ' ');
    result.op = op_in_message(what);
    if (result.op.empty() && graph && graph->node_count() == 1) result.op = graph->node(graph->first()).op;
    result.reason = fmt::format("{}: {}", stage, what);
    return result;
  };
  const char* stage = "load";
  try {
    graph = ds::load_model(c.folder + "/model.onnx");
    stage = "data";
    const Tolerance tolerance = tolerance_of(c.folder);
    const auto folders = ds::find_test_data_sets(c.folder);
    if (folders.empty()) return failed(stage, "no test_data_set_0");
    std::vector<ds::TestDataSet> sets;
    for (const std::string& folder : folders) sets.push_back(ds::read_test_data_set(folder, *graph));
    stage = "compile";
    ds::SessionOptions session_options;
    session_options.static_plan = !options.eager;
    ds::Session session(graph, session_options);
    for (const ds::TestDataSet& set : sets) {
      stage = "run";
      const auto outputs = session.run(set.inputs);
      stage = "compare";
      if (outputs.size() != set.outputs.size())
        return failed(stage, fmt::format("{} outputs, expected {}", outputs.size(), set.outputs.size()));
      for (size_t k = 0; k < outputs.size(); ++k) {
        const ds::ValueId value = graph->outputs()[k];
        const std::string why = difference(outputs[k], set.outputs[k], tolerance);
        if (why.empty()) continue;
        failed(stage, fmt::format("output '{}' {}", graph->value(value).name, why));
        result.op = op_making(*graph, value);
        return result;
      }
    }
  } catch (const std::exception& error) {
    return failed(stage, error.what());
  }
  result.passed = true;
  return result;
}

// --- the worker process ------------------------------------------------------------------------

// One line per case: index, passed, operator, reason, separated by tabs.
void work(const std::vector<Case>& cases, size_t first, const Options& options, int to) {
  for (size_t i = first; i < cases.size(); ++i) {
    alarm(kSecondsPerCase);
    const Result r = run_case(cases[i], options);
    const std::string line = fmt::format("{}\t{}\t{}\t{}\n", i, r.passed ? 1 : 0, r.op, r.reason);
    for (size_t sent = 0; sent < line.size();) {
      const ssize_t n = write(to, line.data() + sent, line.size() - sent);
      if (n <= 0) _exit(3);
      sent += static_cast<size_t>(n);
    }
  }
}

// Fills results from `first` on until the worker ends; returns the index to go on from.
size_t run_worker(const std::vector<Case>& cases, size_t first, const Options& options, std::vector<Result>& results) {
  int ends[2];
  if (pipe(ends) != 0) ds::fail(ds::ExitCode::kOsError, "pipe: {}", std::strerror(errno));
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) ds::fail(ds::ExitCode::kOsError, "fork: {}", std::strerror(errno));
  if (child == 0) {
    close(ends[0]);
    work(cases, first, options, ends[1]);
    _exit(0);
  }
  close(ends[1]);
  size_t next = first;
  std::FILE* lines = fdopen(ends[0], "r");
  char* line = nullptr;
  size_t capacity = 0;
  for (ssize_t n; (n = getline(&line, &capacity, lines)) > 0;) {
    std::istringstream fields(std::string(line, static_cast<size_t>(n - 1)));
    std::string index, passed;
    Result r;
    std::getline(fields, index, '\t');
    std::getline(fields, passed, '\t');
    std::getline(fields, r.op, '\t');
    std::getline(fields, r.reason);
    r.passed = passed == "1";
    results[next++] = r;
  }
  std::free(line);
  std::fclose(lines);
  int status = 0;
  waitpid(child, &status, 0);
  if (next == cases.size()) return next;
  const std::string how = !WIFSIGNALED(status) ? fmt::format("exit status {}", WEXITSTATUS(status))
                          : WTERMSIG(status) == SIGALRM ? fmt::format("not done after {} s", kSecondsPerCase)
                                                        : strsignal(WTERMSIG(status));
  results[next] = {false, "", "crash: " + how};
  return next + 1;
}

// --- exceptions and the summary ----------------------------------------------------------------

struct Exception {
  std::string suite, pattern, reason, line;
  size_t fits = 0;
};

std::vector<Exception> read_exceptions(const std::string& path) {
  std::vector<Exception> list;
  if (path.empty()) return list;
  std::ifstream file(path);
  if (!file) ds::fail(ds::ExitCode::kNoInput, "{}: cannot be read", path);
  size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    Exception e;
    words >> e.suite >> e.pattern >> std::ws;
    std::getline(words, e.reason);
    if (e.reason.empty()) ds::bad_data("{}:{}: expected SUITE CASE reason", path, number);
    e.line = fmt::format("{}:{}", path, number);
    list.push_back(std::move(e));
  }
  return list;
}

Exception* exception_for(std::vector<Exception>& list, const Case& c) {
  Exception* found = nullptr;
  for (Exception& e : list) {
    if (fnmatch(e.suite.c_str(), c.suite.c_str(), 0) != 0 || fnmatch(e.pattern.c_str(), c.name.c_str(), 0) != 0) continue;
    ++e.fits;
    if (!found) found = &e;
  }
  return found;
}

struct Count {
  size_t cases = 0, passed = 0, excepted = 0, failed = 0;
  double rate() const { return cases == 0 ? 0 : static_cast<double>(passed) / static_cast<double>(cases); }
};

bool report(const std::vector<Case>& cases, const std::vector<Result>& results, const Options& options) {
  auto exceptions = read_exceptions(options.exceptions);
  std::map<std::string, Count> counts;
  std::map<std::string, size_t> by_op;
  bool good = true;
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    const Result& r = results[i];
    Count& count = counts[c.suite];
    ++count.cases;
    if (r.passed) ++count.passed;
    if (Exception* e = exception_for(exceptions, c)) {
      if (r.passed) {
        std::printf("FAIL %s/%s: passes, though %s excepts it\n", c.suite.c_str(), c.name.c_str(), e->line.c_str());
        ++count.failed;
        good = false;
      } else {
        ++count.excepted;
        if (options.list) std::printf("except %s/%s: %s\n", c.suite.c_str(), c.name.c_str(), r.reason.c_str());
      }
    } else if (!r.passed) {
      const std::string op = r.op.empty() ? "?" : r.op;
      std::printf("FAIL %s/%s [%s] %s\n", c.suite.c_str(), c.name.c_str(), op.c_str(), r.reason.c_str());
      ++by_op[op];
      ++count.failed;
      if (options.min_rate < 0 || !options.exceptions.empty()) good = false;
    } else if (options.list) {
      std::printf("pass %s/%s\n", c.suite.c_str(), c.name.c_str());
    }
  }
  if (options.filters.empty()) {
    for (const Exception& e : exceptions) {
      if (e.fits > 0) continue;
      std::printf("FAIL %s: fits no case: %s %s\n", e.line.c_str(), e.suite.c_str(), e.pattern.c_str());
      good = false;
    }
  }
  if (!by_op.empty()) {
    std::vector<std::pair<size_t, std::string>> rows;
    for (const auto& [op, n] : by_op) rows.emplace_back(n, op);
    std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
    std::printf("\nfailing cases by operator\n");
    for (const auto& [n, op] : rows) std::printf("%6zu  %s\n", n, op.c_str());
  }
  std::printf("\n%-20s %8s %8s %8s %8s %8s\n", "suite", "cases", "passed", "excepted", "failed", "rate");
  for (const auto& [suite, n] : counts) {
    std::printf("%-20s %8zu %8zu %8zu %8zu %7.2f%%\n", suite.c_str(), n.cases, n.passed, n.excepted, n.failed, 100 * n.rate());
    if (n.rate() < options.min_rate) {
      std::printf("FAIL %s: passes less than %.2f%%\n", suite.c_str(), 100 * options.min_rate);
      good = false;
    }
  }
  return good;
}

std::vector<Case> find_cases(const Options& options) {
  namespace fs = std::filesystem;
  std::vector<Case> cases;
  for (const std::string& suite : options.suites) {
    std::vector<std::string> names;
    if (!fs::is_directory(suite)) ds::fail(ds::ExitCode::kNoInput, "{}: no such folder", suite);
    for (const auto& entry : fs::directory_iterator(suite))
      if (fs::exists(entry.path() / "model.onnx")) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    const fs::path path = fs::path(suite) / "";
    for (const std::string& name : names) {
      const auto in_name = [&](const std::string& text) { return name.find(text) != std::string::npos; };
      if (options.filters.empty() || std::any_of(options.filters.begin(), options.filters.end(), in_name))
        cases.push_back({path.parent_path().filename(), name, (path / name).string()});
    }
  }
  if (cases.empty()) ds::fail(ds::ExitCode::kNoInput, "no case found");
  return cases;
}

int run(const Options& options) {
  const auto cases = find_cases(options);
  std::vector<Result> results(cases.size());
  if (options.fork) {
    for (size_t next = 0; next < cases.size();) next = run_worker(cases, next, options, results);
  } else {
    for (size_t i = 0; i < cases.size(); ++i) results[i] = run_case(cases[i], options);
  }
  return report(cases, results, options) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) {
        usage(stderr);
        std::exit(64);
      }
      return argv[++i];
    };
    if (arg == "--filter") options.filters.push_back(value());
    else if (arg == "--exceptions") options.exceptions = value();
    else if (arg == "--min-rate") options.min_rate = std::stod(value());
    else if (arg == "--eager") options.eager = true;
    else if (arg == "--no-fork") options.fork = false;
    else if (arg == "--list") options.list = true;
    else if (arg == "--help") return usage(stdout), 0;
    else if (arg.starts_with("-")) return usage(stderr), 64;
    else options.suites.emplace_back(arg);
  }
  if (options.suites.empty()) return usage(stderr), 64;
  try {
    return run(options);
  } catch (const ds::Error& error) {
    std::fprintf(stderr, "onnx_cases: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
