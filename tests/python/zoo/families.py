"""More families of networks, each for the idioms that its exports bring along."""
import numpy as np
from onnx import helper

from zoo.net import BOOL, F32, I64, Net
from zoo.transformers import attend, heads, merge


def old_cnn(opset=7):
    """As files of 2018 are: IR 3, weights listed as inputs, LRN, Dropout, Upsample, Flatten into Gemm."""
    n = Net(opset)
    x = n.input("data_0", F32, ["batch", 3, 32, 32])
    y = n.op("Relu", n.conv(x, 3, 12, 5, 2))
    y = n.op("LRN", y, size=5, alpha=1e-3, beta=0.75, bias=1.0)
    y = n.op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    y = n.batch_norm(n.conv(y, 12, 16, 3, group=2), 16)
    up = n.op("Upsample", y, mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]) if opset < 9 else \
        n.op("Upsample", y, n.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    y = n.op("AveragePool", n.op("Concat", up, up, axis=1), kernel_shape=[4, 4], strides=[4, 4], auto_pad="VALID")
    y = n.op("Dropout", n.op("Flatten", y, axis=1), ratio=0.5)
    y = n.op("Gemm", y, n.weight(32 * 16, 24, scale=0.05), n.weight(24), alpha=0.5, beta=2.0)
    y = n.op("Softmax", n.op("Gemm", n.op("PRelu", y, n.const(np.full(24, 0.1, np.float32))), n.weight(10, 24), n.weight(10), transB=1))
    n.output(y, "prob_1", F32, ["batch", 10])
    m = n.model()
    m.ir_version = 3
    m.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in m.graph.initializer)
    return m


