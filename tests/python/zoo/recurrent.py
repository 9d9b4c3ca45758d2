"""Recurrent networks and control flow: LSTM, GRU, If, Loop, Scan, sequences, local functions."""
import numpy as np
from onnx import AttributeProto, helper

from zoo.net import BOOL, F32, I32, I64, Net


def gates(n, count, directions, n_in, width):
    return (n.weight(directions, count * width, n_in, scale=0.3), n.weight(directions, count * width, width, scale=0.3),
            n.weight(directions, 2 * count * width, scale=0.1))


def lstm_tagger(opset, vocabulary=100, width=24, hidden=20, tags=7, layers=2):
    """words [batch, length] (int32), lengths [batch] -> scores; packed as PyTorch exports it: time first."""
    n = Net(opset)
    words, lengths = n.input("words", I32, ["batch", "length"]), n.input("lengths", I32, ["batch"])
    h = n.op("Transpose", n.op("Gather", n.weight(vocabulary, width, scale=1), words), perm=[1, 0, 2])
    batch = n.dim(words, 0)
    for i in range(layers):
        w, r, b = gates(n, 4, 2, width if i == 0 else 2 * hidden, hidden)
        zero = n.op("ConstantOfShape", n.shape(2, batch, hidden), value=helper.make_tensor("v", F32, [1], [0.0]))
        y, last, _ = n.op("LSTM", h, w, r, b, lengths, zero, zero, outputs=3, hidden_size=hidden, direction="bidirectional")
        h = n.op("Reshape", n.op("Transpose", y, perm=[0, 2, 1, 3]), n.ints(0, 0, -1))
    h = n.op("Transpose", h, perm=[1, 0, 2])
    scores = n.op("LogSoftmax", n.linear(h, 2 * hidden, tags), axis=2)
    n.output(scores, "scores", F32, ["batch", "length", tags])
    n.output(n.op("ArgMax", scores, axis=2, keepdims=0), "tags", I64, ["batch", "length"])
    n.output(last, "last", F32, [2, "batch", hidden])
    return n.model()


def gru_classifier(opset, width=12, hidden=16):
    """linear_before_reset as PyTorch has it, both directions, initial state as an input."""
    n = Net(opset)
    x, h0 = n.input("x", F32, ["length", "batch", width]), n.input("h0", F32, [2, "batch", hidden])
    w, r, b = gates(n, 3, 2, width, hidden)
    y, last = n.op("GRU", x, w, r, b, None, h0, outputs=2, hidden_size=hidden, direction="bidirectional", linear_before_reset=1)
    w, r, b = gates(n, 1, 1, 2 * hidden, hidden)
    y = n.op("Reshape", n.op("Transpose", y, perm=[0, 2, 1, 3]), n.ints(0, 0, -1))
    y, last2 = n.op("RNN", y, w, r, b, outputs=2, hidden_size=hidden, activations=["Tanh"])
    n.output(n.op("Softmax", n.linear(n.squeeze(last2, 0), hidden, 5), axis=1), "p", F32, ["batch", 5])
    n.output(last, "hn", F32, [2, "batch", hidden])
    return n.model()


def body(opset, prefix):
    return Net(opset, prefix=prefix)


def branch(opset):
    """If on the batch size, each side reading weights and values of the graph around it; a second one nested."""
    n = Net(opset)
    x, flag = n.input("x", F32, ["batch", 8]), n.input("flag", BOOL, [])
    w = n.weight(8, 8)
    h = n.op("Relu", n.op("MatMul", x, w))
    many = n.op("Greater", n.dim(x, 0), n.const(np.int64(2)))
    t, e = body(opset, "t_"), body(opset, "e_")
    t.output(t.op("Tanh", t.op("MatMul", h, w)), "t_y", F32, ["batch", 8])
    inner_t, inner_e = body(opset, "it_"), body(opset, "ie_")
    inner_t.output(inner_t.op("Mul", h, inner_t.f(2)), "it_y", F32, None)
    inner_e.output(inner_e.op("Concat", x, h, axis=1), "ie_y", F32, None)
    nested = e.op("If", flag, then_branch=inner_t.graph("inner then"), else_branch=inner_e.graph("inner else"))
    e.output(e.op("Sigmoid", nested), "e_y", F32, None)
    y = n.op("If", many, then_branch=t.graph("then"), else_branch=e.graph("else"))
    n.output(n.op("ReduceSum", y, axes=[1], keepdims=1) if opset < 13 else n.sum(y, [1]), "y", F32, ["batch", 1])
    return n.model()


