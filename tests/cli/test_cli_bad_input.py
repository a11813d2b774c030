"""What a stranger gets wrong: exit code 1, one message that says where and what, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from torch import zeros

from crnn.cli.main import run_app

Crnn = Callable[..., str]
QUICK = ("--quiet", "--set", "train.steps=2", "--preset", "seed")


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Crnn:
    """Run a command line that must fail; returns its one message."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert run_app([str(a) for a in arguments], debug=False) == 1
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return printed.err or printed.out

    return run


def table(path: Path, *, lengths: tuple[int, ...] = (12,) * 12, targets: Callable[[int], object] = "ab" * 6) -> Path:
    """A long table of two channels; targets: one a sequence."""
    rng = np.random.default_rng(0)
    rows = ["id,time,u,v,target"]
    for i, length in enumerate(lengths):
        rows += [f"s{i},{t},{rng.normal():.3f},{rng.normal() + i % 2:.3f},{targets[i]}" for t in range(length)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    assert run_app(["train", str(table(folder / "t.csv")), "--out", str(folder / "run"), *QUICK], debug=True) == 0
    return folder / "run"


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    """The model alone, to be damaged."""
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((run_folder / name).read_bytes())
    return tmp_path


def test_nothing_there(fails: Crnn, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in fails("train", tmp_path / "empty", "--out", tmp_path / "run")
    assert "no such file or folder" in fails("check", tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_an_unknown_column_is_named_with_the_nearest(fails: Crnn, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    for option in ("target", "group"):
        assert f"{option} 'targett' is not a column; did you mean 'target'?" in fails(
            "train", path, f"--{option}", "targett", "--out", tmp_path / "run"
        )


def test_one_class(fails: Crnn, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", targets="a" * 12)
    assert "t.csv" in (message := fails("train", path, "--out", tmp_path / "run"))
    assert "only the class 'a'; expected at least 2 classes" in message
    assert "every example is of the class 'a'" in fails("check", path)


def test_a_sequence_shorter_than_the_pooling(fails: Crnn, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", lengths=(12,) * 11 + (1,))
    assert "s11: 1 frames, but this network needs at least 2" in fails("train", path, "--out", tmp_path / "r", *QUICK)
    assert "s11: 1 frames, while the network needs at least 2" in fails("check", path, "--preset", "seed")


def test_targets_that_are_missing(fails: Crnn, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", targets=[*(i * 1.5 for i in range(11)), "nan"])
    message = fails("train", path, "--out", tmp_path / "run")
    assert "id s11: no target, while other places have one" in message
    assert "(--skip-bad leaves it out)" in message


def test_a_class_in_the_test_set_that_training_never_saw(fails: Crnn, tmp_path: Path, run_folder: Path) -> None:
    path = table(tmp_path / "t.csv", targets="abcabcabcabc")
    assert "id s2: label 'c' is not among the 2 classes seen in training" in fails("eval", run_folder, path)
    train = table(tmp_path / "train.csv")
    message = fails("train", train, "--test", path, "--out", tmp_path / "run", *QUICK)
    assert "label 'c' is not among the 2 classes seen in training" in message


def test_data_without_targets_cannot_be_scored(fails: Crnn, tmp_path: Path, run_folder: Path) -> None:
    (tmp_path / "t.csv").write_text("id,time,u,v\ns0,0,1,2\ns0,1,3,4\n")
    message = fails("eval", run_folder, tmp_path / "t.csv")
    assert "target" in message


@pytest.mark.parametrize("verb", ["info", "predict"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: no such file; the run was not finished"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "truncated or not a safetensors file"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
            "truncated or not a safetensors file",
        ),
        (lambda f: save_file({"a": zeros(3)}, f / "model.safetensors"), "belongs to another config.json"),
        (lambda f: (f / "config.json").unlink(), "config.json: no such file; expected a run folder"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not valid JSON"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "not a crnn config (no 'format')"),
        (lambda f: change(f, format=99), "format 99, written by crnn"),
        (lambda f: change(f, format="2"), "format '2', expected a whole number"),
        (lambda f: change(f, inputs={"kind": "series"}), "inputs: found no 'channel_names'"),
        (lambda f: change(f, task={"name": "segment", "state": {}}), "task: --task segment: unknown task"),
        (lambda f: change(f, task={"name": "classify", "state": {}}), "task: found no 'labels'"),
        (lambda f: change(f, outputs=7), "found outputs 7, but its task has 2"),
    ],
)
def test_a_damaged_model_is_named(
    fails: Crnn, copied: Path, verb: str, damage: Callable[[Path], object], said: str
) -> None:
    damage(copied)
    assert said in fails(verb, copied, *(["x.csv"] if verb == "predict" else []))


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "model.hiden=3"], "--set model.hiden: model.hiden: unknown option; known: layers, summary, head"),
        (["--set", "train.lerning_rate=1"], "unknown option; did you mean 'learning_rate'?"),
        (["--set", "train.augment.nois=1"], "train.augment.nois: unknown option; did you mean 'noise'?"),
        (["--set", "model.head.dropot=1"], "model.head.dropot: unknown option; did you mean 'dropout'?"),
        (["--set", "model.layers.1.chanels=8"], "model.layers[1].chanels: unknown option; did you mean 'channels'?"),
        (["--set", "model.layers.99.type=conv"], "expected a position from 0 to"),
        (["--set", "task.label_smothing=1"], "task.label_smothing: unknown option; did you mean 'label_smoothing'?"),
        (["--set", "train.learning_rate=fast"], "train.learning_rate: input should be a valid number"),
        (["--set", "train.steps"], "found no '='"),
        (["--preset", "defalt"], "unknown preset; did you mean 'default'?"),
        (["--task", "clasify"], "unknown task; did you mean 'classify'?"),
        (["--task", "regress"], "found 'a', expected a number"),
        (["--epochs", "0"], "train.epochs=0; expected at least 1"),
        (["--config", "nope.yaml"], "nope.yaml: no such file"),
    ],
)
def test_options_that_are_wrong(fails: Crnn, tmp_path: Path, options: list[str], said: str) -> None:
    if "--preset" not in options:
        options = ["--preset", "seed", *options]
    assert said in fails("train", table(tmp_path / "t.csv"), "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_config_files_that_are_wrong(fails: Crnn, tmp_path: Path) -> None:
    data, config = table(tmp_path / "t.csv"), tmp_path / "c.yaml"
    for text, said in (
        ("train: 3\n", "train: found 3, expected a mapping of options"),
        ("trane: {}\n", "trane: unknown section; did you mean 'train'?"),
        ("train: [\n", "c.yaml:2: not valid YAML"),
        ("train:\n  lerning_rate: 1\n", "did you mean 'learning_rate'?"),
    ):
        config.write_text(text)
        assert said in fails("train", data, "--out", tmp_path / "run", "--config", config)


def test_an_out_folder_that_is_taken(fails: Crnn, tmp_path: Path, run_folder: Path) -> None:
    data = table(tmp_path / "t.csv")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    for more in ([], ["--overwrite"]):
        assert "this folder holds other files" in fails("train", data, "--out", foreign, *more)
    assert (foreign / "thesis.txt").read_text() == "mine"
    assert "already holds a run; replace it with --overwrite" in fails("train", data, "--out", run_folder)
    assert "is a file" in fails("train", data, "--out", data)


def test_runs_that_cannot_be_resumed(fails: Crnn, tmp_path: Path, run_folder: Path) -> None:
    assert "this run is finished, so there is nothing to resume" in fails("train", "--resume", run_folder)
    assert "run.json: no such file" in fails("train", "--resume", tmp_path)
    assert "leave DATA and --out away" in fails("train", "--resume", run_folder, "--out", tmp_path)
    (tmp_path / "run.json").write_text("{}")
    assert "run.json: found no config" in fails("train", "--resume", tmp_path)


def test_files_that_a_model_cannot_take(fails: Crnn, tmp_path: Path, run_folder: Path) -> None:
    (tmp_path / "one.csv").write_text("id,time,u\ns0,0,1\ns0,1,3\n")
    assert "found 1 channel (u), but the model takes 2 channels (u, v)" in fails(
        "predict", run_folder, tmp_path / "one.csv"
    )
    (tmp_path / "other.csv").write_text("id,time,w,z\ns0,0,1,2\ns0,1,3,4\n")
    assert "found channels w, z, but the model was trained on u, v" in fails(
        "predict", run_folder, tmp_path / "other.csv"
    )
    assert "no such file or folder" in fails("predict", run_folder, tmp_path / "gone.csv")
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in fails("predict", run_folder, tmp_path / "empty")


def test_results_that_cannot_be_written(fails: Crnn, tmp_path: Path, run_folder: Path) -> None:
    data = table(tmp_path / "t.csv")
    (tmp_path / "file").write_text("")
    assert "is a folder; expected a file" in fails("predict", run_folder, data, "-o", tmp_path)
    assert "cannot be written" in fails("predict", run_folder, data, "-o", tmp_path / "file" / "x.jsonl")
    assert "cannot be written" in fails("eval", run_folder, data, "--report", tmp_path / "file" / "x.html")
    assert "could not be written" in fails("train", data, "--out", tmp_path / "file" / "run", *QUICK)
