"""The contract of a layer: exact on padded batches, and the same numbers as a stream.

A layer maps Sequences to Sequences. What it looks at is known before any data is seen (`timing`), so output lengths,
delay and time stamps are computed and never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.errors import ConfigError, ShapeError, StreamError
from crnn.plugins import plugins
from crnn.sequences import Sequences

State = tuple[Tensor, ...]
"""What a stream carries between chunks: a flat tuple of contiguous tensors, batch first."""

Features = tuple[int, ...]
"""Shape of one frame: (channels,), (channels, mels), (channels, height, width); () for one symbol id per frame."""


class Timing(NamedTuple):
    """Output frame t depends on input frames t*stride - look_back ... t*stride + look_ahead, in input frames."""

    stride: int = 1
    look_back: float = 0
    look_ahead: float = 0

    def then(self, after: Timing) -> Timing:
        """The timing of two layers in a row."""
        return Timing(
            self.stride * after.stride,
            self.look_back + self.stride * after.look_back,
            self.look_ahead + self.stride * after.look_ahead,
        )


class Layer(nn.Module):
    """Base of every layer.

    Promise: a sequence gives the same output alone, in any batch and with any padding, and `push`ed in any chunks.

    A subclass sets `out_features` and `timing`, and writes `compute`; one with memory also writes start/push/finish.
    The constructor of a registered layer takes (features, config): the shape of an input frame and its config class.

    Shape:
        x.data: (batch, time, *in_features); x.lengths: (batch,) int64.
        returns (batch, max of out_lengths, *out_features) with out_lengths(x.lengths); zero past the ends.
    """

    Config: ClassVar[type]
    in_features: Features
    out_features: Features
    timing: Timing = Timing()

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.in_features = features
        self.out_features = features

    @classmethod
    def complete_nested(cls, options: dict[str, Any], where: str) -> dict[str, Any]:
        """The options with the specs inside of them completed; most layers have none."""
        return options

    def forward(self, x: Sequences) -> Sequences:
        """Check the frame shape, forget what stands in the padding, compute."""
        if tuple(x.data.shape[2:]) != self.in_features:
            raise ShapeError(
                f"{type(self).__name__}: frames have shape {tuple(x.data.shape[2:])}, expected {self.in_features}; "
                "sequences are (batch, time, channels)"
            )
        return self.compute(x if x.is_full else x.trimmed().zeroed())

    def compute(self, x: Sequences) -> Sequences:
        """As forward, on input that is already zero past the ends; the result must be so too."""
        raise NotImplementedError

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Frames that come out for frames that go in; int64 as given."""
        return lengths

    @property
    def can_stream(self) -> bool:
        """False for layers that need the end of the sequence first, such as a bidirectional one."""
        return math.isfinite(self.timing.look_ahead)

    def start(self, batch: int) -> State:
        """The state before the first frame of `batch` streams.

        Raises:
            StreamError: this layer cannot stream.
        """
        if not self.can_stream:
            raise StreamError(self.why_no_stream())
        return ()

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        """Feed (batch, n, *in_features), n >= 0, all of it real; returns the frames that are ready, and the new state.

        A layer without memory inherits this from compute.
        """
        return self.compute(_whole(data)).data, state

    def finish(self, state: State) -> Tensor:
        """The frames that only the end of the stream makes ready: (batch, n, *out_features), n >= 0."""
        batch = state[0].shape[0] if state else 1
        return self.empty(batch)

    def close(self, data: Tensor, state: State) -> Tensor:
        """Feed the last (batch, n, *in_features), and end: what `push` and then `finish` give, as one.

        In training, where a batch norm shall see the end of a sequence together with what is before it.
        """
        out, state = self.push(data, state)
        return torch.cat([out, self.finish(state)], 1) if state else out

    def why_no_stream(self) -> str:
        """Message of the StreamError: which layer, and what to use instead."""
        return f"{type(self).__name__} cannot stream: it needs the end of the sequence before its first output"

    def empty(self, batch: int) -> Tensor:
        """No frames of this layer's output."""
        reference: Tensor = next(self.parameters(), next(self.buffers(), torch.empty(0)))  # type: ignore[arg-type]
        return reference.new_empty((batch, 0, *self.out_features))

    def no_input(self, batch: int) -> Tensor:
        """No frames of this layer's input; symbol ids are int64."""
        if not self.in_features:
            return torch.zeros((batch, 0), dtype=torch.int64)
        return self.empty(batch).new_empty((batch, 0, *self.in_features))

    def macs_per_frame(self) -> float:
        """Multiply-adds for one *input* frame."""
        return 0.0

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        """Learn fixed statistics of the training data (such as a channel's mean) before training; most have none."""

    @property
    def learns_statistics(self) -> bool:
        """True where fit_statistics does something, so that the training data has to be shown to it."""
        return type(self).fit_statistics is not Layer.fit_statistics