def greedy(opset, vocabulary=30, width=16):
    """A decoding loop: the sequence so far grows as a loop-carried value, the step ends early on a stop token,
    scores are a scan output; `limit` bounds the trips."""
    n = Net(opset)
    start, limit = n.input("start", I64, ["batch", "prefix"]), n.input("limit", I64, [])
    table, out = n.weight(vocabulary, width, scale=1), n.weight(width, vocabulary, scale=0.4)
    b = body(opset, "b_")
    b.input("b_i", I64, []), b.input("b_go", BOOL, []), b.input("b_seq", I64, ["batch", None]), b.input("b_h", F32, ["batch", width])
    last = b.op("Gather", "b_seq", b.const(np.int64(-1)), axis=1)
    h = b.op("Tanh", b.op("Add", b.op("Mul", "b_h", b.f(0.7)), b.op("Gather", table, last)))
    scores = b.op("MatMul", h, out)
    pick = b.op("ArgMax", scores, axis=1, keepdims=1)
    stop = b.op("Equal", b.op("ReduceMax", b.op("Cast", pick, to=F32), keepdims=0), b.f(3))
    b.output(b.op("Not", stop), "b_again", BOOL, [])
    b.output(b.op("Concat", "b_seq", pick, axis=1), "b_seq2", I64, ["batch", None])
    b.output(h, "b_h2", F32, ["batch", width])
    b.output(scores, "b_scores", F32, ["batch", vocabulary])
    zero = n.op("ConstantOfShape", n.shape(n.dim(start, 0), width), value=helper.make_tensor("v", F32, [1], [0.0]))
    seq, h, scores = n.op("Loop", limit, n.const(np.bool_(True)), start, zero, outputs=3, body=b.graph("step"))
    n.output(seq, "sequence", I64, ["batch", None])
    n.output(h, "state", F32, ["batch", width])
    n.output(scores, "scores", F32, [None, "batch", vocabulary])
    return n.model()


def scan_rnn(opset, width=6, hidden=10):
    """A recurrent cell by Scan, forwards, and one reversed whose output is reversed too; weights from outside."""
    n = Net(opset)
    x, h0 = n.input("x", F32, ["time", "batch", width]), n.input("h0", F32, ["batch", hidden])
    w, r = n.weight(width, hidden), n.weight(hidden, hidden)
    results = []
    for i, back in enumerate((0, 1)):
        b = body(opset, f"s{i}_")
        h, step = b.input(f"s{i}_h", F32, ["batch", hidden]), b.input(f"s{i}_x", F32, ["batch", width])
        y = b.op("Tanh", b.op("Add", b.op("MatMul", step, w), b.op("MatMul", h, r)))
        b.output(y, f"s{i}_h2", F32, ["batch", hidden])
        b.output(b.op("Mul", y, b.f(1.5)), f"s{i}_y", F32, ["batch", hidden])
        results.append(n.op("Scan", h0, x, outputs=2, body=b.graph("cell"), num_scan_inputs=1,
                            scan_input_directions=[back], scan_output_directions=[back]))
    n.output(n.op("Concat", results[0][1], results[1][1], axis=2), "y", F32, ["time", "batch", 2 * hidden])
    n.output(results[0][0], "forward", F32, ["batch", hidden])
    n.output(results[1][0], "backward", F32, ["batch", hidden])
    return n.model()


