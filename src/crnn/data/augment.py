"""Augmentation: random changes of training sequences that keep what they mean. All off by default.

For waveforms and series as they are read, and for spectrograms given as (batch, time, bins). `augment_images` has the
changes that only line images know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Generator, Tensor
from torch.nn import functional as F

from crnn.config import config
from crnn.data.augment_images import ImageAugmentConfig, augment_images
from crnn.errors import ConfigError, ShapeError
from crnn.sequences import Sequences, pad

FILTER_TAPS = 15
WARP_KNOTS = 4
"""Stretches of a sequence between which the speed of a time warp changes."""


@config
class AugmentConfig:
    """Random changes of each training sequence, drawn anew every epoch, applied in the order given here."""

    window: float = 1.0
    """Keep a random window of at least this share of the frames; 1 keeps all."""
    window_resize: bool = False
    """Stretch the window back to the length it was cut from."""
    stretch: float = 0.0
    """Change the duration by up to this factor: 0.1 for 1/1.1 to 1.1 times the frames. In audio it shifts the pitch."""
    time_warp: float = 0.0
    """Smoothly vary the speed within a sequence: standard deviation of the log speed; 0.2 is mild. Keeps the length."""
    time_shift: float = 0.0
    """Shift by up to this share of the length."""
    shift_mode: Literal["wrap", "hold"] = "wrap"
    """What comes in where a shift leaves room: the frames that left at the other end, or the border frame."""
    rotate: float = 0.0
    """Turn each three channels (x, y, z of a motion sensor) together in space by up to this angle, in degrees."""
    blend: float = 0.0
    """Turn all channels into each other by up to about this angle, in degrees: as electrodes or microphones at other
    places would see the same. For channels in one unit."""
    filter: float = 0.0
    """Pass each channel through a random filter of 15 taps near the identity: the size of the others, 0.1 is mild."""
    gain: float = 0.0
    """Multiply a sequence as a whole by a random gain: standard deviation of its logarithm."""
    scale: float = 0.0
    """Multiply each channel by a random gain: standard deviation of its logarithm."""
    noise: float = 0.0
    """Add Gaussian noise: standard deviation relative to that of the channel within its sequence."""
    snr: tuple[float, float] | None = None
    """Add noise at a ratio of signal to noise drawn between these, in decibels, such as [10, 40]: white to pink, at
    the power of the whole sequence over all of its channels."""
    time_masks: int = 0
    """Stretches of time that are replaced by the channel's mean."""
    time_mask: float = 0.1
    """Longest such stretch, as a share of the length."""
    band_masks: int = 0
    """Bands of neighbouring channels (bins of a spectrogram) that are replaced by their mean."""
    band_mask: float = 0.2
    """Widest such band, as a share of the channels."""
    channel_drop: float = 0.0
    """Probability that a channel is replaced by its mean; one channel is always kept."""
    image: ImageAugmentConfig = ImageAugmentConfig()
    """For line images: slant, elastic, ink, blur, ..."""
    mixup: float = 0.0
    """Blend pairs of sequences and their targets with a weight drawn from Beta(mixup, mixup); 0.2 is usual."""
    mixup_match: bool = False
    """Bring the partner to the sequence's own peak before they are blended, so that neither drowns the other."""
    min_length: int = 1
    """Frames that window and stretch always leave: set it to what the network's pooling needs."""

    def __post_init__(self) -> None:
        for name in ("stretch", "time_warp", "rotate", "blend", "filter", "gain", "scale", "noise", "time_masks",
                     "band_masks", "mixup"):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigError(f"augment.{name}={getattr(self, name)}; expected 0 (off) or more")
        for name in ("time_shift", "time_mask", "band_mask", "channel_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augment.{name}={getattr(self, name)}; expected a share between 0 and 1")
        if self.snr is not None and self.snr[0] > self.snr[1]:
            raise ConfigError(f"augment.snr={list(self.snr)}; expected the lower ratio first, such as [10, 40]")
        if not 0 < self.window <= 1:
            raise ConfigError(f"augment.window={self.window}; expected a share of the frames, 0 < window <= 1")
        if self.window_resize and self.window == 1:
            raise ConfigError("augment.window_resize has no effect at augment.window=1; lower window, such as 0.9")
        if self.mixup_match and not self.mixup:
            raise ConfigError("augment.mixup_match has no effect at augment.mixup=0; raise mixup, such as to 0.2")
        if self.min_length < 1:
            raise ConfigError(f"augment.min_length={self.min_length}; expected at least 1")


