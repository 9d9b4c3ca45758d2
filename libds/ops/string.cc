// Operators on strings: StringConcat, StringSplit, StringNormalizer, TfIdfVectorizer.
#include <clocale>
#include <cwctype>

#include <algorithm>
#include <map>
#include <set>

#include "libds/ops/common.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

OpDef string_op(std::string_view name, int inputs, std::function<void(InferContext&)> infer,
                std::function<std::unique_ptr<Kernel>(const KernelQuery&)> create) {
  OpDef def;
  def.name = name;
  def.min_inputs = def.max_inputs = inputs;
  def.stops_gradient = true;
  def.data_dependent = true;
  def.infer = std::move(infer);
  KernelDef k;
  k.name = "portable/" + def.name;
  k.takes_objects = true;
  k.create = std::move(create);
  def.kernels = {k};
  return def;
}

// --- StringConcat -------------------------------------------------------------------------------

// Position in an operand of each element of the broadcast result.
std::vector<size_t> broadcast_positions(const Shape& from, const Shape& to) {
  const Shape strides = ops::strides_of(from);
  const size_t lead = to.size() - from.size();
  const int64_t n = checked_numel(to);
  std::vector<size_t> positions(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    int64_t rest = i, at = 0;
    for (size_t d = to.size(); d-- > 0;) {
      const int64_t index = rest % to[d];
      rest /= to[d];
      if (d >= lead && from[d - lead] != 1) at += index * strides[d - lead];
    }
    positions[static_cast<size_t>(i)] = static_cast<size_t>(at);
  }
  return positions;
}

Shape broadcast_shape(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (const Shape* s : {&a, &b}) {
    for (size_t i = 0; i < s->size(); ++i) {
      int64_t& o = out[out.size() - s->size() + i];
      if ((*s)[i] == 1) continue;
      if (o != 1 && o != (*s)[i]) bad_data("{} and {} do not broadcast", shape_string(a), shape_string(b));
      o = (*s)[i];
    }
  }
  return out;
}

void concat(const KernelContext& c) {
  const Tensor &x = c.input(0), &y = c.input(1);
  const Shape shape = broadcast_shape(x.shape(), y.shape());
  const std::vector<size_t> from_x = broadcast_positions(x.shape(), shape), from_y = broadcast_positions(y.shape(), shape);
  c.allocate(0, DType::kString, shape);
  const auto out = c.output(0).strings();
  for (size_t i = 0; i < out.size(); ++i) out[i] = x.strings()[from_x[i]] + y.strings()[from_y[i]];
}

// --- StringSplit --------------------------------------------------------------------------------

bool is_space(char ch) { return ch == ' ' || (ch >= '\t' && ch <= '\r'); }

// No delimiter: at runs of white space, none at the ends. `most`: splits, negative for any number.
std::vector<std::string> split(const std::string& text, const std::string& delimiter, int64_t most) {
  std::vector<std::string> parts;
  size_t at = 0;
  const auto may_split = [&] { return most < 0 || static_cast<int64_t>(parts.size()) < most; };
  if (!delimiter.empty()) {
    for (size_t next; may_split() && (next = text.find(delimiter, at)) != std::string::npos; at = next + delimiter.size())
      parts.push_back(text.substr(at, next - at));
    parts.push_back(text.substr(at));
    return parts;
  }
  while (true) {
    while (at < text.size() && is_space(text[at])) ++at;
    if (at == text.size()) return parts;
    size_t end = at;
    if (may_split()) {
      while (end < text.size() && !is_space(text[end])) ++end;
    } else {
      end = text.size();
      while (is_space(text[end - 1])) --end;
    }
    parts.push_back(text.substr(at, end - at));
    at = end;
  }
}

void infer_split(InferContext& c) {
  c.require_dtype(0, {DType::kString});
  if (!c.has_dims(0)) {
    c.set_output(0, DType::kString);
    c.set_output(1, DType::kI64);
    return;
  }
  Dims out = c.dims(0);
  out.push_back(c.fresh_dim());
  c.set_output(1, DType::kI64, c.dims(0));
  c.set_output(0, DType::kString, std::move(out));
}

