"""Near copies: sequences of symbols that share most of their words with another one, so that a split may leak."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from crnn.data.dataset import Dataset

SHARED = 0.7
"""Share of its words from which a sequence is a near copy of another."""
MOST_SYMBOLS = 20_000_000
"""More than this is not looked through."""
COMMON = 200
"""Sequences that hold a word from which it tells nothing, such as a repeat."""


class NearCopy(NamedTuple):
    """Two places of a data set; `shared` is the part of the first one's words that the second has too."""

    first: int
    second: int
    shared: float


def near_copies(data: Dataset) -> list[NearCopy]:
    """Each example that shares most of its words with an earlier one, with the one it shares most with.

    Exact copies count, too. Other data than symbols, and very large sets, give none.
    """
    if data.kind != "symbols" or int(data.lengths.sum()) > MOST_SYMBOLS:
        return []
    size = max(len(data.vocabulary), 2)
    length = 8 if size <= 16 else 4  # by chance few words of it stand in two sequences of some hundred symbols
    holders: defaultdict[int, list[int]] = defaultdict(list)
    found = []
    for i, example in enumerate(data):
        ids = example.load().astype(np.int64)
        count = len(ids) - length + 1
        if count < 1:
            continue
        codes = np.unique(sum(ids[j : j + count] * size**j for j in range(length)))
        partners: Counter[int] = Counter()
        for code in codes.tolist():
            if len(holders[code]) <= COMMON:
                partners.update(holders[code])
                holders[code].append(i)
        if partners:
            best, shared = partners.most_common(1)[0]
            if shared >= SHARED * len(codes):
                found.append(NearCopy(i, best, shared / len(codes)))
    return found
