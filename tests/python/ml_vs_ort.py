"""Operators of domain ai.onnx.ml, and RegexFullMatch, against onnxruntime on models built by hand.

Every case is a model of one node that is run at several batch sizes; what onnxruntime returns is kept in ONNX's own
test layout, and ds_tool_onnx_cases runs all of them.

Not compared, as onnxruntime does something of its own there: labels of two-class tree models whose leaves vote for
both classes (it returns 0 and 1 whatever the labels are), transforms other than LOGISTIC of a single score (it leaves
them out), NaN at a node of mode BRANCH_NEQ (the specification sends it to the false branch), and NaN as a key of a
LabelEncoder of set 2 (only set 4 says that it is found).

Usage: ml_vs_ort.py BIN_DIR [unittest arguments].
"""
# ctest: slow
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
SEEDS = range(3)
BATCHES = (1, 7, 300)
F32, F64, I32, I64 = np.float32, np.float64, np.int32, np.int64
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")


class Case:
    """`inputs`: arrays, or functions of the number of rows. `outputs`: names and types; one that is `hidden` is made
    and not compared."""

    def __init__(self, op, inputs, attrs, outputs, domain="ai.onnx.ml", opset=3, hidden=(), tolerance=1e-5, name=""):
        self.op, self.inputs, self.attrs, self.outputs = op, inputs, attrs, outputs
        self.domain, self.opset, self.hidden, self.tolerance, self.name = domain, opset, hidden, tolerance, name


# --- trees ------------------------------------------------------------------------------------------


class Forest:
    """Random trees over `features`: a list of trees, each of (mode, feature, value, nan is true, true, false) or a list
    of votes (target, weight)."""

    def __init__(self, rng, trees, features, depth, vote, modes=MODES[:1], missing=False):
        self.rng, self.features, self.vote, self.modes, self.missing = rng, features, vote, modes, missing
        self.trees = [self.node(depth) for _ in range(trees)]

    def node(self, depth):
        if depth == 0 or self.rng.random() < 0.1:
            return self.vote()
        mode = str(self.rng.choice(self.modes))
        nan_is_true = bool(self.missing and (mode == "BRANCH_NEQ" or self.rng.random() < 0.5))
        # One decimal, as the features: thresholds are hit exactly.
        value = float(np.round(self.rng.standard_normal(), 1))
        return (mode, int(self.rng.integers(self.features)), value, nan_is_true, self.node(depth - 1), self.node(depth - 1))

    def named(self, prefix, as_tensor=None):
        """Attributes of TreeEnsembleRegressor and TreeEnsembleClassifier."""
        names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true")
        nodes = {f"nodes_{n}": [] for n in names}
        votes = {f"{prefix}_{n}": [] for n in ("treeids", "nodeids", "ids", "weights")}

        def put(tree, node, counter):
            me = counter[0]
            counter[0] += 1
            leaf = isinstance(node, list)
            row = [tree, me, 0, "LEAF", 0.0, 0, 0, 0] if leaf else [tree, me, node[1], node[0], node[2], 0, 0, int(node[3])]
            at = len(nodes["nodes_nodeids"])
            for name, v in zip(names, row, strict=True):
                nodes[f"nodes_{name}"].append(v)
            if leaf:
                for target, weight in node:
                    for name, v in zip(("treeids", "nodeids", "ids", "weights"), (tree, me, target, weight), strict=True):
                        votes[f"{prefix}_{name}"].append(v)
            else:
                nodes["nodes_truenodeids"][at] = put(tree, node[4], counter)
                nodes["nodes_falsenodeids"][at] = put(tree, node[5], counter)
            return me

        for tree, root in enumerate(self.trees):
            put(tree, root, [0])
        if not self.missing:
            del nodes["nodes_missing_value_tracks_true"]
        attrs = nodes | votes
        if as_tensor is not None:
            for name in ("nodes_values", f"{prefix}_weights"):
                attrs[f"{name}_as_tensor"] = numpy_helper.from_array(np.array(attrs.pop(name), as_tensor), name)
        return attrs

    def placed(self, dtype, members):
        """Attributes of TreeEnsemble. Nodes of mode BRANCH_EQ become tests for membership where `members`."""
        rows, leaves, sets, roots = [], [], [], []

        def put(node):
            if isinstance(node, list):
                leaves.append(node[0])
                return len(leaves) - 1, 1
            at = len(rows)
            mode = MODES.index(node[0])
            row = [node[1], 6 if members and mode == 4 else mode, node[2], int(node[3]), 0, 0, 0, 0]
            rows.append(row)
            row[4:6] = put(node[4])
            row[6:8] = put(node[5])
            return at, 0

        for tree in self.trees:
            at, leaf = put(tree)
            if leaf:  # a node whose branches are both this leaf
                rows.append([0, 0, 0.0, 0, at, 1, at, 1])
                at = len(rows) - 1
            roots.append(at)
        for row in rows:
            if row[1] == 6:
                whole = round(row[2])  # onnxruntime takes no other members
                sets += [whole, whole + 1, whole - 2, np.nan]
        column = [list(c) for c in zip(*rows, strict=True)]
        attrs = {"nodes_featureids": column[0], "nodes_modes": numpy_helper.from_array(np.array(column[1], np.uint8), "modes"),
                 "nodes_splits": numpy_helper.from_array(np.array(column[2], dtype), "splits"), "nodes_missing_value_tracks_true": column[3],
                 "nodes_truenodeids": column[4], "nodes_trueleafs": column[5], "nodes_falsenodeids": column[6], "nodes_falseleafs": column[7],
                 "tree_roots": roots, "leaf_targetids": [v[0] for v in leaves],
                 "leaf_weights": numpy_helper.from_array(np.array([v[1] for v in leaves], dtype), "weights")}
        if sets:
            attrs["membership_values"] = numpy_helper.from_array(np.array(sets, dtype), "members")
        return attrs


