"""Jitter: noise and gain on the channels that the network sees, while training."""

from __future__ import annotations

import torch

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.layers import Features, Layer, register_layer
from crnn.sequences import Sequences


@config
class JitterConfig:
    """How much is changed; nothing is outside of training."""

    noise: float = 0.05
    """Strongest Gaussian noise, in units of the channel as it stands here; each sequence draws from 0 to this."""
    gain: float = 0.1
    """Standard deviation of the logarithm of each sequence's gain, equal for all channels."""

    def __post_init__(self) -> None:
        for name in ("noise", "gain"):
            if getattr(self, name) < 0:
                raise ConfigError(f"jitter.{name}={getattr(self, name)}; expected 0 (off) or more")


@register_layer("jitter")
class Jitter(Layer):
    """While training, adds noise to every value and multiplies each sequence by a gain.

    Put it behind normalisation and differences: noise that is small beside a smooth signal is large beside its
    differences, so noise on the raw signal would drown them. In evaluation mode it passes frames on as they are.
    What is drawn depends on the sequences' lengths, not on how far they are padded.

    Shape:
        x.data: (batch, time, *features), returns the same, without columns that are padding in every sequence.
    """

    Config = JitterConfig

    def __init__(self, features: Features, config: JitterConfig) -> None:
        if not features:
            raise ConfigError("jitter needs frames of channels, got symbol ids; put an embedding first")
        super().__init__(features)
        self.config = config

    def compute(self, x: Sequences) -> Sequences:
        if not self.training:
            return x
        x = x.trimmed()
        each = (len(x.data), *(1,) * (x.data.dim() - 1))
        gain = torch.exp(self.config.gain * torch.randn(each, device=x.data.device))
        noise = self.config.noise * torch.rand(each, device=x.data.device)
        return Sequences(x.data * gain + noise * torch.randn_like(x.data), x.lengths).zeroed()
