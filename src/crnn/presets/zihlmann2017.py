"""The network of Zihlmann, Perekrestenko and Tschannen for single-lead ECG of any length."""

from __future__ import annotations

from typing import Any

from crnn.presets.general import NORM_RELU
from crnn.presets.recipe import DataSummary, Recipe

WINDOW, HOP = 64, 32
"""Samples of a window of the spectrogram, and from one to the next."""
FIRST, GROWTH, BLOCKS, DEPTH = 32, 32, 4, 6
"""Channels of the first block, more in the last layer of each; blocks; layers in a block."""
HIDDEN, LAYERS = 100, 3
"""Units of the LSTM in each direction, and its layers."""


def zihlmann2017(data: DataSummary) -> Recipe:
    """Log spectrogram, 24 convolutions of 5 x 5 in four blocks, three bidirectional LSTM layers, mean over time.

    Source: Zihlmann, Perekrestenko & Tschannen 2017, "Convolutional Recurrent Neural Networks for Electrocardiogram
    Classification", Computing in Cardiology 44, arXiv:1710.06122; sizes from the authors' code. There one recording is
    one 9 to 60 s lead at 300 Hz. Other than there: masked after every layer, trained in one phase, noise instead of
    bursts of zeros.
    """
    rate = data.sample_rate or 300.0
    spectrogram = {
        "type": "log_mel",
        "sample_rate": rate,
        "mel": "linear",
        "num_mels": WINDOW // 2 + 1,
        "window_seconds": WINDOW / rate,
        "hop_seconds": HOP / rate,
        "n_fft": WINDOW,
        "log_floor": 1e-6,
    }
    layers: list[dict[str, Any]] = [{"type": "missing", "mask": False}, spectrogram, {"type": "channel_norm"}]
    channels = FIRST
    for _ in range(BLOCKS):
        for layer in range(DEPTH):
            last = layer == DEPTH - 1
            channels += GROWTH if last else 0
            stride = [2, 2] if last else [1, 1]
            layers += [
                {"type": "conv2d", "channels": channels, "kernel_size": [5, 5], "stride": stride, "bias": False},
                *NORM_RELU,
            ]
        layers.append({"type": "dropout", "rate": 0.15})
    layers += [
        {"type": "flatten"},
        {"type": "recurrent", "hidden_size": HIDDEN, "num_layers": LAYERS, "bidirectional": True, "dropout": 0.15},
    ]
    train = {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "schedule": "plateau",
        "batch_size": 20,
        "augment": {"stretch": 0.2, "noise": 0.05, "time_masks": 2, "time_mask": 0.05},
    }
    task = {"class_weights": "balanced"} if data.task in ("classify", "multilabel") else {}
    return {
        "model": {"layers": layers, "summary": {"type": "mean"}},
        "train": train,
        "task": task,
    }
