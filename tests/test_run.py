"""Runs: the public names, test data that lies elsewhere, folders."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import crnn
from crnn.data.read import from_arrays
from crnn.errors import ConfigError, TrainingError
from crnn.training import checkpoint

QUICK = {"train.steps": 2}


def arrays(count: int, seed: int = 0) -> crnn.Dataset:
    rng = np.random.default_rng(seed)
    return from_arrays([rng.normal(size=(12, 2)) + i % 2 for i in range(count)], ["ab"[i % 2] for i in range(count)])


def test_train_stays_the_function_after_everything_is_imported() -> None:
    for module in pkgutil.walk_packages(crnn.__path__, "crnn."):
        importlib.import_module(module.name)
    assert callable(crnn.train)
    assert crnn.check.__module__ == "crnn.run"
    assert crnn.train.__module__ == "crnn.run"


def test_test_data_that_lies_elsewhere_is_the_test_set() -> None:
    run = crnn.train(arrays(20), test=arrays(6, seed=1), preset="seed", settings=QUICK)
    assert run.evaluation.num_examples == 6
    assert run.splits is not None
    assert run.splits["sides"]["test"]["ids"] == [f"test/{i}" for i in range(6)]


def test_a_full_disk_keeps_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.write_file(path, b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*the previous file is kept; free space"):
        checkpoint.write_file(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_overwrite_keeps_the_old_run_when_the_new_one_cannot_start(tmp_path: Path) -> None:
    crnn.train(arrays(20), out=tmp_path / "run", preset="seed", settings=QUICK)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="did you mean 'default'"):
        crnn.train(arrays(20), out=tmp_path / "run", preset="defalt", overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_started_again_by_torchrun_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, options = tmp_path / "run", {"preset": "seed", "settings": QUICK}
    crnn.train(arrays(20), out=run, **options)
    weights = (run / "model.safetensors").read_bytes()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert crnn.train(arrays(20), out=run, **options).evaluation.num_examples  # it was finished: nothing is refused
    (run / "metrics.json").unlink()
    (run / "model.safetensors").unlink()
    crnn.train(arrays(20), out=run, **options)  # from the checkpoint
    assert (run / "model.safetensors").read_bytes() == weights
    (run / "metrics.json").unlink()
    (run / "checkpoints" / "last.safetensors").unlink()
    crnn.train(arrays(20), out=run, **options)  # it died before the first checkpoint
    assert (run / "model.safetensors").read_bytes() == weights
