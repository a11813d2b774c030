"""A label for every frame, such as sleep stages or the structure of a protein; frames without one are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from crnn.data.annotation import UNLABELLED, StepLabels
from crnn.data.dataset import Problem, Target
from crnn.errors import DataError
from crnn.metrics.ecg import kappa, predictivity, sensitivity
from crnn.metrics.events import f1
from crnn.metrics.segments import segment_overlap
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged, Sequences
from crnn.tasks.tag import Finder, Found, Tag, log_odds_of_rarity
from crnn.tasks.tag_points import log_softmax, nan_mean
from crnn.tasks.task import Table


class TagLabels(Tag):
    """One of the classes in every frame; softmax."""

    form = "labels"
    activation: ClassVar[Literal["softmax", "none"]] = "softmax"
    primary = "accuracy"

    def codes(self, target: Target, where: str) -> NDArray[np.int64]:
        """(input frames,): the class of each, -1 for none or an ignored one.

        Raises:
            DataError: another kind of target, or a label that training never saw.
        """
        if not isinstance(target, StepLabels):
            raise DataError(f"{where}: found {target!r:.60}, expected a label for every frame as in training")
        used = set(np.unique(target.codes).tolist())
        table = [self.code(name, where) if code in used else -1 for code, name in enumerate(target.names)]
        return np.asarray(np.array([*table, -1])[target.codes], np.int64)  # UNLABELLED is the last

    def encode(self, targets: Sequence[Target], where: Sequence[str], frames: Frames) -> Ragged:  # type: ignore[override]
        """The class in the middle of the input frames that an output frame stands for; -1 for none."""
        rows = []
        for target, place, length, out in zip(
            targets, where, frames.lengths.tolist(), frames.out_lengths.tolist(), strict=True
        ):
            codes = self.codes(target, place)
            if len(codes) != length:
                raise DataError(f"{place}: found {len(codes)} labels for {length} frames; expected one a frame")
            middle = np.minimum(np.arange(out) * frames.stride + frames.stride // 2, length - 1)
            rows.append(torch.from_numpy(codes[middle]))
        return Ragged.of(rows)

    def find_problems(self, targets: Sequence[Target], where: Sequence[str], frames: Frames) -> list[Problem]:
        found = super().find_problems(targets, where, frames)
        for target, place, length in zip(targets, where, frames.lengths.tolist(), strict=True):
            if isinstance(target, StepLabels) and len(target.codes) != length:
                what = f"{len(target.codes)} labels for {length} frames; expected one a frame"
                found.append(Problem(place, what))
            elif isinstance(target, StepLabels) and not (target.codes != UNLABELLED).any():
                found.append(Problem(place, "no frame has a label; nothing is learned from it", "warning"))
        return found

    def weight(self, targets: Sequences) -> Tensor:
        codes = targets.data[targets.valid]
        return self.class_weight.to(codes.device)[codes[codes >= 0]].sum()

    def loss(self, outputs: Sequences, targets: Sequences) -> Tensor:  # type: ignore[override]
        """Weighted cross-entropy of the labelled frames."""
        codes = targets.data[targets.valid]
        known = codes >= 0
        if not known.any():
            return outputs.data.sum() * 0.0
        weight = self.class_weight.to(outputs.data)
        return F.cross_entropy(outputs.data[targets.valid][known], codes[known], weight)

    def follow(self, timing: Timing, sample_rate: float | None) -> LabelFinder:
        return LabelFinder(self, timing.stride, sample_rate)

    def decide(self, outputs: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The class of each output frame, and its probability."""
        scores = log_softmax(outputs)
        chosen = (scores + log_odds_of_rarity(self.counts, self.config.prior)).argmax(1)
        return chosen.astype(np.int64), np.exp(scores[np.arange(len(scores)), chosen])

    def predictions(self, outputs: Ragged, frames: Frames) -> list[dict[str, Any]]:  # type: ignore[override]
        """Runs of equal labels as {'events': [...]}; where all labels are one letter, also {'text'}, one an input
        frame."""
        made = super().predictions(outputs, frames)
        if all(len(label) == 1 for label in self.labels):
            for prediction in made:
                prediction["text"] = "".join(e["label"] * (e["end"] - e["start"]) for e in prediction["events"])
        return made

    def count(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> NDArray[np.float64]:
        """The confusion of the labelled input frames of each example, classes^2; of a protein's structure also the two
        sums of its segment overlap."""
        size, rows = len(self.labels), []
        for row, target, length in zip(outputs, targets, frames.lengths.tolist(), strict=True):
            true = self.codes(target, "")
            found = at_input_rate(self.decide(row.numpy())[0], frames.stride, length)
            known = true >= 0
            row_counts = np.bincount(true[known] * size + found[known], minlength=size * size)
            overlap = segment_overlap(true, found) if self.is_structure else ()
            rows.append([*row_counts, *overlap])
        return np.array(rows, np.float64)

    def scores_of(self, total: NDArray[np.float64]) -> dict[str, float]:
        """accuracy of the labelled frames (of a protein's structure: Q3 or Q8), mean F1 and mean sensitivity of the
        classes that occur, kappa; sov of a protein's structure."""
        confusion = self._square(total)
        right, stated, true = np.diagonal(confusion), confusion.sum(0), confusion.sum(1)
        return {
            "accuracy": float(right.sum() / true.sum()) if true.sum() else float("nan"),
            "mean_f1": nan_mean(f1(right, stated, true)[true > 0]),
            "mean_sensitivity": nan_mean(sensitivity(confusion)),
            "kappa": kappa(confusion),
            **({"sov": float(total[-2] / total[-1]) if total[-1] else float("nan")} if self.is_structure else {}),
        }

    @property
    def is_structure(self) -> bool:
        """Whether the labels are the structure of a protein: helix, strand and others, a letter each."""
        return {"H", "E"} <= set(self.labels) <= set("HECGIBTSPL-")

    def _square(self, total: NDArray[np.float64]) -> NDArray[np.int64]:
        size = len(self.labels)
        return np.asarray(total[: size * size].round(), np.int64).reshape(size, size)

    def errors(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the labelled frames that are wrong."""
        size = len(self.labels)
        square = counts[:, : size * size].reshape(-1, size, size)
        total = square.sum((1, 2))
        right = np.trace(square, axis1=1, axis2=2)
        return np.asarray(1 - np.divide(right, total, out=np.ones(len(total)), where=total > 0))

    def tables(
        self, outputs: Ragged, targets: Sequence[Target], frames: Frames, counts: NDArray[np.float64]
    ) -> list[Table]:
        confusion = self._square(counts.sum(0))
        right, true, stated = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
        columns = (self.labels, true.tolist(), sensitivity(confusion).tolist(), predictivity(confusion).tolist(),
                   f1(right, stated, true).tolist())  # fmt: skip
        rows = [list(row) for row in zip(*columns, strict=True)]
        return [Table("Frames by class", ["class", "frames", "sensitivity", "predictivity", "F1"], rows)]

    def confusion(self, total: NDArray[np.float64]) -> list[list[int]]:
        return self._square(total).tolist()  # type: ignore[no-any-return]


def at_input_rate(codes: NDArray[np.int64], stride: int, length: int) -> NDArray[np.int64]:
    """One value an input frame; frames behind the last output frame have its value."""
    repeated = np.repeat(codes, stride)[:length]
    return np.concatenate([repeated, np.repeat(repeated[-1:], length - len(repeated))])


class LabelFinder(Finder):
    """Runs of equal labels; one is told of when the label changes."""

    delay = 1.0

    def __init__(self, task: TagLabels, stride: int, sample_rate: float | None) -> None:
        super().__init__(sample_rate)
        self._task, self._stride = task, stride
        self._at = 0  # output frames so far
        self._run: tuple[int, int] | None = None  # (first output frame, class) of the run that goes on
        self._total = 0.0  # probabilities of the run, summed

    def find(self, outputs: NDArray[np.floating[Any]]) -> list[Found]:
        if not len(outputs):
            return []
        return self._go_on(*self._task.decide(np.asarray(outputs, np.float32)))

    def _go_on(self, codes: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> list[Found]:
        """The runs that end with the classes of more output frames."""
        found = []
        for code, probability in zip(codes.tolist(), probabilities.tolist(), strict=True):
            if self._run is not None and self._run[1] != code:
                found.append(self._close(self._at * self._stride))
            if self._run is None:
                self._run = (self._at, code)
            self._total += probability
            self._at += 1
        return found

    def find_rest(self, length: int) -> list[Found]:
        return [] if self._run is None else [self._close(length)]

    def state(self) -> dict[str, Any]:
        return {"at": self._at, "run": self._run, "total": self._total}

    def restore(self, state: dict[str, Any]) -> None:
        self._at, self._total = state["at"], state["total"]
        self._run = None if state["run"] is None else (state["run"][0], state["run"][1])

    def _close(self, end: int) -> Found:
        assert self._run is not None
        (first, code), count = self._run, self._at - self._run[0]
        found = Found(first * self._stride, end, self._task.labels[code], self._total / count)
        self._run, self._total = None, 0.0
        return found
