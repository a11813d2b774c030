"""Which sequences stand together in a batch: alike in length, as many to each, or as many frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Order = NDArray[np.int64]

TRIAL_EPOCHS = 4
"""Epochs that are laid out beforehand, to learn how many batches a budget of frames makes."""
TRIALS = 12
"""Halvings in the search for the budget that makes batches alike; what is left is a 4096th of it."""
WIDEN = 1.01
"""By how much a budget grows at a time where an epoch would come out with too many batches."""


class Layout(Protocol):
    """Lays out epochs of equally many batches."""

    number: int
    """Batches an epoch."""
    smallest: int
    """Sequences that the smallest batch may hold."""

    def lay_out(self, random: np.random.Generator) -> tuple[Order, list[int]]:
        """The examples of an epoch in a random order, and the sizes of the batches they come in."""
        ...


class BySize:
    """Batches whose sizes are given; examples are sorted by length within pools of so many batches."""

    def __init__(self, lengths: Order, sizes: list[int], *, pool: int) -> None:
        self.lengths, self.sizes, self.pool = lengths, sizes, pool
        self.number, self.smallest = len(sizes), min(sizes)

    def lay_out(self, random: np.random.Generator) -> tuple[Order, list[int]]:
        order = random.permutation(len(self.lengths))
        if self.pool > 1:
            pools = np.repeat(np.arange(len(self.sizes)) // self.pool, self.sizes)
            order = order[np.lexsort((self.lengths[order], pools))]  # stable: equal lengths stay shuffled
        return order, self.sizes


class ByFrames:
    """Batches of at most `frames` frames, padding included: many short sequences, or a few long ones.

    More frames only where `least` sequences are longer together, and a few per cent where an epoch would come out with
    more batches than the first ones did: the learning rate and the other processes count on their number.
    """

    def __init__(self, lengths: Order, frames: int, *, pool: int, least: int) -> None:
        self.lengths, self.frames = lengths, frames
        self.smallest = least = min(least, len(lengths))
        together = len(sizes_by_frames(np.sort(lengths).tolist(), frames, least=least))
        self.pools = max(1, round(together / pool))
        trials = [self._in_pools(np.random.default_rng(i), frames) for i in range(TRIAL_EPOCHS)]
        reachable = -(-len(lengths) // (2 * least - 1))  # batches below 2 * least cannot be halved any more
        self.number = min(max(len(sizes) for _, sizes in trials), max(reachable, self.pools))

    def lay_out(self, random: np.random.Generator) -> tuple[Order, list[int]]:
        seed, frames = int(random.integers(1 << 62)), self.frames
        order, sizes = self._in_pools(np.random.default_rng(seed), frames)
        while len(sizes) > self.number:
            frames = int(frames * WIDEN) + 1
            order, sizes = self._in_pools(np.random.default_rng(seed), frames)
        longest = self.lengths[order[np.cumsum(sizes) - 1]].tolist()
        return order, _halved(sizes, longest, self.number, self.smallest)

    def _in_pools(self, random: np.random.Generator, frames: int) -> tuple[Order, list[int]]:
        parts, sizes = [], []
        for part in np.array_split(random.permutation(len(self.lengths)), self.pools):
            by_length = part[np.argsort(self.lengths[part], kind="stable")]
            parts.append(by_length)
            sizes += sizes_by_frames(self.lengths[by_length].tolist(), frames, least=self.smallest)
        return np.concatenate(parts), sizes


def even_sizes(count: int, batch_size: int) -> list[int]:
    """Sizes of as few batches as possible, equal up to one."""
    number = -(-count // batch_size)
    if number > 1 and count // number == 1 and batch_size > 1:
        number -= 1  # 5 in batches of 2: 3 + 2 rather than 2 + 2 + 1
    return _parts(count, number)


def bounded_sizes(sizes: Sequence[int], lengths: Sequence[int], max_frames: int) -> list[int]:
    """The same sizes, where batches of more than `max_frames` frames, padding included, are divided; lengths rise."""
    bounded: list[int] = []
    end = 0
    for size in sizes:
        end += size
        fits = max(1, max_frames // lengths[end - 1])  # by the longest of the batch
        bounded += [size] if size <= fits else _parts(size, -(-size // fits))
    return bounded


def sizes_by_frames(lengths: Sequence[int], frames: int, *, least: int = 1) -> list[int]:
    """Sizes of as few batches as `frames` frames each allow, padding included, and as much alike as can be.

    Args:
        lengths: of the sequences; they rise.
        least: sequences a batch, also where they are longer than the budget.
    """
    number = len(_filled(lengths, frames, least))
    low, high = 0, frames
    for _ in range(TRIALS):
        middle = (low + high) // 2
        low, high = (low, middle) if len(_filled(lengths, middle, least)) <= number else (middle, high)
    return _filled(lengths, high, least)


def _filled(lengths: Sequence[int], frames: int, least: int) -> list[int]:
    """Batches filled to the budget, the longest sequences first."""
    sizes: list[int] = []
    end = len(lengths)
    while end:
        size = max(least, frames // lengths[end - 1])
        size = end if end < size + least else size  # too few would be left for a batch of their own
        sizes.append(size)
        end -= size
    return sizes[::-1]


def _halved(sizes: list[int], longest: list[int], number: int, least: int) -> list[int]:
    """The same batches, the largest of them halved until there are `number`; `longest` is a length for each."""
    sizes, longest = list(sizes), list(longest)
    while len(sizes) < number:
        costs = [size * length if size >= 2 * least else 0 for size, length in zip(sizes, longest, strict=True)]
        largest = max(range(len(sizes)), key=costs.__getitem__)
        sizes[largest : largest + 1] = _parts(sizes[largest], 2)
        longest.insert(largest, longest[largest])
    return sizes


def _parts(count: int, number: int) -> list[int]:
    """`number` sizes, equal up to one, the larger first."""
    size, larger = divmod(count, number)
    return [size + 1] * larger + [size] * (number - larger)
