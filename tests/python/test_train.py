"""A third party agrees with what ds-train writes: onnx.checker and onnxruntime on fresh models of every
family, numpy on checkpoints, and numpy on one step of training."""
import os
import pathlib
import subprocess
import zipfile

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

BIN = pathlib.Path(os.environ["DS_BIN"])


def ds(*args):
    done = subprocess.run([str(BIN / args[0]), *map(str, args[1:])], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ort_run(path, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))


ARCHS = {
    "mlp": ["--features", "20", "--scale", "0.1", "--mean", "0.5"],
    "lenet": ["--scale", "0.00392156862745098", "--mean", "0.1307", "--std", "0.3081"],
    "resnet18": ["--small-stem", "--classes", "10", "--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.4"],
    "resnet50": ["--image-size", "64", "--classes", "10"],
    "bert": ["--hidden", "32", "--layers", "2", "--heads", "4", "--vocab", "50", "--max-length", "16"],
}


@pytest.mark.parametrize("arch", ARCHS)
def test_fresh_models_run_alike(arch, tmp_path):
    model = tmp_path / "m.onnx"
    ds("ds-train", "init", "--arch", arch, *ARCHS[arch], "--seed", 3, "-o", model)
    onnx.checker.check_model(str(model), full_check=True)
    proto = onnx.load(str(model))
    assert proto.opset_import[0].version == 17 and len(proto.opset_import) == 1
    rng = np.random.default_rng(0)
    feeds = {}
    for value in proto.graph.input:
        sizes = [3 if d.dim_param == "batch" else 7 if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            feeds[value.name] = rng.standard_normal(sizes).astype(np.float32)
        else:
            feeds[value.name] = rng.integers(0, 2 if "mask" in value.name else 50, sizes)
    if "attention_mask" in feeds:
        feeds["attention_mask"][:, 0] = 1
    np.savez(tmp_path / "x.npz", **feeds)
    ds("ds-bench", "run", model, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    got, want = dict(np.load(tmp_path / "y.npz")), ort_run(model, feeds)
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].shape == want[name].shape
        error = np.abs(got[name] - want[name]) / np.maximum(1, np.abs(want[name]))
        assert error.max() <= 1e-4


def weights(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}


def test_one_step_of_sgd_is_what_numpy_says(tmp_path):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 5)).astype(np.float32), rng.integers(0, 3, 8)
    np.savez(tmp_path / "d.npz", input=x, label=y)
    ds("ds-train", "init", "--arch", "mlp", "--features", 5, "--hidden-sizes", 6, "--classes", 3, "-o", tmp_path / "a.onnx")
    ds("ds-train", tmp_path / "a.onnx", "--data", tmp_path / "d.npz", "--batch-size", 8, "--epochs", 1, "--optimizer", "sgd",
       "--lr", 0.1, "--schedule", "constant", "--momentum", 0, "--quiet", "-o", tmp_path / "b.onnx")
    a, b = weights(tmp_path / "a.onnx"), weights(tmp_path / "b.onnx")
    w1, b1, w2, b2 = (a[n].astype(np.float64) for n in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"))
    hidden = x @ w1.T + b1
    active = np.maximum(hidden, 0)
    logits = active @ w2.T + b2
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    d_logits = (p - np.eye(3)[y]) / 8
    d_hidden = (d_logits @ w2) * (hidden > 0)
    expected = {"fc2.weight": w2 - 0.1 * d_logits.T @ active, "fc2.bias": b2 - 0.1 * d_logits.sum(0),
                "fc1.weight": w1 - 0.1 * d_hidden.T @ x, "fc1.bias": b1 - 0.1 * d_hidden.sum(0)}
    for name, want in expected.items():
        np.testing.assert_allclose(b[name], want, rtol=1e-5, atol=1e-6, err_msg=name)


def test_pruned_weights_stay_zero_in_fine_tuning(tmp_path):
    rng = np.random.default_rng(2)
    np.savez(tmp_path / "d.npz", input=rng.standard_normal((64, 10)).astype(np.float32), label=rng.integers(0, 2, 64))
    ds("ds-train", "init", "--arch", "mlp", "--features", 10, "--hidden-sizes", 32, "--classes", 2, "-o", tmp_path / "a.onnx")
    common = ["--data", tmp_path / "d.npz", "--batch-size", 16, "--optimizer", "adamw", "--lr", 0.01, "--quiet"]
    ds("ds-train", tmp_path / "a.onnx", *common, "--epochs", 8, "--prune", "magnitude", "--target-sparsity", 0.6, "-o", tmp_path / "b.onnx")
    ds("ds-train", tmp_path / "b.onnx", *common, "--epochs", 4, "-o", tmp_path / "c.onnx")
    b, c = weights(tmp_path / "b.onnx"), weights(tmp_path / "c.onnx")
    names = ["fc1.weight", "fc2.weight"]
    zeros = sum((b[n] == 0).sum() for n in names) / sum(b[n].size for n in names)
    assert abs(zeros - 0.6) < 0.01
    for name in names:
        assert (c[name][b[name] == 0] == 0).all()
    assert (c["fc1.weight"] != b["fc1.weight"]).any()


def test_numpy_reads_checkpoints(tmp_path):
    rng = np.random.default_rng(3)
    np.savez_compressed(tmp_path / "d.npz", input=rng.standard_normal((32, 4)), label=rng.integers(0, 2, 32).astype(np.uint8))
    ds("ds-train", "init", "--arch", "mlp", "--features", 4, "--hidden-sizes", 8, "--classes", 2, "-o", tmp_path / "a.onnx")
    ds("ds-train", tmp_path / "a.onnx", "--data", tmp_path / "d.npz", "--batch-size", 8, "--epochs", 2, "--quiet",
       "--checkpoint-dir", tmp_path / "c", "-o", tmp_path / "b.onnx")
    newest = sorted((tmp_path / "c").iterdir())[-1]
    assert newest.name == "step-000000000008.ckpt"
    assert zipfile.ZipFile(newest).testzip() is None
    arrays, trained = np.load(newest), weights(tmp_path / "b.onnx")
    for name in trained:
        if name.startswith("fc"):
            np.testing.assert_array_equal(arrays[name], trained[name])