def sequence_chunks(opset):
    """Splits along the time, works on the pieces, joins them: what torch.chunk and torch.stack may become."""
    n = Net(opset)
    x = n.input("x", F32, ["batch", "time", 4])
    pieces = n.op("SplitToSequence", x, n.const(np.int64(2)), axis=1, keepdims=1)
    first = n.op("SequenceAt", pieces, n.const(np.int64(0)))
    last = n.op("SequenceAt", pieces, n.const(np.int64(-1)))
    more = n.op("SequenceInsert", pieces, n.op("Neg", last), n.const(np.int64(1)))
    n.output(n.op("ConcatFromSequence", more, axis=1), "joined", F32, ["batch", None, 4])
    n.output(n.op("Add", first, n.op("ReduceMax", last, axes=[1], keepdims=1) if opset < 18 else
                  n.op("ReduceMax", last, n.ints(1), keepdims=1)), "first", F32, ["batch", None, 4])
    n.output(n.op("SequenceLength", more), "count", I64, [])
    return n.model()


def reference(name, outer):
    """Attribute `name`, a float, as the function's caller gives it under the name `outer`."""
    return AttributeProto(name=name, ref_attr_name=outer, type=AttributeProto.FLOAT)


def functions(opset, width=12):
    """Two model-local functions, one calling the other, with an attribute passed down and optional inputs left out."""
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("zoo", 1)]
    leaky = helper.make_function("zoo", "Leaky", ["x"], ["y"], [
        helper.make_node("LeakyRelu", ["x"], ["a"], name="inner"), helper.make_node("Tanh", ["a"], ["y"])],
        imports[:1], ["alpha"])
    leaky.node[0].attribute.append(reference("alpha", "alpha"))
    dense = helper.make_function("zoo", "Dense", ["x", "w", "b"], ["y", "pre"], [
        helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["pre"]),
        helper.make_node("Leaky", ["pre"], ["y"], domain="zoo")], imports, ["slope"])
    dense.node[2].attribute.append(reference("alpha", "slope"))
    n = Net(opset)
    n.functions += [leaky, dense]
    x = n.input("x", F32, ["batch", "length", width])
    y, _ = n.op("Dense", x, n.weight(width, width), n.weight(width), outputs=2, domain="zoo", slope=0.3)
    y, pre = n.op("Dense", y, n.weight(width, 5), n.weight(5), outputs=2, domain="zoo", slope=0.01)
    n.output(n.op("Mul", y, pre), "y", F32, ["batch", "length", 5])
    return n.model()


def odd_types(opset):
    """Bool, int32, double and scalar inputs; integer arithmetic that must wrap, floor and truncate as specified."""
    n = Net(opset)
    keep, ids = n.input("keep", BOOL, ["n"]), n.input("ids", I32, ["n"])
    scale, d = n.input("scale", F32, []), n.input("d", 11, ["n", "k"])
    picked = n.op("Where", keep, ids, n.const(np.int32(-7)))
    n.output(n.op("Div", picked, n.const(np.int32(3))), "quotient", I32, ["n"])
    n.output(n.op("Mod", picked, n.const(np.int32(3))), "rest", I32, ["n"])
    n.output(n.op("Mul", n.op("Cast", picked, to=F32), scale), "scaled", F32, ["n"])
    n.output(n.op("MatMul", n.op("Transpose", d, perm=[1, 0]), d), "gram", 11, ["k", "k"])
    n.output(n.op("Compress", ids, keep, axis=0), "kept", I32, ["m"])
    n.output(n.op("And", keep, n.op("Less", ids, n.const(np.int32(5)))), "both", BOOL, ["n"])
    n.output(n.op("OneHot", n.op("Cast", n.op("Abs", ids), to=I64), n.const(np.int64(6)), n.const(np.array([0, 1], np.float32)), axis=-1), "hot", F32, ["n", 6])
    n.output(n.op("Size", d), "size", I64, [])
    n.output(n.op("ScatterElements", n.op("Cast", keep, to=F32), n.const(np.array([0], np.int64)),
                  n.const(np.array([9.5], np.float32)), axis=0), "scattered", F32, ["n"])
    return n.model()
