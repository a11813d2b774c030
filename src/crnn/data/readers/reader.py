"""The contract of a reader: a source and options in, a data set with its problems out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.data.dataset import Dataset, Example, Kind, Problem
from crnn.errors import DataError

Source = Path | tuple[Path, ...]
"""One file, one folder or prefix, or several files of one sequence each."""

Split = Any  # Literal["train", "validation", "test"] | None, as Example.split


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the user says about a source; None means: find out."""

    labels: Path | None = None
    """A table with a column for the file name and columns for target, group and split."""
    target: tuple[str, ...] | None = None
    """Columns (or the pattern field) of the target; several 0/1 columns make a multi-label target."""
    group: str | None = None
    """Column or pattern field of the group."""
    pattern: str | None = None
    """Fields in file names, such as '{label}_{speaker}_{take}'."""
    sample_rate: float | None = None
    """Audio is resampled to it; for series it is only recorded."""
    id: str | None = None
    """Column that tells one sequence from the next, in a long table."""
    time: str | None = None
    """Column that orders the frames of a sequence, in a long table."""
    height: int | None = None
    """Pixels to which images of lines are scaled."""
    channels: tuple[str, ...] | None = None
    """Columns that are data, in this order, in a table that has all of them."""
    alphabet: str | None = None
    """What the letters of sequences mean: dna, rna or protein."""


@dataclass(frozen=True)
class Reader:
    """One format. `read` never fails on a bad place: it leaves it out and names it in `problems`."""

    name: str
    suffixes: tuple[str, ...]
    """Lower case, with the dot."""
    claims: Callable[[Path], bool]
    """Whether this file, folder or prefix is of the format; may look at names and first bytes only."""
    read: Callable[[Source, ReadOptions], Dataset]
    options: frozenset[str]
    """Names of the ReadOptions that this format can use; another one is refused."""
    many_files: bool = False
    """True where a file is one sequence, so that a list of files is a data set."""


def make_dataset(
    examples: Iterable[Example],
    problems: Iterable[Problem],
    *,
    kind: Kind,
    channel_names: Sequence[str],
    source: str,
    sample_rate: float | None = None,
    in_memory: bool = True,
    height: int | None = None,
    vocabulary: Sequence[str] = (),
) -> Dataset:
    """A data set in which all examples have a group or none has; the rest stands in `problems`."""
    kept, found = list(examples), list(problems)
    grouped = [example for example in kept if example.group is not None]
    if grouped and len(grouped) < len(kept):
        what = "no group, while other places have one; give it one, or remove it"
        found += [Problem(example.where, what) for example in kept if example.group is None]
        kept = grouped
    twice = [name for name, count in Counter(example.id for example in kept).items() if count > 1]
    if twice:
        raise DataError(
            f"{source}: {len(twice)} ids stand more than once, first {twice[0]!r}; ids must differ: rename them"
        )
    return Dataset(
        examples=tuple(kept),
        kind=kind,
        channel_names=tuple(channel_names),
        sample_rate=sample_rate,
        source=source,
        in_memory=in_memory,
        problems=tuple(found),
        height=height,
        vocabulary=tuple(vocabulary),
    )


def join(parts: Sequence[tuple[Dataset, Split]], source: str) -> Dataset:
    """TRAIN and TEST parts as one data set, each example marked with its split.

    Raises:
        DataError: the parts have different numbers of channels.
    """
    first = parts[0][0]
    for data, _ in parts[1:]:
        if data.examples and first.examples and len(data.channel_names) != len(first.channel_names):
            raise DataError(
                f"{data.source}: found {len(data.channel_names)} channels, but {first.source} has "
                f"{len(first.channel_names)}; training and test files must have the same channels"
            )
        if data.examples and first.examples and data.vocabulary != first.vocabulary:
            raise DataError(
                f"{data.source}: has other symbols than {first.source}; say what both are, such as alphabet='dna'"
            )
    examples = [replace(example, split=split) if split else example for data, split in parts for example in data]
    problems = [problem for data, _ in parts for problem in data.problems]
    return make_dataset(
        examples,
        problems,
        kind=first.kind,
        channel_names=max((data.channel_names for data, _ in parts), key=len),
        source=source,
        sample_rate=first.sample_rate,
        in_memory=all(data.in_memory for data, _ in parts),
        height=first.height,
        vocabulary=first.vocabulary,
    )


def odd_channel_counts(places: Sequence[str], counts: Sequence[int]) -> dict[int, Problem]:
    """Positions whose number of channels is not the usual one, each with its problem."""
    if len(set(counts)) <= 1:
        return {}
    usual, times = Counter(counts).most_common(1)[0]
    return {
        i: Problem(
            places[i],
            f"found {count} channels, expected {usual} as in {times} of {len(counts)} places; "
            "give every sequence the same channels",
        )
        for i, count in enumerate(counts)
        if count != usual
    }


def number_channels(count: int) -> tuple[str, ...]:
    """Names where the format has none: 'value' for one channel, else c0, c1, ..."""
    return ("value",) if count == 1 else tuple(f"c{i}" for i in range(count))


def trim_missing_end(data: NDArray[np.float32]) -> NDArray[np.float32]:
    """(time, channels) without the frames at the end that are NaN in every channel: padding, not data."""
    if not len(data) or not np.isnan(data[-1]).all():
        return data
    present = np.flatnonzero(~np.isnan(data).all(axis=1))
    return data[: present[-1] + 1] if len(present) else data[:0]
