"""The operations of a program: the few that every layer comes down to, with their weights as plain arrays.

A value is either a stream (one frame after another) or a vector (one per sequence; summaries make them). A frame is
flat: float32 values in C order of its shape, so flattening costs nothing and concatenation is along the first axis. A
symbol is a frame of one value, its id. Operations on a frame alone work on vectors too.

Lengths, as in nn.layers: a windowed operation sees frames t*stride - pad_left ... + extent - 1 as its frame t, zeros
outside of the sequence (pooling: real frames only), and gives ceil(n / stride) frames, or with tail "floor"
(n - extent) // stride + 1. An operation with several inputs gives as many frames as the shortest of them.

int8: an operation with weights whose `peak` is set runs in 8 bits. Its inputs are rounded to multiples of peak / 127
and clipped to +-peak; the weights of each output channel are whole multiples of (its largest absolute weight) / 127
already. Sums are exact integers. The state h of a recurrent layer has a peak of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
"""C-contiguous float32."""
Shape = tuple[int, ...]
"""Of one frame, or of a vector; () never occurs: a symbol is (1,)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Op:
    """Base of every operation."""

    streams: ClassVar[bool] = True
    """False where the end of the sequence has to be known before the first output."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Op):
    """The frames that come in, node 0 of every program; one id each, of shape (1,), where `vocabulary` is above 0."""

    vocabulary: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Windowed(Op):
    """Base of what slides a window over time; see the module for lengths."""

    extent: int
    """Frames from the first to the last that a window covers; stride where that is longer."""
    stride: int
    pad_left: int
    tail: Literal["ceil", "floor"] = "ceil"


@dataclass(frozen=True, eq=False, kw_only=True)
class Weighted(Op):
    """Base of what multiplies by weights, and may do so in 8 bits; see the module."""

    peak: float | None = None
    """Largest absolute input, as calibrated; None for float32."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Windowed, Weighted):
    """Convolution over time. weight: (out, in / groups, taps); bias: (out,)."""

    weight: Array
    bias: Array
    dilation: int = 1
    groups: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d(Windowed, Weighted):
    """Convolution over time x bins of (channels, bins) frames. weight: (out, in, taps, bin_taps); bias: (out,).

    Bins are padded by bin_taps // 2 zeros on both sides and give ceil(bins / bin_stride).
    """

    weight: Array
    bias: Array
    in_bins: int
    bin_stride: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Windowed):
    """Maximum or mean of each value over the real frames of a window of `size` frames."""

    kind: Literal["max", "mean"]
    size: int


@dataclass(frozen=True, eq=False, kw_only=True)
class LogMel(Windowed):
    """Log-mel bands of each channel; frames of (channels, bands), (bands,) with one channel.

    With preemphasis a window covers one sample more at its start. x[i] - preemphasis * x[i-1], times `window`, zeros up
    to n_fft, Fourier transform, squared magnitudes (their roots with power 1), times `filters`, the maximum of that and
    log_floor, natural logarithm.
    """

    window: Array
    n_fft: int
    filters: Array
    """(n_fft // 2 + 1, bands)"""
    channels: int
    preemphasis: float
    power: Literal[1, 2]
    log_floor: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Difference(Op):
    """x[t] - x[t-1]; zero at the first frame."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Op):
    """(x - centre) * scale + shift, value by value; the centre goes first, so that a large level cancels exactly."""

    centre: Array
    scale: Array
    shift: Array


Function = Literal["relu", "gelu", "silu", "tanh", "leaky_relu", "elu", "asinh", "sigmoid", "softplus"]
"""gelu with the error function; leaky_relu with slope 0.01; elu with alpha 1; softplus log(1 + e^x)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Map(Op):
    """A function of each value."""

    function: Function


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Op):
    """Softmax over all values of a frame or vector."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Weighted):
    """A linear layer. A frame of rows * in values gives rows * out. weight: (out, in); bias: (out,)."""

    weight: Array
    bias: Array
    rows: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameNorm(Op):
    """Layer norm or RMS norm over all values of a frame; population variance plus eps under the root."""

    kind: Literal["layer", "rms"]
    weight: Array
    bias: Array
    eps: float


@dataclass(frozen=True, eq=False, kw_only=True)
class FillMissing(Op):
    """NaN becomes zero; with `last`, the newest value of its channel that was there, zero before the first."""

    last: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class IsMissing(Op):
    """1 where a value is NaN, else 0."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding(Op):
    """Row of `table` (vocabulary, channels) for each id."""

    table: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class PoolBins(Op):
    """Maximum or mean over `size` bins, every `stride`, of (channels, bins) frames; no partial windows."""

    kind: Literal["max", "mean"]
    size: int
    stride: int
    channels: int
    bins: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Op):
    """Values start ... stop - 1."""

    start: int
    stop: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Op):
    """The same values, in the order they are in; only the node's shape differs."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Op):
    """The inputs' values one after the other."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Op):
    """The sum of the inputs."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Multiply(Op):
    """The product of the inputs, value by value."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GatedMean(Op):
    """A mean that forgets: h' = f h + (1 - f) n of each unit, f the sigmoid of the frame's first half, n its second.

    initial: (hidden,): h before the first frame.
    """

    initial: Array
    reverse: bool = False
    """As of Recurrent."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Recurrent(Weighted):
    """One layer of a plain tanh RNN, an LSTM or a GRU, in one direction.

    Gates in PyTorch's order, stacked along the first axis: LSTM input, forget, cell, output; GRU reset, update, new,
    with the reset applied after the matrix product (`h' = (1 - z) * tanh(W x + b + r * (U h + c)) + z * h`).
    weight_x: (gates * hidden, in); weight_h: (gates * hidden, hidden); bias_x, bias_h: (gates * hidden,);
    initial: (1, hidden), for an LSTM (2, hidden): h, then the cell.
    """

    cell: Literal["rnn", "lstm", "gru"]
    weight_x: Array
    weight_h: Array
    bias_x: Array
    bias_h: Array
    initial: Array
    peak_h: float = 1.0
    """Of h, in 8 bits; h is never further from 0 than 1, or than where it started."""
    reverse: bool = False
    """From the last frame of the sequence to the first; outputs stand at their frames. Such a layer cannot stream."""

    @property
    def hidden_size(self) -> int:
        return int(self.weight_h.shape[1])


@dataclass(frozen=True, eq=False, kw_only=True)
class First(Op):
    """Stream -> vector: the first frame."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Last(Op):
    """Stream -> vector: the newest frame."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Mean(Op):
    """Stream -> vector: the mean of the frames so far."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Max(Op):
    """Stream -> vector: the maximum of each value over the frames so far."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Attend(Op):
    """Stream -> vector: mean of the frames weighted by softmax over time of score . tanh(weight x + bias)."""

    weight: Array
    """(hidden, in)"""
    bias: Array
    score: Array
    """(hidden,)"""


@dataclass(frozen=True, eq=False, kw_only=True)
class SequenceNorm(Op):
    """x minus its mean over the sequence; with `divide`, over (std + floor). NaN is left out and stays NaN."""

    streams: ClassVar[bool] = False
    divide: bool
    floor: Array = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False, kw_only=True)
class Level(Op):
    """The sequence over its largest absolute value, of all its values; silence stays silence."""

    streams: ClassVar[bool] = False


TO_VECTOR = (First, Last, Mean, Max, Attend)
"""Operations that turn a stream into a vector."""
