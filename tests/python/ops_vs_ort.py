"""Elementwise, reduction, normalization and softmax operators against onnxruntime on random shapes.

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
F32, I32, I64, U8 = np.float32, np.int32, np.int64, np.uint8


class Case:
    def __init__(self, op, inputs, attrs=None, outputs=1, tolerance=1e-5):
        self.op, self.inputs, self.attrs, self.outputs, self.tolerance = op, inputs, attrs or {}, outputs, tolerance


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


def build(listed):
    """One model of all cases; feeds by input name."""
    nodes, inputs, outputs, feeds = [], [], [], {}
    for k, case in enumerate(listed):
        names = [f"{case.op}_{k}_in{i}" for i in range(len(case.inputs))]
        results = [f"{case.op}_{k}_out{i}" for i in range(case.outputs)]
        nodes.append(helper.make_node(case.op, names, results, name=f"{case.op}_{k}", **case.attrs))
        for name, array in zip(names, case.inputs):
            inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
            feeds[name] = array
        outputs.extend(results)
    graph = helper.make_graph(nodes, "operators", inputs, [onnx.ValueInfoProto(name=o) for o in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 9
    inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.output}
    for output in model.graph.output:
        output.CopyFrom(inferred[output.name])
    return model, feeds


class Operators(unittest.TestCase):
    def check(self, seed, environment=None):
        listed = list(cases(np.random.default_rng(seed)))
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
            for i in range(case.outputs):
                name = f"{case.op}_{k}_out{i}"
                with self.subTest(case=name, seed=seed, shapes=[a.shape for a in case.inputs], attrs=case.attrs):
                    self.same(got[name], expected[name], case.tolerance)

    def same(self, got, expected, tolerance):
        self.assertEqual((got.dtype, got.shape), (expected.dtype, expected.shape))
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

    def test_portable_kernels(self):
        for seed in SEEDS:
            self.check(100 + seed, {**os.environ, "DS_ISA": "portable"})


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main()
