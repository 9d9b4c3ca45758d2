"""Graphs at the corners of the format: nested bodies, names, sizes that come as inputs, odd interfaces."""
import numpy as np
from onnx import helper, numpy_helper

from zoo.net import BOOL, F32, F64, I32, I64, Net


def generation(opset=14, vocabulary=40, width=24, count=2, limit=64):
    """Greedy generation as one graph: a Loop that carries tokens, keys and values, all growing by one a round."""
    size = width // count
    n = Net(opset)
    prompt, steps = n.input("prompt", I64, ["batch", "length"]), n.input("steps", I64, [])
    table, positions = n.weight(vocabulary, width, scale=1), n.weight(limit, width, scale=0.5)
    batch = n.dim(prompt, 0)

    def project(m, h, weights):
        return [m.op("Transpose", m.op("Reshape", m.op("MatMul", h, w), m.ints(0, 0, count, size)), perm=[0, 2, 1, 3]) for w in weights]

    qkv = [n.weight(width, width) for _ in range(3)]
    out = n.weight(width, vocabulary, scale=0.5)
    # The prompt but its last token fills the cache.
    past = n.slice(prompt, 0, -1, 1)
    at = n.op("Range", n.const(np.int64(0)), n.dim(past, 1), n.const(np.int64(1)))
    h = n.op("Add", n.op("Gather", table, past), n.op("Gather", positions, at))
    _, keys, values = project(n, h, qkv)
    b = Net(opset, prefix="b_")
    b.input("b_i", I64, []), b.input("b_go", BOOL, []), b.input("b_tokens", I64, [None, None])
    b.input("b_keys", F32, [None, count, None, size]), b.input("b_values", F32, [None, count, None, size])
    last = b.slice("b_tokens", -1, 2**63 - 1, 1)
    where = b.op("Sub", b.dim("b_tokens", 1), b.const(np.int64(1)))
    h = b.op("Add", b.op("Gather", table, last), b.op("Gather", positions, b.unsqueeze(where, 0)))
    q, k, v = project(b, h, qkv)
    k, v = b.op("Concat", "b_keys", k, axis=2), b.op("Concat", "b_values", v, axis=2)
    s = b.op("Div", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])), b.f(np.sqrt(size)))
    y = b.op("Transpose", b.op("MatMul", b.op("Softmax", s, axis=-1), v), perm=[0, 2, 1, 3])
    y = b.op("Add", h, b.op("Reshape", y, b.ints(0, 0, width)))
    logits = b.op("MatMul", b.op("Squeeze", y, b.ints(1)), out)
    b.output(b.op("Identity", "b_go"), "b_again", BOOL, [])
    b.output(b.op("Concat", "b_tokens", b.op("ArgMax", logits, axis=1, keepdims=1), axis=1), "b_tokens2", I64, [None, None])
    b.output(k, "b_keys2", F32, [None, count, None, size])
    b.output(v, "b_values2", F32, [None, count, None, size])
    b.output(logits, "b_logits", F32, [None, vocabulary])
    tokens, keys, _, logits = n.op("Loop", steps, None, prompt, keys, values, outputs=4, body=b.graph("step"))
    n.output(tokens, "tokens", I64, ["batch", None])
    n.output(keys, "keys", F32, ["batch", count, None, size])
    n.output(n.op("Transpose", logits, perm=[1, 0, 2]), "logits", F32, ["batch", None, vocabulary])
    return n.model()


