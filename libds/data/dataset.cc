#include "libds/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "libds/base/file.h"
#include "libds/data/csv.h"
#include "libds/data/idx.h"

namespace ds {
namespace {

constexpr std::string_view kLabelNames[] = {"labels", "label", "targets", "target", "y"};

// Labels in one of two types: classes as i64, targets as f32.
Tensor normalize_labels(const Tensor& labels) {
  return labels.cast(is_float(labels.dtype()) ? DType::kF32 : DType::kI64);
}

std::optional<size_t> find_labels(const NamedTensors& arrays, const std::string& key) {
  const auto at = [&](std::string_view name) -> std::optional<size_t> {
    for (size_t i = 0; i < arrays.size(); ++i)
      if (arrays[i].first == name) return i;
    return std::nullopt;
  };
  if (!key.empty()) {
    if (const auto i = at(key)) return i;
    std::vector<std::string> names;
    for (const auto& [name, tensor] : arrays) names.push_back(name);
    bad_data("no array '{}' among {}", key, fmt::join(names, ", "));
  }
  for (std::string_view name : kLabelNames)
    if (const auto i = at(name)) return i;
  return std::nullopt;
}

std::shared_ptr<const Dataset> from_npz(const std::string& name, NamedTensors arrays, const DatasetOptions& options) {
  return with_context([&] { return name; }, [&] {
    Tensor labels;
    if (const auto i = find_labels(arrays, options.label_key)) {
      labels = arrays[*i].second;
      arrays.erase(arrays.begin() + static_cast<std::ptrdiff_t>(*i));
    }
    return std::make_shared<const Dataset>(name, std::move(arrays), std::move(labels));
  });
}

std::shared_ptr<const Dataset> from_table(const std::string& name, const Table& table, const DatasetOptions& options) {
  int64_t label = -1;
  if (!options.label_key.empty()) {
    label = with_context([&] { return name; }, [&] { return find_column(table, options.label_key); });
  } else {
    for (std::string_view candidate : kLabelNames)
      for (size_t i = 0; i < table.columns.size() && label < 0; ++i)
        if (table.columns[i] == candidate) label = static_cast<int64_t>(i);
  }
  const int64_t features = table.width - (label >= 0 ? 1 : 0);
  Tensor x = Tensor::empty(DType::kF32, {table.rows, features});
  float* out = x.mutable_data<float>();
  std::vector<double> targets;
  bool integers = true;
  for (int64_t r = 0; r < table.rows; ++r) {
    for (int64_t c = 0; c < table.width; ++c) {
      const double v = table.values[static_cast<size_t>(r * table.width + c)];
      if (c != label) {
        *out++ = static_cast<float>(v);
      } else {
        targets.push_back(v);
        integers &= v == std::floor(v) && std::abs(v) < 9e15;
      }
    }
  }
  Tensor labels;
  if (label >= 0) {
    labels = Tensor::of<double>({table.rows}, targets);
    if (integers) labels = labels.cast(DType::kI64);
  }
  NamedTensors arrays;
  if (features > 0) arrays.emplace_back("", std::move(x));
  return std::make_shared<const Dataset>(name, std::move(arrays), std::move(labels));
}

// A file of one array: .npy, IDX, IDX.gz.
std::optional<Tensor> read_array(Bytes bytes, std::shared_ptr<const void> owner) {
  if (looks_like_npy(bytes)) return parse_npy(bytes, std::move(owner));
  if (looks_like_gzip(bytes) || looks_like_idx(bytes)) return parse_idx(bytes);
  return std::nullopt;
}

struct Source {
  std::string name;
  Bytes bytes;
  std::shared_ptr<const void> owner;
};

Source open_source(const std::string& path) {
  if (path == "-") {
    const auto text = std::make_shared<const std::string>(read_file(path));
    return {"standard input", std::as_bytes(std::span(*text)), text};
  }
  const auto file = MappedFile::open(path);
  return {path, file->bytes(), file};
}

Tensor require_array(const std::string& path) {
  const Source source = open_source(path);
  return with_context([&] { return source.name; }, [&] {
    const auto tensor = read_array(source.bytes, source.owner);
    if (!tensor) bad_data("neither .npy nor IDX");
    return *tensor;
  });
}

// Whether values of `from` may silently become `to`.
bool converts(DType from, DType to) {
  if (from == to) return true;
  if (is_float(to)) return true;
  if (is_float(from)) return false;
  return is_int(to);  // integers widen, narrow when the values fit (checked per batch) and bool counts
}

// src as To, checked when an integer might not fit.
template <typename From, typename To>
void convert_row(const From* src, To* dst, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<From, To>) {
      dst[i] = src[i];
    } else if constexpr (std::is_integral_v<From> && std::is_integral_v<To> && !std::is_same_v<To, bool> && !std::is_same_v<From, bool>) {
      if (!std::in_range<To>(src[i])) bad_data("value {} does not fit the model's input type {}", src[i], dtype_name(dtype_of<To>()));
      dst[i] = static_cast<To>(src[i]);
    } else if constexpr (std::is_same_v<To, bool>) {
      dst[i] = static_cast<float>(src[i]) != 0.0f;
    } else if constexpr (std::is_same_v<To, f16> || std::is_same_v<To, bf16> || std::is_same_v<From, f16> || std::is_same_v<From, bf16>) {
      dst[i] = static_cast<To>(static_cast<float>(src[i]));
    } else {
      dst[i] = static_cast<To>(src[i]);
    }
  }
}

}  // namespace

