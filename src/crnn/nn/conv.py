"""Convolution over time, and over time x features for spectrograms."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.layers import Features, WindowedLayer, register_layer
from crnn.sequences import Sequences


@config
class ConvConfig:
    """Convolution over time."""

    channels: int
    """Output channels."""
    kernel_size: int = 3
    """Taps over time, in frames."""
    stride: int = 1
    """Frames from one output to the next."""
    dilation: int = 1
    """Frames from one tap to the next."""
    groups: int = 1
    """Channel groups; equal to the input channels for a depthwise convolution."""
    padding: Literal["centred", "causal"] = "centred"
    """Centred looks half a kernel ahead; causal looks back only. Length is kept (divided by stride, rounded up)."""
    bias: bool = True
    """Learn a shift of each output channel; of no use before a norm."""

    def __post_init__(self) -> None:
        for name in ("channels", "kernel_size", "stride", "dilation", "groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"conv.{name}={getattr(self, name)}; expected at least 1")
        if self.channels % self.groups:
            raise ConfigError(f"conv.channels={self.channels} is not a multiple of groups={self.groups}")


@register_layer("conv")
class Conv(WindowedLayer):
    """Convolution over time with zero padding at the true ends of each sequence.

    Shape:
        x.data: (batch, time, in_channels).
        returns (batch, ceil(time / stride), channels) with ceil(lengths / stride).
    Raises:
        ConfigError: in_channels is not a multiple of groups.
    """

    Config = ConvConfig

    def __init__(self, features: Features, config: ConvConfig) -> None:
        if len(features) != 1:
            raise ConfigError(
                f"conv: frames have shape {features}, expected (channels,); use conv2d for (channels, bins), "
                "or put flatten or embedding before it"
            )
        (in_channels,) = features
        if in_channels % config.groups:
            raise ConfigError(f"conv.groups={config.groups} does not divide the {in_channels} input channels")
        extent = (config.kernel_size - 1) * config.dilation + 1
        pad_left = extent - 1 if config.padding == "causal" else (extent - 1) // 2
        super().__init__(
            features, (config.channels,), extent=extent, stride=config.stride, pad_left=pad_left, tail="ceil"
        )
        self.config = config
        self.conv = nn.Conv1d(
            in_channels,
            config.channels,
            config.kernel_size,
            stride=config.stride,
            dilation=config.dilation,
            groups=config.groups,
            bias=config.bias,
        )

    def compute(self, x: Sequences) -> Sequences:
        if 2 * self.pad_left != self.extent - 1:
            return super().compute(x)
        out = self.check_lengths(x.lengths)  # as much padding on both sides: PyTorch pads without a copy
        c = self.conv
        data = F.conv1d(
            x.data.transpose(1, 2), c.weight, c.bias, c.stride, self.pad_left, c.dilation, c.groups
        )  # (batch, channels, time)
        return Sequences(data.transpose(1, 2)[:, : int(out.max())], out).blanked()

    def windows(self, data: Tensor) -> Tensor:
        return self.conv(data.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]  # (batch, channels, time) inside

    def macs_per_frame(self) -> float:
        return self.conv.weight.numel() / self.stride


@config
class Conv2dConfig:
    """Convolution over time x features, for spectrograms and line images."""

    channels: int
    """Output channels."""
    kernel_size: tuple[int, int] = (3, 3)
    """Taps over (time, features)."""
    stride: tuple[int, int] = (1, 1)
    """Steps over (time, features)."""
    padding: Literal["centred", "causal"] = "centred"
    """Over time; over features it is always centred."""
    bias: bool = True
    """Learn a shift of each output channel; of no use before a norm."""


@register_layer("conv2d")
class Conv2d(WindowedLayer):
    """Convolution over time and one feature axis, zero padding at the true ends and at the feature borders.

    Shape:
        x.data: (batch, time, in_channels, bins); (batch, time, bins) is read as one channel.
        returns (batch, ceil(time / stride[0]), channels, ceil(bins / stride[1])).
    """

    Config = Conv2dConfig

    def __init__(self, features: Features, config: Conv2dConfig) -> None:
        if len(features) not in (1, 2):
            raise ConfigError(f"conv2d: frames have shape {features}, expected (channels, bins) or (bins,)")
        in_channels, bins = features if len(features) == 2 else (1, features[0])
        taps, bin_taps = config.kernel_size
        out_features = (config.channels, -(-bins // config.stride[1]))
        pad_left = taps - 1 if config.padding == "causal" else (taps - 1) // 2
        super().__init__(features, out_features, extent=taps, stride=config.stride[0], pad_left=pad_left, tail="ceil")
        self.config = config
        # odd kernels, stride s: (bins + 2*(k//2) - k)//s + 1 == ceil(bins / s)
        if bin_taps % 2 == 0:
            raise ConfigError(f"conv2d.kernel_size={config.kernel_size}; expected an odd number of taps over features")
        self.conv = nn.Conv2d(
            in_channels,
            config.channels,
            config.kernel_size,
            stride=config.stride,
            padding=(0, bin_taps // 2),
            bias=config.bias,
        )

    def compute(self, x: Sequences) -> Sequences:
        if 2 * self.pad_left != self.extent - 1:
            return super().compute(x)
        out = self.check_lengths(x.lengths)  # as much padding on both sides: PyTorch pads without a copy
        return Sequences(self._convolve(x.data, self.pad_left)[:, : int(out.max())], out).blanked()

    def windows(self, data: Tensor) -> Tensor:
        return self._convolve(data, 0)

    def _convolve(self, data: Tensor, pad: int) -> Tensor:
        """With `pad` frames of zeros on both sides. The channels of a point lie side by side in memory from here on."""
        if data.dim() == 3:
            data = data[:, :, None]
        c = self.conv
        images = data.transpose(1, 2).contiguous(memory_format=torch.channels_last)  # (batch, channels, time, bins)
        return F.conv2d(images, c.weight, c.bias, c.stride, (pad, c.padding[1])).transpose(1, 2)  # type: ignore[arg-type]

    def macs_per_frame(self) -> float:
        return self.conv.weight.numel() * self.out_features[1] / self.stride
