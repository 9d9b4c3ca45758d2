#include "libds/tasks/init.h"

#include "libds/tasks/arch/net_builder.h"

namespace ds {
namespace {

// What an architecture takes as input decides which options mean anything to it.
enum class Input { kPictureOrVector, kPicture, kTokens };

struct Arch {
  ArchInfo info;
  Input input;
  void (*build)(arch::NetBuilder&, const ArchOptions&);
};

constexpr Arch kArchs[] = {
    {{"mlp", "multi-layer perceptron, 256 and 128 hidden units unless --hidden-sizes says otherwise"}, Input::kPictureOrVector, arch::build_mlp},
    {{"lenet", "LeNet-class convolutional network with batch norm, about 95 thousand parameters"}, Input::kPicture, arch::build_lenet},
    {{"resnet18", "residual network, 18 layers"}, Input::kPicture, [](arch::NetBuilder& n, const ArchOptions& o) { arch::build_resnet(n, o, 18); }},
    {{"resnet34", "residual network, 34 layers"}, Input::kPicture, [](arch::NetBuilder& n, const ArchOptions& o) { arch::build_resnet(n, o, 34); }},
    {{"resnet50", "residual network with bottlenecks, 50 layers"}, Input::kPicture, [](arch::NetBuilder& n, const ArchOptions& o) { arch::build_resnet(n, o, 50); }},
    {{"resnet101", "residual network with bottlenecks, 101 layers"}, Input::kPicture, [](arch::NetBuilder& n, const ArchOptions& o) { arch::build_resnet(n, o, 101); }},
    {{"resnet152", "residual network with bottlenecks, 152 layers"}, Input::kPicture, [](arch::NetBuilder& n, const ArchOptions& o) { arch::build_resnet(n, o, 152); }},
    {{"bert", "transformer encoder with a classification head, BERT-base sizes unless given"}, Input::kTokens, arch::build_bert},
};

void reject_unused(const ArchOptions& o, const Arch& a) {
  const auto reject = [&](bool given, const char* option) {
    if (given) fail(ExitCode::kUsage, "{}: {} means nothing to this architecture", a.info.name, option);
  };
  const bool tokens = a.input == Input::kTokens;
  reject(tokens && o.image_size, "--image-size");
  reject(tokens && o.in_channels, "--in-channels");
  reject(tokens && o.scale, "--scale");
  reject(tokens && !o.mean.empty(), "--mean");
  reject(tokens && !o.std.empty(), "--std");
  reject(tokens && o.input_dtype != DType::kF32, "--input-dtype");
  reject(!tokens && o.hidden, "--hidden");
  reject(!tokens && o.layers, "--layers");
  reject(!tokens && o.heads, "--heads");
  reject(!tokens && o.ffn, "--ffn");
  reject(!tokens && o.vocab, "--vocab");
  reject(!tokens && o.max_length, "--max-length");
  reject(!tokens && o.attention != "full", "--attention");
  reject(a.input != Input::kPictureOrVector && o.features, "--features");
  reject(a.input != Input::kPictureOrVector && !o.hidden_sizes.empty(), "--hidden-sizes");
  reject(o.small_stem && !a.info.name.starts_with("resnet"), "--small-stem");
}

}  // namespace

std::vector<ArchInfo> list_archs() {
  std::vector<ArchInfo> infos;
  for (const Arch& a : kArchs) infos.push_back(a.info);
  return infos;
}

std::shared_ptr<Graph> build_arch(const ArchOptions& options) {
  for (const Arch& a : kArchs) {
    if (a.info.name != options.arch) continue;
    reject_unused(options, a);
    auto graph = std::make_shared<Graph>();
    graph->name = options.arch;
    graph->opsets[""] = 17;
    graph->ir_version = 8;
    graph->producer_name = "ds";
    graph->producer_version = DS_VERSION;
    arch::NetBuilder net(*graph, options);
    a.build(net, options);
    return graph;
  }
  std::vector<std::string_view> names;
  for (const Arch& a : kArchs) names.push_back(a.info.name);
  fail(ExitCode::kUsage, "unknown architecture '{}' (known: {})", options.arch, fmt::join(names, ", "));
}

}  // namespace ds