def _whole(data: Tensor) -> Sequences:
    return Sequences(data, torch.full((data.shape[0],), data.shape[1], dtype=torch.int64, device=data.device))


class WindowedLayer(Layer):
    """A layer that slides a window of `extent` frames with a `stride`: convolution, pooling, framing, differences.

    One place for the arithmetic of lengths and streams. Window t covers input frames
    t*stride - pad_left ... t*stride - pad_left + extent - 1; frames outside the sequence count as zero.
    With tail "ceil" every window t with t*stride < length comes out; with "floor" only those that lie wholly inside.

    The stream's buffer holds just the frames that are still needed, so the phase of stride and pooling is its length.
    A subclass writes `windows`.
    """

    def __init__(
        self, features: Features, out_features: Features, *, extent: int, stride: int, pad_left: int, tail: str
    ) -> None:
        super().__init__(features)
        if tail == "floor" and (pad_left or extent < stride):
            raise ConfigError(f"tail 'floor' needs extent >= stride and no padding, got {extent=}, {stride=}")
        self.out_features = out_features
        self.extent = max(extent, stride)  # a stride beyond the window: the rest of the step is looked past
        self.stride = stride
        self.pad_left = pad_left
        self.tail = tail
        self.timing = Timing(stride, pad_left, max(extent - 1 - pad_left, 0))

    def windows(self, data: Tensor) -> Tensor:
        """(batch, n, *in_features) -> at least (n - extent)//stride + 1 windows that lie wholly in data; no padding."""
        raise NotImplementedError

    def out_lengths(self, lengths: Tensor) -> Tensor:
        if self.tail == "floor":
            return ((lengths - self.extent).div(self.stride, rounding_mode="floor") + 1).clamp(min=0)
        if self.stride == 1:
            return lengths
        return (lengths + self.stride - 1).div(self.stride, rounding_mode="floor")

    def check_lengths(self, lengths: Tensor) -> Tensor:
        """The output lengths; raises ShapeError when nothing of a sequence would be left."""
        out = self.out_lengths(lengths)
        if out.numel() and int(out.min()) < 1:
            i = int(out.argmin())
            raise ShapeError(
                f"{type(self).__name__}: sequence {i} has {int(lengths[i])} frames, needs at least "
                f"{self.extent if self.tail == 'floor' else 1}; use less pooling, or drop shorter sequences"
            )
        return out

    def compute(self, x: Sequences) -> Sequences:
        out = self.check_lengths(x.lengths)
        count = int(out.max())
        pad_right = (count - 1) * self.stride + self.extent - self.pad_left - x.data.shape[1]
        data = pad_time(x.data, self.pad_left, pad_right)
        return Sequences(self.windows(data)[:, :count], out).zeroed()

    def start(self, batch: int) -> State:
        super().start(batch)
        reference = self.empty(batch)
        return (reference.new_zeros((batch, self.pad_left, *self.in_features)),)

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        buffer = torch.cat([state[0].to(data.dtype), data], 1)
        count = (buffer.shape[1] - self.extent) // self.stride + 1
        if count <= 0:
            return self.empty(data.shape[0]), (buffer,)
        out = self.windows(buffer)[:, :count]
        return out, (buffer[:, count * self.stride :].contiguous(),)

    def finish(self, state: State) -> Tensor:
        (buffer,) = state
        count = -(-(buffer.shape[1] - self.pad_left) // self.stride)  # windows that start before the end
        if self.tail == "floor" or count <= 0:
            return self.empty(buffer.shape[0])
        return self.last_windows(buffer, count)

    def last_windows(self, buffer: Tensor, count: int) -> Tensor:
        """The `count` windows that run over the end of the stream."""
        pad_right = (count - 1) * self.stride + self.extent - buffer.shape[1]
        return self.windows(pad_time(buffer, 0, pad_right))[:, :count]


def pad_time(data: Tensor, left: int, right: int) -> Tensor:
    """Zeros before and after along time (axis 1); negative cuts."""
    if left == 0 and right == 0:
        return data
    if data.dim() == 4:  # as images (batch, channels, time, bins), the layout that PyTorch keeps
        return F.pad(data.transpose(1, 2), (0, 0, left, right)).transpose(1, 2)
    return F.pad(data, (0, 0) * (data.dim() - 2) + (left, right))


class Chain(Layer):
    """Layers in a row; state and timing are theirs together."""

    def __init__(self, features: Features, layers: list[Layer]) -> None:
        super().__init__(features)
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            self.timing = self.timing.then(layer.timing)
            self.out_features = layer.out_features

    def __iter__(self) -> Iterator[Layer]:
        return iter(cast("Iterable[Layer]", self.layers))

    def compute(self, x: Sequences) -> Sequences:
        for layer in self:
            x = layer.compute(x)  # each leaves zeros past the ends, so none has to be written twice
        return x

    def out_lengths(self, lengths: Tensor) -> Tensor:
        for layer in self:
            lengths = layer.out_lengths(lengths)
        return lengths

    @property
    def can_stream(self) -> bool:
        return all(layer.can_stream for layer in self)

    def why_no_stream(self) -> str:
        return next(layer.why_no_stream() for layer in self if not layer.can_stream)

    def start(self, batch: int) -> State:
        return tuple(tensor for layer in self for tensor in layer.start(batch))

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        new: list[Tensor] = []
        for layer, own in zip(self, self._divide(state), strict=True):
            data, own = layer.push(data, own)
            new.extend(own)
        return data, tuple(new)

    def finish(self, state: State) -> Tensor:
        batch = state[0].shape[0] if state else 1
        data = self.no_input(batch)
        for layer, own in zip(self, self._divide(state), strict=True):
            data, own = layer.push(data, own)  # what the layers above have flushed
            if own:
                data = torch.cat([data, layer.finish(own)], 1)
        return data

    def close(self, data: Tensor, state: State) -> Tensor:
        for layer, own in zip(self, self._divide(state), strict=True):
            data = layer.close(data, own)
        return data

    def _divide(self, state: State) -> list[State]:
        parts, at = [], 0
        for layer in self:
            size = len(layer.start(1))
            parts.append(state[at : at + size])
            at += size
        return parts

    def macs_per_frame(self) -> float:
        total, stride = 0.0, 1
        for layer in self:
            total += layer.macs_per_frame() / stride
            stride *= layer.timing.stride
        return total

    @property
    def learns_statistics(self) -> bool:
        return any(layer.learns_statistics for layer in self)

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        batches = list(batches)
        for i, layer in enumerate(self):
            if layer.learns_statistics:
                with torch.no_grad():
                    layer.fit_statistics([Chain(self.in_features, list(self)[:i])(x) for x in batches])


class Through(Iterable[Sequences]):
    """What a layer gives for batches; computed anew each time they are gone over, so that it need not be kept."""

    def __init__(self, layer: Layer, batches: Iterable[Sequences]) -> None:
        self.layer, self.batches = layer, batches

    def __iter__(self) -> Iterator[Sequences]:
        return map(self.layer, self.batches)


LAYERS: dict[str, type[Layer]] = {}
"""Every registered layer by the name that specs use; what registers here is tested by the promises."""

L = TypeVar("L", bound=type[Layer])


def register_layer(name: str) -> Callable[[L], L]:
    """Class decorator: make a layer known to specs (`type: name`) and to the promise tests."""

    def register(cls: L) -> L:
        if name in LAYERS:
            raise ConfigError(f"layer {name!r} is registered twice: {LAYERS[name].__qualname__}, {cls.__qualname__}")
        LAYERS[name] = cls
        return cls

    return register


def known_layers() -> dict[str, type[Layer]]:
    """Every layer that specs may name: ours, and those of other packages (entry point group crnn.layers)."""
    return {**plugins("layers"), **LAYERS}


def build_layer(name: str, features: Features, options: Any) -> Layer:
    """The layer registered under `name`, for frames of shape `features`."""
    return known_layers()[name](features, options)  # type: ignore[call-arg, arg-type]
