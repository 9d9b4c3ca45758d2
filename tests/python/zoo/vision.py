"""Convolutional networks: U-Net, MobileNetV3, a detector's head, three dimensions, a speech front."""
import numpy as np

from zoo.net import F32, I64, Net


def group_norm(n, x, width, groups=4):
    """As PyTorch writes it: groups as channels of an InstanceNormalization."""
    y = n.op("Reshape", x, n.ints(0, groups, -1))
    y = n.op("InstanceNormalization", y, n.const(np.ones(groups, np.float32)), n.const(np.zeros(groups, np.float32)), epsilon=1e-5)
    y = n.op("Reshape", y, n.op("Shape", x))
    shape = (width, 1, 1)
    return n.op("Add", n.op("Mul", y, n.const((1 + 0.1 * n.rng.standard_normal(shape)).astype(np.float32))),
                n.weight(*shape, scale=0.1))


def unet(opset, widths=(8, 16, 24, 32), learned=True):
    """Any height and width: each step up is cut or resized to the size of its skip."""
    n = Net(opset)
    x = n.input("image", F32, ["batch", 3, "height", "width"])

    def block(y, n_in, n_out):
        for i in (n_in, n_out):
            y = n.op("Relu", n.batch_norm(n.conv(y, i, n_out, bias=False), n_out) if learned else group_norm(n, n.conv(y, i, n_out), n_out))
        return y

    skips, n_in = [], 3
    for w in widths:
        x = block(x, n_in, w)
        skips.append(x)
        x = n.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=0)
        n_in = w
    x = block(x, n_in, 2 * n_in)
    n_in *= 2
    for w, skip in zip(reversed(widths), reversed(skips)):
        if learned:
            x = n.op("ConvTranspose", x, n.weight(n_in, w, 2, 2), n.weight(w, scale=0.1), kernel_shape=[2, 2], strides=[2, 2])
            # An odd size lost a row when it was halved: pad by the difference, as the original does.
            dh = n.op("Sub", n.dim(skip, 2), n.dim(x, 2))
            dw = n.op("Sub", n.dim(skip, 3), n.dim(x, 3))
            x = n.op("Pad", x, n.shape(0, 0, 0, 0, 0, 0, dh, dw), n.f(0), mode="constant")
            joined = 2 * w
        else:
            size = n.op("Concat", n.op("Slice", n.op("Shape", x), n.ints(0), n.ints(2), n.ints(0)),
                        n.op("Slice", n.op("Shape", skip), n.ints(2), n.ints(4), n.ints(0)), axis=0)
            roi, scales = n.const(np.zeros(0, np.float32)), n.const(np.zeros(0, np.float32))
            x = n.op("Resize", x, roi, scales, size, mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
            joined = n_in + w
        x = block(n.op("Concat", skip, x, axis=1), joined, w)
        n_in = w
    n.output(n.op("Sigmoid", n.conv(x, n_in, 2, 1)), "mask", F32, ["batch", 2, "height", "width"])
    return n.model()


def mobilenet_v3(opset, width=1.0, classes=10):
    """The small one. HardSwish is a node from opset 14 on, before that HardSigmoid and Mul or Clip and Div."""
    n = Net(opset)
    x = n.input("x", F32, ["batch", 3, "height", "width"])

    def swish(y):
        if opset >= 14:
            return n.op("HardSwish", y)
        if opset >= 13:
            return n.op("Mul", y, n.op("HardSigmoid", y, alpha=1 / 6))
        return n.op("Div", n.op("Mul", y, n.op("Clip", n.op("Add", y, n.f(3)), n.f(0), n.f(6))), n.f(6))

    def squeeze(y, w):
        s = n.op("GlobalAveragePool", y)
        s = n.op("Relu", n.conv(s, w, max(8, w // 4), 1))
        return n.op("Mul", n.op("HardSigmoid", n.conv(s, max(8, w // 4), w, 1), alpha=1 / 6, beta=0.5), y)

    def unit(y, n_in, kernel, expand, n_out, se, act, stride):
        z = act(n.batch_norm(n.conv(y, n_in, expand, 1, bias=False), expand)) if expand != n_in else y
        z = act(n.batch_norm(n.conv(z, expand, expand, kernel, stride, group=expand, bias=False), expand))
        z = squeeze(z, expand) if se else z
        z = n.batch_norm(n.conv(z, expand, n_out, 1, bias=False), n_out)
        return n.op("Add", z, y) if stride == 1 and n_in == n_out else z

    def relu(y):
        return n.op("Relu", y)

    x = swish(n.batch_norm(n.conv(x, 3, 16, 3, 2, bias=False), 16))
    n_in = 16
    for kernel, expand, n_out, se, act, stride in (
            (3, 16, 16, 1, relu, 2), (3, 72, 24, 0, relu, 2), (3, 88, 24, 0, relu, 1), (5, 96, 40, 1, swish, 2),
            (5, 240, 40, 1, swish, 1), (5, 120, 48, 1, swish, 1), (5, 288, 96, 1, swish, 2), (5, 576, 96, 1, swish, 1)):
        x = unit(x, n_in, kernel, expand, n_out, se, act, stride)
        n_in = n_out
    x = swish(n.batch_norm(n.conv(x, n_in, 576, 1, bias=False), 576))
    x = n.op("Flatten", n.op("GlobalAveragePool", x), axis=1)
    x = swish(n.op("Gemm", x, n.weight(256, 576), n.weight(256), transB=1))
    n.output(n.op("Gemm", x, n.weight(classes, 256), n.weight(classes), transB=1), "logits", F32, ["batch", classes])
    return n.model()


def detector(opset):
    """A grid of boxes made from Shape and Range, then NonMaxSuppression and what exporters write behind it."""
    n = Net(opset)
    x = n.input("image", F32, ["batch", 3, "height", "width"])
    y = n.op("Relu", n.conv(x, 3, 16, 3, 2))
    y = n.op("LeakyRelu", n.conv(y, 16, 16, 3, 2), alpha=0.1)
    y = n.conv(y, 16, 8, 1)  # 4 of the box, 1 of the object, 3 of the classes
    batch, rows, columns = n.dim(y, 0), n.dim(y, 2), n.dim(y, 3)
    y = n.op("Transpose", n.reshape(y, batch, 8, -1), perm=[0, 2, 1])
    zero, one = n.const(np.int64(0)), n.const(np.int64(1))
    ys = n.op("Expand", n.unsqueeze(n.op("Range", zero, rows, one), 1), n.shape(rows, columns))
    xs = n.op("Expand", n.unsqueeze(n.op("Range", zero, columns, one), 0), n.shape(rows, columns))
    grid = n.op("Cast", n.reshape(n.op("Concat", n.unsqueeze(xs, 2), n.unsqueeze(ys, 2), axis=2), 1, -1, 2), to=F32)
    xy, wh, object_, classes = n.split(y, [2, 2, 1, 3], 2)
    centre = n.op("Mul", n.op("Add", n.op("Sigmoid", xy), grid), n.f(4))
    half = n.op("Mul", n.op("Exp", n.op("Clip", wh, n.f(-4), n.f(2))), n.f(3))
    boxes = n.op("Concat", n.op("Sub", centre, half), n.op("Add", centre, half), axis=2)
    scores = n.op("Mul", n.op("Sigmoid", object_), n.op("Sigmoid", classes))
    n.output(boxes, "boxes", F32, ["batch", "cells", 4])
    n.output(scores, "scores", F32, ["batch", "cells", 3])
    kept = n.op("NonMaxSuppression", boxes, n.op("Transpose", scores, perm=[0, 2, 1]), n.ints(5), n.f(0.5), n.f(0.3))
    n.output(kept, "kept", I64, ["found", 3])
    best, which = n.op("TopK", n.op("ReduceMax", scores, axes=[2], keepdims=0) if opset < 18 else
                       n.op("ReduceMax", scores, n.ints(2), keepdims=0), n.ints(4), outputs=2, axis=1, largest=1, sorted=1)
    n.output(best, "best", F32, ["batch", 4])
    at = n.op("Expand", n.unsqueeze(which, 2), n.shape(batch, 4, 4))
    n.output(n.op("GatherElements", boxes, at, axis=1), "best_boxes", F32, ["batch", 4, 4])
    sure = n.op("NonZero", n.op("Greater", n.op("Squeeze", object_, n.ints(2)) if opset >= 13 else n.squeeze(object_, 2), n.f(0)))
    n.output(n.op("GatherND", boxes, n.op("Transpose", sure, perm=[1, 0])), "sure", F32, ["sure", 4])
    return n.model()


def volume(opset):
    """Three dimensions: Conv, pooling, ConvTranspose."""
    n = Net(opset)
    x = n.input("x", F32, ["batch", 1, "depth", "height", "width"])
    y = n.op("Relu", n.conv(x, 1, 6, 3, dims=3))
    y = n.op("MaxPool", y, kernel_shape=[2] * 3, strides=[2] * 3)
    y = n.op("PRelu", n.conv(y, 6, 8, 3, group=2, dims=3), n.const(np.full((8, 1, 1, 1), 0.2, np.float32)))
    y = n.op("ConvTranspose", y, n.weight(8, 4, 2, 2, 2), n.weight(4), kernel_shape=[2] * 3, strides=[2] * 3)
    y = n.op("AveragePool", y, kernel_shape=[3] * 3, pads=[1] * 6, count_include_pad=0)
    n.output(y, "y", F32, ["batch", 4, None, None, None])
    return n.model()


def wavenet(opset, width=16):
    """One dimension: dilated, padded on the left only, gated, with weight normalisation left in the graph."""
    n = Net(opset)
    x = n.input("wave", F32, ["batch", 1, "time"])
    h = n.conv(x, 1, width, 1, dims=1)
    total = None
    for d in (1, 2, 4, 8):
        v, g = n.weight(2 * width, width, 2), n.const(np.ones((2 * width, 1, 1), np.float32))
        norm = n.op("ReduceL2", v, axes=[1, 2], keepdims=1) if opset < 18 else n.op("ReduceL2", v, n.ints(1, 2), keepdims=1)
        w = n.op("Mul", n.op("Div", v, norm), g)
        y = n.op("Conv", n.op("Pad", h, n.ints(0, 0, d, 0, 0, 0), n.f(0)), w, n.weight(2 * width, scale=0.1),
                 kernel_shape=[2], dilations=[d], strides=[1], pads=[0, 0], group=1)
        a, b = n.split(y, [width, width], 1)
        y = n.op("Mul", n.op("Tanh", a), n.op("Sigmoid", b))
        total = y if total is None else n.op("Add", total, y)
        h = n.op("Add", h, n.conv(y, width, width, 1, dims=1))
    y = n.op("Elu", n.conv(n.op("Relu", total), width, 4, 1, dims=1))
    n.output(n.op("LogSoftmax", n.op("Transpose", y, perm=[0, 2, 1]), axis=2), "y", F32, ["batch", "time", 4])
    return n.model()


def swin_window(opset, width=16, window=4):
    """Windows shifted by Slice and Concat, cut by Reshape and Transpose of six dimensions, DepthToSpace at the end."""
    n = Net(opset)
    x = n.input("x", F32, ["batch", width, "height", "width"])
    batch, height, across = (n.dim(x, i) for i in (0, 2, 3))
    w = n.const(np.int64(window))
    rows, columns = n.op("Div", height, w), n.op("Div", across, w)
    y = n.op("Transpose", x, perm=[0, 2, 3, 1])
    for axis in (1, 2):
        y = n.op("Concat", n.slice(y, 2, 2**63 - 1, axis), n.slice(y, 0, 2, axis), axis=axis)
    y = n.reshape(y, batch, rows, window, columns, window, width)
    y = n.reshape(n.op("Transpose", y, perm=[0, 1, 3, 2, 4, 5]), -1, window * window, width)
    y = n.layer_norm(n.linear(y, width, width), width)
    y = n.op("Transpose", n.reshape(y, batch, rows, columns, window, window, width), perm=[0, 1, 3, 2, 4, 5])
    y = n.op("Transpose", n.reshape(y, batch, height, across, width), perm=[0, 3, 1, 2])
    y = n.op("DepthToSpace", n.op("Softplus", y), blocksize=2, mode="CRD")
    n.output(n.op("SpaceToDepth", n.op("ReduceMax", y, axes=[1], keepdims=1) if opset < 18 else
                  n.op("ReduceMax", y, n.ints(1), keepdims=1), blocksize=2), "y", F32, ["batch", 4, "height", "width"])
    return n.model()
