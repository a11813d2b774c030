"""What a stream knows: the running prediction and how much of the input it is about, or frames of answers and news."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crnn.nn.layers import Timing
from crnn.tasks.follow import News
from crnn.tasks.task import Task


class Update:
    """A prediction by what has been heard so far; print it, or take `prediction`.

    It is computed when it is looked at, for most steps of a stream nobody looks at.

    Args:
        outputs: (outputs,) of the network over the temperature.
        frames: frames of input that have come.
        is_final: the stream is finished; the prediction is what Model.predict gives for all of it.
    """

    def __init__(
        self,
        outputs: NDArray[Any],
        task: Task,
        timings: Sequence[Timing],
        *,
        frames: int,
        sample_rate: float | None = None,
        is_final: bool = False,
    ) -> None:
        self.outputs = outputs
        self.frames = frames
        self.sample_rate = sample_rate
        self.is_final = is_final
        self._task = task
        self._timings = timings

    @cached_property
    def prediction(self) -> dict[str, Any]:
        """As Model.predict gives it: label, probability and probabilities; or value."""
        return self._task.predictions(torch.from_numpy(self.outputs)[None])[0]

    @property
    def answer(self) -> Any:
        """The label, the labels, or the value."""
        return next(self.prediction[key] for key in ("label", "labels", "value") if key in self.prediction)

    @property
    def looked_at(self) -> int:
        """How many frames had a part in the prediction; those after them wait in the windows of the layers."""
        return self.frames if self.is_final else max(_reach(timing, self.frames) for timing in self._timings)

    @property
    def seconds(self) -> float | None:
        """Seconds of input that have come; None where no rate is known."""
        return self.frames / self.sample_rate if self.sample_rate else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        seconds = {} if self.seconds is None else {"seconds": round(self.seconds, 6)}
        time = {"frames": self.frames, "looked_at": self.looked_at}
        return {**seconds, **time, **self.prediction, "final": self.is_final}

    def __str__(self) -> str:
        time = f"frame {self.frames}" if self.seconds is None else f"{self.seconds:.2f} s"
        shown = ", ".join(self.answer) or "none" if isinstance(self.answer, list) else self.answer
        shown = f"{shown:.6g}" if isinstance(shown, float) else shown
        probability = f" {self.prediction['probability']:.2f}" if "probability" in self.prediction else ""
        return f"{time}  {shown}{probability}{'  (final)' if self.is_final else ''}"

    def __repr__(self) -> str:
        return f"<Update {self}>"


class StepUpdate:
    """Frames of outputs that have become ready, and what is new by them.

    Args:
        outputs: (n, outputs) of the network; may be none at the end.
        news: what the task makes of them, plain values.
        first: place of the first of these frames among all that the stream gives.
        stride: input frames from one to the next.
        frames: frames of input that have come.
        is_final: the stream is finished.
    """

    def __init__(
        self,
        outputs: NDArray[Any],
        news: list[News],
        *,
        first: int,
        stride: int,
        frames: int,
        sample_rate: float | None = None,
        is_final: bool = False,
    ) -> None:
        self.outputs = outputs
        self.news = news
        self.first = first
        self.stride = stride
        self.frames = frames
        self.sample_rate = sample_rate
        self.is_final = is_final

    @property
    def places(self) -> NDArray[np.int64]:
        """(n,): the input frame that each frame of outputs is about."""
        return np.arange(self.first, self.first + len(self.outputs)) * self.stride

    @property
    def times(self) -> NDArray[np.float64] | None:
        """(n,): the same in seconds; None where no rate is known."""
        return self.places / self.sample_rate if self.sample_rate else None

    @property
    def seconds(self) -> float | None:
        """Seconds of input that have come; None where no rate is known."""
        return self.frames / self.sample_rate if self.sample_rate else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; the outputs are not among them."""
        seconds = {} if self.seconds is None else {"seconds": round(self.seconds, 6)}
        count = {"frames": self.frames, "answers": self.first + len(self.outputs)}
        return {**seconds, **count, "news": self.news, "final": self.is_final}

    def __str__(self) -> str:
        time = f"frame {self.frames}" if self.seconds is None else f"{self.seconds:.2f} s"
        return f"{time}  {len(self.outputs)} frames  {self.news or 'nothing new'}{'  (final)' if self.is_final else ''}"

    def __repr__(self) -> str:
        return f"<StepUpdate {self}>"


def _reach(timing: Timing, frames: int) -> int:
    """Frames up to the last one that the newest output looks at."""
    ahead = int(timing.look_ahead)
    newest = (frames - 1 - ahead) // timing.stride  # output t comes with frame t * stride + look_ahead
    return newest * timing.stride + ahead + 1 if newest >= 0 else 0
