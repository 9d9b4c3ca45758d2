"""ds-serve from outside: plain urllib, curl, signals, exit codes; answers against onnxruntime."""
# ctest: timeout 120
import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

BIN = pathlib.Path(os.environ.get("DS_BIN", "build/release/bin"))


def save(path, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def conv_model(path):
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.normal(size=(4, 1, 3, 3)).astype(np.float32), "w")
    v = numpy_helper.from_array(rng.normal(size=(4 * 64, 10)).astype(np.float32), "v")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    return save(path, nodes, [value("x", TensorProto.FLOAT, ["n", 1, 8, 8])], [value("y", TensorProto.FLOAT, ["n", 10])], [w, v])


def reference(path, x):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


class Server:
    def __init__(self, folder, *args):
        self.port_file = folder / "port"
        self.process = subprocess.Popen([str(BIN / "ds-serve"), *map(str, args), "--port", "0", "--port-file", str(self.port_file)],
                                        stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        while not self.port_file.exists():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, "no port file"
            time.sleep(0.02)
        self.port = int(self.port_file.read_text())
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as reply:
            return reply.read()

    def infer(self, model, x):
        body = {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.flatten().tolist()}]}
        request = urllib.request.Request(f"{self.url}/v2/models/{model}/infer", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as reply:
            output = json.load(reply)["outputs"][0]
        return np.array(output["data"], np.float32).reshape(output["shape"])

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(timeout=60)


@pytest.fixture
def model(tmp_path):
    return conv_model(tmp_path / "digits.onnx")


def test_json_answers_agree_with_onnxruntime(tmp_path, model):
    rng = np.random.default_rng(1)
    with Server(tmp_path, model, f"again={model}") as server:
        assert json.loads(server.get("/v2"))["name"] == "ds-serve"
        meta = json.loads(server.get("/v2/models/digits"))
        assert meta["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
        for rows in (1, 3, 8, 21):
            x = rng.normal(size=(rows, 1, 8, 8)).astype(np.float32)
            np.testing.assert_allclose(server.infer("digits", x), reference(model, x), rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(server.infer("again", x), reference(model, x), rtol=1e-4, atol=1e-4)
        assert b"ds_compute_efficiency{model=\"digits\"}" in server.get("/metrics")
        assert server.stop() == 0
        text = server.process.stderr.read()
        assert f"listening on http://127.0.0.1:{server.port} (again, digits)" in text


def test_binary_tensors(tmp_path, model):
    x = np.random.default_rng(2).normal(size=(2, 1, 8, 8)).astype(np.float32)
    with Server(tmp_path, model) as server:
        head = json.dumps({"inputs": [{"name": "x", "shape": [2, 1, 8, 8], "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}],
                           "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
        request = urllib.request.Request(f"{server.url}/v2/models/digits/infer", head + x.tobytes(),
                                         {"Inference-Header-Content-Length": str(len(head))})
        with urllib.request.urlopen(request, timeout=30) as reply:
            size = int(reply.headers["Inference-Header-Content-Length"])
            body = reply.read()
        assert json.loads(body[:size])["outputs"][0]["shape"] == [2, 10]
        np.testing.assert_allclose(np.frombuffer(body[size:], np.float32).reshape(2, 10), reference(model, x), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(tmp_path, model):
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) / 64
    (tmp_path / "x.bin").write_bytes(x.tobytes())
    body = {"inputs": [{"name": "x", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": x.tolist()}]}  # nested
    (tmp_path / "x.json").write_text(json.dumps(body))
    with Server(tmp_path, model) as server:
        url = f"{server.url}/v2/models/digits/versions/1/infer"

        def curl(*args):
            return subprocess.run(["curl", "-sS", *args, url], capture_output=True, timeout=60, check=True).stdout

        answer = json.loads(curl("--data-binary", f"@{tmp_path}/x.json"))["outputs"][0]["data"]
        np.testing.assert_allclose(answer, reference(model, x)[0], rtol=1e-4, atol=1e-4)
        raw = curl("--data-binary", f"@{tmp_path}/x.bin", "-H", "Inference-Header-Content-Length: 0")
        np.testing.assert_allclose(np.frombuffer(raw[-40:], np.float32), reference(model, x)[0], rtol=1e-4, atol=1e-4)
        # Above 1 MiB curl asks first (Expect: 100-continue).
        many = np.zeros((32, 1, 8, 8), np.float32)
        padding = " " * (2 << 20)
        large = {"inputs": [{"name": "x", "shape": [32, 1, 8, 8], "datatype": "FP32", "data": many.flatten().tolist()}]}
        (tmp_path / "large.json").write_text(json.dumps(large) + padding)
        assert json.loads(curl("--data-binary", f"@{tmp_path}/large.json"))["outputs"][0]["shape"] == [32, 10]


def test_refusals_name_what_is_wrong(tmp_path, model):
    def refused(server, path, body, status, *parts):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(server.url + path, body), timeout=30)
        text = json.loads(caught.value.read())["error"]
        assert caught.value.code == status and all(p in text for p in parts), text

    with Server(tmp_path, model, "--max-body-mb", "0.01") as server:
        refused(server, "/v2/models/nothing", None, 404, "unknown model 'nothing'", "digits")
        refused(server, "/v2/models/digits/infer", b"{", 400, "model 'digits'", "malformed JSON")
        wrong = {"inputs": [{"name": "x", "shape": [1, 2, 8, 8], "datatype": "FP32", "data": [0] * 128}]}
        refused(server, "/v2/models/digits/infer", json.dumps(wrong).encode(), 400, "model 'digits'", "input 'x'", "[1,2,8,8]", "[-1,1,8,8]")
        refused(server, "/v2/models/digits/infer", b" " * 20000, 413, "limit of 10485 bytes")
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
            raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")  # a TLS client hello
            assert raw.recv(100).startswith(b"HTTP/1.1 400")
        assert server.stop(signal.SIGINT) == 0  # and none of it did any harm


def test_concurrent_clients_get_their_own_answers(tmp_path, model):
    rng = np.random.default_rng(3)
    xs = [rng.normal(size=(1 + i % 4, 1, 8, 8)).astype(np.float32) for i in range(64)]
    with Server(tmp_path, model, "--instances", "2", "--batch-policy", "fixed", "--batch-timeout-ms", "5", "--max-batch-size", "8") as server:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda x: server.infer("digits", x), xs))
        for x, y in zip(xs, answers):
            np.testing.assert_allclose(y, reference(model, x), rtol=1e-4, atol=1e-4)


def test_sigterm_finishes_the_request_under_way(tmp_path, model):
    # The fixed policy holds the request for a minute; told to stop, the server answers it and exits.
    with Server(tmp_path, model, "--batch-policy", "fixed", "--batch-timeout-ms", "60000") as server:
        x = np.zeros((1, 1, 8, 8), np.float32)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(server.infer, "digits", x)
            while b'ds_queue_length{model="digits"} 1\n' not in server.get("/metrics"):
                time.sleep(0.01)
            assert server.stop() == 0
            assert answer.result(timeout=30).shape == (1, 10)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_keep_alive(tmp_path, model):
    with Server(tmp_path, model) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for _ in range(5):
            client.request("GET", "/v2/health/ready")
            reply = client.getresponse()
            assert (reply.status, json.loads(reply.read())) == (200, {"ready": True})
        client.close()


def test_exit_codes(tmp_path, model):
    def run(*args):
        done = subprocess.run([str(BIN / "ds-serve"), *map(str, args)], capture_output=True, text=True, timeout=60)
        assert done.stderr.startswith("ds-serve: ") and done.stderr.count("\n") == 1, done.stderr
        return done.returncode, done.stderr

    assert run(tmp_path / "missing.onnx")[0] == 66
    (tmp_path / "junk.onnx").write_bytes(b"not a model")
    code, text = run(tmp_path / "junk.onnx")
    assert code == 65 and "junk.onnx" in text
    assert run()[0] == 64
    assert run(model, model)[0] == 64
    assert run(model, "--batch-policy", "sometimes")[0] == 64
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = run(model, "--port", taken.getsockname()[1])
        assert code == 71 and "cannot listen" in text
