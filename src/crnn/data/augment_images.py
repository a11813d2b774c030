"""Augmentation of line images: what printing, paper and scanning do to the same text. All off by default.

One resampling moves the ink (slant, rotation, size, elastic), a few passes over the batch change it. Lengths are kept:
`augment.stretch` makes lines wider or narrower.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from crnn.config import config
from crnn.errors import ConfigError, ShapeError
from crnn.sequences import Sequences

MAX_SLOPE_SHIFT = 0.1
"""Share of the height by which rotation may lift or lower the ends of a line: long lines turn by less."""
BLUR_TAPS = 2
"""Pixels on each side that a blur mixes in."""


@config
class ImageAugmentConfig:
    """Random changes of each line image, drawn anew every epoch, applied in the order given here."""

    slant: float = 0.0
    """Lean the letters by up to this angle, in degrees, either way."""
    rotation: float = 0.0
    """Turn the line by up to this angle, in degrees; less where its ends would leave the image."""
    size: float = 0.0
    """Make the letters taller or lower by up to this factor: 0.1 for 1/1.1 to 1.1 times the height."""
    shift: float = 0.0
    """Move the line up or down by up to this share of the height."""
    elastic: float = 0.0
    """Bend the line: standard deviation of the displacement, as a share of the height; 0.02 is mild."""
    elastic_grid: float = 0.5
    """Distance between the points that are displaced on their own, as a share of the height."""
    ink: float = 0.0
    """Thicker or thinner strokes: up to this share of the way to one pixel more, or less, on each side."""
    blur: float = 0.0
    """Standard deviation of a Gaussian blur, in pixels, at most."""
    contrast: float = 0.0
    """Fainter or stronger ink by up to this factor: 0.3 for 1/1.3 to 1.3 times."""
    shade: float = 0.0
    """A background that changes smoothly along the line, by up to this much (ink is 1)."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise of each pixel, at most (ink is 1)."""

    def __post_init__(self) -> None:
        for name in ("slant", "rotation", "size", "shift", "elastic", "blur", "contrast", "shade", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"augment.image.{name}={getattr(self, name)}; expected 0 (off) or more")
        if self.slant >= 60 or self.rotation >= 45:
            raise ConfigError(
                f"augment.image: slant={self.slant}, rotation={self.rotation}; expected below 60 and 45 degrees"
            )
        if not 0 <= self.ink <= 1:
            raise ConfigError(f"augment.image.ink={self.ink}; expected a share between 0 and 1")
        if self.elastic_grid <= 0:
            raise ConfigError(f"augment.image.elastic_grid={self.elastic_grid}; expected more than 0")


def augment_images(x: Sequences, config: ImageAugmentConfig, generator: Generator) -> Sequences:
    """The changes that a config asks for; paper (0) comes in where ink moves away.

    Promise: what stands past the end of a line changes nothing, padding is zero, lengths are kept, and the same
    generator state gives the same result.

    Shape:
        x.data: (batch, width, 1, height), ink high, paper 0; returns the same.
    Raises:
        ShapeError: frames that are no columns of one grey value a pixel.
    """
    if x.data.dim() != 4 or x.data.shape[2] != 1:
        raise ShapeError(
            f"augment.image: frames have shape {tuple(x.data.shape[2:])}, expected (1, height), a column of a line "
            "image; other sequences have the other options of augment"
        )
    x = x.zeroed()
    image = x.data.transpose(1, 2).contiguous()  # (batch, 1, width, height)
    if any(getattr(config, name) for name in ("slant", "rotation", "size", "shift", "elastic")):
        image = _move(image, x.lengths, config, generator)
    for name, step in STEPS.items():
        if getattr(config, name):
            image = step(image, config, generator)
    return Sequences(image.transpose(1, 2), x.lengths).zeroed()


