"""Batches: epochs of Sequences from a data set, in length buckets.

Small data is kept as one tensor and indexed; larger data is read a batch at a time, a little ahead of use.
"""

from __future__ import annotations

import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.data.dataset import Dataset, Example
from crnn.errors import ConfigError, CrnnError, DataError
from crnn.sequences import Sequences

Order = NDArray[np.int64]

READERS = 2
"""Threads that read ahead; decoding audio releases the interpreter's lock."""
AHEAD = 3
"""Batches that are read before they are asked for: the memory that reading ahead may cost."""
COPY_FROM = 1024
"""Frames from which copying a sequence as a slice beats gathering it frame by frame."""
ONE_PASS_CACHE = 1 << 26
"""Bytes that are worth keeping decoded for a single pass: more costs memory and saves nothing."""
ONE_PASS_VALUES = 1 << 22
"""Values in a padded batch of a pass that only computes outputs: larger batches cost memory and save no time."""


class Batches:
    """Epochs of batches of one data set.

    Promise: the batches of epoch n depend on the data, `batch_size`, `pool`, `seed` and n alone, whatever was asked
    before, so that a resumed run sees what an uninterrupted one would have seen. Every example comes once an epoch.

    Shuffled: a new random order each epoch; within pools of `pool` batches examples are sorted by length, which keeps
    padding low, and the batches come in random order. Not shuffled: sorted by length, the same each epoch. The indices
    say where each sequence of a batch stands in the data.

    Batches of one epoch differ in size by one at most (50 examples at batch_size 32 come as 25 + 25), so that no tiny
    last batch upsets batch norm.

    Args:
        batch_size: sequences a batch, at most; one more where a batch of a single sequence would be left otherwise.
        pool: batches whose examples are sorted by length together; 1 does not sort by length when shuffled.
        cache_bytes: decoded data up to this size is kept in memory; larger data is loaded again every epoch.
        max_values: not shuffled only: numbers in a padded batch, at most; fewer sequences then, but always one.
    Raises:
        ConfigError: batch_size, pool or max_values below 1, a negative seed, max_values with shuffle.
        DataError: no examples; here or in `epoch`, an example that cannot be read, or has other frames or channels
            than announced.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        pool: int = 8,
        cache_bytes: int = 1 << 29,
        max_values: int | None = None,
    ) -> None:
        most = 1 if max_values is None else max_values
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("pool", pool, 1),
            ("seed", seed, 0),
            ("max_values", most, 1),
        ):
            if value < least:
                raise ConfigError(f"{name}={value}; expected at least {least}")
        if shuffle and max_values is not None:
            raise ConfigError(f"max_values={max_values} needs shuffle=False; when shuffled, lower batch_size")
        if len(data) == 0:
            raise DataError(f"{data.source}: found no examples, expected at least one to make batches of")
        self.data = data
        self.shuffle = shuffle
        self.seed = seed
        self.pool = pool
        self.lengths = torch.from_numpy(data.lengths)
        self.sizes = _even_sizes(len(data), batch_size)
        if max_values is not None:
            frames = max_values // data.frame_values
            self.sizes = _bounded_sizes(self.sizes, sorted(data.lengths.tolist()), frames)
        self.in_memory = data.num_bytes <= cache_bytes
        self._fill: Callable[[Tensor], Sequences] = _memory(data, self.lengths) if self.in_memory else self._read

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.sizes)

    def epoch(self, n: int, *, start: int = 0, rank: int = 0, num_ranks: int = 1) -> Iterator[tuple[Sequences, Tensor]]:
        """The batches of epoch n, n >= 0, each with the places of its sequences in the data, (batch,) int64.

        Args:
            start: the first batch to give; those before it are not read.
            rank, num_ranks: give rows rank, rank + num_ranks, ... of every batch only: the share of one process.
        """
        batches = [indices[rank::num_ranks] for indices in self.order(n)[start:]]
        if self.in_memory:
            for indices in batches:
                yield self._fill(indices), indices
        else:
            yield from self._read_ahead(batches)

    def order(self, n: int) -> list[Tensor]:
        """Which examples stand in each batch of epoch n."""
        if not self.shuffle:
            order = np.argsort(self.lengths.numpy(), kind="stable")
            return list(torch.from_numpy(order).split(self.sizes))
        random = np.random.default_rng([self.seed, n])
        order = random.permutation(len(self.data))
        if self.pool > 1:
            pools = np.repeat(np.arange(len(self.sizes)) // self.pool, self.sizes)
            order = order[np.lexsort((self.lengths.numpy()[order], pools))]  # stable: equal lengths stay shuffled
        batches = torch.from_numpy(order).split(self.sizes)
        return [batches[i] for i in random.permutation(len(batches))]

    def padding_waste(self, n: int = 0) -> float:
        """Share of the frames of epoch n that are padding."""
        padded = sum(int(self.lengths[indices].max()) * len(indices) for indices in self.order(n))
        return 1 - int(self.lengths.sum()) / padded

    def _read(self, indices: Tensor) -> Sequences:
        """A batch from the examples themselves."""
        lengths = self.lengths.index_select(0, indices)
        data = _zeros(self.data, len(indices), int(lengths.max()))
        for row, i in zip(data, indices.tolist(), strict=True):
            frames = torch.from_numpy(load_example(self.data[i], self.data))
            row[: len(frames)] = frames
        return Sequences(data, lengths)

    def _read_ahead(self, batches: list[Tensor]) -> Iterator[tuple[Sequences, Tensor]]:
        """Batches in order, up to AHEAD of them in the making; stopping early cancels the rest."""
        executor = ThreadPoolExecutor(READERS, thread_name_prefix="crnn-read")
        pending: deque[tuple[Future[Sequences], Tensor]] = deque()
        try:
            for indices in batches:
                pending.append((executor.submit(self._read, indices), indices))
                if len(pending) == AHEAD:
                    ready, where = pending.popleft()
                    yield ready.result(), where
            while pending:
                ready, where = pending.popleft()
                yield ready.result(), where
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def load_example(example: Example, data: Dataset) -> NDArray[np.generic]:
    """The frames of an example, checked against what its data set says: writable, contiguous, of the right type.

    Raises:
        DataError: it cannot be read, or has other frames or channels than announced; says where.
    """
    try:
        frames = example.load()
    except CrnnError:
        raise  # a reader's own message says where already
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(f"{example.where}: cannot be read ({error}); repair the file or leave it out") from error
    expected = (example.length, *data.features)
    if frames.shape != expected:
        raise DataError(
            f"{example.where}: found data of shape {frames.shape}, expected {expected} (frames"
            f"{', channels' if data.features else ''}); the file changed since it was listed, or differs from the rest"
        )
    return np.require(frames, np.int64 if data.kind == "symbols" else np.float32, ["C", "W"])


def _even_sizes(count: int, batch_size: int) -> list[int]:
    """Sizes of as few batches as possible, equal up to one."""
    number = -(-count // batch_size)
    if number > 1 and count // number == 1 and batch_size > 1:
        number -= 1  # 5 in batches of 2: 3 + 2 rather than 2 + 2 + 1
    return _parts(count, number)


def _bounded_sizes(sizes: list[int], lengths: list[int], max_frames: int) -> list[int]:
    """The same sizes, where batches of more than `max_frames` frames, padding included, are divided; lengths rise."""
    bounded: list[int] = []
    end = 0
    for size in sizes:
        end += size
        fits = max(1, max_frames // lengths[end - 1])  # by the longest of the batch
        bounded += [size] if size <= fits else _parts(size, -(-size // fits))
    return bounded


def _parts(count: int, number: int) -> list[int]:
    """`number` sizes, equal up to one, the larger first."""
    size, larger = divmod(count, number)
    return [size + 1] * larger + [size] * (number - larger)


def _zeros(data: Dataset, *shape: int) -> Tensor:
    dtype = torch.int64 if data.kind == "symbols" else torch.float32
    return torch.zeros((*shape, *data.features), dtype=dtype)


def _memory(data: Dataset, lengths: Tensor) -> Callable[[Tensor], Sequences]:
    """Load everything into one tensor; returns what makes a batch of it."""
    total, longest = int(lengths.sum()), int(lengths.max())
    flat = _zeros(data, total + 1)  # the last frame is zero: padding is gathered from there
    ends = lengths.cumsum(0)
    starts = ends - lengths
    for example, start, end in zip(data, starts.tolist(), ends.tolist(), strict=True):
        flat[start:end] = torch.from_numpy(load_example(example, data))
    if longest * len(data) == total:
        equal = flat[:total].view(len(data), longest, *data.features)
        return lambda indices: Sequences(equal.index_select(0, indices), lengths.index_select(0, indices))
    return lambda indices: _fill_flat(flat, starts.index_select(0, indices), lengths.index_select(0, indices))


def _fill_flat(flat: Tensor, starts: Tensor, lengths: Tensor) -> Sequences:
    """A padded batch of the sequences that stand at `starts` in flat, (frames + 1, *features)."""
    longest = int(lengths.max())
    if longest < COPY_FROM:
        time = torch.arange(longest)
        frames = torch.where(time < lengths[:, None], starts[:, None] + time, len(flat) - 1)
        data = flat.index_select(0, frames.view(-1)).view(len(lengths), longest, *flat.shape[1:])
        return Sequences(data, lengths)
    data = flat.new_zeros((len(lengths), longest, *flat.shape[1:]))
    for row, start, length in zip(data, starts.tolist(), lengths.tolist(), strict=True):
        row[:length] = flat[start : start + length]
    return Sequences(data, lengths)
