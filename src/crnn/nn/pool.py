"""Max and mean pooling over time, and over time x bins for spectrograms; real frames only."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.layers import Features, WindowedLayer, pad_time, register_layer
from crnn.sequences import Sequences

Kind = Literal["max", "mean"]
Tail = Literal["floor", "ceil"]


class TimePool(WindowedLayer):
    """What pooling layers share: a window that runs over the end of a sequence uses its real frames only.

    A subclass writes `windows`.
    """

    def __init__(
        self, features: Features, out_features: Features, *, kind: Kind, size: int, stride: int, tail: Tail
    ) -> None:
        super().__init__(features, out_features, extent=size, stride=stride, pad_left=0, tail=tail)
        self.kind = kind
        self.size = size

    def compute(self, x: Sequences) -> Sequences:
        out = self.check_lengths(x.lengths)
        count = int(out.max())
        if self.tail == "floor":  # every window lies inside
            return Sequences(self.windows(x.data)[:, :count], out).blanked()
        pad_right = (count - 1) * self.stride + self.extent - x.data.shape[1]
        if pad_right <= 0 and x.is_full:
            return Sequences(self.windows(x.data)[:, :count], out)
        data = Sequences(pad_time(x.data, 0, pad_right), x.lengths)
        return Sequences(self._partial_windows(data, count), out).blanked()

    def last_windows(self, buffer: Tensor, count: int) -> Tensor:
        pad_right = (count - 1) * self.stride + self.extent - buffer.shape[1]
        lengths = torch.full((buffer.shape[0],), buffer.shape[1], device=buffer.device)
        return self._partial_windows(Sequences(pad_time(buffer, 0, pad_right), lengths), count)

    def _partial_windows(self, x: Sequences, count: int) -> Tensor:
        """The first `count` windows of data that is zero past the ends."""
        after_frame = (1,) * (x.data.dim() - 2)
        if self.kind == "max":
            below = (~x.valid).to(x.data.dtype) * torch.finfo(x.data.dtype).min  # finite, so that it can be blanked
            return self.windows(x.data + below.reshape(*below.shape, *after_frame))[:, :count]
        starts = self.stride * torch.arange(count, device=x.data.device)
        real = (x.lengths[:, None] - starts).clamp(min=1, max=self.size)  # real frames in each window
        scale = (self.size / real).to(x.data.dtype).reshape(*real.shape, *after_frame)
        return self.windows(x.data)[:, :count] * scale


@config
class PoolConfig:
    """Pooling over time."""

    size: int = 2
    """Frames in a window."""
    kind: Kind = "max"
    """The largest value of a window, or the mean of its real frames."""
    stride: int | None = None
    """Frames from window to window; the size when empty."""
    tail: Tail = "floor"
    """Floor drops the frames that do not fill a window; ceil keeps them in a shorter last window."""

    def __post_init__(self) -> None:
        check_window("pool", self.size, self.stride, self.tail)


def check_window(name: str, size: int, stride: int | None, tail: Tail) -> None:
    """Raises ConfigError for a window over time that cannot be."""
    if size < 1:
        raise ConfigError(f"{name}.size={size}; expected at least 1")
    if stride is not None and stride < 1:
        raise ConfigError(f"{name}.stride={stride}; expected at least 1")
    if stride is not None and stride > size and tail == "floor":
        raise ConfigError(f"{name}.stride={stride} skips frames, as size={size}; that needs tail: ceil")


@register_layer("pool")
class Pool(TimePool):
    """Max or mean over windows of frames, for frames of any shape.

    Shape:
        x.data: (batch, time, *features).
        returns (batch, n, *features); n = (lengths - size) // stride + 1 with tail floor, ceil(lengths / stride) with
        tail ceil.
    Raises:
        ShapeError: tail is floor and a sequence is shorter than size, so that nothing of it would be left.
    """

    Config = PoolConfig

    def __init__(self, features: Features, config: PoolConfig) -> None:
        stride = config.stride or config.size
        super().__init__(features, features, kind=config.kind, size=config.size, stride=stride, tail=config.tail)
        self.config = config

    def windows(self, data: Tensor) -> Tensor:
        pool = F.max_pool1d if self.kind == "max" else F.avg_pool1d
        if data.dim() == 3:
            return pool(data.transpose(1, 2), self.size, self.stride).transpose(1, 2)  # (batch, channels, time) inside
        flat = pool(data.flatten(2).transpose(1, 2), self.size, self.stride).transpose(1, 2)
        return flat.reshape(*flat.shape[:2], *self.in_features)


@config
class Pool2dConfig:
    """Pooling over time x bins."""

    size: tuple[int, int] = (2, 2)
    """Window over (time, bins)."""
    kind: Kind = "max"
    """The largest value of a window, or the mean of its real frames."""
    stride: tuple[int, int] | None = None
    """Steps over (time, bins); the size when empty."""
    tail: Tail = "floor"
    """Over time: floor drops the frames that do not fill a window, ceil keeps them. Over bins it is always floor."""

    def __post_init__(self) -> None:
        check_window("pool2d", self.size[0], self.stride and self.stride[0], self.tail)
        if self.size[1] < 1 or (self.stride is not None and self.stride[1] < 1):
            raise ConfigError(f"pool2d.size={self.size}, stride={self.stride} over bins; expected at least 1")


@register_layer("pool2d")
class Pool2d(TimePool):
    """Max or mean over windows of time x bins.

    Shape:
        x.data: (batch, time, channels, bins).
        returns (batch, n, channels, (bins - size[1]) // stride[1] + 1); n as for `pool`.
    Raises:
        ConfigError: fewer bins than the window is wide.
        ShapeError: tail is floor and a sequence is shorter than size[0].
    """

    Config = Pool2dConfig

    def __init__(self, features: Features, config: Pool2dConfig) -> None:
        if len(features) != 2:
            raise ConfigError(f"pool2d: frames have shape {features}, expected (channels, bins); use pool over time")
        channels, bins = features
        size, stride = config.size, config.stride or config.size
        if bins < size[1]:
            raise ConfigError(f"pool2d.size={size} is wider than the {bins} bins of a frame; use a smaller window")
        out_features = (channels, (bins - size[1]) // stride[1] + 1)
        super().__init__(features, out_features, kind=config.kind, size=size[0], stride=stride[0], tail=config.tail)
        self.config = config
        self.window, self.steps = size, stride

    def windows(self, data: Tensor) -> Tensor:
        pool = F.max_pool2d if self.kind == "max" else F.avg_pool2d
        return pool(data.transpose(1, 2), self.window, self.steps).transpose(1, 2)  # (batch, channels, time, bins)