def rounded(rng, features, dtype=F32, missing=False, decimals=1):
    def make(rows):
        x = np.round(rng.standard_normal((rows, features)), decimals)
        if missing:
            x[rng.random(x.shape) < 0.1] = np.nan
        return x.astype(dtype)
    return make


def tree_cases(rng):
    features = int(rng.integers(2, 9))
    y = [("Y", TensorProto.FLOAT)]

    def targets(n, low=-1.0):
        return lambda: [(t, float(rng.uniform(low, 1))) for t in range(n)]

    for aggregate in ("SUM", "AVERAGE", "MIN", "MAX"):
        for n in (1, 3):
            forest = Forest(rng, int(rng.integers(1, 12)), features, 6, targets(n), MODES, True)
            attrs = forest.named("target") | {"n_targets": n, "aggregate_function": aggregate}
            yield Case("TreeEnsembleRegressor", [rounded(rng, features, missing=True)], attrs | {"base_values": rng.standard_normal(n).tolist()}, y)
            yield Case("TreeEnsembleRegressor", [rounded(rng, features, missing=True)], attrs, y)
    forest = Forest(rng, 200, features, 8, targets(1))
    yield Case("TreeEnsembleRegressor", [rounded(rng, features)], forest.named("target") | {"n_targets": 1}, y, name="many")
    yield Case("TreeEnsembleRegressor", [rounded(rng, features, F64)], forest.named("target", F64) | {"n_targets": 1}, y, name="f64")
    forest = Forest(rng, 5, features, 5, targets(3))
    for transform in TRANSFORMS:
        yield Case("TreeEnsembleRegressor", [rounded(rng, features)], forest.named("target") | {"n_targets": 3, "post_transform": transform}, y)

    # Of the second class only, numbered 0: probabilities, then margins.
    for strings in (False, True):
        labels = {"classlabels_strings": ["no", "yes"]} if strings else {"classlabels_int64s": [10, 20]}
        yz = [("Y", TensorProto.STRING if strings else TensorProto.INT64), ("Z", TensorProto.FLOAT)]
        bagged = Forest(rng, 10, features, 6, lambda: [(0, float(rng.uniform(0, 0.1)))], MODES, True)
        boosted = Forest(rng, 10, features, 6, lambda: [(0, float(rng.uniform(-1, 1)))], MODES, True)
        x = rounded(rng, features, missing=True)
        yield Case("TreeEnsembleClassifier", [x], bagged.named("class") | labels, yz, name="bagged")
        for transform in ("NONE", "LOGISTIC"):
            yield Case("TreeEnsembleClassifier", [x], boosted.named("class") | labels | {"post_transform": transform}, yz, name="boosted")
            yield Case("TreeEnsembleClassifier", [x], boosted.named("class") | labels | {"post_transform": transform, "base_values": [0.3]}, yz, name="base")
        for transform in TRANSFORMS:
            five = Forest(rng, 7, features, 5, targets(5), MODES, True).named("class")
            labels = {"classlabels_strings": list("abcde")} if strings else {"classlabels_int64s": [3, 1, 4, 15, 9]}
            yield Case("TreeEnsembleClassifier", [x], five | labels | {"post_transform": transform}, yz)
            yield Case("TreeEnsembleClassifier", [x], five | labels | {"post_transform": transform, "base_values": [0.1, 0.2, 0.3, 0.4, 0.5]}, yz)
    both = Forest(rng, 9, features, 5, targets(2)).named("class") | {"classlabels_int64s": [0, 1]}
    yield Case("TreeEnsembleClassifier", [rounded(rng, features)], both, [("Y", TensorProto.INT64), ("Z", TensorProto.FLOAT)], hidden=("Y",), name="both")
    doubles = Forest(rng, 9, features, 5, targets(3)).named("class", F64) | {"classlabels_int64s": [0, 1, 2]}
    yield Case("TreeEnsembleClassifier", [rounded(rng, features, F64)], doubles, [("Y", TensorProto.INT64), ("Z", TensorProto.FLOAT)], name="f64")

    for dtype, proto in ((F32, TensorProto.FLOAT), (F64, TensorProto.DOUBLE)):
        for aggregate in range(4):
            for members in (False, True):
                n = int(rng.integers(1, 4))
                forest = Forest(rng, 10, features, 5, lambda n=n: [(int(rng.integers(n)), float(rng.uniform(-1, 1)))], MODES[:5], True)
                attrs = forest.placed(dtype, members) | {"n_targets": n, "aggregate_function": aggregate}
                x = rounded(rng, features, dtype, True, 0 if members else 1)
                yield Case("TreeEnsemble", [x], attrs, [("Y", proto)], opset=5, name=np.dtype(dtype).name)


