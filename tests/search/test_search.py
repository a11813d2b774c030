"""Searches: the test side is never seen, stopped ones go on, workers share trials, the best can be trained."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import crnn
import crnn.search.search as searching
from crnn.cli.main import run_app
from crnn.data.dataset import Dataset
from crnn.data.read import from_arrays
from crnn.errors import ConfigError, DataError, MissingExtraError, SplitError, TrainingError
from crnn.search.search import SearchResult, Trial, rank, search
from crnn.training.history import EpochRecord
from crnn.training.progress import Update

SETTINGS = {"train.steps": 12, "train.batch_size": 8}
SPACE = {"train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "width": [0.25, 0.5, 1.0]}
QUICK: dict[str, Any] = {"preset": "seed", "settings": SETTINGS, "space": SPACE, "rounds": 1}


def arrays(count: int = 40, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    data = [rng.normal(size=(8 + i % 3, 2)) + i % 2 for i in range(count)]
    return from_arrays(data, ["ab"[i % 2] for i in range(count)])


def table(folder: Path) -> str:
    rows = ["id,time,x,target"]
    for i, example in enumerate(arrays()):
        rows += [f"s{i},{t},{frame[0]:.4f},{example.target}" for t, frame in enumerate(example.load())]
    (folder / "data.csv").write_text("\n".join(rows) + "\n")
    return str(folder / "data.csv")


def values(found: SearchResult) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, t.value, t.loss, t.values) for t in found.trials]


def test_the_first_trial_is_the_preset_and_the_best_can_be_trained(tmp_path: Path) -> None:
    found = search(arrays(), out=tmp_path, trials=3, **QUICK)
    assert found.trials[0].values == {"train.learning_rate": 1e-3, "width": 1.0}
    assert [t.state for t in found.trials] == ["complete"] * 3
    assert "on 1 held-out part of 8 of 32 training examples" in str(found)
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [float(row[found.metric]) for row in rows] == [trial.value for trial in found.trials]
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert best == found.config
    run = crnn.train(arrays(), preset="seed", config=tmp_path / "best.yaml")
    assert run.plan_facts is not None
    trained = run.plan_facts["config"]
    assert trained["train"]["learning_rate"] == found.best.values["train.learning_rate"]
    channels = [layer["channels"] for layer in trained["model"]["layers"] if layer["type"] == "conv"]
    assert channels == [round(64 * found.best.values["width"])]


def test_the_test_side_is_never_read() -> None:
    def refuse() -> Any:
        raise AssertionError("a test example was read")

    data = arrays()
    marked = [replace(e, split="test", load=refuse) if i < 8 else replace(e, split="train") for i, e in enumerate(data)]
    found = search(replace(data, examples=tuple(marked)), trials=1, **QUICK)
    assert "of 32 training examples" in found.held_out


def test_a_validation_part_of_the_run_is_what_trials_are_measured_on() -> None:
    data = arrays()
    sides = ["validation", "train", "test", "train"]
    marked = [replace(e, split=sides[i // 2 % 4]) for i, e in enumerate(data)]
    found = search(replace(data, examples=tuple(marked)), trials=1, **{**QUICK, "rounds": None})
    assert found.held_out == "on the run's own validation part of 10 examples"


def test_small_data_is_measured_on_three_parts() -> None:
    found = search(arrays(), trials=1, **{**QUICK, "rounds": None})
    assert found.held_out == "on 3 held-out parts of 8 of 32 training examples"
    single = [search(arrays(), trials=1, **{**QUICK, "rounds": 1}).trials[0].value]
    assert found.trials[0].value is not None
    assert single[0] is not None
    assert 0 <= 3 * found.trials[0].value - single[0] <= 2  # the mean of the first part and two others


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/trials.db"])
def test_stopped_and_continued_equals_uninterrupted(tmp_path: Path, storage: str | None) -> None:
    whole = search(arrays(), trials=4, **QUICK)
    storage = storage and storage.format(tmp_path)
    search(arrays(), out=tmp_path / "out", storage=storage, trials=2, **QUICK)
    continued = search(arrays(), out=tmp_path / "out", storage=storage, trials=4, **QUICK)
    assert values(continued) == values(whole)
    assert search(arrays(), out=tmp_path / "out", storage=storage, trials=4, **QUICK) == continued


def test_other_data_has_trials_of_its_own(tmp_path: Path) -> None:
    search(arrays(), out=tmp_path, trials=2, **QUICK)
    assert len(search(arrays(count=36), out=tmp_path, trials=1, **QUICK).trials) == 1


def test_workers_share_one_storage(tmp_path: Path) -> None:
    data = table(tmp_path)
    command = ["search", data, "--target", "target", "--preset", "seed", "--rounds", "1", "--trials", "6", "--json"]
    command += ["--set", "train.steps=8", "--storage", str(tmp_path / "journal.log")]
    code = "import sys; from crnn.cli.main import main; main(sys.argv[1:])"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    printed = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    trials = max((json.loads(out)["trials"] for out, _ in printed), key=len)
    assert 6 <= len(trials) <= 7  # each ends the one that it is at
    drawn = [json.dumps(trial["values"], sort_keys=True) for trial in trials]
    assert len(set(drawn)) == len(trials)


class FakeTrial:
    """Records what a trial is told."""

    def __init__(self, prune_from: int = 99) -> None:
        self.told: dict[int, float] = {}
        self.prune_from = prune_from

    def report(self, value: float, step: int) -> None:
        self.told[step] = value

    def should_prune(self) -> bool:
        return max(self.told) >= self.prune_from


def after(epoch: int, epochs: int, accuracy: float) -> Update:
    record = EpochRecord(epoch, 1.0, 1.0, {"accuracy": accuracy}, 0.1, 1.0, 0.0, 0.1, is_best=False)
    return Update(epoch, epochs, 10 * epoch, 10 * epochs, 1.0, None, record)


def test_trials_are_compared_at_tenths_of_their_run_whatever_their_epochs() -> None:
    few, many = FakeTrial(), FakeTrial()
    watch_few = searching._Watch(few, "accuracy", ())  # type: ignore[arg-type]
    watch_many = searching._Watch(many, "accuracy", ())  # type: ignore[arg-type]
    for epoch in range(1, 3):
        watch_few(after(epoch, 2, epoch / 10))
    for epoch in range(1, 21):
        watch_many(after(epoch, 20, epoch / 100))
    assert few.told == {**dict.fromkeys(range(1, 6), 0.1), **dict.fromkeys(range(6, 11), 0.2)}
    assert many.told == {mark: 2 * mark / 100 for mark in range(1, 11)}


def test_later_parts_count_with_those_before() -> None:
    trial = FakeTrial()
    watch = searching._Watch(trial, "accuracy", (0.5,))  # type: ignore[arg-type]
    watch(after(1, 1, 0.9))
    assert trial.told == dict.fromkeys(range(11, 21), pytest.approx(0.7))


def test_the_pruner_ends_a_trial() -> None:
    import optuna

    watch = searching._Watch(FakeTrial(prune_from=3), "accuracy", ())  # type: ignore[arg-type]
    watch(after(2, 10, 0.5))
    with pytest.raises(optuna.TrialPruned):
        watch(after(3, 10, 0.5))


def test_bad_trials_are_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "STARTING_TRIALS", 1)
    space = {"train.learning_rate": [1e-3, 1e-9]}
    settings = {"train.steps": 60, "train.batch_size": 8}
    found = search(arrays(), trials=4, preset="seed", settings=settings, space=space, rounds=1, seed=1)
    states = {t.values["train.learning_rate"]: t.state for t in found.trials}
    assert states == {1e-3: "complete", 1e-9: "pruned"}


def test_a_failed_trial_is_named_and_the_others_go_on() -> None:
    space = {"model.layers.4.size": [2, 50]}
    found = search(arrays(), trials=4, preset="seed", settings=SETTINGS, space=space, rounds=1, seed=1)
    failed = [t for t in found.trials if t.state == "failed"]
    assert failed
    assert all("too short" in t.reason for t in failed)
    assert {t.values["model.layers.4.size"] for t in failed} == {50}
    assert found.best.values == {"model.layers.4.size": 2}


def test_when_all_trials_fail_the_reason_is_given() -> None:
    space = {"model.layers.4.size": [40, 50]}
    with pytest.raises(TrainingError, match=r"none of 5 trials could be completed; the first: .*frames, but this net"):
        search(arrays(), trials=50, preset="seed", settings=SETTINGS, space=space, rounds=1)


def test_rank_is_by_value_then_loss_then_number() -> None:
    def trial(number: int, value: float, loss: float, state: str = "complete") -> Trial:
        return Trial(number, state, value, loss, 1.0, {})

    trials = (trial(0, 0.8, 0.5), trial(1, 0.9, 0.4), trial(2, 0.9, 0.3), trial(3, 1.0, 0.1, "pruned"))
    assert [t.number for t in rank(trials, True)] == [2, 1, 0]
    assert [t.number for t in rank(trials, False)] == [0, 2, 1]


def test_too_little_to_measure_on_is_said() -> None:
    data = arrays(12)
    grouped = replace(data, examples=tuple(replace(e, group="one", split="train") for e in data))
    with pytest.raises(SplitError, match="a search needs a part of the training data to measure trials on"):
        search(grouped, trials=1, **{**QUICK, "settings": {**SETTINGS, "split.test": 0}})


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"needs optuna.*crnn\[search\]"):
        search(arrays(), trials=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "--trials 0; expected at least 1"),
        ({"rounds": 0}, "--rounds 0; expected at least 1"),
        ({"storage": "nosuch://x"}, "--storage nosuch://x: cannot be opened .* expected a journal file, or a URL"),
        ({"storage": "."}, r"--storage .: is a folder; expected a journal file"),
        ({"space": "no.yaml"}, "no.yaml: no such file"),
        ({"preset": "seeed"}, "did you mean 'seed'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(arrays(), **{**QUICK, **options})


def test_data_without_targets_is_refused() -> None:
    with pytest.raises(DataError):
        search(from_arrays([np.zeros((4, 1))] * 8), trials=1, **QUICK)


def test_a_storage_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--storage sqlite:.*cannot be read or written.*finished trials are kept"):
        search(arrays(), trials=1, storage=f"sqlite:///{tmp_path}/no/such/place.db", **QUICK)


def test_the_command_prints_a_table_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["search", table(tmp_path), "--target", "target", "--preset", "seed", "--rounds", "1", "--trials", "2"]
    assert run_app([*command, "--set", "train.steps=8", "--out", str(out)], debug=True) == 0
    printed = capsys.readouterr()
    assert "2 trials: 2 complete" in printed.out
    assert f"--config {out}/best.yaml" in printed.out
    assert "2/2  trial 1" in printed.err
    assert (out / "trials.log").is_file()
