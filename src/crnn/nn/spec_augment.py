"""SpecAugment: stretches of time and bands of a spectrogram that are blanked while training."""

from __future__ import annotations

import torch
from torch import Tensor

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.layers import Features, Layer, register_layer
from crnn.sequences import Sequences


@config
class SpecAugmentConfig:
    """What is blanked; nothing is outside of training."""

    time_masks: int = 2
    """Stretches of time per sequence."""
    time_share: float = 0.15
    """Longest stretch, as a share of the sequence's own length; each is drawn from 0 to this."""
    band_masks: int = 2
    """Runs of neighbouring bands per sequence."""
    band_share: float = 0.125
    """Widest run, as a share of the bands; each is drawn from 0 to this."""

    def __post_init__(self) -> None:
        for name in ("time_masks", "band_masks"):
            if getattr(self, name) < 0:
                raise ConfigError(f"spec_augment.{name}={getattr(self, name)}; expected 0 or more")
        for name in ("time_share", "band_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"spec_augment.{name}={getattr(self, name)}; expected 0 to 1")


@register_layer("spec_augment")
class SpecAugment(Layer):
    """While training, sets random stretches of time and runs of bands to zero; put it behind a normalisation.

    What is drawn depends on the batch size alone, and where it falls on each sequence's own length, so padding changes
    nothing. In evaluation mode it passes frames on as they are.

    Shape:
        x.data: (batch, time, bands) or (batch, time, channels, bands); returns the same.
    Source: Park et al. 2019, arXiv:1904.08779, without time warping.
    """

    Config = SpecAugmentConfig

    def __init__(self, features: Features, config: SpecAugmentConfig) -> None:
        if not features:
            raise ConfigError("spec_augment needs frames of bands, got symbol ids; put log_mel first")
        super().__init__(features)
        self.config = config

    def compute(self, x: Sequences) -> Sequences:
        if not self.training:
            return x
        batch, time = x.data.shape[:2]
        bands = torch.full((batch,), self.in_features[-1], device=x.data.device)
        frames = _stretches(x.lengths, time, self.config.time_masks, self.config.time_share)
        runs = _stretches(bands, self.in_features[-1], self.config.band_masks, self.config.band_share)
        between = (1,) * (len(self.in_features) - 1)
        blank = frames.reshape(batch, time, *between, 1) | runs.reshape(batch, 1, *between, -1)
        return Sequences(x.data.masked_fill(blank, 0), x.lengths)


def _stretches(lengths: Tensor, size: int, count: int, share: float) -> Tensor:
    """(batch, size) bool: True in `count` random stretches, each up to `share` of the row's own length."""
    width, start = torch.rand(2, len(lengths), count, 1, device=lengths.device)
    own = lengths[:, None, None]
    width = width * share * own
    start = start * (own - width)
    at = torch.arange(size, device=lengths.device)
    blanked: Tensor = ((at >= start) & (at < start + width)).any(1)
    return blanked
