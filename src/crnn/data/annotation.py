"""Annotations: targets that say something about parts of a sequence, in its own frames."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn.errors import DataError

UNLABELLED = -1
"""Code of a frame that has no label: it is left out of loss and score."""


class Event(NamedTuple):
    """Something that happens from frame `start` up to, not including, frame `end`; a beat has end = start + 1."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Events:
    """What happens in a sequence, in order of start; events may overlap."""

    items: tuple[Event, ...]

    def __post_init__(self) -> None:
        for event in self.items:
            if not 0 <= event.start < event.end:
                raise DataError(
                    f"event {event.label!r} from frame {event.start} to {event.end}; expected 0 <= start < end"
                )
        object.__setattr__(self, "items", tuple(sorted(self.items)))

    @property
    def labels(self) -> set[str]:
        """Labels that occur."""
        return {event.label for event in self.items}

    def between(self, start: int, end: int) -> Events:
        """The events that begin in frames start ... end - 1, counted from `start`, cut at the end."""
        inside = (e for e in self.items if start <= e.start < end)
        return Events(tuple(Event(e.start - start, min(e.end, end) - start, e.label) for e in inside))


@dataclass(frozen=True, eq=False)
class StepLabels:
    """A label for every frame.

    Args:
        codes: (frames,) integers: places in `names`, or UNLABELLED.
    """

    codes: NDArray[np.int16]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        codes = np.ascontiguousarray(self.codes, np.int16)
        if codes.ndim != 1 or (len(codes) and not -1 <= codes.min() <= codes.max() < len(self.names)):
            raise DataError(
                f"labels of frames: found codes outside of -1 ... {len(self.names) - 1}, or not one a frame"
            )
        object.__setattr__(self, "codes", codes)

    @property
    def labels(self) -> set[str]:
        """Labels that occur."""
        return {self.names[code] for code in np.unique(self.codes).tolist() if code != UNLABELLED}

    def between(self, start: int, end: int) -> StepLabels:
        """Those of frames start ... end - 1."""
        return StepLabels(self.codes[start:end], self.names)

    def __repr__(self) -> str:
        """Stands in fingerprints: the same for the same labels."""
        digest = hashlib.blake2b(self.codes.tobytes(), digest_size=8).hexdigest()
        return f"StepLabels({len(self.codes)} frames, {', '.join(self.names)}, {digest})"


Annotation = Events | StepLabels
