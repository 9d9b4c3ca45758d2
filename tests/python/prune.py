"""ds-prune against a third party: onnx.checker and onnxruntime take every file it writes, and run it to
the numbers our runtime gives.

Usage: prune.py BIN_DIR [unittest arguments]. BIN_DIR holds ds-prune and ds-bench.
"""
# ctest: slow
# ctest: timeout 900
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
F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def run(*args, stdin=None):
    return subprocess.run([str(BIN / args[0]), *map(str, args[1:])], input=stdin, capture_output=True, timeout=300)


def ds(*args, stdin=None):
    done = run(*args, stdin=stdin)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: exit {done.returncode}: {done.stderr.decode().strip()}")
    return done.stdout


class Net:
    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants, self.count = [], [], 0

    def const(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, name, *shape):
        fan = max(1, int(np.prod(shape[1:])))
        return self.const(name, (self.random.standard_normal(shape) / np.sqrt(fan)).astype(np.float32))

    def op(self, kind, *inputs, outputs=1, **attrs):
        self.count += 1
        name = f"{kind}_{self.count}"
        outs = [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, outs, name=name, **attrs))
        return outs[0] if outputs == 1 else outs

    def conv(self, x, name, cin, cout, k, group=1, bias=True, **attrs):
        inputs = [x, self.weight(f"{name}.w", cout, cin // group, k, k)]
        if bias:
            inputs.append(self.weight(f"{name}.b", cout))
        return self.op("Conv", *inputs, pads=[k // 2] * 4, group=group, **attrs)

    def bn(self, x, name, c):
        gamma = self.const(f"{name}.gamma", self.random.uniform(0.5, 1.5, c).astype(np.float32))
        var = self.const(f"{name}.var", self.random.uniform(0.5, 1.5, c).astype(np.float32))
        return self.op("BatchNormalization", x, gamma, self.weight(f"{name}.beta", c), self.weight(f"{name}.mean", c), var)

    def gemm(self, x, name, cin, cout):
        return self.op("Gemm", x, self.weight(f"{name}.w", cout, cin), self.weight(f"{name}.b", cout), transB=1)

    def linear(self, x, name, cin, cout):
        return self.op("Add", self.op("MatMul", x, self.weight(f"{name}.w", cin, cout)), self.weight(f"{name}.b", cout))

    def finish(self, y, shape, opset):
        """A model whose every intermediate value is declared, so that stale declarations would show."""
        x = helper.make_tensor_value_info("x", F32, shape)
        out = helper.make_tensor_value_info(y, F32, None)
        graph = helper.make_graph(self.nodes, "net", [x], [out], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model)
        return model


def lenet(opset):
    n = Net(1)
    x = n.op("MaxPool", n.op("Relu", n.bn(n.conv("x", "c1", 1, 24, 5, bias=False), "b1", 24)), kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("MaxPool", n.op("Relu", n.bn(n.conv(x, "c2", 24, 48, 5), "b2", 48)), kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("Relu", n.gemm(n.op("Flatten", x), "f1", 48 * 49, 120))
    return n.finish(n.gemm(x, "f2", 120, 10), ["batch", 1, 28, 28], opset), (3, 1, 28, 28)


def resnet(opset):
    n = Net(2)
    x = n.op("Relu", n.bn(n.conv("x", "stem", 3, 32, 3), "bs", 32))
    width = 32
    for i, out in enumerate([32, 64]):
        y = n.op("Relu", n.bn(n.conv(x, f"a{i}", width, out, 3), f"ba{i}", out))
        y = n.bn(n.conv(y, f"c{i}", out, out, 3), f"bc{i}", out)
        skip = x if width == out else n.conv(x, f"s{i}", width, out, 1)
        x, width = n.op("Relu", n.op("Add", y, skip)), out
    x = n.op("Flatten", n.op("GlobalAveragePool", x))
    return n.finish(n.gemm(x, "fc", width, 10), [1, 3, 12, 12], opset), (1, 3, 12, 12)


def mobilenet(opset):
    n = Net(3)
    lo, hi = n.const("lo", np.float32(0)), n.const("hi", np.float32(6))
    x = n.op("Clip", n.conv("x", "stem", 3, 16, 3), lo, hi)
    for i in range(2):
        y = n.op("Clip", n.conv(x, f"e{i}", 16, 64, 1), lo, hi)
        y = n.op("Clip", n.bn(n.conv(y, f"d{i}", 64, 64, 3, group=64), f"bd{i}", 64), lo, hi)
        gate = n.op("Sigmoid", n.conv(n.op("GlobalAveragePool", y), f"g{i}", 64, 64, 1))
        x = n.op("Add", x, n.conv(n.op("Mul", y, gate), f"p{i}", 64, 16, 1))
    x = n.op("Flatten", n.op("GlobalAveragePool", x))
    return n.finish(n.gemm(x, "fc", 16, 10), ["batch", 3, 12, 12], opset), (2, 3, 12, 12)


def densenet(opset):
    n = Net(4)
    x, width = n.op("Relu", n.conv("x", "stem", 3, 32, 3)), 32
    for i in range(3):
        y = n.op("Relu", n.conv(n.bn(x, f"b{i}", width), f"d{i}", width, 32, 3))
        x, width = n.op("Concat", x, y, axis=1), width + 32
    return n.finish(n.conv(x, "head", width, 6, 1), [1, 3, 10, 10], opset), (1, 3, 10, 10)


def encoder(opset):
    """One transformer block; the residual stream goes through LayerNormalization and stays."""
    n = Net(5)
    d, heads, hidden = 32, 4, 128
    split = n.const("split_heads", np.array([0, 0, heads, d // heads], np.int64))
    merge = n.const("merge_heads", np.array([0, 0, d], np.int64))
    norm = lambda x, name: n.op("LayerNormalization", x, n.weight(f"{name}.g", d), n.weight(f"{name}.b", d), axis=-1)
    part = lambda x, name, perm: n.op("Transpose", n.op("Reshape", n.linear(x, name, d, d), split), perm=perm)
    h = norm("x", "n1")
    scores = n.op("MatMul", part(h, "q", [0, 2, 1, 3]), part(h, "k", [0, 2, 3, 1]))
    mixed = n.op("MatMul", n.op("Softmax", scores, axis=-1), part(h, "v", [0, 2, 1, 3]))
    mixed = n.op("Reshape", n.op("Transpose", mixed, perm=[0, 2, 1, 3]), merge)
    x = n.op("Add", "x", n.linear(mixed, "o", d, d))
    h = n.linear(norm(x, "n2"), "up", d, hidden)
    half = n.const("half", np.float32(0.5))
    root, one = n.const("root", np.float32(np.sqrt(2))), n.const("one", np.float32(1))
    gelu = n.op("Mul", n.op("Mul", h, half), n.op("Add", n.op("Erf", n.op("Div", h, root)), one))
    return n.finish(n.op("Add", x, n.linear(gelu, "down", hidden, d)), ["batch", "time", d], opset), (2, 5, d)


NETS = {"lenet": lenet, "resnet": resnet, "mobilenet": mobilenet, "densenet": densenet, "encoder": encoder}


class Prune(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.dir = pathlib.Path(self.folder.name)

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, opset=17):
        model, shape = NETS[name](opset)
        path = self.dir / f"{name}.onnx"
        onnx.save(model, path)
        x = np.random.default_rng(9).standard_normal(shape).astype(np.float32)
        np.savez(self.dir / "x.npz", x=x)
        return path, x

    def same_as_onnxruntime(self, path, x, what):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        expected = session.run(None, {"x": x})[0]
        ds("ds-bench", "run", path, "--input", self.dir / "x.npz", "--output", self.dir / "y.npz")
        got = np.load(self.dir / "y.npz")[session.get_outputs()[0].name]
        self.assertEqual(got.shape, expected.shape, what)
        self.assertLessEqual(np.abs(got - expected).max(), 1e-4 * max(1, np.abs(expected).max()), what)
        self.assertGreater(np.abs(expected).max(), 1e-3, what)

    def test_channels(self):
        targets = {"encoder": 0.8}
        for name in NETS:
            for opset in (17,) if name == "encoder" else (11, 13, 17):
                with self.subTest(net=name, opset=opset):
                    path, x = self.write(name, opset)
                    target = targets.get(name, 0.5)
                    out, report = self.dir / "out.onnx", self.dir / "report.json"
                    ds("ds-prune", path, "--structured", "channels", "--target-flops", target, "--channel-multiple", 1, "-o", out,
                       "--report", report, "-q")
                    before, after, r = onnx.load(path), onnx.load(out), json.loads(report.read_text())
                    self.assertLessEqual(r["flops"]["ratio"], target)
                    self.assertGreaterEqual(r["flops"]["ratio"], target - 0.03)
                    self.assertEqual(before.graph.input, after.graph.input)
                    self.assertEqual([o.name for o in before.graph.output], [o.name for o in after.graph.output])
                    self.assertEqual([n.op_type for n in before.graph.node], [n.op_type for n in after.graph.node])
                    self.assertEqual({i.name for i in before.graph.initializer}, {i.name for i in after.graph.initializer})
                    self.assertLess(out.stat().st_size, path.stat().st_size)
                    self.assertEqual(before.opset_import, after.opset_import)
                    self.assertIn("ds.prune", {p.key for p in after.metadata_props})
                    self.same_as_onnxruntime(out, x, f"{name} {opset}")

    def test_block_of_the_kernels(self):
        path, x = self.write("resnet")
        out = self.dir / "out.onnx"
        ds("ds-prune", path, "--structured", "channels", "--target-flops", 0.5, "-o", out, "-q")
        for i in onnx.load(out).graph.initializer:
            if i.name.endswith(".w") and len(i.dims) == 4:
                self.assertEqual(i.dims[0] % 8, 0, i.name)
        self.same_as_onnxruntime(out, x, "blocks")

    def test_magnitude(self):
        for name in NETS:
            for scope in ("global", "layer"):
                with self.subTest(net=name, scope=scope):
                    path, x = self.write(name)
                    out, report = self.dir / "out.onnx", self.dir / "report.json"
                    ds("ds-prune", path, "--target-sparsity", 0.7, "--scope", scope, "-o", out, "--report", report, "-q")
                    before = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
                    after = {i.name: numpy_helper.to_array(i) for i in onnx.load(out).graph.initializer}
                    weights = [n for n in before if n.endswith(".w")]
                    zeros = sum(int((after[n] == 0).sum()) for n in weights)
                    total = sum(before[n].size for n in weights)
                    if scope == "global":
                        self.assertEqual(zeros, round(0.7 * total))
                        cut = np.sort(np.abs(np.concatenate([before[n].ravel() for n in weights])))[zeros]
                        for n in weights:
                            np.testing.assert_array_equal(after[n], np.where(np.abs(before[n]) < cut, 0, before[n]))
                    for n in before:
                        if n not in weights:
                            np.testing.assert_array_equal(before[n], after[n])
                        elif scope == "layer":
                            self.assertLessEqual(abs(int((after[n] == 0).sum()) - 0.7 * before[n].size), 0.5, n)
                    self.assertEqual(json.loads(report.read_text())["schema"], "ds-prune/1")
                    self.same_as_onnxruntime(out, x, f"{name} {scope}")

    def test_pipes_and_files_give_the_same_bytes_twice(self):
        path, _ = self.write("lenet")
        for flags in (["--structured", "channels", "--target-flops", "0.6"], ["--target-sparsity", "0.5"]):
            out = self.dir / "out.onnx"
            ds("ds-prune", path, *flags, "-o", out)
            self.assertEqual(ds("ds-prune", "-", *flags, "-o", "-", stdin=path.read_bytes()), out.read_bytes())
            self.assertEqual(ds("ds-prune", path, *flags, "-o", "-"), out.read_bytes())

    def test_excluded_layers_stay(self):
        path, x = self.write("lenet")
        out = self.dir / "out.onnx"
        ds("ds-prune", path, "--structured", "channels", "--target-flops", 0.975, "--channel-multiple", 1, "--exclude", "c2.*", "-o", out, "-q")
        shapes = {i.name: list(i.dims) for i in onnx.load(out).graph.initializer}
        self.assertEqual(shapes["c2.w"], [48, 24, 5, 5])
        self.assertLess(shapes["f1.w"][0], 120)
        self.same_as_onnxruntime(out, x, "exclude")

    def test_dry_run_reports_and_writes_nothing(self):
        path, _ = self.write("lenet")
        done = run("ds-prune", path, "--target-sparsity", "0.5", "--dry-run", "-o", self.dir / "no.onnx", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertAlmostEqual(json.loads(done.stdout)["sparsity"], 0.5, places=4)
        self.assertFalse((self.dir / "no.onnx").exists())

    def test_gate(self):
        path, _ = self.write("lenet")
        x = np.random.default_rng(1).standard_normal((40, 1, 28, 28)).astype(np.float32)
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        labels = session.run(None, {"x": x})[0].argmax(1)  # what the model itself says: 100 % before pruning
        np.savez(self.dir / "eval.npz", x=x, labels=labels)
        gate = ["--eval-data", self.dir / "eval.npz", "--max-drop", "5"]
        out, report = self.dir / "out.onnx", self.dir / "report.json"
        done = run("ds-prune", path, "--target-sparsity", "0.01", *gate, "-o", out, "--report", report, "-q")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(report.read_text())["accuracy"]["before"], 1.0)
        self.assertTrue(out.exists())
        out.unlink()
        done = run("ds-prune", path, "--target-sparsity", "0.999", *gate, "-o", out, "-q")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(b"accuracy drops", done.stderr)
        self.assertFalse(out.exists())
        self.assertEqual(run("ds-prune", path, "--target-sparsity", "0.5", "--max-drop", "5", "-o", out).returncode, 64)

    def test_errors_are_one_line_with_the_documented_code(self):
        path, _ = self.write("lenet")
        (self.dir / "bad.onnx").write_bytes(b"\x08\x07garbage that is no model")
        cases = [
            ([self.dir / "missing.onnx", "--target-sparsity", "0.5"], 66),
            ([self.dir / "bad.onnx", "--target-sparsity", "0.5"], 65),
            ([path], 64),
            ([path, "--target-sparsity", "1.5"], 64),
            ([path, "--target-sparsity", "0.5", "--target-flops", "0.5"], 64),
            ([path, "--structured", "channels"], 64),
            ([path, "--structured", "channels", "--target-flops", "0.5", "--channel-multiple", "none"], 64),
            ([path, "--structured", "channels", "--target-flops", "0.5", "--shape", "nobody:3"], 64),
            ([path, "--structured", "channels", "--target-flops", "0.001"], 69),
            ([path, "--structured", "channels", "--target-flops", "0.5", "--exclude", "*"], 69),
            ([path, "--target-sparsity", "0.5", "--exclude", "*"], 69),
        ]
        for args, code in cases:
            with self.subTest(args=args):
                out = self.dir / "out.onnx"
                done = run("ds-prune", *args, "-o", out)
                self.assertEqual(done.returncode, code, done.stderr)
                lines = done.stderr.decode().strip().splitlines()
                self.assertTrue(lines[0].startswith("ds-prune: "), lines)
                if code != 64:
                    self.assertEqual(len(lines), 1, lines)
                self.assertFalse(out.exists())
        done = run("ds-prune", path, "--target-sparsity", "0.5", "-o", self.dir / "no" / "folder.onnx")
        self.assertEqual(done.returncode, 73, done.stderr)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main()