def nested(opset=16):
    """A Loop in an If in a Loop; each reads the graphs around it, two of them hand through what they did not make,
    and both branches use the same names."""
    n = Net(opset)
    x, rounds, flag = n.input("x", F32, ["n"]), n.input("rounds", I64, []), n.input("flag", BOOL, [])
    w = n.weight(1, scale=1)
    outer = Net(opset, prefix="o_")
    outer.input("o_i", I64, []), outer.input("o_go", BOOL, []), outer.input("o_v", F32, ["n"])
    odd = outer.op("Equal", outer.op("Mod", "o_i", outer.const(np.int64(2))), outer.const(np.int64(1)))
    yes, no = Net(opset, prefix="s_"), Net(opset, prefix="s_")
    inner = Net(opset, prefix="i_")
    inner.input("i_i", I64, []), inner.input("i_go", BOOL, []), inner.input("i_v", F32, ["n"])
    # Reads the carried value of the loop around the If, the model's input, and its weight.
    step = inner.op("Add", inner.op("Mul", "i_v", inner.f(0.5)), inner.op("Mul", inner.op("Add", "o_v", x), w))
    total = inner.op("ReduceMax", inner.op("Abs", step), keepdims=0)
    inner.output(inner.op("Less", total, inner.f(50)), "i_again", BOOL, [])
    inner.output(step, "i_v2", F32, ["n"])
    yes.output(yes.op("Loop", None, yes.const(np.bool_(True)), "o_v", body=bounded(inner)), "s_y", F32, ["n"])
    no.output(no.op("Sub", "o_v", no.op("Cast", "o_i", to=F32)), "s_y", F32, ["n"])
    v = outer.op("If", odd, then_branch=yes.graph("odd"), else_branch=no.graph("even"))
    outer.output("o_go", "o_again", BOOL, [])
    outer.output(v, "o_v2", F32, ["n"])
    outer.output(x, "o_same", F32, ["n"])  # not made in the body at all
    last, same = n.op("Loop", rounds, flag, x, outputs=2, body=outer.graph("outer"))
    n.output(last, "last", F32, ["n"])
    n.output(same, "same", F32, [None, "n"])
    through, other = Net(opset, prefix="t_"), Net(opset, prefix="u_")
    through.outputs.append(helper.make_tensor_value_info(through.op("Identity", x), F32, ["n"]))
    other.output(other.op("Constant", value=numpy_helper.from_array(np.array([7, 8], np.float32))), "u_y", F32, None)
    n.output(n.op("If", flag, then_branch=through.graph("through"), else_branch=other.graph("constant")), "either", F32, [None])
    return n.model()


def bounded(inner):
    """The loop ends by its condition, which gets a second reason: ten rounds are enough."""
    again = next(node for node in inner.nodes if node.output[0] == "i_again")
    again.output[0] = "i_small"
    inner.nodes.append(helper.make_node("Less", ["i_i", inner.const(np.int64(9))], ["i_few"]))
    inner.nodes.append(helper.make_node("And", ["i_small", "i_few"], ["i_again"]))
    return inner.graph("inner")


def runtime_shapes(opset=13):
    """Sizes, counts, pads and bounds that are inputs of the model: nothing is known before it runs."""
    n = Net(opset)
    x = n.input("x", F32, ["a", "b"])
    shape, repeats, pads = n.input("shape", I64, [3]), n.input("repeats", I64, [2]), n.input("pads", I64, [4])
    k, start = n.input("k", I64, [1]), n.input("start", I64, [1])
    n.output(n.op("Reshape", x, shape), "reshaped", F32, [None] * 3)
    n.output(n.op("Tile", x, repeats), "tiled", F32, [None, None])
    n.output(n.op("Pad", x, pads, n.f(-1), mode="edge"), "padded", F32, [None, None])
    best, which = n.op("TopK", x, k, outputs=2, axis=1)
    n.output(best, "best", F32, ["a", None])
    n.output(which, "which", I64, ["a", None])
    n.output(n.op("Slice", x, start, n.ints(2**63 - 1), n.ints(1), n.ints(2)), "sliced", F32, ["a", None])
    n.output(n.op("Expand", n.f(2), shape), "expanded", F32, [None] * 3)
    n.output(n.op("ConstantOfShape", shape, value=helper.make_tensor("v", I32, [1], [5])), "filled", I32, [None] * 3)
    zero = n.op("Squeeze", n.op("Sub", k, k), n.ints(0))
    n.output(n.op("Range", zero, n.op("Squeeze", n.op("Mul", k, n.ints(3)), n.ints(0)), n.const(np.int64(2))), "range", I64, [None])
    present = n.op("NonZero", n.op("Greater", x, n.f(0)))
    n.output(n.op("Shape", present), "found", I64, [2])
    n.output(n.op("ReduceSum", n.op("GatherND", x, n.op("Transpose", present, perm=[1, 0])), keepdims=0), "positive", F32, [])
    n.output(n.op("Unique", n.op("Cast", x, to=I64), sorted=1), "kinds", I64, [None])
    return n.model()


def interface(opset=19):
    """Outputs that are inputs or constants, an input nobody reads, names with any letters, nodes without names."""
    n = Net(opset)
    x, unused = n.input("eingabe/größe:0", F32, ["日本 n", 2]), n.input("unused", F64, [None, 3, "k"])
    n.outputs.append(helper.make_tensor_value_info(x, F32, ["日本 n", 2]))
    n.initializers.append(numpy_helper.from_array(np.arange(6, dtype=np.int8).reshape(2, 3), "fixed"))
    n.outputs.append(helper.make_tensor_value_info("fixed", 3, [2, 3]))
    n.output(n.op("Neg", x), "out put", F32, ["日本 n", 2])
    n.nodes.append(helper.make_node("Split", [x], ["first half", "second half"], axis=1, num_outputs=2))
    n.outputs.append(helper.make_tensor_value_info("second half", F32, ["日本 n", 1]))
    for node in n.nodes:
        node.name = ""
    return n.model()
