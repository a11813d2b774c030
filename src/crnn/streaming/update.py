"""What a stream knows: the running prediction, and how much of the input it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Update:
    """A prediction by what has been heard so far; print it, or take `prediction`."""

    prediction: dict[str, Any]
    """As Model.predict gives it: label, probability and probabilities; or value."""
    frames: int
    """Frames of input that have come."""
    looked_at: int
    """Frames that the prediction is about, from the first one; the others wait in the windows of the layers."""
    sample_rate: float | None
    """Frames per second, where that is known."""
    is_final: bool = False
    """The stream is finished; this is what Model.predict gives for all of it."""

    @property
    def answer(self) -> Any:
        """The label, the labels, or the value."""
        return next(self.prediction[key] for key in ("label", "labels", "value") if key in self.prediction)

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
