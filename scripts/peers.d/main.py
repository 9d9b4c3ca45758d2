"""Measures I1 to I7 beside the peers and judges them; see scripts/peers."""
import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics
import sys

import models
import runtimes
from models import Unavailable
from runtimes import Ds, Peer

OUT = models.ROOT / "build/peers/peers.json"  # peers-avx2.json with --as avx2
SMALL = ["ppocr_det", "ppocr_rec", "ppocr_cls", "silero_vad", "minilm"]


@dataclasses.dataclass
class Target:
    against: str   # name of a peer
    at_least: float


@dataclasses.dataclass
class Row:
    goal: str
    model: str
    mode: str                      # f32, auto, int8, create, new shapes
    targets: list
    cosine_at_least: float = 0.0
    unavailable: str = ""          # why there are no figures of ds
    ds_seconds: float = 0.0
    peers: dict = dataclasses.field(default_factory=dict)    # name: {"seconds", "ratio", "low", "high"} or {"unavailable"}
    accuracy: dict = dataclasses.field(default_factory=dict)  # name: [cosine, largest error]
    notes: list = dataclasses.field(default_factory=list)
    efficiency: float | None = None

    def verdict(self):
        """met, missed, or open where something could not be measured."""
        if self.unavailable:
            return "not available"
        if any("ratio" not in self.peers.get(t.against, {}) for t in self.targets):
            return "open"
        met = all(self.peers[t.against]["ratio"] >= t.at_least for t in self.targets)
        return "met" if met and self.accuracy.get("ds", [1.0])[0] >= self.cosine_at_least else "missed"


def say(text):
    print(f"scripts/peers: {text}", file=sys.stderr, flush=True)


