"""What happened in a training run, epoch by epoch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class EpochRecord:
    """One epoch."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean over the epoch's batches, as they were trained on (augmented)."""
    validation_loss: float | None
    """None where this epoch was not validated."""
    metrics: dict[str, float]
    """The task's, on validation; empty where this epoch was not validated."""
    learning_rate: float
    """Of the last update."""
    grad_norm: float
    """Mean before clipping; without max_grad_norm that of the last update."""
    padding: float
    """Share of the frames that were padding."""
    seconds: float
    is_best: bool
    """The best on validation so far."""


@dataclass
class History:
    """All epochs of a run."""

    records: list[EpochRecord] = field(default_factory=list)
    best_epoch: int | None = None
    """Counted from 1; None without validation."""
    stopped: Literal["", "finished", "early"] = ""
    """Empty while training goes on; "early" when patience ran out."""
    steps: int = 0
    """Updates made."""

    @property
    def seconds(self) -> float:
        """Time spent in all epochs, interruptions left out."""
        return sum(record.seconds for record in self.records)

    @property
    def best(self) -> EpochRecord | None:
        """The record of the best epoch."""
        return None if self.best_epoch is None else self.records[self.best_epoch - 1]

    def to_plain(self) -> dict[str, Any]:
        """Dicts, lists and scalars for JSON; numbers that are undefined become None."""
        plain = dataclasses.asdict(self)
        plain["records"] = [_defined(record) for record in plain["records"]]
        return plain

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> History:
        """The history that to_plain wrote."""
        records = []
        for values in plain["records"]:
            metrics = {name: math.nan if value is None else value for name, value in values["metrics"].items()}
            numbers = {name: math.nan if values[name] is None else values[name] for name in ("train_loss", "grad_norm")}
            records.append(EpochRecord(**{**values, **numbers, "metrics": metrics}))
        return cls(records, plain["best_epoch"], plain["stopped"], plain["steps"])


def _defined(values: dict[str, Any]) -> dict[str, Any]:
    """The same with None for every number that is not finite, since JSON has none."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            plain[name] = _defined(value)
        else:
            plain[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return plain
