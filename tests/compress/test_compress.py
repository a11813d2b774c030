"""A compressed run is a run: it loads, scores, predicts and resumes nothing; its data is what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import crnn
from crnn.compress import compress as compress_module
from crnn.compress.compare import native_engine, outputs_of
from crnn.compress.compress import Steps, compress
from crnn.compress.units import prune_units
from crnn.data.read import from_arrays
from crnn.errors import ConfigError, DataError
from crnn.export.c import find_compiler
from crnn.report import evaluation
from crnn.report.cost import measure_cost
from crnn.report.evaluation import Evaluation
from crnn.run import Run
from crnn.training.config import TrainConfig

SETTINGS = {"train.steps": 6, "train.batch_size": 8, "split.min_validation": 4}


def table(folder: Path, count: int = 40, channels: int = 2) -> Path:
    rng = np.random.default_rng(count)
    names = "xyz"[:channels]
    rows = [f"id,time,{','.join(names)},target"]
    for i in range(count):
        for t in range(8 + i % 5):
            values = ",".join(f"{v:.3f}" for v in rng.normal(size=channels) + i % 2)
            rows.append(f"s{i},{t},{values},{'ab'[i % 2]}")
    path = folder / f"t{count}_{channels}.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module", autouse=True)
def little_measured() -> Iterator[None]:
    """Few resamples, few timings, no floors: how well these networks do is not the question."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "measure_floors", lambda *_, **__: [])
        for module in (evaluation, compress_module):
            patch.setattr(module, "measure_cost", partial(measure_cost, seconds=0.01))
        patch.setattr(Evaluation, "save", lambda self, path: Path(path).write_text("<html>"))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    crnn.train(table(folder), out=folder / "run", target="target", preset="seed", settings=SETTINGS)
    return folder


@pytest.fixture(scope="module")
def in_8_bits(trained: Path) -> Path:
    compress(trained / "run", trained / "int8", Steps(int8=True))
    return trained / "int8"


ALL = Steps(distil="live", prune_units=0.5, prune=0.5, int8=True)


@pytest.mark.parametrize("steps", [ALL, Steps(int8=True)], ids=["all", "int8"])
def test_what_comes_out_is_a_run_like_any_other(steps, trained, tmp_path):
    found = compress(trained / "run", tmp_path / "out", steps, epochs=1)
    run = Run(tmp_path / "out")
    assert run.model.origin["compressed"] == [{"from": str(trained / "run"), "steps": list(steps.words)}]
    assert run.evaluation.facts.settings["compressed"] == ", ".join(steps.words)
    assert run.evaluation.metrics["accuracy"] == found.after.metrics["accuracy"]
    assert run.evaluation.facts.split == "test"
    assert run.evaluation.floors == Run(trained / "run").evaluation.floors
    assert run.evaluate(trained / "t40_2.csv").num_examples == 40
    assert len(run.predict(trained / "t40_2.csv")) == 40
    assert run.plan_facts["config"]["preset"] == (steps.distil or "seed")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.safetensors", "config.json", "run.json", "splits.json", "metrics.json", "report.html", "compress.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "compress.json").read_text())["after"]["num_bytes"] == found.after.num_bytes
    assert (tmp_path / "out" / "model.safetensors").stat().st_size == found.after.num_bytes < found.before.num_bytes
    assert Run(trained / "run").splits == run.splits


def test_the_table_says_both_sides(trained, tmp_path):
    found = compress(trained / "run", tmp_path / "out", Steps(prune_units=0.5), epochs=1)
    lines = str(found).splitlines()
    assert lines[0].startswith("prune-units 0.5; scored on 8 examples, test of ")
    assert lines[1].split() == ["before", "after", "change"]
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "accuracy", "balanced accuracy", "MCC", "parameters", "bytes of weights", "bytes, zipped",
        "multiply-adds per step", "weights at zero", "CPU time, alone", "native engine, alone",
    ][: len(lines) - 2]  # fmt: skip
    assert found.after.num_parameters < 0.4 * found.before.num_parameters
    assert found.after.macs < 0.4 * found.before.macs
    change = found.after.metrics["accuracy"].point - found.before.metrics["accuracy"].point
    assert found.changes["accuracy"].point == pytest.approx(change)


