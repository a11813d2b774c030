"""Compression of models that answer for every frame: scored by counts, tuned anew, the same run folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import crnn
from crnn.compress.compare import native_engine, outputs_of
from crnn.compress.compress import Steps, compress
from crnn.errors import ConfigError
from crnn.run import Run
from crnn.tasks.infer import TASKS
from tasks.step_example import SIGNS_MODEL, Signs, signs_data


@pytest.fixture(scope="module", autouse=True)
def known():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "signs", Signs)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps") / "run"
    config = {"model": SIGNS_MODEL, "train": {"learning_rate": 0.02, "batch_size": 8}, "split": {"min_validation": 4}}
    crnn.train(signs_data(), task="signs", preset="seed", config=config, epochs=6, out=folder)
    return folder


def test_it_is_scored_by_counts_and_is_a_run_like_any_other(trained: Path, tmp_path: Path) -> None:
    asked = Steps(prune_units=0.25, prune=0.3, int8=True)
    found = compress(trained, tmp_path / "out", asked, data=signs_data(60, seed=5), epochs=1)
    assert set(found.before.metrics) == set(found.changes) == {"accuracy"}
    before, after, change = (each["accuracy"] for each in (found.before.metrics, found.after.metrics, found.changes))
    assert change.point == pytest.approx(after.point - before.point)
    assert change.low <= change.point <= change.high
    assert before.point > 0.8
    assert found.after.num_parameters < found.before.num_parameters
    assert 0.2 < found.after.zeros < 0.5
    run = Run(tmp_path / "out")
    assert run.evaluation.form == "steps"
    assert run.evaluation.metrics["accuracy"].point == pytest.approx(after.point, abs=0.02)
    assert run.model.task.bias != Run(trained).model.task.bias  # tuned on the validation part of other data


def test_8_bits_of_the_engine_are_those_of_pytorch(trained: Path, tmp_path: Path) -> None:
    compress(trained, tmp_path / "int8", Steps(int8=True), data=signs_data(20, seed=6))
    model, data = crnn.load(tmp_path / "int8"), signs_data(4, seed=7)
    engine = native_engine(model)
    if engine is None:
        pytest.skip("no engine here")
    plain = outputs_of(model, data)
    for a, b in zip(outputs_of(model, data, engine), plain, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() < 0.05 * b.abs().max()
    assert not torch.equal(plain.data, model.outputs(data).data)
    assert len(model.predict(data)) == 4


def test_a_student_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--distil is for one answer a sequence; task signs gives one a frame"):
        compress(trained, tmp_path / "out", Steps(distil="live"), data=signs_data())
    assert not (tmp_path / "out").exists()