Dataset::Dataset(std::string name, NamedTensors arrays, Tensor labels) : name_(std::move(name)), arrays_(std::move(arrays)) {
  if (arrays_.empty() && !labels.defined()) bad_data("no arrays");
  const auto take = [&](const std::string& what, const Tensor& t) {
    if (t.rank() == 0) bad_data("{} is a scalar: it has no axis of samples", what);
    if (size_ < 0) size_ = t.dim(0);
    else if (t.dim(0) != size_) bad_data("{} has {} samples, the others {}", what, t.dim(0), size_);
  };
  size_ = -1;
  for (const auto& [key, tensor] : arrays_) take(key.empty() ? "the data" : fmt::format("array '{}'", key), tensor);
  if (labels.defined()) {
    take("labels", labels);
    labels_ = normalize_labels(labels);
  }
  if (size_ == 0) bad_data("no samples");
}

void Dataset::check_labels(int64_t classes) const {
  if (!has_labels()) bad_data("{}: no labels (name them with --label-key)", name_);
  if (labels_.dtype() != DType::kI64) bad_data("{}: labels must be integers for a classification loss", name_);
  if (labels_.numel() != size_) bad_data("{}: expected one label for each sample, got shape {}", name_, shape_string(labels_.shape()));
  const auto values = labels_.span<int64_t>();
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i] < 0 || values[i] >= classes) bad_data("{}: row {}: label {} is out of range [0, {})", name_, i, values[i], classes);
}

std::shared_ptr<const Dataset> open_dataset(const std::string& spec, const DatasetOptions& options) {
  if (spec.empty()) fail(ExitCode::kUsage, "empty dataset name");
  const size_t comma = spec.find(',');
  if (comma != std::string::npos && !file_exists(spec)) {
    const std::string first = spec.substr(0, comma), second = spec.substr(comma + 1);
    if (first.empty() || second.empty() || second.find(',') != std::string::npos)
      fail(ExitCode::kUsage, "dataset '{}': expected IMAGES,LABELS", spec);
    NamedTensors arrays;
    arrays.emplace_back("", require_array(first));
    Tensor labels = require_array(second);
    return with_context([&] { return spec; }, [&] { return std::make_shared<const Dataset>(spec, std::move(arrays), std::move(labels)); });
  }
  const Source source = open_source(spec);
  if (looks_like_zip(source.bytes)) {
    NamedTensors arrays = with_context([&] { return source.name; }, [&] { return parse_npz(source.bytes, source.owner); });
    return from_npz(source.name, std::move(arrays), options);
  }
  return with_context([&] { return source.name; }, [&]() -> std::shared_ptr<const Dataset> {
    if (auto tensor = read_array(source.bytes, source.owner)) {
      NamedTensors arrays;
      arrays.emplace_back("", std::move(*tensor));
      return std::make_shared<const Dataset>(source.name, std::move(arrays), Tensor());
    }
    if (std::find(source.bytes.begin(), source.bytes.end(), std::byte{0}) != source.bytes.end())
      bad_data("neither .npz, .npy, IDX nor CSV");
    const std::string_view text(reinterpret_cast<const char*>(source.bytes.data()), source.bytes.size());
    return from_table(source.name, parse_csv(text), options);
  });
}

std::vector<InputSpec> input_specs(const Graph& graph) {
  std::vector<InputSpec> specs;
  for (ValueId id : graph.inputs()) {
    const Value& v = graph.value(id);
    InputSpec spec;
    spec.name = v.name;
    spec.dtype = v.dtype;
    spec.rank_known = v.dims.has_value();
    if (v.dims) {
      if (v.dims->empty()) bad_data("input '{}' is a scalar: it cannot take a batch of samples", v.name);
      for (size_t i = 1; i < v.dims->size(); ++i) spec.sample.push_back((*v.dims)[i].known() ? (*v.dims)[i].raw : -1);
    }
    specs.push_back(std::move(spec));
  }
  return specs;
}

