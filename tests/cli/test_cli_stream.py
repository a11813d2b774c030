"""crnn stream: what it prints for files and pipes, and how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import crnn
from crnn.cli.main import run_app
from crnn.cli.stream import Events
from crnn.model import Inputs, Model
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.run import fit_plan, make_plan
from crnn.tasks.infer import TASKS
from tasks.step_example import Signs, SignsConfig

QUICK = {"train.steps": 2, "split.validation": 0.0, "split.test": 0.25}
RATE = 8000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders: heard (audio), seen (two channels without a rate), both_ways (cannot stream)."""
    folder, random = tmp_path_factory.mktemp("live"), np.random.default_rng(0)
    sounds = [0.1 * random.normal(size=2400) for _ in range(8)]
    audio = crnn.from_arrays(sounds, ["a", "b"] * 4, kind="audio", sample_rate=RATE)
    tables = [random.normal(size=(30, 2)) + i % 2 for i in range(8)]
    series = crnn.from_arrays(tables, ["a", "b"] * 4, channel_names=("x", "y"))
    layers = [
        {"type": "log_mel", "sample_rate": RATE, "num_mels": 8, "fmin": 30},
        {"type": "recurrent", "hidden_size": 8},
    ]
    small = {"model": {"layers": layers, "summary": {"type": "last"}}}
    both_ways = {"model": {"layers": [{"type": "recurrent", "hidden_size": 4, "bidirectional": True}]}}
    for name, data, config in (("heard", audio, small), ("seen", series, {}), ("both_ways", series, both_ways)):
        plan = make_plan(data, {**config, "settings": QUICK}, task=None, preset="seed", seed=0)
        fit_plan(plan)[0].save(folder / name)
    return folder


@pytest.fixture
def live(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list, str]]:
    """Run the command on bytes that are piped in; returns exit code, events and messages."""

    def run(*arguments: object, data: bytes = b"") -> tuple[int, list, str]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        capsys.readouterr()
        code = run_app(["stream", *map(str, arguments)], debug=False)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, [json.loads(line) for line in printed.out.splitlines()], printed.err

    return run


def sound(seconds: float = 0.5) -> np.ndarray:
    return (3000 * np.random.default_rng(1).normal(size=int(RATE * seconds))).astype("<i2")


def test_a_pipe_of_samples_ends_with_what_predict_says(runs: Path, live: Callable) -> None:
    samples = sound()
    code, events, said = live(runs / "heard", "--every", "100ms", data=samples.tobytes())
    assert code == 0
    expected = Model.load(runs / "heard").predict(samples / np.float32(32768))[0]
    assert events[-1]["final"] is True
    assert (events[-1]["seconds"], events[-1]["frames"], events[-1]["label"]) == (0.5, 4000, expected["label"])
    assert events[-1]["probability"] == pytest.approx(expected["probability"], abs=1e-5)
    assert [event["final"] for event in events[:-1]] == [False] * (len(events) - 1)
    changes = sum(a["label"] != b["label"] for a, b in pairwise(events))
    assert 5 <= len(events) <= 5 + changes + 1
    # window of 25 ms = 200 samples, (200 - 80) / 2 = 60 of them before the hop: 139 ahead
    assert "audio, 1 channel, 8000 Hz; answers 0.0174 s behind, a new one every 0.01 s; " in said
    assert said.rstrip().endswith("; s16le, 160 frames at a time")


def test_the_size_of_blocks_changes_no_final_answer(runs: Path, live: Callable) -> None:
    found = [live(runs / "heard", "--block", size, "--quiet", data=sound().tobytes()) for size in ("7", "0.1s", "9999")]
    assert [said for _, _, said in found] == ["", "", ""]
    finals = [events[-1]["probability"] for _, events, _ in found]
    assert finals == pytest.approx([finals[0]] * 3, abs=1e-5)
    assert len(found[2][1]) == 2  # one block: an answer after it, and the final one


def test_a_file_and_a_table_in_a_pipe(runs: Path, live: Callable, tmp_path: Path) -> None:
    rows = "time,y,x\n" + "".join(f"{t},{t % 3},{-t % 5}\n" for t in range(40))
    (tmp_path / "t.csv").write_text(rows)
    by_file = live(runs / "seen", tmp_path / "t.csv")
    by_pipe = live(runs / "seen", data=rows.encode())
    assert by_file[:2] == by_pipe[:2]
    x = np.array([[-t % 5, t % 3] for t in range(40)], np.float32)
    expected = Model.load(runs / "seen").predict([x])[0]
    assert by_file[1][-1]["label"] == expected["label"]
    assert by_file[1][-1]["frames"] == 40
    assert "answers 2 frames behind" in by_file[2]


