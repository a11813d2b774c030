"""Front-ends for sequences of very different scale: `compress` (asinh), `instance_norm`, `level` (peak)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.layers import Features, Layer, Timing, register_layer
from crnn.sequences import Sequences

MOST_FRAMES = 1_000_000
"""Frames, evenly spaced over the training data, from which medians are taken."""


@config
class CompressConfig:
    """Values that span orders of magnitude, brought to a few; no options."""


@register_layer("compress")
class Compress(Layer):
    """asinh((x - median) / spread) of each channel: linear near the median, logarithmic far from it.

    Median and spread (the median distance from it, of values that differ from it) are learned from the training data.
    Before `fit_statistics` they are 0 and 1. NaN stays NaN.

    Shape:
        x.data: (batch, time, *features); returns the same shape.
    """

    Config = CompressConfig
    median: Tensor
    spread: Tensor

    def __init__(self, features: Features, config: CompressConfig) -> None:
        if not features:
            raise ConfigError("compress needs frames of channels, got symbol ids; put an embedding or one_hot first")
        super().__init__(features)
        self.config = config
        self.register_buffer("median", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))

    def compute(self, x: Sequences) -> Sequences:
        return Sequences(torch.asinh((x.data - self.median) / self.spread), x.lengths).zeroed()

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        """Medians over valid frames; NaN is left out, and infinite values count as far away."""
        frames = torch.cat([x.data[x.valid].cpu() for x in batches])
        frames = frames[:: max(1, math.ceil(len(frames) / MOST_FRAMES))]
        median = frames.nanmedian(0).values.nan_to_num(0.0)
        distance = (frames - median).abs()
        spread = distance.where(distance > 0, torch.nan).nanmedian(0).values
        self.median.copy_(median)
        self.spread.copy_(torch.where(spread.isfinite() & (spread > 0), spread, 1.0))

    def macs_per_frame(self) -> float:
        return float(self.median.numel())


@config
class InstanceNormConfig:
    """Normalisation of each sequence by itself."""

    divide: bool = True
    """Divide by the sequence's standard deviation; False subtracts its mean only."""


@register_layer("instance_norm")
class InstanceNorm(Layer):
    """Each channel of each sequence minus its own mean, over its own standard deviation, real frames only.

    It needs the end of the sequence first, so it does not stream. NaN stays NaN and is left out of the statistics. The
    divisor is the sequence's std plus a millionth of the training data's, so that a flat sequence stays flat.

    Shape:
        x.data: (batch, time, *features); returns the same shape.
    Source: Ulyanov et al. 2016, arXiv:1607.08022, without affine; the length-exact statistics are ours.
    """

    Config = InstanceNormConfig
    timing = Timing(1, math.inf, math.inf)
    floor: Tensor

    def __init__(self, features: Features, config: InstanceNormConfig) -> None:
        if not features:
            raise ConfigError("instance_norm needs frames of channels, got symbol ids; put an embedding first")
        super().__init__(features)
        self.config = config
        self.register_buffer("floor", torch.full(features, 1e-6))

    def compute(self, x: Sequences) -> Sequences:
        mean, std = sequence_moments(x)
        data = x.data - mean[:, None]
        if self.config.divide:
            data = data / (std + self.floor)[:, None]
        return Sequences(data, x.lengths).zeroed()

    def why_no_stream(self) -> str:
        return (
            "instance_norm cannot stream: it needs the mean of the whole sequence before its first output; "
            "use channel_norm, which learns from the training data"
        )

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        """A millionth of the root mean square deviation of all training sequences from their own means."""
        total, count = torch.zeros(self.in_features, dtype=torch.float64), 0
        for x in batches:
            _, std = sequence_moments(Sequences(x.data.double().cpu(), x.lengths.cpu()))
            total += std.square().nan_to_num(0.0, posinf=0.0).sum(0)
            count += len(std)
        rms = (total / max(count, 1)).sqrt()
        self.floor.copy_((1e-6 * rms).clamp(min=1e-12))

    def macs_per_frame(self) -> float:
        return 2.0 * math.prod(self.in_features)


def sequence_moments(x: Sequences) -> tuple[Tensor, Tensor]:
    """Mean and population std of each sequence's own real, present values: (batch, *features) each.

    Two passes, deviations from the mean in the second: exact for a large level with small changes on it.
    """
    valid = x.valid.reshape(*x.valid.shape, *(1,) * (x.data.dim() - 2))
    present = valid & ~x.data.isnan()
    count = present.sum(1).clamp(min=1)
    mean = x.data.where(present, 0.0).sum(1) / count
    deviation = (x.data - mean[:, None]).where(present, 0.0)
    return mean, (deviation.square().sum(1) / count).sqrt()


@config
class LevelConfig:
    """Normalisation of a recording's level; no options."""


@register_layer("level")
class Level(Layer):
    """Each sequence over its largest absolute value, so that loud and quiet recordings look alike.

    It needs the end of the recording first, so it does not stream. Silence stays silence; NaN stays NaN.

    Shape:
        x.data: (batch, time, *features); one gain for all channels of a sequence. Returns the same shape.
    """

    Config = LevelConfig
    timing = Timing(1, math.inf, math.inf)

    def __init__(self, features: Features, config: LevelConfig) -> None:
        if not features:
            raise ConfigError("level needs frames of channels, got symbol ids; put an embedding first")
        super().__init__(features)
        self.config = config

    def compute(self, x: Sequences) -> Sequences:
        peak = x.data.detach().abs().nan_to_num(0.0).flatten(1).amax(1)
        peak = peak.where(peak > 0, 1.0).reshape(-1, *(1,) * (x.data.dim() - 1))
        return Sequences(x.data / peak, x.lengths)

    def why_no_stream(self) -> str:
        return (
            "level cannot stream: it needs the loudest moment of the whole recording before its first output; "
            "leave it out, and train with augment.scale instead"
        )

    def macs_per_frame(self) -> float:
        return float(math.prod(self.in_features))
