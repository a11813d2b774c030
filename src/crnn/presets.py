"""Presets: for data like this, which network and which training; one function a preset, its rule in plain sight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crnn.data.dataset import Kind


@dataclass(frozen=True)
class DataSummary:
    """What a preset may look at; all of it from the training part alone."""

    kind: Kind
    num_channels: int
    sample_rate: float | None
    num_examples: int
    median_length: int
    min_length: int
    max_length: int
    task: str
    num_outputs: int
    has_missing: bool = False
    vocabulary_size: int = 0


Recipe = dict[str, Any]
"""{"model": network spec, "train": training options, "task": task options}, as plain values."""


def seed(data: DataSummary) -> Recipe:
    """The tutorial network: convolution, batch norm, ReLU, pooling by 2, one LSTM, a linear layer on its last output.

    On sequences of full length it gives exactly the numbers of the plain PyTorch class with the same weights; on padded
    ones it gives the right numbers, where the tutorial's `x[:, -1]` reads the padding.
    """
    layers: list[dict[str, Any]] = [*_front(data, normalise=False)]
    layers += [
        {"type": "conv", "channels": 64, "kernel_size": 3},
        {"type": "norm", "kind": "batch"},
        {"type": "activation", "kind": "relu"},
        {"type": "pool", "kind": "max", "size": 2, "tail": "floor"},
        {"type": "recurrent", "cell": "lstm", "hidden_size": 128},
    ]
    train = {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0}
    return {"model": {"layers": layers, "summary": {"type": "last"}}, "train": {**train, "batch_size": 32}}


def lstm_fcn(data: DataSummary) -> Recipe:
    """A fully convolutional branch and an LSTM branch side by side, their summaries concatenated.

    Source: Karim et al. 2018, arXiv:1709.05206. There the LSTM reads the whole series as one step of many channels,
    which fixes the length; here it reads the series step by step, so any length works.
    """
    convolutions: list[dict[str, Any]] = []
    for channels, kernel_size in ((128, 8), (256, 5), (128, 3)):
        convolutions += [
            {"type": "conv", "channels": channels, "kernel_size": kernel_size},
            {"type": "norm", "kind": "batch"},
            {"type": "activation", "kind": "relu"},
        ]
    recurrence = [{"type": "recurrent", "cell": "lstm", "hidden_size": 64}]
    summary = {
        "type": "concat",
        "summaries": [
            {"type": "mean", "layers": convolutions},
            {"type": "last", "layers": recurrence},
        ],
    }
    train = {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "schedule": "plateau"}
    return {
        "model": {"layers": _front(data, normalise=True), "summary": summary, "head": {"dropout": 0.5}},
        "train": {**train, "batch_size": 32},
    }


def _front(data: DataSummary, *, normalise: bool) -> list[dict[str, Any]]:
    """From raw input to frames of channels: log-mels for audio, vectors for symbols, filled gaps for series."""
    if data.kind == "symbols":
        return [{"type": "embedding", "vocab_size": data.vocabulary_size, "channels": 32}]
    if data.kind == "audio":
        return [_log_mel(data), {"type": "channel_norm"}]
    gaps = [{"type": "missing", "mask": True}] if data.has_missing else []
    return [{"type": "channel_norm"}, *gaps] if normalise else gaps


def _log_mel(data: DataSummary) -> dict[str, Any]:
    assert data.sample_rate is not None, "audio always has a rate"
    return {"type": "log_mel", "sample_rate": data.sample_rate, "num_mels": 40}


PRESETS: dict[str, Callable[[DataSummary], Recipe]] = {"seed": seed, "lstm-fcn": lstm_fcn}
"""Every registered preset by name."""