std::unique_ptr<Kernel> make_split(const KernelQuery& q) {
  const std::string delimiter = q.node.attr_string("delimiter", "");
  const int64_t most = q.node.attr_int("maxsplit", -1);
  return make_kernel([delimiter, most](const KernelContext& c) {
    std::vector<std::vector<std::string>> parts;
    size_t longest = 0;
    for (const std::string& s : c.input(0).strings()) {
      parts.push_back(split(s, delimiter, most));
      longest = std::max(longest, parts.back().size());
    }
    Shape shape = c.input(0).shape();
    if (c.has_output(1)) {
      c.allocate(1, DType::kI64, shape);
      for (size_t i = 0; i < parts.size(); ++i) c.output(1).mutable_data<int64_t>()[i] = static_cast<int64_t>(parts[i].size());
    }
    shape.push_back(static_cast<int64_t>(longest));
    if (!c.has_output(0)) return;
    c.allocate(0, DType::kString, shape);  // short rows end in empty strings
    for (size_t i = 0; i < parts.size(); ++i)
      std::move(parts[i].begin(), parts[i].end(), c.output(0).strings().begin() + static_cast<std::ptrdiff_t>(i * longest));
  });
}

// --- StringNormalizer ---------------------------------------------------------------------------

enum class CaseChange { kNone, kLower, kUpper };

// Code points of UTF-8 text; a byte that is no UTF-8 is kept as it is.
std::string change_case(const std::string& text, CaseChange change) {
  if (change == CaseChange::kNone) return text;
  static const locale_t unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const size_t length = byte < 0x80 ? 1 : (byte >> 5) == 6 ? 2 : (byte >> 4) == 14 ? 3 : (byte >> 3) == 30 ? 4 : 0;
    if (length == 0 || i + length > text.size()) {
      out += text[i++];
      continue;
    }
    uint32_t point = length == 1 ? byte : byte & (0xffu >> (length + 1));
    for (size_t k = 1; k < length; ++k) point = (point << 6) | (static_cast<unsigned char>(text[i + k]) & 0x3fu);
    const bool ascii = point < 0x80 || unicode == nullptr;
    const auto changed = static_cast<uint32_t>(
        change == CaseChange::kLower ? (ascii ? (point < 0x80 ? static_cast<uint32_t>(std::tolower(static_cast<int>(point))) : point) : static_cast<uint32_t>(towlower_l(point, unicode)))
                                     : (ascii ? (point < 0x80 ? static_cast<uint32_t>(std::toupper(static_cast<int>(point))) : point) : static_cast<uint32_t>(towupper_l(point, unicode))));
    if (changed < 0x80) {
      out += static_cast<char>(changed);
    } else if (changed < 0x800) {
      out += static_cast<char>(0xc0 | (changed >> 6));
      out += static_cast<char>(0x80 | (changed & 0x3f));
    } else if (changed < 0x10000) {
      out += static_cast<char>(0xe0 | (changed >> 12));
      out += static_cast<char>(0x80 | ((changed >> 6) & 0x3f));
      out += static_cast<char>(0x80 | (changed & 0x3f));
    } else {
      out += static_cast<char>(0xf0 | (changed >> 18));
      out += static_cast<char>(0x80 | ((changed >> 12) & 0x3f));
      out += static_cast<char>(0x80 | ((changed >> 6) & 0x3f));
      out += static_cast<char>(0x80 | (changed & 0x3f));
    }
    i += length;
  }
  return out;
}

CaseChange case_change(const Node& n) {
  const std::string action = n.attr_string("case_change_action", "NONE");
  if (action == "NONE") return CaseChange::kNone;
  if (action == "LOWER") return CaseChange::kLower;
  if (action == "UPPER") return CaseChange::kUpper;
  bad_data("case_change_action '{}' is not known", action);
}

