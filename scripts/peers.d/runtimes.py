"""Contenders: something that runs a model in a burst and says how long a run took and what it returned."""
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np

from models import Unavailable

HERE = pathlib.Path(__file__).parent
LIMIT = 900  # seconds for one burst
environment = dict(os.environ)  # of every contender


def pretend(level, folder):
    """Makes all contenders see a CPU of that level: "avx2" has no AVX-512, VNNI or AMX."""
    assert level == "avx2"
    library = folder / "mask_cpuid.so"
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["cc", "-O2", "-shared", "-fPIC", HERE / "mask_cpuid.c", "-o", library], capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"mask_cpuid.c does not compile: {done.stderr.strip()[:200]}")
    environment["LD_PRELOAD"] = str(library)
    done = subprocess.run(["true"], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise Unavailable(done.stderr.strip())


@dataclasses.dataclass
class Burst:
    seconds: float       # median time of a run
    create: float        # file to ready to run
    extra: dict = dataclasses.field(default_factory=dict)


def call(command, what):
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=LIMIT, env=environment)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what} took more than {LIMIT} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise Unavailable(lines[-1] if lines else f"{what} ended with {done.returncode}")
    return done.stdout


class Ds:
    """ds-bench, by its documented options alone."""
    name = "ds"

    def __init__(self, bin_dir, model, threads, precision="fp32", path=None):
        self.bench = pathlib.Path(bin_dir) / "ds-bench"
        self.model, self.threads, self.precision = model, threads, precision
        self.path = path or model.path
        self.flags = ["--threads", threads, "--precision", precision]

    def burst(self, runs):
        text = call([self.bench, self.path, *self.flags, "--input", self.model.feed_path, "--iterations", runs, "--format", "json", "--quiet"], "ds-bench")
        row = json.loads(text)["rows"][0]
        return Burst(row["latency_seconds"]["p50"], row["load_seconds"] + row["compile_seconds"],
                     {"efficiency": row["ds_compute_efficiency"], "version": json.loads(text)["version"]})

    def at_shapes(self, shapes, runs):
        """Static: one shape only."""
        flags = [f for name, s in shapes.items() for f in ("--shape", f"{name}:[{','.join(map(str, s))}]")]
        text = call([self.bench, self.path, *self.flags, *flags, "--iterations", runs, "--format", "json", "--quiet"], "ds-bench")
        return json.loads(text)["rows"][0]["latency_seconds"]["p50"]

    def vary(self, flags):
        text = call([self.bench, self.path, *self.flags, *flags, "--iterations", 3, "--format", "json", "--quiet"], "ds-bench")
        v = json.loads(text)["rows"][0]["vary"]
        return {"first": v["first_seconds"], "again": v["repeat_seconds"], "return": v["return_seconds"]}

    def outputs(self):
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder) / "y.npz"
            call([self.bench, "run", self.path, "--input", self.model.feed_path, "--output", target, *self.flags, "--quiet"], "ds-bench run")
            with np.load(target) as archive:
                return dict(archive)


class Peer:
    def __init__(self, kind, model, threads, precision="f32", path=None, label=None):
        self.kind, self.model, self.threads, self.precision = kind, model, threads, precision
        self.path = path or model.path
        self.name = label or {"ort": "onnxruntime", "openvino": "OpenVINO"}[kind]

    def worker(self, *rest):
        return json.loads(call([sys.executable, HERE / "worker.py", self.kind, self.path, self.model.feed_path, self.threads, self.precision, *rest],
                               self.name).splitlines()[-1])

    def dims(self):
        return self.model.path.with_name(f"{self.model.name}.dims.json")

    def burst(self, runs):
        result = self.worker(runs, 3, self.dims())
        return Burst(statistics.median(result["seconds"]), result["create"], {"version": result["version"], "precision": result["precision"]})

    def vary(self, shapes):
        return self.worker("vary", json.dumps(shapes))

    def outputs(self):
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder) / "y.npz"
            self.worker(1, 0, self.dims(), target)
            with np.load(target) as archive:
                return dict(archive)


def agreement(got, expected):
    """(cosine, largest absolute error) over all float outputs; those that share a name, else by position."""
    names = [n for n in expected if expected[n].dtype.kind == "f"]
    pairs = [(got[n], expected[n]) for n in names if n in got] if any(n in got for n in names) else list(zip(got.values(), expected.values()))
    a = np.concatenate([g.astype(np.float64).ravel() for g, _ in pairs])
    b = np.concatenate([e.astype(np.float64).ravel() for _, e in pairs])
    if a.shape != b.shape:
        raise Unavailable(f"outputs of {a.size} elements, expected {b.size}")
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return (float(a @ b / scale) if scale > 0 else float(np.array_equal(a, b))), float(np.max(np.abs(a - b), initial=0))
