"""What the verbs print, and what Ctrl-C leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import crnn
from crnn.cli.main import run_app
from crnn.nn.dispatch import describe


def make_tables(folder: Path, count: int = 40) -> Path:
    rng = np.random.default_rng(0)
    rows = ["id,time,u,y,target"]
    for i in range(count):
        rows += [f"s{i},{t},{rng.normal():.3f},{rng.normal() + i % 2:.3f},{'ab'[i % 2]}" for t in range(10 + i % 5)]
    path = folder / "t.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verbs")
    data = make_tables(folder)
    options = ["--preset", "seed", "--set", "train.steps=4", "--target", "target", "--quiet"]
    assert run_app(["train", str(data), "--out", str(folder / "run"), *options], debug=True) == 0
    return folder


def test_json_is_one_object_and_nothing_else(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = str(trained / "t.csv"), str(trained / "run")
    options = ["--target", "target", "--preset", "seed"]
    for arguments, key in (
        (["check", data, *options, "--json"], "summary"),
        (["eval", run, data, "--json"], "metrics"),
        (["eval", run, "--json"], "metrics"),
        (["info", run, "--json"], "timing"),
        (["train", data, "--out", f"{run}2", *options, "--set", "train.steps=2", "--json"], "evaluation"),
    ):
        capsys.readouterr()
        assert run_app(arguments, debug=True) == 0
        assert key in json.loads(capsys.readouterr().out)


def test_info_says_what_computes_the_recurrent_layers(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run_app(["info", str(trained / "run"), "--kernels"], debug=True) == 0
    streams, head, *cells = capsys.readouterr().out.splitlines()
    assert streams.startswith("streams: ")
    assert head == "whole sequences:"
    assert len(cells) == 1
    name, what = cells[0].strip().split(": ", 1)
    assert name == "body.layers.5.forwards.0"
    assert what == describe(
        crnn.load(trained / "run").network.body.layers[5].forwards[0]
    )  # other machines, other rules
    assert "nn.LSTM" in what


def test_check_says_what_training_would_do(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["check", str(trained / "t.csv"), "--target", "target", "--preset", "seed"], debug=True) == 0
    text = capsys.readouterr().out
    for line in ("task: classify (targets are text", "split: test: 8 of 40", "preset: seed"):
        assert line in text


def test_predict_takes_the_models_columns_in_its_order_and_writes_json_lines(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.csv").write_text("id,y,extra,time,u\nm1,1,x,0,2\nm1,3,x,1,4\nm2,5,x,0,6\nm2,7,x,1,8\n")
    (tmp_path / "same.csv").write_text("id,time,u,y\nm1,0,2,1\nm1,1,4,3\nm2,0,6,5\nm2,1,8,7\n")
    found = []
    for name in ("new", "same"):
        out = tmp_path / "deep" / f"{name}.jsonl"
        assert run_app(["predict", str(trained / "run"), str(tmp_path / f"{name}.csv"), "-o", str(out)], True) == 0
        found.append([json.loads(line) for line in out.read_text().splitlines()])
    assert [line["id"] for line in found[0]] == ["m1", "m2"]
    assert found[0] == found[1]
    assert capsys.readouterr().err == ""


def test_predict_eval_and_info_work_with_the_two_model_files_alone(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((trained / "run" / name).read_bytes())
    data = str(trained / "t.csv")
    assert run_app(["predict", str(tmp_path), data], debug=True) == 0
    assert len(capsys.readouterr().out.splitlines()) == 40
    assert run_app(["info", str(tmp_path)], debug=True) == 0
    text = capsys.readouterr().out
    for line in ("task: classify", "  channel names: u, y", "  look back: the whole sequence", "labels: a, b"):
        assert line in text
    assert run_app(["eval", str(tmp_path), data, "--target", "target"], debug=True) == 0
    assert run_app(["eval", str(tmp_path)], debug=False) == 1
    assert "metrics.json: no such file" in capsys.readouterr().err


def test_help_and_version_do_not_import_torch() -> None:
    code = "import sys; from crnn.cli.main import run_app; run_app(['--help'], False); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_the_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    data = make_tables(tmp_path)
    options = [str(data), "--target", "target", "--preset", "seed", "--set", "train.steps=800"]
    command = [sys.executable, "-m", "crnn.cli.main", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *options, "--out", str(tmp_path / "cut")],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("epoch")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate()
    assert process.returncode == 130
    assert f"continue with: crnn train --resume {tmp_path / 'cut'}" in message
    assert "Traceback" not in message
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = subprocess.run([*command, "--resume", str(tmp_path / "cut"), "--quiet"], env=environment, check=False)
    assert resumed.returncode == 0
    whole = subprocess.run(
        [*command, *options, "--out", str(tmp_path / "whole"), "--quiet"], env=environment, check=False
    )
    assert whole.returncode == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]


def test_columns_named_in_training_are_known_to_eval_and_predict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_tables(tmp_path).read_text().replace("id,time,u,y,target", "machine,tick,u,y,state")
    data, run = tmp_path / "odd.csv", tmp_path / "run"
    data.write_text(rows)
    columns = ["--id", "machine", "--time", "tick", "--target", "state", "--format", "table"]
    options = ["--preset", "seed", "--set", "train.steps=4", "--quiet"]
    assert run_app(["train", str(data), "--out", str(run), *columns, *options], debug=True) == 0
    capsys.readouterr()
    assert run_app(["predict", str(run), str(data)], debug=True) == 0
    predicted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in predicted][:3] == ["s0", "s1", "s2"]
    assert len(predicted) == 40
    assert run_app(["eval", str(run), str(data), "--json"], debug=True) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]
