"""Progress is drawn on a terminal and nowhere else; NO_COLOR and TERM=dumb are honoured."""
import os
import pathlib
import pty
import subprocess

import pytest

BIN = pathlib.Path(os.environ["DS_BIN"])


@pytest.fixture()
def task(tmp_path):
    rows = "".join(f"{i % 7},{i % 5},{i % 3},{i % 11},{i % 3}\n" for i in range(200))
    (tmp_path / "table.csv").write_text("a,b,c,d,label\n" + rows)
    subprocess.run([BIN / "ds-train", "init", "--arch", "mlp", "--features", "4", "--hidden-sizes", "16", "--classes", "3",
                    "--seed", "1", "-o", "init.onnx"], cwd=tmp_path, check=True)
    return tmp_path


def train_on_terminal(folder, *flags, **environment):
    """What ds-train writes to standard error when that is a terminal."""
    ours, theirs = pty.openpty()
    env = {"TERM": "xterm", **os.environ, **environment}
    process = subprocess.Popen([BIN / "ds-train", "init.onnx", "--data", "table.csv", "--epochs", "3", "--batch-size", "8",
                                "-o", "out.onnx", *flags], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    process.stdout.close()
    assert process.wait(timeout=120) == 0, text
    return text


def test_bar_on_a_terminal_and_gone_at_the_end(task):
    text = train_on_terminal(task, TERM="xterm")
    assert b"\r\x1b[K" in text and b"[=" in text
    last = text.rsplit(b"\r\x1b[K", 1)[1]
    assert b"[=" not in last, "the bar is left on the screen"


@pytest.mark.parametrize("flags, environment", [(["--quiet"], {"TERM": "xterm"}), ([], {"TERM": "dumb"})])
def test_no_bar_when_not_wanted(task, flags, environment):
    text = train_on_terminal(task, *flags, **environment)
    assert b"\x1b[" not in text


def test_no_colour(task):
    text = train_on_terminal(task, TERM="xterm", NO_COLOR="1")
    assert b"\x1b[3" not in text and b"\x1b[1m" not in text


def test_pipe_gets_plain_lines(task):
    done = subprocess.run([BIN / "ds-train", "init.onnx", "--data", "table.csv", "--epochs", "3", "-o", "out.onnx"], cwd=task,
                          capture_output=True, check=True)
    assert b"\x1b" not in done.stdout + done.stderr and b"\r" not in done.stdout + done.stderr
