"""Ridge regression in closed form: how strongly to regularise is read from what each example gets when left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = torch.logspace(-4, 5, 28, dtype=torch.float64)
"""Tried, in units of the mean squared length of an example's features."""
SCALES = torch.cat([torch.zeros(1), torch.logspace(-1.5, 1.5, 31)]).double()
"""Tried, by which outputs are multiplied."""


class Ridge(NamedTuple):
    """outputs = features @ weight.T + bias."""

    weight: Tensor
    """(outputs, features)."""
    bias: Tensor
    """(outputs,)."""
    left_out: Tensor
    """(examples, outputs): what each example would get from a fit to all others."""

    def scaled(self, scale: float) -> Ridge:
        """All of it times a number."""
        return Ridge(self.weight * scale, self.bias * scale, self.left_out * scale)


def fit_ridge(features: Tensor, targets: Tensor) -> Ridge:
    """The penalty whose left-out outputs are nearest to the targets, in the mean over squares; float64.

    Shape:
        features: (examples, features); targets: (examples, outputs); work grows with examples cubed.
    Source: leave-one-out in closed form as Allen 1974, Technometrics 16(1); the dual as Saunders et al. 1998, ICML.
    """
    features, targets = features.double(), targets.double()
    count = len(features)
    centre, level = features.mean(0), targets.mean(0)
    centred, wanted = features - centre, targets - level
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    values = values.clamp(min=0)
    turned = vectors.T @ wanted
    best: tuple[float, Tensor, Tensor] | None = None
    for penalty in PENALTIES * values.mean().clamp(min=1e-12):
        dual = vectors @ (turned / (values + penalty)[:, None])
        leverage = 1 / count + vectors.square() @ (values / (values + penalty))
        left_out = targets - penalty * dual / (1 - leverage).clamp(min=1e-9)[:, None]
        error = float((left_out - targets).square().mean())
        if best is None or error < best[0]:
            best = error, dual, left_out
    assert best is not None, "there are penalties to try"
    weight = best[1].T @ centred
    return Ridge(weight, level - weight @ centre, best[2])


def best_scale(left_out: Tensor, loss: Callable[[Tensor], Tensor]) -> float:
    """The number by which left-out outputs have the lowest loss when they are multiplied by it; 0 for useless ones."""
    losses = torch.stack([loss((left_out * scale).float()) for scale in SCALES])
    return float(SCALES[int(losses.argmin())])
