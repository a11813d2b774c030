"""Front-ends: what stands between raw frames or symbols and the first convolution, kept inside the model.

Order in a model: `channel_norm` (NaN passes), `missing` (zero is then the channel's mean), `difference`. A front-end
after `missing` never sees a NaN; `difference` before it would make two missing frames out of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.alphabets import ALPHABETS, AlphabetName
from crnn.config import config
from crnn.errors import ConfigError, DataError, ShapeError
from crnn.nn.layers import Features, Layer, State, Timing, register_layer
from crnn.sequences import Sequences


@config
class ChannelNormConfig:
    """Normalisation by the training data's mean and standard deviation; no options."""


@register_layer("channel_norm")
class ChannelNorm(Layer):
    """Each channel minus its mean, over its standard deviation, both learned from the training data and kept.

    Before `fit_statistics` it is the identity. NaN stays NaN.

    Shape:
        x.data: (batch, time, *features); every element of a frame (a channel, or a bin of a channel) has its own
        mean and std. Returns the same shape.
    """

    Config = ChannelNormConfig
    mean: Tensor
    std: Tensor

    def __init__(self, features: Features, config: ChannelNormConfig) -> None:
        if not features:
            raise ConfigError(
                "channel_norm needs frames of channels, got symbol ids; put an embedding or one_hot first"
            )
        super().__init__(features)
        self.config = config
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def compute(self, x: Sequences) -> Sequences:
        return Sequences((x.data - self.mean) / self.std, x.lengths).zeroed()

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        """Mean and population std over valid frames; NaN and infinite values are left out.

        A channel that is constant to single precision, or was never seen, gets std 1.

        Raises:
            DataError: no frame at all.
        """
        count, mean, squares = (torch.zeros(self.in_features, dtype=torch.float64) for _ in range(3))
        num_frames = 0
        for x in batches:
            frames = x.data[x.valid].double().cpu()
            num_frames += len(frames)
            new_count, new_mean, new_squares = _moments(frames)
            total = count + new_count
            share = new_count / total.clamp(min=1)
            step = new_mean - mean
            mean = mean + step * share
            squares = squares + new_squares + step.square() * count * share
            count = total
        if num_frames == 0:
            raise DataError("channel_norm: found no frame to learn mean and std from, expected the training data")
        std = (squares / count.clamp(min=1)).sqrt()
        smallest = (mean.abs() * 1e-7).clamp(min=torch.finfo(torch.float32).tiny)  # float32 resolves 6e-8 of a value
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > smallest, std, 1.0))

    def macs_per_frame(self) -> float:
        return float(self.mean.numel())


