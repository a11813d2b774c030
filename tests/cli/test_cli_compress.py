"""crnn compress and crnn info --cost: what they print, and what they refuse in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import crnn
from compress.test_compress import SETTINGS, table
from crnn.cli.main import run_app
from crnn.report import evaluation
from crnn.report.cost import measure_cost


@pytest.fixture(scope="module", autouse=True)
def little_measured() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "measure_floors", lambda *_, **__: [])
        patch.setattr(evaluation, "measure_cost", partial(measure_cost, seconds=0.01))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cli_compress")
    crnn.train(table(folder), out=folder / "run", target="target", preset="seed", settings=SETTINGS)
    return str(folder / "run")


def test_compress_prints_a_table_and_what_comes_next(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert run_app(["compress", run, "--prune-units", "0.5", "--epochs", "1", "--out", out, "--quiet"], debug=True) == 0
    text = capsys.readouterr().out
    for part in (
        "before",
        "after",
        "change",
        "accuracy",
        "bytes of weights",
        "x\n",
        f"next     crnn info {out} --cost",
    ):
        assert part in text
    assert run_app(["eval", out], debug=True) == 0
    assert run_app(["info", out], debug=True) == 0
    assert "weights: float32" in capsys.readouterr().out


def test_json_is_one_object(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["compress", run, "--int8", "--out", str(tmp_path / "out"), "--json"], debug=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == ["int8"]
    assert found["after"]["num_bytes"] < 0.4 * found["before"]["num_bytes"]
    assert run_app(["info", str(tmp_path / "out"), "--cost", "--json"], debug=True) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["bytes of model.safetensors"] == found["after"]["num_bytes"]
    assert cost["streams"] == "yes"
    assert run_app(["info", str(tmp_path / "out")], debug=True) == 0
    assert f"  compressed: from {run}, steps " in capsys.readouterr().out


def test_cost_in_lines(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["info", run, "--cost"], debug=True) == 0
    text = capsys.readouterr().out
    for part in ("parameters: ", "multiply-adds per step: ", "streams: yes", "delay in frames: 2", "C file, flash in"):
        assert part in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "crnn: nothing to do: give --int8, --prune SHARE, --prune-units SHARE or --distil PRESET"),
        (["--prune", "5"], "crnn: --prune=5; expected a share between 0 and 1, such as 0.5 for half"),
        (["--distil", "lif"], "unknown preset"),
        (["--int8", "--data", "nowhere"], "nowhere"),
    ],
)
def test_one_line_for_what_cannot_be(
    options: list[str], message: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["compress", run, "--out", str(tmp_path / "out"), *options], debug=False) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_run_needs_overwrite(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["compress", run, "--int8", "--out", run], debug=False) == 1
    assert "already holds a run; replace it with --overwrite, or name another folder" in capsys.readouterr().err
