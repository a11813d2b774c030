"""Examples and data sets: what readers make and everything else consumes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from crnn.data.annotation import Annotation
from crnn.errors import DataError

Target = str | float | tuple[str, ...] | Annotation | None
"""A class label or a text, a number, a set of labels (multi-label), labels of frames or events, or nothing."""

PART = 1 << 20
"""Frames of a long recording that are read at a time."""

Kind = Literal["series", "audio", "symbols", "image"]
"""series: (time, channels) float32, NaN where missing; audio: (time, 1) float32, -1..1; symbols: (time,) int64 ids;
image: a line of text as (width, channels, height) float32, 0..1, ink high: its columns are the frames."""


@dataclass(frozen=True)
class Example:
    """One sequence and what is known about it; the data itself is read when `load` is called."""

    id: str
    """Stable and unique within its data set: the relative path, or the id column, or file name and case number."""
    where: str
    """For messages: 'digits/3/a.wav', 'train.csv row 812'."""
    length: int
    """Frames, at the data set's rate."""
    load: Callable[[], NDArray[np.generic]]
    """Returns (length, channels) float32, (length, channels, height) for images, or (length,) int64 for symbols. Cheap
    for data held in memory."""
    target: Target = None
    group: str | None = None
    """Speaker, patient, subject: one group never stands on two sides of a split."""
    split: Literal["train", "validation", "test"] | None = None
    """Where the files themselves say so (X_TRAIN.ts, a train/ folder, a split column)."""
    part: Callable[[int, int], NDArray[np.generic]] | None = None
    """Frames start ... end - 1 alone, where that costs less than `load`: for long recordings."""
    files: tuple[Path, ...] = ()
    """What `load` reads: a change of their size or time tells a cache that the data is not what it was."""

    def read_part(self, start: int, end: int) -> NDArray[np.generic]:
        """Frames start ... end - 1, the same as of `load`."""
        if self.part is None or (start == 0 and end == self.length):
            return self.load()[start:end]
        return self.part(start, end)


@dataclass(frozen=True)
class Problem:
    """Something wrong with one place in the data."""

    where: str
    what: str
    """What was found, what was expected, what to do."""
    level: Literal["error", "warning"] = "error"
    """An error cannot be used (it was left out); a warning can."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Dataset(Sequence[Example]):
    """Examples of one kind, with equal channels and one sample rate."""

    examples: tuple[Example, ...]
    kind: Kind
    channel_names: tuple[str, ...]
    """Empty for symbols."""
    sample_rate: float | None
    """Frames per second; None where a series has no known rate."""
    source: str
    """What was read, for the report."""
    in_memory: bool = True
    """False when `load` reads files: then nothing keeps the decoded data of the whole set."""
    problems: tuple[Problem, ...] = field(default=())
    """What the reader could not use, or found odd."""
    vocabulary: tuple[str, ...] = ()
    """For symbols: the symbol of each id."""
    height: int | None = None
    """For images: rows of pixels."""

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Example | Dataset:
        if isinstance(index, slice):
            return replace(self, examples=self.examples[index])
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def subset(self, indices: Sequence[int] | NDArray[np.integer]) -> Dataset:
        """The examples at these positions, in this order."""
        return replace(self, examples=tuple(self.examples[int(i)] for i in indices))

    @property
    def targets(self) -> list[Target]:
        return [example.target for example in self.examples]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each example."""
        return np.array([example.length for example in self.examples], dtype=np.int64)

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of one frame: (channels,), (channels, height) for images, or () for symbols."""
        return frame_shape(self.kind, len(self.channel_names), self.height)

    @property
    def frame_values(self) -> int:
        """Numbers in one frame."""
        return math.prod(self.features)

    @property
    def num_bytes(self) -> int:
        """Size of the decoded data."""
        return int(self.lengths.sum()) * (8 if self.kind == "symbols" else 4 * self.frame_values)

    def fingerprint(self) -> str:
        """Hash of ids, lengths and targets, in order: names a data set in reports without reading its data."""
        digest = hashlib.sha256(f"{self.kind} {self.channel_names} {self.sample_rate}".encode())
        for example in self.examples:
            digest.update(f"{example.id}\0{example.length}\0{example.target!r}\n".encode())
        return digest.hexdigest()[:16]


def frame_shape(kind: Kind, num_channels: int, height: int | None) -> tuple[int, ...]:
    """Shape of one frame of such data."""
    if kind == "symbols":
        return ()
    return (num_channels,) if height is None else (num_channels, height)


def content_hash(example: Example) -> str:
    """Hash of an example's decoded data: equal for copies under different names."""
    digest, shape = hashlib.blake2b(digest_size=16), None
    for start in range(0, example.length, PART):  # a long recording never stands in memory as a whole
        data = np.ascontiguousarray(example.read_part(start, min(start + PART, example.length)))
        digest.update(data.tobytes())
        shape = (example.length, *data.shape[1:])
    digest.update(str(shape).encode())
    return digest.hexdigest()


def array_example(
    id: str,
    where: str,
    data: NDArray[np.generic],
    *,
    target: Target = None,
    group: str | None = None,
    split: Literal["train", "validation", "test"] | None = None,
) -> Example:
    """An example that is held in memory: (time, channels) float32 or (time,) int64.

    Raises:
        DataError: no frames.
    """
    if len(data) == 0:
        raise DataError(f"{where}: found a sequence of length 0, expected at least 1 frame; remove it")
    return Example(id, where, len(data), lambda: data, target, group, split)
