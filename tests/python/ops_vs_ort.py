"""Elementwise, reduction, normalization, softmax and quantized operators, and those of domain com.microsoft, against
onnxruntime on random shapes.

Every case is one node with inputs and outputs of its own; the nodes of one seed make one model, so that
ds-bench and onnxruntime each run once a seed.

Usage: ops_vs_ort.py BIN_DIR [unittest arguments].
"""
# ctest: slow
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

BIN = pathlib.Path("build/release/bin")
OPSET = 20
SEEDS = range(4)
F32, I32, I64, U8, I8 = np.float32, np.int32, np.int64, np.uint8, np.int8


class Case:
    """`constant`: positions of inputs that are initializers. `steps`: by how much a few integers may differ (where a
    tie is rounded depends on the order of the arithmetic). An input that is None is left out. `outputs`: how many,
    or which ones."""

    def __init__(self, op, inputs, attrs=None, outputs=1, tolerance=1e-5, domain="", constant=(), steps=0):
        self.op, self.inputs, self.attrs, self.tolerance, self.domain = op, inputs, attrs or {}, tolerance, domain
        self.outputs = list(range(outputs)) if isinstance(outputs, int) else list(outputs)
        self.constant, self.steps = constant, steps


def broadcast_pair(rng):
    shape = tuple(int(d) for d in rng.integers(1, 6, rng.integers(1, 5)))
    other = tuple(d if rng.random() < 0.6 else 1 for d in shape)[rng.integers(0, len(shape)):]
    return (shape, other) if rng.random() < 0.5 else (other, shape)


