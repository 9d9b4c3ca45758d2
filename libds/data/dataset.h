// Dataset: named arrays over one common first axis of N samples, and batches of rows of them.
//
// Forms of a dataset, told apart by content and not by name:
//   x.npz             arrays keyed by name; one of them may be the labels (label_key)
//   images,labels     two files of one array each: .npy, IDX or IDX.gz
//   images            one such file, no labels
//   table.csv         numeric columns; one of them may be the labels (label_key: name or number)
//   -                 any of the one-file forms on standard input
//
// Arrays stay in memory (or mapped) in the type of the file; a batch is gathered and converted to
// the model's input type when it is asked for. An array fits an input when dtype converts without
// loss of meaning and the elements of a row agree in count: IDX images [N,28,28] fit [batch,1,28,28].
// Dataset and Feed are read-only after construction and may be shared between threads.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "libds/data/npz.h"
#include "libds/ir/graph.h"
#include "libds/mem/tensor.h"

namespace ds {

struct DatasetOptions {
  // Name of the label array or column. Empty: the one called labels, label, targets, target or y,
  // if there is one.
  std::string label_key;
};

class Dataset {
 public:
  // `arrays` share their first axis; `labels` may be undefined. `name` stands in errors.
  Dataset(std::string name, NamedTensors arrays, Tensor labels);

  const std::string& name() const { return name_; }
  int64_t size() const { return size_; }
  // Name empty: the file did not name it, it goes to the model's only input.
  const NamedTensors& arrays() const { return arrays_; }
  bool has_labels() const { return labels_.defined(); }
  // Integers become i64, floats f32; [N, ...].
  const Tensor& labels() const { return labels_; }
  // Throws unless every label is an integer in [0, classes); names the row.
  void check_labels(int64_t classes) const;

 private:
  std::string name_;
  NamedTensors arrays_;
  Tensor labels_;
  int64_t size_ = 0;
};

// `spec` as described above. Throws kNoInput or kBadData, naming the file.
std::shared_ptr<const Dataset> open_dataset(const std::string& spec, const DatasetOptions& options = {});

struct Batch {
  std::vector<Tensor> inputs;  // in the order of Feed::specs()
  Tensor labels;               // undefined when the dataset has none
  int64_t size = 0;
};

// What a model wants for one input: a dtype and the shape of one sample (negative: any size).
struct InputSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape sample;
  bool rank_known = true;
};

// The graph's inputs, first axis taken off.
std::vector<InputSpec> input_specs(const Graph& graph);

// A dataset bound to a model's inputs.
class Feed {
 public:
  // Arrays go to inputs of the same name; a single unnamed (or single) array to a single input.
  // Throws when an input has no array, or the array does not fit.
  Feed(std::shared_ptr<const Dataset> dataset, std::vector<InputSpec> specs);

  const Dataset& dataset() const { return *dataset_; }
  const std::vector<InputSpec>& specs() const { return specs_; }
  int64_t size() const { return dataset_->size(); }
  // Shape of input i for `batch` samples.
  Shape input_shape(size_t i, int64_t batch) const;
  // Gathers rows (any order, repeats allowed), converted to the model's types. Fresh tensors.
  Batch batch(std::span<const int64_t> rows) const;
  // Rows [begin, end).
  Batch range(int64_t begin, int64_t end) const;

 private:
  std::shared_ptr<const Dataset> dataset_;
  std::vector<InputSpec> specs_;
  std::vector<Tensor> sources_;  // per input
  std::vector<Shape> samples_;   // per input: the shape of one sample as the model wants it
};

// dst[i] = src[rows[i]] along the first axis, converted to `dtype`.
Tensor gather_rows(const Tensor& src, std::span<const int64_t> rows, DType dtype);

}  // namespace ds
