"""Events found against events that were there: points within a tolerance, intervals within a collar.

Everything is counted so that counts may be added over recordings, and scores are computed from the sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

Integers = NDArray[np.integer]


def match_points(true: Integers, found: Integers, tolerance: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of points at most `tolerance` apart, each point in one pair at most, the closest first.

    Args:
        true, found: positions in frames, ascending.
        tolerance: frames; 150 ms is the window of the standard for ECG beats (ANSI/AAMI EC57).
    Shape:
        returns the places of the pairs in `true` and in `found`, ascending.
    """
    low = np.searchsorted(found, true - tolerance, side="left")
    high = np.searchsorted(found, true + tolerance, side="right")
    counts = high - low
    of_true = np.repeat(np.arange(len(true)), counts)
    of_found = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
    order = np.argsort(np.abs(true[of_true] - found[of_found]), kind="stable")
    true_free, found_free = np.ones(len(true), bool), np.ones(len(found), bool)
    pairs = []
    for i, j in zip(of_true[order].tolist(), of_found[order].tolist(), strict=True):
        if true_free[i] and found_free[j]:
            true_free[i] = found_free[j] = False
            pairs.append((i, j))
    pairs.sort()
    matched = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]


def point_confusion(
    true: Integers, true_codes: Integers, found: Integers, found_codes: Integers, tolerance: float, classes: int
) -> NDArray[np.int64]:
    """Which class each point was found as: rows true, columns found, the last of both for "no point there".

    Pairs are made by position alone, whatever the classes. A true point with a code below 0 is in no row: a point
    found there counts neither for nor against.

    Shape:
        returns (classes + 1, classes + 1).
    """
    i, j = match_points(true, found, tolerance)
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    row, column = np.full(len(true), classes), np.full(len(found), classes)
    column_of_true, row_of_found = np.full(len(true), classes), np.full(len(found), classes)
    row[:], column[:] = true_codes, found_codes
    column_of_true[i], row_of_found[j] = column[j], row[i]
    known = row >= 0
    np.add.at(confusion, (row[known], column_of_true[known]), 1)
    extra = row_of_found == classes
    np.add.at(confusion, (row_of_found[extra], column[extra]), 1)
    return confusion


def interval_counts(
    true: Sequence[tuple[float, float, int]],
    found: Sequence[tuple[float, float, int]],
    classes: int,
    *,
    collar: float,
    offset_share: float = 0.5,
) -> NDArray[np.int64]:
    """Of each class: intervals found that are right, intervals found, intervals there.

    One is right where its onset is at most `collar` from the true one's, and its offset at most the larger of `collar`
    and `offset_share` of the true one's length; pairs are made so that as many as possible are right.

    Args:
        true, found: (onset, offset, class) each, in the units of `collar`.
        offset_share: infinity looks at onsets alone.
    Shape:
        returns (classes, 3).
    Source: Mesaros, Heittola & Virtanen 2016, Applied Sciences 6(6):162, event-based metrics; there 200 ms and 50 %.
    """
    counts = np.zeros((classes, 3), np.int64)
    for code in range(classes):
        there = np.array([(onset, offset) for onset, offset, c in true if c == code], float).reshape(-1, 2)
        mine = np.array([(onset, offset) for onset, offset, c in found if c == code], float).reshape(-1, 2)
        onsets = np.abs(there[:, None, 0] - mine[None, :, 0]) <= collar + 1e-9
        slack = np.maximum(collar, offset_share * (there[:, 1] - there[:, 0]))
        fits = onsets & (np.abs(there[:, None, 1] - mine[None, :, 1]) <= slack[:, None] + 1e-9)
        matched = maximum_bipartite_matching(csr_array(fits.astype(np.int8))) if fits.any() else np.array([-1])
        counts[code] = (matched >= 0).sum(), len(mine), len(there)
    return counts


def f1(right: NDArray[np.integer], found: NDArray[np.integer], there: NDArray[np.integer]) -> NDArray[np.float64]:
    """2 right / (found + there) each; NaN where nothing was found and nothing was there."""
    total = np.asarray(found + there, float)
    out = np.full(total.shape, np.nan)
    np.divide(2.0 * right, total, out=out, where=total > 0)
    return out
