"""Every model of the zoo against onnxruntime, at three shapes or more each; and written again by us: the
newest checker and onnxruntime take it, OpenVINO compiles it where it compiles the original, onnxruntime's
numbers are bit for bit those of the original, and a second writing is the first byte for byte.

Models that need what catalog.LACKING lists may be refused.

Usage: zoo_vs_ort.py BIN_DIR [NAME...]. A NAME is a part of a model's name; without any, all run. BIN_DIR
holds ds-bench, ds-train and ds_tool_resave; files go to build/models. Prints a table.
"""
# ctest: slow
# ctest: timeout 600
import filecmp
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from zoo import catalog  # noqa: E402

BIN = pathlib.Path("build/release/bin")
FOLDER = pathlib.Path("build/models")


class Failure(Exception):
    pass


def ds(*args):
    done = subprocess.run([str(BIN / args[0]), *map(str, args[1:])], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise Failure(f"{args[0]} {args[1]}: exit {done.returncode}: {done.stderr.strip()[-600:]}")


def session(path, optimize=True):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(s, feed):
    names = [o.name for o in s.get_outputs()]
    return dict(zip(names, s.run(names, feed)))


def difference(got, expected, what):
    """Largest |got - expected| / max(1, |expected|) over all outputs."""
    if set(got) != set(expected):
        raise Failure(f"{what}: outputs {sorted(got)}, expected {sorted(expected)}")
    worst = 0.0
    for name, e in expected.items():
        g = got[name]
        if g.shape != e.shape or g.dtype != e.dtype:
            raise Failure(f"{what}: {name} is {g.dtype}{list(g.shape)}, expected {e.dtype}{list(e.shape)}")
        if e.size == 0:
            continue
        g, e = g.astype(np.float64), e.astype(np.float64)
        if not np.array_equal(np.isfinite(g), np.isfinite(e)):
            raise Failure(f"{what}: {name}: {np.sum(~np.isfinite(g))} elements are not finite, expected {np.sum(~np.isfinite(e))}")
        finite = np.isfinite(e)
        if finite.any():
            worst = max(worst, float(np.max(np.abs(g - e)[finite] / np.maximum(1, np.abs(e[finite])))))
    return worst


def shapes(feed):
    return " ".join("x".join(map(str, a.shape)) or "scalar" for a in list(feed.values())[:2])


def check_numbers(model, path, folder):
    """(largest difference, time of our slowest load and run)."""
    reference, worst, slowest = session(path, model.optimize), 0.0, 0.0
    for i, feed in enumerate(model.feeds):
        expected = run(reference, feed)
        np.savez(folder / "x.npz", **feed)
        for flags in [[], ["--no-static"]][: 2 if i == 1 else 1]:
            start = time.monotonic()
            ds("ds-bench", "run", path, "--input", folder / "x.npz", "--output", folder / "y.npz", *flags)
            slowest = max(slowest, time.monotonic() - start)
            with np.load(folder / "y.npz") as got:
                what = f"{shapes(feed)} {' '.join(flags)}"
                found = difference(dict(got), expected, what)
            if not found <= model.tolerance:
                raise Failure(f"{what}: differs by {found:.2e}")
            worst = max(worst, found)
    return worst, slowest


def check_written(model, path, folder, openvino):
    again, third = folder / "again.onnx", folder / "third.onnx"
    ds("ds_tool_resave", path, again)
    ds("ds_tool_resave", again, third)
    if not filecmp.cmp(again, third, shallow=False):
        raise Failure("written twice it differs from written once")
    onnx.checker.check_model(str(again), full_check=not uses_foreign_domain(again))
    before, after = session(path, False), session(again, False)
    interface = lambda s: [[(v.name, v.type, v.shape) for v in vs] for vs in (s.get_inputs(), s.get_outputs())]  # noqa: E731
    if interface(before) != interface(after):
        raise Failure(f"written again its interface is {interface(after)}, was {interface(before)}")
    few = path.stat().st_size > 200e6  # for the time it takes
    for feed in model.feeds[: 1 if few else None]:
        a, b = run(before, feed), run(after, feed)
        for name in a:
            if not np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f"):
                raise Failure(f"{shapes(feed)}: written again {name} differs by {difference(b, a, name):.2e} in onnxruntime")
    return openvino and loads(openvino, path, again)


def loads(openvino, path, again):
    """Whether OpenVINO compiles what we wrote; it must, unless it does not compile the original either."""
    try:
        openvino.compile_model(str(again), "CPU")
        return True
    except RuntimeError as error:
        try:
            openvino.compile_model(str(path), "CPU")
        except RuntimeError:
            return False
        raise Failure(f"OpenVINO compiles the original, but not what we wrote: {error}") from None


def make(model, path):
    if not path.exists():
        part = path.with_name(f"{model.name}.part.onnx")
        model.write(part)
        part.rename(path)


def lacking(path):
    """What the file has of catalog.LACKING."""
    def walk(graph):
        for node in graph.node:
            yield node.op_type + (f" ({node.domain})" if node.op_type == "Gelu" and node.domain else "")
            for a in node.attribute:
                for body in [a.g, *a.graphs]:
                    yield from walk(body)
        yield from ("float16" for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT16)
    return sorted(set(walk(onnx.load(path, load_external_data=False).graph)) & catalog.LACKING)


def is_refused(path, folder):
    done = subprocess.run([str(BIN / "ds_tool_resave"), str(path), str(folder / "again.onnx")], capture_output=True, timeout=300)
    return done.returncode in (65, 69)


def uses_foreign_domain(path):
    """The checker's shape inference knows the operators of ONNX only."""
    return any(o.domain not in ("", "ai.onnx.ml") for o in onnx.load(path).opset_import)


def main():
    global BIN
    arguments = sys.argv[1:]
    if arguments and (pathlib.Path(arguments[0]) / "ds-bench").exists():
        BIN = catalog.BIN = pathlib.Path(arguments.pop(0))
    try:
        import openvino
        core = openvino.Core()
    except ImportError:
        core = None
        print("openvino is not installed: what we write is not loaded in it")
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = done = loaded = refused = 0
    print(f"{'model':24} {'opset':>5} {'MB':>6} {'shapes':>6} {'difference':>10} {'allowed':>8} {'load+run s':>10} {'total s':>8}")
    for model in catalog.catalog():
        if arguments and not any(a in model.name for a in arguments):
            continue
        done += 1
        path = FOLDER / f"{model.name}.onnx"
        start, problems, worst, slowest = time.monotonic(), [], float("nan"), float("nan")
        missing = []
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            try:
                make(model, path)
                missing = lacking(path)
                if missing and not is_refused(path, folder):
                    print(f"{model.name} loads: catalog.LACKING need not name {', '.join(missing)}")
                    missing = []
                if not missing:
                    worst, slowest = check_numbers(model, path, folder)
                    loaded += bool(check_written(model, path, folder, core))
            except Exception as failure:  # noqa: BLE001 (whatever a third party says)
                problems.append(f"{type(failure).__name__}: {str(failure)[:600]}")
        if not path.exists():
            print(f"{model.name:24}\n    FAILED: {problems[0]}", flush=True)
            failed += 1
            continue
        opset = next(o.version for o in onnx.load(path, load_external_data=False).opset_import if o.domain in ("", "ai.onnx"))
        print(f"{model.name:24} {opset:5} {path.stat().st_size / 1e6:6.1f} {len(model.feeds):6} {worst:10.1e} {model.tolerance:8.0e} "
              f"{slowest:10.2f} {time.monotonic() - start:8.2f}", flush=True)
        refused += bool(missing)
        if missing:
            print(f"    refused: {', '.join(missing)}", flush=True)
        for problem in problems:
            print(f"    FAILED: {problem}", flush=True)
        failed += bool(problems)
    print(f"{done - failed - refused} of {done} models pass, {refused} are refused as listed; OpenVINO compiles {loaded} of them, written by us")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
