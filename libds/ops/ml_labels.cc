// Look-ups in lists of keys (ai.onnx.ml): LabelEncoder, CategoryMapper, OneHotEncoder.
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "libds/ops/ml.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

// Where a value is in a list of keys, the last of equal ones. NaN is equal to NaN, and 0 to -0.
class KeyTable {
 public:
  explicit KeyTable(const Tensor& keys) : dtype_(keys.dtype()) {
    if (dtype_ == DType::kString) {
      for (const std::string& key : keys.strings()) words_[key] = count_++;
      return;
    }
    visit(keys, [&](int64_t, uint64_t key) { numbers_[key] = count_++; });
  }

  DType dtype() const { return dtype_; }
  int64_t size() const { return count_; }

  // For each element of `x` its place among the keys, `otherwise` where it is none of them. x: of the keys' type.
  std::vector<int64_t> places(const Tensor& x, int64_t otherwise) const {
    std::vector<int64_t> out(static_cast<size_t>(x.numel()), otherwise);
    if (dtype_ == DType::kString) {
      const auto words = x.strings();
      for (size_t i = 0; i < words.size(); ++i)
        if (const auto it = words_.find(words[i]); it != words_.end()) out[i] = it->second;
    } else {
      visit(x, [&](int64_t i, uint64_t key) {
        if (const auto it = numbers_.find(key); it != numbers_.end()) out[static_cast<size_t>(i)] = it->second;
      });
    }
    return out;
  }

 private:
  // Equal numbers have equal bits, of an i64 or an f64.
  template <typename Visit>
  static void visit(const Tensor& t, Visit&& each) {
    dispatch_dtype(t.dtype(), [&](auto tag) {
      using T = decltype(tag);
      const T* data = t.data<T>();
      for (int64_t i = 0; i < t.numel(); ++i) {
        uint64_t key;
        if constexpr (std::is_integral_v<T>) {
          key = static_cast<uint64_t>(data[i]);
        } else {
          double v = static_cast<double>(data[i]);
          if (std::isnan(v)) v = std::nan("");
          if (v == 0) v = 0;  // of either sign
          std::memcpy(&key, &v, sizeof key);
        }
        each(i, key);
      }
    });
  }

  DType dtype_;
  int64_t count_ = 0;
  std::unordered_map<std::string, int64_t> words_;
  std::unordered_map<uint64_t, int64_t> numbers_;
};

// keys[i] becomes values[i], anything else `otherwise`, which has one element.
struct Mapping {
  Tensor keys, values, otherwise;
};

Tensor words(std::vector<std::string> list) {
  const auto count = static_cast<int64_t>(list.size());
  return Tensor::of_strings({count}, std::move(list));
}

Mapping checked(Mapping m) {
  if (m.keys.numel() != m.values.numel()) bad_data("has {} keys and {} values", m.keys.numel(), m.values.numel());
  if (m.otherwise.numel() != 1 || m.otherwise.dtype() != m.values.dtype())
    bad_data("the default is {} of {} elements, the values are {}", dtype_name(m.otherwise.dtype()), m.otherwise.numel(), dtype_name(m.values.dtype()));
  for (const Tensor* t : {&m.keys, &m.values})
    if (t->dtype() != DType::kString && t->dtype() != DType::kF32 && t->dtype() != DType::kF64 && !is_int(t->dtype()))
      bad_data("keys and values of type {} are not supported", dtype_name(t->dtype()));
  return m;
}

// --- LabelEncoder -----------------------------------------------------------------------------------

// keys_* or values_*, whichever of the four there is.
Tensor list_of(const Node& n, const std::string& which) {
  std::vector<Tensor> found;
  if (n.has_attr(which + "_strings")) found.push_back(words(n.attr_strings(which + "_strings")));
  if (n.has_attr(which + "_int64s")) found.push_back(Tensor::vector<int64_t>(n.attr_ints(which + "_int64s")));
  if (n.has_attr(which + "_floats")) found.push_back(Tensor::vector<float>(n.attr_floats(which + "_floats")));
  if (const Tensor* t = n.attr_tensor(which + "_tensor")) found.push_back(*t);
  if (found.size() != 1) bad_data("has {} attributes {}_*, expected one", found.size(), which);
  return found[0];
}

Tensor default_of(const Node& n, DType dtype) {
  if (const Tensor* t = n.attr_tensor("default_tensor")) return t->reshaped({t->numel()});
  if (dtype == DType::kString) return words({n.attr_string("default_string", "_Unused")});
  if (dtype == DType::kF32 || dtype == DType::kF64) return Tensor::of<float>({1}, {n.attr_float("default_float", -0.0f)}).cast(dtype);
  return Tensor::of<int64_t>({1}, {n.attr_int("default_int64", -1)}).cast(dtype);
}

Mapping label_mapping(const Node& n, DType x) {
  if (!n.has_attr("classes_strings")) {
    Mapping m{list_of(n, "keys"), list_of(n, "values"), {}};
    m.otherwise = default_of(n, m.values.dtype());
    return checked(std::move(m));
  }
  // Set 1: strings and their numbers in the list, in either direction.
  const Tensor classes = words(n.attr_strings("classes_strings"));
  Tensor numbers = Tensor::zeros(DType::kI64, classes.shape());
  for (int64_t i = 0; i < numbers.numel(); ++i) numbers.mutable_data<int64_t>()[i] = i;
  const Tensor &from = x == DType::kString ? classes : numbers, &to = x == DType::kString ? numbers : classes;
  return checked({from, to, default_of(n, to.dtype())});
}

