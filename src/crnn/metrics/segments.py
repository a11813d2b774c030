"""Segment overlap of secondary structure: whether helices and strands are found as wholes, not residue by residue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Overlap(NamedTuple):
    """Numbers that add over chains; the measure is 100 * total / weight."""

    total: float
    weight: float


def segment_overlap(true: Sequence[int] | NDArray[np.integer], found: Sequence[int] | NDArray[np.integer]) -> Overlap:
    """SOV of one chain, as sums that may be added over chains.

    For each true segment and each found one of its class that overlaps it: (overlap + allowance) / joint extent,
    weighted by the length of the true segment; a true segment without partner counts with its length. The allowance is
    the least of joint extent - overlap, overlap, and half of either segment, rounded down.

    Args:
        true, found: (residues,) classes; -1 in true for a residue that is not resolved, which ends a segment and counts
            for nothing.
    Source: Zemla et al. 1999, doi:10.1002/(SICI)1097-0134(19990201)34:2<220::AID-PROT7>3.0.CO;2-K ("SOV99"), over all
        classes together.
    """
    true_codes, found_codes = np.asarray(true), np.asarray(found)
    found_codes = np.where(true_codes < 0, -1, found_codes)
    partners = _segments(found_codes)
    total = weight = 0.0
    for start, end, code in _segments(true_codes):
        length = end - start
        overlapping = [(s, e) for s, e, c in partners if c == code and s < end and e > start]
        weight += length * max(1, len(overlapping))
        for s, e in overlapping:
            overlap, extent = min(end, e) - max(start, s), max(end, e) - min(start, s)
            allowance = min(extent - overlap, overlap, length // 2, (e - s) // 2)
            total += length * (overlap + allowance) / extent
    return Overlap(total, weight)


def _segments(codes: NDArray[np.integer]) -> list[tuple[int, int, int]]:
    """(start, end, class) of the runs of equal classes, those of -1 left out."""
    edges = np.flatnonzero(np.diff(codes)) + 1
    starts, ends = np.append(0, edges), np.append(edges, len(codes))
    return [(int(s), int(e), int(codes[s])) for s, e in zip(starts, ends, strict=True) if len(codes) and codes[s] >= 0]
