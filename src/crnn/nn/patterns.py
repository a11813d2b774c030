"""Fixed patterns: convolutions that are never trained, and how often and how strongly a sequence shows them."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.layers import Features, WindowedLayer, register_layer
from crnn.sequences import Sequences

TAPS = 9
HIGH = 3
"""Taps of a kernel that are 2; the others are -1, so that a kernel sums to zero."""
KERNELS = 84
"""Ways to choose the high taps."""


@config
class PatternsConfig:
    """Fixed convolutions over time."""

    dilation: int = 1
    """Frames between two of the 9 taps."""
    mixtures: int = 4
    """Channel sets that each kernel looks at, drawn at random; with no more channels than this, each by itself."""
    seed: int = 0
    """Of the channel sets."""

    def __post_init__(self) -> None:
        for name in ("dilation", "mixtures"):
            if getattr(self, name) < 1:
                raise ConfigError(f"patterns.{name}={getattr(self, name)}; expected at least 1")


@register_layer("patterns")
class Patterns(WindowedLayer):
    """The 84 kernels of MiniROCKET at one dilation, over every channel or sets of channels; never trained.

    Frames outside of a sequence count as zero.

    Shape:
        x.data: (batch, time, channels); returns (batch, time, 84 * min(channels, mixtures)).
    Source: Dempster, Schmidt & Webb 2021, arXiv:2012.08791; sums over random channels as in its multivariate form.
    """

    Config = PatternsConfig
    weight: Tensor

    def __init__(self, features: Features, config: PatternsConfig) -> None:
        if len(features) != 1:
            raise ConfigError(f"patterns: frames have shape {features}, expected (channels,); put flatten before it")
        (channels,) = features
        sets = min(channels, config.mixtures)
        reach = config.dilation * (TAPS - 1)
        super().__init__(features, (KERNELS * sets,), extent=reach + 1, stride=1, pad_left=reach // 2, tail="ceil")
        self.config = config
        self.groups = channels if sets == channels else 1
        weight = kernels().repeat(sets, 1)[:, None]  # (sets * 84, 1, taps)
        if sets < channels:
            weight = weight * channel_sets(KERNELS * sets, channels, config.seed)[..., None]
        self.register_buffer("weight", weight)

    def compute(self, x: Sequences) -> Sequences:
        out = self.check_lengths(x.lengths)
        return Sequences(self._convolve(x.data, self.pad_left), out).blanked()  # PyTorch pads both sides without a copy

    def windows(self, data: Tensor) -> Tensor:
        return self._convolve(data, 0)

    def _convolve(self, data: Tensor, pad: int) -> Tensor:
        """With `pad` frames of zeros on both sides."""
        weight = self.weight.to(data.dtype)
        out = F.conv1d(data.transpose(1, 2), weight, padding=pad, dilation=self.config.dilation, groups=self.groups)
        return out.transpose(1, 2)  # (batch, channels, time) inside

    def macs_per_frame(self) -> float:
        return float(self.weight.numel())


def kernels() -> Tensor:
    """(84, 9): every kernel with three taps of 2 and six of -1."""
    weight = torch.full((KERNELS, TAPS), -1.0)
    for row, high in zip(weight, combinations(range(TAPS), HIGH), strict=True):
        row[list(high)] = 2.0
    return weight


def channel_sets(count: int, channels: int, seed: int) -> Tensor:
    """(count, channels) of 0 and 1: random sets of 1 to 9 channels, small ones as likely as large."""
    generator = torch.Generator().manual_seed(seed)
    size = 2 ** (torch.rand(count, generator=generator) * torch.tensor(min(channels, TAPS) + 1.0).log2())
    order = torch.rand(count, channels, generator=generator).argsort(1).argsort(1)
    return (order < size.long().clamp(1, channels)[:, None]).float()