class Judge:
    def __init__(self, options):
        self.options = options
        self.models = models.all_models(options.bin)
        self.rounds = options.rounds or (3 if options.quick else 9)
        self.seconds = 0.2 if options.quick else 0.5  # of timed runs in a burst
        self.rows, self.versions = [], {}

    # --- measuring ---

    def wanted(self, goal):
        return not self.options.only or goal in self.options.only

    def ds(self, model, precision="fp32", path=None):
        return Ds(self.options.bin, model, self.options.threads, precision, path)

    def peer(self, kind, model, precision="f32", path=None, label=None):
        return Peer(kind, model, self.options.threads, precision, path, label)

    def begin(self, row):
        say(f"{row.goal} {row.model} {row.mode}")
        self.rows.append(row)

    def runs_for(self, contender):
        """(runs that fill a burst, the burst that told)"""
        burst = contender.burst(5)
        return max(5, min(300, round(self.seconds / burst.seconds))), burst

    def fastest(self, candidates):
        """Of several ways to run the same, that which a first burst finds fastest; others and failures as notes."""
        found, notes = [], []
        for make in candidates:
            try:
                contender = make()
                _, burst = self.runs_for(contender)
                found.append((burst.seconds, contender))
            except Unavailable as why:
                notes.append(str(why))
            except Exception as why:  # noqa: BLE001 (whatever a third party's quantizer raises)
                notes.append(f"{type(why).__name__}: {str(why).splitlines()[0][:200] if str(why) else ''}")
        if not found:
            raise Unavailable("; ".join(notes) or "no way to run it")
        best = min(found, key=lambda f: f[0])[1]
        return best, [f"{c.name} {1e3 * s:.3g} ms" for s, c in found if c is not best]

    def compare(self, row, ds, peers, pick=lambda burst: burst.seconds, single=False):
        """`peers`: {name: contender or Unavailable}. Rounds run every contender in turn, in changing order."""
        self.begin(row)
        try:
            runs = {"ds": 1 if single else self.runs_for(ds)[0]}
        except Unavailable as why:
            row.unavailable = str(why)
            return
        contenders = {"ds": ds}
        for name, peer in peers.items():
            try:
                if isinstance(peer, Unavailable):
                    raise peer
                runs[name] = 1 if single else self.runs_for(peer)[0]
                contenders[name] = peer
            except Unavailable as why:
                row.peers[name] = {"unavailable": str(why)}
        taken, names = {name: [] for name in contenders}, list(contenders)
        for r in range(self.rounds):
            for k in range(len(names)):
                name = names[(r + k) % len(names)]
                burst = contenders[name].burst(runs[name])
                taken[name].append(pick(burst))
                if name == "ds":
                    row.efficiency = burst.extra["efficiency"]
                self.versions[name.split()[0]] = burst.extra["version"]
                if name.startswith("OpenVINO") and f"{name} computes in {burst.extra['precision']}" not in row.notes:
                    row.notes.append(f"{name} computes in {burst.extra['precision']}")
        row.ds_seconds = statistics.median(taken["ds"])
        for name in names[1:]:
            ratios = [p / d for p, d in zip(taken[name], taken["ds"])]
            row.peers[name] = {"seconds": statistics.median(taken[name]), "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}

    def accuracy(self, row, contenders):
        """Everybody's output against onnxruntime's in f32."""
        if row.unavailable:
            return
        try:
            expected = self.peer("ort", self.models[row.model]).outputs()
        except Unavailable as why:
            row.notes.append(f"outputs of onnxruntime f32: {why}")
            return
        for name, contender in contenders.items():
            if isinstance(contender, Unavailable) or "unavailable" in row.peers.get(name, {}):
                continue
            try:
                row.accuracy[name] = runtimes.agreement(contender.outputs(), expected)
            except Unavailable as why:
                row.notes.append(f"outputs of {name}: {why}")

    # --- the goals ---

    def f32(self, goal, name, ort, openvino):
        model = self.models[name]
        ds, peers = self.ds(model), {"onnxruntime f32": self.peer("ort", model), "OpenVINO f32": self.peer("openvino", model)}
        row = Row(goal, name, "f32", [Target("onnxruntime f32", ort)] + ([Target("OpenVINO f32", openvino)] if openvino else []), 0.999)
        self.compare(row, ds, peers)
        self.accuracy(row, {"ds": ds, "OpenVINO f32": peers["OpenVINO f32"]})

    def auto(self, goal, name, ort, openvino):
        model = self.models[name]
        ds = self.ds(model, "auto")
        peers = {"onnxruntime f32": self.peer("ort", model), "OpenVINO auto": self.peer("openvino", model, "auto")}
        row = Row(goal, name, "auto", [Target("onnxruntime f32", ort)] + ([Target("OpenVINO auto", openvino)] if openvino else []), 0.999)
        self.compare(row, ds, peers)
        self.accuracy(row, {"ds": ds, "OpenVINO auto": peers["OpenVINO auto"]})

    def int8(self, goal, name, ort_f32, ort_int8, dynamic=False):
        model = self.models[name]
        row = Row(goal, name, "int8", ([Target("onnxruntime f32", ort_f32)] if ort_f32 else []) +
                  [Target("onnxruntime int8", ort_int8), Target("OpenVINO int8", 1.0)])
        try:
            ours = models.quantized_by_ds(model, self.options.bin)
        except Unavailable as why:
            row.unavailable = str(why)
            self.rows.append(row)
            return
        theirs = [lambda: models.quantized_by_ort(model)] + ([lambda: models.quantized_by_ort(model, dynamic=True)] if dynamic else [])
        labels = ["its QDQ file", "its dynamic file"]
        peers = {"onnxruntime f32": self.peer("ort", model)} if ort_f32 else {}
        for kind, title in (("ort", "onnxruntime int8"), ("openvino", "OpenVINO int8")):
            ways = [lambda kind=kind: self.peer(kind, model, "auto", ours, "our file")]
            ways += [lambda kind=kind, make=make, label=label: self.peer(kind, model, "auto", make(), label) for make, label in zip(theirs, labels)]
            try:
                peers[title], slower = self.fastest(ways)
                row.notes.append(f"{title} runs {peers[title].name}" + (f" (slower: {', '.join(slower)})" if slower else ""))
            except Unavailable as why:
                peers[title] = why
        ds = self.ds(model, path=ours)
        self.compare(row, ds, peers)
        self.accuracy(row, {"ds": ds, **{k: v for k, v in peers.items() if k.endswith("int8")}})

    def creation(self, goal, name):
        model = self.models[name]
        row = Row(goal, name, "load + compile", [Target("onnxruntime f32", 1.0)])
        self.compare(row, self.ds(model), {"onnxruntime f32": self.peer("ort", model), "OpenVINO f32": self.peer("openvino", model)},
                     pick=lambda burst: burst.create, single=True)

    def new_shapes(self, goal, name, flags, shapes, checked):
        """`flags` for ds and `shapes` for the peers say the same; `checked`: sizes at which a repeat is held against static."""
        model = self.models[name]
        row = Row(goal, name, f"{len(shapes)} new shapes, mean", [Target("onnxruntime f32", 1.0), Target("static", 0.97)])
        self.begin(row)
        ds, peers = self.ds(model), {"onnxruntime f32": self.peer("ort", model), "OpenVINO f32": self.peer("openvino", model)}
        taken = {"ds": [], **{p: [] for p in peers}}
        repeats, statics, mean = [], [], statistics.fmean
        for r in range(self.rounds):
            order = list(taken)[r % len(taken):] + list(taken)[: r % len(taken)]
            for who in order:
                if "unavailable" in row.peers.get(who, {}):
                    continue
                try:
                    result = ds.vary(flags) if who == "ds" else peers[who].vary(shapes)
                except Unavailable as why:
                    if who == "ds":
                        row.unavailable = str(why)
                        return
                    row.peers[who] = {"unavailable": str(why)}
                    continue
                taken[who].append(mean(result["first"]))
                if who == "ds":
                    repeats.append(sum(result["again"][i] for i in checked))
                    last = result
            statics.append(sum(ds.at_shapes({**{n: a.shape for n, a in model.feed.items()}, **shapes[i]}, 20) for i in checked))
        row.ds_seconds = statistics.median(taken["ds"])
        for who, values in {**taken, "static": statics}.items():
            if who == "ds" or "unavailable" in row.peers.get(who, {}):
                continue
            ratios = [p / d for p, d in zip(values, repeats if who == "static" else taken["ds"])]
            row.peers[who] = {"seconds": statistics.median(values) / (len(checked) if who == "static" else 1), "ratio": statistics.median(ratios),
                              "low": min(ratios), "high": max(ratios)}
        row.notes.append(f"ds: first run {1e3 * mean(last['first']):.3g} ms, repeated {1e3 * mean(last['again']):.3g} ms, returned to "
                         f"{1e3 * mean(last['return']):.3g} ms (means of the last round); 'static' is the repeated run at {len(checked)} of the shapes "
                         "against ds at each alone")

    def measure(self):
        options = self.options
        needed = {"I1": ["resnet50"], "I2": ["resnet50"], "I3": ["resnet50"], "I4": ["bert_base"], "I5": SMALL,
                  "I6": ["resnet50", "bert_base"], "I7": ["ppocr_rec", "gpt2_small"]}
        for name in sorted({n for goal, names in needed.items() if self.wanted(goal) for n in names}):
            self.models[name].prepare()
        if self.wanted("I1"):
            self.f32("I1", "resnet50", 1.15, 1.0)
        if self.wanted("I2"):
            self.auto("I2", "resnet50", 6, 1.0)
        if self.wanted("I3"):
            self.int8("I3", "resnet50", 10, 3)
        if self.wanted("I4"):
            self.auto("I4", "bert_base", 8, 1.0)
            self.int8("I4", "bert_base", None, 5, dynamic=True)
        if self.wanted("I5"):
            for name in SMALL:
                self.f32("I5", name, 1.2, None)
            for name in SMALL:
                if self.models[name].dense:
                    self.auto("I5", name, 3, None)
        if self.wanted("I6"):
            for name in ("resnet50", "bert_base"):
                self.creation("I6", name)
        if self.wanted("I7"):
            count = 40 if self.options.quick else 200
            checked = [count // 60, count // 2, count - 10]
            self.new_shapes("I7", "ppocr_rec", ["--shape", "x:[1,3,48,97]", "--vary", f"x[3]:97-{96 + count}"],
                            [{"x": [1, 3, 48, w]} for w in range(97, 97 + count)], checked)
            steps = []
            for past in range(1, 1 + count):
                kv = {n: [1, 6, past, 64] for n in self.models["gpt2_small"].feed if n.startswith("past.")}
                steps.append({"attention_mask": [1, past + 1], **kv})
            flags = ["--shape", "batch:1", "--shape", "new:1", "--vary", f"past:1-{count}", "--vary", f"total:2-{1 + count}"]
            self.new_shapes("I7", "gpt2_small", flags, steps, checked)


# --- the report ---


def cell(peer):
    if not peer:
        return "-"
    if "unavailable" in peer:
        return "not available"
    return f"{1e3 * peer['seconds']:.3g} ms: **{peer['ratio']:.2f}x** ({peer['low']:.2f}-{peer['high']:.2f})"


def accuracy_cell(row, name):
    if name not in row.accuracy:
        return "-"
    cosine, error = row.accuracy[name]
    return f"{cosine:.6f}, {error:.1e}"


def markdown(judge):
    heading = environment(judge)
    lines = [f"ds {heading['versions'].get('ds', '?')} beside its peers, {heading['date']}", "",
             f"CPU: {heading['cpu']}, {heading['threads']} threads used, {heading['os']}; " +
             ", ".join(f"{k} {v}" for k, v in sorted(heading["versions"].items()) if k != "ds") +
             f". Medians of {judge.rounds} alternating rounds; ratios are the peer's time by that of ds (above 1: ds is faster), with the least and the most of "
             "all rounds. Accuracy is cosine and largest absolute error against onnxruntime f32.", "",
             "| goal | model | mode | ds | onnxruntime f32 | onnxruntime int8 | OpenVINO | static | accuracy of ds | of OpenVINO | target | |",
             "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|"]
    notes = []
    for row in judge.rows:
        openvino = next((n for n in row.peers if n.startswith("OpenVINO")), "")
        targets = ", ".join(f"{t.at_least:g} x {t.against}" for t in row.targets)
        label = f"{row.goal} {row.model} {row.mode}"
        if row.unavailable:
            notes.append(f"{label}: not available: {row.unavailable}")
        notes += [f"{label}: {n}" for n in row.notes]
        notes += [f"{label}: {who} is not available: {p['unavailable']}" for who, p in row.peers.items() if "unavailable" in p]
        ds = "not available" if row.unavailable else f"{1e3 * row.ds_seconds:.3g} ms"
        lines.append(f"| {row.goal} | {judge.models[row.model].what} | {row.mode} | {ds} | {cell(row.peers.get('onnxruntime f32'))} | "
                     f"{cell(row.peers.get('onnxruntime int8'))} | {cell(row.peers.get(openvino))} | {cell(row.peers.get('static'))} | "
                     f"{accuracy_cell(row, 'ds')} | {accuracy_cell(row, openvino)} | {targets} | {row.verdict()} |")
    return "\n".join([*lines, "", *(f"- {n}" for n in dict.fromkeys(notes))])


def environment(judge):
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    flags = next((line for line in open("/proc/cpuinfo") if line.startswith("flags")), "").split()
    isa = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8") if f in flags]
    known = ', '.join(isa) + (f"; seen as {judge.options.level} alone by everybody" if judge.options.level else "")
    return {"cpu": f"{cpu} ({known})", "threads": judge.options.threads, "os": f"{platform.system()} {platform.release()}",
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "versions": judge.versions}


def write_json(judge):
    """Returns the file."""
    out = OUT.with_stem(f"peers-{judge.options.level}") if judge.options.level else OUT
    rows = [{**dataclasses.asdict(r), "verdict": r.verdict()} for r in judge.rows]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps({"schema": "ds-peers/1", **environment(judge), "rounds": judge.rounds, "rows": rows}, indent=1) + "\n")
    part.rename(out)
    return out


def parse():
    parser = argparse.ArgumentParser(prog="scripts/peers", description="Speed and accuracy of ds beside onnxruntime and OpenVINO.")
    goals = [f"I{i}" for i in range(1, 8)]
    parser.add_argument("--only", type=lambda s: s.split(","), default=[], metavar="I1,I5", help="these goals alone")
    parser.add_argument("--quick", action="store_true", help="3 rounds of short bursts, and 40 new shapes instead of 200")
    parser.add_argument("--rounds", type=int, metavar="N", help="alternating rounds (9)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="threads of everybody (all)")
    parser.add_argument("--as", dest="level", choices=["avx2"], help="everybody sees a CPU without AVX-512, VNNI and AMX")
    parser.add_argument("--bin", type=pathlib.Path, default=models.ROOT / "build/release/bin", metavar="DIR", help="where ds-bench is")
    options = parser.parse_args()
    for goal in options.only:
        if goal not in goals:
            parser.error(f"--only: '{goal}' is not one of {', '.join(goals)}")
    if options.rounds is not None and options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    for program in ("ds-bench", "ds-train", "ds-quantize"):
        if not (options.bin / program).exists():
            sys.exit(f"scripts/peers: {options.bin / program} is missing: scripts/dev build makes it")
    return options


def main():
    options = parse()
    if options.level:
        try:
            runtimes.pretend(options.level, OUT.parent)
        except Unavailable as why:
            sys.exit(f"scripts/peers: --as {options.level}: {why}")
    judge = Judge(options)
    try:
        judge.measure()
    except KeyboardInterrupt:
        say("interrupted; what was measured so far follows")
    finally:  # minutes of measuring are not thrown away with an error
        if judge.rows:
            out = write_json(judge)
            print(markdown(judge), flush=True)
            say(f"wrote {out.relative_to(models.ROOT)}")


if __name__ == "__main__":
    main()