def cases(rng):
    """A list of cases on shapes drawn from `rng`."""
    def normal(*shape, scale=1.0):
        return (rng.standard_normal(shape) * scale).astype(F32)

    def positive(*shape):
        return rng.uniform(0.2, 3.0, shape).astype(F32)

    def ints(low, high, shape, dtype=I64):
        return rng.integers(low, high, shape).astype(dtype)

    shape = tuple(int(d) for d in rng.integers(1, 9, 3))
    for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"):
        a, b = broadcast_pair(rng)
        yield Case(op, [normal(*a), normal(*b)])
        for dtype in (I32, I64):
            yield Case(op, [ints(-9, 9, a, dtype), ints(1, 9, b, dtype)])
    for op in ("And", "Or", "Xor"):
        a, b = broadcast_pair(rng)
        yield Case(op, [normal(*a) > 0, normal(*b) > 0])
    yield Case("Not", [normal(*shape) > 0])
    a, b = broadcast_pair(rng)
    yield Case("Mod", [ints(-9, 9, a, I32), ints(1, 9, b, I32)])
    yield Case("Mod", [ints(-9, 9, a, I64), -ints(1, 9, b, I64)])
    yield Case("Mod", [normal(*a), positive(*b)], {"fmod": 1})
    yield Case("Pow", [positive(*a), normal(*b)])
    yield Case("Pow", [normal(*a), ints(-3, 4, b)], tolerance=1e-4)
    yield Case("Pow", [ints(-5, 6, a, I32), ints(0, 4, b, I32)])
    for op in ("Max", "Min", "Sum", "Mean"):
        yield Case(op, [normal(4, 1, 3), normal(5, 1), normal(1)])
    yield Case("PRelu", [normal(2, 3, 4, 5), normal(3, 1, 1)])
    a, b = broadcast_pair(rng)
    yield Case("Where", [normal(*a) > 0, normal(*b), normal(1)])
    yield Case("Where", [normal(*a) > 0, ints(-5, 5, b), ints(-5, 5, a)])

    for op in ("Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Abs", "Erf", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Atan",
               "Sinh", "Cosh", "Asinh", "LeakyRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "Softplus", "Softsign",
               "HardSigmoid", "HardSwish", "Gelu", "Mish", "IsNaN", "IsInf", "Identity", "Reciprocal"):
        yield Case(op, [normal(*shape, scale=3.0)])
    for op in ("Log", "Sqrt"):
        yield Case(op, [positive(*shape)])
    for op in ("Asin", "Acos", "Atanh", "Tan"):
        yield Case(op, [rng.uniform(-0.95, 0.95, shape).astype(F32)])
    yield Case("Acosh", [1 + positive(*shape)])
    yield Case("Gelu", [normal(*shape, scale=3.0)], {"approximate": "tanh"})
    yield Case("LeakyRelu", [normal(*shape)], {"alpha": 0.3})
    yield Case("HardSigmoid", [normal(*shape)], {"alpha": 0.4, "beta": 0.3})
    for op in ("Neg", "Abs", "Sign"):
        yield Case(op, [ints(-9, 9, shape)])
    yield Case("Clip", [normal(*shape), np.array(-0.4, F32), np.array(0.6, F32)])
    yield Case("Clip", [ints(-9, 9, shape), np.array(-4, I64), np.array(5, I64)])
    for to in (TensorProto.INT64, TensorProto.INT32, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BOOL):
        yield Case("Cast", [normal(*shape, scale=20.0)], {"to": to})
    yield Case("Cast", [ints(0, 255, shape, U8)], {"to": TensorProto.FLOAT})

    rank4 = tuple(int(d) for d in rng.integers(1, 7, 4))
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
               "ReduceLogSum", "ReduceLogSumExp"):
        axes = rng.permutation(4)[: rng.integers(1, 4)].astype(I64) - 4 * (rng.random() < 0.5)
        yield Case(op, [positive(*rank4), axes.astype(I64)], {"keepdims": int(rng.integers(0, 2))})
        yield Case(op, [positive(*shape)], {"keepdims": 0})
    yield Case("ReduceSum", [ints(-9, 9, rank4), np.array([1, 2], I64)])
    yield Case("ReduceMax", [ints(-9, 9, rank4, I32), np.array([-1], I64)])
    yield Case("ReduceSum", [normal(*shape)], {"noop_with_empty_axes": 1})
    for op in ("ArgMax", "ArgMin"):
        for last in (0, 1):
            yield Case(op, [ints(0, 4, rank4, I32).astype(F32)],
                       {"axis": int(rng.integers(-4, 4)), "keepdims": int(rng.integers(0, 2)), "select_last_index": last})
    for exclusive in (0, 1):
        for reverse in (0, 1):
            yield Case("CumSum", [normal(*shape), np.array(int(rng.integers(-3, 3)), I64)], {"exclusive": exclusive, "reverse": reverse})
    axis = int(rng.integers(0, 3))
    for largest in (0, 1):
        yield Case("TopK", [normal(*shape), np.array([max(1, shape[axis] // 2)], I64)], {"axis": axis, "largest": largest}, 2)
    for op in ("Softmax", "LogSoftmax"):
        for a in (-1, int(rng.integers(-4, 4))):
            yield Case(op, [normal(*rank4, scale=4.0)], {"axis": a})
    yield Case("Softmax", [normal(3, 1001, scale=4.0)])

    n, c, h, w = (int(d) for d in rng.integers(2, 9, 4))
    yield Case("BatchNormalization", [normal(n, c, h, w), normal(c), normal(c), normal(c), positive(c)], {"epsilon": 1e-3})
    yield Case("BatchNormalization", [normal(n, c), normal(c), normal(c), normal(c), positive(c)])
    yield Case("LayerNormalization", [normal(n, c, 37), normal(37), normal(37)])
    yield Case("LayerNormalization", [normal(n, c, w), normal(c, w)], {"axis": 1})
    yield Case("InstanceNormalization", [normal(n, c, h, w), normal(c), normal(c)])
    yield Case("LRN", [normal(n, c, h, w)], {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 1.5})
    yield Case("Dropout", [normal(*shape)])
    labels = ints(0, c, (n, h))
    yield Case("SoftmaxCrossEntropyLoss", [normal(n, c, h), labels], {"reduction": "mean"})
    yield Case("SoftmaxCrossEntropyLoss", [normal(n, c, h), labels], {"reduction": "none", "ignore_index": 0}, 2)
    yield Case("SoftmaxCrossEntropyLoss", [normal(n, c, h), labels, positive(c)], {"reduction": "mean"})


def quantized_cases(rng):
    """Integer products, and onnxruntime's own operators on quantized tensors."""
    def contrib(op, inputs, attrs=None, **more):
        more.setdefault("steps", 1)
        return Case(op, inputs, attrs, domain="com.microsoft", **more)

    def stored(dtype, *shape):
        low = -128 if dtype == I8 else 0
        return rng.integers(low, low + 256, shape).astype(dtype)

    def params(dtype, scale):
        zero = int(rng.integers(100, 150)) - (128 if dtype == I8 else 0)
        return [np.array(scale * rng.uniform(0.5, 1.5), F32), np.array(zero, dtype)]

    def normal(*shape):
        return rng.standard_normal(shape).astype(F32)

    def weights(*shape):
        """Of seven bits: onnxruntime saturates the sum of two products of bytes on CPUs without VNNI."""
        return rng.integers(-64, 64, shape).astype(I8)

    n, c, h, w, k = (int(d) for d in rng.integers(2, 20, 5))
    for dtype in (U8, I8):
        for constant in ((1, 3), ()):
            zeros = [np.array(7, dtype), stored(I8, w)]
            yield Case("MatMulInteger", [stored(dtype, 2, n, k), weights(k, w), *zeros], constant=constant)
        yield Case("MatMulInteger", [stored(dtype, 3, n, k), weights(3, k, w)])
        a, b = stored(U8, n, k), weights(k, w)
        sy = params(dtype, 40.0)
        if dtype == U8:
            yield Case("QLinearMatMul", [a, *params(U8, 0.02), b, np.array(0.03, F32), np.array(0, I8), np.array(10, F32), sy[1]],
                       steps=1, constant=(1, 2, 3, 4, 5, 6, 7))
            yield Case("QLinearMatMul", [a, *params(U8, 0.02), b, normal(w) ** 2 + F32(0.01), np.zeros(w, I8), np.array(10, F32), sy[1]], steps=1)
    yield Case("ConvInteger", [stored(U8, 2, 4, h + 3, w + 3), stored(U8, 6, 2, 3, 2), np.array(9, U8)],
               {"group": 2, "pads": [1, 0, 1, 1], "strides": [1, 2]}, constant=(1,))
    yield Case("DynamicQuantizeLinear", [normal(n, c)], outputs=3, steps=1)

    for dtype in (U8, I8):
        x, sx, sy = stored(dtype, n, c, h), params(dtype, 0.05), params(dtype, 0.05)
        fixed = (1, 2, 3, 4)
        yield contrib("QLinearSigmoid", [x, *sx, *params(dtype, 0.005)], constant=fixed)
        yield contrib("QLinearLeakyRelu", [x, *sx, *sy], {"alpha": 0.2}, constant=fixed)
        b = stored(dtype, 1, c, 1) if rng.random() < 0.5 else stored(dtype, n, c, h)
        for op in ("QLinearAdd", "QLinearMul"):
            yield contrib(op, [x, *sx, b, *params(dtype, 0.05), *params(dtype, 0.2)], constant=(1, 2, 4, 5, 6, 7))
        yield contrib("QLinearConcat", [*sy, x, *sx, stored(dtype, n, 5, h), *params(dtype, 0.05)], {"axis": 1}, constant=(0, 1, 3, 4, 6, 7))
        for axis, opset in ((-1, 13), (1, 13), (1, 11)):
            zero = np.array(-128 if dtype == I8 else 0, dtype)
            yield contrib("QLinearSoftmax", [stored(dtype, 2, 3, k), np.array(0.04, F32), sx[1], np.array(1 / 256, F32), zero],
                          {"axis": axis, "opset": opset}, constant=fixed)
        image, last = stored(dtype, 2, 3, h + 3, w + 4), stored(dtype, 2, h + 3, w + 4, 3)
        yield contrib("QLinearGlobalAveragePool", [image, *sx, *sy], {"channels_last": 0}, constant=fixed)
        yield contrib("QLinearGlobalAveragePool", [last, *sx, *sy], {"channels_last": 1}, constant=fixed)
        window = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
        for include in (0, 1):
            yield contrib("QLinearAveragePool", [image, *sx, *sy], {**window, "count_include_pad": include}, constant=fixed)
        yield contrib("QLinearAveragePool", [last, *sx, *sy], {**window, "channels_last": 1}, constant=fixed)
        yield contrib("DequantizeLinear", [x, *sx])
        yield contrib("DequantizeLinear", [x, np.abs(normal(c)), stored(dtype, c)], {"axis": 1})
        yield contrib("QuantizeLinear", [normal(n, c, h), *sx], steps=0)
        yield contrib("QuantizeLinear", [normal(n, c, h), np.abs(normal(h)) + F32(0.01), stored(dtype, h)], {"axis": 2}, steps=0)
    for dtype in (np.uint16, np.int16):
        yield contrib("QuantizeLinear", [normal(n, c), np.array(1e-4, F32), np.array(1000, dtype)], steps=0)

    a, b = stored(U8, n, k), weights(w, k)
    za, bias = params(U8, 0.02), ints_of(rng, w)
    for constant in ((1, 2, 3, 4, 5, 6, 7, 8), ()):
        yield contrib("QGemm", [a, *za, b, np.array(0.03, F32), np.array(0, I8), bias, np.array(2, F32), np.array(120, U8)],
                      {"transB": 1, "alpha": 0.5}, constant=constant)
        yield contrib("QGemm", [a, *za, b.T.copy(), np.abs(normal(w)), np.zeros(w, I8), bias], constant=constant, tolerance=1e-4)
    scales = np.abs(normal(w)) * F32(0.01)
    yield contrib("MatMulIntegerToFloat", [a, b.T.copy(), np.array(0.1, F32), scales, za[1], None, normal(w)], constant=(1, 3, 4, 6), tolerance=1e-4)
    yield contrib("MatMulIntegerToFloat", [a, b.T.copy(), np.array(0.1, F32), np.array(0.01, F32)], tolerance=1e-4)
    yield contrib("DynamicQuantizeMatMul", [normal(2, n, k), b.T.copy(), scales, np.zeros(w, I8), normal(w)], constant=(1, 2, 3, 4), tolerance=1e-4)

    for bits in (2, 4, 8):
        for block, depth in ((16, 64), (32, 80), (128, 300)):
            blocks = -(-depth // block)
            packed, scale = stored(U8, w, blocks, block * bits // 8), np.abs(normal(w * blocks)) * F32(0.1)
            zeros = stored(U8, w * (-(-blocks * bits // 8)))
            attrs = {"K": depth, "N": w, "bits": bits, "block_size": block}
            for zero in (None, zeros):
                yield contrib("MatMulNBits", [normal(n, depth), packed, scale, zero], attrs, constant=(1, 2, 3), tolerance=1e-4)
    packed, scale = stored(U8, w, 3, 16), np.abs(normal(w, 3)) * F32(0.1)
    yield contrib("MatMulNBits", [normal(2, n, 96), packed, scale, rng.uniform(0, 15, (w, 3)).astype(F32), None, normal(w)],
                  {"K": 96, "N": w, "bits": 4, "block_size": 32}, constant=(1, 2, 3, 5), tolerance=1e-4)
    for zero in (None, stored(U8, 7, 2)):
        yield contrib("GatherBlockQuantized", [stored(U8, 7, 32), rng.integers(0, 7, (n, 2)).astype(I64), np.abs(normal(7, 4)), zero],
                      {"bits": 4, "block_size": 16, "gather_axis": 0, "quantize_axis": 1}, constant=(0, 2, 3))


def ints_of(rng, n):
    return rng.integers(-5000, 5000, n).astype(I32)


def microsoft_cases(rng):
    def normal(*shape, scale=1.0):
        return (rng.standard_normal(shape) * scale).astype(F32)

    def case(op, inputs, attrs=None, outputs=1, tolerance=1e-5):
        return Case(op, inputs, attrs, outputs, tolerance, "com.microsoft")

    def lengths(least, most, count):
        return rng.integers(least, most + 1, count).astype(I32)

    n, m, k = (int(d) for d in rng.integers(2, 9, 3))
    yield case("Gelu", [normal(n, m, scale=3.0)])
    yield case("BiasGelu", [normal(n, m, scale=3.0), normal(m)])
    yield case("FastGelu", [normal(n, m, scale=3.0), normal(m)])
    yield case("QuickGelu", [normal(n, m, scale=3.0)], {"alpha": 1.4})
    yield case("FusedMatMul", [normal(2, k, n), normal(m, k)], {"transA": 1, "transB": 1, "alpha": 0.3})
    yield case("FusedMatMul", [normal(n, 3, k), normal(k, 3, m)], {"transBatchA": 1, "transBatchB": 1})
    yield case("FusedGemm", [normal(n, k), normal(m, k), normal(m)], {"transB": 1, "activation": "LeakyRelu", "activation_alpha": 0.2})
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    yield case("FusedConv", [normal(1, k, 7, 6), normal(m, k, 3, 3), normal(m)], {**conv, "activation": "Relu"})
    yield case("FusedConv", [normal(1, k, 7, 6), normal(m, k, 3, 3), normal(m), normal(1, m, 7, 6)], {**conv, "activation": "Clip", "activation_params": [-0.5, 0.7]})

    B, L, H, G, D = (int(d) for d in (rng.integers(1, 4), rng.integers(2, 7), 4, 2, 2 * rng.integers(2, 6)))
    width = H * D
    yield case("SkipLayerNormalization", [normal(B, L, width), normal(B, L, width), normal(width), normal(width), normal(width)],
               {"epsilon": 1e-5}, [0, 3])
    yield case("SkipLayerNormalization", [normal(B, L, width), normal(L, width), normal(width)])
    yield case("SkipSimplifiedLayerNormalization", [normal(B, L, width), normal(B, L, width), normal(width), normal(width)], {"epsilon": 1e-5}, [0, 3])
    yield Case("SimplifiedLayerNormalization", [normal(B, L, width), normal(width)], {"epsilon": 1e-5}, 2)
    ids = [rng.integers(0, 11, (B, L)).astype(I32), rng.integers(0, 2, (B, L)).astype(I32)]
    tables = [normal(11, width), normal(9, width), normal(2, width)]
    embed = [*ids, *tables, normal(width), normal(width)]
    yield case("EmbedLayerNormalization", [*embed, np.ones((B, L), I32)], {"epsilon": 1e-5}, 3)
    yield case("EmbedLayerNormalization", [ids[0], None, *tables[:2], None, *embed[5:], None, rng.integers(0, 9, (B, L)).astype(I32)], {}, 2)

    x, w, bias = normal(B, L, 5), normal(5, 3 * width), normal(3 * width)
    padding = (rng.random((B, L)) < 0.7).astype(I32)
    padding[:, 0] = 1
    for attrs in ({}, {"unidirectional": 1}, {"scale": 0.4}):
        yield case("Attention", [x, w, bias], {"num_heads": H, **attrs})
    yield case("Attention", [x, w, bias, padding], {"num_heads": H})
    yield case("Attention", [x, w, bias, lengths(1, L, B)], {"num_heads": H})
    yield case("Attention", [x, w, bias, None, normal(2, B, H, 3, D)], {"num_heads": H, "unidirectional": 1}, 2)
    yield case("Attention", [x, w, bias, None, None, normal(B, H, L, L)], {"num_heads": H})
    yield case("Attention", [x, normal(5, 2 * width + 2 * H), normal(2 * width + 2 * H)], {"num_heads": H, "qkv_hidden_sizes": [width, width, 2 * H]})

    q, key, value = normal(B, L, width), normal(B, 5, width), normal(B, 5, H * 3)
    yield case("MultiHeadAttention", [q, key, value], {"num_heads": H})
    yield case("MultiHeadAttention", [q, key, value, normal(2 * width + H * 3)], {"num_heads": H, "scale": 0.3})
    seen = (rng.random((B, 5)) < 0.7).astype(I32)
    yield case("MultiHeadAttention", [q, key, value, None, seen, normal(1, H, L, 5)], {"num_heads": H})
    yield case("MultiHeadAttention", [q, normal(B, H, 5, D), normal(B, H, 5, D)], {"num_heads": H})
    yield case("MultiHeadAttention", [q, normal(B, L, width), normal(B, L, width), normal(3 * width), None, None, normal(B, H, 3, D), normal(B, H, 3, D)],
               {"num_heads": H, "unidirectional": 1}, 3)

    def scalar(v):
        return np.array([v], I32)

    D, width = 16, 16 * H  # onnxruntime wants multiples of 16 here
    heads = {"num_heads": H, "kv_num_heads": G}
    new = [normal(B, L, width), normal(B, L, G * D), normal(B, L, G * D)]
    cos, sin = normal(32, D // 2), normal(32, D // 2)
    whole = [np.full(B, L - 1, I32), scalar(L)]
    yield case("GroupQueryAttention", [*new, None, None, *whole], heads, 3)
    yield case("GroupQueryAttention", [normal(B, L, width + 2 * G * D), None, None, None, None, *whole, cos, sin], {**heads, "do_rotary": 1}, 3)
    yield case("GroupQueryAttention", [*new, None, None, *whole], {**heads, "local_window_size": 2, "softcap": 1.5})
    for interleaved in (0, 1):
        at = rng.integers(0, 32, (B, L)).astype(I64)
        yield case("RotaryEmbedding", [normal(B, L, width), at, cos, sin], {"interleaved": interleaved})
        yield case("RotaryEmbedding", [normal(B, H, L, D), np.array([5], I64), cos, sin], {"interleaved": interleaved})


def build(listed):
    """One model of all cases; feeds by input name."""
    nodes, inputs, outputs, constants, feeds = [], [], [], [], {}
    for k, case in enumerate(listed):
        names = ["" if array is None else f"{case.op}_{k}_in{i}" for i, array in enumerate(case.inputs)]
        results = [f"{case.op}_{k}_out{i}" if i in case.outputs else "" for i in range(max(case.outputs) + 1)]
        nodes.append(helper.make_node(case.op, names, results, name=f"{case.op}_{k}", domain=case.domain, **case.attrs))
        for i, (name, array) in enumerate(zip(names, case.inputs)):
            if array is None:
                continue
            if i in case.constant:
                constants.append(onnx.numpy_helper.from_array(array, name))
                continue
            inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
            feeds[name] = array
        outputs.extend(r for r in results if r)
    graph = helper.make_graph(nodes, "operators", inputs, [onnx.ValueInfoProto(name=o) for o in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 9
    inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.output}
    for output in model.graph.output:
        if output.name in inferred:
            output.CopyFrom(inferred[output.name])
    return model, feeds


class Operators(unittest.TestCase):
    def check(self, seed, environment=None, made_by=cases):
        listed = list(made_by(np.random.default_rng(seed)))
        model, feeds = build(listed)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            onnx.save(model, folder / "m.onnx")
            np.savez(folder / "x.npz", **feeds)
            options = ort.SessionOptions()
            options.log_severity_level = 3
            session = ort.InferenceSession(str(folder / "m.onnx"), options, providers=["CPUExecutionProvider"])
            names = [o.name for o in session.get_outputs()]
            expected = dict(zip(names, session.run(names, feeds)))
            command = [BIN / "ds-bench", "run", folder / "m.onnx", "--input", folder / "x.npz", "--output", folder / "y.npz"]
            done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, env=environment)
            self.assertEqual(done.returncode, 0, done.stderr)
            got = dict(np.load(folder / "y.npz"))
        for k, case in enumerate(listed):
            for i in case.outputs:
                name = f"{case.op}_{k}_out{i}"
                with self.subTest(case=name, seed=seed, shapes=[None if a is None else a.shape for a in case.inputs], attrs=case.attrs):
                    self.same(got[name], expected[name], case.tolerance, case.steps)

    def same(self, got, expected, tolerance, steps):
        self.assertEqual((got.dtype, got.shape), (expected.dtype, expected.shape))
        if got.dtype.kind != "f" and steps > 0:
            off = np.abs(got.astype(np.int64) - expected.astype(np.int64))
            self.assertLessEqual(off.max(initial=0), steps)
            self.assertLessEqual(np.count_nonzero(off), 2 + got.size // 50, f"{got} is not {expected}")
            return
        if got.dtype.kind != "f":
            self.assertTrue(np.array_equal(got, expected), f"{got} is not {expected}")
            return
        self.assertTrue(np.array_equal(np.isnan(got), np.isnan(expected)))
        g, e = got.astype(np.float64), expected.astype(np.float64)
        finite = np.isfinite(e)
        self.assertTrue(np.array_equal(g[~finite & ~np.isnan(e)], e[~finite & ~np.isnan(e)]))
        error = np.abs(g[finite] - e[finite]) / np.maximum(1, np.abs(e[finite]))
        self.assertLessEqual(error.max(initial=0), tolerance)

    def test_selected_kernels(self):
        for seed in SEEDS:
            self.check(seed)

    def test_quantized(self):
        for seed in SEEDS:
            self.check(200 + seed, made_by=quantized_cases)

    def test_quantized_portable_kernels(self):
        for seed in SEEDS:
            self.check(300 + seed, {**os.environ, "DS_ISA": "portable"}, quantized_cases)

    def test_microsoft(self):
        for seed in SEEDS:
            self.check(seed, made_by=microsoft_cases)

    def test_portable_kernels(self):
        for seed in SEEDS:
            self.check(100 + seed, {**os.environ, "DS_ISA": "portable"})


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main()