def clip_text(opset=14, width=48, count=3, vocabulary=100):
    """Causal mask of a fixed buffer cut to the length; pooled at the largest id of every row."""
    n = Net(opset)
    ids = n.input("input_ids", I64, ["batch", "length"])
    batch, length = n.dim(ids, 0), n.dim(ids, 1)
    h = n.op("Add", n.op("Gather", n.weight(vocabulary, width, scale=1), ids),
             n.slice(n.weight(1, 77, width, scale=0.3), 0, n.unsqueeze(length, 0), 1))
    mask = n.const(np.triu(np.full((77, 77), -np.inf, np.float32), 1).reshape(1, 1, 77, 77))
    mask = n.slice(n.slice(mask, 0, n.unsqueeze(length, 0), 2), 0, n.unsqueeze(length, 0), 3)
    for _ in range(2):
        y = n.layer_norm(h, width)
        q, k, v = (heads(n, n.linear(y, width, width), batch, length, count, width // count) for _ in range(3))
        h = n.op("Add", h, n.linear(merge(n, attend(n, q, k, v, width // count, mask), batch, length, width), width, width))
        y = n.linear(n.layer_norm(h, width), width, 4 * width)
        y = n.op("Mul", y, n.op("Sigmoid", n.op("Mul", y, n.f(1.702))))
        h = n.op("Add", h, n.linear(y, 4 * width, width))
    h = n.layer_norm(h, width)
    rows = n.op("Range", n.const(np.int64(0)), batch, n.const(np.int64(1)))
    end = n.op("ArgMax", ids, axis=-1, keepdims=0)
    pooled = n.op("GatherND", h, n.op("Concat", n.unsqueeze(rows, 1), n.unsqueeze(end, 1), axis=1))
    length = n.op("ReduceL2", pooled, axes=[1], keepdims=1)
    n.output(n.op("Div", pooled, length), "text_embeds", F32, ["batch", width])
    return n.model()


def t5_encoder(opset=13, width=32, count=4, buckets=16, vocabulary=80):
    """Positions as a bias by buckets of distance: integer arithmetic, Log and Where in the graph."""
    n = Net(opset)
    ids, mask = n.input("input_ids", I64, ["batch", "length"]), n.input("attention_mask", I64, ["batch", "length"])
    batch, length = n.dim(ids, 0), n.dim(ids, 1)
    at = n.op("Range", n.const(np.int64(0)), length, n.const(np.int64(1)))
    distance = n.op("Sub", n.unsqueeze(at, 0), n.unsqueeze(at, 1))
    half, exact = buckets // 2, buckets // 4
    side = n.op("Mul", n.op("Cast", n.op("Greater", distance, n.const(np.int64(0))), to=I64), n.const(np.int64(half)))
    far = n.op("Abs", distance)
    small = n.op("Less", far, n.const(np.int64(exact)))
    log = n.op("Log", n.op("Div", n.op("Cast", far, to=F32), n.f(exact)))
    log = n.op("Mul", n.op("Div", log, n.f(np.log(128 / exact))), n.f(half - exact))
    large = n.op("Add", n.op("Cast", n.op("Max", log, n.f(0)), to=I64), n.const(np.int64(exact)))
    large = n.op("Min", large, n.op("Expand", n.const(np.int64(half - 1)), n.op("Shape", large)))
    bucket = n.op("Add", side, n.op("Where", small, far, large))
    bias = n.unsqueeze(n.op("Transpose", n.op("Gather", n.weight(buckets, count, scale=1), bucket), perm=[2, 0, 1]), 0)
    keep = n.op("Mul", n.op("Sub", n.f(1), n.op("Cast", n.unsqueeze(mask, 1, 2), to=F32)), n.f(-1e9))
    bias = n.op("Add", bias, keep)
    h = n.op("Gather", n.weight(vocabulary, width, scale=1), ids)

    def norm(y):
        v = n.op("Add", n.mean(n.op("Pow", y, n.f(2)), [-1]), n.f(1e-6))
        return n.op("Mul", n.const((1 + 0.1 * n.rng.standard_normal(width)).astype(np.float32)), n.op("Div", y, n.op("Sqrt", v)))

    for _ in range(2):
        y = norm(h)
        q, k, v = (heads(n, n.linear(y, width, width, bias=False), batch, length, count, width // count) for _ in range(3))
        s = n.op("Add", n.op("MatMul", q, n.op("Transpose", k, perm=[0, 1, 3, 2])), bias)
        y = merge(n, n.op("MatMul", n.op("Softmax", s, axis=-1), v), batch, length, width)
        h = n.op("Add", h, n.linear(y, width, width, bias=False))
        h = n.op("Add", h, n.linear(n.op("Relu", n.linear(norm(h), width, 64, bias=False)), 64, width, bias=False))
    n.output(norm(h), "hidden", F32, ["batch", "length", width])
    return n.model()


def convnext(opset=20, width=24):
    """Depthwise 7x7, LayerNormalization over the channels behind a Transpose, scaled residuals, GRN."""
    n = Net(opset)
    x = n.input("x", F32, ["batch", 3, "height", "width"])
    y = n.conv(x, 3, width, 4, 4, pad=0)
    for _ in range(2):
        z = n.op("Transpose", n.conv(y, width, width, 7, group=width), perm=[0, 2, 3, 1])
        z = n.gelu(n.linear(n.layer_norm(z, width, 1e-6), width, 4 * width), "op")
        g = n.op("ReduceL2", z, n.ints(1, 2), keepdims=1)
        g = n.op("Div", g, n.op("Add", n.mean(g, [-1]), n.f(1e-6)))
        z = n.op("Add", n.op("Mul", n.weight(4 * width, scale=0.5), n.op("Mul", z, g)), z)
        z = n.op("Mul", n.linear(z, 4 * width, width), n.weight(width, scale=0.5))
        y = n.op("Add", y, n.op("Transpose", z, perm=[0, 3, 1, 2]))
    y = n.op("Flatten", n.op("GlobalAveragePool", y))
    n.output(n.op("Gemm", n.layer_norm(y, width), n.weight(10, width), n.weight(10), transB=1), "logits", F32, ["batch", 10])
    return n.model()


def shuffle_dense(opset=9):
    """Channel shuffles of known and unknown sizes, dense concatenation, uneven Split, ceil_mode and padded pools."""
    n = Net(opset)
    x = n.input("x", F32, ["batch", 3, "height", "width"])
    y = n.op("Relu", n.conv(x, 3, 16, 3, 2))
    batch, height, across = n.dim(y, 0), n.dim(y, 2), n.dim(y, 3)
    a, b = n.split(y, [6, 10], 1)
    a = n.op("LeakyRelu", n.conv(a, 6, 6, 3, group=6), alpha=0.2)
    y = n.op("Concat", a, b, axis=1)
    y = n.op("Transpose", n.reshape(y, batch, 2, 8, height, across), perm=[0, 2, 1, 3, 4])
    y = n.reshape(y, batch, -1, height, across)
    for width in (16, 24):
        z = n.conv(n.op("Elu", n.batch_norm(y, width)), width, 8, 3)
        y = n.op("Concat", y, z, axis=1)
    y = n.op("Sum", n.op("MaxPool", y, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
             n.op("AveragePool", y, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1], count_include_pad=1))
    y = n.op("Softplus", n.op("Clip", n.op("ReduceMean", y, axes=[2, 3], keepdims=0), min=-1.0, max=1.0))
    n.output(n.op("LogSoftmax", n.op("MatMul", y, n.weight(32, 10)), axis=1), "y", F32, ["batch", 10])
    return n.model()


def segmenter(opset, width=16):
    """Pyramid pooling: dilated convolutions, a pooled branch spread by Expand, Resize to the input's size."""
    n = Net(opset)
    x = n.input("image", F32, ["batch", 3, "height", "width"])
    y = n.op("Relu", n.conv(n.op("Relu", n.conv(x, 3, width, 3, 2)), width, width, 3, 2))
    parts = [n.conv(y, width, 8, 1)] + [n.conv(y, width, 8, 3, dilation=d) for d in (2, 4)]
    pooled = n.conv(n.op("GlobalAveragePool", y), width, 8, 1)
    parts.append(n.op("Expand", pooled, n.shape(1, 1, n.dim(y, 2), n.dim(y, 3))))
    y = n.conv(n.op("Concat", *parts, axis=1), 32, 5, 1)
    if opset == 10:
        ratio = [n.op("Div", n.op("Cast", n.unsqueeze(n.dim(x, i), 0), to=F32), n.op("Cast", n.unsqueeze(n.dim(y, i), 0), to=F32)) for i in (2, 3)]
        y = n.op("Resize", y, n.op("Concat", n.const(np.array([1, 1], np.float32)), *ratio, axis=0), mode="linear")
    else:
        none = n.const(np.zeros(0, np.float32))
        y = n.op("Resize", y, none, none, n.op("Concat", n.op("Slice", n.op("Shape", y), n.ints(0), n.ints(2)),
                                              n.op("Slice", n.op("Shape", x), n.ints(2), n.ints(4)), axis=0),
                 mode="linear", coordinate_transformation_mode="align_corners")
    n.output(n.op("ArgMax", y, axis=1, keepdims=0), "labels", I64, ["batch", "height", "width"])
    n.output(y, "scores", F32, ["batch", 5, "height", "width"])
    return n.model()


def diffusion_step(opset=17, width=16, context=12):
    """Time as sines and cosines of Exp of Range, group norms, cross attention over flattened pixels, nearest Resize."""
    from zoo.vision import group_norm
    n = Net(opset)
    x, t = n.input("sample", F32, ["batch", 4, "height", "width"]), n.input("timestep", I64, [])
    c = n.input("context", F32, ["batch", "tokens", context])
    batch, height, across = n.dim(x, 0), n.dim(x, 2), n.dim(x, 3)
    f = n.op("Exp", n.op("Mul", n.op("Cast", n.op("Range", *(n.const(np.int64(v)) for v in (0, 8, 1))), to=F32), n.f(-np.log(10000) / 8)))
    time = n.op("Mul", n.unsqueeze(n.op("Cast", n.op("Expand", t, n.shape(batch)), to=F32), 1), n.unsqueeze(f, 0))
    time = n.op("Concat", n.op("Cos", time), n.op("Sin", time), axis=-1)
    silu = lambda y: n.op("Mul", y, n.op("Sigmoid", y))  # noqa: E731
    h = n.conv(x, 4, width)
    y = n.conv(silu(group_norm(n, h, width)), width, width)
    y = n.op("Add", y, n.unsqueeze(n.linear(silu(time), 16, width), 2, 3))
    h = n.op("Add", h, n.conv(silu(group_norm(n, y, width)), width, width))
    down = n.conv(h, width, width, 3, 2)
    rows, columns = n.dim(down, 2), n.dim(down, 3)
    flat = n.op("Transpose", n.reshape(down, batch, width, -1), perm=[0, 2, 1])
    size = width // 2
    q = heads(n, n.linear(flat, width, width, bias=False), batch, -1, 2, size)
    k, v = (heads(n, n.linear(c, context, width, bias=False), batch, -1, 2, size) for _ in range(2))
    y = n.reshape(n.op("Transpose", attend(n, q, k, v, size), perm=[0, 2, 1, 3]), batch, -1, width)
    gate, y = n.split(n.linear(n.layer_norm(n.op("Add", flat, y), width), width, 2 * width), [width, width], 2)
    y = n.op("Transpose", n.op("Mul", y, n.gelu(gate)), perm=[0, 2, 1])
    y = n.reshape(y, batch, width, rows, columns)
    y = n.op("Resize", y, None, None, n.shape(batch, width, height, across), mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    n.output(n.conv(n.op("Concat", h, y, axis=1), 2 * width, 4), "noise", F32, ["batch", 4, "height", "width"])
    return n.model()


def message_passing(opset=18, width=8):
    """A graph network: edges [2, E] gather their ends, sums scattered back with reduction, mean and max by degree."""
    n = Net(opset)
    x, edges = n.input("x", F32, ["nodes", width]), n.input("edges", I64, [2, "edges"])
    source = n.op("Gather", edges, n.const(np.int64(0)), axis=0)
    target = n.op("Gather", edges, n.const(np.int64(1)), axis=0)
    zeros = n.op("ConstantOfShape", n.shape(n.dim(x, 0), width), value=helper.make_tensor("v", F32, [1], [0.0]))
    at = n.op("Expand", n.unsqueeze(target, 1), n.shape(n.dim(edges, 1), width))
    h = x
    for _ in range(2):
        sent = n.op("Gather", n.linear(h, width, width), source, axis=0)
        total = n.op("ScatterElements", zeros, at, sent, axis=0, reduction="add")
        most = n.op("ScatterElements", zeros, at, sent, axis=0, reduction="max")
        ones = n.op("Expand", n.f(1), n.op("Shape", sent))
        degree = n.op("ScatterND", zeros, n.unsqueeze(target, 1), ones, reduction="add")
        total = n.op("Div", total, n.op("Max", degree, n.f(1)))
        h = n.op("Tanh", n.linear(n.op("Concat", h, total, most, axis=1), 3 * width, width))
    n.output(h, "y", F32, ["nodes", width])
    n.output(n.op("ReduceSum", h, n.ints(0), keepdims=0), "graph", F32, [width])
    return n.model()


def embedding_bag(opset=13, rows=50, width=6):
    """nn.EmbeddingBag as TorchScript writes it: a Loop that slices from one offset to the next and adds up."""
    n = Net(opset)
    ids, offsets = n.input("ids", I64, ["total"]), n.input("offsets", I64, ["bags"])
    table = n.weight(rows, width, scale=1)
    ends = n.op("Concat", n.slice(offsets, 1, 2**63 - 1, 0), n.unsqueeze(n.dim(ids, 0), 0), axis=0)
    b = Net(opset, prefix="b_")
    b.input("b_i", I64, []), b.input("b_go", BOOL, [])
    start, end = (b.unsqueeze(b.op("Gather", v, "b_i", axis=0), 0) for v in (offsets, ends))
    bag = b.op("Gather", table, b.slice(ids, start, end, 0), axis=0)
    b.output("b_go", "b_again", BOOL, [])
    b.output(b.sum(bag, [0], 0), "b_bag", F32, [width])
    bags = n.op("Loop", n.dim(offsets, 0), n.const(np.bool_(True)), body=b.graph("bag"))
    n.output(n.linear(bags, width, 3), "y", F32, ["bags", 3])
    return n.model()


def keras_style(opset=15):
    """tf2onnx: channels last, so Transpose in front and behind; sizes by Cast, Floor and Mul; a scalar batch."""
    n = Net(opset)
    x = n.input("image:0", F32, ["unk__1", None, None, 3])
    y = n.op("Transpose", n.op("Sub", n.op("Div", x, n.f(127.5)), n.f(1)), perm=[0, 3, 1, 2])
    y = n.op("Conv", y, n.weight(8, 3, 3, 3, scale=0.3), n.weight(8), auto_pad="SAME_UPPER", strides=[2, 2])
    y = n.op("Clip", y, n.f(0), n.f(6))
    y = n.op("Conv", y, n.weight(8, 1, 3, 3, scale=0.5), group=8, auto_pad="SAME_LOWER", strides=[2, 2])
    y = n.op("Transpose", y, perm=[0, 2, 3, 1])
    size = n.op("Cast", n.op("Slice", n.op("Cast", n.op("Shape", y), to=6), n.ints(1), n.ints(3), n.ints(0)), to=F32)
    size = n.op("Cast", n.op("Floor", n.op("Mul", size, n.f(1.5))), to=I64)
    y = n.op("Transpose", y, perm=[0, 3, 1, 2])
    y = n.op("Resize", y, None, None, n.op("Concat", n.op("Slice", n.op("Shape", y), n.ints(0), n.ints(2)), size, axis=0),
             mode="linear", coordinate_transformation_mode="half_pixel")
    y = n.mean(n.op("Transpose", y, perm=[0, 2, 3, 1]), [1, 2], 0)
    y = n.op("Reshape", n.op("MatMul", y, n.weight(8, 4)), n.ints(-1, 4))
    n.output(n.op("Softmax", n.op("Add", y, n.weight(4))), "Identity:0", F32, ["unk__1", 4])
    return n.model()


def spectrum(opset=17, size=64, hop=16, bands=10):
    """A speech front: Hann window, STFT, power, mel bands by MatMul, log, mean and variance taken out."""
    n = Net(opset)
    x = n.input("signal", F32, ["batch", "samples"])
    window = n.op("HannWindow", n.const(np.int64(size)))
    s = n.op("STFT", n.unsqueeze(x, 2), n.const(np.int64(hop)), window, n.const(np.int64(size)), onesided=1)
    power = n.op("ReduceSumSquare", s, axes=[-1], keepdims=0)
    mel = n.op("Log", n.op("Add", n.op("MatMul", power, n.const(np.abs(n.rng.standard_normal((size // 2 + 1, bands))).astype(np.float32))), n.f(1e-3)))
    d = n.op("Sub", mel, n.mean(mel, [1]))
    deviation = n.op("Sqrt", n.op("Add", n.mean(n.op("Mul", d, d), [1]), n.f(1e-5)))
    n.output(n.op("Div", d, deviation), "features", F32, ["batch", "frames", bands])
    return n.model()
