"""man/ds-ops.7 and `ds-bench ops`: no operator of ai.onnx is left out silently, and the page is what the program prints."""
import json
import os
import pathlib
import subprocess

import onnx.defs
import pytest

BENCH = pathlib.Path(os.environ["DS_BIN"]) / "ds-bench"
PAGE = pathlib.Path(os.environ["DS_ROOT"]) / "man" / "ds-ops.7"


def ds_ops(*args):
    return subprocess.run([str(BENCH), "ops", *args], capture_output=True, text=True, check=True, timeout=250).stdout


@pytest.fixture(scope="module")
def ops():
    return json.loads(ds_ops("--json"))


def onnx_names():
    return {s.name for s in onnx.defs.get_all_schemas() if s.domain == "" and s.support_level == onnx.defs.OpSchema.SupportType.COMMON}


def cpu_provider_names():
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    return {k.op_name for k in state.get_all_opkernel_def() if k.domain == "" and k.provider.startswith("CPU")}


def test_every_operator_of_onnx_is_listed_once(ops):
    run = {o["op"] for o in ops["ops"] if o["domain"] == "ai.onnx"}
    missing = {m["op"] for m in ops["missing"] if m["domain"] == "ai.onnx"}
    former = set(ops["former_names"])
    assert not onnx_names() - run - missing - former
    assert not run & missing
    assert all(len(m["reason"]) > 20 for m in ops["missing"])


def test_what_onnxruntime_runs_and_we_do_not_has_a_reason(ops):
    run = {o["op"] for o in ops["ops"]}
    missing = {m["op"] for m in ops["missing"] if m["domain"] == "ai.onnx"}
    former = set(ops["former_names"])
    assert not cpu_provider_names() - run - missing - former
    assert not missing - onnx_names() - cpu_provider_names(), "names that are none"


def test_no_operator_is_claimed_that_onnx_does_not_have(ops):
    # onnxruntime has operators of its own in this domain; exporters write one of them.
    assert {o["op"] for o in ops["ops"] if o["domain"] == "ai.onnx"} <= onnx_names() | {"SimplifiedLayerNormalization"}


def test_operator_sets_are_those_of_the_schemas(ops):
    first = {}
    for s in onnx.defs.get_all_schemas_with_history():
        if s.domain == "":
            first[s.name] = min(first.get(s.name, 1 << 30), s.since_version)
    # GroupNormalization 18 to 20 is another operator; ScatterElements and Resize had other names before.
    first.update(GroupNormalization=21, ScatterElements=9, Resize=7)
    told = {o["op"]: o["since"] for o in ops["ops"] if o["domain"] == "ai.onnx" and o["op"] in first}
    assert told == {op: first[op] if first[op] > 7 else None for op in told}


def test_every_operator_of_the_classical_domain_is_listed_once(ops):
    known = {s.name for s in onnx.defs.get_all_schemas() if s.domain == "ai.onnx.ml"}
    run = [o["op"] for o in ops["ops"] if o["domain"] == "ai.onnx.ml"]
    missing = [m["op"] for m in ops["missing"] if m["domain"] == "ai.onnx.ml"]
    assert sorted(run + missing) == sorted(known)


def test_the_page_holds_every_operator(ops):
    text = PAGE.read_text().replace("\\-", "-")
    for name in [o["op"] for o in ops["ops"]] + [m["op"] for m in ops["missing"]] + list(ops["former_names"]):
        assert f"\\fB{name}\\fR" in text, name
