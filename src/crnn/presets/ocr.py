"""Presets of transcription: images of text lines to text by CTC."""

from __future__ import annotations

from typing import Any

from crnn.errors import ConfigError
from crnn.presets.general import NORM_RELU
from crnn.presets.recipe import DataSummary, Recipe

CRNN_2015_HEIGHT = 32
COLUMNS_PER_LABEL = 6.5
"""Input columns for each letter (and blank between equal ones) of the tightest text, from which four may become one."""
STEPS, PASSES = 1500, 10
"""Updates that any set needs, however small, and passes over a large one."""


def ocr_small(data: DataSummary) -> Recipe:
    """Four convolutions over columns and rows, two bidirectional LSTMs, a label for every 4 columns; 0.9 M parameters.

    The first convolution has a stride of 2 both ways: it costs a quarter, and letters are larger than two pixels. Where
    they are narrow, there is a label for every 2 columns.
    """
    return _recipe(data, channels=(24, 48, 96, 128), hidden_size=112)


def ocr(data: DataSummary) -> Recipe:
    """As ocr-small, wider: 3 M parameters, at three times the cost."""
    return _recipe(data, channels=(32, 64, 128, 192), hidden_size=224)


def crnn_2015(data: DataSummary) -> Recipe:
    """The network that gave CRNNs their name: seven convolutions, two bidirectional LSTMs; 8.3 M parameters.

    Source: Shi, Bai & Yao 2015, arXiv:1507.05717, table 1. Its last convolution, 2 x 2 without padding, is one of 2
    columns over both rows that are left, and pads one column at the end, so that no frame is lost. There it is trained
    with AdaDelta on millions of word images; here with Adam.
    Raises:
        ConfigError: images are not 32 pixels high.
    """
    if data.height != CRNN_2015_HEIGHT:
        raise ConfigError(
            f"--preset crnn-2015: images are {data.height} pixels high, expected {CRNN_2015_HEIGHT} as published; "
            f"read them with --height {CRNN_2015_HEIGHT}"
        )
    relu: list[dict[str, Any]] = [{"type": "activation", "kind": "relu"}]
    layers = [_conv(64), *relu, _pool(2, 2), _conv(128), *relu, _pool(2, 2)]
    layers += [_conv(256), *relu, _conv(256), *relu, _pool(1, 2)]
    layers += [_conv(512), *NORM_RELU, _conv(512), *NORM_RELU, _pool(1, 2)]
    layers += [{"type": "flatten"}, {"type": "conv", "channels": 512, "kernel_size": 2}, *relu]
    layers += [{"type": "recurrent", "hidden_size": 256, "num_layers": 2, "bidirectional": True}]
    train = {**_training(data), "optimizer": "adam", "learning_rate": 3e-4, "weight_decay": 0.0}
    return {"model": {"layers": layers, "summary": None}, "train": train}


def _recipe(data: DataSummary, *, channels: tuple[int, int, int, int], hidden_size: int) -> Recipe:
    if data.height is None:
        raise ConfigError(
            f"--preset ocr: found {data.kind}, expected images of text lines; leave --preset out, or name another"
        )
    first, *others = channels
    layers: list[dict[str, Any]] = [
        {"type": "conv2d", "channels": first, "kernel_size": [5, 5], "stride": [2, 2], "bias": False},
        *NORM_RELU,
    ]
    rows = -(-data.height // 2)
    for i, count in enumerate(others):
        layers += [{"type": "conv2d", "channels": count, "bias": False}, *NORM_RELU]
        if rows >= 2:  # not of lines lower than 16 pixels
            rows = rows // 2
            layers.append(_pool(2 if i == 0 and data.frames_per_label >= COLUMNS_PER_LABEL else 1, 2))
    layers += [
        {"type": "flatten"},
        {"type": "dropout", "rate": 0.2},
        {
            "type": "recurrent",
            "hidden_size": hidden_size,
            "num_layers": 2,
            "bidirectional": True,
            "dropout": 0.2,
        },
    ]
    return {"model": {"layers": layers, "summary": None, "head": {"dropout": 0.3}}, "train": _training(data)}


def _training(data: DataSummary) -> dict[str, Any]:
    """Small batches leave the plateau on which everything is blank soonest; lines are bent, blurred and stretched."""
    batch_size = 8
    return {
        "steps": max(STEPS, PASSES * data.num_examples // batch_size),
        "batch_size": batch_size,
        "learning_rate": 3e-3,
        "weight_decay": 0.01,
        "warmup": 0.15,
        "max_grad_norm": 2.0,
        "ema_decay": 0.99,
        "keep": "last",
        "augment": {
            "stretch": 0.1,
            "image": {
                "slant": 5.0,
                "rotation": 0.4,
                "size": 0.08,
                "shift": 0.03,
                "elastic": 0.02,
                "ink": 0.5,
                "blur": 0.6,
                "contrast": 0.3,
                "shade": 0.1,
                "noise": 0.08,
            },
        },
    }


def _conv(channels: int) -> dict[str, Any]:
    return {"type": "conv2d", "channels": channels}


def _pool(columns: int, rows: int) -> dict[str, Any]:
    return {"type": "pool2d", "kind": "max", "size": [columns, rows], "tail": "floor"}
