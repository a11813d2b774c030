"""Scores of the ECG literature, from confusion matrices: rows true, columns predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Confusion = NDArray[np.integer]


def sensitivity(confusion: Confusion) -> NDArray[np.float64]:
    """Right over true, of each class; NaN where a class does not occur."""
    return _divide(np.diagonal(confusion), confusion.sum(1))


def predictivity(confusion: Confusion) -> NDArray[np.float64]:
    """Right over predicted (positive predictive value), of each class; NaN where it is never predicted."""
    return _divide(np.diagonal(confusion), confusion.sum(0))


def kappa(confusion: Confusion) -> float:
    """Agreement beyond chance (Cohen 1960); NaN without examples, or where chance alone agrees on all."""
    total = confusion.sum()
    if not total:
        return float("nan")
    agreed = np.trace(confusion) / total
    chance = float((confusion.sum(0) / total) @ (confusion.sum(1) / total))
    return float((agreed - chance) / (1 - chance)) if chance < 1 else float("nan")


def jk_index(confusion: Confusion, labels: Sequence[str]) -> float:
    """Half of kappa plus an eighth of the sum of sensitivity and predictivity of S and of V; 1 is perfect.

    Source: Mar, Zaunseder, Martinez, Llamedo & Poll 2011, IEEE TBME 58(8), 2168-2177.
    """
    at = [list(labels).index(label) for label in ("S", "V")]
    parts = np.concatenate([sensitivity(confusion)[at], predictivity(confusion)[at]])
    return 0.5 * kappa(confusion) + 0.125 * float(np.nan_to_num(parts).sum())


def cinc2017_f1(confusion: Confusion, labels: Sequence[str]) -> float:
    """Mean of the F1 of normal rhythm (N), atrial fibrillation (A) and other rhythm (O); noise counts in their errors.

    Source: Clifford et al. 2017, 'AF classification from a short single lead ECG recording', CinC 44.
    """
    at = [list(labels).index(label) for label in ("N", "A", "O")]
    f1 = _divide(2 * np.diagonal(confusion), confusion.sum(0) + confusion.sum(1))
    return float(np.nan_to_num(f1[at]).mean())


def _divide(numerator: NDArray[np.integer], denominator: NDArray[np.integer]) -> NDArray[np.float64]:
    out = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
