// The one list of what is left out, and why.
#include <algorithm>

#include "libds/ir/onnx_versions.h"
#include "libds/tasks/inspect/ops_page.h"

namespace ds {
namespace {

constexpr std::string_view kExperimental = "was an experiment of ONNX's first operator sets, is in none of them since, and is kept by onnxruntime for files of that time.";
constexpr std::string_view kInternal = "is written by onnxruntime into its own graphs, never by an exporter.";

constexpr std::string_view kMaps = "takes maps, which this library has no values for; feed a tensor in the place of its result.";

constexpr MissingOp kMissing[] = {
    {"Affine", kExperimental},
    {"Crop", kExperimental},
    {"DynamicSlice", kExperimental},
    {"ImageDecoder", "decodes JPEG, PNG and other picture files, which is work for the program that feeds the model; onnxruntime does not run it either."},
    {"ImageScaler", kExperimental},
    {"MemcpyFromHost", kInternal},
    {"MemcpyToHost", kInternal},
    {"ParametricSoftplus", kExperimental},
    {"Scale", kExperimental},
    {"ScaledTanh", kExperimental},
    {"CastMap", kMaps, kMlDomain},
    {"DictVectorizer", kMaps, kMlDomain},
    {"ZipMap", "makes maps, which this library has no values for; export without it, with skl2onnx by options={'zipmap': False}.", kMlDomain},
};

constexpr std::string_view kFormer[] = {"Scatter", "Upsample"};

}  // namespace

std::vector<MissingOp> missing_ops() {
  std::vector<MissingOp> list;
  for (const MissingOp& m : kMissing)
    if (OpRegistry::instance().find(m.domain, m.op) == nullptr) list.push_back(m);
  return list;
}

std::vector<std::pair<std::string, std::string>> former_op_names() {
  std::vector<std::pair<std::string, std::string>> list;
  for (std::string_view name : kFormer) list.emplace_back(name, current_op_name(name));
  return list;
}

}  // namespace ds
