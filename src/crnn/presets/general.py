"""Presets for one answer a sequence: for data like this, which network and which training; one function a preset."""

from __future__ import annotations

import math
from typing import Any

from crnn.nn.patterns import KERNELS
from crnn.presets.recipe import DataSummary, Recipe


def default(data: DataSummary) -> Recipe:
    """The recipe that should be good on everything: residual convolutions, a bidirectional LSTM, summaries of both.

    Both the convolutions and the recurrence reach the head: a short tell-tale shape is best seen by the first, order
    and rhythm by the second.
    """
    return _default_audio(data) if data.kind == "audio" else _default_series(data)


FEW = 128
"""Series, up to which a narrow network is trained beside a regression on fixed patterns."""


def _default_series(data: DataSummary) -> Recipe:
    few = _are_few(data)
    width, hidden_size = (48, 32) if few else (96, 64)
    shrink = -(-data.mean_length // 128)  # convolutions see about 128 frames, the recurrence about 64
    shrink_more = -(-data.mean_length // (64 * shrink))
    stem = [[{"type": "conv", "channels": 2 * width // 3, "kernel_size": k, "bias": False}] for k in (5, 11, 23)]
    convolutions = [{"type": "jitter"}, {"type": "parallel", "branches": stem}, *NORM_RELU, *_pool(shrink)]
    convolutions += [_residual(width, (5, 3)), _residual(width, (5, 3))]
    recurrence = [*_pool(shrink_more), {"type": "recurrent", "hidden_size": hidden_size, "bidirectional": True}]
    front, patterns = _series_front(data), _patterns(data)
    model: dict[str, Any] = {"layers": [*front, *convolutions], "summary": _both(recurrence), "head": _head(data)}
    if patterns:
        learned = {**_both(recurrence), "layers": convolutions}
        model |= {"layers": front, "summary": {"type": "concat", "summaries": [learned, *patterns]}}
    train = _series_training(data)
    if few:
        model["head"] |= {"ridge": True}
        train |= {"steps": 600}
    return {"model": model, "train": train, "task": _smoothing(data)}


def _series_training(data: DataSummary) -> dict[str, Any]:
    train: dict[str, Any] = {
        "steps": max(1200, 6 * data.num_examples // 16),
        "batch_size": 16,
        "learning_rate": 2e-3,
        "weight_decay": 0.01,
        "warmup": 0.2,
        "ema_decay": 0.99,
    }
    if data.kind == "series" and data.min_length == data.max_length > 128:  # finely sampled shapes of one duration:
        train["augment"] = {"time_warp": 0.2}  # the speed inside of them may vary
    return {**train, **_stopping(data)}


def _are_few(data: DataSummary) -> bool:
    """Too few series to find all filters from them: fixed patterns are weighed in closed form beside them.

    In short series patterns have no room, and short filters are soon found; in a regression they still keep the trained
    part from believing in noise.
    """
    if data.kind != "series" or data.num_examples > FEW:
        return False
    return data.task == "regress" or (data.task == "classify" and data.mean_length >= 64)


def _patterns(data: DataSummary) -> list[dict[str, Any]]:
    """Summaries of fixed patterns at every dilation that fits: for few series, and for classes of many long ones.

    Many long series of unequal length: they see the detail that pooling hides, and are trained with the rest. Few
    series: filters that need not be found, weighed in closed form; trained, they would crowd out the learned ones, and
    maxima over time are less sure than shares of it. Between the two they gained nothing.
    """
    few = _are_few(data)
    many = data.kind == "series" and data.task == "classify" and data.num_examples >= 256
    if not few and not (many and data.mean_length > 128 and data.min_length < data.max_length):
        return []
    thresholds, mixtures = 4 if few else 2, 4
    dilations = [2**i for i in range(1 + max(0, math.floor(math.log2(max(1.0, (data.median_length - 1) / 8)))))]
    channels = data.num_channels * (4 if data.varied_scale else 2)  # at least: of the front
    size = len(dilations) * KERNELS * min(channels, mixtures) * (thresholds + 1)
    above = {"type": "above", "thresholds": thresholds, "maximum": not few, "scale": round(8 / math.sqrt(size), 4)}
    # a sharp threshold can be crossed by rounding alone, and alone and batched would differ; many series were found to
    # be told apart by sharp ones, so theirs is as sharp as rounding allows
    above["softness"] = 0.2 if few else 0.02
    parts = []
    for dilation in dilations:
        pattern = {"type": "patterns", "dilation": dilation, "mixtures": mixtures, "seed": dilation}
        parts.append({**above, "seed": dilation, "layers": [pattern]})
    return parts


def _series_front(data: DataSummary) -> list[dict[str, Any]]:
    """Normalised channels and their first differences; with wildly varying scale, also each series by its own."""
    if data.kind == "symbols":
        return [{"type": "embedding", "vocab_size": data.vocabulary_size, "channels": 32}]
    norm, slope = {"type": "channel_norm"}, {"type": "difference", "keep": False}
    fill = [{"type": "missing", "mask": False}]  # always: new data may have gaps where training had none
    gaps = [{"type": "missing", "mask": True}] if data.has_missing else fill
    squashed = [{"type": "compress"}] if data.varied_scale else []
    branches = [[*squashed, norm, *gaps], [*squashed, norm, *fill, slope, norm]]
    if data.varied_scale:
        own = {"type": "instance_norm"}
        branches += [[own, *fill], [own, *fill, slope, norm]]
    return [{"type": "parallel", "branches": branches}]


def _default_audio(data: DataSummary) -> Recipe:
    log_mel = _log_mel(data)
    frames = data.median_length / (log_mel["hop_seconds"] * log_mel["sample_rate"])
    centred = [{"type": "instance_norm", "divide": False}]  # beside the spectrum, what changes in it
    layers: list[dict[str, Any]] = [
        {"type": "level"},
        log_mel,
        {"type": "channel_norm"},
        {"type": "parallel", "branches": [[], centred], "join": "stack"},
        {"type": "jitter", "noise": 0.2, "gain": 0.0},
        {"type": "spec_augment"},
    ]
    halve = (0, 8, 16, 100)  # median frames from which each stage halves time as well; it always halves the bands
    for channels, least in zip((16, 32, 64, 64), halve, strict=True):
        size = (2 if frames >= least else 1, 2)
        layers += [{"type": "conv2d", "channels": channels, "bias": False}, *NORM_RELU, _pool2d(size)]
    recurrence: list[dict[str, Any]] = [
        {"type": "flatten"},
        {"type": "dropout", "rate": 0.3},
        {"type": "recurrent", "hidden_size": 64, "bidirectional": True},
    ]
    long = frames > 125  # events and scenes, most of which bear changes that would spoil a word
    epochs = min(max(round(2600 * data.num_examples ** (-2 / 3)), 10), 80)
    changes = {"window": 0.6, "stretch": 0.25, "time_shift": 0.5} if long else {"stretch": 0.1}
    train: dict[str, Any] = {
        "epochs": round(1.5 * epochs) if long else epochs,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "weight_decay": 0.02,
        "warmup": 0.2,
        "max_grad_norm": 2.0,
        "ema_decay": 0.99,
        "augment": {"mixup": 1.0, "mixup_match": True, **changes},
    }
    return {
        "model": {"layers": layers, "summary": _both(recurrence), "head": _head(data)},
        "train": {**train, **_stopping(data)},
        "task": _smoothing(data),
    }


def _head(data: DataSummary) -> dict[str, Any]:
    """A regression starts from the mean of its targets, and has to earn every step away from it."""
    return {"dropout": 0.5, "zero_start": True} if data.task == "regress" else {"dropout": 0.3}


def _stopping(data: DataSummary) -> dict[str, Any]:
    """A classifier of fixed length keeps its last averaged weights; a regression those that were best on validation."""
    return {"keep": "best", "learning_rate": 1e-3} if data.task == "regress" else {"keep": "last"}


def _smoothing(data: DataSummary) -> dict[str, Any]:
    return {"label_smoothing": 0.1} if data.task == "classify" else {}


NORM_RELU: list[dict[str, Any]] = [{"type": "norm", "kind": "batch"}, {"type": "activation", "kind": "relu"}]


def _residual(channels: int, kernel_sizes: tuple[int, int]) -> dict[str, Any]:
    first, second = kernel_sizes
    layers = [
        {"type": "conv", "channels": channels, "kernel_size": first, "bias": False},
        *NORM_RELU,
        {"type": "dropout", "rate": 0.1, "kind": "channel"},
        {"type": "conv", "channels": channels, "kernel_size": second, "bias": False},
        {"type": "norm", "kind": "batch"},
    ]
    return {"type": "residual", "layers": layers}


def _pool(size: int) -> list[dict[str, Any]]:
    return [{"type": "pool", "kind": "max", "size": size, "tail": "ceil"}] if size > 1 else []


def _pool2d(size: tuple[int, int]) -> dict[str, Any]:
    return {"type": "pool2d", "kind": "max", "size": list(size), "tail": "ceil"}


def _both(recurrence: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and maximum over time of the convolutions' frames, and of the recurrence on top of them."""
    over_time = [{"type": "mean"}, {"type": "max"}]
    return {
        "type": "concat",
        "summaries": [*over_time, {"type": "concat", "layers": recurrence, "summaries": over_time}],
    }


def seed(data: DataSummary) -> Recipe:
    """The tutorial network: convolution, batch norm, ReLU, pooling by 2, one LSTM, a linear layer on its last output.

    On sequences of full length it gives exactly the numbers of the plain PyTorch class with the same weights; on padded
    ones it gives the right numbers, where the tutorial's `x[:, -1]` reads the padding.
    """
    layers: list[dict[str, Any]] = [*front(data, normalise=False)]
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
        "model": {"layers": front(data, normalise=True), "summary": summary, "head": {"dropout": 0.5}},
        "train": {**train, "batch_size": 32},
    }


def front(data: DataSummary, *, normalise: bool) -> list[dict[str, Any]]:
    """From raw input to frames of channels: log-mels for audio, vectors for symbols, filled gaps for series."""
    if data.kind == "symbols":
        return [{"type": "embedding", "vocab_size": data.vocabulary_size, "channels": 32}]
    if data.kind == "audio":
        return [_log_mel(data), {"type": "channel_norm"}]
    gaps = [{"type": "missing", "mask": data.has_missing}]  # always: new data may have gaps where training had none
    return [{"type": "channel_norm"}, *gaps] if normalise else gaps


def _log_mel(data: DataSummary) -> dict[str, Any]:
    """Log-mels for recordings at this rate: more bands for higher rates, longer steps for longer recordings."""
    assert data.sample_rate is not None, "audio always has a rate"
    rate = data.sample_rate
    hop = 0.020 if data.median_length > 1.5 * rate else 0.010
    window = 3.2 * hop
    top = 2595 * math.log10(1 + rate / 2 / 700)  # in mel
    num_mels = min(max(8 * round(top / 44.4 / 8), 32), 64)
    lowest_band = top / (num_mels + 1) * 700 / 1127  # half its width in Hz, near 0 Hz
    n_fft = 1 << math.ceil(math.log2(max(window * rate, rate / lowest_band)))  # no band falls between two bins
    return {
        "type": "log_mel",
        "sample_rate": rate,
        "num_mels": num_mels,
        "window_seconds": window,
        "hop_seconds": hop,
        "n_fft": n_fft,
        "fmin": min(30.0, rate / 100),
        "log_floor": 1e-5 * window * rate,  # about 50 dB below the loudest band of a recording with peak 1
    }


def live(data: DataSummary) -> Recipe:
    """As default, but it streams: nothing looks ahead or at the whole sequence, and the recurrence runs forward only.

    Every convolution is causal, so that the answer lags behind by no more than the frames of a spectrum and of pooling.
    """
    return _live_audio(data) if data.kind == "audio" else _live_series(data)


def _live_series(data: DataSummary) -> Recipe:
    shrink = -(-data.mean_length // 128)  # as default
    shrink_more = -(-data.mean_length // (64 * shrink))
    stem = [[_causal("conv", 64, kernel_size=k)] for k in (5, 11, 23)]
    layers = [
        *_live_front(data),
        {"type": "jitter"},
        {"type": "parallel", "branches": stem},
        *NORM_RELU,
        *_pool(shrink),
        _causal_residual(96, (5, 3)),
        _causal_residual(96, (5, 3)),
    ]
    recurrence = [*_pool(shrink_more), {"type": "recurrent", "hidden_size": 96}]
    return {
        "model": {"layers": layers, "summary": _both(recurrence), "head": _head(data)},
        "train": _series_training(data),
        "task": _smoothing(data),
    }


def _live_front(data: DataSummary) -> list[dict[str, Any]]:
    """Normalised channels and their first differences; unlike default, nothing by a sequence's own scale."""
    if data.kind == "symbols":
        return _series_front(data)
    squashed = [{"type": "compress"}] if data.varied_scale else []
    fill = [{"type": "missing", "mask": False}]
    gaps = [{"type": "missing", "mask": True}] if data.has_missing else fill
    norm, slope = {"type": "channel_norm"}, {"type": "difference", "keep": False}
    return [{"type": "parallel", "branches": [[*squashed, norm, *gaps], [*squashed, norm, *fill, slope, norm]]}]


def _live_audio(data: DataSummary) -> Recipe:
    log_mel = _log_mel(data)
    frames = data.median_length / (log_mel["hop_seconds"] * log_mel["sample_rate"])
    slope = [{"type": "difference", "keep": False}, {"type": "channel_norm"}]  # beside the spectrum, its changes
    layers: list[dict[str, Any]] = [
        log_mel,
        {"type": "channel_norm"},
        {"type": "parallel", "branches": [[], slope], "join": "stack"},
        {"type": "jitter", "noise": 0.2, "gain": 0.0},
        {"type": "spec_augment"},
    ]
    halve = (0, 8, 16, 100)  # as default
    for channels, least in zip((16, 32, 64, 64), halve, strict=True):
        size = (2 if frames >= least else 1, 2)
        layers += [_causal("conv2d", channels), *NORM_RELU, _pool2d(size)]
    recurrence: list[dict[str, Any]] = [
        {"type": "flatten"},
        {"type": "dropout", "rate": 0.3},
        {"type": "recurrent", "hidden_size": 96},
    ]
    recipe = _default_audio(data)
    # scale in place of level, which looks at the whole recording; parts of recordings, for it answers before their end
    augment = {"window": 0.4, **recipe["train"]["augment"], "scale": 0.5}
    return {
        **recipe,
        "model": {"layers": layers, "summary": _both(recurrence), "head": _head(data)},
        "train": {**recipe["train"], "augment": augment},
    }


def _causal(kind: str, channels: int, **options: int) -> dict[str, Any]:
    return {"type": kind, "channels": channels, "padding": "causal", "bias": False, **options}


def _causal_residual(channels: int, kernel_sizes: tuple[int, int]) -> dict[str, Any]:
    block = _residual(channels, kernel_sizes)
    layers = [{**layer, "padding": "causal"} if layer["type"] == "conv" else layer for layer in block["layers"]]
    return {**block, "layers": layers}
