"""A cache of decoded data on disk: decoded once, read as memory-mapped frames from then on, safe against changes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.data.batch import load_example
from crnn.data.dataset import Dataset, Example, Problem
from crnn.errors import ConfigError, DataError

try:
    import fcntl
except ImportError:  # Windows: two processes that make the same cache at once would each write their own
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
SAVE_SECONDS = 20.0
"""Between two writings of the index while a cache is made: what is decoded by then outlives an interruption."""
WASTE = 0.5
"""Share of frames that nothing refers to any more from which a cache is made anew."""

Stamp = list[list[Any]]
"""Path, size and time of change (ns) of every file that an example is read from; then what it is read with."""


@dataclass
class _Index:
    """Which frames of the data file are whose."""

    data: str
    """Name of the data file; a cache that is made anew gets a new one, so that who reads the old one is not misled."""
    frames: int = 0
    entries: dict[str, tuple[int, int, Stamp]] = field(default_factory=dict)
    """By id of the example: first frame, frames, and the stamp of its files when they were decoded."""


def cached(data: Dataset, folder: Path, settings: Mapping[str, Any]) -> Dataset:
    """The same data set, whose examples come from a cache in `folder`; what is not there yet is decoded into it.

    A folder holds caches of any number of data sets and settings: other settings have another file. An example is
    decoded again where the path, size or time of change of its files is not as it was. Several processes may share a
    folder; one makes the cache while the others wait.

    Args:
        settings: how the source was read, for all that the data set itself does not tell.
    Returns:
        the data set without the examples that cannot be decoded; they stand in `problems`.
    Raises:
        ConfigError: the data is in memory anyway, or its reader does not say which files it reads.
        DataError: the cache cannot be written.
    """
    if not data.examples:
        return data
    if data.in_memory:
        raise ConfigError(
            f"cache: {data.source} is held in memory as it is read, so a cache is of no use; leave it out"
        )
    example = next((example for example in data if not example.files), None)
    if example is not None:
        raise ConfigError(
            f"cache: the reader of {example.where} does not say which files it reads, so that a change would not be "
            "seen; leave the cache out"
        )
    stamps = {example.id: _stamp(example) for example in data}
    key = _key(data, settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{key}.lock"):
            index, broken = _read_index(folder, key, data)
            missing = [example for example in data if not _is_there(index, example, stamps)]
            how = _how(len(missing), len(data), index, broken)
            used = int(data.lengths.sum()) - sum(example.length for example in missing)
            if used < (1 - WASTE) * index.frames:
                index, missing = _new_index(key), list(data)
            problems = _decode(missing, data, folder, key, index, stamps) if missing else []
    except OSError as error:
        raise DataError(
            f"{folder}: the cache cannot be written ({error.strerror}); all of the data needs "
            f"{data.num_bytes / 1e9:.3g} GB there; name another folder, or leave the cache out"
        ) from None
    dtype = "<i8" if data.kind == "symbols" else "<f4"
    frame_bytes = np.dtype(dtype).itemsize * int(np.prod(data.features, dtype=np.int64))
    examples = []
    for example in data:
        if example.id not in index.entries:
            continue
        begin, length, _ = index.entries[example.id]
        place = folder / index.data, dtype, begin * frame_bytes, (length, *data.features)
        examples.append(replace(example, load=functools.partial(load_frames, *place)))
    return replace(
        data,
        examples=tuple(examples),
        source=f"{data.source}, cache {folder}: {how}",
        problems=(*data.problems, *problems),
    )


def load_frames(path: Path, dtype: str, offset: int, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Frames of a cache, mapped into memory: only what is looked at is read.

    Raises:
        DataError: the cache has gone.
    """
    try:
        return np.asarray(np.memmap(path, dtype, "r", offset, shape))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the cache has gone or is cut off ({error}); read the data again to make it") from None


def _decode(
    missing: Sequence[Example], data: Dataset, folder: Path, key: str, index: _Index, stamps: dict[str, Stamp]
) -> list[Problem]:
    """Append examples to the data file, and write the index."""
    problems: list[Problem] = []
    path = folder / index.data
    saved = time.monotonic()
    with path.open("r+b" if path.exists() else "wb") as file:
        frame_bytes = data.num_bytes // int(data.lengths.sum())
        file.seek(index.frames * frame_bytes)  # behind that lies what an interruption has left
        file.truncate()
        for example in missing:
            index.entries.pop(example.id, None)
            try:
                frames = load_example(example, data)
            except DataError as error:
                problems.append(Problem(example.where, str(error).removeprefix(f"{example.where}: ")))
                continue
            frames.astype(frames.dtype.newbyteorder("<"), copy=False).tofile(file)
            index.entries[example.id] = (index.frames, len(frames), stamps[example.id])
            index.frames += len(frames)
            if time.monotonic() - saved > SAVE_SECONDS:
                file.flush()
                _write_index(folder, key, index)
                saved = time.monotonic()
    _write_index(folder, key, index)
    return problems


def _how(missing: int, count: int, index: _Index, broken: bool) -> str:
    """What was found, for the user."""
    if broken:
        return f"damaged, all {count} decoded again"
    if not index.entries:
        return f"{count} decoded"
    return f"{missing} of {count} new or changed, decoded again" if missing else f"all {count} found"


def _is_there(index: _Index, example: Example, stamps: dict[str, Stamp]) -> bool:
    """Whether an example stands in the cache as it is now."""
    entry = index.entries.get(example.id)
    return entry is not None and entry[1:] == (example.length, stamps[example.id])


def _stamp(example: Example) -> Stamp:
    """Raises DataError when a file has gone since it was listed."""
    stamp: Stamp = []
    for path in example.files:
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); it was there a moment ago") from None
        stamp.append([str(path.absolute()), found.st_size, found.st_mtime_ns])
    if isinstance(example.load, functools.partial):  # which part of the file, at which rate
        stamp.append([repr(example.load.args)])
    return stamp


def _key(data: Dataset, settings: Mapping[str, Any]) -> str:
    """Names the cache of these settings."""
    plain = [FORMAT, data.kind, data.features, data.channel_names, data.sample_rate, data.vocabulary, dict(settings)]
    return hashlib.blake2b(json.dumps(plain, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def _new_index(key: str) -> _Index:
    return _Index(f"{key}-{os.urandom(4).hex()}.frames")


def _read_index(folder: Path, key: str, data: Dataset) -> tuple[_Index, bool]:
    """The index of a cache, or a new one; and whether there was one that is damaged."""
    path = folder / f"{key}.json"
    if not path.is_file():
        return _new_index(key), False
    try:
        plain = json.loads(path.read_bytes())
        entries = {id: (int(begin), int(length), stamp) for id, (begin, length, stamp) in plain["entries"].items()}
        index = _Index(str(plain["data"]), int(plain["frames"]), entries)
        size = (folder / index.data).stat().st_size
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return _new_index(key), True
    whole = size >= index.frames * (data.num_bytes // int(data.lengths.sum()))
    return (index, False) if whole else (_new_index(key), True)


def _write_index(folder: Path, key: str, index: _Index) -> None:
    """Whole or not at all; data files of earlier indices are removed."""
    new = folder / f"{key}.json.tmp"
    new.write_text(json.dumps({"format": FORMAT, "data": index.data, "frames": index.frames, "entries": index.entries}))
    new.replace(folder / f"{key}.json")
    for path in folder.glob(f"{key}-*.frames"):
        if path.name != index.data:
            path.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock of one that dies is given up."""
    with path.open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
