"""Labels in time to text: words and characters with their times and calibrated confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from crnn.data.codec import Codec
from crnn.decode.ctc import Span

EDGE = 1e-4
"""Probabilities are held this far from 0 and 1 where their logarithm is taken."""


class Piece(NamedTuple):
    """A character, a word or a whole text in time."""

    text: str
    start: float
    """In seconds where the rate is known, else in input frames (of an image: pixels of its scaled width)."""
    end: float
    confidence: float
    """Probability that it is right, as far as validation told."""


@dataclass(frozen=True)
class Clock:
    """Output frames to times."""

    stride: int
    """Input frames an output frame."""
    sample_rate: float | None

    def time(self, frame: int, length: int | None = None) -> float:
        """The time at which an output frame begins; not past the end of a sequence of `length` input frames."""
        at = frame * self.stride if length is None else min(frame * self.stride, length)
        return round(at / self.sample_rate, 4) if self.sample_rate else float(at)

    @property
    def unit(self) -> str:
        """What times are counted in."""
        return "seconds" if self.sample_rate else "frames"


@dataclass(frozen=True)
class Confidence:
    """From the highest probability of a label to the probability that it is right: a logistic curve over its logit.

    Source: Platt 1999; with his smoothed targets.
    """

    slope: float = 1.0
    shift: float = 0.0
    examples: int = 0
    """What it was fitted on; 0 leaves probabilities as the network gave them."""

    def of(self, probability: float) -> float:
        """The calibrated probability."""
        p = min(max(probability, EDGE), 1 - EDGE)
        return round(1 / (1 + math.exp(-self.slope * math.log(p / (1 - p)) - self.shift)), 4)

    @classmethod
    def fit(cls, probabilities: Sequence[float], right: Sequence[bool]) -> Confidence:
        """The curve that fits which of them were right; left alone where that is not known for some of both kinds."""
        p = np.clip(np.asarray(probabilities, np.float64), EDGE, 1 - EDGE)
        good = np.asarray(right, bool)
        if not len(good) or good.all() or not good.any():
            return cls(examples=0)
        x = np.log(p / (1 - p))
        wanted = np.where(good, (good.sum() + 1) / (good.sum() + 2), 1 / ((~good).sum() + 2))

        def loss(ab: NDArray[np.float64]) -> float:
            z = ab[0] * x + ab[1]
            return float((np.logaddexp(0, z) - wanted * z).mean())

        found = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.01, 20), (-20, 20)])
        return cls(float(found.x[0]), float(found.x[1]), len(good))


def characters_of(spans: Sequence[Span], codec: Codec, clock: Clock, length: int | None = None) -> list[Piece]:
    """One piece a label, in reading order, its confidence that of the network; spaces at the ends are left out, and of
    several in a row the first stays, as in the codec's normal form."""
    pieces: list[Piece] = []
    for i in codec.reading_order([span.label for span in spans]):
        span = spans[i]
        text = codec.symbols[span.label - 1]
        if text == " " and codec.config.whitespace == "collapse" and (not pieces or pieces[-1].text == " "):
            continue
        pieces.append(Piece(text, clock.time(span.start, length), clock.time(span.end, length), span.confidence))
    if pieces and pieces[-1].text == " " and codec.config.whitespace == "collapse":
        pieces.pop()
    return pieces


def words_of(characters: Sequence[Piece]) -> list[Piece]:
    """Characters between spaces; a word is as sure as its least sure character."""
    words, begun = [], []
    for piece in [*characters, Piece(" ", 0.0, 0.0, 1.0)]:
        if piece.text != " ":
            begun.append(piece)
        elif begun:
            words.append(joined(begun))
            begun = []
    return words


def joined(pieces: Sequence[Piece], between: str = "") -> Piece:
    """Several pieces as one."""
    times = sorted([(p.start, p.end) for p in pieces])  # right to left, the first to be read comes last
    text = between.join(piece.text for piece in pieces)
    return Piece(text, times[0][0], max(end for _, end in times), min(piece.confidence for piece in pieces))


def plain_piece(piece: Piece, confidence: Confidence) -> dict[str, Any]:
    """For JSON."""
    sure = confidence.of(piece.confidence)
    return {"text": piece.text, "start": piece.start, "end": piece.end, "confidence": sure}
