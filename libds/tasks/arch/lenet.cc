// A small convolutional network in the manner of LeNet (LeCun et al., 1998) with what came after it:
// batch norm and relu.
//
//   conv1 5x5   C ->  16   H      bn relu, max pool 2
//   conv2 3x3  16 ->  64   H/2    bn relu, max pool 2
//   conv3 3x3  64 -> 128   H/4    bn relu, max pool 2
//   fc        128 * (H/8)^2 -> classes
//
// Channels are multiples of 16, so that cutting them keeps to the kernels' blocks, and the widest
// layer holds most parameters as well as most work: cutting one cuts the other.
#include "libds/tasks/arch/net_builder.h"

namespace ds::arch {

void build_lenet(NetBuilder& net, const ArchOptions& options) {
  const int64_t channels = size_or(options.in_channels, 1, "--in-channels"), size = size_or(options.image_size, 28, "--image-size");
  if (size < 8) fail(ExitCode::kUsage, "lenet: --image-size {} is below 8", size);
  ValueId x = net.picture_input(channels, size);
  const auto block = [&](const std::string& n, const ConvShape& s) {
    x = net.conv(x, "conv" + n, s, he_normal(s.in * s.kernel * s.kernel));
    x = net.relu(net.batch_norm(x, "bn" + n, s.out), "relu" + n);
  };
  block("1", {channels, 16, 5, 1, 2});
  x = net.max_pool(x, "pool1", 2, 2);
  block("2", {16, 64, 3, 1, 1});
  x = net.max_pool(x, "pool2", 2, 2);
  block("3", {64, 128, 3, 1, 1});
  x = net.emit("Flatten", {net.max_pool(x, "pool3", 2, 2)}, "flatten", {{"axis", int64_t{1}}});
  const int64_t features = 128 * (size / 8) * (size / 8), classes = size_or(options.classes, 10, "--classes");
  net.output(net.linear(x, "fc", features, classes, xavier_uniform(features, classes)));
}

}  // namespace ds::arch
