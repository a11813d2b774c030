"""Connectionist temporal classification on the outputs of one sequence: labels with their times, and alignments.

Outputs are log probabilities (frames, labels) in NumPy; label 0 is the blank. Every decoder takes them whole or in
parts: `push` gives the labels that can no longer change, `pending` those that still may, `finish` the rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn.errors import ShapeError

Frames = NDArray[np.float32] | NDArray[np.float64]
BLANK = 0


class Span(NamedTuple):
    """One label in time."""

    label: int
    start: int
    """First output frame that bears it."""
    end: int
    """One past the last."""
    confidence: float
    """The highest probability that the network gave it there; not yet calibrated."""


class Decoder(Protocol):
    """What finds labels in outputs, a part at a time."""

    def push(self, log_probs: Frames) -> list[Span]:
        """Take the next frames (n, labels); returns the labels that are final now, each once."""

    def pending(self) -> list[Span]:
        """Labels after the final ones as it looks now."""

    def finish(self) -> list[Span]:
        """The last labels: with this the sequence has ended."""

    def state(self) -> dict[str, Any]:
        """Plain values to go on from, for `restore` of a decoder made alike."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""


class Greedy:
    """The best label of every frame, repeats joined, blanks dropped; constant memory.

    Promise: the same spans for any chunking.
    """

    def __init__(self) -> None:
        self._frame = 0
        self._open: Span | None = None  # may still grow by repeats

    def push(self, log_probs: Frames) -> list[Span]:
        """Take the next frames (n, labels); returns the labels that have ended."""
        done = []
        best = log_probs.argmax(1).tolist() if len(log_probs) else []
        for t, label in enumerate(best):
            if self._open is not None and label != self._open.label:
                done.append(self._open)
                self._open = None
            if label != BLANK:
                confidence, end = math.exp(log_probs[t, label]), self._frame + t + 1
                if self._open is None:
                    self._open = Span(label, end - 1, end, confidence)
                else:
                    self._open = self._open._replace(end=end, confidence=max(confidence, self._open.confidence))
        self._frame += len(best)
        return done

    def pending(self) -> list[Span]:
        """The label that has not ended, if any."""
        return [] if self._open is None else [self._open]

    def finish(self) -> list[Span]:
        """The label that the end has closed, if any."""
        last = self.pending()
        self._open = None
        return last

    def state(self) -> dict[str, Any]:
        """Plain values to go on from."""
        return {"frame": self._frame, "open": None if self._open is None else list(self._open)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._frame = state["frame"]
        self._open = None if state["open"] is None else Span(*state["open"])


def decode(decoder: Decoder, log_probs: Frames) -> list[Span]:
    """All labels of a whole sequence."""
    return [*decoder.push(log_probs), *decoder.finish()]


def frames_needed(labels: Sequence[int]) -> int:
    """Output frames that a transcript needs at least: one a label, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


class Alignment(NamedTuple):
    """The most probable path through the outputs that gives a transcript."""

    spans: list[Span]
    """One a label, in order."""
    log_prob: float
    """Of the path."""


def align(log_probs: Frames, labels: Sequence[int]) -> Alignment:
    """Forced alignment: where each label of a known transcript lies, by Viterbi over the outputs.

    Shape:
        log_probs: (frames, labels of the codec).
    Raises:
        ShapeError: fewer frames than the transcript needs.
    Source: Graves et al. 2006, section 4 (the path graph of CTC), with the maximum in place of the sum.
    """
    frames, needed = len(log_probs), frames_needed(labels)
    if frames < needed:
        raise ShapeError(f"{frames} output frames, but {len(labels)} labels need at least {needed}")
    path = np.zeros(2 * len(labels) + 1, dtype=np.int64)  # blank, label, blank, label, ..., blank
    path[1::2] = labels
    emissions = np.asarray(log_probs, dtype=np.float64)[:, path]
    skips = np.zeros(len(path), dtype=bool)  # from one label straight to the next, unless they are equal
    skips[3::2] = path[3::2] != path[1:-2:2]
    score = np.full(len(path), -np.inf)
    score[:2] = emissions[0, :2] if frames else 0.0
    steps = np.zeros((max(frames, 1), len(path)), dtype=np.int8)
    choices = np.full((3, len(path)), -np.inf)
    columns = np.arange(len(path))
    for t in range(1, frames):
        choices[0] = score
        choices[1, 1:] = score[:-1]
        choices[2, 2:] = np.where(skips[2:], score[:-2], -np.inf)
        steps[t] = choices.argmax(0)
        score = choices[steps[t], columns] + emissions[t]
    place = len(path) - 1
    if len(labels) and (score[-2] >= score[-1]):
        place -= 1
    log_prob = float(score[place]) if frames else 0.0
    first, last = [frames] * len(labels), [0] * len(labels)
    for t in range(frames - 1, -1, -1):
        if place % 2:
            first[place // 2] = t
            last[place // 2] = max(last[place // 2], t + 1)
        place -= int(steps[t, place])
    spans = [
        Span(label, start, end, math.exp(log_probs[start:end, label].max()))
        for label, start, end in zip(labels, first, last, strict=True)
    ]
    return Alignment(spans, log_prob)


def log_likelihood(log_probs: Frames, labels: Sequence[int]) -> float:
    """Log probability of a transcript, summed over all its paths; -inf where it does not fit.

    Source: Graves et al. 2006, equations 5 to 8 (the forward variables).
    """
    if len(log_probs) == 0:
        return 0.0 if not labels else -math.inf
    path = np.zeros(2 * len(labels) + 1, dtype=np.int64)
    path[1::2] = labels
    emissions = np.asarray(log_probs, dtype=np.float64)[:, path]
    skips = np.zeros(len(path), dtype=bool)
    skips[3::2] = path[3::2] != path[1:-2:2]
    forward = np.full(len(path), -np.inf)
    forward[:2] = emissions[0, :2]
    for row in emissions[1:]:
        step = np.concatenate([[-np.inf], forward[:-1]])
        skip = np.where(skips, np.concatenate([[-np.inf, -np.inf], forward[:-2]])[: len(path)], -np.inf)
        forward = np.logaddexp(np.logaddexp(forward, step), skip) + row
    return float(np.logaddexp.reduce(forward[-2:]))
