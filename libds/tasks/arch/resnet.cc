// Residual networks: He et al., "Deep residual learning for image recognition", 2015. The variant with
// the stride in the 3x3 convolution of a bottleneck, as most published weights have it.
#include <array>

#include "libds/tasks/arch/net_builder.h"

namespace ds::arch {
namespace {

struct Plan {
  std::array<int, 4> blocks;
  bool bottleneck;
};

Plan plan_of(int depth) {
  switch (depth) {
    case 18: return {{2, 2, 2, 2}, false};
    case 34: return {{3, 4, 6, 3}, false};
    case 50: return {{3, 4, 6, 3}, true};
    case 101: return {{3, 4, 23, 3}, true};
    default: return {{3, 8, 36, 3}, true};
  }
}

// fan-out mode, as usual for these networks
Init conv_init(const ConvShape& s) { return he_normal(s.out * s.kernel * s.kernel); }

ValueId conv_norm(NetBuilder& net, ValueId x, const std::string& conv, const std::string& norm, const ConvShape& s) {
  return net.batch_norm(net.conv(x, conv, s, conv_init(s)), norm, s.out);
}

// One residual block: [N, in, H, W] to [N, out, H/stride, W/stride].
ValueId block(NetBuilder& net, ValueId x, const std::string& name, int64_t in, int64_t width, int64_t stride, bool bottleneck) {
  const int64_t out = bottleneck ? 4 * width : width;
  const auto layer = [&](ValueId from, const char* n, const ConvShape& s) {
    return conv_norm(net, from, name + ".conv" + n, name + ".bn" + n, s);
  };
  ValueId y;
  if (bottleneck) {
    y = net.relu(layer(x, "1", {in, width, 1}), name + ".relu1");
    y = net.relu(layer(y, "2", {width, width, 3, stride, 1}), name + ".relu2");
    y = layer(y, "3", {width, out, 1});
  } else {
    y = net.relu(layer(x, "1", {in, width, 3, stride, 1}), name + ".relu1");
    y = layer(y, "2", {width, width, 3, 1, 1});
  }
  ValueId skip = x;
  if (stride != 1 || in != out) skip = conv_norm(net, x, name + ".downsample.0", name + ".downsample.1", {in, out, 1, stride, 0});
  return net.relu(net.emit("Add", {y, skip}, name + ".add"), name + ".relu");
}

}  // namespace

void build_resnet(NetBuilder& net, const ArchOptions& options, int depth) {
  const Plan plan = plan_of(depth);
  const int64_t channels = size_or(options.in_channels, 3, "--in-channels");
  const int64_t size = size_or(options.image_size, options.small_stem ? 32 : 224, "--image-size");
  ValueId x = net.picture_input(channels, size);
  if (options.small_stem) {
    x = net.relu(conv_norm(net, x, "conv1", "bn1", {channels, 64, 3, 1, 1}), "relu");
  } else {
    x = net.relu(conv_norm(net, x, "conv1", "bn1", {channels, 64, 7, 2, 3}), "relu");
    x = net.max_pool(x, "maxpool", 3, 2, 1);
  }
  int64_t in = 64;
  for (size_t stage = 0; stage < plan.blocks.size(); ++stage) {
    const int64_t width = 64 << stage;
    for (int i = 0; i < plan.blocks[stage]; ++i) {
      const int64_t stride = i == 0 && stage > 0 ? 2 : 1;
      x = block(net, x, fmt::format("layer{}.{}", stage + 1, i), in, width, stride, plan.bottleneck);
      in = plan.bottleneck ? 4 * width : width;
    }
  }
  const int64_t classes = size_or(options.classes, 1000, "--classes");
  net.output(net.linear(net.global_average(x, "avgpool"), "fc", in, classes, xavier_uniform(in, classes)));
}

}  // namespace ds::arch
