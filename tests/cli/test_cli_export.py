"""crnn export: what it prints, and what it refuses before it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crnn.cli.export import identifier
from crnn.cli.main import run_app
from crnn.model import Inputs, Model
from crnn.tasks.classify import Classify, ClassifyConfig
from program.test_lower import make_network

pytest.importorskip("onnxruntime", reason="not installed: pip install 'crnn[onnx]'")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that streams and one that does not, both untrained."""
    folder = tmp_path_factory.mktemp("export")
    task = Classify.from_targets(["a", "b", "c"], ClassifyConfig())
    for name, both_ways in (("live", False), ("whole", True)):
        conv = {"type": "conv", "channels": 32, "kernel_size": 5}
        recurrent = {"type": "recurrent", "hidden_size": 32, "bidirectional": both_ways}
        network = make_network([conv, recurrent], (2,))
        Model(network, task, Inputs("series", ("u", "v"), 20.0)).save(folder / name)
    return folder


def test_it_says_what_it_wrote_and_what_to_do_next(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "m.onnx"
    assert run_app(["export", str(runs / "live"), "--to", "onnx", "-o", str(out)], debug=True) == 0
    text = capsys.readouterr().out
    for part in (
        "largest difference from the model",
        "random chunkings",
        f"file: {out} (",
        "delay: 2 frames",
        "next: ",
    ):
        assert part in text
    assert text.splitlines()[-1].startswith("next: python -c")


def test_json_is_one_object(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, small = tmp_path / "m.onnx", tmp_path / "s.onnx"
    arguments = ["export", str(runs / "whole"), "--to", "onnx", "--json"]
    assert run_app([*arguments, "-o", str(out)], debug=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == {str(out): out.stat().st_size}
    assert found["delay_frames"] is None  # bidirectional
    assert found["details"]["batches"] <= 1e-5
    assert run_app([*arguments, "-o", str(small), "--int8"], debug=True) == 0
    assert small.stat().st_size < out.stat().st_size / 2


def test_mistakes_are_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.onnx"
    out.write_text("mine")
    for arguments, message in (
        (["live", "--to", "onx", "-o", "x"], "crnn: --to onx: unknown format; did you mean 'onnx'?"),
        (["live", "--to", "onnx", "-o", str(out)], f"crnn: {out}: is there already; name another place"),
        (
            ["whole", "--to", "c", "-o", str(tmp_path / "c")],
            "train with --preset live (speech-small for text, ecg-small for tags), or export to onnx or keras",
        ),
    ):
        assert run_app(["export", str(runs / arguments[0]), *arguments[1:]], debug=False) == 1
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert run_app(["export", str(runs / "live"), "--to", "onnx", "-o", str(out), "--overwrite"], debug=True) == 0
    assert out.stat().st_size > 1000


def test_names_are_identifiers() -> None:
    assert [identifier(name) for name in ("digits", "My run-2", "3d", "é")] == [
        "digits",
        "my_run_2",
        "model_3d",
        "model",
    ]