// --- CategoryMapper ---------------------------------------------------------------------------------

Mapping category_mapping(const Node& n, DType x) {
  const Tensor names = words(n.attr_strings("cats_strings")), numbers = Tensor::vector<int64_t>(n.attr_ints("cats_int64s"));
  if (x == DType::kString) return checked({names, numbers, default_of(n, DType::kI64)});
  return checked({numbers, names, default_of(n, DType::kString)});
}

// --- both -------------------------------------------------------------------------------------------

using MappingOf = Mapping (*)(const Node&, DType);

OpDef mapping_op(std::string_view name, MappingOf mapping_of) {
  OpDef def = ops::ml_op(name, [mapping_of](InferContext& c) {
    const Mapping m = mapping_of(c.node(), c.dtype(0));
    c.require_dtype(0, {m.keys.dtype()});
    c.set_output(0, m.values.dtype(), c.has_dims(0) ? std::optional(c.dims(0)) : std::nullopt);
  });
  KernelDef k;
  k.name = "portable/" + def.name;
  k.takes_objects = true;
  k.create = [mapping_of](const KernelQuery& q) {
    const Mapping m = mapping_of(q.node, q.in(0).dtype);
    return make_kernel([table = KeyTable(m.keys), values = m.values, otherwise = m.otherwise](const KernelContext& c) {
      const std::vector<int64_t> places = table.places(c.input(0), -1);
      if (values.dtype() == DType::kString) {
        const auto out = c.output(0).strings();
        for (size_t i = 0; i < places.size(); ++i) out[i] = places[i] < 0 ? otherwise.strings()[0] : values.strings()[static_cast<size_t>(places[i])];
        return;
      }
      const size_t size = dtype_size(values.dtype());
      auto* out = static_cast<std::byte*>(c.output(0).mutable_raw());
      const auto *from = static_cast<const std::byte*>(values.raw()), *none = static_cast<const std::byte*>(otherwise.raw());
      for (const int64_t place : places) {
        std::memcpy(out, place < 0 ? none : from + static_cast<size_t>(place) * size, size);
        out += size;
      }
    });
  };
  def.kernels = {k};
  return def;
}

// --- OneHotEncoder ----------------------------------------------------------------------------------

Tensor categories(const Node& n) { return ops::class_labels(n, "cats_int64s", "cats_strings"); }

void infer_one_hot(InferContext& c) {
  c.require_dtype(0, {DType::kString, DType::kI64, DType::kI32, DType::kF32, DType::kF64});
  const Tensor list = categories(c.node());
  if ((c.dtype(0) == DType::kString) != (list.dtype() == DType::kString)) c.error("its input is {}, its categories are {}", dtype_name(c.dtype(0)), dtype_name(list.dtype()));
  if (!c.has_dims(0)) return c.set_output(0, DType::kF32);
  Dims dims = c.dims(0);
  dims.emplace_back(list.numel());
  c.set_output(0, DType::kF32, std::move(dims));
}

// Numbers as i64, towards zero; those that are none become `none`, which must be no category.
std::vector<int64_t> whole_places(const KeyTable& table, const Tensor& x) {
  constexpr double kLimit = 9.2e18;
  const std::vector<double> numbers = x.to_doubles();
  Tensor whole = Tensor::zeros(DType::kI64, x.shape());
  std::vector<size_t> outside;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (std::abs(numbers[i]) < kLimit) whole.mutable_data<int64_t>()[i] = static_cast<int64_t>(numbers[i]);
    else outside.push_back(i);  // NaN too
  }
  std::vector<int64_t> places = table.places(whole, -1);
  for (size_t i : outside) places[i] = -1;
  return places;
}

std::unique_ptr<Kernel> make_one_hot(const KernelQuery& q) {
  const bool zeros = q.node.attr_int("zeros", 1) != 0;
  return make_kernel([table = KeyTable(categories(q.node)), zeros](const KernelContext& c) {
    const Tensor& x = c.input(0);
    const std::vector<int64_t> places = x.dtype() == table.dtype() ? table.places(x, -1) : whole_places(table, x);
    float* out = c.output(0).mutable_data<float>();
    std::fill_n(out, c.output(0).numel(), 0.0f);
    for (size_t i = 0; i < places.size(); ++i) {
      if (places[i] >= 0) out[static_cast<int64_t>(i) * table.size() + places[i]] = 1;
      else if (!zeros) bad_data("element {} of its input is no category, and zeros is 0", i);
    }
  });
}

}  // namespace

void register_ml_label_ops(OpRegistry& registry) {
  registry.add(mapping_op("LabelEncoder", label_mapping));
  registry.add(mapping_op("CategoryMapper", category_mapping));
  OpDef one_hot = ops::ml_op("OneHotEncoder", infer_one_hot);
  KernelDef k;
  k.name = "portable/OneHotEncoder";
  k.takes_objects = true;
  k.create = make_one_hot;
  one_hot.kernels = {k};
  registry.add(std::move(one_hot));
}

}  // namespace ds
