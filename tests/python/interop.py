"""A third party agrees: onnx.checker accepts and onnxruntime loads every file we write, and both
runtimes return the same numbers.

Usage: interop.py BIN_DIR [unittest arguments]. BIN_DIR holds ds-bench and ds_tool_resave.
"""
# ctest: slow
# ctest: timeout 900
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

BIN = pathlib.Path("build/release/bin")
F32, I64 = TensorProto.FLOAT, TensorProto.INT64
OPSETS = [7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22]
NEWEST_CHECKED = 22


def ds(*args):
    done = subprocess.run([str(BIN / args[0]), *map(str, args[1:])], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def ort_run(path, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def close(test, got, expected, tolerance=1e-4, what=""):
    """|got - expected| <= tolerance * max(1, |expected|)."""
    test.assertEqual(set(got), set(expected), what)
    for name, e in expected.items():
        g = got[name]
        test.assertEqual(g.shape, e.shape, f"{what} {name}")
        if e.size == 0:
            continue
        error = np.abs(g.astype(np.float64) - e.astype(np.float64)) / np.maximum(1, np.abs(e.astype(np.float64)))
        test.assertLessEqual(float(np.nanmax(error)), tolerance, f"{what} {name}")
        test.assertTrue(np.array_equal(np.isnan(g), np.isnan(e)) if g.dtype.kind == "f" else True, what)


class Builder:
    """One-operator models at any opset: `place` puts a parameter where that opset wants it."""

    def __init__(self, op, opset, inputs):
        self.schema = onnx.defs.get_schema(op, opset, "")
        self.op, self.opset = op, opset
        self.inputs = {n: np.asarray(a) for n, a in inputs.items()}
        self.args = list(inputs)
        self.attrs, self.constants = {}, []

    def place(self, name, value, dtype=None):
        if name in self.schema.attributes:
            self.attrs[name] = value
            return self
        names = [i.name for i in self.schema.inputs]
        alias = {"value": "constant_value", "k": "K"}
        at = names.index(name if name in names else alias[name])
        while len(self.args) <= at:
            self.args.append("")
        array = np.array(value, dtype=dtype or (np.float32 if isinstance(value, float) else np.int64))
        if name == "k":
            array = array.reshape(1)
        self.constants.append(numpy_helper.from_array(array, f"c_{name}"))
        self.args[at] = f"c_{name}"
        return self

    def attr(self, **attrs):
        """Attributes; those this opset lacks are left out."""
        self.attrs.update({k: v for k, v in attrs.items() if k in self.schema.attributes})
        return self

    def model(self, outputs=("y",), kinds=None):
        node = helper.make_node(self.op, self.args, list(outputs), name="n", **self.attrs)
        infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype),
                                               ["batch", *a.shape[1:]] if n == "x" else a.shape)
                 for n, a in self.inputs.items()]
        kinds = kinds or [F32] * len(outputs)
        outs = [helper.make_tensor_value_info(o, k, None) for o, k in zip(outputs, kinds)]
        graph = helper.make_graph([node], "g", infos, outs, self.constants)
        m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        m.ir_version = max(4, helper.find_min_ir_version_for([helper.make_opsetid("", self.opset)], True))
        inferred = onnx.shape_inference.infer_shapes(m)
        for o, k in zip(m.graph.output, inferred.graph.output):
            if not k.type.tensor_type.HasField("shape"):
                continue
            o.CopyFrom(k)
        return m


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = random(2, 3, 4, 6)