def _moments(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and sum of squared deviations of the finite values, over axis 0.

    Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances";
    the caller merges these by their equation for two parts.
    """
    finite = frames.isfinite()
    count = finite.sum(0).double()
    mean = frames.where(finite, 0.0).sum(0) / count.clamp(min=1)
    return count, mean, (frames - mean).where(finite, 0.0).square().sum(0)


@config
class MissingConfig:
    """What stands in for missing values (NaN)."""

    fill: Literal["zero", "last"] = "zero"
    """Zero, or the channel's last value that was there (zero before the first one)."""
    mask: bool = True
    """Append one channel per input channel that is 1 where the value was missing."""


@register_layer("missing")
class Missing(Layer):
    """NaN becomes a number, and a mask channel says where it was. Infinite values stay as they are.

    Shape:
        x.data: (batch, time, channels) or (batch, time, channels, bins).
        returns twice the channels with mask: first the values, then the masks.
    """

    Config = MissingConfig

    def __init__(self, features: Features, config: MissingConfig) -> None:
        if not features:
            raise ConfigError("missing needs frames of channels, got symbol ids; give a missing symbol its own id")
        super().__init__(features)
        self.config = config
        if config.mask:
            self.out_features = (2 * features[0], *features[1:])
        if config.fill == "last":
            self.timing = Timing(1, math.inf, 0)

    def compute(self, x: Sequences) -> Sequences:
        if self.config.fill == "zero":
            filled = x.data.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
        else:
            filled = _carry_forward(torch.zeros_like(x.data[:, :1]), x.data)  # padding is zero, not missing: it stays
        return Sequences(self._with_mask(filled, x.data), x.lengths)

    def start(self, batch: int) -> State:
        if self.config.fill == "zero":
            return ()
        return (torch.zeros((batch, 1, *self.in_features)),)

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        if self.config.fill == "zero":
            return super().push(data, state)
        last = state[0].to(data)
        filled = _carry_forward(last, data)
        return self._with_mask(filled, data), (torch.cat([last, filled], 1)[:, -1:].contiguous(),)

    def _with_mask(self, filled: Tensor, data: Tensor) -> Tensor:
        return torch.cat([filled, data.isnan().to(data.dtype)], 2) if self.config.mask else filled


def _carry_forward(before: Tensor, data: Tensor) -> Tensor:
    """NaN replaced by the value before it. before: (batch, 1, *features), the finite value in front of frame 0."""
    values = torch.cat([before, data], 1)
    time = torch.arange(values.shape[1], device=data.device).reshape(-1, *(1,) * (data.dim() - 2))
    newest = torch.where(values.isnan(), 0, time).cummax(1).values  # index of the newest value that was there
    return values.gather(1, newest)[:, 1:]


@config
class DifferenceConfig:
    """First differences over time."""

    keep: bool = True
    """Keep the channels and append their differences; False gives the differences alone."""


@register_layer("difference")
class Difference(Layer):
    """x[t] - x[t-1] of every channel; zero at the first frame. Put `missing` before it: NaN would spread by a frame.

    Shape:
        x.data: (batch, time, channels) or (batch, time, channels, bins).
        returns twice the channels with keep: first the values, then their differences.
    """

    Config = DifferenceConfig
    timing = Timing(1, 1, 0)

    def __init__(self, features: Features, config: DifferenceConfig) -> None:
        if not features:
            raise ConfigError("difference needs frames of channels, got symbol ids; put an embedding or one_hot first")
        super().__init__(features)
        self.config = config
        if config.keep:
            self.out_features = (2 * features[0], *features[1:])

    def compute(self, x: Sequences) -> Sequences:
        return Sequences(self._differences(x.data[:, :1], x.data), x.lengths).zeroed()

    def start(self, batch: int) -> State:
        return (torch.zeros((batch, 0, *self.in_features)),)  # no frame yet: the first one is its own predecessor

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        seen = torch.cat([state[0].to(data), data], 1)
        before = seen[:, :1]
        return self._differences(before, data), (seen[:, -1:].contiguous(),)

    def _differences(self, before: Tensor, data: Tensor) -> Tensor:
        """before: (batch, 1, *features), the frame in front of data[:, 0]."""
        steps = data - torch.cat([before, data], 1)[:, : data.shape[1]]
        return torch.cat([data, steps], 2) if self.config.keep else steps


@config
class EmbeddingConfig:
    """A learned vector for each symbol."""

    vocab_size: int
    """Number of symbols; ids are 0 ... vocab_size - 1."""
    channels: int
    """Output channels."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"embedding.{name}={getattr(self, name)}; expected at least 1")


@register_layer("embedding")
class Embedding(Layer):
    """A learned vector for each symbol id.

    Shape:
        x.data: (batch, time) int64 ids; returns (batch, time, channels).
    Raises:
        ShapeError: an id outside the vocabulary, or ids that are not whole numbers.
    """

    Config = EmbeddingConfig

    def __init__(self, features: Features, config: EmbeddingConfig) -> None:
        _check_symbols("embedding", features)
        super().__init__(features)
        self.config = config
        self.out_features = (config.channels,)
        self.embedding = nn.Embedding(config.vocab_size, config.channels)

    def compute(self, x: Sequences) -> Sequences:
        _check_ids("embedding", x.data, self.config.vocab_size)
        return Sequences(self.embedding(x.data), x.lengths).zeroed()  # id 0 stands in the padding


@config
class OneHotConfig:
    """One channel for each symbol."""

    vocab_size: int
    """Number of symbols; ids are 0 ... vocab_size - 1."""

    def __post_init__(self) -> None:
        if self.vocab_size < 1:
            raise ConfigError(f"one_hot.vocab_size={self.vocab_size}; expected at least 1")


@register_layer("one_hot")
class OneHot(Layer):
    """1 in the channel of each frame's symbol, 0 in the others.

    Shape:
        x.data: (batch, time) int64 ids; returns (batch, time, vocab_size).
    Raises:
        ShapeError: an id outside the vocabulary, or ids that are not whole numbers.
    """

    Config = OneHotConfig
    one: Tensor

    def __init__(self, features: Features, config: OneHotConfig) -> None:
        _check_symbols("one_hot", features)
        super().__init__(features)
        self.config = config
        self.out_features = (config.vocab_size,)
        self.register_buffer("one", torch.ones(()), persistent=False)  # follows the model's dtype and device

    def compute(self, x: Sequences) -> Sequences:
        _check_ids("one_hot", x.data, self.config.vocab_size)
        out = self.one.new_zeros((*x.data.shape, self.config.vocab_size))
        return Sequences(out.scatter_(-1, x.data[..., None], 1.0), x.lengths).zeroed()


@config
class IupacConfig:
    """Which alphabet the ids are of."""

    alphabet: AlphabetName
    """dna, rna or protein."""


@register_layer("iupac")
class Iupac(Layer):
    """Bases or residues as fractions: 1 in the channel of a plain symbol, equal parts where one stands for several.

    Of DNA and RNA the channels are A, C, G, T (U): read backwards they are the complements.

    Shape:
        x.data: (batch, time) int64 ids of the alphabet; returns (batch, time, 4), or 20 for proteins.
    Raises:
        ShapeError: an id outside the alphabet, or ids that are not whole numbers.
    Source: the tables of crnn.alphabets.
    """

    Config = IupacConfig
    fractions: Tensor

    def __init__(self, features: Features, config: IupacConfig) -> None:
        _check_symbols("iupac", features)
        super().__init__(features)
        self.config = config
        fractions = torch.from_numpy(ALPHABETS[config.alphabet].fractions)
        self.out_features = (fractions.shape[1],)
        self.register_buffer("fractions", fractions, persistent=False)

    def compute(self, x: Sequences) -> Sequences:
        _check_ids("iupac", x.data, len(self.fractions))
        return Sequences(F.embedding(x.data, self.fractions), x.lengths).zeroed()  # id 0 stands in the padding


def _check_symbols(name: str, features: Features) -> None:
    if features:
        raise ConfigError(f"{name} needs one symbol id per frame, got frames of shape {features}; use conv instead")


def _check_ids(name: str, ids: Tensor, vocab_size: int) -> None:
    if ids.dtype != torch.int64:
        raise ShapeError(f"{name}: found symbol ids of type {ids.dtype}, expected int64")
    if ids.numel() == 0:
        return
    low, high = (int(end) for end in ids.aminmax())
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        sequence, frame = (int(i) for i in (ids == wrong).nonzero()[0])
        raise ShapeError(
            f"{name}: sequence {sequence} frame {frame} has symbol id {wrong}, expected 0 to {vocab_size - 1}; "
            f"raise vocab_size, or map unknown symbols to an id of their own"
        )
