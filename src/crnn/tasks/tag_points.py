"""Points in a sequence, such as heartbeats: found where the probability of "something" peaks, named by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from torch import Tensor
from torch.nn import functional as F

from crnn.data.dataset import Target
from crnn.metrics.ecg import jk_index, predictivity, sensitivity
from crnn.metrics.events import f1, point_confusion
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged, Sequences
from crnn.tasks.tag import Finder, Found, Tag, in_frames, log_odds_of_rarity
from crnn.tasks.task import Table

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Tried on validation."""


class TagPoints(Tag):
    """Points by softmax over "nothing" and the classes.

    Two things are scored and never mixed: points as they are found, and, as the literature of heartbeats does it, the
    class at the given true positions ("given_...").
    """

    form = "points"
    activation = "softmax"
    primary = "mean_f1"
    silent = 0

    @property
    def num_outputs(self) -> int:
        return 1 + len(self.labels)

    @property
    def output_names(self) -> list[str]:
        return ["(nothing)", *self.labels]

    def _width(self, frames: Frames) -> int:
        """Output frames on each side of a point's own that are trained as it."""
        return round(in_frames(self.config.width, frames.sample_rate) / frames.stride)

    def encode(self, targets: Sequence[Target], where: Sequence[str], frames: Frames) -> Ragged:  # type: ignore[override]
        """0 for nothing, 1 + class near a point, -1 near an ignored one; the nearer point has a frame."""
        width, rows = self._width(frames), []
        for target, place, length in zip(targets, where, frames.out_lengths.tolist(), strict=True):
            events = self.coded_events(target, place)
            row = np.zeros(length, np.int64)
            at = events[:, 0] // frames.stride
            for distance in range(width, -1, -1):  # the nearest last, so that it stays
                for side in (at - distance, at + distance):
                    inside = (side >= 0) & (side < length)
                    row[side[inside]] = np.where(events[inside, 2] < 0, -1, events[inside, 2] + 1)
            rows.append(torch.from_numpy(row))
        return Ragged.of(rows)

    def _weights(self, targets: Sequences) -> Tensor:
        """(labelled frames,): the weight of each in the loss."""
        codes = targets.data[targets.valid]
        weight = torch.cat([torch.ones(1), self.class_weight]).to(codes.device)
        return weight[codes[codes >= 0]]

    def weight(self, targets: Sequences) -> Tensor:
        return self._weights(targets).sum()

    def loss(self, outputs: Sequences, targets: Sequences) -> Tensor:  # type: ignore[override]
        """Weighted cross-entropy of the labelled frames."""
        codes = targets.data[targets.valid]
        known = codes >= 0
        if not known.any():
            return outputs.data.sum() * 0.0
        weight = torch.cat([torch.ones(1), self.class_weight]).to(outputs.data)
        return F.cross_entropy(outputs.data[targets.valid][known], codes[known], weight)

    def follow(self, timing: Timing, sample_rate: float | None) -> PointFinder:
        return PointFinder(self, timing.stride, sample_rate)

    @property
    def threshold(self) -> float:
        """Probability of "something" from which a peak is a point."""
        return float(self.tuned.get("threshold", self.config.threshold))

    def log_scores(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(frames, classes): log-probabilities of the classes, moved by how rare they are."""
        return log_softmax(outputs)[:, 1:] + log_odds_of_rarity(self.counts, self.config.prior)

    def count(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> NDArray[np.float64]:
        """Confusions of points found, (classes + 1)^2 with "nothing" last, then of given ones, classes^2."""
        size = len(self.labels)
        tolerance = in_frames(self.config.tolerance, frames.sample_rate)
        rows = []
        for row, target, found in zip(outputs, targets, self.find(outputs, frames), strict=True):
            events = self.coded_events(target, "")
            places = np.array([point.start for point in found], np.int64)
            codes = np.array([self.index[point.label] for point in found], np.int64)
            confusion = point_confusion(events[:, 0], events[:, 2], places, codes, tolerance, size)
            given = np.zeros((size, size), np.int64)
            known = events[events[:, 2] >= 0]
            named = self.classes_at(row.numpy(), known[:, 0], frames)
            np.add.at(given, (known[:, 2], named), 1)
            rows.append(np.concatenate([confusion.ravel(), given.ravel()]))
        return np.array(rows, np.float64)

    def classes_at(self, outputs: NDArray[np.float32], places: NDArray[np.int64], frames: Frames) -> NDArray[np.int64]:
        """The class at each given place (input frames), by the outputs around it; one is always given."""
        scores = around(self.log_scores(outputs), self._reach(frames.stride, frames.sample_rate))
        at = np.minimum(places // frames.stride, len(outputs) - 1)
        return np.asarray(scores[at].argmax(1), np.int64)

    def _reach(self, stride: int, sample_rate: float | None) -> int:
        """Output frames on each side of a peak that have a say in its class: half of those trained as it."""
        return round(in_frames(self.config.width, sample_rate) / stride / 2)

    def _split(self, total: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        size = len(self.labels)
        whole = total.round().astype(np.int64)
        return whole[: (size + 1) ** 2].reshape(size + 1, size + 1), whole[(size + 1) ** 2 :].reshape(size, size)

    def scores_of(self, total: NDArray[np.float64]) -> dict[str, float]:
        """mean_f1: mean F1 of the classes that occur, of points found; detection_f1: whatever the class; then the same
        with positions given: accuracy, mean sensitivity, and jk index where the classes are those of heartbeats."""
        found, given = self._split(total)
        right, stated, true = np.diagonal(found)[:-1], found[:, :-1].sum(0), found[:-1].sum(1)
        hits = found[:-1, :-1].sum()
        values = {
            "mean_f1": nan_mean(f1(right, stated, true)[true > 0]),
            "mean_sensitivity": nan_mean(sensitivity(found)[:-1]),
            "detection_f1": float(f1(hits, stated.sum(), true.sum())),
            "detection_sensitivity": _share(hits, true.sum()),
            "detection_predictivity": _share(hits, stated.sum()),
            "given_accuracy": _share(np.trace(given), given.sum()),
            "given_mean_sensitivity": nan_mean(sensitivity(given)),
        }
        if {"S", "V"} <= set(self.labels):
            values["given_jk_index"] = jk_index(given, self.labels)
        return values

    def errors(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of points missed, made up, or of the wrong class."""
        size = len(self.labels) + 1
        found = counts[:, : size * size].reshape(-1, size, size)
        right = np.trace(found[:, :-1, :-1], axis1=1, axis2=2)
        total = found.sum((1, 2))
        return np.asarray(1 - np.divide(right, total, out=np.ones(len(right)), where=total > 0))

    def tables(
        self, outputs: Ragged, targets: Sequence[Target], frames: Frames, counts: NDArray[np.float64]
    ) -> list[Table]:
        found, given = self._split(counts.sum(0))
        within = f"within {self.config.tolerance:g} {'s' if frames.sample_rate else 'frames'} of a true one"
        return [
            self._table("Points found", found, f"A point found is right {within}, with its class."),
            self._table("Class at the given positions", given, "Positions are the annotation's, as in papers."),
        ]

    def _table(self, title: str, confusion: NDArray[np.int64], note: str) -> Table:
        size = len(self.labels)
        right, true, stated = np.diagonal(confusion)[:size], confusion.sum(1)[:size], confusion.sum(0)[:size]
        sensitive, predictive = sensitivity(confusion)[:size], predictivity(confusion)[:size]
        columns = (true, stated, sensitive, predictive, f1(right, stated, true))
        rows = [list(row) for row in zip(self.labels, *(column.tolist() for column in columns), strict=True)]
        return Table(title, ["class", "there", "found", "sensitivity", "predictivity", "F1"], rows, note)

    def confusion(self, total: NDArray[np.float64]) -> list[list[int]]:
        """Of the classes at given positions."""
        return self._split(total)[1].tolist()  # type: ignore[no-any-return]

    def tune(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> None:
        """Choose the threshold that finds points best, whatever their class."""
        best = (-math.inf, 0.0)
        for threshold in THRESHOLDS:
            self.tuned["threshold"] = threshold
            score = self.scores_of(self.count(outputs, targets, frames).sum(0))["detection_f1"]
            best = max(best, (score, -abs(threshold - 0.5)))
            if best == (score, -abs(threshold - 0.5)):
                chosen = threshold
        self.tuned["threshold"] = chosen


class PointFinder(Finder):
    """Points as they become certain: peaks of 1 - p(nothing), the largest within the gap on both sides."""

    def __init__(self, task: TagPoints, stride: int, sample_rate: float | None) -> None:
        super().__init__(sample_rate)
        self._task, self._stride = task, stride
        self._reach = task._reach(stride, sample_rate)
        self._gap = max(round(in_frames(task.config.gap, sample_rate) / stride), self._reach, 1)
        self._kept = np.zeros((0, task.num_outputs), np.float32)
        self._first = 0  # output frame of the first kept row
        self._done = 0  # output frames that are decided
        self.delay = float(self._gap)

    def find(self, outputs: NDArray[np.floating[Any]]) -> list[Found]:
        self._kept = np.concatenate([self._kept, np.asarray(outputs, np.float32)])
        return self._decide(self._first + len(self._kept) - self._gap)

    def find_rest(self, length: int) -> list[Found]:
        found = self._decide(self._first + len(self._kept))
        return [Found(min(f.start, length - 1), min(f.end, length), f.label, f.probability) for f in found]

    def state(self) -> dict[str, Any]:
        return {"kept": self._kept.tolist(), "first": self._first, "done": self._done}

    def restore(self, state: dict[str, Any]) -> None:
        self._kept = np.array(state["kept"], np.float32).reshape(-1, self._task.num_outputs)
        self._first, self._done = state["first"], state["done"]

    def _decide(self, until: int) -> list[Found]:
        """What stands in output frames up to `until`, whose surroundings are there."""
        if until <= self._done:
            return []
        activity = 1 - np.exp(log_softmax(self._kept)[:, 0])
        highest = maximum_filter1d(activity, 2 * self._gap + 1, mode="constant", cval=-1.0)
        is_peak = (activity >= self._task.threshold) & (activity == highest)
        span = slice(self._done - self._first, until - self._first)
        peaks = np.flatnonzero(is_peak[span]) + span.start
        equal = [p for p in peaks.tolist() if not (activity[max(p - self._gap, 0) : p] == activity[p]).any()]
        found = []
        if equal:
            scores = around(self._task.log_scores(self._kept), self._reach)
            for peak in equal:
                found.append(self._point(peak, activity, scores))
        self._done = until
        drop = max(self._done - self._gap - self._first, 0)
        self._kept, self._first = self._kept[drop:], self._first + drop
        return found

    def _point(self, peak: int, activity: NDArray[np.float32], scores: NDArray[np.float32]) -> Found:
        near = activity[max(peak - self._reach, 0) : peak + self._reach + 1].astype(np.float64)
        offsets = np.arange(len(near)) + max(peak - self._reach, 0) - peak
        centre = self._first + peak + float((near * offsets).sum() / near.sum()) + 0.5
        place = int(centre * self._stride)
        return Found(place, place + 1, self._task.labels[int(scores[peak].argmax())], float(activity[peak]))


def around(values: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """(frames, k): the sum of each frame and `reach` frames on both sides; those past an end count as the end's."""
    if not reach:
        return values
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    total: NDArray[np.float32] = padded[: len(values)].copy()
    for shift in range(1, 2 * reach + 1):  # one by one, so that a part of a sequence gives the same bits
        total += padded[shift : shift + len(values)]
    return total


def log_softmax(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over axis 1."""
    shifted = outputs - outputs.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), np.float32)


def nan_mean(values: NDArray[np.float64]) -> float:
    """The mean of what is defined; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _share(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else float("nan")
