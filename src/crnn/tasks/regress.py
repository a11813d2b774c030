"""Regression of one number per sequence: scaling, loss, metrics and predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crnn.config import build_config, config, to_plain
from crnn.data.annotation import Annotation
from crnn.data.dataset import Target
from crnn.errors import ConfigError, DataError
from crnn.tasks.task import Scores, Table, Task


@config
class RegressConfig:
    """Loss of a regression; the target is scaled to mean 0 and deviation 1 first, so losses are in those units."""

    loss: Literal["mse", "mae", "huber", "quantile"] = "mse"
    """Squared, absolute, Huber (squared near, absolute far), or quantiles with an interval."""
    huber_delta: float = 1.0
    """Where Huber turns from squared to absolute, in standard deviations of the target."""
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    """What loss="quantile" predicts, ascending, one output each; 0.5 is the prediction itself."""

    def __post_init__(self) -> None:
        if self.huber_delta <= 0:
            raise ConfigError(f"task.huber_delta={self.huber_delta}; expected more than 0")
        ascending = all(a < b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False))
        if not ascending or not all(0 < q < 1 for q in self.quantiles) or 0.5 not in self.quantiles:
            raise ConfigError(
                f"task.quantiles={list(self.quantiles)}; expected ascending numbers between 0 and 1, 0.5 among them"
            )


class Regress(Task):
    """One number per sequence.

    Outputs are in units of the training targets' deviation from their mean; predictions and scores in the target's.
    """

    name = "regress"
    Config = RegressConfig
    primary = "rmse"
    higher_is_better = False

    def __init__(self, mean: float, std: float, config: RegressConfig) -> None:
        self.config = config
        self.mean = mean
        self.std = std
        self.labels = [f"q{q:g}" for q in config.quantiles] if config.loss == "quantile" else ["value"]
        self._levels = torch.tensor(config.quantiles)
        self._median = config.quantiles.index(0.5)

    @classmethod
    def from_targets(cls, targets: Sequence[Target], config: RegressConfig) -> Regress:
        if not targets:
            raise DataError("training targets: found none, expected at least 2 different numbers")
        values = np.array([number(target, f"training example {i}") for i, target in enumerate(targets)])
        std = float(values.std())
        if not std > 0:
            raise DataError(
                f"training targets: all {len(values)} are {values[0]:g}; expected at least 2 different numbers"
            )
        return cls(float(values.mean()), std, config)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Regress:
        return cls(state["mean"], state["std"], build_config(RegressConfig, state["config"], "task"))

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "config": to_plain(self.config)}

    @property
    def units(self) -> tuple[float, float]:
        return self.std, self.mean

    @property
    def num_outputs(self) -> int:
        return len(self.labels)

    def encode(self, targets: Sequence[Target], where: Sequence[str]) -> Tensor:
        """Scaled targets, (n,) float32."""
        values = [number(target, place) for target, place in zip(targets, where, strict=True)]
        scaled = (np.array(values, dtype=np.float64) - self.mean) / self.std  # before float32 rounds large values
        return torch.from_numpy(scaled).float()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.config.loss == "quantile":
            return self._pinball(outputs, targets).mean()
        predicted = outputs[:, 0]
        if self.config.loss == "mse":
            return F.mse_loss(predicted, targets)
        if self.config.loss == "mae":
            return F.l1_loss(predicted, targets)
        return F.huber_loss(predicted, targets, delta=self.config.huber_delta)

    def aims(self, targets: Tensor) -> Tensor:
        """The value itself, for every quantile."""
        return targets[:, None].expand(-1, self.num_outputs)

    def _pinball(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(batch, quantiles). Source: Koenker & Bassett 1978."""
        error = targets[:, None] - outputs
        levels = self._levels.to(outputs)
        return torch.maximum(levels * error, (levels - 1) * error)

    def _point(self, outputs: Tensor) -> Tensor:
        return outputs.sort(1).values[:, self._median] if self.config.loss == "quantile" else outputs[:, 0]

    def monitor(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        error = (self._point(outputs) - targets).double() * self.std
        return {"rmse": float(error.square().mean().sqrt()), "mae": float(error.abs().mean())}

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        """rmse, mae, r2 (NaN where all targets are equal), in the target's units; for quantiles also the mean pinball
        loss and the coverage: the share of targets inside the outermost quantiles."""
        outputs, targets = outputs.detach().double().cpu(), targets.double().cpu()
        values = self.monitor(outputs, targets)
        spread = float((targets - targets.mean()).square().sum())
        residual = float((self._point(outputs) - targets).square().sum())
        values["r2"] = 1 - residual / spread if spread else float("nan")
        if self.config.loss != "quantile":
            return Scores(values)
        ordered = outputs.sort(1).values  # quantiles that cross are put in order
        pinball = self._pinball(ordered, targets).mean(0) * self.std
        below = (targets[:, None] <= ordered).double().mean(0)
        inside = (targets >= ordered[:, 0]) & (targets <= ordered[:, -1])
        values["pinball"] = float(pinball.mean())
        values["coverage"] = float(inside.double().mean())
        rows = [list(row) for row in zip(self.config.quantiles, below.tolist(), pinball.tolist(), strict=True)]
        wanted = self.config.quantiles[-1] - self.config.quantiles[0]
        note = f"The interval between the outermost should hold {wanted:.0%} of the targets."
        return Scores(values, [Table("Quantiles", ["quantile", "share below", "pinball loss"], rows, note)])

    def predictions(self, outputs: Tensor) -> list[dict[str, Any]]:
        """{'value'} for each example in the target's units; {'value', 'quantiles'} for loss="quantile"."""
        outputs = outputs.detach().double()
        values = (self._point(outputs) * self.std + self.mean).tolist()
        if self.config.loss != "quantile":
            return [{"value": value} for value in values]
        rows = (outputs.sort(1).values * self.std + self.mean).tolist()
        names = [f"{q:g}" for q in self.config.quantiles]
        return [
            {"value": value, "quantiles": dict(zip(names, row, strict=True))}
            for value, row in zip(values, rows, strict=True)
        ]


def number(target: Target, where: str) -> float:
    """A finite number, also when written as text.

    Raises:
        DataError: no target, text that is no number, NaN or infinity, or a set of labels.
    """
    if target is None:
        raise DataError(f"{where}: found no target, expected a number; fill it in, or leave the example out")
    if isinstance(target, tuple):
        raise DataError(f"{where}: found a set of labels {target!r}, expected a number; use --task multilabel")
    if isinstance(target, Annotation):
        raise DataError(f"{where}: found labels of frames or events, expected a number; use --task tag")
    try:
        value = float(target)
    except ValueError:
        raise DataError(f"{where}: found {target!r}, expected a number; use --task classify for classes") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: found the target {value}, expected a finite number; leave the example out")
    return value
