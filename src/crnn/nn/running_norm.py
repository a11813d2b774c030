"""Normalisation that runs along: what a stream can have of a sequence's own mean."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.layers import Features, Layer, State, Timing, register_layer
from crnn.sequences import Sequences

BLOCK = 64
"""Frames whose running means are one matrix product."""


@config
class RunningNormConfig:
    """How fast the mean follows."""

    frames: int = 300
    """A frame's weight in the mean falls to 1/e after so many; of log-mels every 10 ms, 300 are three seconds."""

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ConfigError(f"running_norm.frames={self.frames}; expected at least 2")


@register_layer("running_norm")
class RunningNorm(Layer):
    """Each channel minus its mean so far, in which the past fades: a microphone or a room is taken out, and it streams.

    The mean begins at that of the training data, which `fit_statistics` learns, and the frame itself counts in it. Put
    `missing` before it: NaN would stay.

    Shape:
        x.data: (batch, time, *features); every element of a frame has its own mean. Returns the same shape.
    """

    Config = RunningNormConfig
    timing = Timing(1, math.inf, 0)
    mean: Tensor

    def __init__(self, features: Features, config: RunningNormConfig) -> None:
        if not features:
            raise ConfigError("running_norm needs frames of channels, got symbol ids; put an embedding first")
        super().__init__(features)
        self.config = config
        self.keep = 1 - 1 / config.frames
        """Weight of the mean before in the next one."""
        self.register_buffer("mean", torch.zeros(features))

    def compute(self, x: Sequences) -> Sequences:
        means, _ = self._means(x.data, self.mean.expand(len(x.lengths), *self.in_features))
        return Sequences(x.data - means, x.lengths).zeroed()

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        """The mean of valid, finite frames."""
        count = torch.zeros(self.in_features, dtype=torch.float64)
        total = torch.zeros(self.in_features, dtype=torch.float64)
        for x in batches:
            frames = x.data[x.valid].double().cpu()
            finite = frames.isfinite()
            count += finite.sum(0)
            total += frames.where(finite, 0.0).sum(0)
        self.mean.copy_(total / count.clamp(min=1))

    def start(self, batch: int) -> State:
        return (self.mean.expand(batch, *self.in_features).contiguous(),)

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        means, last = self._means(data, state[0].to(data))
        return data - means, (last.contiguous(),)

    def _means(self, data: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Running means (batch, time, *features), and the last of them; before: (batch, *features)."""
        steps = torch.arange(BLOCK, device=data.device, dtype=data.dtype)
        age = steps[:, None] - steps
        weights = torch.where(age >= 0, (1 - self.keep) * self.keep ** age.clamp(min=0), 0.0)
        fade = self.keep ** (steps + 1)
        parts, flat, last = [], data.flatten(2), before.flatten(1)
        for block in flat.split(BLOCK, 1):
            size = block.shape[1]
            parts.append(weights[:size, :size] @ block + fade[:size, None] * last[:, None])
            last = parts[-1][:, -1] if size else last
        means = torch.cat(parts, 1) if parts else flat
        return means.reshape(data.shape), last.reshape(before.shape)

    def macs_per_frame(self) -> float:
        return 2.0 * self.mean.numel()
