"""Presets that answer for every frame: in general, for sounds, and small ones for ECG that stream."""

from __future__ import annotations

from typing import Any

from crnn.presets.general import NORM_RELU, front
from crnn.presets.recipe import DataSummary, Recipe

OUTPUT_RATE = 40.0
"""Output frames in a second, about, where data has a higher rate."""
WINDOW_SECONDS = 30.0
"""Length of the windows that longer recordings are cut into for training."""


def tag(data: DataSummary) -> Recipe:
    """Residual convolutions and a bidirectional LSTM, an answer for each frame; about 40 a second for fast data."""
    shrink = max(round((data.sample_rate or 0) / OUTPUT_RATE), 1)
    layers: list[dict[str, Any]] = front(data, normalise=True)
    for stride in _factors(shrink):
        layers += [{"type": "conv", "channels": 64, "kernel_size": 2 * stride + 5, "stride": stride, "bias": False}]
        layers += NORM_RELU
    layers += [_residual(64), _residual(64), {"type": "dropout", "rate": 0.2}]
    layers += [
        {"type": "recurrent", "hidden_size": 64, "bidirectional": True, "num_layers": 2, "dropout": 0.3},
    ]
    return {"model": _model(layers), "train": {**_training(data), **_windows(data)}, "task": {}}


def sed(data: DataSummary) -> Recipe:
    """Sounds: log-mels, convolutions that halve the bands, a bidirectional GRU.

    Source: Cakir et al. 2017, arXiv:1702.06286, whose order of parts it keeps; sizes and training are ours.
    """
    layers = front(data, normalise=True)
    for channels, size in ((32, (2, 2)), (48, (1, 2)), (64, (1, 2)), (64, (1, 2))):
        layers += [{"type": "conv2d", "channels": channels, "bias": False}, *NORM_RELU]
        layers += [{"type": "pool2d", "kind": "max", "size": list(size), "tail": "ceil"}]
    layers += [{"type": "flatten"}, {"type": "dropout", "rate": 0.3}]
    layers += [{"type": "recurrent", "cell": "gru", "hidden_size": 64, "bidirectional": True}]
    train = {**_training(data), "steps": 1000, "batch_size": 8, "window": round(10 * (data.sample_rate or 16_000))}
    return {"model": _model(layers, dropout=0.3), "train": train, "task": {}}


def ecg_small(data: DataSummary) -> Recipe:
    """Heartbeats, live: from 360 Hz to 30 frames a second, two GRUs, a look ahead of 0.6 s; below 256 kB as C.

    Labels are brought to the AAMI classes. One way from the stem carries shape, a narrow one only when beats come: its
    recurrence sees rhythm and little else, so that an early beat is told by being early. Training turns leads into each
    other and filters them: more hearts than there are in the records.
    """
    rate = data.sample_rate or 360.0
    shrink = max(round(rate / 30), 1)
    second = 2 if shrink % 2 == 0 else 1
    stem = [*_small_front(), *_conv(32, 2 * (shrink // second) + 13, stride=shrink // second)]
    shape = [*_conv(48, 9, stride=second), {"type": "dropout", "rate": 0.2, "kind": "channel"}]
    rhythm = [*_conv(4, 5, stride=second), {"type": "recurrent", "cell": "gru", "hidden_size": 40}]
    layers = [
        *stem,
        {"type": "parallel", "branches": [shape, rhythm]},
        {"type": "conv", "channels": 88, "kernel_size": 31, "groups": 88, "bias": False},
        *_conv(64, 1),
        {"type": "dropout", "rate": 0.2},
        {"type": "recurrent", "cell": "gru", "hidden_size": 64},
    ]
    leads = {"blend": 40.0, "channel_drop": 0.1} if data.num_channels > 1 else {}
    train = {
        "steps": 1500,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "weight_decay": 0.02,
        "warmup": 0.2,
        "ema_decay": 0.99,
        "keep": "last",
        "augment": {**leads, "filter": 0.1, "scale": 0.3, "noise": 0.05},
        "window": round(20 * rate),
    }
    task = {"classes": "aami", "ignore": ["Q"], "class_weights": "root", "prior": 0.25}
    return {"model": _model(layers), "train": train, "task": task}


def beats(data: DataSummary) -> Recipe:
    """Classes of heartbeats whose places are known: a small network on sequences of `crnn.data.beats`, much dropout.

    What it is given is already relative to the patient's own usual beat, so little is left to learn; with twenty
    patients more weights would learn the patients. All classes count the same: it is sensitive to rare ones, at the
    price of false alarms.
    """
    layers: list[dict[str, Any]] = [
        {"type": "missing", "mask": False},
        {"type": "dropout", "rate": 0.2},
        *_conv(24, 1),
        {"type": "parallel", "branches": [[], [{"type": "recurrent", "cell": "gru", "hidden_size": 12,
                                                "bidirectional": True}]]},
        {"type": "dropout", "rate": 0.4},
        {"type": "conv", "channels": 32, "kernel_size": 1},
        {"type": "activation", "kind": "relu"},
    ]  # fmt: skip
    train = {
        "steps": 300,
        "batch_size": 24,
        "learning_rate": 3e-3,
        "weight_decay": 0.05,
        "warmup": 0.3,
        "ema_decay": 0.99,
        "keep": "last",
        "augment": {"gain": 0.2, "noise": 0.1},
        "window": 64,
    }
    task = {"class_weights": "balanced"}
    return {"model": _model(layers, dropout=0.3), "train": train, "task": task}


def _small_front() -> list[dict[str, Any]]:
    """Normalised, gaps filled; beside it the first differences, in which drift is gone."""
    slope = [{"type": "difference", "keep": False}]
    return [{"type": "channel_norm"}, {"type": "missing", "mask": False}, {"type": "parallel", "branches": [[], slope]}]


def _conv(channels: int, kernel_size: int, *, stride: int = 1) -> list[dict[str, Any]]:
    conv = {"type": "conv", "channels": channels, "kernel_size": kernel_size, "stride": stride, "bias": False}
    return [conv, *NORM_RELU]


def _factors(total: int) -> list[int]:
    """Strides of at most 4 whose product is near `total`."""
    factors = []
    while total > 1:
        factors.append(min(total, 4 if total % 3 else 3))
        total = round(total / factors[-1])
    return factors


def _residual(channels: int) -> dict[str, Any]:
    layers = [
        {"type": "conv", "channels": channels, "kernel_size": 5, "bias": False},
        *NORM_RELU,
        {"type": "dropout", "rate": 0.1, "kind": "channel"},
        {"type": "conv", "channels": channels, "kernel_size": 3, "bias": False},
        {"type": "norm", "kind": "batch"},
    ]
    return {"type": "residual", "layers": layers}


def _model(layers: list[dict[str, Any]], *, dropout: float = 0.0) -> dict[str, Any]:
    return {"layers": layers, "summary": None, "head": {"dropout": dropout}}


def _training(data: DataSummary) -> dict[str, Any]:
    return {
        "batch_size": 16,
        "learning_rate": 2e-3,
        "weight_decay": 0.01,
        "warmup": 0.2,
        "ema_decay": 0.99,
        "keep": "last",
    }


def _windows(data: DataSummary) -> dict[str, Any]:
    """Windows for training, where recordings are longer than one."""
    if not data.sample_rate or data.max_length <= WINDOW_SECONDS * data.sample_rate:
        return {}
    return {"window": round(WINDOW_SECONDS * data.sample_rate)}