class Mixed(NamedTuple):
    """Sequences blended in pairs; the loss is weight * loss(own target) + (1 - weight) * loss(partner's target)."""

    sequences: Sequences
    partner: Tensor
    """(batch,) int64: which sequence of the batch each was blended with."""
    weight: Tensor
    """(batch,) in 0.5..1: the part of its own."""


class Augment:
    """The changes that a config asks for.

    Promise: only valid frames are used and changed, padding is zero, what was missing (NaN) is still missing (a change
    of time moves it along), finite sequences stay finite, and the same generator state gives the same result. A config
    that asks for nothing returns its input as it is.

    Shape:
        x.data: (batch, time, *features) of a floating type; returns the same, with a different time axis where window
        or stretch change lengths.
    Raises:
        ShapeError: symbol ids, or `rotate` on channels that are not in threes.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        self.steps = [step for name, step in STEPS.items() if getattr(config, name) != getattr(OFF, name)]

    @property
    def changes_nothing(self) -> bool:
        """True when calling it returns its input; `mix` is apart."""
        return not self.steps

    def __call__(self, x: Sequences, generator: Generator) -> Sequences:
        if not self.steps:
            return x
        _check_floating(x)
        x = x.zeroed()
        for step in self.steps:
            x = step(x, self.config, generator)
        return x.zeroed()

    def mix(self, x: Sequences, generator: Generator) -> Mixed:
        """Blend each sequence with a random partner of its batch (mixup).

        Each keeps its own length and the larger weight. Where the partner has ended or has no value (NaN), a frame
        stays its own; what is missing in the sequence itself stays missing.

        Source: Zhang et al. 2018, arXiv:1710.09412; unequal lengths, weight >= 0.5 and matched peaks are ours.
        """
        _check_floating(x)
        x = x.zeroed()
        batch, device = len(x.lengths), x.data.device
        partner = torch.randperm(batch, generator=generator, device=generator.device).to(device)
        alpha = self.config.mixup
        if alpha == 0:
            own = torch.arange(batch, device=device)
            return Mixed(x, own, x.data.new_ones(batch))
        quantiles = torch.rand(batch, generator=generator, device=generator.device, dtype=torch.float64).cpu()
        beta = np.asarray(betaincinv(alpha, alpha, quantiles.numpy()))  # torch's own Beta takes no generator
        weight = torch.from_numpy(np.maximum(beta, 1 - beta)).to(x.data)
        other = x.data.index_select(0, partner)
        if self.config.mixup_match:
            peak = x.data.abs().nan_to_num(0.0).flatten(1).amax(1)
            peak = peak.where(peak > 0, 1.0)
            other = other / _spread(peak.index_select(0, partner), other) * _spread(peak, other)
        shared = _spread(x.valid & x.valid.index_select(0, partner), x.data) & ~other.isnan()
        mixed = torch.where(shared, torch.lerp(other, x.data, _spread(weight, x.data)), x.data)
        return Mixed(Sequences(mixed, x.lengths), partner, weight)


def window(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """A random window of each sequence, possibly stretched back.

    Source: window slicing, Le Guennec, Malinowski & Tavenard 2016.
    """
    share = config.window + (1 - config.window) * _uniform(x, generator)
    size = _at_least((share * x.lengths).ceil().long(), config, x.lengths)
    start = (_uniform(x, generator) * (x.lengths - size + 1)).floor()
    if config.window_resize:
        return resample(x, start[:, None] + _even_positions(size, x.lengths), x.lengths)
    cuts = zip(x.data, start.long().tolist(), size.tolist(), strict=True)
    return pad([row[first : first + count] for row, first, count in cuts])


def stretch(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """Each sequence played faster or slower as a whole."""
    factor = (1 + config.stretch) ** (2 * _uniform(x, generator) - 1)
    lengths = _at_least((factor * x.lengths).round().long(), config, x.lengths)
    if not bool(x.data.isfinite().all()) or int(x.lengths.min()) < 1:
        return resample(x, _even_positions(x.lengths, lengths), lengths)
    return pad([_evenly(row, size) for row, size in zip(x.unpad(), lengths.tolist(), strict=True)])


def time_warp(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """Each sequence at a speed that changes smoothly and never turns back; first and last frame stay in place."""
    batch, time = x.data.shape[:2]
    log_speed = config.time_warp * _normal(x, generator, batch, WARP_KNOTS + 1).double()
    place = torch.arange(time, device=x.data.device) / (x.lengths - 1).clamp(min=1)[:, None].double()
    place = place.clamp(max=1) * WARP_KNOTS
    knot = place.floor().long().clamp(max=WARP_KNOTS - 1)
    before, after = log_speed.gather(1, knot), log_speed.gather(1, knot + 1)
    speed = torch.lerp(before, after, place - knot).exp()
    travelled = torch.zeros_like(speed)
    travelled[:, 1:] = ((speed[:, 1:] + speed[:, :-1]) / 2).cumsum(1)
    last = (x.lengths - 1).clamp(min=0)[:, None]
    whole = travelled.gather(1, last).clamp(min=1e-12)
    return resample(x, travelled / whole * last, x.lengths)


def time_shift(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """Each sequence earlier or later within its own length."""
    shift = ((2 * _uniform(x, generator) - 1) * config.time_shift * x.lengths).round().long()
    if config.shift_mode == "wrap":
        rows = zip(x.unpad(), shift.tolist(), strict=True)
        return pad([row.roll(by, 0) for row, by in rows], length=x.data.shape[1])
    index = (torch.arange(x.data.shape[1], device=x.data.device) - shift[:, None]).clamp(min=0)
    return Sequences(_take(x.data, index.minimum((x.lengths - 1).clamp(min=0)[:, None])), x.lengths).zeroed()


def rotate(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """All groups of three channels turned by one random rotation; frames with a missing axis stay as they are.

    Source: rotation, Um et al. 2017, arXiv:1706.00527; about a random axis by a bounded angle.
    """
    batch, features = len(x.lengths), x.data.shape[2:]
    if len(features) != 1 or features[0] % 3:
        raise ShapeError(f"augment.rotate: frames have shape {tuple(features)}, expected channels in threes (x, y, z)")
    angle = (2 * _uniform(x, generator) - 1).to(x.data.dtype) * float(np.deg2rad(config.rotate))
    axis = torch.nn.functional.normalize(_normal(x, generator, batch, 3), dim=1)
    cross = torch.zeros(batch, 3, 3, dtype=x.data.dtype, device=x.data.device)  # Rodrigues' formula
    cross[:, (2, 0, 1), (1, 2, 0)] = axis
    cross[:, (1, 2, 0), (2, 0, 1)] = -axis
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    turn = torch.eye(3, dtype=x.data.dtype, device=x.data.device) + sine * cross + (1 - cosine) * (cross @ cross)
    triples = x.data.reshape(batch, -1, 3)
    turned = torch.where(triples.isnan().any(-1, keepdim=True), triples, triples.nan_to_num() @ turn.mT)
    return Sequences(turned.reshape(x.data.shape), x.lengths)


def blend(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """A random rotation of all channels; a channel that is missing in a frame gives nothing and stays missing.

    The rotation is the exponential of a random antisymmetric matrix: for two channels a turn of the plane, whose angle
    has a standard deviation of half the option.
    """
    channels = x.data.shape[-1]
    if x.data.dim() != 3 or channels < 2:
        raise ShapeError(f"augment.blend: frames have shape {tuple(x.data.shape[2:])}, expected 2 channels or more")
    draws = _normal(x, generator, len(x.lengths), channels, channels).triu(1) * float(np.deg2rad(config.blend / 2))
    turn = torch.matrix_exp(draws - draws.mT)
    return Sequences(torch.where(x.data.isnan(), x.data, x.data.nan_to_num() @ turn.mT), x.lengths)


def filter(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """A short random filter for each channel of each sequence; a missing value counts as zero and stays missing."""
    batch, time = x.data.shape[:2]
    channels = x.data[0, 0].numel()
    taps = _normal(x, generator, batch * channels, 1, FILTER_TAPS) * config.filter
    taps = taps * torch.hann_window(FILTER_TAPS + 2, periodic=False, dtype=taps.dtype)[1:-1].to(taps.device)
    taps[:, :, FILTER_TAPS // 2] += 1
    rows = x.data.nan_to_num().flatten(2).transpose(1, 2).reshape(1, batch * channels, time)
    made = F.conv1d(rows, taps, padding=FILTER_TAPS // 2, groups=batch * channels)
    made = made.reshape(batch, channels, time).transpose(1, 2).reshape(x.data.shape)
    return Sequences(torch.where(x.data.isnan(), x.data, made), x.lengths).zeroed()


def gain(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """One gain for all of a sequence."""
    factor = (config.gain * _normal(x, generator, len(x.lengths), *(1,) * (x.data.dim() - 1))).exp()
    return Sequences(x.data * factor, x.lengths)


def scale(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """A gain for each channel of each sequence."""
    gain = (config.scale * _normal(x, generator, len(x.lengths), 1, *x.data.shape[2:])).exp()
    return Sequences(x.data * gain, x.lengths)


def noise(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """White noise in proportion to each channel's own spread."""
    added = _normal(x, generator, *x.data.shape).mul_(config.noise * _deviation(x))
    return Sequences(x.data + added, x.lengths).zeroed()


