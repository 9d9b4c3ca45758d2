"""Every operator of ai.onnx in every type that its schema allows for its first input.

Two of ONNX's node cases of each operator are written again for each type, their inputs converted; the answers come
from onnxruntime, or from onnx.reference where onnxruntime has no kernel. 16-bit floats are expected to be what f32
gives, rounded once. The cases become folders that ds_tool_onnx_cases runs; tests/onnx/type_exceptions.txt lists the
ones expected to fail.

Usage: type_sweep.py BIN_DIR [FOLDER to keep the cases in].
"""
# ctest: slow
# ctest: timeout 600
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import ml_dtypes  # noqa: F401  (numpy learns the small floats)
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case import node as node_cases
from onnx.reference import ReferenceEvaluator

CASES_PER_OPERATOR = 2
LEAST_CASES = 2600
EXCEPTIONS = pathlib.Path(__file__).resolve().parent.parent / "onnx" / "type_exceptions.txt"
NO_ANSWER = {  # random numbers
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Dropout"}
HALVES = ("float16", "bfloat16")
ELEM = {name.lower().replace("_", ""): number for name, number in TensorProto.DataType.items()}


def elem_type(name):
    """tensor(float8e4m3fn) -> TensorProto.FLOAT8E4M3FN; None for sequences and optionals."""
    return ELEM.get(name[7:-1]) if name.startswith("tensor(") else None


def schemas():
    newest = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version >= newest.get(schema.name, schema).since_version:
            newest[schema.name] = schema
    return {name: s for name, s in newest.items() if not s.deprecated and s.inputs}


def formal(params, i):
    """The schema's parameter of position i; the last may be variadic."""
    return params[min(i, len(params) - 1)]


def converted(array, elem):
    """Of the same values as far as the type has them: no negative ones, no fractions, a few large ones."""
    array = np.asarray(array)
    if elem == TensorProto.STRING:
        return array.astype(str).astype(object)
    if array.dtype == object:
        array = np.array([float(len(s)) for s in array.ravel()]).reshape(array.shape)
    x = array.astype(np.float64)
    dtype = helper.tensor_dtype_to_np_dtype(elem)
    if elem == TensorProto.BOOL:
        return x > 0
    if np.issubdtype(dtype, np.complexfloating):
        return x.astype(dtype)
    name = np.dtype(dtype).name
    if name.startswith(("int", "uint")):
        x = np.nan_to_num(x, nan=1, posinf=3, neginf=-3)
        if x.size and np.abs(x).max() <= 1.5 and not np.array_equal(x, np.round(x)):
            x = x * 4
        bits = int("".join(c for c in name if c.isdigit()))
        low, high = (0, 2.0**min(bits, 53) - 1) if name.startswith("uint") else (-2.0**(min(bits, 53) - 1), 2.0**(min(bits, 53) - 1) - 1)
        x = np.clip(np.trunc(np.abs(x) if low == 0 else x), low, high)
        return x.astype(np.int64).astype(dtype)
    return x.astype(np.float32).astype(dtype) if name != "float64" else x


def retyped(model, schema, elem):
    """A copy of the one-node model in which the first input's type parameter is `elem`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    node, name = copy.graph.node[0], schema.inputs[0].type_str
    declared = {v.name: v.type.tensor_type.elem_type for v in [*copy.graph.input, *copy.graph.output]}
    old, type_name = declared[node.input[0]], "tensor(" + next(k for k, v in ELEM.items() if v == elem) + ")"
    # Other parameters of real numbers follow it: scales of a double are doubles.
    follow = {old, elem} <= {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}

    def same(values, params):
        for i, v in enumerate(values):
            p = formal(params, i)
            if v and (p.type_str == name or (follow and declared[v] == old and type_name in p.types)):
                yield v

    same_in, same_out = set(same(node.input, schema.inputs)), set(same(node.output, schema.outputs))
    for values, same in ((copy.graph.input, same_in), (copy.graph.output, same_out)):
        for v in values:
            if v.name in same:
                v.type.tensor_type.elem_type = elem
    return copy, same_in


def as_array(value):
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def run_onnxruntime(model, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)
    except Exception:  # no kernel, or an opset that is too new
        return None


def answer(model, feeds, trusted):
    """Outputs and who gave them."""
    # numpy has no arrays of the types behind uint64 that onnxruntime takes; its Gather loses strings
    if trusted and all(i.type.tensor_type.elem_type != TensorProto.STRING and i.type.tensor_type.elem_type <= TensorProto.UINT64 for i in [*model.graph.input, *model.graph.output]):
        results = run_onnxruntime(model, feeds)
        if results is not None:
            return results, "onnxruntime"
    return ReferenceEvaluator(model).run(None, feeds), "onnx.reference"


def agrees_with_case(case, feeds):
    """Whether onnxruntime gives what the case says, so that its answers in other types can be believed."""
    results = run_onnxruntime(case.model, feeds)
    if results is None:
        return True
    for r, want in zip(results, case.data_sets[0][1]):
        r, want = np.asarray(r), as_array(want)
        if r.shape != want.shape:
            return False
        if want.dtype.kind == "f" and not np.allclose(r.astype(np.float64), want.astype(np.float64), rtol=1e-3, atol=1e-7, equal_nan=True):
            return False
        if want.dtype.kind in "iub" and not np.array_equal(r, want):
            return False
    return True


def expected(model, schema, elem, name, feeds, trusted):
    """Of the declared types."""
    if name in HALVES:
        model, inputs = retyped(model, schema, TensorProto.FLOAT)
        feeds = {k: v.astype(np.float32) if k in inputs else v for k, v in feeds.items()}
    return answer(model, feeds, trusted)


def as_declared(results, model):
    for r, o in zip(results, model.graph.output):
        want = o.type.tensor_type.elem_type
        with np.errstate(over="ignore", invalid="ignore"):
            yield as_array(r).astype(object if want == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(want))


def write(folder, model, feeds, results, name):
    files = {}
    for kind, values in (("input", [(i.name, feeds[i.name]) for i in model.graph.input]), ("output", zip([o.name for o in model.graph.output], results))):
        for k, (label, value) in enumerate(values):
            files[f"{kind}_{k}.pb"] = numpy_helper.from_array(np.asarray(value), label).SerializeToString()
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for name_of_file, content in files.items():
        (data / name_of_file).write_bytes(content)
    if name in HALVES:  # intermediate sums in f32 differ by order, and so may the rounding
        (folder / "data.json").write_text(json.dumps({"rtol": 2e-3 if name == "float16" else 2.0**-6, "atol": 1e-3 if name == "float16" else 1e-2}))


def write_all(out):
    known, chosen, counts = schemas(), {}, {"onnxruntime": 0, "onnx.reference": 0, "the case": 0}
    np.random.seed(0)
    for case in sorted(node_cases.collect_testcases(), key=lambda c: c.name):
        nodes = case.model.graph.node
        opset = max((i.version for i in case.model.opset_import if i.domain == ""), default=0)
        if len(nodes) != 1 or nodes[0].domain or nodes[0].op_type not in known or case.model.graph.initializer or not case.data_sets:
            continue
        if opset < known[nodes[0].op_type].since_version or not nodes[0].input or not nodes[0].input[0]:
            continue
        if not all(v.type.HasField("tensor_type") for v in [*case.model.graph.input, *case.model.graph.output]):
            continue
        chosen.setdefault(nodes[0].op_type, []).append(case)
    unanswered = []
    for op, cases in sorted(chosen.items()):
        if op in NO_ANSWER:
            continue
        schema = known[op]
        for k, case in enumerate(cases[:CASES_PER_OPERATOR]):
            first = next(i for i in case.model.graph.input if i.name == case.model.graph.node[0].input[0])
            inputs = [as_array(v) for v in case.data_sets[0][0]]
            trusted = agrees_with_case(case, {i.name: v for i, v in zip(case.model.graph.input, inputs)})
            for type_name in sorted(schema.inputs[0].types):
                elem = elem_type(type_name)
                if elem is None:
                    continue
                name = type_name[7:-1]
                label = f"{op}_{name}" + (f"_{k + 1}" if k else "")
                try:
                    model, same = retyped(case.model, schema, elem)
                    given = list(inputs)
                    if op == "DequantizeLinear" and name.startswith("float") and len(given) > 2:
                        given[2] = np.zeros_like(given[2])  # the only zero point they may have
                    feeds = {i.name: converted(v, elem) if i.name in same else v for i, v in zip(model.graph.input, given)}
                    if elem == first.type.tensor_type.elem_type:
                        results, who, feeds = case.data_sets[0][1], "the case", dict(zip(feeds, inputs))
                    else:
                        onnx.checker.check_model(model, full_check=True)
                        results, who = expected(model, schema, elem, name, feeds, trusted)
                    write(out / label, model, feeds, as_declared(results, model), name)
                    counts[who] += 1
                except Exception as error:
                    unanswered.append(f"{label}: {type(error).__name__}: {error}")
    return counts, unanswered


def main():
    binaries = pathlib.Path(sys.argv[1])
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else folder) / "types"
        counts, unanswered = write_all(out)
        if len(sys.argv) > 2:
            print(*[f"nobody answers {line.splitlines()[0][:160]}" for line in unanswered], sep="\n")
        print(f"{sum(counts.values())} cases: " + ", ".join(f"{n} answered by {who}" for who, n in counts.items()), flush=True)
        if sum(counts.values()) < LEAST_CASES:
            sys.exit("type_sweep.py: too few cases")
        command = [binaries / "ds_tool_onnx_cases", "--exceptions", EXCEPTIONS, out]
        sys.exit(subprocess.run([str(c) for c in command]).returncode)


if __name__ == "__main__":
    main()