def cases(opset):
    """(label, model, feeds) of every operator whose form changed between opsets."""
    def b(op, **inputs):
        return Builder(op, opset, inputs or {"x": X})

    def since(op):
        return [s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == op and s.domain == ""]

    def have(op):
        return min(since(op)) <= opset

    one = X[:, :1]
    yield "Squeeze", b("Squeeze", x=one).place("axes", [1])
    yield "Unsqueeze", b("Unsqueeze").place("axes", [0, 3])
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
               "ReduceSumSquare", "ReduceLogSumExp"):
        yield op, b(op).place("axes", [1, 3]).attr(keepdims=0)
        yield op + "All", b(op)
    yield "Slice", b("Slice").place("axes", [2, 3]).place("starts", [1, 0]).place("ends", [3, -1])
    yield "Clip", b("Clip").place("min", -0.5).place("max", 0.75)
    yield "ClipMax", b("Clip").place("max", 0.5)
    yield "Pad", b("Pad").place("pads", [0, 0, 1, 2, 0, 0, 0, 1]).place("value", 0.5).attr(mode="constant")
    yield "PadReflect", b("Pad").place("pads", [0, 0, 1, 2, 0, 0, 0, 1]).attr(mode="reflect")
    split = b("Split").attr(axis=3, num_outputs=2)
    yield "Split", (split, ("y", "z"))
    yield "SplitUneven", (b("Split").attr(axis=3).place("split", [2, 4]), ("y", "z"))
    yield "TopK", (b("TopK").place("k", 2).attr(axis=3), ("y", "z"), [F32, I64])
    yield "Dropout", b("Dropout").place("ratio", 0.25, np.float32)
    for op in ("Softmax", "LogSoftmax"):
        for axis in (None, 1, 2, 3):
            yield f"{op}{axis}", b(op) if axis is None else b(op).attr(axis=axis)
    scale, bias, mean, var = (random(3, seed=s) for s in range(4))
    yield "BatchNormalization", b("BatchNormalization", x=X, s=scale, b=bias, m=mean, v=np.abs(var) + 0.5)
    yield "MaxPool", b("MaxPool").attr(kernel_shape=[2, 2], strides=[2, 2])
    yield "AveragePool", b("AveragePool").attr(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    yield "Conv", b("Conv", x=X, w=random(5, 3, 3, 3))
    yield "ConvTranspose", b("ConvTranspose", x=X, w=random(3, 5, 2, 2)).attr(strides=[2, 2])
    yield "Gemm", b("Gemm", x=random(4, 3), w=random(5, 3, seed=1), c=random(5)).attr(transB=1)
    yield "Flatten", b("Flatten").attr(axis=2)
    yield "Concat", b("Concat", x=X, x2=X[:, :2]).attr(axis=1)
    yield "ArgMax", (b("ArgMax").attr(axis=1), ("y",), [I64])
    yield "Gather", b("Gather", x=X, i=np.array([2, 0])).attr(axis=1)
    yield "Transpose", b("Transpose").attr(perm=[0, 2, 3, 1])
    yield "Cast", b("Cast", x=np.arange(6, dtype=np.int64)).attr(to=F32)
    if opset < 10:
        up = b("Upsample").attr(mode="nearest")
        yield "Upsample", up.place("scales", [1.0, 1.0, 2.0, 2.0], np.float32)
    elif opset == 10:
        yield "Resize", b("Resize").place("scales", [1.0, 1.0, 2.0, 2.0], np.float32)
    else:
        for mode, transform in (("nearest", "asymmetric"), ("linear", "half_pixel"), ("linear", "align_corners")):
            r = b("Resize").attr(mode=mode, coordinate_transformation_mode=transform, nearest_mode="floor")
            r.place("roi", [], np.float32) if opset < 13 else r
            yield f"Resize{mode}{transform}", r.place("scales", [1.0, 1.0, 2.0, 1.5], np.float32)
    for op in ("HardSwish", "Mish", "Erf", "Sign", "Round"):
        if have(op):
            yield op, b(op)
    if have("Gelu"):
        yield "Gelu", b("Gelu")
    if have("LayerNormalization"):
        yield "LayerNormalization", b("LayerNormalization", x=X, s=random(6), b=random(6, seed=1))
    if have("Where"):
        yield "Where", b("Where", c=X > 0, x=X, z=-X)
    if have("QuantizeLinear"):
        q = b("QuantizeLinear", x=X, s=np.float32(0.05), z=np.uint8(128))
        yield "QuantizeLinear", (q, ("y",), [TensorProto.UINT8])
        yield "DequantizeLinear", b("DequantizeLinear", x=(X * 30).astype(np.int8), s=np.float32(0.05), z=np.int8(3))
        if opset >= 13:
            yield "DequantizePerAxis", b("DequantizeLinear", x=(X * 30).astype(np.int8),
                                         s=np.abs(random(3)) + np.float32(0.1), z=np.zeros(3, np.int8)).attr(axis=1)


class Operators(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)

    def check_written(self, path, feeds, expected, what):
        onnx.checker.check_model(onnx.load(path), full_check=True)
        close(self, ort_run(path, feeds), expected, 1e-5, what)

    def one(self, label, opset, entry):
        entry = entry if isinstance(entry, tuple) else (entry,)
        builder, rest = entry[0], entry[1:]
        model = builder.model(*rest)
        source = self.path / "source.onnx"
        onnx.save(model, source)
        feeds = dict(builder.inputs)
        np.savez(self.path / "x.npz", **feeds)
        expected = ort_run(source, feeds)
        what = f"{label} at opset {opset}"
        ds("ds-bench", "run", source, "--input", self.path / "x.npz", "--output", self.path / "y.npz")
        close(self, dict(np.load(self.path / "y.npz")), expected, 1e-4, what)
        ds("ds_tool_resave", source, self.path / "same.onnx")
        self.assertEqual(onnx.load(self.path / "same.onnx").opset_import[0].version, opset, what)
        self.check_written(self.path / "same.onnx", feeds, expected, what)
        ds("ds_tool_resave", source, self.path / "newest.onnx", NEWEST_CHECKED)
        self.check_written(self.path / "newest.onnx", feeds, expected, what + ", raised")

    def test_every_form(self):
        for opset in OPSETS:
            for label, entry in cases(opset):
                with self.subTest(op=label, opset=opset):
                    self.one(label, opset, entry)


class RealModels(unittest.TestCase):
    """The text-direction classifier and the recogniser of PP-OCRv4, with their dynamic shapes."""

    def check(self, file, shapes):
        # Only the files are wanted: importing the package would need OpenCV and with it libGL.
        package = importlib.util.find_spec("rapidocr_onnxruntime")
        path = pathlib.Path(package.origin).parent / "models" / file
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            ds("ds_tool_resave", path, folder / "m.onnx")
            onnx.checker.check_model(onnx.load(folder / "m.onnx"), full_check=True)
            for seed, shape in enumerate(shapes):
                x = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
                feeds = {"x": x}
                np.savez(folder / "x.npz", **feeds)
                expected = ort_run(path, feeds)
                for flags in ([], ["--no-static"]):
                    ds("ds-bench", "run", path, "--input", folder / "x.npz", "--output", folder / "y.npz", *flags)
                    got = dict(np.load(folder / "y.npz"))
                    for name, e in expected.items():
                        self.assertEqual(got[name].shape, e.shape)
                        self.assertLessEqual(float(np.abs(got[name] - e).max()), 1e-4, f"{file} {shape} {flags}")
                close(self, ort_run(folder / "m.onnx", feeds), expected, 1e-5, f"{file} written again")
                np.savez(folder / "ref.npz", **expected)
                ds("ds-bench", "verify", folder / "m.onnx", "--input", folder / "x.npz", "--reference", folder / "ref.npz",
                   "--rtol", "1e-4", "--atol", "1e-4")

    def test_classifier(self):
        self.check("ch_ppocr_mobile_v2.0_cls_infer.onnx", [(1, 3, 48, 192), (3, 3, 48, 100), (2, 3, 64, 256)])

    def test_recogniser(self):
        self.check("ch_PP-OCRv4_rec_infer.onnx", [(1, 3, 48, 320), (2, 3, 48, 160), (1, 3, 48, 97), (3, 3, 48, 640)])

    def test_detector(self):
        self.check("ch_PP-OCRv4_det_infer.onnx", [(1, 3, 64, 96), (2, 3, 96, 64), (1, 3, 160, 160)])


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main()
