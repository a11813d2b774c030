"""The contract of a task: targets in, loss and metrics out, predictions back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from crnn.data.dataset import Kind, Target
from crnn.errors import ConfigError


@dataclass(frozen=True)
class Table:
    """A section of the report: a titled table, numbers unformatted."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""


@dataclass(frozen=True)
class Scores:
    """What a task measures on a set of examples."""

    metrics: dict[str, float]
    """By name, the primary one first."""
    tables: list[Table] = field(default_factory=list)
    confusion: list[list[int]] | None = None
    """Rows are the true classes, columns the predicted, in the order of `Task.labels`."""


class Task(ABC):
    """One shape of problem: how targets become tensors, and outputs become predictions.

    A task is made by `from_targets` on the *training* targets, so nothing of validation or test leaks into it, and is
    saved in a run as its `state()`: plain values for JSON.
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    config: Any
    labels: list[str]
    """Class names or output names, in the order of the outputs."""
    primary: str
    """Name of the metric that early stopping watches."""
    higher_is_better: bool
    activation: ClassVar[Literal["softmax", "sigmoid", "none"]] = "none"
    """What makes probabilities of the outputs."""
    left_to_do: ClassVar[str] = ""
    """What is left to do with the outputs of an exported network, in words; empty where `activation` says it all."""
    per_step: ClassVar[bool] = False
    """True for a StepTask: one vector of outputs a frame, from a network without a summary."""
    stratify: ClassVar[bool] = True
    """Whether a split may be balanced by the targets: classes or numbers."""

    @classmethod
    def default_preset(cls, kind: Kind) -> str:
        """The preset for data of this kind where none is asked for."""
        return "bio" if kind == "symbols" else "default"

    @property
    def units(self) -> tuple[float, float]:
        """(scale, shift): output * scale + shift is in the target's units."""
        return 1.0, 0.0

    @classmethod
    @abstractmethod
    def from_targets(cls, targets: Sequence[Target], config: Any) -> Task:
        """Learn classes or scales from the training targets.

        Raises:
            DataError: targets that this task cannot use (one class only, NaN, missing).
        """

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Task: ...

    @abstractmethod
    def state(self) -> dict[str, Any]: ...

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Outputs of the network's head."""

    @property
    def output_names(self) -> list[str]:
        """What each output stands for, as exporters write it."""
        return self.labels

    @abstractmethod
    def encode(self, targets: Sequence[Target], where: Sequence[str]) -> Tensor:
        """Targets as one tensor, (n,) or (n, outputs).

        Args:
            where: each target's place, for messages.
        Raises:
            DataError: a class that training never saw, NaN, or no target: which, where, the nearest known one.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean training loss of a batch, a scalar. outputs: (batch, num_outputs)."""

    def aims(self, targets: Tensor) -> Tensor:
        """What a linear fit of the outputs aims at, (n, outputs), for targets as `encode` gives them.

        Raises:
            ConfigError: this task has none.
        """
        raise ConfigError(f"head.ridge: the task {self.name!r} has no targets for a linear fit; leave ridge away")

    def mix(self, targets: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
        """Targets of examples mixed with others of their batch (mixup), as `loss` takes them.

        Shape:
            partner: (batch,) int64, the other's position; weight: (batch,) or scalar, the share of the example itself.
        """
        share = weight.reshape(-1, *(1,) * (targets.dim() - 1)) if weight.dim() else weight
        return share * targets + (1 - share) * targets[partner]

    def monitor(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """The metrics read after every epoch: few and quick, the primary one first."""
        return self.scores(outputs, targets).metrics

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        """Metrics on a whole set; outputs as the network gives them (logits, or scaled values)."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> list[dict[str, Any]]:
        """One plain dict an example, ready for JSON: {'label': ..., 'probabilities': {...}} or {'value': ...}."""
