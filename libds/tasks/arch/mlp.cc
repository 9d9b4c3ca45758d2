// Multi-layer perceptron: hidden layers with relu, then a linear classifier.
#include "libds/tasks/arch/net_builder.h"

namespace ds::arch {

void build_mlp(NetBuilder& net, const ArchOptions& options) {
  ValueId x;
  int64_t width;
  if (options.image_size || options.in_channels) {
    const int64_t channels = size_or(options.in_channels, 1, "--in-channels"), size = size_or(options.image_size, 28, "--image-size");
    if (options.features) fail(ExitCode::kUsage, "mlp: --features and --image-size exclude each other");
    x = net.emit("Flatten", {net.picture_input(channels, size)}, "flatten", {{"axis", int64_t{1}}});
    width = channels * size * size;
  } else {
    width = size_or(options.features, 784, "--features");
    x = net.vector_input(width);
  }
  const std::vector<int64_t> hidden = options.hidden_sizes.empty() ? std::vector<int64_t>{256, 128} : options.hidden_sizes;
  int layer = 1;
  for (int64_t next : hidden) {
    const std::string name = fmt::format("fc{}", layer++);
    size_or(next, 1, "--hidden-sizes");
    x = net.relu(net.linear(x, name, width, next, he_normal(width)), fmt::format("relu{}", layer - 1));
    width = next;
  }
  const int64_t classes = size_or(options.classes, 10, "--classes");
  net.output(net.linear(x, fmt::format("fc{}", layer), width, classes, xavier_uniform(width, classes)));
}

}  // namespace ds::arch