Feed::Feed(std::shared_ptr<const Dataset> dataset, std::vector<InputSpec> specs)
    : dataset_(std::move(dataset)), specs_(std::move(specs)) {
  with_context([&] { return dataset_->name(); }, [&] {
    const NamedTensors& arrays = dataset_->arrays();
    for (const InputSpec& spec : specs_) {
      const Tensor* found = nullptr;
      for (const auto& [name, tensor] : arrays)
        if (name == spec.name) found = &tensor;
      if (found == nullptr && specs_.size() == 1 && arrays.size() == 1) found = &arrays[0].second;
      if (found == nullptr) {
        std::vector<std::string> names;
        for (const auto& [name, tensor] : arrays) names.push_back(name.empty() ? "(unnamed)" : name);
        bad_data("no array for input '{}' among: {}", spec.name, fmt::join(names, ", "));
      }
      if (!converts(found->dtype(), spec.dtype))
        bad_data("input '{}' wants {}, the data is {}", spec.name, dtype_name(spec.dtype), dtype_name(found->dtype()));
      const Shape row(found->shape().begin() + 1, found->shape().end());
      Shape sample = spec.sample;
      bool fits = spec.rank_known && row.size() == sample.size();
      for (size_t i = 0; fits && i < row.size(); ++i) fits = sample[i] < 0 || sample[i] == row[i];
      if (!spec.rank_known || fits) {
        sample = row;
      } else {
        // Another rank: accepted when the element counts agree and at most one size is open.
        int64_t known = 1, open = -1;
        bool clear = true;
        for (size_t i = 0; i < sample.size(); ++i) {
          if (sample[i] >= 0) known = checked_mul(known, sample[i]);
          else if (open < 0) open = static_cast<int64_t>(i);
          else clear = false;
        }
        const int64_t have = checked_numel(row);
        if (clear && open >= 0 && known > 0 && have % known == 0) {
          sample[static_cast<size_t>(open)] = have / known;
          known = have;
        }
        // Equal rank but other sizes is a mistake (28x28 against 14x56), not a view.
        if (!clear || known != have || row.size() == spec.sample.size())
          bad_data("input '{}' wants samples of shape {}, the data has {}", spec.name, shape_string(spec.sample), shape_string(row));
      }
      sources_.push_back(*found);
      samples_.push_back(std::move(sample));
    }
  });
}

Shape Feed::input_shape(size_t i, int64_t batch) const {
  Shape shape{batch};
  shape.insert(shape.end(), samples_[i].begin(), samples_[i].end());
  return shape;
}

Tensor gather_rows(const Tensor& src, std::span<const int64_t> rows, DType dtype) {
  Shape shape = src.shape();
  const int64_t n = shape[0], row = n == 0 ? 0 : src.numel() / n;
  shape[0] = static_cast<int64_t>(rows.size());
  Tensor out = Tensor::empty(dtype, shape);
  for (int64_t r : rows) DS_CHECK(0 <= r && r < n);
  dispatch_dtype(src.dtype(), [&](auto from_tag) {
    using From = decltype(from_tag);
    dispatch_dtype(dtype, [&](auto to_tag) {
      using To = decltype(to_tag);
      for (size_t i = 0; i < rows.size(); ++i) {
        const From* from = src.data<From>() + rows[i] * row;
        To* to = out.mutable_data<To>() + static_cast<int64_t>(i) * row;
        if constexpr (std::is_same_v<From, To>) {
          if (row > 0) std::memcpy(to, from, static_cast<size_t>(row) * sizeof(To));
        } else {
          with_context([&] { return fmt::format("row {}", rows[i]); }, [&] { convert_row(from, to, row); });
        }
      }
    });
  });
  return out;
}

Batch Feed::batch(std::span<const int64_t> rows) const {
  return with_context([&] { return dataset_->name(); }, [&] {
    Batch b;
    b.size = static_cast<int64_t>(rows.size());
    for (size_t i = 0; i < specs_.size(); ++i) {
      const Tensor gathered = with_context([&] { return fmt::format("input '{}'", specs_[i].name); },
                                           [&] { return gather_rows(sources_[i], rows, specs_[i].dtype); });
      b.inputs.push_back(gathered.reshaped(input_shape(i, b.size)));
    }
    if (dataset_->has_labels()) b.labels = gather_rows(dataset_->labels(), rows, dataset_->labels().dtype());
    return b;
  });
}

Batch Feed::range(int64_t begin, int64_t end) const {
  std::vector<int64_t> rows;
  for (int64_t r = begin; r < end; ++r) rows.push_back(r);
  return batch(rows);
}

}  // namespace ds
