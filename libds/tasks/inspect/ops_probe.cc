// Which types an operator takes, found out by running it on small inputs.
//
// Nothing in an OpDef lists types: inference and kernels decide, case by case. So a node is made of the operator, with
// small inputs in likely shapes; the first combination that runs for some type is then tried with all the others.
// What is found is true (it ran), what is not found may be.
#include <algorithm>
#include <map>
#include <optional>

#include "libds/ir/rewriter.h"
#include "libds/run/executor.h"
#include "libds/tasks/inspect/ops_page.h"

namespace ds {
namespace {

constexpr DType kTypes[] = {
    DType::kF32, DType::kF64, DType::kF16, DType::kBF16, DType::kF8E4M3FN, DType::kF8E4M3FNUZ, DType::kF8E5M2, DType::kF8E5M2FNUZ,
    DType::kI8,  DType::kI16, DType::kI32, DType::kI64,  DType::kU8,       DType::kU16,        DType::kU32,    DType::kU64,
    DType::kI4,  DType::kU4,  DType::kI2,  DType::kU2,   DType::kBool,     DType::kString};

// How one input of an example is made: of the type tried (kSame) or another, all its elements one.
struct Role {
  enum class Type { kSame, kI64, kF32, kBool, kOmitted } type = Type::kSame;
  Shape shape;
};
using Roles = std::vector<Role>;

Role same(Shape shape) { return {Role::Type::kSame, std::move(shape)}; }
Role i64(Shape shape) { return {Role::Type::kI64, std::move(shape)}; }
Role f32(Shape shape) { return {Role::Type::kF32, std::move(shape)}; }
Role omitted() { return {Role::Type::kOmitted, {}}; }

const Roles& first_roles() {
  static const Roles roles = {same({2, 4, 4, 4}), same({4, 4}), same({4}), same({}), same({2, 4, 4})};
  return roles;
}

const Roles& other_roles() {
  static const Roles roles = {same({2, 4, 4, 4}), same({4, 4}),       same({4}), same({}),
                              i64({1}),           i64({4}),           i64({}),   i64({2, 4, 4, 4}),
                              f32({}),            {Role::Type::kBool, {2, 4, 4, 4}}, f32({4}),  i64({2}),
                              same({4, 4, 1, 1})};
  return roles;
}

// Operators whose inputs must fit each other in ways that no search finds.
struct Example {
  Roles inputs;
  Attributes attrs;
  int outputs = 1;
};

const std::map<std::string_view, Example>& examples() {
  const auto ints = [](std::vector<int64_t> values) { return Attribute(std::move(values)); };
  const auto recurrent = [](int64_t gates) {
    return Example{{same({2, 1, 4}), same({1, 3 * gates, 4}), same({1, 3 * gates, 3})}, {{"hidden_size", int64_t{3}}}};
  };
  const auto floats = [](size_t count) { return Attribute(std::vector<float>(count, 1.0f)); };
  const Attributes tree = {{"nodes_treeids", ints({0})}, {"nodes_nodeids", ints({0})}, {"nodes_featureids", ints({0})}, {"nodes_values", floats(1)},
                           {"nodes_truenodeids", ints({0})}, {"nodes_falsenodeids", ints({0})}, {"nodes_modes", std::vector<std::string>{"LEAF"}}};
  const auto with = [](Attributes attrs, Attributes more) {
    attrs.merge(more);
    return attrs;
  };
  const Roles product = {same({4, 4}), f32({}), same({}), same({4, 4}), f32({}), same({}), f32({}), same({})};
  static const std::map<std::string_view, Example> table = {
      {"ArrayFeatureExtractor", {{same({4, 4}), i64({1})}, {}}},
      {"AffineGrid", {{same({1, 2, 3}), i64({4})}, {}}},
      {"BatchNormalization", {{same({2, 4, 4, 4}), same({4}), same({4}), same({4}), same({4})}, {}}},
      {"CategoryMapper", {{same({4})}, {{"cats_int64s", ints({1})}, {"cats_strings", std::vector<std::string>{"1"}}}}},
      {"Col2Im", {{same({1, 1, 1}), i64({2}), i64({2})}, {}}},
      {"Concat", {{same({4}), same({4})}, {{"axis", int64_t{0}}}}},
      {"DFT", {{same({2, 4, 1})}, {}}},
      {"DeformConv", {{same({1, 1, 4, 4}), same({1, 1, 1, 1}), same({1, 2, 4, 4})}, {}}},
      {"FeatureVectorizer", {{same({4, 4})}, {{"inputdimensions", ints({4})}}}},
      {"GRU", recurrent(3)},
      {"GridSample", {{same({1, 1, 4, 4}), f32({1, 4, 4, 2})}, {}}},
      {"GroupNormalization", {{same({2, 4, 4, 4}), same({4}), same({4})}, {{"num_groups", int64_t{2}}}}},
      {"Imputer", {{same({4, 4})}, {{"imputed_value_floats", floats(1)}}}},
      {"LSTM", recurrent(4)},
      {"LabelEncoder", {{same({4})}, {{"classes_strings", std::vector<std::string>{"1"}}}}},
      {"LinearClassifier", {{same({4, 4})}, {{"coefficients", floats(8)}, {"classlabels_ints", ints({0, 1})}}}},
      {"LinearRegressor", {{same({4, 4})}, {{"coefficients", floats(4)}}}},
      {"MaxRoiPool", {{same({2, 4, 4, 4}), same({1, 5})}, {{"pooled_shape", ints({2, 2})}}}},
      {"MaxUnpool", {{same({1, 1, 2, 2}), i64({1, 1, 2, 2})}, {{"kernel_shape", ints({2, 2})}, {"strides", ints({2, 2})}}}},
      {"NonMaxSuppression", {{same({1, 4, 4}), same({1, 1, 4})}, {}}},
      {"OneHotEncoder", {{same({4})}, {{"cats_int64s", ints({1})}}}},
      {"QLinearAdd", {product, {}}},
      {"QLinearConv", {{same({1, 1, 4, 4}), f32({}), same({}), same({1, 1, 1, 1}), f32({}), same({}), f32({}), same({})}, {}}},
      {"QLinearMatMul", {product, {}}},
      {"QLinearMul", {product, {}}},
      {"RNN", recurrent(1)},
      {"RegexFullMatch", {{same({4})}, {{"pattern", std::string(".*")}}}},
      {"Resize", {{same({2, 4, 4, 4}), omitted(), f32({4})}, {}}},
      {"RotaryEmbedding", {{same({1, 2, 4, 4}), same({1, 4, 2}), same({1, 4, 2})}, {}}},
      {"SVMClassifier", {{same({4, 4})}, {{"coefficients", floats(8)}, {"rho", floats(1)}, {"classlabels_ints", ints({0, 1})}}}},
      {"SVMRegressor", {{same({4, 4})}, {{"coefficients", floats(4)}, {"rho", floats(1)}}}},
      {"STFT", {{same({1, 8, 1}), i64({}), omitted(), i64({})}, {}}},
      {"Split", {{same({4})}, {{"num_outputs", int64_t{2}}}, 2}},
      {"StringConcat", {{same({4}), same({4})}, {}}},
      {"StringNormalizer", {{same({4})}, {}}},
      {"StringSplit", {{same({4})}, {}, 2}},
      {"TreeEnsemble", {{same({4, 4})}, {{"nodes_featureids", ints({0})}, {"nodes_modes", Tensor::zeros(DType::kU8, {1})}, {"nodes_splits", Tensor::zeros(DType::kF32, {1})},
                                         {"nodes_truenodeids", ints({0})}, {"nodes_trueleafs", ints({1})}, {"nodes_falsenodeids", ints({0})}, {"nodes_falseleafs", ints({1})},
                                         {"tree_roots", ints({0})}, {"leaf_targetids", ints({0})}, {"leaf_weights", Tensor::zeros(DType::kF32, {1})}}}},
      {"TreeEnsembleClassifier", {{same({4, 4})}, with(tree, {{"classlabels_int64s", ints({0, 1})}})}},
      {"TreeEnsembleRegressor", {{same({4, 4})}, tree}},
  };
  return table;
}

Tensor ones(const Role& role, DType dtype) {
  const DType type = role.type == Role::Type::kSame ? dtype : role.type == Role::Type::kI64 ? DType::kI64 : role.type == Role::Type::kF32 ? DType::kF32 : DType::kBool;
  if (type == DType::kString) return Tensor::of_strings(role.shape, std::vector<std::string>(static_cast<size_t>(checked_numel(role.shape)), "1"));
  Tensor t = Tensor::zeros(type, role.shape);
  dispatch_dtype(type, [&](auto tag) {
    using T = decltype(tag);
    std::fill_n(t.mutable_data<T>(), t.numel(), T(1));
  });
  return t;
}

// Attributes that operators ask for; those that an operator does not know do not matter to it.
Attributes likely_attributes(const OpDef& def, DType dtype) {
  Attributes attrs;
  if (def.name == "Cast" || def.name == "BitCast") attrs["to"] = static_cast<int64_t>(dtype);
  if (def.name == "Einsum") attrs["equation"] = std::string("...->...");
  if (def.name == "BitShift") attrs["direction"] = std::string("LEFT");
  if (def.name == "DepthToSpace" || def.name == "SpaceToDepth") attrs["blocksize"] = int64_t{2};
  if (def.name == "LRN") attrs["size"] = int64_t{3};
  if (def.name.find("Pool") != std::string::npos && def.name.find("Global") == std::string::npos) attrs["kernel_shape"] = std::vector<int64_t>{2, 2};
  return attrs;
}

bool runs(const OpDef& def, const Example& example, DType dtype) {
  Graph g;
  Rewriter rw(g);
  Node n;
  n.domain = def.domain;
  n.op = def.name;
  n.name = "example";
  n.def = &def;
  n.attrs = likely_attributes(def, dtype);
  n.attrs.insert(example.attrs.begin(), example.attrs.end());
  std::vector<Tensor> inputs;
  for (const Role& role : example.inputs) {
    const bool there = role.type != Role::Type::kOmitted;
    inputs.push_back(there ? ones(role, dtype) : Tensor());
    n.inputs.push_back(there ? rw.add_constant("in", inputs.back()) : kNone);
  }
  for (int i = 0; i < std::max(example.outputs, def.min_outputs); ++i) n.outputs.push_back(rw.add_value(fmt::format("out{}", i)));
  try {
    const NodeId id = rw.add_raw_node(std::move(n));
    const std::vector<Tensor> outputs = evaluate_node(g, id, inputs);
    return std::all_of(outputs.begin(), outputs.end(), [](const Tensor& t) { return t.defined(); });
  } catch (const std::exception&) {  // it does not take this
    return false;
  }
}

// Inputs that run for the type; none when nothing was found.
std::optional<Example> find_example(const OpDef& def, DType dtype) {
  if (const auto known = examples().find(def.name); known != examples().end())
    return runs(def, known->second, dtype) ? std::optional(known->second) : std::nullopt;
  const size_t count = static_cast<size_t>(std::max(def.min_inputs, 1));
  constexpr size_t kMostInputs = 4;
  if (count > kMostInputs || def.max_inputs == 0) return std::nullopt;
  std::vector<size_t> choice(count, 0);
  for (;;) {
    Example example{{first_roles()[choice[0]]}, {}};
    for (size_t i = 1; i < count; ++i) example.inputs.push_back(other_roles()[choice[i]]);
    if (runs(def, example, dtype)) return example;
    size_t i = count;
    while (i-- > 0) {
      if (++choice[i] < (i == 0 ? first_roles() : other_roles()).size()) break;
      choice[i] = 0;
      if (i == 0) return std::nullopt;
    }
  }
}

}  // namespace

std::vector<DType> runnable_types(const OpDef& def) {
  std::optional<Example> example;
  for (DType first : {DType::kF32, DType::kI64, DType::kI8, DType::kBool, DType::kString})
    if (!example) example = find_example(def, first);
  std::vector<DType> types;
  if (!example) return types;
  for (DType t : kTypes)
    if (runs(def, *example, t)) types.push_back(t);
  return types;
}

}  // namespace ds
