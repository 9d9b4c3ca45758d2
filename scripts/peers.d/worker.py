"""One burst of one peer in a process of its own, as a burst of ds is: loads, warms up, times, prints JSON.

worker.py ort|openvino MODEL.onnx FEED.npz THREADS PRECISION RUNS WARMUP [DIMS.json] [OUTPUT.npz]
worker.py ort|openvino MODEL.onnx FEED.npz THREADS PRECISION vary '[{"x": [1, 3, 48, 97]}, ...]'
"""
import json
import sys
import time

import numpy as np


class Ort:
    def __init__(self, path, threads, precision, dims):
        import onnxruntime as ort
        self.ort = ort
        ort.set_default_logger_severity(4)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        for name, size in dims.items():
            options.add_free_dimension_override_by_name(name, size)
        start = time.perf_counter()
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.create_seconds = time.perf_counter() - start
        self.version, self.precision = ort.__version__, "f32"
        self.names = [o.name for o in self.session.get_outputs()]

    def bind(self, feed):
        # Bound memory: no conversion of arrays within the timed part.
        self.binding = self.session.io_binding()
        self.held = {k: self.ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(v)) for k, v in feed.items()}
        for name, value in self.held.items():
            self.binding.bind_ortvalue_input(name, value)
        for name in self.names:
            self.binding.bind_output(name)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def outputs(self):
        return dict(zip(self.names, self.binding.copy_outputs_to_cpu()))


class OpenVino:
    def __init__(self, path, threads, precision, shapes):
        import openvino as ov
        import openvino.properties as props
        import openvino.properties.hint as hint
        core = ov.Core()
        config = {hint.performance_mode: hint.PerformanceMode.LATENCY, props.inference_num_threads: threads}
        if precision == "f32":
            config[hint.inference_precision] = ov.Type.f32
        start = time.perf_counter()
        model = core.read_model(path)
        if shapes:
            model.reshape({k: list(v) for k, v in shapes.items()})
        self.compiled = core.compile_model(model, "CPU", config)
        self.create_seconds = time.perf_counter() - start
        self.version = ov.__version__
        self.precision = str(self.compiled.get_property(hint.inference_precision).get_type_name())
        self.request = self.compiled.create_infer_request()
        self.ov = ov

    def bind(self, feed):
        self.held = {k: self.ov.Tensor(np.ascontiguousarray(v), shared_memory=False) for k, v in feed.items()}
        for name, tensor in self.held.items():
            self.request.set_tensor(name, tensor)

    def run(self):
        self.request.start_async()
        self.request.wait()

    def outputs(self):
        return {next(iter(o.get_names()), str(i)): np.array(self.request.get_tensor(o).data) for i, o in enumerate(self.compiled.outputs)}


def timed(runtime):
    start = time.perf_counter()
    runtime.run()
    return time.perf_counter() - start


def main():
    kind, path, feed_path, threads, precision = sys.argv[1:6]
    with np.load(feed_path) as archive:
        feed = dict(archive)
    runtime = Ort if kind == "ort" else OpenVino
    if sys.argv[6] == "vary":
        subject = runtime(path, int(threads), precision, {})
        rng, first, again = np.random.default_rng(0), [], []
        for shapes in json.loads(sys.argv[7]):
            now = dict(feed)
            for name, shape in shapes.items():
                of = feed[name].dtype
                now[name] = rng.standard_normal(shape).astype(of) if of.kind == "f" else np.ones(shape, of)
            subject.bind(now)
            first.append(timed(subject))
            again.append(float(np.median([timed(subject) for _ in range(3)])))
        result = {"first": first, "again": again}
    else:
        runs, warmup = int(sys.argv[6]), int(sys.argv[7])
        dims = json.load(open(sys.argv[8])) if len(sys.argv) > 8 else {}
        subject = runtime(path, int(threads), precision, dims if kind == "ort" else {k: v.shape for k, v in feed.items()})
        subject.bind(feed)
        for _ in range(warmup):
            subject.run()
        result = {"seconds": [timed(subject) for _ in range(runs)]}
        if len(sys.argv) > 9:
            subject.run()
            np.savez(sys.argv[9], **subject.outputs())
    print(json.dumps({"create": subject.create_seconds, "version": subject.version, "precision": subject.precision, **result}))


if __name__ == "__main__":
    main()