# --- linear models and support vectors ----------------------------------------------------------------


def linear_cases(rng):
    features = int(rng.integers(2, 9))
    yz = [("Y", TensorProto.INT64), ("Z", TensorProto.FLOAT)]
    y = [("Y", TensorProto.FLOAT)]

    def normal(*shape):
        return rng.standard_normal(shape).astype(F32).ravel().tolist()

    def x(rows):
        return rng.standard_normal((rows, features)).astype(F32)

    for transform in TRANSFORMS:
        yield Case("LinearRegressor", [x], {"coefficients": normal(3, features), "intercepts": normal(3), "targets": 3, "post_transform": transform}, y)
        attrs = {"coefficients": normal(5, features), "intercepts": normal(5), "post_transform": transform}
        yield Case("LinearClassifier", [x], attrs | {"classlabels_ints": [5, 4, 3, 2, 1]}, yz)
        yield Case("LinearClassifier", [x], attrs | {"classlabels_strings": list("vwxyz")}, [("Y", TensorProto.STRING), yz[1]], name="strings")
        attrs = {"coefficients": normal(2, features), "intercepts": normal(2), "post_transform": transform}
        yield Case("LinearClassifier", [x], attrs | {"classlabels_ints": [7, 8]}, yz, name="two")
    yield Case("LinearRegressor", [x], {"coefficients": normal(features), "targets": 1}, y)
    for dtype in (F64, I32, I64):
        attrs = {"coefficients": normal(4, features), "intercepts": normal(4), "classlabels_ints": [7, 8, 9, 10]}
        yield Case("LinearClassifier", [lambda rows, dtype=dtype: (3 * x(rows)).astype(dtype)], attrs, yz, name=np.dtype(dtype).name)
    for transform in ("NONE", "LOGISTIC"):
        attrs = {"coefficients": normal(features), "intercepts": normal(1), "post_transform": transform, "classlabels_ints": [7, 8]}
        yield Case("LinearClassifier", [x], attrs, yz, name="single")

    for kernel, params in (("LINEAR", [0.0, 0.0, 0.0]), ("RBF", [0.3, 0.0, 0.0]), ("POLY", [0.3, 0.5, 3.0]), ("SIGMOID", [0.2, 0.1, 0.0])):
        shape = {"kernel_type": kernel, "kernel_params": params}
        vectors = int(rng.integers(3, 20))
        regressor = shape | {"coefficients": normal(vectors), "support_vectors": normal(vectors, features), "n_supports": vectors, "rho": normal(1)}
        yield Case("SVMRegressor", [x], regressor, y, name=kernel)
        yield Case("SVMRegressor", [x], regressor | {"one_class": 1}, y, name=f"{kernel}_one_class")
        for classes in (2, 3, 5):
            per_class = rng.integers(1, 6, classes).tolist()
            count, pairs = sum(per_class), classes * (classes - 1) // 2
            attrs = shape | {"coefficients": normal(classes - 1, count), "support_vectors": normal(count, features), "vectors_per_class": per_class,
                             "rho": normal(pairs), "classlabels_ints": list(range(10, 10 + classes))}
            platt = {"prob_a": (-rng.uniform(0.5, 2, pairs)).tolist(), "prob_b": rng.uniform(-0.5, 0.5, pairs).tolist()}
            yield Case("SVMClassifier", [x], attrs, yz, name=f"{kernel}_{classes}")
            # An iteration that ends when the error is small enough: f32 may end a step earlier than f64.
            yield Case("SVMClassifier", [x], attrs | platt, yz, tolerance=1e-3, name=f"{kernel}_{classes}_platt")
            yield Case("SVMClassifier", [x], attrs | {"post_transform": "LOGISTIC"}, yz, name=f"{kernel}_{classes}_logistic")
    yield Case("SVMRegressor", [x], {"coefficients": normal(features), "n_supports": 0, "rho": normal(1), "kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0]}, y)
    linear = {"coefficients": normal(4, features), "rho": normal(1), "classlabels_ints": [1, 2, 3, 4], "kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0]}
    yield Case("SVMClassifier", [x], linear, yz, name="liblinear")


# --- features and labels -------------------------------------------------------------------------------


def feature_cases(rng):
    features = int(rng.integers(2, 9))
    f32 = [("Y", TensorProto.FLOAT)]

    def x(rows, dtype=F32):
        return np.round(3 * rng.standard_normal((rows, features))).astype(dtype)

    def of(dtype):
        return lambda rows: x(rows, dtype)

    for dtype in (F32, F64, I32, I64):
        name = np.dtype(dtype).name
        many = {"offset": rng.standard_normal(features).tolist(), "scale": rng.standard_normal(features).tolist()}
        yield Case("Scaler", [of(dtype)], many, f32, name=name)
        yield Case("Scaler", [of(dtype)], {"offset": [0.3], "scale": [1.7]}, f32, name=name)
        for norm in ("MAX", "L1", "L2"):
            yield Case("Normalizer", [of(dtype)], {"norm": norm}, f32, name=f"{name}_{norm}")
    yield Case("Normalizer", [np.zeros((3, 4), F32)], {"norm": "L2"}, f32, name="zeros")
    yield Case("Binarizer", [of(F32)], {"threshold": 1.0}, f32)
    words = np.array(["a", "b", "cc", ""], object)

    def strings(rows):
        return rng.choice(words, (rows, features))

    def with_nan(rows):
        out = x(rows)
        out[rng.random(out.shape) < 0.3] = np.nan
        return out

    for length in (1, features):
        values = rng.standard_normal(length).tolist()
        yield Case("Imputer", [with_nan], {"imputed_value_floats": values, "replaced_value_float": float("nan")}, f32)
        yield Case("Imputer", [of(F32)], {"imputed_value_floats": values, "replaced_value_float": 1.0}, f32)
        yield Case("Imputer", [of(I64)], {"imputed_value_int64s": rng.integers(100, 200, length).tolist(), "replaced_value_int64": -1}, [("Y", TensorProto.INT64)])
    picks = rng.integers(0, features, 5).astype(I64)
    for made, proto in ((of(F32), TensorProto.FLOAT), (of(F64), TensorProto.DOUBLE), (of(I32), TensorProto.INT32), (of(I64), TensorProto.INT64),
                        (strings, TensorProto.STRING)):
        yield Case("ArrayFeatureExtractor", [made, picks], {}, [("Y", proto)], name=f"type{proto}")
    yield Case("ArrayFeatureExtractor", [np.arange(8, dtype=F32), np.array([[1, 3]], I64)], {}, f32, name="vector")
    cut = [features, max(1, features - 1), features + 3]
    yield Case("FeatureVectorizer", [of(F32), of(F32), of(F32)], {"inputdimensions": cut}, f32)
    yield Case("FeatureVectorizer", [np.arange(4, dtype=I64), np.arange(3, dtype=I64)], {"inputdimensions": [4, 2]}, f32, name="vectors")

    for zeros_for, dtype in ((1, I64), (1, F32), (1, F64)):
        yield Case("OneHotEncoder", [of(dtype)], {"cats_int64s": [3, 0, -1, 1], "zeros": zeros_for}, f32, name=np.dtype(dtype).name)
    yield Case("OneHotEncoder", [of(I64)], {"cats_int64s": list(range(-40, 40)), "zeros": 0}, f32, name="all")
    yield Case("OneHotEncoder", [strings], {"cats_strings": ["cc", "a"]}, f32, name="strings")
    yield Case("CategoryMapper", [strings], {"cats_strings": ["cc", "a", ""], "cats_int64s": [7, 8, 9], "default_int64": -5}, [("Y", TensorProto.INT64)])
    yield Case("CategoryMapper", [of(I64)], {"cats_strings": ["cc", "a", ""], "cats_int64s": [0, 1, 2], "default_string": "?"}, [("Y", TensorProto.STRING)])

    yield Case("LabelEncoder", [strings], {"classes_strings": ["cc", "a", ""]}, [("Y", TensorProto.INT64)], opset=1)
    yield Case("LabelEncoder", [of(I64)], {"classes_strings": ["cc", "a", ""]}, [("Y", TensorProto.STRING)], opset=1)
    keys = {"strings": (["cc", "a", ""], strings), "int64s": ([0, 1, -1], of(I64)), "floats": ([0.0, 1.0, float("nan")], with_nan)}
    values = {"strings": (["x", "", "z"], TensorProto.STRING), "int64s": ([5, 6, 7], TensorProto.INT64), "floats": ([0.5, -1.5, 2.0], TensorProto.FLOAT)}
    default = {"strings": ("default_string", "none"), "int64s": ("default_int64", 99), "floats": ("default_float", 9.5)}
    for opset in (2, 4):
        for k, (listed, made) in keys.items():
            for v, (results, proto) in values.items():
                if opset == 2 and k == "floats":
                    listed = [0.0, 1.0, 2.0]
                attrs = {f"keys_{k}": listed, f"values_{v}": results}
                yield Case("LabelEncoder", [made], attrs, [("Y", proto)], opset=opset, name=f"{k}_{v}")
                yield Case("LabelEncoder", [made], attrs | dict([default[v]]), [("Y", proto)], opset=opset, name=f"{k}_{v}_default")
    doubles = {f"{n}_tensor": numpy_helper.from_array(np.array(a, F64), n) for n, a in (("keys", [0, 1, np.nan]), ("values", [0.1, 0.2, 0.3]), ("default", [7]))}
    yield Case("LabelEncoder", [lambda rows: with_nan(rows).astype(F64)], doubles, [("Y", TensorProto.DOUBLE)], opset=4, name="double")

    texts = np.array(["ab", "abab", "", "xaby", "a\nb", "äb", "www.google.com", "account@gmail.com", "ABAB"], object)
    for k, pattern in enumerate((r"(ab)*", r".*", r"a.b", r".b", r"www\.[\w.-]+\.com", r"(\W|^)[\w.\-]{0,25}@(yahoo|gmail)\.com(\W|$)", r"(?i)(ab)+", r"", r"\p{L}b")):
        yield Case("RegexFullMatch", [texts], {"pattern": pattern}, [("Y", TensorProto.BOOL)], domain="", opset=20, name=str(k))


# --- running -------------------------------------------------------------------------------------------


def model_of(case):
    """The model; dimensions of rows are symbolic."""
    inputs = []
    for k, given in enumerate(case.inputs):
        sample = given(2) if callable(given) else given
        elem = TensorProto.STRING if sample.dtype == object else helper.np_dtype_to_tensor_dtype(sample.dtype)
        inputs.append(helper.make_tensor_value_info(f"X{k}", elem, ["rows", *sample.shape[1:]] if callable(given) else sample.shape))
    node = helper.make_node(case.op, [i.name for i in inputs], [o for o, _ in case.outputs], name="node", domain=case.domain, **case.attrs)
    outputs = [helper.make_tensor_value_info(name, elem, None) for name, elem in case.outputs if name not in case.hidden]
    opsets = [helper.make_opsetid("", 20)] + ([helper.make_opsetid(case.domain, case.opset)] if case.domain else [])
    return helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=opsets, ir_version=9)


def write_case(case, folder):
    folder.mkdir()
    model = model_of(case)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (folder / "data.json").write_text(json.dumps({"rtol": case.tolerance, "atol": case.tolerance}))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for n, rows in enumerate(BATCHES if any(callable(i) for i in case.inputs) else (0,)):
        given = [i(rows) if callable(i) else i for i in case.inputs]
        results = session.run(None, {f"X{k}": a for k, a in enumerate(given)})
        data = folder / f"test_data_set_{n}"
        data.mkdir()
        for kind, arrays in (("input", given), ("output", results)):
            for k, array in enumerate(arrays):
                proto = numpy_helper.from_array(array, f"{kind}_{k}")
                (data / f"{kind}_{k}.pb").write_bytes(proto.SerializeToString(deterministic=True))


class ClassicalModels(unittest.TestCase):
    def check(self, made_by):
        with tempfile.TemporaryDirectory() as folder:
            suite = pathlib.Path(folder) / "ml"
            suite.mkdir()
            count = 0
            for seed in SEEDS:
                for k, case in enumerate(made_by(np.random.default_rng(seed))):
                    transform = case.attrs.get("post_transform", "")
                    write_case(case, suite / f"{seed}_{k:03}_{case.op}_{case.opset}_{case.name}_{transform}")
                    count += 1
            self.assertGreater(count, 50)
            for extra in ([], ["--eager"]):
                done = subprocess.run([str(BIN / "ds_tool_onnx_cases"), "--min-rate", "1", *extra, str(suite)], capture_output=True, text=True, timeout=250)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_trees(self):
        self.check(tree_cases)

    def test_linear_models_and_support_vectors(self):
        self.check(linear_cases)

    def test_features_and_labels(self):
        self.check(feature_cases)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main()