def _move(image: Tensor, lengths: Tensor, config: ImageAugmentConfig, generator: Generator) -> Tensor:
    """Slant, rotation, size, shift and elastic as one resampling, about the middle of each line.

    Source: elastic distortion after Simard, Steinkraus & Platt 2003; here on a coarse grid, bilinearly between.
    """
    batch, _, width, height = image.shape
    like = image.new_empty(batch, 1, 1)
    half = (lengths.clamp(min=1).to(image) - 1)[:, None, None] / 2
    across = torch.arange(width, device=image.device, dtype=image.dtype)[None, :, None] - half
    up = torch.arange(height, device=image.device, dtype=image.dtype)[None, None, :] - (height - 1) / 2
    lean = torch.tan(torch.deg2rad(config.slant * _either_way(like, generator)))
    limit = MAX_SLOPE_SHIFT * height / half.clamp(min=1)
    slope = torch.tan(torch.deg2rad(config.rotation * _either_way(like, generator))).clamp(-limit, limit)
    size = (1 + config.size) ** _either_way(like, generator)
    shift = config.shift * height * _either_way(like, generator)
    rows = up * size + slope * across + shift
    columns = (across + (lean - slope) * up).expand_as(rows)
    if config.elastic:
        bend = _smooth(image, config.elastic_grid * height, 2, generator) * config.elastic * height
        columns, rows = columns + bend[:, 0], rows + bend[:, 1]
    columns = (columns + half) * (2 / max(width - 1, 1)) - 1  # as grid_sample counts: -1 and 1 are the outer pixels
    rows = rows * (2 / max(height - 1, 1))
    return F.grid_sample(image, torch.stack([rows, columns], -1), padding_mode="zeros", align_corners=True)


def _smooth(image: Tensor, spacing: float, channels: int, generator: Generator) -> Tensor:
    """(batch, channels, width, height) of values that vary smoothly, standard normal where they are drawn.

    The points lie on a fixed grid from the first column on, so that a line's own do not depend on its padding.
    """
    batch, _, width, height = image.shape
    across, up = math.ceil((width - 1) / spacing) + 1, max(2, math.ceil((height - 1) / spacing) + 1)
    across = max(across, 2)
    knots = _normal(image.new_empty(across, batch, channels, up), generator).permute(1, 2, 0, 3)
    whole = math.ceil((across - 1) * spacing) + 1
    return F.interpolate(knots, (whole, height), mode="bilinear", align_corners=True)[:, :, :width]


def _ink(image: Tensor, config: ImageAugmentConfig, generator: Generator) -> Tensor:
    """Part of the way to the largest, or to the smallest, value among the neighbours."""
    share = config.ink * _either_way(image.new_empty(len(image), 1, 1, 1), generator)
    thick = F.max_pool2d(image, 3, 1, 1)
    thin = -F.max_pool2d(-image, 3, 1, 1)
    return torch.lerp(image, torch.where(share > 0, thick, thin), share.abs())


def _blur(image: Tensor, config: ImageAugmentConfig, generator: Generator) -> Tensor:
    """A Gaussian along the line, then one across it, of a width of its own for each line."""
    sigma = config.blur * torch.rand(len(image), generator=generator, device=generator.device).to(image)
    taps = torch.arange(-BLUR_TAPS, BLUR_TAPS + 1, device=image.device)
    weights = torch.exp(-0.5 * (taps / sigma.clamp(min=1e-3)[:, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    batch = len(image)
    rows = image.transpose(0, 1)  # each line a channel, with a filter of its own
    rows = F.conv2d(rows, weights.view(batch, 1, -1, 1), padding=(BLUR_TAPS, 0), groups=batch)
    rows = F.conv2d(rows, weights.view(batch, 1, 1, -1), padding=(0, BLUR_TAPS), groups=batch)
    return rows.transpose(0, 1)


def _contrast(image: Tensor, config: ImageAugmentConfig, generator: Generator) -> Tensor:
    return image * (1 + config.contrast) ** _either_way(image.new_empty(len(image), 1, 1, 1), generator)


def _shade(image: Tensor, config: ImageAugmentConfig, generator: Generator) -> Tensor:
    most = config.shade * torch.rand(len(image), 1, 1, 1, generator=generator, device=generator.device).to(image)
    return image + most * torch.tanh(_smooth(image, 4.0 * image.shape[-1], 1, generator))


def _noise(image: Tensor, config: ImageAugmentConfig, generator: Generator) -> Tensor:
    sigma = config.noise * torch.rand(len(image), 1, 1, 1, generator=generator, device=generator.device).to(image)
    return image + sigma * _normal(image, generator)


Step = Callable[[Tensor, ImageAugmentConfig, Generator], Tensor]

STEPS: dict[str, Step] = {"ink": _ink, "blur": _blur, "contrast": _contrast, "shade": _shade, "noise": _noise}
"""What changes the ink, under the option that turns it on, in the order of application; (batch, 1, width, height)."""


def _either_way(like: Tensor, generator: Generator) -> Tensor:
    """Uniform in -1..1, of a shape."""
    return 2 * torch.rand(like.shape, generator=generator, device=generator.device).to(like) - 1


def _normal(like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)
