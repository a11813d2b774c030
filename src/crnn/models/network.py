"""A network: layers, a summary over time or none, and a head; built from its spec."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from crnn.data.dataset import Dataset
from crnn.errors import ConfigError, ShapeError
from crnn.models.spec import NetworkSpec
from crnn.nn.blocks import build_layers
from crnn.nn.frames import Frames
from crnn.nn.head import Head
from crnn.nn.layers import Features, State, Through, Timing
from crnn.nn.summary import build_summary
from crnn.sequences import Sequences


class Network(nn.Module):
    """Sequences in, one vector of outputs per sequence out; the same numbers alone, in any batch, with any padding.

    Without a summary in its spec, one vector of outputs for each frame that comes out of the layers.

    Args:
        features: shape of an input frame; () for symbol ids.
        outputs: what the task needs: classes, or values.
    Shape:
        x.data: (batch, time, *features); returns (batch, outputs), or without a summary Sequences of
        (batch, frames, outputs), zero past the ends.
    Raises:
        ConfigError: a layer that does not fit the frames it is given.
    """

    def __init__(self, spec: NetworkSpec, *, features: Features, outputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.features = features
        self.outputs = outputs
        self.body = build_layers(spec.layers, features)
        self.summary = None if spec.summary is None else build_summary(spec.summary, self.body.out_features)
        self.head = Head(self._head_size(), spec.head, outputs, fixed=self._fixed())

    def _head_size(self) -> int:
        if self.summary is not None:
            return self.summary.out_features
        if len(self.body.out_features) != 1:
            raise ConfigError(
                f"model.layers: found frames of shape {self.body.out_features} behind the last layer, but without a "
                "summary the head takes (channels,); end with a flatten layer"
            )
        return self.body.out_features[0]

    def _fixed(self) -> Tensor | None:
        """Which values of the summary nothing trains; None where the layers before it are trained."""
        if self.summary is None or any(p.requires_grad for p in self.body.parameters()):
            return None
        return self.summary.fixed

    def forward(self, x: Sequences) -> Any:
        self.check_lengths(x.lengths)
        frames = self.body(x)  # zero past the ends, and at least one a sequence: the summary need not look again
        if self.summary is None:
            return Sequences(self.head(frames.data), frames.lengths).zeroed()
        return self.head(self.summary.compute(frames))

    @property
    def per_step(self) -> bool:
        """True where it answers for every frame, not once a sequence."""
        return self.summary is None

    def frames_of(self, data: Dataset) -> Frames:
        """As `frames`, for the sequences of a data set."""
        return self.frames(torch.from_numpy(data.lengths), data.sample_rate)

    def frames(self, lengths: Tensor, sample_rate: float | None = None) -> Frames:
        """How the frames that come out lie on those that go in, for sequences of these lengths, (n,) int64."""
        return Frames(self.timing, lengths, self.body.out_lengths(lengths), sample_rate)

    def check_lengths(self, lengths: Tensor) -> None:
        """Raises ShapeError for a sequence of which nothing would be left."""
        if lengths.numel() and int(lengths.min()) < self.min_length:
            i = int(lengths.argmin())
            raise ShapeError(
                f"sequence {i} has {int(lengths[i])} frames; this network needs at least {self.min_length}; "
                "use less pooling, or leave shorter sequences out"
            )

    @property
    def min_length(self) -> int:
        """Frames of the shortest sequence that leaves at least one frame after all strides and pooling."""
        if not hasattr(self, "_min_length"):
            length = 1
            while int(self.body.out_lengths(torch.tensor([length]))) < 1:
                length += 1
            self._min_length = length
        return self._min_length

    @property
    def timing(self) -> Timing:
        """Of the frames that reach the summary, in input frames."""
        return self.body.timing

    @property
    def timings(self) -> list[Timing]:
        """Of each way from the input to the head, in input frames; those of a concat differ."""
        if self.summary is None:
            return [self.timing]
        return [self.timing.then(timing) for timing in self.summary.timings]

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def macs(self, length: int) -> float:
        """Multiply-adds for one sequence of `length` frames (matrix products and convolutions)."""
        out_length = int(self.body.out_lengths(torch.tensor([length])))
        head = sum(m.weight.numel() for m in self.head.modules() if isinstance(m, nn.Linear))
        body = length * self.body.macs_per_frame()
        if self.summary is None:
            return body + out_length * head
        return body + out_length * self.summary.macs_per_frame() + head

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        """Learn the fixed statistics of the training data that front-ends and summaries keep."""
        batches = list(batches)
        self.body.fit_statistics(batches)
        if self.summary is not None and self.summary.learns_statistics:
            was_training = self.training
            self.eval()  # nothing is drawn, and no running statistic moves
            with torch.no_grad():
                self.summary.fit_statistics(Through(self.body, batches))
            self.train(was_training)

    @property
    def fits_head(self) -> bool:
        """True where fit_head does something."""
        return self.head.has_ridge

    @torch.no_grad()
    def fit_head(self, batches: Iterable[Sequences], aims: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
        """Weights of the head that come in closed form from training data; after fit_statistics.

        Args:
            aims: what a linear fit of the outputs aims at, an example of the batches a row.
            loss: of outputs for these examples.
        """
        assert self.summary is not None, "a head without a summary has nothing fixed"
        was_training = self.training
        self.eval()
        features = torch.cat([self.summary.compute(self.body(x)) for x in batches])
        self.head.fit(features, aims, loss)
        self.train(was_training)

    @property
    def can_stream(self) -> bool:
        return self.body.can_stream and (self.summary is None or self.summary.can_stream)

    def start(self, batch: int) -> tuple[State, State]:
        """The state of `batch` streams before their first frame: (layers, summary).

        Raises:
            StreamError: which layer cannot stream, and what to use instead.
        """
        return self.body.start(batch), () if self.summary is None else self.summary.start(batch)

    def push(self, data: Tensor, state: tuple[State, State]) -> tuple[Tensor | None, tuple[State, State]]:
        """Feed (batch, n, *features); returns the outputs by the frames that are ready, the running answer.

        None until the first frame has come out of the layers. Without a summary (batch, frames, outputs) for the frames
        that are ready.
        """
        frames, body = self.body.push(data, state[0])
        if self.summary is None:
            return self.head(frames), (body, ())
        summary = self.summary.push(frames, state[1])
        return self._read(summary), (body, summary)

    def finish(self, state: tuple[State, State]) -> Tensor | None:
        """The outputs for the whole stream, equal to forward on all of it; None when nothing was pushed.

        Without a summary those of the last frames, which only the end makes ready.
        """
        if self.summary is None:
            return self.head(self.body.finish(state[0]))  # type: ignore[no-any-return]
        return self._read(self.summary.finish(self.summary.push(self.body.finish(state[0]), state[1])))

    def close(self, data: Tensor, state: tuple[State, State]) -> Tensor | None:
        """Feed the last frames, and end: the outputs of `push` and `finish` together."""
        frames = self.body.close(data, state[0])
        if self.summary is None:
            return self.head(frames)  # type: ignore[no-any-return]
        return self._read(self.summary.finish(self.summary.push(frames, state[1])))

    def _read(self, summary: State) -> Tensor | None:
        assert self.summary is not None
        if not self.summary.has_frames(summary):
            return None
        return self.head(self.summary.read(summary))  # type: ignore[no-any-return]


def describe_timing(timing: Timing, sample_rate: float | None) -> dict[str, object]:
    """Stride, look-back and look-ahead in frames, and in seconds where the rate is known; None for without end."""

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    result: dict[str, object] = {
        "stride": timing.stride,
        "look_back": plain(timing.look_back),
        "look_ahead": plain(timing.look_ahead),
    }
    if sample_rate:
        ahead = plain(timing.look_ahead)
        result["stride_seconds"] = timing.stride / sample_rate
        result["delay_seconds"] = None if ahead is None else ahead / sample_rate
    return result
