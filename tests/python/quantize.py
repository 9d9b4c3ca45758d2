"""ds-quantize against onnxruntime: the file loads, runs on integers there, and both runtimes agree.

Usage: quantize.py BIN_DIR [unittest arguments].
"""
import collections
import json
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


def ds(*args, check=True):
    done = subprocess.run([str(BIN / args[0]), *map(str, args[1:])], capture_output=True, timeout=300)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: exit {done.returncode}: {done.stderr.decode().strip()}")
    return done


class Network:
    """A residual CNN with random weights and a symbolic batch."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def weight(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype=np.float32), name))
        return name

    def op(self, op, inputs, **attrs):
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name + "_out"], name=name, **attrs))
        return name + "_out"

    def conv(self, x, c_in, c_out, k, stride=1, group=1, norm=True):
        fan = c_in // group * k * k
        x = self.op("Conv", [x, self.weight(self.rng.standard_normal((c_out, c_in // group, k, k)) * np.sqrt(2 / fan)),
                             self.weight(self.rng.standard_normal(c_out) * 0.1)],
                    kernel_shape=[k, k], strides=[stride, stride], pads=[k // 2] * 4, group=group)
        if norm:
            r = self.rng
            x = self.op("BatchNormalization", [x, self.weight(1 + 0.2 * r.standard_normal(c_out)), self.weight(0.1 * r.standard_normal(c_out)),
                                               self.weight(0.1 * r.standard_normal(c_out)), self.weight(0.8 + 0.4 * r.random(c_out))])
        return x

    def build(self, path, opset):
        x = self.op("Relu", [self.conv("x", 3, 16, 3)])
        x = self.op("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        y = self.op("Relu", [self.conv(x, 16, 16, 3)])
        x = self.op("Relu", [self.op("Add", [self.conv(y, 16, 16, 3), x])])
        x = self.op("Relu", [self.conv(x, 16, 32, 3, stride=2)])
        x = self.op("Relu", [self.conv(x, 32, 32, 3, group=32, norm=False)])
        x = self.op("Flatten", [self.op("GlobalAveragePool", [x])])
        x = self.op("Gemm", [x, self.weight(self.rng.standard_normal((10, 32)) * 0.3), self.weight(self.rng.standard_normal(10) * 0.1)], transB=1)
        graph = helper.make_graph(self.nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 20, 20])],
                                  [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", 10])], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
        onnx.checker.check_model(model)
        onnx.save(model, path)


class Quantize(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.dir = pathlib.Path(self.folder.name)
        self.x = np.random.default_rng(1).standard_normal((300, 3, 20, 20)).astype(np.float32)
        np.savez(self.dir / "x.npz", x=self.x)

    def ort(self, path, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL, optimized=None):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = level
        if optimized:
            options.optimized_model_filepath = str(optimized)
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": self.x})[0]

    def ours(self, path):
        ds("ds-bench", "run", path, "--input", self.dir / "x.npz", "--output", self.dir / "y.npz")
        return next(iter(np.load(self.dir / "y.npz").values()))

    def test_static(self):
        for opset in (11, 13, 17, 21):
            with self.subTest(opset=opset):
                model, int8 = self.dir / "m.onnx", self.dir / "q.onnx"
                Network().build(model, opset)
                ds("ds-quantize", model, "--calibration-data", self.dir / "x.npz", "--calibration-samples", 64,
                   "--report", self.dir / "r.json", "-o", int8)
                onnx.checker.check_model(onnx.load(int8))
                self.assertLess(int8.stat().st_size, 0.5 * model.stat().st_size)  # small weights: the graph itself counts
                report = json.loads((self.dir / "r.json").read_text())
                self.assertTrue(all(n["quantized"] for n in report["nodes"]), report)
                exact = self.ort(model)
                reference = self.ort(int8, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
                fast = self.ort(int8, optimized=self.dir / "opt.onnx")
                ops = collections.Counter(n.op_type for n in onnx.load(self.dir / "opt.onnx").graph.node)
                self.assertEqual(ops["QLinearConv"], 5, ops)
                self.assertEqual(ops["Conv"] + ops["Gemm"] + ops["Add"], 0, ops)
                got = self.ours(int8)
                scale = np.abs(reference).max()
                # Rounding ties that float arithmetic breaks otherwise move single bytes by one step.
                for name, other in (("reference", reference), ("fast", fast)):
                    self.assertLessEqual(np.abs(got - other).max(), 0.02 * scale, name)
                    self.assertGreaterEqual((got.argmax(1) == other.argmax(1)).mean(), 0.99, name)
                noise = 10 * np.log10((exact**2).sum() / ((exact - got) ** 2).sum())
                self.assertGreater(noise, 15)

    def test_dynamic(self):
        model, int8 = self.dir / "m.onnx", self.dir / "q.onnx"
        Network().build(model, 17)
        ds("ds-quantize", model, "--dynamic", "-o", int8)
        onnx.checker.check_model(onnx.load(int8))
        reference, got = self.ort(int8), self.ours(int8)
        self.assertLessEqual(np.abs(got - reference).max(), 1e-4 * np.abs(reference).max())

    def test_streams_are_files(self):
        model = self.dir / "m.onnx"
        Network().build(model, 17)
        args = ["--calibration-data", self.dir / "x.npz", "--calibration-samples", 20]
        ds("ds-quantize", model, *args, "-o", self.dir / "q.onnx")
        with open(model, "rb") as stream:
            piped = subprocess.run([str(BIN / "ds-quantize"), "-", *map(str, args), "-o", "-"], stdin=stream, capture_output=True, timeout=300)
        self.assertEqual(piped.returncode, 0, piped.stderr)
        self.assertEqual(piped.stdout, (self.dir / "q.onnx").read_bytes())

    def test_gate(self):
        model, best = self.dir / "m.onnx", self.dir / "q.onnx"
        Network().build(model, 17)
        labels = self.ort(model).argmax(1).astype(np.int64)
        np.savez(self.dir / "xy.npz", x=self.x, labels=labels)
        args = ["ds-quantize", model, "--calibration-data", self.dir / "x.npz", "--calibration-samples", 20, "--eval-data", self.dir / "xy.npz", "-o", best]
        self.assertEqual(ds(*args, "--max-drop", 100, check=False).returncode, 0)
        best.unlink()
        labels[:] = (labels + 1) % 10  # a float model that is always wrong cannot fall further
        np.savez(self.dir / "xy.npz", x=self.x, labels=labels)
        self.assertEqual(ds(*args, "--max-drop", 0, check=False).returncode, 0)
        self.assertTrue(best.exists())

    def test_bad_input(self):
        model, out = self.dir / "m.onnx", self.dir / "q.onnx"
        Network().build(model, 17)
        np.savez(self.dir / "wrong.npz", x=self.x[:, :2])
        (self.dir / "cut.onnx").write_bytes(model.read_bytes()[:-1000])
        cases = [
            ([model, "-o", out], 64),
            ([model, "--dynamic", "--observer", "minmax", "-o", out], 64),
            ([model, "--calibration-data", self.dir / "x.npz"], 64),
            ([model, "--calibration-data", self.dir / "x.npz", "--max-drop", "1", "-o", out], 64),
            ([self.dir / "missing.onnx", "--calibration-data", self.dir / "x.npz", "-o", out], 66),
            ([model, "--calibration-data", self.dir / "missing.npz", "-o", out], 66),
            ([self.dir / "cut.onnx", "--calibration-data", self.dir / "x.npz", "-o", out], 65),
            ([model, "--calibration-data", self.dir / "wrong.npz", "-o", out], 65),
            ([model, "--calibration-data", self.dir / "x.npz", "--exclude", "*", "-o", out], 65),
            ([model, "--calibration-data", self.dir / "x.npz", "--calibration-samples", "2", "-o", self.dir / "no" / "q.onnx"], 73),
        ]
        for args, code in cases:
            with self.subTest(args=args):
                done = ds("ds-quantize", *args, check=False)
                text = done.stderr.decode()
                self.assertEqual(done.returncode, code, text)
                self.assertIn("ds-quantize: ", text)
                self.assertFalse(out.exists())


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main()