void infer_normalizer(InferContext& c) {
  c.require_dtype(0, {DType::kString});
  case_change(c.node());
  if (!c.has_dims(0)) return c.set_output(0, DType::kString);
  Dims out = c.dims(0);
  if (out.empty() || out.size() > 2) c.error("expects [C] or [1, C], got rank {}", out.size());
  out.back() = c.fresh_dim();
  c.set_output(0, DType::kString, std::move(out));
}

std::unique_ptr<Kernel> make_normalizer(const KernelQuery& q) {
  const CaseChange change = case_change(q.node);
  const bool exact = q.node.attr_int("is_case_sensitive", 0) != 0;
  // Without regard to case, both sides are compared in lower case.
  const CaseChange compared = exact ? CaseChange::kNone : CaseChange::kLower;
  std::set<std::string> stop;
  for (const std::string& word : q.node.attr_strings("stopwords")) stop.insert(change_case(word, compared));
  return make_kernel([=](const KernelContext& c) {
    const Tensor& x = c.input(0);
    if (x.rank() == 2 && x.dim(0) != 1) bad_data("expects [C] or [1, C], got {}", shape_string(x.shape()));
    std::vector<std::string> kept;
    for (const std::string& s : x.strings())
      if (!stop.count(change_case(s, compared))) kept.push_back(change_case(s, change));
    if (kept.empty()) kept.emplace_back();
    Shape shape = x.shape();
    shape.back() = static_cast<int64_t>(kept.size());
    c.output(0) = Tensor::of_strings(std::move(shape), std::move(kept));
  });
}

// --- TfIdfVectorizer ----------------------------------------------------------------------------

// Tokens are numbered: an n-gram is a list of numbers, whether of strings or of integers.
struct Vectorizer {
  std::map<std::string, int64_t> strings;      // token -> number, where tokens are strings
  std::map<std::vector<int64_t>, size_t> ids;  // n-gram -> its place in the pool
  std::vector<int64_t> columns;                // per n-gram
  std::vector<float> weights;                  // per n-gram; empty: 1
  std::string mode;
  bool of_strings = false;
  int64_t shortest = 1, longest = 1, skips = 0, width = 0;
};

Vectorizer vectorizer_of(const Node& n) {
  Vectorizer v;
  v.mode = n.attr_string("mode", "");
  if (v.mode != "TF" && v.mode != "IDF" && v.mode != "TFIDF") bad_data("mode '{}' is not known", v.mode);
  v.shortest = n.attr_int("min_gram_length", 1);
  v.longest = n.attr_int("max_gram_length", 1);
  v.skips = n.attr_int("max_skip_count", 0);
  if (v.shortest < 1 || v.longest < v.shortest || v.skips < 0) bad_data("n-grams of {} to {} tokens with {} skips", v.shortest, v.longest, v.skips);
  v.columns = n.attr_ints("ngram_indexes");
  v.weights = n.attr_floats("weights");
  for (int64_t column : v.columns) {
    if (column < 0) bad_data("ngram_indexes holds {}", column);
    v.width = std::max(v.width, checked_add(column, 1));
  }
  std::vector<int64_t> pool = n.attr_ints("pool_int64s");
  const std::vector<std::string> words = n.attr_strings("pool_strings");
  v.of_strings = !words.empty();
  if (v.of_strings && !pool.empty()) bad_data("has pools of strings and of integers");
  for (const std::string& word : words) pool.push_back(v.strings.emplace(word, static_cast<int64_t>(v.strings.size())).first->second);
  // ngram_counts: where in the pool the 1-grams start, the 2-grams, ...
  const std::vector<int64_t> starts = n.attr_ints("ngram_counts");
  size_t id = 0;
  for (size_t length = 1; length <= starts.size(); ++length) {
    const int64_t begin = starts[length - 1], end = length < starts.size() ? starts[length] : static_cast<int64_t>(pool.size());
    if (begin < 0 || begin > end || end > static_cast<int64_t>(pool.size()) || (end - begin) % static_cast<int64_t>(length) != 0)
      bad_data("ngram_counts does not divide its pool");
    for (int64_t at = begin; at < end; at += static_cast<int64_t>(length))
      v.ids.emplace(std::vector<int64_t>(pool.begin() + at, pool.begin() + at + static_cast<int64_t>(length)), id++);
  }
  if (id != v.columns.size() || (!v.weights.empty() && v.weights.size() != id))
    bad_data("has {} n-grams, {} ngram_indexes and {} weights", id, v.columns.size(), v.weights.size());
  return v;
}

