"""Intervals in a sequence, such as sounds: each class by itself, so that they may overlap."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F

from crnn.data.dataset import Target
from crnn.metrics.events import f1, interval_counts
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged, Sequences
from crnn.tasks.tag import Finder, Found, Tag, in_frames
from crnn.tasks.tag_points import nan_mean
from crnn.tasks.task import Table

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SMOOTH = (0.0, 0.1, 0.3, 0.6, 1.0)
SHORTEST = (0.0, 0.1, 0.3, 0.6)
"""Seconds. Tried on validation, as the thresholds are."""
SEGMENT = 1.0
"""Seconds in a segment of the segment-based score."""


class TagIntervals(Tag):
    """Intervals by a sigmoid of each class: smoothed by a median, cut at a threshold, the too short left out."""

    form = "intervals"
    activation = "sigmoid"
    primary = "event_f1"

    def encode(self, targets: Sequence[Target], where: Sequence[str], frames: Frames) -> Ragged:  # type: ignore[override]
        """(output frames, classes) int8: 1 where a class is there, -1 where an ignored one is; at least one each."""
        rows = []
        for target, place, length in zip(targets, where, frames.out_lengths.tolist(), strict=True):
            row = np.zeros((length, len(self.labels)), np.int8)
            events = self.coded_events(target, place)
            for start, end, code in events[np.argsort(-events[:, 2], kind="stable")].tolist():
                first = min(start // frames.stride, length - 1)
                span = slice(first, max(-(-end // frames.stride), first + 1))
                if code < 0:
                    row[span] = -1
                else:
                    row[span, code] = 1
            rows.append(torch.from_numpy(row))
        return Ragged.of(rows)

    def weight(self, targets: Sequences) -> Tensor:
        return (targets.data[targets.valid] >= 0).sum().float()

    def loss(self, outputs: Sequences, targets: Sequences) -> Tensor:  # type: ignore[override]
        """Binary cross-entropy of each class in each frame, those of rare classes with more weight where they are."""
        logits, true = outputs.data[targets.valid], targets.data[targets.valid]
        known = true >= 0
        each = F.binary_cross_entropy_with_logits(
            logits, true.clamp(min=0).to(logits), pos_weight=self.class_weight.to(logits), reduction="none"
        )
        total: Tensor = (each * known).sum() / known.sum().clamp(min=1)
        return total

    def follow(self, timing: Timing, sample_rate: float | None) -> IntervalFinder:
        stride = timing.stride
        chosen = {
            "thresholds": [self.config.threshold] * len(self.labels),
            "smooth": self.config.smooth,
            "shortest": self.config.shortest,
            **self.tuned,
        }
        return IntervalFinder(
            self.labels,
            stride,
            sample_rate,
            thresholds=np.array(chosen["thresholds"], np.float32),
            smooth=int(in_frames(chosen["smooth"], sample_rate) / stride / 2),
            shortest=round(in_frames(chosen["shortest"], sample_rate) / stride),
        )

    def count(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> NDArray[np.float64]:
        """Of each class (right, found, there) in events, then in segments: 6 * classes."""
        return self._count(self.find(outputs, frames), targets, frames)

    def _count(self, found: list[list[Found]], targets: Sequence[Target], frames: Frames) -> NDArray[np.float64]:
        collar, segment = (in_frames(time, frames.sample_rate) for time in (self.config.collar, SEGMENT))
        rows = []
        for mine, target, length in zip(found, targets, frames.lengths.tolist(), strict=True):
            events = self.coded_events(target, "")
            true = [(start, end, code) for start, end, code in events.tolist() if code >= 0]
            stated = [(one.start, one.end, self.index[one.label]) for one in mine]
            counts = interval_counts(true, stated, len(self.labels), collar=collar)
            there = _segments(true, length, segment, len(self.labels))
            said = _segments(stated, length, segment, len(self.labels))
            by_segment = np.stack([(there & said).sum(0), said.sum(0), there.sum(0)], axis=1)
            rows.append(np.concatenate([counts.ravel(), by_segment.ravel()]))
        return np.array(rows, np.float64)

    def _split(self, total: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        both = total.round().astype(np.int64).reshape(2, len(self.labels), 3)
        return both[0], both[1]

    def scores_of(self, total: NDArray[np.float64]) -> dict[str, float]:
        """event_f1: mean over the classes of the F1 of whole intervals; event_f1_overall: of all classes' counts
        together; segment_f1: of one-second segments, overall."""
        events, segments = self._split(total)
        return {
            "event_f1": nan_mean(f1(*events.T)[events[:, 2] > 0]),
            "event_f1_overall": float(f1(*events.sum(0))),
            "segment_f1": float(f1(*segments.sum(0))),
        }

    def errors(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 - overall event F1."""
        right, found, there = counts[:, : 3 * len(self.labels)].reshape(len(counts), -1, 3).sum(1).T
        return np.nan_to_num(1 - f1(right, found, there))

    def tables(
        self, outputs: Ragged, targets: Sequence[Target], frames: Frames, counts: NDArray[np.float64]
    ) -> list[Table]:
        events, segments = self._split(counts.sum(0))
        rows = [
            [label, int(e[2]), int(e[1]), int(e[0]), float(score), float(of_segments)]
            for label, e, score, of_segments in zip(self.labels, events, f1(*events.T), f1(*segments.T), strict=True)
        ]
        unit = "s" if frames.sample_rate else "frames"
        note = (
            f"Right: onset within {self.config.collar:g} {unit}, offset within that or half of the length. "
            f"Segments are of {SEGMENT:g} {unit}."
        )
        columns = ["class", "there", "found", "right", "event F1", "segment F1"]
        return [Table("Intervals by class", columns, rows, note)]

    def tune(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> None:
        """Choose smoothing and shortest length for all classes, and a threshold for each, by event F1."""
        best_score = -1.0
        best: dict[str, Any] = {}
        for smooth, shortest in itertools.product(SMOOTH, SHORTEST):
            scores = []
            for threshold in THRESHOLDS:
                self.tuned = {
                    "thresholds": [threshold] * len(self.labels), "smooth": smooth, "shortest": shortest
                }  # fmt: skip
                events, _ = self._split(self.count(outputs, targets, frames).sum(0))
                scores.append(f1(*events.T))
            table = np.nan_to_num(np.array(scores))
            score = float(table.max(0).mean())
            if score > best_score:
                best_score = score
                chosen = [THRESHOLDS[_middle_best(column)] for column in table.T]
                best = {"thresholds": chosen, "smooth": smooth, "shortest": shortest}
        self.tuned = best


def _middle_best(scores: NDArray[np.float64]) -> int:
    """Of equally good places the one in the middle, which is the least a matter of luck."""
    best = np.flatnonzero(scores >= scores.max() - 1e-9)
    return int(best[len(best) // 2])


def _segments(events: Sequence[tuple[int, int, int]], length: int, segment: float, classes: int) -> NDArray[np.bool_]:
    """(segments, classes): which classes are there in which segment."""
    marks = np.zeros((max(int(np.ceil(length / max(segment, 1.0))), 1), classes), bool)
    for start, end, code in events:
        marks[int(start / max(segment, 1.0)) : int(np.ceil(end / max(segment, 1.0))), code] = True
    return marks


class IntervalFinder(Finder):
    """Intervals of each class, told of when they end."""

    def __init__(
        self,
        labels: Sequence[str],
        stride: int,
        sample_rate: float | None,
        *,
        thresholds: NDArray[np.float32],
        smooth: int,
        shortest: int,
    ) -> None:
        super().__init__(sample_rate)
        self._labels, self._stride, self._thresholds, self._shortest = labels, stride, thresholds, shortest
        self._reach = smooth  # output frames on each side of one that its median is over
        self._kept = np.zeros((0, len(labels)), np.float32)
        self._first = self._done = 0
        self._since = np.full(len(labels), -1)  # where the interval that goes on began; -1 for none
        self._peak = np.zeros(len(labels))
        self.delay = float(self._reach + 1)

    def find(self, outputs: NDArray[np.floating[Any]]) -> list[Found]:
        self._kept = np.concatenate([self._kept, np.asarray(outputs, np.float32)])
        return self._decide(self._first + len(self._kept) - self._reach)

    def find_rest(self, length: int) -> list[Found]:
        found = self._decide(self._first + len(self._kept))
        for code in range(len(self._labels)):
            self._close(code, self._done, found, length)
        return found

    def state(self) -> dict[str, Any]:
        places = {"first": self._first, "done": self._done, "since": self._since.tolist(), "peak": self._peak.tolist()}
        return {"kept": self._kept.tolist(), **places}

    def restore(self, state: dict[str, Any]) -> None:
        self._kept = np.array(state["kept"], np.float32).reshape(-1, len(self._labels))
        self._first, self._done = state["first"], state["done"]
        self._since, self._peak = np.array(state["since"]), np.array(state["peak"])

    def _decide(self, until: int) -> list[Found]:
        if until <= self._done:
            return []
        smooth = self._kept
        if self._reach:
            smooth = median_filter(self._kept, (2 * self._reach + 1, 1), mode="nearest")
        block = expit(smooth[self._done - self._first : until - self._first])
        on = block >= self._thresholds
        found: list[Found] = []
        for i in self._changes(on).tolist():
            for code in range(len(self._labels)):
                if on[i, code] and self._since[code] < 0:
                    self._since[code], self._peak[code] = self._done + i, 0.0
                elif not on[i, code] and self._since[code] >= 0:
                    self._note_peak(code, block, i)
                    self._close(code, self._done + i, found, None)
        for code in np.flatnonzero(self._since >= 0).tolist():
            self._note_peak(code, block, len(block))
        self._done = until
        drop = max(self._done - self._reach - self._first, 0)
        self._kept, self._first = self._kept[drop:], self._first + drop
        return found

    def _changes(self, on: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Places of a block where some class begins or ends."""
        before = np.concatenate([(self._since >= 0)[None], on[:-1]])
        return np.flatnonzero((on != before).any(1))

    def _note_peak(self, code: int, block: NDArray[np.float32], until: int) -> None:
        first = max(int(self._since[code]) - self._done, 0)
        if until > first:
            self._peak[code] = max(self._peak[code], float(block[first:until, code].max()))

    def _close(self, code: int, end: int, found: list[Found], length: int | None) -> None:
        start = int(self._since[code])
        self._since[code] = -1
        if start < 0 or end - start < max(self._shortest, 1):
            return
        last = end * self._stride if length is None else length
        found.append(Found(start * self._stride, last, self._labels[code], float(self._peak[code])))