def snr(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """Noise of a colour between white and pink at a given ratio to each sequence's own power.

    Missing values stay missing and count for nothing.
    """
    assert config.snr is not None, "a step is taken where its option is on"
    low, high = config.snr
    ratio = low + (high - low) * _uniform(x, generator)
    white = _normal(x, generator, *x.data.shape)
    slope = 0.5 * _uniform(x, generator)  # amplitude falls with frequency to this power: 0 is white, 0.5 pink
    spectrum = torch.fft.rfft(white, dim=1)
    frequency = torch.arange(1, spectrum.shape[1] + 1, device=x.data.device, dtype=x.data.dtype)
    shape = frequency[None] ** -slope.to(x.data.dtype)[:, None]
    coloured = torch.fft.irfft(spectrum * _spread(shape, spectrum), n=white.shape[1], dim=1)
    added = Sequences(coloured, x.lengths).zeroed()
    power = x.data.nan_to_num().square().flatten(1).sum(1)
    unit = added.data.square().flatten(1).sum(1).clamp(min=1e-30)
    gain = (power / unit * 10 ** (-ratio.to(x.data.dtype) / 10)).sqrt()
    return Sequences(x.data + _spread(gain, x.data) * added.data, x.lengths)


def time_masks(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """Stretches of time without content.

    Source: SpecAugment, Park et al. 2019, arXiv:1904.08779; filled with the mean, as data is not yet normalised here.
    """
    time = torch.arange(x.data.shape[1], device=x.data.device)
    masked = torch.zeros_like(x.valid)
    for _ in range(config.time_masks):
        masked |= _random_span(x, time, x.lengths, config.time_mask, generator)
    return _fill_mean(x, _spread(masked, x.data))


def band_masks(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """Bands of neighbouring channels without content.

    Source: SpecAugment, Park et al. 2019, arXiv:1904.08779.
    """
    bins = torch.arange(x.data.shape[-1], device=x.data.device)
    count = torch.full_like(x.lengths, len(bins))
    masked = torch.zeros(len(x.lengths), len(bins), dtype=torch.bool, device=x.data.device)
    for _ in range(config.band_masks):
        masked |= _random_span(x, bins, count, config.band_mask, generator)
    return _fill_mean(x, masked.reshape(-1, *(1,) * (x.data.dim() - 2), len(bins)))


def channel_drop(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """Single channels without content, such as a loose electrode."""
    batch, channels = len(x.lengths), x.data.shape[-1]
    draws = torch.rand(batch, channels, generator=generator, device=generator.device).to(x.data.device)
    dropped = (draws < config.channel_drop) & (draws < draws.amax(1, keepdim=True))
    return _fill_mean(x, dropped.reshape(batch, *(1,) * (x.data.dim() - 2), channels))


def image(x: Sequences, config: AugmentConfig, generator: Generator) -> Sequences:
    """What printing and scanning do to a line image."""
    return augment_images(x, config.image, generator)


Step = Callable[[Sequences, AugmentConfig, Generator], Sequences]

STEPS: dict[str, Step] = {
    "window": window,
    "stretch": stretch,
    "time_warp": time_warp,
    "time_shift": time_shift,
    "image": image,
    "rotate": rotate,
    "blend": blend,
    "filter": filter,
    "gain": gain,
    "scale": scale,
    "noise": noise,
    "snr": snr,
    "time_masks": time_masks,
    "band_masks": band_masks,
    "channel_drop": channel_drop,
}
"""Each step under the option that turns it on, in the order of application: time, then values, then masks."""

OFF = AugmentConfig()


def resample(x: Sequences, positions: Tensor, lengths: Tensor) -> Sequences:
    """Read sequences at fractional frames, by linear interpolation; next to a missing value the nearer frame counts.

    Args:
        positions: (batch, new time), in frames of x; kept inside each sequence.
        lengths: (batch,) int64, the new lengths.
    """
    last = (x.lengths - 1).clamp(min=0)[:, None]
    positions = positions.clamp(min=0).minimum(last)
    left = positions.floor().long()
    weight = _spread((positions - left).to(x.data.dtype), x.data)
    before, after = _take(x.data, left), _take(x.data, (left + 1).minimum(last))
    between = torch.lerp(before, after, weight)
    nearer = torch.where(weight < 0.5, before, after)
    missing = before.isnan() | after.isnan()
    return Sequences(torch.where(missing, nearer, between), lengths).zeroed()


def _check_floating(x: Sequences) -> None:
    if not x.data.is_floating_point():
        raise ShapeError(f"augment: found data of type {x.data.dtype}; symbols cannot be augmented, only numbers can")


def _uniform(x: Sequences, generator: Generator) -> Tensor:
    """(batch,) float64 in 0..1: exact enough to choose among millions of frames."""
    draws = torch.rand(len(x.lengths), generator=generator, device=generator.device, dtype=torch.float64)
    return draws.to(x.data.device)


def _normal(x: Sequences, generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=x.data.dtype).to(x.data.device)


def _spread(values: Tensor, data: Tensor) -> Tensor:
    """Values of (batch,) or (batch, time) with trailing axes added, to go with data."""
    return values.reshape(values.shape + (1,) * (data.dim() - values.dim()))


def _at_least(size: Tensor, config: AugmentConfig, lengths: Tensor) -> Tensor:
    """Not below min_length, unless the sequence itself is."""
    return size.maximum(lengths.clamp(max=config.min_length))


def _even_positions(size: Tensor, lengths: Tensor) -> Tensor:
    """(batch, max of lengths): `lengths` even steps over frames 0 ... size - 1."""
    time = torch.arange(int(lengths.max()), device=lengths.device)
    return time * ((size - 1) / (lengths - 1).clamp(min=1).double())[:, None]


def _evenly(row: Tensor, size: int) -> Tensor:
    """A sequence (time, *features) of finite values at `size` even steps: as `resample`, but faster."""
    channels = row.flatten(1).T[None] if row.dim() > 1 else row[None, None]
    frames = F.interpolate(channels, size, mode="linear", align_corners=True)[0].T
    return frames.reshape(size, *row.shape[1:])


def _take(data: Tensor, index: Tensor) -> Tensor:
    """Frames index (batch, new time) of data, each row from its own sequence."""
    batch, time = data.shape[:2]
    rows = index + torch.arange(batch, device=data.device)[:, None] * time
    return (
        data.reshape(batch * time, *data.shape[2:]).index_select(0, rows.view(-1)).view(*index.shape, *data.shape[2:])
    )


def _random_span(x: Sequences, axis: Tensor, count: Tensor, share: float, generator: Generator) -> Tensor:
    """(batch, len(axis)) bool: one span a sequence of 0 ... share * count, anywhere inside its first `count`."""
    width = (_uniform(x, generator) * ((share * count).floor() + 1)).floor()
    start = (_uniform(x, generator) * (count - width + 1)).floor()
    return (axis >= start[:, None]) & (axis < (start + width)[:, None])


def _mean(x: Sequences) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean of each channel over valid, finite frames, (batch, 1, *features); their number, and where they are not.

    x is zero past the ends; without a missing value that is mask enough.
    """
    if bool(x.data.isfinite().all()):
        count = _spread(x.lengths, x.data).clamp(min=1)
        return x.data.sum(1, keepdim=True) / count, count, None
    unknown = ~x.data.isfinite()
    count = (_spread(x.valid, x.data) & ~unknown).sum(1, keepdim=True).clamp(min=1)
    return x.data.masked_fill(unknown, 0).sum(1, keepdim=True) / count, count, unknown


def _deviation(x: Sequences) -> Tensor:
    """Standard deviation of each channel over valid, finite frames, (batch, 1, *features)."""
    mean, count, unknown = _mean(x)
    distance = Sequences(x.data - mean, x.lengths).zeroed().data
    if unknown is not None:
        distance = distance.masked_fill(unknown, 0)
    return (distance.square().sum(1, keepdim=True) / count).sqrt()


def _fill_mean(x: Sequences, masked: Tensor) -> Sequences:
    mean, _, unknown = _mean(x)
    if unknown is not None:
        masked = masked & ~x.data.isnan()
    return Sequences(torch.where(masked, mean, x.data), x.lengths).zeroed()
