"""A label for every frame by a linear-chain conditional random field (CRF): labels are chosen together, as a path.

The network gives, in each frame, a score of every label and a score of every label behind every other. So the scores of
transitions are weights of the network's head, one bias a pair and what the frame adds to it; they are trained, saved,
streamed and exported like all others. Where a sequence starts, the labels' scores say all there is to say.
Source: Ma & Hovy 2016, arXiv:1603.01354, section 2.3 (scores of pairs from the frame; the labels' own are ours).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from crnn.decode.crf import Viterbi, best_path
from crnn.nn.crf import path_loss
from crnn.nn.layers import Timing
from crnn.sequences import Sequences
from crnn.tasks.tag import Found, log_odds_of_rarity
from crnn.tasks.tag_labels import LabelFinder, TagLabels


class TagChain(TagLabels):
    """One of the classes in every frame, by the best path through all of them."""

    activation = "none"
    left_to_do = (
        "scores of a linear-chain CRF, of each label and of each pair (from>to); the labels are those of the best "
        "path through them (Viterbi), which is left to the caller"
    )

    @property
    def num_outputs(self) -> int:
        return len(self.labels) * (1 + len(self.labels))

    @property
    def output_names(self) -> list[str]:
        return [*self.labels, *(f"{before}>{label}" for before in self.labels for label in self.labels)]

    def loss(self, outputs: Sequences, targets: Sequences) -> Tensor:  # type: ignore[override]
        """Minus the log-probability of the labels, a labelled frame; frames without a label may have any."""
        count = self.weight(targets)
        if not count:
            return outputs.data.sum() * 0.0
        return path_loss(*self._split(outputs.data.float()), targets).sum() / count

    def path_scores(self, outputs: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(frames, classes) and (frames, classes, classes), for the decision."""
        emissions, transitions = self._split(np.asarray(outputs, np.float32))
        return emissions + log_odds_of_rarity(self.counts, self.config.prior), transitions

    def decide(self, outputs: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        codes, probabilities = best_path(*self.path_scores(outputs))
        return codes, probabilities.astype(np.float32)

    def follow(self, timing: Timing, sample_rate: float | None) -> LabelFinder:
        return ChainFinder(self, timing.stride, sample_rate)

    def _split(self, outputs: Any) -> tuple[Any, Any]:
        """Scores of labels and of pairs, of a tensor or an array."""
        size = len(self.labels)
        return outputs[..., :size], outputs[..., size:].reshape(*outputs.shape[:-1], size, size)


class ChainFinder(LabelFinder):
    """Runs of equal labels on the best path; one is told of when no later frame can change it any more."""

    delay = float("inf")

    def __init__(self, task: TagChain, stride: int, sample_rate: float | None) -> None:
        super().__init__(task, stride, sample_rate)
        self._chain, self._path = task, Viterbi(len(task.labels))

    def find(self, outputs: NDArray[np.floating[Any]]) -> list[Found]:
        return self._go_on(*self._path.push(*self._chain.path_scores(outputs)))

    def find_rest(self, length: int) -> list[Found]:
        return [*self._go_on(*self._path.finish()), *super().find_rest(length)]

    def state(self) -> dict[str, Any]:
        return {**super().state(), "path": self._path.state()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._path.restore(state["path"])
