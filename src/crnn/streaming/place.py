"""Where one stream stands: the state of its steps, what its answers remember, and how many frames have come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crnn.streaming.answers import Answers, answers_of
from crnn.streaming.snapshot import Snapshot
from crnn.streaming.steps import Steps
from crnn.streaming.streamed import StreamedModel


@dataclass
class Place:
    """Of one stream between two chunks."""

    state: Any
    """As the steps have it."""
    answers: Answers
    frames: int = 0
    """Input frames that have come."""

    @classmethod
    def first(cls, model: StreamedModel, steps: Steps) -> Place:
        """Before the first frame."""
        return cls(steps.start(), answers_of(model))

    @classmethod
    def saved(cls, snapshot: Snapshot, model: StreamedModel, steps: Steps) -> Place:
        """Where a snapshot of this model was taken.

        Raises:
            StreamError: it is of another engine.
        """
        place = cls(snapshot.state_for(steps), answers_of(model), snapshot.frames)
        place.answers.restore(snapshot.answers)
        return place

    def save(self, model: StreamedModel, steps: Steps) -> bytes:
        """All of it."""
        tensors = steps.pack(self.state)
        return Snapshot(model.fingerprint, steps.kind, self.frames, self.answers.state(), tensors).to_bytes()

    def update(self, outputs: Any, *, is_final: bool = False) -> Any:
        """Outputs as the steps gave them, as an answer; None where there is none."""
        return self.answers.update(outputs, self.frames, is_final=is_final)
