"""Large models: above 2 GiB read, written, and taken by others; and how little memory models of 400 MB hold.

Usage: large_models.py BIN_DIR [unittest arguments]. BIN_DIR holds ds-bench and ds_tool_resave. Needs 6 GB
of disk (TMPDIR) and 4 GB of memory; skipped where they are not there.
"""
# ctest: slow
# ctest: timeout 900
# ctest: alone
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

BIN = pathlib.Path("build/release/bin")
MB = 1 << 20


def available_memory():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 0


def run(*args, stdin=None):
    """Seconds, most anonymous memory, and anonymous memory when it was last seen, in bytes."""
    start = time.monotonic()
    child = subprocess.Popen([str(BIN / args[0]), *map(str, args[1:])], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    most = last = 0
    while child.poll() is None:
        try:
            for line in pathlib.Path(f"/proc/{child.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    last = int(line.split()[1]) * 1024
                    most = max(most, last)
        except OSError:
            pass
        time.sleep(0.002)
    out, err = child.communicate()
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: exit {child.returncode}: {err.decode().strip()}")
    seconds = time.monotonic() - start
    print(f"{args[0]} {' '.join(str(a) for a in args[1:] if not str(a).startswith('/'))}: {seconds:.2f} s, {most / MB:.0f} MB anonymous",
          file=sys.stderr)
    return seconds, most, out


def f32(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def save(path, nodes, inputs, outputs, initializers, external=False):
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path), save_as_external_data=external, location=path.name + ".bin" if external else None)


def products(path, external, layers=25, width=2048):
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for i in range(layers):
        weights.append(numpy_helper.from_array(rng.standard_normal((width, width), dtype=np.float32) / width**0.5, f"w{i}"))
        nodes += [helper.make_node("MatMul", [x, f"w{i}"], [f"y{i}"], f"product{i}"), helper.make_node("Relu", [f"y{i}"], [f"r{i}"], f"relu{i}")]
        x = f"r{i}"
    save(path, nodes, [f32("x", "n", width)], [f32(x, "n", width)], weights, external)
    return sum(w.ByteSize() for w in weights)


def convolutions(path, external, layers=45, channels=512):
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for i in range(layers):
        w = rng.standard_normal((channels, channels, 3, 3), dtype=np.float32) / (9 * channels) ** 0.5
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        for kind, value in (("scale", 1.5), ("shift", 0), ("mean", 0), ("variance", 1)):
            weights.append(numpy_helper.from_array(np.full(channels, value, np.float32), f"{kind}{i}"))
        nodes += [
            helper.make_node("Conv", [x, f"w{i}"], [f"y{i}"], f"conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"y{i}", f"scale{i}", f"shift{i}", f"mean{i}", f"variance{i}"], [f"z{i}"], f"norm{i}"),
            helper.make_node("Relu", [f"z{i}"], [f"r{i}"], f"relu{i}"),
        ]
        x = f"r{i}"
    save(path, nodes, [f32("x", "n", channels, 8, 8)], [f32(x, "n", channels, 8, 8)], weights, external)
    return sum(w.ByteSize() for w in weights)


class LargeModels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="ds-large-"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def needs(self, disk, memory):
        if shutil.disk_usage(self.folder).free < disk or available_memory() < memory:
            self.skipTest(f"needs {disk / 1e9:.0f} GB of disk and {memory / 1e9:.0f} GB of memory")

    def test_memory_of_models(self):
        self.needs(3e9, 4e9)
        for build in (products, convolutions):
            for external in (False, True):
                with self.subTest(model=build.__name__, external=external):
                    path = self.folder / f"{build.__name__}.onnx"
                    size = build(path, external)
                    seconds, most, _ = run("ds-bench", "inspect", path)
                    self.assertLess(most, 0.2 * size, "inspect")
                    self.assertLess(seconds, size / 100e6, "one second for each 100 MB")
                    shape = "x:1x2048" if build is products else "x:1x512x8x8"
                    _, most, _ = run("ds-bench", path, "--shape", shape, "--iterations", 3, "--warmup", 1)
                    self.assertLess(most, 1.1 * size + 100 * MB, "a run")
                    if not external:
                        with open(path, "rb") as file:
                            _, most, _ = run("ds-bench", "inspect", "-", stdin=file)
                        self.assertLess(most, 0.2 * size, "standard input that is a file")
                        cat = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
                        _, most, _ = run("ds-bench", "inspect", "-", stdin=cat.stdout)
                        cat.wait()
                        self.assertLess(most, 1.1 * size, "standard input that is a pipe")
                    for file in self.folder.iterdir():
                        file.unlink()

    def test_above_two_gib(self):
        self.needs(6e9, 4e9)
        rows, columns, count = 1000, 115000, 5  # 2.3 GB
        data = self.folder / "in.bin"
        initializers, nodes, expected = [], [], 0
        rng = np.random.default_rng(1)
        with open(data, "wb") as file:  # full of holes, but for one row of each tensor
            for i in range(count):
                row = rng.standard_normal(columns, dtype=np.float32)
                file.seek(i * rows * columns * 4 + 7 * columns * 4)
                file.write(row.tobytes())
                expected = expected + row
                tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[rows, columns], data_location=TensorProto.EXTERNAL)
                for key, value in (("location", "in.bin"), ("offset", i * rows * columns * 4), ("length", rows * columns * 4)):
                    tensor.external_data.add(key=key, value=str(value))
                initializers.append(tensor)
                nodes.append(helper.make_node("Gather", [f"w{i}", "row"], [f"g{i}"], f"gather{i}"))
            file.truncate(count * rows * columns * 4)
        nodes.append(helper.make_node("Sum", [f"g{i}" for i in range(count)], ["y"], "sum"))
        graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("row", TensorProto.INT64, [1])], [f32("y", 1, columns)], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (self.folder / "in.onnx").write_bytes(model.SerializeToString())

        _, most, _ = run("ds_tool_resave", self.folder / "in.onnx", self.folder / "out.onnx")
        self.assertLess(most, 100 * MB, "written straight from the map")
        size = rows * columns * 4
        aligned = -(-size // 4096) * 4096  # where the next tensor starts
        self.assertEqual((self.folder / "out.onnx.data").stat().st_size, (count - 1) * aligned + size)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["in.bin", "in.onnx", "out.onnx", "out.onnx.data"])
        onnx.checker.check_model(str(self.folder / "out.onnx"), full_check=True)
        loaded = onnx.load(str(self.folder / "out.onnx"), load_external_data=False)
        for i, t in enumerate(loaded.graph.initializer):
            entries = {e.key: e.value for e in t.external_data}
            self.assertEqual(entries["location"], "out.onnx.data")
            self.assertEqual(int(entries["offset"]) % 4096, 0)
        whole = onnx.load(str(self.folder / "out.onnx"))
        self.assertEqual(numpy_helper.to_array(whole.graph.initializer[0]).shape, (rows, columns))
        del whole
        session = ort.InferenceSession(str(self.folder / "out.onnx"), providers=["CPUExecutionProvider"])
        got = session.run(None, {"row": np.array([7])})[0]
        np.testing.assert_allclose(got[0], expected, rtol=1e-6)
        del session
        np.savez(self.folder / "feed.npz", row=np.array([7]))
        run("ds-bench", "run", self.folder / "out.onnx", "--input", self.folder / "feed.npz", "--output", self.folder / "y.npz")
        np.testing.assert_allclose(np.load(self.folder / "y.npz")["y"][0], expected, rtol=1e-6)
        failed = subprocess.run([BIN / "ds_tool_resave", self.folder / "in.onnx", "-"], capture_output=True)
        self.assertEqual(failed.returncode, 69)
        self.assertEqual(failed.stdout, b"")
        self.assertIn(b"standard output", failed.stderr)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main(verbosity=2)
