"""What a stream makes of its outputs: the running answer of a whole, or the frames and news of every step."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from crnn.streaming.streamed import StreamedModel
from crnn.streaming.update import StepUpdate, Update
from crnn.tasks.step_task import StepTask

Outputs = NDArray[Any]


class Answers(Protocol):
    """Of one stream; what it remembers besides the state of the steps."""

    def update(self, outputs: Outputs | None, frames: int, *, is_final: bool) -> Any:
        """Outputs as the steps gave them, after so many input frames, as an answer; None where there is none."""

    def state(self) -> dict[str, Any]:
        """What is remembered, as plain values for JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class WholeAnswers:
    """One answer a sequence; nothing is remembered."""

    def __init__(self, model: StreamedModel) -> None:
        self._model = model

    def update(self, outputs: Outputs | None, frames: int, *, is_final: bool) -> Update | None:
        """outputs: (outputs,)."""
        if outputs is None:
            return None
        model = self._model
        return Update(
            outputs, model.task, model.timings, frames=frames, sample_rate=model.sample_rate, is_final=is_final
        )

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """There is nothing."""


class StepAnswers:
    """One answer a frame: how many there were, and what the task's follower keeps."""

    def __init__(self, model: StreamedModel, task: StepTask) -> None:
        self._model = model
        self._count = 0
        self._follower = task.follow(model.timings[0], model.sample_rate)

    def update(self, outputs: Outputs | None, frames: int, *, is_final: bool) -> StepUpdate | None:
        """outputs: (n, outputs)."""
        assert outputs is not None, "steps of every frame give them as they come, be it none"
        news = self._follower.push(outputs)
        first, self._count = self._count, self._count + len(outputs)
        if is_final and self._count:
            news = news + self._follower.finish(frames)
        elif not len(outputs):
            return None
        model = self._model
        return StepUpdate(
            outputs,
            news,
            first=first,
            stride=model.timings[0].stride,
            frames=frames,
            sample_rate=model.sample_rate,
            is_final=is_final,
        )

    def state(self) -> dict[str, Any]:
        return {"count": self._count, "follower": self._follower.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self._count = state["count"]
        self._follower.restore(state["follower"])


def answers_of(model: StreamedModel) -> Answers:
    """Of a stream of this model before its first frame."""
    return StepAnswers(model, model.task) if isinstance(model.task, StepTask) else WholeAnswers(model)
