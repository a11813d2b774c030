"""Presets of transcription: sound (and other sequences) to text by CTC."""

from __future__ import annotations

import math
from typing import Any

from crnn.presets.general import NORM_RELU
from crnn.presets.recipe import DataSummary, Recipe

FRAMES_PER_LETTER = 1.6
"""Output frames for each letter of the tightest training text, at least: some for the blanks between, and some to spare
for faster speech."""
HOP_SECONDS = 0.010
WINDOW_SECONDS = 0.032
LONGEST_MASK = 0.1
"""Seconds of sound that are hidden in training, at most, at a time: longer, and whole short words would be, which
teaches to write what was not said."""


def speech(data: DataSummary) -> Recipe:
    """Convolutions over frames of log-mel bands, bidirectional GRUs, a label for every 40 ms or as the texts need it.

    Convolutions over time alone: in a few minutes of speech of one kind they reach what two-dimensional ones do, at a
    tenth of the cost.
    """
    layers = [
        *_front(data),
        *_convolutions(data, (96, 128), causal=False),
        {"type": "dropout", "rate": 0.2},
        {"type": "recurrent", "hidden_size": 128, "bidirectional": True},
        {"type": "dropout", "rate": 0.3},
    ]
    return _recipe(data, layers)


def speech_small(data: DataSummary) -> Recipe:
    """As speech, but it streams: causal convolutions, a GRU that runs forward; it lags behind by a window of sound."""
    layers = [
        *_front(data, running=True),
        *_convolutions(data, (64, 96), causal=True),
        {"type": "dropout", "rate": 0.1},
        {"type": "recurrent", "hidden_size": 128},
        {"type": "dropout", "rate": 0.2},
    ]
    return _recipe(data, layers)


def deepspeech2(data: DataSummary) -> Recipe:
    """Two wide convolutions over time and bands, and three bidirectional GRUs with batch norm before each.

    Source: Amodei et al. 2016, arXiv:1512.02595, table 1, cut to three recurrent layers of 256; log-mel bands in place
    of a linear spectrogram.
    """
    layers = _front(data)
    if data.kind == "audio":
        halvings = _halvings(data)
        for i, (taps, bands) in enumerate(((11, 21), (11, 11))):
            stride = [2 if i < halvings else 1, 2]
            convolution = {"type": "conv2d", "channels": 32, "kernel_size": [taps, bands], "stride": stride}
            layers += [{**convolution, "bias": False}, *NORM_RELU]
        layers += [{"type": "flatten"}]
    for _ in range(3):
        recurrence = {"type": "recurrent", "hidden_size": 256, "bidirectional": True}
        layers += [{"type": "norm", "kind": "batch"}, recurrence]
    return _recipe(data, [*layers, {"type": "norm", "kind": "batch"}])


def _front(data: DataSummary, *, running: bool = False) -> list[dict[str, Any]]:
    """Frames of normalised features.

    Args:
        running: take the mean so far from each band, as a stream can: a microphone or room is forgotten in seconds.
    """
    if data.kind == "symbols":
        return [{"type": "embedding", "vocab_size": data.vocabulary_size, "channels": 64}]
    if data.kind != "audio":
        return [{"type": "channel_norm"}, {"type": "missing", "mask": data.has_missing}]
    assert data.sample_rate is not None, "audio always has a rate"
    rate = data.sample_rate
    log_mel = {
        "type": "log_mel",
        "sample_rate": rate,
        "num_mels": 40 if rate <= 10_000 else 64,
        "window_seconds": WINDOW_SECONDS,
        "hop_seconds": HOP_SECONDS,
        "n_fft": 1 << math.ceil(math.log2(max(WINDOW_SECONDS * rate, 512))),
        "fmin": 20.0,
        "log_floor": 1e-5 * WINDOW_SECONDS * rate,  # about 50 dB below the loudest band of a recording with peak 1
    }
    hidden = round(min(0.05, LONGEST_MASK * rate / data.median_length), 4)
    norms = [{"type": "running_norm"}, {"type": "channel_norm"}] if running else [{"type": "channel_norm"}]
    return [log_mel, *norms, {"type": "spec_augment", "time_share": hidden, "band_share": 0.15}]


def _convolutions(data: DataSummary, channels: tuple[int, ...], *, causal: bool) -> list[dict[str, Any]]:
    """Convolutions over time; each halves it while every text keeps enough frames."""
    halvings = _halvings(data)
    layers: list[dict[str, Any]] = []
    for i, count in enumerate(channels):
        options = {"stride": 2 if i < halvings else 1, "padding": "causal" if causal else "centred", "bias": False}
        layers += [{"type": "conv", "channels": count, "kernel_size": 5, **options}, *NORM_RELU]
    return layers


def _halvings(data: DataSummary, most: int = 2) -> int:
    """How often time may be halved: as long as the tightest text keeps its frames."""
    hop = HOP_SECONDS * data.sample_rate if data.kind == "audio" and data.sample_rate else 1.0
    spare = data.frames_per_label / hop / FRAMES_PER_LETTER
    return 0 if spare < 2 else most if math.isinf(spare) else min(most, math.floor(math.log2(spare)))


def _recipe(data: DataSummary, layers: list[dict[str, Any]]) -> Recipe:
    """The network with its training: long enough for the plateau on which everything is blank to be left early on."""
    batch_size = 8 if data.num_examples < 200 else 16
    train: dict[str, Any] = {
        "steps": max(600, min(30 * data.num_examples // batch_size, 12_000)),
        "batch_size": batch_size,
        "learning_rate": 2e-3,
        "weight_decay": 0.02,
        "warmup": 0.1,
        "max_grad_norm": 1.0,
        "ema_decay": 0.99,
        "keep": "last",
        "augment": {"stretch": 0.1, "scale": 0.3} if data.kind == "audio" else {},
    }
    return {"model": {"layers": layers, "summary": None}, "train": train}
