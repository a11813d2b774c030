"""Long recordings in windows that follow each other, so that what a network remembers goes from one to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.data.batch import load_example, load_part
from crnn.data.buckets import even_sizes
from crnn.data.dataset import Dataset
from crnn.errors import ConfigError
from crnn.sequences import Sequences, pad


class Window(NamedTuple):
    """The same stretch of some recordings, of which each goes on in the next window or ends in this one."""

    x: Sequences
    """(rows, frames, *features): rows that go on have as many frames each, those that end up to twice as many."""
    indices: Tensor
    """(rows,) int64: where the recordings stand in the data."""
    ends: Tensor
    """(rows,) bool: whether a recording ends here. The rows of the next window are those that do not, in this order."""
    is_first: bool
    """Whether the recordings begin here; then nothing is carried."""


class ConsecutiveWindows:
    """Epochs of windows of one data set, in groups of `batch_size` recordings whose windows follow each other.

    Promise: as Batches: the windows of epoch n depend on the data, the options, `seed` and n alone; every frame of
    every recording comes once an epoch; every epoch has as many windows.

    A recording of L frames has max(1, L // frames) windows; the last one takes the rest, so that none is tiny. A group
    holds recordings with about as many windows, drawn anew each epoch, and groups come in random order.

    Args:
        batch_size: recordings a group, at most.
        frames: frames a window.
    Raises:
        ConfigError: a number below 1.
        DataError: in `epoch`, an example that cannot be read.
    """

    def __init__(self, data: Dataset, batch_size: int, *, frames: int, seed: int) -> None:
        for name, value in (("batch_size", batch_size), ("frames", frames)):
            if value < 1:
                raise ConfigError(f"{name}={value}; expected at least 1")
        self.data, self.frames, self.seed = data, frames, seed
        self.lengths = torch.from_numpy(data.lengths)
        self.counts: NDArray[np.int64] = np.maximum(1, data.lengths // frames)
        """Windows of each recording."""
        self.sizes = even_sizes(len(data), batch_size)
        self.number = sum(int(self.counts[group].max()) for group in self.groups(0))

    def __len__(self) -> int:
        """Windows an epoch."""
        return self.number

    def groups(self, n: int) -> list[NDArray[np.int64]]:
        """The recordings of each group of epoch n, those with the most windows first."""
        random = np.random.default_rng([self.seed, n])
        order = random.permutation(len(self.data))
        order = order[np.argsort(-self.counts[order], kind="stable")]  # so all epochs have groups of as many windows
        groups = np.split(order, np.cumsum(self.sizes)[:-1])
        return [groups[i] for i in random.permutation(len(groups))]

    def epoch(self, n: int, *, start: int = 0) -> Iterator[tuple[Sequences, Tensor]]:
        """The windows as batches of their own, as Batches gives them."""
        return ((window.x, window.indices) for window in self.steps(n, start=start))

    def steps(self, n: int, *, start: int = 0) -> Iterator[Window]:
        """The windows of epoch n, from the one numbered `start` on; recordings are read when their group begins."""
        done = 0
        for group in self.groups(n):
            count = int(self.counts[group].max())
            if done + count > start:
                yield from self._group(group, max(0, start - done))
            done += count

    def _group(self, group: NDArray[np.int64], start: int) -> Iterator[Window]:
        examples = [self.data[int(i)] for i in group]
        loaded = [None if e.part is not None else torch.from_numpy(load_example(e, self.data)) for e in examples]

        def stretch(i: int, begin: int, end: int) -> Tensor:
            whole = loaded[i]
            return (
                torch.from_numpy(load_part(examples[i], self.data, begin, end)) if whole is None else whole[begin:end]
            )

        for k in range(start, int(self.counts[group].max())):
            begin, here = k * self.frames, np.flatnonzero(self.counts[group] > k)
            last = self.counts[group[here]] == k + 1
            ends = np.where(last, self.data.lengths[group[here]], begin + self.frames)
            rows = [stretch(i, begin, end) for i, end in zip(here.tolist(), ends.tolist(), strict=True)]
            yield Window(pad(rows), torch.from_numpy(group[here]), torch.from_numpy(last), is_first=k == 0)