@pytest.mark.parametrize(
    ("run", "options", "data", "said"),
    [
        ("heard", ["nowhere.wav"], b"", "nowhere.wav: no such file"),
        ("heard", ["."], b"", ".: is a folder; expected one recording or table, or - for what is piped in"),
        (
            "heard",
            ["--block", "20 m"],
            b"",
            "--block 20 m: expected a time such as 20ms or 0.5s, or a number of frames",
        ),
        ("heard", ["--every", "0"], b"", "--every 0: expected a time"),
        ("heard", ["--follow"], b"", "--follow: is for a file that grows"),
        ("heard", ["--rate", "44100"], b"", "found 44100 Hz, but the model takes 8000 Hz; record at that rate"),
        ("heard", ["--engine", "gpu"], b"", "engine: found 'gpu', expected auto, torch or native"),
        ("heard", [], b"", "standard input: 0 frames came, too few for an answer; the network needs at least"),
        ("seen", ["--block", "20ms"], b"", "--block 20ms: the model knows no frames per second; give a number"),
        ("both_ways", [], b"", "recurrent cannot stream: it is bidirectional"),
    ],
)
def test_what_is_wrong_is_said(
    runs: Path, live: Callable, run: str, options: list[str], data: bytes, said: str
) -> None:
    code, events, messages = live(runs / run, *options, "--quiet", data=data)
    assert (code, events) == (1, [])
    assert said in messages


def test_what_came_before_a_damaged_row_is_answered_first(runs: Path, live: Callable) -> None:
    code, events, said = live(runs / "seen", "--quiet", data=b"1,2\n" * 9 + b"1,x\n" + b"1,2\n" * 9)
    assert code == 1
    assert (events[-1]["final"], events[-1]["frames"]) == (True, 9)
    assert "standard input row 10: found 'x', expected a number" in said


def test_what_is_no_number_is_null_in_json(runs: Path, live: Callable) -> None:
    data = np.r_[np.zeros(2000), np.nan, np.zeros(2000)].astype("<f4").tobytes()
    _, events, _ = live(runs / "heard", "--quiet", "--format", "f32le", data=data)
    assert events[0]["probability"] > 0
    assert events[-1]["probability"] is None
    assert events[-1]["probabilities"] == {"a": None, "b": None}


def test_events_are_changes_and_one_in_so_many_frames() -> None:
    assert printed("aaabbaaaaaaaaaaaaaaaaaaaaa") == [0, 3, 5, 15, 25]
    assert printed([float(f) for f in range(30)]) == [0, 10, 20]


def printed(answers: Any) -> list[int]:
    """Which of these answers, one a frame, are printed at least every ten frames."""
    events = Events("10", None)
    updates = [SimpleNamespace(answer=a, frames=f, is_final=False, to_dict=dict) for f, a in enumerate(answers)]
    return [update.frames for update in updates if events.of(update)]  # type: ignore[arg-type]


def test_a_run_that_answers_for_every_frame_prints_what_is_new(
    live: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "signs", Signs)
    layers = [{"type": "conv", "channels": 1, "kernel_size": 1}]
    network = Network(spec_from_plain({"layers": layers, "summary": None}), features=(1,), outputs=2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(
                torch.tensor([[-1.0], [1.0]]) if name == "head.linear.weight" else 1.0 * ("bias" not in name)
            )
    Model(network, Signs(["below", "above"], SignsConfig()), Inputs("series", ("x",), 10.0)).save(tmp_path / "run")
    code, events, said = live(tmp_path / "run", data=b"1\n2\n-1\n-2\n3\n")
    assert code == 0
    assert "a new one every 0.1 s" in said
    assert events == [
        {"frame": 0, "seconds": 0.0, "label": "above"},
        {"frame": 2, "seconds": 0.2, "label": "below"},
        {"frame": 4, "seconds": 0.4, "label": "above"},
        {"seconds": 0.5, "frames": 5, "answers": 5, "final": True},
    ]
    code, events, said = live(tmp_path / "run", "--every", "1s", data=b"1\n")
    assert (code, events) == (1, [])
    assert "--every 1s: this run answers for every frame and prints what is new; leave it out" in said


COMMAND = [sys.executable, "-m", "crnn.cli.main", "stream"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_ctrl_c_ends_with_a_final_line(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "grows.csv").write_text("1,2\n" * 9)
    process = subprocess.Popen(
        [*COMMAND, str(runs / "seen"), str(tmp_path / "grows.csv"), "--follow", "--quiet"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["final"] is False
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        rest, messages = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert [json.loads(line)["final"] for line in rest.splitlines()][-1] is True
    assert messages == ""


class ClosedPipe(io.StringIO):
    """Standard output whose reader has gone; its number is that of a file."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        return self._number


def test_a_reader_that_leaves_ends_it_quietly(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(sound().tobytes())))
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", ClosedPipe(file.fileno()))
        assert run_app(["stream", str(runs / "heard"), "--quiet"], debug=False) == 0
        assert os.path.samestat(os.fstat(file.fileno()), os.stat(os.devnull))
    assert capsys.readouterr().err == ""