void count_row(const Vectorizer& v, std::span<const int64_t> tokens, float* out) {
  std::vector<int64_t> counts(v.columns.size(), 0);
  const auto n = static_cast<int64_t>(tokens.size());
  for (int64_t step = 1; step <= v.skips + 1; ++step) {
    for (int64_t start = 0; start < n; ++start) {
      std::vector<int64_t> gram;
      for (int64_t at = start; at < n && static_cast<int64_t>(gram.size()) < v.longest; at += step) {
        gram.push_back(tokens[static_cast<size_t>(at)]);
        const auto length = static_cast<int64_t>(gram.size());
        if (length < v.shortest || (length == 1 && step > 1)) continue;  // one token skips nothing
        if (const auto it = v.ids.find(gram); it != v.ids.end()) ++counts[it->second];
      }
    }
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    const float weight = v.weights.empty() || v.mode == "TF" ? 1.0f : v.weights[i];
    out[v.columns[i]] = (v.mode == "IDF" ? 1.0f : static_cast<float>(counts[i])) * weight;
  }
}

void infer_vectorizer(InferContext& c) {
  const Vectorizer v = vectorizer_of(c.node());
  if (v.of_strings) c.require_dtype(0, {DType::kString});
  else c.require_dtype(0, {DType::kI32, DType::kI64});
  if (!c.has_dims(0)) return c.set_output(0, DType::kF32);
  Dims out = c.dims(0);
  if (out.empty() || out.size() > 2) c.error("expects [C] or [N, C], got rank {}", out.size());
  out.back() = v.width;
  c.set_output(0, DType::kF32, std::move(out));
}

std::unique_ptr<Kernel> make_vectorizer(const KernelQuery& q) {
  return make_kernel([v = vectorizer_of(q.node)](const KernelContext& c) {
    const Tensor& x = c.input(0);
    std::vector<int64_t> tokens;
    if (v.of_strings) {
      for (const std::string& s : x.strings()) {
        const auto it = v.strings.find(s);
        tokens.push_back(it == v.strings.end() ? -1 : it->second);
      }
    } else {
      tokens = x.to_ints();
    }
    Shape shape = x.shape();
    const int64_t length = shape.back(), rows = shape.size() == 2 ? shape[0] : 1;
    shape.back() = v.width;
    c.output(0) = Tensor::zeros(DType::kF32, shape, Tier::kActivations);
    for (int64_t r = 0; r < rows; ++r)
      count_row(v, std::span<const int64_t>(tokens).subspan(static_cast<size_t>(r * length), static_cast<size_t>(length)),
                c.output(0).mutable_data<float>() + r * v.width);
  });
}

}  // namespace

void register_string_ops(OpRegistry& registry) {
  registry.add(string_op(
      "StringConcat", 2,
      [](InferContext& c) {
        for (size_t i : {0, 1}) c.require_dtype(i, {DType::kString});
        c.set_output(0, DType::kString, ops::broadcast_inputs(c));
      },
      [](const KernelQuery&) { return make_kernel(concat); }));
  OpDef split = string_op("StringSplit", 1, infer_split, make_split);
  split.max_outputs = 2;
  registry.add(std::move(split));
  registry.add(string_op("StringNormalizer", 1, infer_normalizer, make_normalizer));
  registry.add(string_op("TfIdfVectorizer", 1, infer_vectorizer, make_vectorizer));
}

}  // namespace ds
