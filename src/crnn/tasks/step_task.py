"""The contract of a task that answers for every frame: tags, events, text by CTC."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.data.dataset import Problem, Target
from crnn.errors import ConfigError
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged, Sequences
from crnn.tasks.follow import Changes, Follower
from crnn.tasks.task import Scores, Table, Task

LOSS_ROWS = 64
"""Sequences in one piece of a loss over a whole data set."""


class StepTask(Task):
    """A task whose network has no summary: outputs are Sequences in training, and a Ragged for a whole data set.

    Scores are made of counts, one row of numbers an example, which may be added: so any set of examples is scored by
    summing rows, and the bootstrap draws rows.
    """

    per_step = True
    stratify = False
    silent: ClassVar[int | None] = None
    """Place of the output that has nothing to tell, such as the blank; None where every one tells something."""
    allowed_augment: ClassVar[frozenset[str]] = frozenset(
        {"scale", "noise", "rotate", "blend", "filter", "gain", "time_masks", "time_mask", "band_masks", "band_mask",
         "channel_drop", "min_length"}
    )  # fmt: skip
    """Options of `augment` that leave every frame in its place, so that targets stay true; a task may allow more."""

    @abstractmethod
    def encode(self, targets: Sequence[Target], where: Sequence[str], frames: Frames) -> Ragged:  # type: ignore[override]
        """Targets as `loss` takes them, one sequence an example, brought to the network's output frames by `frames`.

        Raises:
            DataError: a target that this task cannot use, or that does not fit its frames: which, where, what to do.
        """

    @abstractmethod
    def loss(self, outputs: Sequences, targets: Sequences) -> Tensor:  # type: ignore[override]
        """Mean training loss of a batch, a scalar: of what `weight` counts."""

    def weight(self, targets: Sequences) -> Tensor:
        """What the loss is a mean over, as a scalar: sequences, or labelled frames."""
        return torch.tensor(float(len(targets.lengths)), device=targets.lengths.device)

    @abstractmethod
    def count(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> NDArray[np.float64]:
        """(examples, k): of each example numbers that may be added over examples, such as edits and characters."""

    @abstractmethod
    def scores_of(self, total: NDArray[np.float64]) -> dict[str, float]:
        """Metrics of any set of examples from the sum of their counts, (k,); the primary one first."""

    @abstractmethod
    def errors(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """(examples,): how wrong each is, by which the worst are found."""

    def tables(
        self, outputs: Ragged, targets: Sequence[Target], frames: Frames, counts: NDArray[np.float64]
    ) -> list[Table]:
        """Sections of the report."""
        return []

    def confusion(self, total: NDArray[np.float64]) -> list[list[int]] | None:
        """Rows are the true classes, columns the predicted, in the order of `labels`; None where it has no meaning."""
        return None

    @abstractmethod
    def predictions(self, outputs: Ragged, frames: Frames) -> list[dict[str, Any]]:  # type: ignore[override]
        """One plain dict an example, ready for JSON; times in input frames, and in seconds where the rate is known."""

    def tune(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> None:
        """Choose on validation, after training, what is not trained: thresholds, decoder weights. Kept in `state`."""

    def follow(self, timing: Timing, sample_rate: float | None) -> Follower:
        """What makes news of one stream's output frames; the label whenever it changes, unless a task knows better.

        Args:
            timing: of the network's output frames: frame t is about input frame t * timing.stride.
            sample_rate: input frames in a second, where that is known.
        """
        return Changes(self.labels, timing, sample_rate)

    def find_problems(self, targets: Sequence[Target], where: Sequence[str], frames: Frames) -> list[Problem]:
        """Examples that cannot be trained on with a network of these frames, before any training."""
        return []

    def warnings(self) -> list[str]:
        """What is odd about the training targets as a whole, said by `crnn check`."""
        return []

    def remark(self, done: float) -> str:
        """What the user should know of the outputs of the last batch; "" for nothing.

        Args:
            done: share of the training that is over.
        """
        return ""

    def frames_per_label(self, targets: Sequence[Target], lengths: NDArray[np.int64]) -> float:
        """Input frames for each label of the tightest example, where an example needs as many output frames as labels:
        what bounds the pooling over time. Infinite where nothing does."""
        return math.inf

    def check_augment(self, config: Any) -> None:
        """Raises ConfigError for a change of the training data that would make targets untrue."""
        off = type(config)()
        for name in vars(off):
            if name not in self.allowed_augment and getattr(config, name) != getattr(off, name):
                raise ConfigError(
                    f"train.augment.{name}={getattr(config, name)!r}: moves frames away from their targets in task "
                    f"{self.name}; take it out"
                )

    def loss_of_all(self, outputs: Ragged, targets: Ragged) -> float:
        """The loss of a whole data set."""
        loss = weight = 0.0
        for rows in torch.arange(len(outputs)).split(LOSS_ROWS):
            true = targets.rows(rows)
            part = float(self.weight(true))
            loss += part * float(self.loss(outputs.rows(rows), true)) if part else 0.0
            weight += part
        return loss / weight if weight else float("nan")

    def monitor_steps(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> dict[str, float]:
        """The metrics read after every epoch."""
        return self.scores_of(self.count(outputs, targets, frames).sum(0))

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        raise TypeError(f"task {self.name} is scored by count and scores_of")
