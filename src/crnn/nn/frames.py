"""Frames: how the frames that come out of a network lie on those that go in, and in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from crnn.nn.layers import Timing


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of some sequences before and after a network; known before any data is seen.

    Frame t of the output is about input frame t * stride, and looks at those from `timing.look_back` before it to
    `timing.look_ahead` behind it.
    """

    timing: Timing
    lengths: Tensor
    """(n,) int64: input frames of each sequence."""
    out_lengths: Tensor
    """(n,) int64: output frames of each."""
    sample_rate: float | None = None
    """Input frames in a second, where that is known."""

    @property
    def stride(self) -> int:
        """Input frames from one output frame to the next."""
        return self.timing.stride
