"""Edit distance with its path: what was inserted, left out and taken for something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Edits(NamedTuple):
    """How many changes make the hypothesis of the reference, and how long that is."""

    insertions: int
    deletions: int
    substitutions: int
    length: int
    """Of the reference."""

    @property
    def total(self) -> int:
        """All changes."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Changes for each unit of the reference: CER of characters, WER of words; NaN without any."""
        return self.total / self.length if self.length else float("nan")


Pair = tuple[str | None, str | None]
"""(unit of the reference, unit of the hypothesis): None on the left was inserted, None on the right left out."""


def align_units(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """Both sequences side by side, with as few changes as can be (Levenshtein).

    Among equally short ways, one that keeps or exchanges units late in the sequence is taken.
    """
    table = _distances(reference, hypothesis)
    pairs: list[Pair] = []
    i, j = len(reference), len(hypothesis)
    while i or j:
        here = table[i, j]
        if i and j and here == table[i - 1, j - 1] + (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((reference[i], hypothesis[j]))
        elif i and here == table[i - 1, j] + 1:
            i -= 1
            pairs.append((reference[i], None))
        else:
            j -= 1
            pairs.append((None, hypothesis[j]))
    return pairs[::-1]


def count_edits(pairs: Sequence[Pair]) -> Edits:
    """Changes of an alignment."""
    insertions = sum(a is None for a, _ in pairs)
    deletions = sum(b is None for _, b in pairs)
    changed = sum(a != b for a, b in pairs) - insertions - deletions
    return Edits(insertions, deletions, changed, len(pairs) - insertions)


def distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """The least number of changes."""
    return 0 if reference == hypothesis else int(_distances(reference, hypothesis)[-1, -1])


def _distances(reference: Sequence[str], hypothesis: Sequence[str]) -> NDArray[np.int32]:
    """(len(reference) + 1, len(hypothesis) + 1): distances of all pairs of beginnings."""
    numbers = {unit: n for n, unit in enumerate({*reference, *hypothesis})}
    other = np.array([numbers[unit] for unit in hypothesis], dtype=np.int32)
    steps = np.arange(len(other) + 1, dtype=np.int32)
    table = np.empty((len(reference) + 1, len(other) + 1), dtype=np.int32)
    table[0] = steps
    for i, unit in enumerate(reference, 1):
        above = table[i - 1]
        row = above + 1  # left out
        np.minimum(row[1:], above[:-1] + (other != numbers[unit]), out=row[1:])
        # inserted: the least of row[k] + (j - k) over k <= j, as a running minimum
        table[i] = np.minimum.accumulate(row - steps) + steps
    return table
