"""The contract of a follower: what is new in a stream of output frames, as they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.nn.layers import Timing

News = dict[str, Any]
"""One thing that is new, as plain values for JSON; what is in it is the task's to say. Those with `"partial": True` may
be taken back by later ones, all others stand."""


class Follower(ABC):
    """Makes news of the outputs of one stream: text so far, events, labels that change.

    Its memory does not grow, but for what is not certain yet.

    Promise: news do not depend on how a stream is cut into chunks, but for partial ones; those that stand say together
    what the task's `predictions` say of the whole.
    """

    @abstractmethod
    def push(self, outputs: NDArray[np.floating[Any]]) -> list[News]:
        """What (n, outputs) more frames, n >= 0, bring."""

    @abstractmethod
    def finish(self, length: int) -> list[News]:
        """What only the end makes certain.

        Args:
            length: input frames of the whole stream.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Where it stands, as plain values for JSON."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was given."""


class Changes(Follower):
    """The likeliest label, whenever it is another one than in the frame before.

    Args:
        timing: of the network's output frames.
        sample_rate: input frames in a second, for times in seconds.
    """

    def __init__(self, labels: Sequence[str], timing: Timing, sample_rate: float | None) -> None:
        self._labels, self._stride, self._rate = list(labels), timing.stride, sample_rate
        self._count = 0
        self._label: str | None = None

    def push(self, outputs: NDArray[np.floating[Any]]) -> list[News]:
        news: list[News] = []
        for place, best in enumerate(outputs.argmax(1).tolist(), self._count):
            if self._labels[best] != self._label:
                self._label = self._labels[best]
                frame = place * self._stride
                seconds = {} if self._rate is None else {"seconds": round(frame / self._rate, 6)}
                news.append({"frame": frame, **seconds, "label": self._label})
        self._count += len(outputs)
        return news

    def finish(self, length: int) -> list[News]:
        return []

    def state(self) -> dict[str, Any]:
        return {"count": self._count, "label": self._label}

    def restore(self, state: dict[str, Any]) -> None:
        self._count, self._label = state["count"], state["label"]