def test_the_native_engine_of_8_bits_agrees_with_rounding_in_pytorch(trained, in_8_bits):
    model, data = crnn.load(in_8_bits), crnn.read(trained / "t40_2.csv", target="target")
    engine = native_engine(model)
    if engine is None:
        pytest.skip("no compiled kernels here")
    simulated = outputs_of(model, data, None)
    assert (outputs_of(model, data, engine) - simulated).abs().max() < 0.02 * simulated.abs().max()


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler here")
def test_the_c_file_of_8_bits_is_compared_with_8_bits(in_8_bits, tmp_path):
    """Random sequences of the export's check lie far outside of what was calibrated; clipping is no fault of it."""
    found = crnn.load(in_8_bits).export("c", tmp_path / "c")
    assert found.details["difference"] < 0.02


def test_other_data_calibrates_and_the_runs_own_test_part_scores(trained, tmp_path):
    found = compress(trained / "run", tmp_path / "out", Steps(int8=True), data=table(trained, 30))
    assert found.num_examples == 8
    assert "t40_2.csv" in found.scored


def test_without_the_runs_own_data_it_is_asked_for_and_then_used(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "moved")
    facts = json.loads((tmp_path / "moved" / "run.json").read_text())
    facts["source"]["path"] = str(tmp_path / "gone.csv")
    (tmp_path / "moved" / "run.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"own data is not at hand \(.*gone.csv.*\); give labelled data with --data"):
        compress(tmp_path / "moved", tmp_path / "out", Steps(int8=True))
    other = table(trained, 30)
    assert compress(tmp_path / "moved", tmp_path / "a", Steps(int8=True), data=other).num_examples == 30
    found = compress(tmp_path / "moved", tmp_path / "b", Steps(prune=0.5), data=other, epochs=1)
    assert found.num_examples == 6  # a fifth is held out, the rest is trained on
    sides = Run(tmp_path / "b").splits["sides"]
    assert len(sides["train"]["ids"]) + len(sides.get("validation", {"ids": []})["ids"]) == 32 + 24


def test_only_the_model_will_do_where_data_is_given(trained, tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(trained / "run" / name, tmp_path / "model")
    with pytest.raises(DataError, match=r"own data is not at hand \(no run.json beside the model\)"):
        compress(tmp_path / "model", tmp_path / "out", Steps(int8=True))
    found = compress(
        tmp_path / "model", tmp_path / "out", Steps(prune=0.5), data=trained / "t40_2.csv", target="target", epochs=1
    )
    assert found.after.zeros == pytest.approx(0.5, abs=0.01)


def test_a_run_on_data_in_memory_says_so(tmp_path):
    x = [np.random.default_rng(i).normal(size=(9, 2)) for i in range(20)]
    crnn.train(from_arrays(x, ["a", "b"] * 10), out=tmp_path / "run", preset="seed", settings={"train.steps": 1})
    with pytest.raises(DataError, match="the run was started on data in memory"):
        compress(tmp_path / "run", tmp_path / "out", Steps(int8=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to do: give --int8, --prune SHARE"),
        ({"prune": 1.5}, "--prune=1.5; expected a share between 0 and 1"),
        ({"prune_units": 0.0}, "--prune-units=0; expected a share"),
        ({"distil": "lvie"}, "--distil lvie: unknown preset; did you mean 'live'"),
    ],
)
def test_steps_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Steps(**options)


def test_a_folder_that_holds_something_is_left_alone(trained):
    with pytest.raises(ConfigError, match="already holds a run; replace it with --overwrite"):
        compress(trained / "run", trained / "run", Steps(int8=True))


def test_data_without_the_models_channels_is_refused(trained, tmp_path):
    with pytest.raises(DataError, match="y"):
        compress(trained / "run", tmp_path / "out", Steps(int8=True), data=table(trained, 20, 1))
    assert not (tmp_path / "out").exists()


def test_a_run_in_8_bits_is_not_compressed_again(in_8_bits, tmp_path):
    with pytest.raises(ConfigError, match="is in 8 bits already; compress the run that it was made from"):
        compress(in_8_bits, tmp_path / "again", Steps(prune=0.5))


def test_the_same_seed_gives_the_same_bits(trained):
    run, data = Run(trained / "run"), crnn.read(trained / "t40_2.csv", target="target")
    config = TrainConfig(steps=4, batch_size=8)
    first, second = (prune_units(run.model, data, share=0.5, config=config, epochs=1) for _ in range(2))
    assert torch.equal(first.outputs(data), second.outputs(data))
