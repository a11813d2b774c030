"""Batches: epochs of Sequences from a data set, in length buckets.

Small data is kept as one tensor and indexed; larger data is read a batch at a time, a little ahead of use.
"""

from __future__ import annotations

import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.data.buckets import ByFrames, BySize, Layout, bounded_sizes, even_sizes
from crnn.data.dataset import Dataset, Example
from crnn.errors import ConfigError, CrnnError, DataError
from crnn.sequences import Sequences

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

ONE_PASS_PIXELS = 1 << 18
"""The same for images, whose convolutions give many values a pixel: what stays in a core's cache costs half."""


def one_pass_values(data: Dataset) -> int:
    """Values in a padded batch of a pass that only computes outputs, at most."""
    return ONE_PASS_PIXELS if data.kind == "image" else ONE_PASS_VALUES


class Batches:
    """Epochs of batches of one data set.

    Promise: the batches of epoch n depend on the data, the options, `seed` and n alone, whatever was asked before, so
    that a resumed run sees what an uninterrupted one would have seen. Every example comes once an epoch, and every
    epoch has as many batches.

    Shuffled: a new random order each epoch; within pools of `pool` batches examples are sorted by length, which keeps
    padding low, and the batches come in random order. Not shuffled: sorted by length, the same each epoch. The indices
    say where each sequence of a batch stands in the data.

    With `batch_size`, batches of one epoch differ in size by one at most (50 examples at batch_size 32 come as 25 +
    25), so that no tiny last batch upsets batch norm. With `batch_frames` they are alike in frames: many short
    sequences, or a few long ones, which leaves less padding and bounds the memory of a step.

    Args:
        batch_size: sequences a batch, at most; one more where a batch of a single sequence would be left otherwise.
        batch_frames: shuffled only, instead of batch_size: frames in a batch, padding included, as ByFrames has it.
        least: with batch_frames, sequences a batch at least: as many as processes that share it.
        pool: batches whose examples are sorted by length together; 1 does not sort by length when shuffled.
        max_frames: shuffled only: a longer sequence is cut to a window of so many frames, another one each epoch.
        cache_bytes: decoded data up to this size is kept in memory; larger data is loaded again every epoch.
        max_values: not shuffled only: numbers in a padded batch, at most; fewer sequences then, but always one.
    Raises:
        ConfigError: a number below 1, a negative seed, options that do not go together.
        DataError: no examples; here or in `epoch`, an example that cannot be read, or has other frames or channels
            than announced.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int | None = None,
        *,
        shuffle: bool,
        seed: int,
        batch_frames: int | None = None,
        least: int = 1,
        pool: int = 8,
        max_frames: int | None = None,
        cache_bytes: int = 1 << 29,
        max_values: int | None = None,
    ) -> None:
        for name, value, smallest in (
            ("batch_size", batch_size, 1),
            ("batch_frames", batch_frames, 1),
            ("least", least, 1),
            ("pool", pool, 1),
            ("max_frames", max_frames, 1),
            ("seed", seed, 0),
            ("max_values", max_values, 1),
        ):
            if value is not None and value < smallest:
                raise ConfigError(f"{name}={value}; expected at least {smallest}")
        if (batch_size is None) == (batch_frames is None):
            raise ConfigError(f"batch_size={batch_size} and batch_frames={batch_frames}; expected one of them")
        if shuffle and max_values is not None:
            raise ConfigError(f"max_values={max_values} needs shuffle=False; when shuffled, lower batch_size")
        if not shuffle and (batch_frames or max_frames):
            name, value = ("batch_frames", batch_frames) if batch_frames else ("max_frames", max_frames)
            raise ConfigError(f"{name}={value} needs shuffle=True; in order, every sequence comes whole")
        if len(data) == 0:
            raise DataError(f"{data.source}: found no examples, expected at least one to make batches of")
        self.data = data
        self.shuffle = shuffle
        self.seed = seed
        self.whole_lengths = torch.from_numpy(data.lengths)
        self.lengths = self.whole_lengths if max_frames is None else self.whole_lengths.clamp(max=max_frames)
        """Frames of each example in a batch."""
        self.layout: Layout
        if batch_frames is not None:
            self.layout = ByFrames(self.lengths.numpy(), batch_frames, pool=pool, least=least)
        else:
            sizes = even_sizes(len(data), batch_size or 1)
            if max_values is not None:
                frames = max_values // data.frame_values
                sizes = bounded_sizes(sizes, sorted(data.lengths.tolist()), frames)
            self.layout = BySize(self.lengths.numpy(), sizes, pool=pool)
        self.in_memory = data.num_bytes <= cache_bytes
        self._flat = _Flat(data) if self.in_memory else None

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.layout.number

    def epoch(self, n: int, *, start: int = 0, rank: int = 0, num_ranks: int = 1) -> Iterator[tuple[Sequences, Tensor]]:
        """The batches of epoch n, n >= 0, each with the places of its sequences in the data, (batch,) int64.

        Args:
            start: the first batch to give; those before it are not read.
            rank, num_ranks: give rows rank, rank + num_ranks, ... of every batch only: the share of one process.
        """
        batches = [indices[rank::num_ranks] for indices in self.order(n)[start:]]
        begins = self._begins(n)
        if self._flat is not None:
            for indices in batches:
                yield self._flat.batch(indices, begins, self.lengths.index_select(0, indices)), indices
        else:
            yield from self._read_ahead(batches, begins)

    def order(self, n: int) -> list[Tensor]:
        """Which examples stand in each batch of epoch n."""
        if not self.shuffle:
            order = np.argsort(self.lengths.numpy(), kind="stable")
            assert isinstance(self.layout, BySize)  # as the constructor has it
            return list(torch.from_numpy(order).split(self.layout.sizes))
        random = np.random.default_rng([self.seed, n])
        order, sizes = self.layout.lay_out(random)
        batches = torch.from_numpy(order).split(sizes)
        return [batches[i] for i in random.permutation(len(batches))]

    def _begins(self, n: int) -> Tensor | None:
        """Where the window of each example begins in epoch n; None where all come whole."""
        if self.lengths is self.whole_lengths:
            return None
        drawn = np.random.default_rng([self.seed, n, 1]).random(len(self.data))
        return torch.from_numpy(drawn * (self.whole_lengths - self.lengths + 1).numpy()).long()

    @property
    def sizes(self) -> list[int]:
        """Sequences in each batch of the first epoch."""
        return [len(indices) for indices in self.order(0)]

    def padding_waste(self, n: int = 0) -> float:
        """Share of the frames of epoch n that are padding."""
        padded = sum(int(self.lengths[indices].max()) * len(indices) for indices in self.order(n))
        return 1 - int(self.lengths.sum()) / padded

    def _read(self, indices: Tensor, begins: Tensor | None) -> Sequences:
        """A batch from the examples themselves."""
        lengths = self.lengths.index_select(0, indices)
        data = _zeros(self.data, len(indices), int(lengths.max()))
        for row, i, length in zip(data, indices.tolist(), lengths.tolist(), strict=True):
            begin = 0 if begins is None else int(begins[i])
            row[:length] = torch.from_numpy(load_part(self.data[i], self.data, begin, begin + length))
        return Sequences(data, lengths)

    def _read_ahead(self, batches: list[Tensor], begins: Tensor | None) -> Iterator[tuple[Sequences, Tensor]]:
        """Batches in order, up to AHEAD of them in the making; stopping early cancels the rest."""
        executor = ThreadPoolExecutor(READERS, thread_name_prefix="crnn-read")
        pending: deque[tuple[Future[Sequences], Tensor]] = deque()
        try:
            for indices in batches:
                pending.append((executor.submit(self._read, indices, begins), indices))
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
    return load_part(example, data, 0, example.length)


def load_part(example: Example, data: Dataset, start: int, end: int) -> NDArray[np.generic]:
    """The same of frames start ... end - 1; no more of a long recording is read than has to be."""
    alone = example.part is not None and end - start < example.length
    try:
        frames = example.read_part(start, end) if alone else example.load()
    except CrnnError:
        raise  # a reader's own message says where already
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(f"{example.where}: cannot be read ({error}); repair the file or leave it out") from error
    expected = (end - start if alone else example.length, *data.features)
    if frames.shape != expected:
        raise DataError(
            f"{example.where}: found data of shape {frames.shape}, expected {expected} (frames"
            f"{', channels' if data.features else ''}); the file changed since it was listed, or differs from the rest"
        )
    dtype = np.int64 if data.kind == "symbols" else np.float32
    return np.require(frames if alone else frames[start:end], dtype, ["C", "W"])


def _zeros(data: Dataset, *shape: int) -> Tensor:
    dtype = torch.int64 if data.kind == "symbols" else torch.float32
    return torch.zeros((*shape, *data.features), dtype=dtype)


class _Flat:
    """All sequences of a data set in one tensor, end to end."""

    def __init__(self, data: Dataset) -> None:
        lengths = torch.from_numpy(data.lengths)
        total, longest = int(lengths.sum()), int(lengths.max())
        self.frames = _zeros(data, total + 1)  # the last frame is zero: padding is gathered from there
        ends = lengths.cumsum(0)
        self.starts = ends - lengths
        for example, start, end in zip(data, self.starts.tolist(), ends.tolist(), strict=True):
            self.frames[start:end] = torch.from_numpy(load_example(example, data))
        self.equal: Tensor | None = None
        """The same as (sequences, time, *features), where all have one length."""
        if longest * len(data) == total:
            self.equal = self.frames[:total].view(len(data), longest, *data.features)

    def batch(self, indices: Tensor, begins: Tensor | None, lengths: Tensor) -> Sequences:
        """The sequences at `indices`, or windows of `lengths` frames that begin at `begins` within each."""
        if begins is None and self.equal is not None:
            return Sequences(self.equal.index_select(0, indices), lengths)
        starts = self.starts.index_select(0, indices)
        return _gathered(self.frames, starts if begins is None else starts + begins.index_select(0, indices), lengths)


def _gathered(flat: Tensor, starts: Tensor, lengths: Tensor) -> Sequences:
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
