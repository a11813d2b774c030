"""Calibration: whether 90 % sure is right nine times in ten, and the one number that mends most of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Bin(NamedTuple):
    """Predictions of neighbouring confidence."""

    low: float
    high: float
    examples: int
    confidence: float
    """Mean of the stated probabilities."""
    accuracy: float
    """Share of them that came true."""


class Calibration(NamedTuple):
    """Expected calibration error, and the bins behind it."""

    error: float
    bins: list[Bin]


def calibration_error(confidence: Tensor, correct: Tensor, *, num_bins: int = 15) -> Calibration:
    """Mean gap between stated probability and how often it came true, weighted by count; 0 is perfect.

    Bins hold equal numbers of predictions (edges of equal width leave most bins empty for a good classifier).

    Shape:
        confidence: (n,) in 0..1; correct: (n,) bool.
    Source: Naeini et al. 2015 (ECE); Nguyen & O'Connor 2015, arXiv:1508.05154 (adaptive bins).
    """
    bins = []
    for part in confidence.argsort(stable=True).tensor_split(max(1, min(num_bins, len(confidence)))):
        if len(part):
            stated, true = confidence[part].double(), correct[part].double()
            bins.append(Bin(float(stated[0]), float(stated[-1]), len(part), float(stated.mean()), float(true.mean())))
    total = sum(b.examples for b in bins)
    error = sum(b.examples * abs(b.confidence - b.accuracy) for b in bins) / total if total else float("nan")
    return Calibration(error, bins)


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature T for which softmax(logits / T) fits the targets best; fit it on validation, never on test.

    The likelihood is concave in 1/T, so its slope is bisected. Targets are smoothed as in Platt scaling, so that a
    small, perfectly classified set does not ask for endless confidence.

    Args:
        targets: (n,) class numbers, or (n, labels) zeros and ones for independent labels (sigmoid instead of softmax).
    Shape:
        logits: (n, classes).
    Returns:
        T, held within 0.05 to 20; 1.0 leaves the logits as they are.
    Source: Guo et al. 2017, arXiv:1706.04599; Platt 1999 (smoothed targets).
    """
    z = logits.double()
    if targets.is_floating_point():
        positive, negative = targets.sum(0).double(), (1 - targets).sum(0).double()
        wanted = torch.where(targets > 0.5, (positive + 1) / (positive + 2), 1 / (negative + 2))
    else:
        spare = 1 / (len(z) + 2)  # as if one more example had been wrong
        wanted = torch.full_like(z, spare / (z.shape[1] - 1))
        wanted.scatter_(1, targets[:, None], 1 - spare)

    def slope(inverse: float) -> float:
        scaled = z * inverse
        stated = scaled.sigmoid() if targets.is_floating_point() else scaled.softmax(1)
        return float(((wanted - stated) * z).sum())

    low, high = 1 / 20, 1 / 0.05  # of 1/T
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return 1 / math.sqrt(low * high)
