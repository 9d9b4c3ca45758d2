"""Writes ONNX's backend test cases, as the installed onnx wheel defines them, into a folder.

usage: onnx_cases.py OUT

Node cases exist in the wheel as Python only; the models of PyTorch exports and the light versions
of well-known CNNs are files in it. Each becomes OUT/<name>/model.onnx and
OUT/<name>/test_data_set_<n>/{input,output}_<k>.pb in ONNX's own layout, with a data.json where the
case asks for other tolerances than rtol 1e-3, atol 1e-7. Nothing is done when OUT holds the cases of
this very wheel already. Fewer than 1,500 cases are a failure.
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys
import warnings
from importlib.metadata import version

LEAST_CASES = 1500
DEFAULT_RTOL, DEFAULT_ATOL = 1e-3, 1e-7


def stamp_text() -> str:
    """What the cases depend on: the packages that make them and this file."""
    source = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    packages = " ".join(f"{name} {version(name)}" for name in ("onnx", "numpy", "ml_dtypes"))
    return f"{packages} {source}\n"


def to_proto(value, type_proto, name):
    """A test value as the protobuf message that its declared type is stored in."""
    import numpy as np
    from onnx import OptionalProto, SequenceProto, TensorProto, numpy_helper

    if isinstance(value, (TensorProto, SequenceProto, OptionalProto)):
        return value
    if type_proto.HasField("map_type"):
        return numpy_helper.from_dict(value, name)
    if type_proto.HasField("sequence_type"):
        return numpy_helper.from_list(value, name)
    if type_proto.HasField("optional_type"):
        return numpy_helper.from_optional(value, name)
    return numpy_helper.from_array(np.asarray(value), name)


def write_data_set(folder: pathlib.Path, kind: str, values, infos) -> None:
    for k, (value, info) in enumerate(zip(values, infos, strict=True)):
        proto = to_proto(value, info.type, info.name)
        (folder / f"{kind}_{k}.pb").write_bytes(proto.SerializeToString(deterministic=True))


def write_case(case, folder: pathlib.Path) -> None:
    """A case of Python values."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
    initializers = {t.name for t in case.model.graph.initializer}
    input_infos = [info for info in case.model.graph.input if info.name not in initializers]
    for n, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{n}"
        data.mkdir()
        write_data_set(data, "input", inputs, input_infos)
        write_data_set(data, "output", outputs, case.model.graph.output)


def write_light_model(case, folder: pathlib.Path, package: pathlib.Path) -> None:
    """A CNN with made-up weights; the wheel has its answer to a ramp from 0 to 1."""
    import numpy as np
    import onnx

    source = package.parent / case.url
    model = onnx.load(source)
    initializers = {t.name for t in model.graph.initializer}
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    shutil.copyfile(source, folder / "model.onnx")
    infos = [info for info in model.graph.input if info.name not in initializers]
    ramps = []
    for info in infos:
        shape = [d.dim_value if d.HasField("dim_value") else 1 for d in info.type.tensor_type.shape.dim]
        size = np.prod(shape)
        ramps.append((np.arange(size).reshape(shape) / size).astype(np.float32))
    write_data_set(data, "input", ramps, infos)
    for k in range(len(model.graph.output)):
        shutil.copyfile(f"{source.with_suffix('')}_output_{k}.pb", data / f"output_{k}.pb")


def write_all(out: pathlib.Path) -> int:
    import numpy as np
    import onnx
    import onnx.backend.test.case.model
    import onnx.backend.test.case.node
    from onnx.backend.test.loader import load_model_tests

    package = pathlib.Path(onnx.__file__).parent
    np.random.seed(0)  # the cases draw their inputs from the global generator
    python_cases = onnx.backend.test.case.node.collect_testcases()
    light_cases = []
    for case in onnx.backend.test.case.model.collect_testcases():
        (light_cases if case.model is None else python_cases).append(case)
    file_cases = []
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        if (package / "backend/test/data" / kind).is_dir():
            file_cases += [c for c in load_model_tests(kind=kind) if c.model_dir is not None]

    names = set()
    for case in sorted(python_cases + light_cases + file_cases, key=lambda c: c.name):
        if case.name in names:
            continue  # "simple" is there both as Python and as files
        names.add(case.name)
        folder = out / case.name
        if case.model is not None:
            write_case(case, folder)
        elif case.model_dir is not None:
            shutil.copytree(case.model_dir, folder)
        else:
            write_light_model(case, folder, package)
        if (case.rtol, case.atol) != (DEFAULT_RTOL, DEFAULT_ATOL):
            (folder / "data.json").write_text(json.dumps({"rtol": case.rtol, "atol": case.atol}) + "\n")
    return len(names)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    warnings.simplefilter("ignore")
    out = pathlib.Path(sys.argv[1])
    stamp = out / ".stamp"
    if stamp.exists() and stamp.read_text() == stamp_text():
        return 0
    part = out.with_name(out.name + ".part")
    for old in (part, out):
        shutil.rmtree(old, ignore_errors=True)
    part.mkdir(parents=True)
    count = write_all(part)
    if count < LEAST_CASES:
        print(f"onnx_cases.py: only {count} cases, expected {LEAST_CASES} or more", file=sys.stderr)
        return 1
    (part / ".stamp").write_text(stamp_text())
    os.rename(part, out)
    print(f"{count} cases in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
