"""A trained model: saved equals loaded, and a prediction depends on its own sequence alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import crnn
from crnn.data.dataset import Dataset
from crnn.data.read import from_arrays
from crnn.model import Model
from crnn.presets.registry import PRESETS
from crnn.run import Run

QUICK = {"train.steps": 2, "train.batch_size": 4, "split.test": 0.0, "split.validation": 0.0}
GENERAL = [name for name, make in PRESETS.items() if make.__module__ == "crnn.presets.general"]
"""Presets of one answer a sequence, for whatever data."""
RATES = (4000, 8000, 16000, 44100)


def series(kind: str) -> Dataset:
    rng = np.random.default_rng(0)
    lengths = {"short": (1, 2, 3), "long": (1500, 1200), "plain": (20, 31, 17)}.get(kind, (20, 31, 17))
    channels = 1 if kind in ("one", "short") else 3
    x = [rng.normal(size=(lengths[i % len(lengths)], channels)) + i % 2 for i in range(10)]
    if kind == "nan":
        x = [np.where(rng.random(a.shape) < 0.2, np.nan, a) for a in x]
        x[3][:, 1] = np.nan
    if kind == "scale":
        x = [a * 10.0 ** (3 * (i % 5)) for i, a in enumerate(x)]
    y: list[object] = ["ab"[i % 2] for i in range(10)]
    if kind == "values":
        y = [0.37 * i for i in range(10)]
    if kind == "labels":
        y = [("a",) if i % 2 else ("a", "b") if i % 3 else () for i in range(10)]
    return from_arrays(x[:4] if kind == "tiny" else x, y[:4] if kind == "tiny" else y)


def audio(rate: int) -> Dataset:
    rng = np.random.default_rng(0)
    x = [0.1 * rng.normal(size=int(rate * (0.2 + 0.05 * (i % 3)))) for i in range(8)]
    return from_arrays(x, ["ab"[i % 2] for i in range(8)], kind="audio", sample_rate=rate)


def quick(data: Dataset, preset: str, **more: object) -> Run:
    return crnn.train(data, preset=preset, settings={**QUICK, **more})


CASES = [*("one", "plain", "nan", "scale", "tiny", "short", "long", "values", "labels"), *RATES]


@pytest.mark.parametrize("preset", GENERAL)
@pytest.mark.parametrize("kind", CASES)
def test_every_preset_trains_predicts_and_is_the_same_when_loaded(kind: str | int, preset: str, tmp_path: Path) -> None:
    data = audio(kind) if isinstance(kind, int) else series(kind)
    if preset == "seed" and kind == "short":
        with pytest.raises(crnn.CrnnError, match="1 frames, but this network needs at least 2"):
            quick(data, preset)
        return
    model = quick(data, preset).model
    model.save(tmp_path)
    outputs = model.outputs(data)
    assert outputs.isfinite().all()
    assert Model.load(tmp_path).outputs(data).equal(outputs)
    assert Model.load(tmp_path).predict(data) == model.predict(data)


@pytest.mark.parametrize("preset", GENERAL)
def test_alone_batched_and_in_any_order_are_one_prediction(preset: str) -> None:
    data = series("plain")
    model = quick(data, preset).model
    together = model.outputs(data, batch_size=10)
    alone = model.outputs(data, batch_size=1)
    order = [7, 2, 9, 0, 5, 1, 3, 8, 6, 4]
    assert (together - alone).abs().max() <= 1e-5
    assert (model.outputs(data.subset(order), batch_size=3) - together[order]).abs().max() <= 1e-5


@pytest.mark.parametrize("preset", GENERAL)
def test_gaps_in_new_data_are_filled_where_training_had_none(preset: str) -> None:
    model = quick(series("plain"), preset).model
    x = np.random.default_rng(1).normal(size=(20, 3))
    x[4:9, 1] = np.nan
    x[:, 2] = np.nan
    assert model.outputs([x]).isfinite().all()


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    for name in ("a", "b"):
        quick(series("plain"), "default").model.save(tmp_path / name)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]
