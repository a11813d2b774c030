"""The best path of labels through the scores of a linear-chain conditional random field (CRF)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating[Any]]
Path = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Some frames of the best path: (n,) classes, and (n,) probability of each given the scores up to its frame."""


def best_path(emissions: Scores, transitions: Scores) -> Path:
    """The path of the highest score, whole.

    Args:
        emissions: (frames, classes) scores of each class in each frame.
        transitions: (frames, classes, classes) scores of coming from class i to class j into frame t, [t, i, j]; those
            of frame 0 are not used.
    """
    path = Viterbi(emissions.shape[1])
    parts = [path.push(emissions, transitions), path.finish()]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


class Viterbi:
    """The best path as the scores come; the same in whatever chunks.

    A frame is certain as soon as the best paths to all classes of a later frame go through the same class in it. The
    frames that are not are kept: usually the last few, but all of them where nothing tells two paths apart.

    Source: Viterbi 1967, "Error bounds for convolutional codes and an asymptotically optimum decoding algorithm".
    """

    def __init__(self, num_classes: int) -> None:
        self._classes = np.arange(num_classes)
        self._best: NDArray[np.float64] | None = None  # score of the best path to each class of the last frame
        self._forward = np.zeros(num_classes)  # log-probability of each class of the last frame
        self._before: list[NDArray[np.int64]] = []  # of each frame that is not certain: where the best path comes from
        self._probabilities: list[NDArray[np.float64]] = []  # and what each class of it has

    def push(self, emissions: Scores, transitions: Scores) -> Path:
        """Take (n, classes) and (n, classes, classes) more scores; returns the frames that have become certain."""
        for emission, transition in zip(emissions.astype(float), transitions.astype(float), strict=True):
            if self._best is None:
                before, best, forward = self._classes, emission, emission
            else:
                through = self._best[:, None] + transition
                before = through.argmax(0)
                best = through[before, self._classes] + emission
                forward = np.logaddexp.reduce(self._forward[:, None] + transition, 0) + emission
            self._best = best - best.max()  # only differences matter, and hours of frames stay exact
            self._forward = forward - np.logaddexp.reduce(forward)
            self._before.append(before)
            self._probabilities.append(np.exp(self._forward))
        alive = self._classes
        for t in range(len(self._before) - 1, -1, -1):
            if len(alive) == 1:
                return self._take(t, int(alive[0]))
            alive = np.unique(self._before[t][alive])
        return self._take(-1, 0)

    def finish(self) -> Path:
        """The rest, once the end is reached."""
        return self._take(len(self._before) - 1, 0 if self._best is None else int(self._best.argmax()))

    def _take(self, last: int, at: int) -> Path:
        """The frames up to `last`, in which the path is at class `at`; they are kept no longer."""
        codes, probabilities = np.zeros(last + 1, np.int64), np.zeros(last + 1)
        for t in range(last, -1, -1):
            codes[t], probabilities[t] = at, self._probabilities[t][at]
            at = int(self._before[t][at])
        del self._before[: last + 1], self._probabilities[: last + 1]
        return codes, probabilities

    def state(self) -> dict[str, Any]:
        """Where it stands, as plain values for JSON."""
        return {
            "best": None if self._best is None else self._best.tolist(),
            "forward": self._forward.tolist(),
            "before": [row.tolist() for row in self._before],
            "probabilities": [row.tolist() for row in self._probabilities],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was given."""
        self._best = None if state["best"] is None else np.array(state["best"], float)
        self._forward = np.array(state["forward"], float)
        self._before = [np.array(row, np.int64) for row in state["before"]]
        self._probabilities = [np.array(row, float) for row in state["probabilities"]]
